"""Measure FD ratios by training time: train a recipe for given minutes and seeds, then evaluate 10,000 samples.

    python scripts/time_to_quality.py [--recipe default] [--data mnist] [--minutes 1 3] [--seeds 0 1 2]

The FD ratio is that of `gansmith evaluate`, by the shipped feature network and by one with random weights. Prints a
Markdown row for each run and keeps the runs.
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

    print("| recipe | minutes | seed | images | seconds | FD ratio | trained | random | gates that fail |")
    print("|---" * 9 + "|", flush=True)
    for minutes in arguments.minutes:
        for seed in arguments.seeds:
            out = arguments.out / f"{arguments.recipe}-{arguments.data}-{minutes:g}min-{seed}"
            words = [arguments.recipe, "--data", arguments.data, "--minutes", str(minutes), "--seed", str(seed)]
            started_at = time.perf_counter()
            command = [sys.executable, "-m", "gansmith", "train", *words, "--out", str(out), "--progress", "plain"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds = time.perf_counter() - started_at
            found = evaluate(out)
            failed = ", ".join(name for name, gate in found["gates"].items() if gate["ok"] is False) or "none"
            scores = " | ".join(f"{ratio:.2f}" for ratio in (found["fd_ratio"], *found["fd_ratios"].values()))
            row = f"{arguments.recipe} | {minutes:g} | {seed} | {found['images_seen']:,} | {seconds:.0f}"
            print(f"| {row} | {scores} | {failed} |", flush=True)


if __name__ == "__main__":
    main()
