"""What every row of every table promises."""

import ast
import re
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch

import gansmith
from gansmith.config import resolve
from gansmith.data.images import ImageSpec
from gansmith.summaries import describe, to_text
from gansmith.training.calibration import calibrate_output, rescale, output_layer
from gansmith.training.losses import OBJECTIVES
from gansmith.metrics import METRICS
from gansmith.networks import NETWORKS
from gansmith.networks.progressive import grow
from gansmith.recipes import RECIPES
from gansmith.training.techniques import build_techniques
from gansmith.training.penalties import penalties_at
from gansmith.training.step import UPDATES, Batch
from gansmith.training.loop import build_training_networks

SPECS = [ImageSpec(28, 1, 10), ImageSpec(32, 3, 4), ImageSpec(28, 1, 0)]
SOURCE = Path(gansmith.__file__).parent


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.size}px-{spec.channels}ch-{spec.num_classes}ids")
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_keep_their_shapes_and_every_weight_learns(name, spec):
    config = resolve("mlp-small", arguments={"network": name, "g_width": 16, "d_width": 16, "latent_dim": 12})
    G, D = NETWORKS[name](spec, config)
    z, ids = torch.randn(6, 12), torch.zeros(6, dtype=torch.int64)
    with torch.no_grad():  # zero-initialised layers would block gradients at the very first step
        for network in (G, D):
            for parameter in network.parameters():
                parameter += 0.02 * torch.randn(parameter.shape)
    for progress in (0.3, 0.7):  # a pair that grows uses all of its layers in these two fades together
        grow(G, progress)
        grow(D, progress)
        images = G(z, ids)
        assert images.shape == (6, spec.channels, spec.size, spec.size)
        assert images.abs().max() <= 1
        logits = D(images, ids)
        assert logits.shape == (6,)
        (logits * torch.arange(1.0, 7.0)).sum().backward()
    for network in (G, D):
        for parameter_name, parameter in network.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize("name", NETWORKS)
def test_tones_are_matched_exactly_or_refused(name):
    config = resolve("mlp-small", arguments={"network": name, "g_width": 16, "d_width": 16, "latent_dim": 12})
    G = NETWORKS[name](ImageSpec(28, 3, 0), config)[0].eval()
    try:
        layer = output_layer(G, 3)
    except ValueError as refusal:
        assert "set it to false or choose another network" in str(refusal)
        assert name in ("planes", "progressive", "stylegan-lite", "r3gan")
        return
    assert layer.bias is not None
    config = config.replace(calibrate_output=True)
    z, ids = torch.randn(2000, 12), torch.zeros(2000, dtype=torch.int64)
    with torch.no_grad():
        layer.weight.mul_(3.0)  # from grey pictures to some of every tone
        before = torch.atanh(G(z, ids).double().clamp(-1 + 1e-12, 1 - 1e-12))
        gain, shift = (torch.tensor(v).double().view(3, 1, 1) for v in ([1.1, 0.9, 1.05], [0.1, -0.2, 0.15]))
        expected = torch.tanh(gain * before + shift)
        scaled = deepcopy(G)
        rescale(output_layer(scaled, 3), gain.flatten().float(), shift.flatten().float())
        torch.testing.assert_close(scaled(z, ids).double(), expected, rtol=0, atol=1e-5)
        wanted = torch.stack([expected.mean((0, 2, 3)), expected.square().mean((0, 2, 3))], dim=1).float()
        calibrate_output(G, config, torch.ones(1).double(), wanted)
        torch.testing.assert_close(G(z, ids).double(), expected, rtol=0, atol=0.02)


@pytest.mark.parametrize("form", ["multiplied", "concatenated", "projection", "classifier"])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in ("acgan", "progressive", "r3gan", "sngan") else ())
        for name in NETWORKS
    ],
)
def test_each_way_of_telling_ids_reaches_every_weight(name, form):
    """Or the network has its own way and says so."""
    flags = {"network": name, "g_width": 8, "d_width": 8, "latent_dim": 5, "minibatch_stddev": True, "d_conditioning": form}
    g_form = form if form in ("multiplied", "concatenated") else "auto"
    config = resolve("mlp-small", arguments={**flags, "g_conditioning": g_form})
    try:
        G, D = NETWORKS[name](ImageSpec(28, 1, 3), config)
    except ValueError as refusal:
        assert "conditioning at auto" in str(refusal) or "no place for" in str(refusal)
        return
    with torch.no_grad():  # zero-initialised layers would block gradients at the very first step
        for parameter in (*G.parameters(), *D.parameters()):
            parameter += 0.02 * torch.randn(parameter.shape)
    ids = torch.tensor([0, 1, 2, 0])
    for progress in (0.3, 0.7):  # a pair that grows uses all of its layers in these two fades together
        grow(G, progress)
        grow(D, progress)
        images = G(torch.randn(4, 5), ids)
        features = D.features(images, ids)
        torch.testing.assert_close(D.score(features, ids), D(images, ids))
        total = (D.score(features, ids) * torch.arange(1.0, 5.0)).sum()
        if form == "classifier":
            assert D.classify(features).shape == (4, 3)
            torch.testing.assert_close(D(images, ids), D(images, ids.flip(0)))  # it is not told
            total = total + (D.classify(features) * torch.arange(1.0, 4.0)).sum()
        else:
            assert not torch.allclose(D(images, ids), D(images, ids.roll(1)))
        total.backward()
    for network in (G, D):
        for parameter_name, parameter in network.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_take_logits_and_give_one_number(name):
    real, fake = torch.randn(7, requires_grad=True), torch.randn(7, requires_grad=True)
    for loss in (OBJECTIVES[name].d_loss(real, fake), OBJECTIVES[name].g_loss(real, fake)):
        assert loss.shape == ()
        (slope,) = torch.autograd.grad(loss, fake)
        assert slope.abs().sum() > 0


def players_and_batches(config, spec, count):
    """A config's networks and rules, and batches of drawn noise to step on."""
    networks = build_training_networks(config, spec)
    draw = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(count):
        ids = torch.randint(0, 1 if config.conditioning == "none" else spec.num_classes, (4,), generator=draw)
        real = torch.rand(4, spec.channels, spec.size, spec.size, generator=draw) * 2 - 1
        batches.append(Batch(real, ids, torch.randn(4, config.latent_dim, generator=draw), ids, draw))
    return networks, build_techniques(config, networks.D), batches


@pytest.mark.parametrize("name", METRICS)
def test_metrics_take_sets_of_any_sizes_change_neither_and_give_finite_figures(name):
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(60, 4)), rng.normal(size=(50, 4)) + 1
    probabilities = [np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (real, fake)]
    pixels = [rng.integers(0, 256, (n, 1, 6, 6), dtype=np.uint8) for n in (60, 50)]
    given = {
        "features": (real, fake),
        "probabilities": probabilities,
        "classes": (real, fake, *(x.argmax(1) for x in probabilities)),
        "asked": (probabilities[1], probabilities[1].argmax(1)),
        "pixels": pixels,
        "fit": (rng.normal(size=(70, 4)), real, fake),
    }[METRICS[name].takes]
    before = [array.copy() for array in given]
    found = METRICS[name].function(*given)
    assert found and all(type(value) is float and np.isfinite(value) for value in found.values())
    assert found == METRICS[name].function(*given)
    for array, copy in zip(given, before, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_train_two_steps(recipe):
    config = resolve(recipe, arguments={"batch_size": 4, "clusters": 3})
    config = config.replace(conditioning="labels") if config.conditioning == "auto" else config
    networks, rules, batches = players_and_batches(config, ImageSpec(28, 1, 3), 2)
    for batch in batches:
        numbers = UPDATES[config.update](networks, batch, rules, penalties_at(config, 0, 0.0, networks.buffers))
        assert set(numbers) == {"d_loss", "g_loss", "d_real", "d_fake"}
        assert all(torch.isfinite(torch.tensor(value)) for value in numbers.values())


# What an objective needs beside its name.
COMPANIONS = {
    "wasserstein": {"clip_weights": 0.01},
    "boundary-equilibrium": {"network": "autoencoder"},
    "auxiliary-classifier": {"conditioning": "labels", "d_conditioning": "classifier"},
}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_objectives_move_every_weight_of_both_players(objective):
    flags = {"objective": objective, "g_width": 8, "d_width": 8, "latent_dim": 6, **COMPANIONS.get(objective, {})}
    config = resolve("mlp-small", arguments=flags)
    networks, rules, batches = players_and_batches(config, ImageSpec(8, 1, 3), 3)
    before = [[p.detach().clone() for p in network.parameters()] for network in (networks.G, networks.D)]
    for batch in batches:
        UPDATES[config.update](networks, batch, rules, penalties_at(config, 0, 0.0, networks.buffers))
    for network, was in zip((networks.G, networks.D), before, strict=True):
        for (name, parameter), old in zip(network.named_parameters(), was, strict=True):
            if name != "judge.bias":  # many losses compare scores, so that what shifts them all has no slope
                assert not torch.equal(parameter, old), name


# Trainable parameters, counted by hand from the lists of layers: weights and biases of each, gains and shifts.
PARAMETERS = {
    "mlp-small": (100 * 256 + 256 + 256 * 784 + 784, 784 * 256 + 256 + 256 + 1),
    "mlp-keras": (
        100 * 256 + 3 * 256 + 256 * 512 + 3 * 512 + 512 * 1024 + 3 * 1024 + 1024 * 784 + 784,
        784 * 512 + 512 + 512 * 256 + 256 + 256 + 1,
    ),
    "cgan-keras": (
        10 * 100 + 100 * 256 + 3 * 256 + 256 * 512 + 3 * 512 + 512 * 1024 + 3 * 1024 + 1024 * 784 + 784,
        10 * 784 + 784 * 512 + 512 + 2 * (512 * 512 + 512) + 512 + 1,
    ),
    "dcgan-keras": (
        101 * 6272 + (9 * 128 * 128 + 3 * 128) + (9 * 128 * 64 + 3 * 64) + (9 * 64 + 1),
        (9 * 32 + 32) + (9 * 32 * 64 + 3 * 64) + (9 * 64 * 128 + 3 * 128) + (9 * 128 * 256 + 3 * 256) + 4096 + 1,
    ),
    "vanilla-cs231n": (
        96 * 1024 + 1024 + 1024 * 1024 + 1024 + 1024 * 784 + 784,
        784 * 256 + 256 + 256 * 256 + 256 + 256 + 1,
    ),
    "lsgan-cs231n": (
        96 * 1024 + 1024 + 1024 * 1024 + 1024 + 1024 * 784 + 784,
        784 * 256 + 256 + 256 * 256 + 256 + 256 + 1,
    ),
    "dcgan-cs231n": (
        (96 * 1024 + 3 * 1024) + (1024 * 6272 + 3 * 6272) + (16 * 128 * 64 + 3 * 64) + (16 * 64 + 1),
        (25 * 32 + 32) + (25 * 32 * 64 + 64) + (1024 * 1024 + 1024) + 1024 + 1,
    ),
    "dcgan-sgd": (
        (100 * 256 * 49 + 3 * 256) + (256 * 128 * 16 + 3 * 128) + (128 * 16 + 1),
        (128 * 16 + 128) + (128 * 256 * 16 + 3 * 256) + (256 * 49 + 1),
    ),
}
BUDGETS = {
    "mlp-small": 200 * 60_000,
    "mlp-keras": 50_000 * 64,
    "cgan-keras": 50_000 * 64,
    "dcgan-keras": 10_000 * 64,
    "vanilla-cs231n": 10 * 60_000,
    "lsgan-cs231n": 10 * 60_000,
    "dcgan-cs231n": 10 * 60_000,
    "dcgan-sgd": 200 * 60_000,
}


@pytest.mark.parametrize("recipe", PARAMETERS)
def test_descriptions_count_trainable_parameters(recipe):
    facts = describe(resolve(recipe))
    assert (facts["g_parameters"], facts["d_parameters"]) == PARAMETERS[recipe]
    assert facts["latent_dim"] == (96 if recipe.endswith("cs231n") else 100)
    assert facts["conditional"] == (recipe == "cgan-keras")
    assert facts["image_shape"] == [1, 28, 28]
    assert facts["images"] == BUDGETS[recipe]
    for player in ("g", "d"):
        assert sum(layer["parameters"] for layer in facts[f"{player}_layers"]) == facts[f"{player}_parameters"]
        names = [layer["name"] for layer in facts[f"{player}_layers"]]
        assert len(names) == len(set(names))  # no layer stands for two


def test_descriptions_name_what_is_in_use():
    facts = describe(resolve("dcgan-sgd"))
    assert facts["techniques"] == {
        "d_dropout": 0.3, "real_target_low": 0.7, "fake_target_high": 0.3, "label_flipping": 1.0, "g_targets": "soft",
    }  # fmt: skip
    assert (facts["g_optimizer"], facts["d_optimizer"]) == (
        "adam 0.0002, betas 0.5 and 0.999", "sgd 0.0002, momentum 0",
    )  # fmt: skip
    kinds = [(layer["kind"], layer["settings"]) for layer in facts["d_layers"]]
    assert ("LeakyReLU", "negative_slope=0.2") in kinds and ("Dropout", "0.3") in kinds
    text = to_text(facts)
    assert "label_flipping     1.0        how often" in text and "SGD" not in text
    assert describe(resolve("vanilla-cs231n"))["techniques"] == {"latent_distribution": "uniform", "fresh_fakes": True}


def test_public_names_are_sorted_and_exist():
    assert gansmith.__all__ == sorted(gansmith.__all__)
    assert all(getattr(gansmith, name).__doc__ for name in gansmith.__all__)
    with pytest.raises(AttributeError):
        gansmith.nothing  # noqa: B018


# Each module may import from those before it; what shares a line is independent of its neighbours.
FLOW = [
    ["recipes"],
    ["config"],
    ["data"],
    ["networks", "losses", "schedule", "augment", "readers"],
    ["step", "runs", "metrics", "diagnose"],
    ["optimizers", "rules", "generate"],
    ["monitor"],
    ["train"],
    ["describe", "doctor", "evaluate", "export", "film", "plot", "progress", "bench", "trackers"],
    ["report"],
    ["handin"],
    ["cli"],
    ["__main__", "__init__"],
]


def test_imports_flow_one_way():
    rank = {name: level for level, names in enumerate(FLOW) for name in names}
    for path in SOURCE.rglob("*.py"):
        home = path.relative_to(SOURCE).with_suffix("").parts[0]
        for node in ast.walk(ast.parse(path.read_text())):
            modules = []
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gansmith."):
                modules = [node.module.split(".")[1]]
            for module in modules:
                assert module == home or rank[module] < rank[home], f"{path.name} imports {module}"


def test_source_is_plain_ascii_and_never_pickles():
    for path in SOURCE.rglob("*.py"):
        text = path.read_text()
        assert text.isascii(), path
        assert not re.search(r"import pickle|(?<!safetensors\.)torch\.(load|save)\(", text), path
