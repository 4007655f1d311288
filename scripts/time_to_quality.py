"""Seconds and images to a score: trains a recipe for given minutes and seeds, then scores 10,000 samples.

    python bench/time_to_quality.py [--recipe default] [--data mnist] [--minutes 1 3] [--seeds 0 1 2]

The score is that of `gansmith evaluate`: how far samples are from the test images, over how far validation images are,
in the shipped feature network and in one with random weights. Prints a Markdown row a run and keeps the runs.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

from gansmith.evaluation import evaluate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 3])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/time-to-quality"))
    arguments = parser.parse_args()

    print("| recipe | minutes | seed | images | seconds | times real | trained | random | gates that fail |")
    print("|---" * 9 + "|", flush=True)
    for minutes in arguments.minutes:
        for seed in arguments.seeds:
            out = arguments.out / f"{arguments.recipe}-{arguments.dataset}-{minutes:g}min-{seed}"
            words = [arguments.recipe, "--data", arguments.dataset, "--minutes", str(minutes), "--seed", str(seed)]
            started_at = time.perf_counter()
            command = [sys.executable, "-m", "gansmith", "train", *words, "--out", str(out), "--progress", "plain"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds = time.perf_counter() - started_at
            found = evaluate(out)
            failed = ", ".join(name for name, gate in found["gates"].items() if gate["ok"] is False) or "none"
            scores = " | ".join(f"{ratio:.2f}" for ratio in (found["ratio"], *found["ratios"].values()))
            row = f"{arguments.recipe} | {minutes:g} | {seed} | {found['images_seen']:,} | {seconds:.0f}"
            print(f"| {row} | {scores} | {failed} |", flush=True)


if __name__ == "__main__":
    main()
