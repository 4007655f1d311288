"""Choices that exclude or need each other are refused with the reason and the remedy."""

import re

import pytest
from torch import nn

from gansmith.config import FIELDS, resolve
from gansmith.data.images import ImageSpec
from gansmith.errors import ConfigError
from gansmith.networks import NETWORKS
from gansmith.recipes import RECIPES
from gansmith.training.conflicts import CONFLICTS, HINTS, NEEDS, hints, used_techniques
from gansmith.training.losses import OBJECTIVES
from gansmith.training.state import start_networks
from gansmith.training.techniques import build_techniques

SPEC = ImageSpec(8, 1, 3)


def config_of(recipe, **choices):
    small = {"g_width": 8, "d_width": 8, "latent_dim": 4, "batch_size": 6, "precision": "float32"}
    return resolve(recipe, arguments={**small, **choices})


def build(recipe, **choices):
    """Build a recipe's networks and techniques with these choices."""
    config = config_of(recipe, **choices)
    return build_techniques(config, start_networks(config, SPEC).D)


REFUSED = [
    ({"gradient_penalty": 10.0}, "dcgan-sgd", "undefined when D has batch normalisation"),
    ({"dragan": 10.0}, "dcgan-keras", "undefined when D has batch normalisation"),
    ({"r1_gamma": 1.0}, "dcgan-keras", "undefined when D has batch normalisation"),
    ({"objective": "wasserstein"}, "mlp-small", "unbounded unless D is Lipschitz"),
    ({"objective": "hinge", "g_loss_bound": 0.5}, "mlp-small", "no lower bound"),
    (
        {"objective": "minimax", "g_loss_bound": 0.5},
        "mlp-small",
        "G's loss of the minimax .* no lower bound",
    ),
    ({"objective": "wasserstein", "clip_weights": 0.01, "d_loss_bound": 0.5}, "mlp-small", "no lower bound"),
    ({"objective": "wasserstein", "clip_weights": 0.01, "label_flipping": 0.1}, "mlp-small", "has no targets"),
    ({"objective": "auxiliary-classifier"}, "mlp-small", "needs an auxiliary classifier"),
    (
        {"objective": "auxiliary-classifier", "conditioning": "labels"},
        "mlp-small",
        "needs an auxiliary classifier in D",
    ),
    ({"d_class_loss": 0.5, "conditioning": "clusters"}, "mlp-small", "no effect without --conditioning labels"),
    ({"g_class_loss": 0.1, "conditioning": "labels"}, "mlp-small", "no effect without --d-class-loss"),
    ({"network": "plain", "d_class_loss": 0.5, "conditioning": "labels"}, "mlp-small", "has no classifier"),
    ({"g_rotation_loss": 0.2}, "default", "no effect without --d-rotation-loss"),
    ({"d_rotation_loss": 1.0}, "mlp-small", "cannot name turns"),
    ({"d_class_loss": 0.5, "conditioning": "labels"}, "acgan", "no effect without .* auto or projection"),
    ({"weight_decay": 0.1}, "mlp-small", "no effect without adamw"),
    ({"momentum": 0.9}, "mlp-small", "no effect without sgd"),
    ({"lr_decay": "cosine"}, "mlp-small", "no effect without a fraction of the schedule to start at"),
    (
        {"beta2_start": 0.9, "g_optimizer": "sgd", "d_optimizer": "rmsprop"},
        "mlp-small",
        "no effect without adam, adamw or soap",
    ),
    ({"style_mixing": 0.5}, "mlp-small", "no effect without --network stylegan-lite"),
    ({"began_gamma": 0.7}, "mlp-small", "no effect without --objective boundary"),
    ({"penalty_start_factor": 10.0}, "mlp-small", "no effect without a gradient penalty"),
    ({"d_loss_target": 1.1, "objective": "least-squares"}, "default", "D's loss is 0.25 where it guesses"),
    ({"d_loss_target": 0.7, "objective": "relativistic"}, "default", "D's loss is 0.693 where it guesses"),
    ({"penalty_every": 8}, "mlp-small", "no effect without a gradient penalty"),
    ({"burn_in": 0.5}, "mlp-small", "no effect without something that changes over it"),
    ({"burn_in": 0.5}, "default", "no effect without something that changes over it"),
    ({"instance_noise": 0.1, "instance_noise_until": 0.0}, "mlp-small", "no effect without --instance-noise-until 0.5"),
    ({"beta1": 0.9, "g_optimizer": "sgd", "d_optimizer": "rmsprop"}, "mlp-small", "no effect without adam"),
    ({"instance_noise_until": 0.5}, "mlp-small", "no effect without --instance-noise"),
    ({"replay_size": 64}, "mlp-small", "no effect without --replay"),
    ({"lr_decay_factor": 0.5}, "mlp-small", "no effect without --lr-decay step"),
    ({"ema_growth": "cosine"}, "mlp-small", "no effect without --ema"),
    ({"keep_every": 640}, "mlp-small", "no effect without --keep-last"),
    ({"g_conditioning": "multiplied"}, "mlp-small", "no effect without --conditioning labels"),
    ({"d_conditioning": "multiplied"}, "mlp-small", "no effect without --conditioning labels"),
    ({"random_labels": True}, "mlp-small", "no effect without --label-smoothing"),
    ({"g_targets": "smoothed", "label_flipping": 0.1}, "mlp-small", "no effect without --label-smoothing"),
    ({"d_loss_target": 1.0}, "mlp-small", "no effect without a gradient penalty"),
    ({"objective": "wasserstein", "d_loss_target": 1.0, "r1_gamma": 1.0}, "mlp-small", "no lower bound"),
    ({"objective": "hinge", "d_loss_target": 2.5, "r1_gamma": 1.0}, "mlp-small", "D's loss is 2 where it guesses"),
    ({"early_stopping": 3, "use_all_training_images": True}, "mlp-small", "leaves no validation images"),
    ({"augment": "adaptive", "objective": "relativistic"}, "mlp-small", "above zero.*--augment diffaugment"),
    ({"augment": "adaptive", "label_flipping": 0.6}, "mlp-small", "labels flipped most of the time"),
    ({"objective": "boundary-equilibrium"}, "mlp-small", "need each other"),
    ({"network": "autoencoder"}, "mlp-small", "need each other"),
    ({"network": "plain", "feature_matching": 0.5}, "mlp-small", "gives no features"),
    ({"spectral_norm": True}, "r3gan", "start at zero"),
    (
        {"network": "plain", "conditioning": "labels", "d_conditioning": "classifier"},
        "mlp-small",
        "has no features to classify",
    ),
    ({"g_conditioning": "multiplied"}, "default", "compact network"),
    ({"d_conditioning": "multiplied"}, "default", "compact network"),
]


@pytest.fixture(autouse=True)
def _plain_network(monkeypatch):
    """A pair whose D offers logits alone."""
    monkeypatch.setitem(
        NETWORKS, "plain", lambda spec, config: (nn.Linear(4, 4), nn.Sequential(nn.Flatten(), nn.Linear(64, 1)))
    )


@pytest.mark.parametrize(("choices", "recipe", "reason"), REFUSED, ids=lambda value: str(value)[:60])
def test_senseless_combinations_are_refused_with_the_reason(choices, recipe, reason):
    with pytest.raises(ConfigError, match=reason) as refusal:
        build(recipe, **{"conditioning": "none", **choices})
    assert "\n" not in str(refusal.value)


def test_every_row_of_both_tables_is_tested():
    """A case that changes nothing else would pass without its row: the row itself must say no."""
    refused = {name for choices, _, reason in REFUSED if "no effect without" in reason for name in choices}
    assert set(NEEDS) <= refused and set(NEEDS) <= set(FIELDS)
    unmet = set(CONFLICTS)
    for choices, recipe, _ in REFUSED:
        config = config_of(recipe, **{"conditioning": "none", **choices})
        try:
            D = start_networks(config, SPEC).D
        except ConfigError:  # the network itself refuses the choice
            continue
        unmet -= {conflict for conflict in CONFLICTS if conflict(config, OBJECTIVES[config.objective], D)}
    assert [conflict.__name__ for conflict in unmet] == ["_uneven_shares"]  # needs several processes: see below


HINTED = [
    ({"clusters": 10, "conditioning": "labels"}, "without --conditioning clusters"),
    ({"clusters_per_class": 20}, "without --conditioning labels"),
    ({"beta2": 0.9, "g_optimizer": "sgd", "d_optimizer": "sgd"}, "without another optimizer than sgd"),
    ({"lr_start_factor": 4.0, "burn_in": 0.0}, "without a --burn-in above 0"),
    ({"beta2_start": 0.9, "burn_in": 0.0}, "without a --burn-in above 0"),
    ({"penalty_start_factor": 9.0, "r1_gamma": 1.0, "burn_in": 0.0}, "without a --burn-in above 0"),
    ({"g_targets": "smoothed", "fake_label_smoothing": 0.3}, "without smoothing of the targets that G's loss reads"),
    ({"g_targets": "smoothed", "label_smoothing": 0.3, "objective": "minimax"}, "without smoothing of the targets"),
]


@pytest.mark.parametrize(("choices", "words"), HINTED, ids=str)
def test_choices_that_change_nothing_are_said_where_they_were_asked_for(choices, words):
    config = config_of("mlp-small", **{"conditioning": "none", **choices})
    (said,) = hints(config)
    assert re.fullmatch(f".*which changes nothing.*{words}.*", said)
    assert next(iter(choices)) not in used_techniques(config)
    assert not hints(config.replace(origins=dict.fromkeys(config.origins, "start-from")))


def test_every_hint_is_tested():
    assert {next(iter(choices)) for choices, _ in HINTED} == set(HINTS)


@pytest.mark.parametrize(
    "choices",
    [
        {"objective": "hinge"},
        {"objective": "minimax", "d_loss_bound": 0.5},
        {"g_targets": "smoothed", "label_smoothing": 0.3},
        {"g_targets": "smoothed", "fake_label_smoothing": 0.3, "objective": "minimax"},
    ],
    ids=str,
)
def test_what_has_an_effect_is_not_refused(choices):
    build("default" if choices == {"objective": "hinge"} else "mlp-small", conditioning="none", **choices)


@pytest.mark.parametrize(("batch", "group", "multiple"), [(6, 0, 4), (4, 2, 8), (8, 4, 16), (8, 2, None), (4, 0, None)])
def test_a_batch_that_processes_cannot_share_in_whole_groups_is_refused(monkeypatch, batch, group, multiple):
    monkeypatch.setattr("gansmith.training.conflicts.count", lambda: 4)
    choices = {"batch_size": batch, "minibatch_stddev": group, "conditioning": "none", "clusters_per_class": 1}
    if multiple is None:
        build("default", **choices)
        return
    with pytest.raises(
        ConfigError, match=f"batch_size is {batch}, which 4 processes cannot.* a multiple of {multiple}"
    ):
        build("default", **choices)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipes_own_choices_stay_where_they_lose_their_effect(recipe):
    """As the interval between penalties does where the penalties are switched off."""
    choices = dict(r1_gamma=0.0, r2_gamma=0.0, gradient_penalty=0.0, dragan=0.0, ema=0.0, batch_size=9)
    if recipe in ("wgan-gp", "progressive"):  # the Wasserstein loss needs one
        choices["clip_weights"] = 0.01
    config = config_of(recipe, **choices, conditioning="labels")
    build_techniques(config, start_networks(config, ImageSpec(16, 1, 3)).D)


def test_techniques_of_a_recipe_without_effect_are_not_listed():
    labelled, clustered = (config_of("default", conditioning=kind) for kind in ("labels", "clusters"))
    idle = {"clusters_per_class", "d_class_loss", "g_class_loss"}
    assert idle <= used_techniques(labelled).keys() and not idle & used_techniques(clustered).keys()
    assert used_techniques(clustered).keys() == used_techniques(labelled).keys() - idle
