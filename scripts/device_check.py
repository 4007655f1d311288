"""Check a device against the CPU and measure it; made to take less than eight minutes on an H100; writes JSON.

    python scripts/device_check.py --device cuda --out check.json
    python scripts/device_check.py --device cpu --scale 0.1

1. Ten steps of several recipes by plain gradient descent, on the CPU and on the device, each by itself and repeated as
   graphs: losses and weights must agree to 1e-6 of the largest, or 1e-6, in float64. In float32 they must agree to
   1e-4, or to ten times what float32 itself differs from float64 on the CPU, where steps magnify rounding more.
2. A run that stops and continues on the device must end with the same bytes as one that does not stop.
3. No step may make the processor wait for the GPU.
4. Images a second of every recipe, each step by itself and as graphs; memory.
5. Seconds of training to a validation FD ratio of 1.5 on MNIST.
6. `default` on CIFAR-10 for three minutes, and its FD ratio; left out where the data are not found.

Exit code 1 where 1, 2 or 3 fails. `--scale` multiplies all times.
"""

import argparse
import json
import math
import os
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import gansmith as gs
from gansmith.config import Config, resolve
from gansmith.data.images import to_uint8
from gansmith.errors import NotFoundError
from gansmith.files import to_json
from gansmith.training.batches import Batches, take_step
from gansmith.training.graphs import WARM_UP, Graphs, is_repeatable
from gansmith.training.inputs import TrainingData, load_training_data
from gansmith.training.machine import device_name, find_device, training_machine, wait_for
from gansmith.training.state import start_networks, to_tensors
from gansmith.training.step import Batch, Networks
from gansmith.training.techniques import build_techniques

TOLERANCE, DOUBLE_TOLERANCE, ROUNDINGS = 1e-4, 1e-6, 10.0
COMPARED = ("default", "mlp-keras", "dcgan-sgd", "r3gan", "stylegan-lite", "wgan-gp")
# Dropout draws on the device; the learning rates are the same number in float32 as in float64.
PLAIN = {"g_optimizer": "sgd", "d_optimizer": "sgd", "g_lr": 2**-7, "d_lr": 2**-7, "precision": "float32"}
PLAIN |= {"g_dropout": 0.0, "d_dropout": 0.0}
RATIO = 1.5


def noise() -> gs.Images:
    """Return 2,000 images of noise, as large as MNIST's digits, in ten classes."""
    draw = torch.Generator().manual_seed(0)
    return gs.Images(torch.randint(256, (2_000, 1, 28, 28), generator=draw).to(torch.uint8), torch.arange(2_000) % 10)


def data_of(recipe: str, **choices: Any) -> tuple[Config, TrainingData]:
    """Return a recipe's config, and noise to train it on."""
    arguments = {"images": 10**9, "clusters_per_class": 4, "clusters": 40, "augment": "none", **choices}
    return load_training_data(resolve(recipe, arguments=arguments), noise())


class DoubleBatches(Batches):
    """Batches in float64. Their real images are computed again, since a GPU rounds their division in another way."""

    def at(self, images_seen: int, progress: float = 0.0) -> Batch:
        batch = super().at(images_seen, progress)
        real = to_uint8(batch.real).double().sub(127.5) / 127.5
        extra_z = tuple(z.double() for z in batch.extra_z)
        return replace(batch, real=real, z=batch.z.double(), extra_z=extra_z)


def stepper(
    config: Config, data: TrainingData, *, graphs: bool, double: bool = False
) -> tuple[Networks, Callable[[], dict[str, Any]]]:
    """Return networks and a function that takes their next step."""
    networks = start_networks(config, data.spec, data.conditioning.codes)
    device = networks.device
    techniques, batches = build_techniques(config, networks.D), (DoubleBatches if double else Batches)(config, data)
    for network in (networks.G, networks.D, networks.G_ema) if double else ():
        network.double()
    repeats = graphs and is_repeatable(config)
    batches.graphs = (batches.graphs or Graphs(device)) if repeats else None  # on the CPU too, without a graph
    techniques = replace(techniques, reads=techniques.reads and not repeats)
    seen = 0

    def step() -> dict[str, Any]:
        nonlocal seen
        seen += config.batch_size
        return take_step(networks, techniques, batches, seen - config.batch_size, 0.3)

    return networks, step


def check_equality(device: str, scale: float) -> dict[str, Any]:
    """Return, for each recipe, the largest difference of ten losses and of the weights after them from the CPU's."""
    found, passed = {}, True
    for recipe in COMPARED:
        config, data = data_of(recipe, **PLAIN)
        on_cpu, on_device = config.replace(device="cpu"), config.replace(device=device)
        exact, rounded = _ten_steps(on_cpu, data, double=True), _ten_steps(on_cpu, data)
        rounding = _difference(rounded, exact)
        row = {"rounding": rounding}
        for name, graphs in (("eager", False), ("graphs", True)):
            row[f"{name} float64"] = _difference(_ten_steps(on_device, data, graphs=graphs, double=True), exact)
            row[f"{name} float32"] = _difference(_ten_steps(on_device, data, graphs=graphs), rounded)
            passed = passed and row[f"{name} float64"] <= DOUBLE_TOLERANCE
            passed = passed and row[f"{name} float32"] <= max(TOLERANCE, ROUNDINGS * rounding)
        found[recipe] = row
    return {"recipes": found, "passed": passed}


def _ten_steps(
    config: Config, data: TrainingData, *, graphs: bool = False, double: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the losses of ten steps, and all weights after them."""
    networks, step = stepper(config, data, graphs=graphs, double=double)
    losses = [float(value) for _ in range(10) for key, value in step().items() if key.endswith("loss")]
    weights = torch.cat([t.double().flatten().cpu() for t in to_tensors(networks, config).values()])
    return torch.tensor(losses, dtype=torch.float64), weights


def _difference(found: tuple[torch.Tensor, torch.Tensor], wanted: tuple[torch.Tensor, torch.Tensor]) -> float:
    """Return the larger of the differences of losses and of weights, as shares of the largest number."""
    return max(float((a - b).abs().max() / b.abs().max().clamp(min=1.0)) for a, b in zip(found, wanted, strict=True))


def check_resume(device: str, scale: float) -> dict[str, Any]:
    """Return whether a run that stops and continues ends with the same bytes as one that does not."""
    found = {}
    for recipe in ("default", "mlp-keras"):
        with tempfile.TemporaryDirectory() as folder:
            choices = {"data": noise(), "device": device, "trackers": "none", "clusters_per_class": 4}
            length = 64 * 64
            whole = gs.train(
                recipe, images=length, out=f"{folder}/whole", save_every=length // 2, progress="none", **choices
            )
            half = Path(folder) / "half"
            events = gs.train_events(recipe, images=length, out=half, save_every=length // 2, **choices)
            for event in events:
                if event.kind == "checkpoint":
                    break
            events.close()
            continued = gs.resume(half, data=noise(), progress="none")
            names = ("state.safetensors", "generator.safetensors")
            pairs = [[(run.latest() / name).read_bytes() for run in (whole, continued)] for name in names]
            found[recipe] = all(first == second for first, second in pairs)
    return {"recipes": found, "passed": all(found.values())}


def check_waits(device: str, scale: float) -> dict[str, Any]:
    """Return whether steps run without the processor waiting for an NVIDIA GPU."""
    if find_device(device).type != "cuda":
        return {"passed": True, "note": "only measured on NVIDIA GPUs"}
    found = {}
    for recipe in gs.RECIPES:
        for graphs in (False, True):
            _, step = stepper(*data_of(recipe, device=device), graphs=graphs)
            for _ in range(2 * (WARM_UP + 1) * 16 if graphs else 20):
                step()
            torch.cuda.set_sync_debug_mode("error")
            try:
                for _ in range(20):
                    step()
                found[f"{recipe} {'graphs' if graphs else 'eager'}"] = ""
            except RuntimeError as error:
                found[f"{recipe} {'graphs' if graphs else 'eager'}"] = str(error).splitlines()[0]
            finally:
                torch.cuda.set_sync_debug_mode("default")
    return {"recipes": found, "passed": not any(found.values())}


def measure_rates(device: str, scale: float) -> dict[str, Any]:
    """Return images a second of every recipe, each step by itself and as graphs, and the memory of each."""
    found: dict[str, Any] = {}
    for recipe in gs.RECIPES:
        row: dict[str, Any] = {}
        for name, graphs in (("eager", False), ("graphs", True)):
            config, data = data_of(recipe, device=device)
            networks, step = stepper(config, data, graphs=graphs)
            place, cycle = networks.device, math.lcm(config.penalty_every, config.d_steps)
            if place.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            for _ in range((WARM_UP + 2) * cycle if place.type == "cuda" else cycle):
                step()
            wait_for(place)
            started_at, steps = time.perf_counter(), 0
            while time.perf_counter() - started_at < 1.0 * scale:
                for _ in range(cycle):
                    step()
                steps += cycle
                wait_for(place)
            row[name] = round(steps * config.batch_size / (time.perf_counter() - started_at), 1)
            if place.type == "cuda":
                row[f"{name} MB"] = round(torch.cuda.max_memory_allocated() / 1e6, 1)
        found[recipe] = row
    return {"images_per_s": found}


def measure_time_to_quality(device: str, scale: float) -> dict[str, Any]:
    """Return the seconds of training to the validation FD ratio on MNIST, and the ratios on the way."""
    with tempfile.TemporaryDirectory() as folder:
        events = gs.train_events(
            "default", data="mnist", minutes=1.5 * scale, out=f"{folder}/run", device=device, trackers="none",
            evaluate_every=25_000,
        )  # fmt: skip
        started_at, ratios = time.perf_counter(), []
        for event in events:
            if event.kind == "score":
                ratios.append(
                    [round(time.perf_counter() - started_at, 1), event.images_seen, event.validation_fd_ratio]
                )
    reached = [seconds for seconds, _, ratio in ratios if ratio <= RATIO]
    return {"ratio": RATIO, "seconds": reached[0] if reached else None, "ratios": ratios}


def measure_cifar10(device: str, scale: float) -> dict[str, Any]:
    """Return the FD ratio of `default` after three minutes on CIFAR-10, or on an archive of its pictures."""
    archive = Path(os.environ.get("GANSMITH_DATA", "."), "cifar-10", "cifar-10-images.tar.xz")
    data = archive if archive.is_file() else "cifar10"
    with tempfile.TemporaryDirectory() as folder:
        try:
            run = gs.train(
                "default", data=data, minutes=3 * scale, out=f"{folder}/run", device=device, trackers="none",
                progress="none",
            )  # fmt: skip
        except NotFoundError as error:
            return {"left out": str(error)}
        verdict = run.evaluate(quick=True)
        return {
            "images": run.images_seen,
            "validation_fd_ratio": run.validation_scores()[-1]["validation_fd_ratio"],
            "fd_ratio": verdict["fd_ratio"],
            "valid": verdict["valid"],
        }


PARTS = {
    "equality": check_equality,
    "resume": check_resume,
    "waits": check_waits,
    "rates": measure_rates,
    "time to quality": measure_time_to_quality,
    "cifar10": measure_cifar10,
}


def run_part(part: Callable[[str, float], dict[str, Any]], device: str, scale: float) -> dict[str, Any]:
    """Return what a part finds, with its seconds; the error instead where it fails, so that the others still run."""
    started_at = time.perf_counter()
    try:
        found = part(device, scale)
    except Exception:
        found = {"error": traceback.format_exc(), "passed": False}
    return found | {"took_s": round(time.perf_counter() - started_at, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("device-check.json"))
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    asked = parser.parse_args()
    device = find_device(asked.device)
    name = str(device) if device.index else device.type
    found: dict[str, Any] = {"device": device_name(device), "torch": torch.__version__, "scale": asked.scale}
    with training_machine(resolve("default", arguments={"device": name})):
        for part in asked.parts:
            found[part] = run_part(PARTS[part], name, asked.scale)
            asked.out.write_text(to_json(found) + "\n")  # after each part, in case the time is over
            print(part, json.dumps(found[part])[:2000], flush=True)
    if not all(found[part].get("passed", True) for part in asked.parts):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
