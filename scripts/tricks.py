"""Measure objectives and tricks one at a time: a cheap recipe with each of them, from the same seeds, in one process.

    python scripts/tricks.py results.jsonl [--images 64000] [--seeds 3]

Goes on where the file ends, and prints the table of docs/explanation/tricks.md.
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
NOTHING = "nothing added"
# What each row of the table changes, and what that does.
TRICKS: dict[str, tuple[dict[str, object], str]] = {
    NOTHING: ({}, "non-saturating loss, no technique"),
    "least squares": (
        {"objective": "least-squares"},
        "logits are drawn to 1 and 0: a sure D still has a gradient (LSGAN)",
    ),
    "hinge": ({"objective": "hinge"}, "D's loss ends where an image is on the right side by 1"),
    "minimax": ({"objective": "minimax"}, "the first GAN loss: G's gradient vanishes where D is sure"),
    "relativistic": ({"objective": "relativistic"}, "D compares each real image with a generated one"),
    "relativistic average": (
        {"objective": "relativistic-average"},
        "D compares each image with the mean of the other kind",
    ),
    "Wasserstein, clipped weights": (
        {"objective": "wasserstein", "clip_weights": 0.01},
        "the first WGAN: D has no sigmoid, and weights of 0.01 at most",
    ),
    "Wasserstein, gradient penalty": (
        {"objective": "wasserstein", "gradient_penalty": 10.0},
        "WGAN-GP: D's gradient between real and generated images is held at 1",
    ),
    "boundary equilibrium": (
        {"objective": "boundary-equilibrium", "network": "autoencoder", "g_width": 16, "d_width": 16},
        "other networks: D is an autoencoder, and G's share of its loss is balanced (BEGAN)",
    ),
    "DRAGAN": ({"dragan": 10.0}, "D's gradient around real images is held at 1"),
    "R1": ({"r1_gamma": 0.1}, "D's gradient at real images is kept small"),
    "R1 and R2": ({"r1_gamma": 0.1, "r2_gamma": 0.1}, "D's gradient at real and at generated images is kept small"),
    "spectral normalisation": (
        {"spectral_norm": True},
        "the largest singular value of each of D's weights is held at 1",
    ),
    "gradients clipped at norm 1": (
        {"clip_grad_norm": 1.0},
        "gradients of larger norm are scaled to norm 1 before Adam gets them",
    ),
    "one-sided label smoothing 0.1": ({"label_smoothing": 0.1}, "D's target for real images is 0.9"),
    "two-sided label smoothing 0.1": (
        {"label_smoothing": 0.1, "fake_label_smoothing": 0.1},
        "D's targets are 0.9 and 0.1",
    ),
    "random labels": (
        {"label_smoothing": 0.3, "fake_label_smoothing": 0.3, "random_labels": True},
        "targets drawn from 0.7 to 1 and 0 to 0.3",
    ),
    "label flipping 0.05": ({"label_flipping": 0.05}, "in one D step of 20, real and generated images change places"),
    "instance noise 0.1": ({"instance_noise": 0.1}, "D sees real and generated images with noise that fades"),
    "dropout 0.3 in D": ({"d_dropout": 0.3}, "D sees with a third of its units missing"),
    "replay 0.5": ({"replay": 0.5}, "half of D's generated images are older ones"),
    "fresh latents for G": ({"fresh_fakes": True}, "G's step draws images of its own instead of those of D's step"),
    "DiffAugment": (
        {"augment": "diffaugment"},
        "D sees real and generated images moved, cut and with other brightness",
    ),
    "adaptive augmentation": ({"augment": "adaptive"}, "images are changed as often as D's outputs ask for (ADA)"),
    "feature matching 0.5": ({"feature_matching": 0.5}, "G also draws the mean of D's features to that of real images"),
    "minibatch standard deviation": ({"minibatch_stddev": 4}, "D sees how much four images differ"),
    "conditioned on labels": ({"conditioning": "labels"}, "G draws, and D rates, an image of a given class"),
    "auxiliary classifier": (
        {"objective": "auxiliary-classifier", "conditioning": "labels", "d_conditioning": "classifier"},
        "D names classes too, and G is to be named right (AC-GAN)",
    ),
    "EMA of G's weights": ({"ema": 0.05}, "samples come from an average of G's recent weights"),
    "beta1 0": ({"beta1": 0.0}, "Adam without momentum"),
    "beta1 0.9": ({"beta1": 0.9}, "Adam's usual momentum"),
    "a fifth of the learning rates": ({"g_lr": 2e-4, "d_lr": 2e-4}, "2e-4 instead of 1e-3"),
    "rates decay from half": ({"lr_decay_from": 0.5}, "learning rates fall in a line to 0 in the second half"),
    "SGD for D": ({"d_optimizer": "sgd"}, "D learns without Adam's scaling"),
    "two D steps": ({"d_steps": 2}, "D takes two steps for each of G"),
    "two G steps": ({"g_steps": 2}, "G takes two steps for each of D"),
    "latents on a sphere": ({"latent_distribution": "sphere"}, "latents of equal length"),
    "weights from N(0, 0.02)": ({"weight_init": "normal"}, "DCGAN's initial weights"),
    "leaky ReLU in G": ({"g_activation": "leaky-relu"}, "no unit of G is ever off"),
}


def measure(trick: str, seed: int, images: int) -> dict[str, object]:
    rare = {f"{name}_every": images for name in ("sample", "evaluate", "save")}
    choices = {**BASE, **TRICKS[trick][0], **rare, "images": images, "seed": seed, "threads": 1}
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
    base = {row["seed"]: row["validation_fd_ratio"] for row in rows if row["trick"] == NOTHING}
    lines = []
    for trick in TRICKS:
        own = [row for row in rows if row["trick"] == trick and row["seed"] in base]
        if own:
            times = [row["validation_fd_ratio"] / base[row["seed"]] for row in own]
            mean = math.exp(statistics.fmean(map(math.log, times)))
            ends = f"{min(times):.2f} to {max(times):.2f}"
            recognised = statistics.fmean(row["recognised"] for row in own)
            ratio = statistics.fmean(row["validation_fd_ratio"] for row in own)
            cells = (trick, TRICKS[trick][1], f"{mean:.2f} ({ends})", f"{ratio:.0f}", f"{recognised:.0%}")
            lines.append((mean, f"| {' | '.join(cells)} |"))
    return [line for _, line in sorted(lines)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--images", type=int, default=64_000)
    parser.add_argument("--seeds", type=int, default=3)
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
