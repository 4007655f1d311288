"""Where values come from, and what is refused."""

import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

from gansmith.advice import ADVICE, SOURCES
from gansmith.config import (
    FIELDS,
    SYNONYMS,
    UNSUPPORTED,
    Config,
    choose,
    is_path,
    is_repeat,
    load_config,
    name_of,
    parse_count,
    parse_labels,
    read_toml,
    resolve,
    unknown_field,
)
from gansmith.errors import ConfigError, NotFoundError
from gansmith.recipes import RECIPES
from gansmith.training.losses import OBJECTIVES


def test_sources_win_in_order(tmp_path):
    file = tmp_path / "my.toml"
    file.write_text('recipe = "mlp-small"\nbatch_size = 8\nlatent_dim = 9\nseed = 3\n')
    environ = {"GANSMITH_LATENT_DIM": "10", "GANSMITH_SEED": "4"}
    config = resolve(file=file, environ=environ, arguments={"seed": "5"})
    assert (config.recipe, config.g_width, config.batch_size, config.latent_dim, config.seed) == (
        "mlp-small",
        256,
        8,
        10,
        5,
    )
    origins = config.origins
    assert (origins["g_width"], origins["beta1"]) == ("recipe", "recipe")
    assert (origins["batch_size"], origins["latent_dim"], origins["seed"]) == (file.name, "environment", "argument")
    assert "d_dropout" not in origins  # its default


def test_variables_that_name_places_are_not_fields():
    places = {"GANSMITH_DATA": "/x", "GANSMITH_CACHE": "/y", "GANSMITH_OFFLINE": "1", "PATH": "z"}
    assert resolve(environ=places) == resolve()


def test_a_value_that_was_asked_for_is_not_the_recipes_even_where_it_is_equal():
    asked, own = resolve("mlp-small", arguments={"log_every": "25600"}), resolve("mlp-small")
    assert asked == own and own.is_from_recipe("log_every") and not asked.is_from_recipe("log_every")
    assert not own.is_from_recipe("save_every")  # not in the row
    assert not own.replace(log_every=5).is_from_recipe("log_every")
    assert asked.replace(images=5).origins == asked.origins  # other changes keep what is known
    assert own.replace(origins={}).is_from_recipe("log_every")  # where origins are lost, equal values count


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_config_survives_its_own_toml(recipe, tmp_path):
    config = resolve(recipe, arguments={"seed": 3})
    path = tmp_path / "config.toml"
    path.write_text(f"format = 3\n{config.to_toml()}")
    again = load_config(path, written_in=3)
    assert again == config and again.origins == config.origins
    assert resolve(file=path) == config


@pytest.mark.parametrize("recipe", RECIPES)
def test_arguments_alone_reproduce_any_row(recipe):
    expected = resolve(recipe).as_dict()
    arguments = {name: str(value) for name, value in expected.items() if name != "recipe"}
    assert {**resolve(arguments=arguments).as_dict(), "recipe": recipe} == expected


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("7", 7),
        ("200k", 200_000),
        ("1.5M", 1_500_000),
        ("2M", 2_000_000),
        ("2m", 2_000_000),
        ("1e6", 10**6),
        ("1,000", 1000),
    ],
)
def test_counts_may_be_abbreviated(text, number):
    assert parse_count(text) == number


@pytest.mark.parametrize("text", ["1.5", "0.0001k", "k", "", "1e-3", "1.23e1", "1e999", "12kk", "infM", "nanM"])
def test_counts_are_whole_numbers(text):
    with pytest.raises(ValueError):
        parse_count(text)
    with pytest.raises(ConfigError, match="whole number"):
        resolve(arguments={"images": text})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"images": "0"}, ("images", "0", "1 or more")),
        ({"images": "many"}, ("images", "'many'", "whole number")),
        ({"images": "infM"}, ("images", "whole number")),
        ({"batch_size": "1"}, ("batch_size", "between 2")),
        ({"batch_size": True}, ("batch_size", "True", "whole number")),
        ({"g_lr": "nan"}, ("g_lr", "nan")),
        ({"g_lr": "fast"}, ("g_lr", "'fast'", "number")),
        ({"conditioning": "label"}, ("conditioning", "did you mean 'labels'")),
        ({"btach_size": "3"}, ("argument", "btach_size", "did you mean 'batch_size'")),
        ({"batch": "3"}, ("argument", "there is no field 'batch'", "here it is batch_size")),
        ({"use_all_training_images": "maybe"}, ("use_all_training_images", "true or false")),
        ({"label_smoothing": "-0.1"}, ("label_smoothing", "-0.1", "between 0.0 and 1.0")),
        ({"fake_label_smoothing": "1.5"}, ("fake_label_smoothing", "1.5", "between 0.0 and 1.0")),
        ({"images": 1000, "planned_images": 2000}, ("planned_images", "2000", "1000", "lower it")),
    ],
)
def test_a_wrong_value_is_refused_in_one_sentence(arguments, words):
    with pytest.raises(ConfigError) as refusal:
        resolve(arguments=arguments)
    assert all(word in str(refusal.value) for word in words), refusal.value
    assert "\n" not in str(refusal.value)


def test_an_unknown_recipe_names_the_closest():
    with pytest.raises(ConfigError, match="did you mean 'default'"):
        resolve("defualt")


def test_broken_and_missing_files_are_refused(tmp_path):
    with pytest.raises(NotFoundError, match="no file"):
        resolve(file=tmp_path / "none.toml")
    bad = tmp_path / "bad.toml"
    for text, words in (
        ("batch_size = = 3", "not valid TOML"),
        ("a" + ".a" * 50_000 + " = 1", "longer than"),
        ("batch = 3", f"{bad}: there is no field 'batch'; here it is batch_size"),
    ):
        bad.write_text(text)
        with pytest.raises(ConfigError, match=words):
            resolve(file=bad)


def test_every_field_says_what_it_is():
    assert all(field.metadata["help"] for field in FIELDS.values())
    assert tomllib.loads(Config().to_toml()).keys() == {*FIELDS, "origins"}


def test_origins_are_no_part_of_what_is_compared_or_counted_as_a_repeat():
    a, b = Config(), Config().replace(origins={"seed": "argument"})
    assert a == b and is_repeat(a, b.replace(seed=4))
    assert not is_repeat(a, a.replace(g_lr=1e-3)) and not is_repeat(a, a.replace(images=a.images * 2))


def test_runs_of_equal_minutes_that_went_on_are_repeats():
    a, b, c = (
        Config().replace(images=900_000, schedule_images=first, planned_images=first)
        for first in (300_000, 310_000, 600_000)
    )
    assert is_repeat(a, b) and not is_repeat(a, c)
    once, extended = Config().replace(images=300_000), Config().replace(images=360_000, schedule_images=300_000)
    assert not is_repeat(once, extended) and not is_repeat(extended, once)


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("seed", np.int64(3), 3),
        ("g_lr", np.float64(0.5), 0.5),
        ("spectral_norm", np.bool_(True), True),
        ("images", 1e3, 1000),
        ("images", "1K", 1000),
        ("data_dir", Path("digits"), "digits"),
        ("device", torch.device("cpu"), "cpu"),
        ("classes", 3, "3"),
        ("classes", 42, "42-42"),
        ("classes", [42], "42-42"),
        ("classes", [np.int64(42)], "42-42"),
        ("classes", [3, "a, b"], '3,"a, b"'),
    ],
)
def test_values_of_a_notebook_are_those_of_a_field(name, given, value):
    found = resolve("mlp-small", arguments={name: given}).as_dict()[name]
    assert found == value and type(found) is type(value)


def test_a_recipe_of_ones_own_names_fields(monkeypatch):
    monkeypatch.setitem(RECIPES, "mine", {**RECIPES["mlp-small"], "lr": 1e-3})
    with pytest.raises(ConfigError, match="recipe mine: there is no field 'lr'; here it is g_lr and d_lr"):
        resolve("mine")


@pytest.mark.parametrize(
    ("asked", "meant"),
    [("WGAN", "wasserstein"), ("bce", "non-saturating"), ("lsgan", "least-squares"), ("Hinge", "hinge")],
)
def test_names_of_papers_lead_to_objectives(asked, meant):
    with pytest.raises(ConfigError, match=f"did you mean '{meant}'"):
        choose(OBJECTIVES, asked, "objective")


@pytest.mark.parametrize("start", ["dcgan", "wgan", "lsgan"])
def test_the_start_of_a_name_leads_to_it(start):
    with pytest.raises(ConfigError, match=f"did you mean '{start}-"):
        resolve(start)


# Names of other projects.


def test_no_other_name_hides_one_of_ours_and_each_leads_to_one():
    flags = {*FIELDS, "out", "minutes", "epochs", "progress", "count"}
    assert not (SYNONYMS.keys() | UNSUPPORTED.keys()) & (FIELDS.keys() | {"out", "minutes", "epochs", "progress"})
    for name, ours in SYNONYMS.items():
        assert set(ours.replace(",", " ").split()) & (flags | {"truncation", "config"}), name
    assert not SYNONYMS.keys() & UNSUPPORTED.keys()


def test_values_that_other_names_lead_to_are_legal():
    for ours in set(SYNONYMS.values()):
        words = ours.split()
        if len(words) == 2 and words[0] in FIELDS:
            resolve(arguments={words[0]: words[1]})


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lr", "here it is g_lr and d_lr"),
        ("z-dim", "here it is latent_dim"),
        ("N_CRITIC", "here it is d_steps"),
        ("gpu", "here it is device cuda"),
        ("num_gpus", "torchrun --nproc-per-node 2"),
        ("image_size", "here it is size"),
        ("channels", "keep the channels of the data set"),
        ("num-classes", "labels are counted; --classes 3,7"),
        ("iterations", "here it is images (steps times batch_size)"),
        ("real_label", "here it is label_smoothing (0.1 for a target of 0.9)"),
        ("ema_decay", "here it is ema (a half-life as a share of the images seen"),
        ("hours", "here it is minutes (60 an hour)"),
        ("log_interval", "here it is log_every (steps times batch_size)"),
        ("latnet_dim", "did you mean 'latent_dim'"),
        ("minuts", "did you mean 'minutes'"),
    ],
)
def test_a_name_that_is_no_field_is_answered_with_the_right_one(name, words):
    assert words in unknown_field(name, also=("minutes",))


@pytest.mark.parametrize(
    ("what", "name"),
    [
        ("./my cats", "my-cats"), ("/data/faces.tar.gz", "faces"), ("~/x.NPZ", "x"), ("digits.csv", "digits"),
        ("a\\b", None), ("..", None), ("mnist", ""), ("fashion-mnist", ""), ("kmnist.v2", ""),
    ],
)  # fmt: skip
def test_a_data_set_given_by_its_path_is_told_from_a_name(what, name):
    assert is_path(what) is (name != "")
    if name:
        assert name_of(what) == name
        config = resolve(arguments={"data": what})
        assert (config.data, config.data_dir) == (name, what)
        assert config.origins["data_dir"] == config.origins["data"]
    with pytest.raises(ConfigError, match="give one of them"):
        resolve(arguments={"data": "./x", "data_dir": "y"})


def test_labels_are_class_names_where_there_are_such():
    names = ("Cat", "dog", "10", "3-7", "ice, cream", "\u00c9clair", "M\u00fcll")
    assert parse_labels("dog, cat,DOG", names=names) == [1, 0, 1]
    assert parse_labels("dog", names=names) == [1]
    assert parse_labels("10", names=names) == [2] and parse_labels("3-7", names=names) == [3]
    assert parse_labels("0,1", names=names) == [0, 1] and parse_labels("01", names=names) == [0, 1]
    assert parse_labels("0-2,10,cat,3-7", names=names) == [0, 1, 2, 2, 0, 3]
    assert parse_labels("ice, cream", names=names) == [4]
    assert parse_labels('"ice, cream",dog', names=names) == [4, 1]
    assert parse_labels(" e\u0301clair,M\u00dcLL", names=names) == [5, 6]  # an accent of its own, as macOS writes names
    assert parse_labels("2024", names=tuple("0123456789")) == [2, 0, 2, 4]


def test_a_class_that_there_is_not_is_answered_with_the_closest():
    for text in ("cat,cow", "cow", "cow,"):
        with pytest.raises(ConfigError, match="there is no class 'cow'; choose among cat, dog, or write numbers"):
            parse_labels(text, names=("cat", "dog"))
    with pytest.raises(ConfigError, match="no class 'dgo'; did you mean 'dog'"):
        parse_labels("cat,dgo", names=("cat", "dog"))
    with pytest.raises(ConfigError, match="and 8 more, or"):
        parse_labels("x", names=[f"class {k}" for k in range(20)])


def test_names_that_differ_in_case_alone_are_told_apart():
    assert parse_labels("a,A", names=("A", "a")) == [1, 0]
    with pytest.raises(ConfigError, match="'ab' may be the class 'AB' or 'Ab'; write it as one of these"):
        parse_labels("ab", names=("AB", "Ab"))


@pytest.mark.parametrize(
    ("field", "value"), [("size", 2000), ("size", -4), ("resize", "cut"), ("color", "blue"), ("background", "red")]
)
def test_the_preparation_of_pictures_is_checked(field, value):
    with pytest.raises(ConfigError, match=field):
        resolve(arguments={field: value})


def test_every_setting_says_when_to_choose_another_value():
    assert ADVICE.keys() == FIELDS.keys() - {"recipe"} and SOURCES.keys() <= FIELDS.keys()
    for sentence in ADVICE.values():
        assert 8 <= len(sentence) <= 110 and not sentence.endswith(".")


def test_a_number_that_may_be_one_class_or_several_is_refused():
    names = [f"class {k}" for k in range(50)]
    with pytest.raises(ConfigError, match=r"42 may be the class 42 or the classes 4,2; write 42-42 or 4,2"):
        parse_labels("42", names=names)
    assert parse_labels("42-42", names=names) == [42] and parse_labels("4,2", names=names) == [4, 2]
    assert parse_labels("2024", names=names) == [2, 0, 2, 4] and parse_labels("42", names=names[:10]) == [4, 2]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_files_of_choices_may_have_a_mark_of_their_encoding(encoding, tmp_path):
    (tmp_path / "mine.toml").write_text("batch_size = 32\n", encoding=encoding)
    assert read_toml(tmp_path / "mine.toml") == {"batch_size": 32}


def test_data_asked_for_beat_the_folder_of_other_data(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('data = "cats"\ndata_dir = "./cats"\n')
    assert resolve(file=file).data_dir == "./cats"
    assert resolve(file=file, arguments={"data": "cats"}).data_dir == "./cats"
    named = resolve(file=file, arguments={"data": "cifar10"})
    assert (named.data, named.data_dir) == ("cifar10", "") and "data_dir" not in named.origins
    placed = resolve(file=file, arguments={"data": "./dogs"})
    assert (placed.data, placed.data_dir) == ("dogs", "./dogs")
    assert resolve(environ={"GANSMITH_DATA_DIR": "sets"}, arguments={"data": "mnist"}).data_dir == "sets"


def test_a_name_that_no_file_can_hold_is_refused():
    with pytest.raises(ConfigError, match="data_dir is .*, which is no UTF-8 text; rename"):
        resolve(arguments={"data_dir": "caf\udce9"})
