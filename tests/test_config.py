"""Where values come from, and what is refused."""

import tomllib

import pytest

from gansmith.config import FIELDS, Config, load_config, parse_count, resolve
from gansmith.recipes import RECIPES


def test_sources_win_in_order(tmp_path):
    file = tmp_path / "my.toml"
    file.write_text('recipe = "mlp-small"\nbatch = 8\nz_dim = 9\nseed = 3\n')
    config, origins = resolve(file=file, environ={"GANSMITH_Z_DIM": "10", "GANSMITH_SEED": "4"}, arguments={"seed": "5"})
    assert (config.recipe, config.g_width, config.batch_size, config.latent_dim, config.seed) == (
        "mlp-small",
        256,
        8,
        10,
        5,
    )
    assert origins["g_width"] == "recipe mlp-small"
    assert (origins["batch"], origins["latent_dim"], origins["seed"]) == (str(file), "environment", "flag")
    assert origins["beta1"] == "recipe mlp-small" and origins["dropout"] == "default"


def test_variables_that_name_places_are_not_fields():
    config, _ = resolve(environ={"GANSMITH_DATA": "/x", "GANSMITH_CACHE": "/y", "GANSMITH_OFFLINE": "1", "PATH": "z"})
    assert config == resolve()


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_config_survives_its_own_toml(recipe, tmp_path):
    config, _ = resolve(recipe)
    path = tmp_path / "config.toml"
    path.write_text(config.to_toml())
    assert load_config(path) == config
    assert resolve(file=path) == config


@pytest.mark.parametrize("recipe", RECIPES)
def test_flags_alone_reproduce_any_row(recipe):
    expected = resolve(recipe).as_dict()
    flags = {name: str(value) for name, value in expected.items() if name != "recipe"}
    assert {**resolve(arguments=flags).as_dict(), "recipe": recipe} == expected


@pytest.mark.parametrize(("text", "number"), [("7", 7), ("200k", 200_000), ("1.5M", 1_500_000), ("2M", 2_000_000)])
def test_counts_may_be_abbreviated(text, number):
    assert parse_count(text) == number


@pytest.mark.parametrize("text", ["1.5", "0.0001k", "k", "", "1e3", "12kk", "infM", "nanM"])
def test_counts_are_whole_numbers(text):
    with pytest.raises((ValueError, OverflowError)):
        parse_count(text)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"images": "0"}, ("images", "0", "1 or more")),
        ({"images": "many"}, ("images", "'many'", "whole number")),
        ({"images": "infM"}, ("images", "whole number")),
        ({"batch_size": "1"}, ("batch", "between 2")),
        ({"batch_size": True}, ("batch", "True", "whole number")),
        ({"g_lr": "nan"}, ("g_lr", "nan")),
        ({"g_lr": "fast"}, ("g_lr", "'fast'", "number")),
        ({"conditioning": "label"}, ("conditioning", "did you mean 'labels'")),
        ({"btach": "3"}, ("flag", "btach", "did you mean 'batch'")),
        ({"use_all_training_images": "maybe"}, ("use_all_training_images", "true or false")),
        ({"real_target_low": "0.9", "real_target_high": "0.1"}, ("real_target_low", "swap")),
    ],
)
def test_a_wrong_value_is_refused_in_one_sentence(flags, words):
    with pytest.raises(ValueError) as refusal:
        resolve(arguments=flags)
    assert all(word in str(refusal.value) for word in words)
    assert "\n" not in str(refusal.value)


def test_an_unknown_recipe_names_the_closest():
    with pytest.raises(ValueError, match="did you mean 'default'"):
        resolve("defualt")


def test_broken_and_missing_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file"):
        resolve(file=tmp_path / "none.toml")
    bad = tmp_path / "bad.toml"
    bad.write_text("batch = = 3")
    with pytest.raises(ValueError, match="not valid TOML"):
        resolve(file=bad)


def test_every_field_says_what_it_is():
    assert all(field.metadata["help"] for field in FIELDS.values())
    assert tomllib.loads(Config().to_toml()).keys() == FIELDS.keys()
