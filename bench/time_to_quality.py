"""Seconds and images to a score: trains a recipe for given minutes and seeds, then scores 10,000 samples.

    python bench/time_to_quality.py [--recipe default] [--dataset mnist] [--minutes 1 3] [--seeds 0 1 2]

The score is the Frechet distance to the 10,000 validation images over the same distance of 10,000 fit images, in
the shipped feature network and in one with random weights. Prints a Markdown row a run and keeps the runs.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from gansmith.data import load_data, split
from gansmith.generate import load_model, sample
from gansmith.metrics import frechet_distance
from gansmith.metrics.features import load_feature_network, random_feature_network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 3])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/time-to-quality"))
    arguments = parser.parse_args()

    fit, validation = split(load_data(arguments.dataset))
    count = min(10_000, len(validation))
    networks = {"trained": load_feature_network(fit.name, fit.spec), "random": random_feature_network(fit.spec)}
    real = {name: network.features(validation.pixels[:count]) for name, network in networks.items()}
    step = len(fit) // count
    floors = {
        name: frechet_distance(network.features(fit.pixels[::step][:count]), real[name])["frechet"]
        for name, network in networks.items()
    }
    print(f"| recipe | minutes | seed | images | seconds | {' | '.join(networks)} |")
    print("|---" * (5 + len(networks)) + "|", flush=True)
    for minutes in arguments.minutes:
        for seed in arguments.seeds:
            out = arguments.out / f"{arguments.recipe}-{arguments.dataset}-{minutes:g}min-{seed}"
            words = [arguments.recipe, "--dataset", arguments.dataset, "--minutes", str(minutes), "--seed", str(seed)]
            started_at = time.perf_counter()
            command = [sys.executable, "-m", "gansmith", "train", *words, "--out", str(out), "--progress", "plain"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds = time.perf_counter() - started_at
            model = load_model(out)
            samples, _ = sample(model, seed=1, count=count)
            ratios = [
                frechet_distance(network.features(samples), real[name])["frechet"] / floors[name]
                for name, network in networks.items()
            ]
            scores = " | ".join(f"{ratio:.2f}" for ratio in ratios)
            row = f"{arguments.recipe} | {minutes:g} | {seed} | {model.config.images:,} | {seconds:.0f}"
            print(f"| {row} | {scores} |", flush=True)


if __name__ == "__main__":
    main()
