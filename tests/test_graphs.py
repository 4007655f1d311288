"""Steps on accelerators: repeated ones, ones that never wait, and the way back from a loss that is not finite."""

import contextlib
import copy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gansmith.config import resolve
from gansmith.data.images import Images
from gansmith.errors import TrainingFailed
from gansmith.randomness import Tape, seeded, to_device
from gansmith.recipes import RECIPES
from gansmith.runs import open_run
from gansmith.training import state, step, techniques
from gansmith.training.batches import Batches, take_step
from gansmith.training.graphs import KEPT, Graphs, Repeated, is_repeatable
from gansmith.training.inputs import load_training_data
from gansmith.training.state import RunningMeans, start_networks
from gansmith.training.techniques import build_techniques

SMALL = {"g_width": 32, "d_width": 32, "latent_dim": 8, "batch_size": 8, "clusters": 3, "clusters_per_class": 1}
SMALL |= {"images": 8 * 100, "precision": "float32", "calibrate_output": False}
PLAIN = {"g_optimizer": "sgd", "d_optimizer": "sgd", "g_lr": 1e-2, "d_lr": 1e-2}


@pytest.fixture
def noise():
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (200, 1, 28, 28), generator=draw).to(torch.uint8)
    return Images(pixels, torch.arange(200) % 10, name="noise")


def setting(noise, recipe, **choices):
    """Return a config with its data, networks and techniques, and batches."""
    config, data = load_training_data(resolve(recipe, arguments={**SMALL, **choices}), noise)
    networks = start_networks(config, data.spec, data.conditioning.codes)
    batches = Batches(config, data, networks.device)
    return networks, build_techniques(config, networks.D), batches


def train(networks, built, batches, graphs, *, steps):
    """Return what the steps give to log, and the weights of G, D and the average after them."""
    batches.graphs, built = graphs, replace(built, reads=False)
    numbers = [
        {name: float(value) for name, value in found.items()}
        for found in (take_step(networks, built, batches, 8 * k, 0.3) for k in range(steps))
    ]
    trained = (networks.G, networks.D, networks.G_ema)
    return numbers, [torch.cat([p.detach().flatten() for p in network.parameters()]) for network in trained]


REPEATED = {
    "default": ("default", {}),
    "augmented": ("default", {"augment": "diffaugment", "instance_noise": 0.3, "instance_noise_until": 0.1}),
    "smoothed": ("dcgan-sgd", {"d_width": 8, "g_width": 8}),
    "penalties": ("wgan-gp", {"d_width": 8, "g_width": 8, "dragan": 1.0}),
    "mixing": ("stylegan-lite", {}),
    "extra": ("mlp-small", {"fresh_fakes": True, "g_steps": 2, "r1_gamma": 0.1, "penalty_start_factor": 3.0}),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "mixing" else ()) for name in REPEATED]
)
def test_a_repeated_step_is_the_step_itself(noise, name):
    """Random numbers, batches, ramps and all; on the CPU it is repeated on the same tensors without a graph."""
    recipe, choices = REPEATED[name]
    networks, built, batches = setting(noise, recipe, **PLAIN, **choices)
    alone = train(*copy.deepcopy((networks, built)), batches, None, steps=24)
    graphs = Graphs(torch.device("cpu"))
    repeated = train(networks, built, batches, graphs, steps=24)
    assert 1 <= len(graphs.repeated) <= 4 and is_repeatable(batches.config)
    assert all(len(found.tape.entries) > 0 for found in graphs.repeated.values()) == (name != "extra")
    torch.testing.assert_close(repeated, alone, rtol=1e-3, atol=1e-4)  # CPUs differ in how they round


def test_a_repeated_step_with_other_random_numbers_is_noticed(noise, monkeypatch):
    networks, built, batches = setting(noise, "wgan-gp", d_width=8, g_width=8, **PLAIN)
    alone = train(*copy.deepcopy((networks, built)), batches, None, steps=12)
    monkeypatch.setattr("gansmith.randomness.Tape.renew", lambda tape: None)
    repeated = train(networks, built, batches, Graphs(torch.device("cpu")), steps=12)
    assert not torch.allclose(alone[1][1], repeated[1][1], rtol=1e-5, atol=1e-5)


def test_a_step_whose_numbers_change_is_never_repeated(noise):
    networks, built, batches = setting(noise, "progressive")
    graphs = batches.graphs = Graphs(torch.device("cpu"))
    for k in range(2 * KEPT):  # while layers fade in
        take_step(networks, replace(built, reads=False), batches, 8 * k, 0.3 + 0.002 * k)
    assert not graphs.repeated and len(graphs.seen) <= KEPT


@pytest.mark.parametrize(
    ("recipe", "choices", "repeats"),
    [
        ("default", {}, True),
        ("dcgan-sgd", {}, True),
        ("dcgan-sgd", {"label_flipping": 0.5}, False),
        ("default", {"replay": 0.5}, False),
        ("default", {"d_loss_bound": 0.1}, False),
    ],
)
def test_steps_that_decide_by_what_they_draw_are_not_repeated(recipe, choices, repeats):
    assert is_repeatable(resolve(recipe, arguments=choices)) == repeats


def test_a_step_on_the_second_gpu_is_captured_there(monkeypatch):
    captured = []

    @contextlib.contextmanager
    def capture(graph, stream=None):
        captured.append(stream)
        yield

    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: f"stream of {device}")
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"current one of {device}")
    for index in (0, 1):
        found = Repeated(None, Tape(), {})
        assert Graphs(torch.device("cuda", index))._capture(found, lambda batch: {"d_loss": 1.0})
        assert found.graph is not None and found.numbers == {"d_loss": 1.0}
    assert captured == ["stream of cuda:0", "stream of cuda:1"]
    moved, resting = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    resting.grad, gradient = torch.ones(1), torch.ones(1)

    def step(batch):
        moved.grad = gradient
        return {}

    assert graphs_of(1)._capture(found, step, lambda: [moved, resting])
    assert [(p is moved, g is gradient) for p, g in found.gradients] == [(True, True)]  # not of what it leaves alone

    def fail(batch):
        raise RuntimeError("what graphs cannot")

    monkeypatch.setattr(torch.cuda, "set_stream", captured.append)
    assert not graphs_of(1)._capture(found, fail)
    assert captured[-1] == "current one of cuda:1"


def graphs_of(index):
    return Graphs(torch.device("cuda", index))


@pytest.mark.parametrize(("device", "waits"), [("cuda", False), ("mps", True), ("meta", True)])
def test_only_copies_to_an_nvidia_gpu_run_on_while_memory_is_pinned(monkeypatch, device, waits):
    calls = []

    def copy_to(values, place, *, non_blocking=False):
        calls.append((place.type, non_blocking))
        return values

    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda values: calls.append("pinned") or values)
    monkeypatch.setattr(torch.Tensor, "to", copy_to)
    to_device(torch.zeros(2), torch.device(device))
    assert calls == ([] if waits else ["pinned"]) + [(device, not waits)]


def test_random_states_of_all_gpus_are_put_back(monkeypatch):
    forked = []

    @contextlib.contextmanager
    def fork(devices):
        forked.append(list(devices))
        yield

    monkeypatch.setattr(torch.random, "fork_rng", fork)
    for is_used in (False, True):
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda is_used=is_used: is_used)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        with seeded(torch.Generator()):
            pass
    assert forked == [[], [0, 1]]


def on_meta(noise, recipe, **choices):
    """Return the same on the device without numbers, which cannot be read or mixed with those of another device."""
    networks, _, batches = setting(noise, recipe, **choices)
    for network in (networks.G, networks.D, networks.G_ema):
        network.to("meta")
    networks.g_optimizer, networks.d_optimizer = (
        torch.optim.SGD(network.parameters(), 0.1, foreach=True) for network in (networks.G, networks.D)
    )
    kept = {name: t if name == "replay_filled" else t.to("meta") for name, t in networks.buffers.items()}
    networks.buffers = kept
    batches = Batches(batches.config, batches.data, torch.device("meta"))
    return networks, build_techniques(batches.config, networks.D), batches


WAITLESS = {name: (name, {}) for name in RECIPES} | {
    "adaptive": ("default", {"augment": "adaptive"}),
    "replayed": ("default", {"replay": 0.5, "replay_size": 12, "augment": "flips"}),
    "boundary": ("mlp-small", {"objective": "boundary-equilibrium", "network": "autoencoder"}),
    "clipped": ("mlp-small", {"clip_grad_norm": 1.0, "clip_weights": 0.1, "dragan": 1.0}),
}
QUICK = ("default", "mlp-keras", "adaptive", "replayed", "boundary", "clipped")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in WAITLESS]
)
def test_no_step_reads_what_is_on_the_device_or_mixes_devices(noise, name):
    recipe, choices = WAITLESS[name]
    networks, built, batches = on_meta(noise, recipe, **choices)
    assert not built.reads
    means = RunningMeans()
    for k in range(4):
        means.add(take_step(networks, built, batches, 8 * k, 0.3))
    assert {"d_loss", "d_real", "d_fake"} <= {name for names in means.waiting for name in names}


def test_reading_on_the_device_is_noticed(noise):
    """So the test above can fail."""
    networks, built, batches = on_meta(noise, "default")
    with pytest.raises(RuntimeError, match="meta"):
        take_step(networks, replace(built, reads=True), batches, 0, 0.3)


def as_on_a_device(monkeypatch):
    """Leave losses unread, as on an accelerator."""
    for module in (step, techniques):
        monkeypatch.setattr(module, "to_number", lambda scalar: scalar.detach().clone())
    built = state.build_techniques
    monkeypatch.setattr(state, "build_techniques", lambda *given: replace(built(*given), reads=False))


def test_an_infinite_loss_is_found_later_and_named_where_it_arose(tiny, run_training, monkeypatch):
    config = tiny("mlp-small", g_lr=1e18, d_lr=1e18, log_every=128, save_every=10_000)
    with pytest.raises(TrainingFailed) as at_once:
        run_training(config, "at-once")
    as_on_a_device(monkeypatch)
    with pytest.raises(TrainingFailed) as later:
        run_training(config, "later")
    assert str(at_once.value) == str(later.value) and "became NaN or infinite after" in str(later.value)


def test_a_run_whose_losses_are_read_later_is_the_same_run(tiny, run_training, monkeypatch):
    config = tiny("mlp-small")
    at_once = run_training(config, "at-once")
    as_on_a_device(monkeypatch)
    later = run_training(config, "later")
    for name in ("generator.safetensors", "state.safetensors"):
        assert (at_once.latest() / name).read_bytes() == (later.latest() / name).read_bytes()
    for a, b in zip(at_once.log, open_run(later.directory).log, strict=True):
        assert a["d_loss"] == pytest.approx(b["d_loss"], rel=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("part", ["equality", "resume", "waits"])
def test_a_gpu_passes_the_device_check(tmp_path, part):
    """The steps of the CPU, the same bytes after a stop, and no waiting, each step by itself and as graphs."""
    script = Path(__file__).parents[1] / "scripts" / "device_check.py"
    found = tmp_path / "check.json"
    command = [sys.executable, script, "--device", "cuda", "--parts", part, "--out", found]
    assert subprocess.run(command).returncode == 0, found.read_text()
