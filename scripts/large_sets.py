"""Measure what large sets cost on this machine: preparation against bare decoding, training from disk against memory.

    python scripts/large_sets.py prepare FOLDER --size 64 [--count 4000] [--rounds 5]
    python scripts/large_sets.py train IMAGES.npy --recipe default [--rounds 12]

Both alternate what is compared within one process, so that other work on the machine falls on either alike, and print
the medians of the ratios of neighbouring rounds, by wall and by processor time. `prepare` has Pillow alone decode, and
decode and reduce, in as many threads or processes as there are cores; the file system's cache is warm. `train` takes
real steps of one pair of networks on batches from the file, and from its first 20,000 images in memory; without
sub-clusters, which change no step.
"""

import argparse
import os
import random
import resource
import statistics
import time
import warnings
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from gansmith.config import resolve
from gansmith.data.loading import _prepare_all
from gansmith.data.pictures import Part, find_pictures
from gansmith.data.prepare import Preparation
from gansmith.training.batches import Batches, take_step
from gansmith.training.inputs import TrainingData, load_training_data
from gansmith.training.state import start_networks
from gansmith.training.techniques import build_techniques

STEPS = 5  # of training in each round
MEMORY_IMAGES = 20_000


def decode(paths: list[Path]) -> None:
    for path in paths:
        with Image.open(path) as picture:
            picture.load()


def decode_and_reduce(size: int, paths: list[Path]) -> None:
    for path in paths:
        with Image.open(path) as picture:
            ImageOps.fit(picture.convert("RGB"), (size, size), Image.Resampling.LANCZOS)


def spread(pool: Callable[[int], Executor], function: Callable[[list[Path]], None], paths: list[Path]) -> None:
    """Call a function on a few paths at a time, on all cores."""
    with pool(os.cpu_count() or 1) as workers:
        list(workers.map(function, [paths[start : start + 64] for start in range(0, len(paths), 64)]))


def cpu_s() -> float:
    """Return the processor time of this process and of those it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def timed(function: Callable[[], object]) -> tuple[float, float]:
    """Return the wall and the processor seconds of a call."""
    wall, cpu = time.perf_counter(), cpu_s()
    function()
    return time.perf_counter() - wall, cpu_s() - cpu


def compare(rivals: dict[str, Callable[[], object]], ours: str, rounds: int, count: int) -> None:
    """Print the rate of each, and how many times as fast `ours` is as each other."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in rivals}
    for _ in range(rounds):
        for name, function in rivals.items():
            times[name].append(timed(function))
    for name, found in times.items():
        rate = count / statistics.median(wall for wall, _ in found)
        ratios = [
            statistics.median(theirs[k] / own[k] for theirs, own in zip(found, times[ours], strict=True))
            for k in (0, 1)
        ]
        print(
            f"{name:<24} {rate:9,.0f} images/s   "
            f"{ours}: {ratios[0]:.2f} times as fast, {ratios[1]:.2f} by processor time"
        )


def measure_preparation(folder: Path, size: int, count: int, rounds: int) -> None:
    source = find_pictures(folder)
    names = source.parts["train"].names
    names = random.Random(0).sample(names, min(count, len(names)))
    source = replace(source, parts={"train": Part(tuple(names))})
    paths = [folder / name for name in names]
    decode(paths)  # into the file system's cache
    pixels = np.zeros((len(names), 3, size, size), np.uint8)
    how = Preparation(size, color="rgb", background="black")
    rivals = {
        "decoded, threads": partial(spread, ThreadPoolExecutor, decode, paths),
        "decoded, processes": partial(spread, ProcessPoolExecutor, decode, paths),
        "and reduced, threads": partial(spread, ThreadPoolExecutor, partial(decode_and_reduce, size), paths),
        "and reduced, processes": partial(spread, ProcessPoolExecutor, partial(decode_and_reduce, size), paths),
        "prepared": partial(_prepare_all, source, how, "train", pixels.__setitem__, None, Counter()),
    }
    mean_kb = sum(path.stat().st_size for path in paths) / len(paths) / 1e3
    print(f"{len(paths):,} of {folder}, {mean_kb:.1f} kB each, to {size}x{size}")
    compare(rivals, "prepared", rounds, len(paths))


def measure_training(path: Path, recipe: str, rounds: int) -> None:
    started_at = time.perf_counter()
    config, data = load_training_data(
        resolve(recipe, arguments={"data": str(path), "trackers": "none", "clusters_per_class": 1})
    )
    print(f"{len(data.train):,} images of {data.spec}, loaded after {time.perf_counter() - started_at:.1f} s")
    rows = torch.arange(min(MEMORY_IMAGES, len(data.train)))
    memory = replace(data, train=replace(data.train, pixels=data.train.pixels[rows], labels=None), y=data.y[rows])
    networks = start_networks(config, data.spec, data.conditioning.codes)
    techniques = build_techniques(config, networks.D)
    seen = {"memory": 0, "disk": 0}

    def step(name: str, batches: Batches) -> None:
        for _ in range(STEPS):
            take_step(networks, techniques, batches, seen[name], 0.5)
            seen[name] += config.batch_size

    def read(name: str, batches: Batches) -> None:
        for _ in range(STEPS):
            batches.at(seen[name])
            seen[name] += config.batch_size

    pairs: dict[str, TrainingData] = {"disk": data, "memory": memory}
    for what, function in (("steps", step), ("batches alone", read)):
        rivals = {name: partial(function, name, Batches(config, each)) for name, each in pairs.items()}
        for rival in rivals.values():
            rival()
        print(what)
        compare(rivals, "disk", rounds, STEPS * config.batch_size)
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"peak resident memory {peak_gb:.2f} GB, {MEMORY_IMAGES:,} images in memory included")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("prepare", "train"))
    parser.add_argument("path", type=Path)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--count", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--recipe", default="default")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    if asked.what == "prepare":
        measure_preparation(asked.path, asked.size, asked.count, asked.rounds)
    else:
        measure_training(asked.path, asked.recipe, asked.rounds)


if __name__ == "__main__":
    main()
