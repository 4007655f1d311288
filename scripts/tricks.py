"""Measure classic tricks one at a time: a cheap recipe with each of them, from the same seeds, in one process.

    python scripts/tricks.py results.jsonl [--images 64000] [--seeds 2]

Goes on where the file ends. docs/results.md has the results.
"""

import argparse
import json
import math
import statistics
import tempfile
import time
from pathlib import Path

import torch

from gansmith.benchmarks.trials import score_trial
from gansmith.config import resolve
from gansmith.runs import create_run
from gansmith.training.inputs import load_training_data
from gansmith.training.loop import train_events

RECIPE = "mlp-small"
# With its own learning rates and beta1 this recipe draws one class after 64,000 images; with these it draws digits.
BASE = {"g_lr": 1e-3, "d_lr": 1e-3, "beta1": 0.5}
TRICKS = {
    "nothing added": {},
    "one-sided label smoothing, 0.1": {"label_smoothing": 0.1},
    "two-sided label smoothing, 0.1": {"label_smoothing": 0.1, "fake_label_smoothing": 0.1},
    "random labels, 0.7 to 1 and 0 to 0.3": {
        "label_smoothing": 0.3, "fake_label_smoothing": 0.3, "random_labels": True,
    },
    "label flipping in 5 % of steps": {"label_flipping": 0.05},
    "spherical latents": {"latent_distribution": "sphere"},
    "beta1 0.9": {"beta1": 0.9},
    "beta1 0": {"beta1": 0.0},
    "a fifth of the learning rates": {"g_lr": 2e-4, "d_lr": 2e-4},
    "SGD for D": {"d_optimizer": "sgd"},
    "learning rates decay from half": {"lr_decay_from": 0.5},
    "two D steps for each G step": {"d_steps": 2},
    "two G steps for each D step": {"g_steps": 2},
    "dropout 0.3 in D": {"d_dropout": 0.3},
    "instance noise 0.1": {"instance_noise": 0.1},
    "replay of half the generated images": {"replay": 0.5},
    "EMA of G's weights": {"ema": 0.05},
    "R1, gamma 0.1": {"r1_gamma": 0.1},
    "spectral normalisation of D": {"spectral_norm": True},
    "minibatch standard deviation": {"minibatch_stddev": 64},
    "half feature matching": {"feature_matching": 0.5},
    "gradients clipped at norm 1": {"clip_grad_norm": 1.0},
    "initial weights N(0, 0.02)": {"weight_init": "normal"},
    "leaky ReLU in G": {"g_activation": "leaky-relu"},
    "least squares": {"objective": "least-squares"},
    "hinge": {"objective": "hinge"},
    "relativistic pairing": {"objective": "relativistic"},
    "DiffAugment": {"augment": "diffaugment"},
    "conditioned on labels": {"conditioning": "labels"},
}  # fmt: skip


def measure(trick: str, seed: int, images: int) -> dict[str, object]:
    rare = {f"{name}_every": images for name in ("sample", "evaluate", "save")}
    choices = {**BASE, **TRICKS[trick], **rare, "images": images, "seed": seed, "threads": 1}
    config, data = load_training_data(resolve(RECIPE, arguments=choices))
    with tempfile.TemporaryDirectory() as folder:
        run = create_run(Path(folder) / "run", config)
        started_s = time.process_time()
        for _ in train_events(run, data):
            pass
        cpu_s = time.process_time() - started_s
        run.record(status="finished")
        torch.set_num_threads(1)
        found = score_trial(run.directory)
    keys = ("validation_fd_ratio", "recognised", "rarest_class", "modes")
    return {"trick": trick, "seed": seed, "cpu_s": round(cpu_s, 1), **{key: found[key] for key in keys}}


def summary(rows: list[dict[str, float]]) -> list[str]:
    """Return a Markdown row for each trick, best first: its validation FD ratio over that without it, same seeds."""
    base = {row["seed"]: row["validation_fd_ratio"] for row in rows if row["trick"] == "nothing added"}
    lines = []
    for trick in TRICKS:
        own = [row for row in rows if row["trick"] == trick and row["seed"] in base]
        if own:
            times = [row["validation_fd_ratio"] / base[row["seed"]] for row in own]
            mean = math.exp(statistics.fmean(map(math.log, times)))
            ends = f"{min(times):.2f} to {max(times):.2f}"
            recognised = statistics.fmean(row["recognised"] for row in own)
            ratio = statistics.fmean(row["validation_fd_ratio"] for row in own)
            lines.append((mean, f"| {trick} | {mean:.2f} ({ends}) | {ratio:.0f} | {recognised:.0%} | {len(own)} |"))
    return [line for _, line in sorted(lines)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--images", type=int, default=64_000)
    parser.add_argument("--seeds", type=int, default=2)
    given = parser.parse_args()
    rows = [json.loads(line) for line in given.results.read_text().splitlines()] if given.results.exists() else []
    for seed in range(given.seeds):
        for trick in TRICKS:
            if not any((row["trick"], row["seed"]) == (trick, seed) for row in rows):
                rows.append(measure(trick, seed, given.images))
                with given.results.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
                print(rows[-1], flush=True)
    print("\n".join(summary(rows)))


if __name__ == "__main__":
    main()
