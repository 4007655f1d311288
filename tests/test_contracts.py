"""What every row of every table promises."""

import ast
import json
import re
import subprocess
import sys
from copy import deepcopy
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import numpy as np
import pytest
import torch

import gansmith
from gansmith.config import FIELDS, resolve
from gansmith.data.images import ImageSpec
from gansmith.errors import ConfigError
from gansmith.metrics import METRICS
from gansmith.networks import NETWORKS
from gansmith.networks.progressive import grow
from gansmith.recipes import RECIPES
from gansmith.summaries import describe, to_text
from gansmith.training.calibration import calibrate_output, output_layer, rescale
from gansmith.training.losses import OBJECTIVES
from gansmith.training.penalties import penalties_at
from gansmith.training.state import start_networks
from gansmith.training.step import Batch, train_step
from gansmith.training.techniques import build_techniques

SPECS = [ImageSpec(28, 1, 10), ImageSpec(32, 3, 4), ImageSpec(28, 1, 0), ImageSpec(100, 3, 0)]
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


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ("compact", "mlp", "stylegan-lite") else pytest.mark.slow)
        for name in NETWORKS
    ],
)
def test_output_is_calibrated_exactly_or_refused(name):
    config = resolve("mlp-small", arguments={"network": name, "g_width": 16, "d_width": 16, "latent_dim": 12})
    G = NETWORKS[name](ImageSpec(28, 3, 0), config)[0].eval()
    try:
        layer = output_layer(G, 3)
    except ConfigError as refusal:
        assert "set it to false or choose another network" in str(refusal)
        assert name in ("planes", "progressive", "stylegan-lite", "r3gan")
        return
    assert layer.bias is not None
    config = config.replace(calibrate_output=True)
    z, ids = torch.randn(2000, 12), torch.zeros(2000, dtype=torch.int64)
    with torch.no_grad():
        layer.weight.mul_(3.0)  # from grey images to some of every brightness
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
def test_each_way_of_conditioning_reaches_every_weight(name, form):
    """Or the network has its own way and says so."""
    choices = {
        "network": name,
        "g_width": 8,
        "d_width": 8,
        "latent_dim": 5,
        "minibatch_stddev": 64,
        "d_conditioning": form,
    }
    g_form = form if form in ("multiplied", "concatenated") else "auto"
    config = resolve("mlp-small", arguments={**choices, "g_conditioning": g_form})
    try:
        G, D = NETWORKS[name](ImageSpec(28, 1, 3), config)
    except ConfigError as refusal:
        assert "conditioning at auto" in str(refusal) or "does not support" in str(refusal)
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
            torch.testing.assert_close(D(images, ids), D(images, ids.flip(0)))  # the logit does not depend on y
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
        (gradient,) = torch.autograd.grad(loss, fake)
        assert gradient.abs().sum() > 0


def networks_and_batches(config, spec, count):
    """Return a config's networks and techniques, and batches of noise to step on."""
    networks = start_networks(config, spec)
    draw = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(count):
        y = torch.randint(0, 1 if config.conditioning == "none" else spec.num_classes, (4,), generator=draw)
        real = torch.rand(4, spec.channels, spec.size, spec.size, generator=draw) * 2 - 1
        batches.append(Batch(real, y, torch.randn(4, config.latent_dim, generator=draw), y, draw))
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
        "shares": (*probabilities, np.eye(4)),
        "classes": (real, fake, *(x.argmax(1) for x in probabilities)),
        "labels": (probabilities[1], probabilities[1].argmax(1)),
        "pixels": pixels,
        "train": (rng.normal(size=(70, 4)), real, fake),
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
    networks, techniques, batches = networks_and_batches(config, ImageSpec(28, 1, 3), 2)
    for batch in batches:
        numbers = train_step(networks, batch, techniques, penalties_at(config, 0, 0.0, networks.buffers))
        assert set(numbers) == {"d_loss", "g_loss", "d_real", "d_fake"}
        assert all(torch.isfinite(torch.tensor(value)) for value in numbers.values())


# What an objective needs besides its name.
COMPANIONS = {
    "wasserstein": {"clip_weights": 0.01},
    "boundary-equilibrium": {"network": "autoencoder"},
    "auxiliary-classifier": {"conditioning": "labels", "d_conditioning": "classifier"},
}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_objectives_move_every_weight_of_both_networks(objective):
    choices = {"objective": objective, "g_width": 8, "d_width": 8, "latent_dim": 6, **COMPANIONS.get(objective, {})}
    config = resolve("mlp-small", arguments=choices)
    networks, techniques, batches = networks_and_batches(config, ImageSpec(8, 1, 3), 3)
    before = [[p.detach().clone() for p in network.parameters()] for network in (networks.G, networks.D)]
    for batch in batches:
        train_step(networks, batch, techniques, penalties_at(config, 0, 0.0, networks.buffers))
    for network, was in zip((networks.G, networks.D), before, strict=True):
        for (name, parameter), old in zip(network.named_parameters(), was, strict=True):
            if name != "head.bias":  # many losses compare scores, so that what shifts them all has no gradient
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
    for which in ("g", "d"):
        assert sum(layer["parameters"] for layer in facts[f"{which}_layers"]) == facts[f"{which}_parameters"]
        names = [layer["name"] for layer in facts[f"{which}_layers"]]
        assert len(names) == len(set(names))  # no layer stands for two


def test_descriptions_name_what_is_in_use():
    facts = describe(resolve("dcgan-sgd"))
    assert facts["techniques"] == {
        "d_dropout": 0.3, "label_smoothing": 0.3, "fake_label_smoothing": 0.3, "random_labels": True,
        "label_flipping": 1.0, "g_targets": "smoothed",
    }  # fmt: skip
    assert (facts["g_optimizer"], facts["d_optimizer"]) == (
        "adam 0.0002, betas 0.5 and 0.999", "sgd 0.0002, momentum 0",
    )  # fmt: skip
    kinds = [(layer["kind"], layer["settings"]) for layer in facts["d_layers"]]
    assert ("LeakyReLU", "negative_slope=0.2") in kinds and ("Dropout", "0.3") in kinds
    text = to_text(facts)
    assert re.search(r"label_flipping +1\.0 +probability", text) and "SGD" not in text
    assert describe(resolve("vanilla-cs231n"))["techniques"] == {"latent_distribution": "uniform", "fresh_fakes": True}


# Modules of the package. Each may import from the lines before its own; those on one line do not import each other.
# A name stands for a package with all its modules, but for ones that have a line of their own.
FLOW = [
    ["interrupts"],
    ["gansmith"],
    ["errors", "events", "exchange", "flat_images", "isolation", "verdicts", "pictures.grids"],
    ["recipes", "advice", "files", "processes"],
    ["config", "importers", "checkpoints", "randomness"],
    ["data", "runs", "training.machine"],
    ["conditioning", "metrics"],
    ["networks"],
    ["sampling"],
    ["signature", "latent_space"],
    ["models"],
    ["training.schedule", "training.augment"],
    ["training.losses", "training.penalties"],
    ["training.step"],
    ["training.conflicts", "training.optimizers", "training.calibration"],
    ["training.techniques", "training.diagnosis", "training.monitor"],
    ["training.inputs", "training.graphs"],
    ["training.batches", "training.transfer"],
    ["training.state"],
    ["training.own_rows"],
    ["training.chores"],
    ["training.loop"],
    ["training.budget", "training.trackers"],
    ["evaluation", "summaries", "environment", "exporters", "pictures.plots", "pictures.animations", "workers"],
    ["benchmarks", "reports", "inversion", "lessons", "grading"],
    ["coursework", "sweeps"],
    ["progress", "planning"],
    ["api"],
    ["web"],
    ["cli"],
    ["web.trainer", "__main__"],
]
PLACE = {name: level for level, names in enumerate(FLOW) for name in names}
EMPTY = {"training", "pictures", "web", "grading"}  # packages that are a docstring


def module_name(path):
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix("__init__").rstrip(".") or "gansmith"


MODULES = {module_name(path): path for path in sorted(SOURCE.rglob("*.py"))}


def imported_modules(path):
    """Return the modules of this package that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name.removeprefix("gansmith.") in MODULES else node.module for name in full}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name.removeprefix("gansmith.") for name in found if f"{name}.".startswith("gansmith.")}


def place_of(module):
    """Return the entry of FLOW that a module belongs to."""
    while module not in PLACE:
        module, dot, _ = module.rpartition(".")
        assert dot, f"{module} has no line in FLOW"
    return module


def test_imports_go_one_way():
    upwards = []
    for module in MODULES.keys() - EMPTY:
        home = place_of(module)
        for other in imported_modules(MODULES[module]) - EMPTY:
            if place_of(other) != home and PLACE[place_of(other)] >= PLACE[home]:
                upwards.append(f"{module} imports {other}")
    assert not upwards
    assert {place_of(module) for module in MODULES.keys() - EMPTY} == set(PLACE)


def test_no_modules_import_each_other_in_a_circle():
    try:
        list(
            TopologicalSorter({name: imported_modules(path) - {name} for name, path in MODULES.items()}).static_order()
        )
    except CycleError as error:
        pytest.fail(" imports ".join(error.args[1]))


def run_python(code):
    """Return what code prints, as JSON, in a process of its own."""
    return json.loads(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def test_public_names_are_sorted_documented_and_no_modules():
    """After every module was imported: importing `gansmith.x` makes x an attribute of the package."""
    code = """
import importlib, json, pkgutil, gansmith
names = [found.name for found in pkgutil.walk_packages(gansmith.__path__, "gansmith.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
kinds = {name: [callable(value), type(value).__name__, bool(value.__doc__)]
         for name in gansmith.__all__ for value in [getattr(gansmith, name)]}
print(json.dumps([names, kinds]))
"""
    modules, kinds = run_python(code)
    assert {name.removeprefix("gansmith.") for name in modules} == MODULES.keys() - {"gansmith"}
    for name, (is_callable, kind, has_docstring) in kinds.items():
        assert (is_callable or kind == "dict") and has_docstring, f"gansmith.{name} is a {kind}"
    assert not [name for name in modules if name.rpartition(".")[2] in kinds]
    assert list(kinds) == sorted(kinds) == gansmith.__all__
    with pytest.raises(AttributeError):
        gansmith.nothing  # noqa: B018


HEAVY = ("torch", "numpy", "PIL", "sklearn", "scipy", "matplotlib", "keras", "onnx", "h5py")


@pytest.mark.parametrize("arguments", [None, ["--help"], ["train", "--help"], ["list", "recipes"]], ids=str)
def test_a_first_answer_imports_nothing_heavy(arguments):
    call = f"""
from gansmith.cli import main
sys.argv = ["gansmith", *{arguments}]
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
    main()
"""
    code = f"""
import contextlib, io, json, sys, gansmith
{call if arguments is not None else ""}
print(json.dumps([name for name in {HEAVY} if name in sys.modules]))
"""
    assert run_python(code) == []


def functions(tree, outer=None):
    """Yield each definition in a tree with the innermost function around it."""
    for node in ast.iter_child_nodes(tree):
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if is_function or isinstance(node, ast.ClassDef):
            yield node, outer
        yield from functions(node, node if is_function else outer)


def test_functions_fit_on_a_screen():
    """None is longer than 60 lines, and nothing longer than five is defined inside one."""
    long = []
    for path in MODULES.values():
        for node, outer in functions(ast.parse(path.read_text())):
            lines = node.end_lineno - node.lineno + 1
            limit = 60 if outer is None else 5
            if lines > limit and (outer is not None or not isinstance(node, ast.ClassDef)):
                long.append(f"{path.relative_to(SOURCE)}:{node.lineno} {node.name} has {lines} lines, not {limit}")
    assert not long, "\n".join(long)


def test_source_is_plain_ascii_and_never_pickles():
    for path in SOURCE.rglob("*.py"):
        text = path.read_text()
        assert text.isascii(), path
        for found in re.findall(r"import pickle|(?<!safetensors\.)torch\.(?:load|save)\(.*", text):
            assert path.name == "weights.py" and found.endswith(", weights_only=True)"), path


# Places that show or name choices and do not act on them.
REPORTING = (
    "config", "recipes", "training.conflicts", "summaries", "exporters", "reports", "coursework", "grading", "pictures",
    "benchmarks", "cli", "api", "planning", "progress", "web", "sweeps", "workers", "lessons",
)  # fmt: skip
INTERVALS = {"log_every", "sample_every", "evaluate_every", "save_every"}  # read by name
SHARED = {"latent_distribution", "burn_in", "calibrate_output"}  # techniques that act in three places or more


def acting_modules():
    """Return, for each field, the modules that read it from a config; the networks count as one."""
    found = {name: set() for name in FIELDS}
    for module, path in MODULES.items():
        if any(f"{module}.".startswith(f"{name}.") for name in REPORTING):
            continue
        place = "networks" if module.startswith("networks") else module
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in found:
                owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
                found[node.attr] |= {place} if owner == "config" else set()
            elif isinstance(node, ast.Constant) and node.value in INTERVALS:
                found[node.value].add(place)
    return found


def test_each_technique_acts_in_one_place_or_two():
    found = acting_modules()
    assert all(found.values()), [name for name, places in found.items() if not places]
    spread = {name for name, places in found.items() if len(places) > 2 and FIELDS[name].metadata["technique"]}
    assert spread == SHARED, {name: sorted(found[name]) for name in spread ^ SHARED}
