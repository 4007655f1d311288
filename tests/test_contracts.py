"""What every row of every table promises."""

import ast
import re
from pathlib import Path

import pytest
import torch

import gansmith
from gansmith.config import resolve
from gansmith.data import ImageSpec
from gansmith.describe import describe
from gansmith.losses import OBJECTIVES
from gansmith.networks import NETWORKS
from gansmith.recipes import RECIPES
from gansmith.step import UPDATES, Batch, Penalties
from gansmith.train import build_players, build_rules

SPECS = [ImageSpec(28, 1, 10), ImageSpec(32, 3, 4), ImageSpec(28, 1, 0)]
SOURCE = Path(gansmith.__file__).parent


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.size}px-{spec.channels}ch-{spec.num_classes}ids")
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_keep_their_shapes_and_every_weight_learns(name, spec):
    config = resolve(flags={"g_width": 16, "d_width": 16, "z_dim": 12})[0]
    G, D = NETWORKS[name](spec, config)
    z, ids = torch.randn(6, 12), torch.zeros(6, dtype=torch.int64)
    with torch.no_grad():  # zero-initialised layers would block gradients at the very first step
        for network in (G, D):
            for parameter in network.parameters():
                parameter += 0.02 * torch.randn(parameter.shape)
    images = G(z, ids)
    assert images.shape == (6, spec.channels, spec.size, spec.size)
    assert images.abs().max() <= 1
    logits = D(images, ids)
    assert logits.shape == (6,)
    (logits * torch.arange(1.0, 7.0)).sum().backward()
    for network in (G, D):
        for parameter_name, parameter in network.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives_take_logits_and_give_one_number(name):
    real, fake = torch.randn(7, requires_grad=True), torch.randn(7, requires_grad=True)
    for loss in (OBJECTIVES[name].d_loss(real, fake), OBJECTIVES[name].g_loss(real, fake)):
        assert loss.shape == ()
        loss.backward()
    assert fake.grad.abs().sum() > 0


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_train_two_steps(recipe):
    config = resolve(recipe, flags={"batch": 4, "clusters": 3})[0]
    config = config.replace(conditioning="labels") if config.conditioning == "auto" else config
    spec = ImageSpec(28, 1, 3)
    players = build_players(config, spec)
    rules = build_rules(config, players.D)
    for step in range(2):
        draw = torch.Generator().manual_seed(step)
        ids = torch.randint(0, 1 if config.conditioning == "none" else 3, (4,), generator=draw)
        batch = Batch(torch.rand(4, 1, 28, 28) * 2 - 1, ids, torch.randn(4, config.z_dim), ids, draw)
        numbers = UPDATES[config.update](players, batch, rules, Penalties(config.r1, config.r2))
        assert set(numbers) == {"d_loss", "g_loss", "d_real", "d_fake"}
        assert all(torch.isfinite(torch.tensor(value)) for value in numbers.values())


@pytest.mark.parametrize(("recipe", "g", "d"), [("mlp-small", 227_344, 201_217), ("dcgan-sgd", None, None)])
def test_descriptions_count_trainable_parameters(recipe, g, d):
    facts = describe(resolve(recipe)[0])
    if recipe == "dcgan-sgd":
        g = (100 * 256 * 49 + 256) + 2 * 256 + (256 * 128 * 16 + 128) + 2 * 128 + (128 * 16 + 1)
        d = (128 * 16 + 128) + (128 * 256 * 16 + 256) + 2 * 256 + (256 * 49 + 1)
    assert (facts["g_parameters"], facts["d_parameters"]) == (g, d)
    assert (facts["z_dim"], facts["conditional"], facts["image_shape"]) == (100, False, [1, 28, 28])
    assert facts["images"] == 12_000_000
    assert sum(layer["parameters"] for layer in facts["g_layers"]) == facts["g_parameters"]


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
    ["networks", "losses", "schedule", "augment"],
    ["step", "runs", "metrics"],
    ["generate"],
    ["train"],
    ["describe", "doctor", "film", "plot", "progress", "bench"],
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
