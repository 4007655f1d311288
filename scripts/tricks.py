"""Measure classic tips one at a time: a cheap recipe with each of them, from the same seeds, in one process.

python bench/tricks.py results.jsonl [--images 64000] [--seeds 2]

Goes on where the file ends. docs/tricks.md says what came out.
"""

import argparse
import json
import math
import statistics
import tempfile
import time
from pathlib import Path

import torch

from gansmith.benchmarks.trials import judge_trial
from gansmith.config import resolve
from gansmith.runs import create_run
from gansmith.training.loop import prepare
from gansmith.cli.training import train

RECIPE = "mlp-small"
# At its own rates and memory this recipe draws one class after 64,000 images; these get it to digits by then.
BASE = {"g_lr": 1e-3, "d_lr": 1e-3, "beta1": 0.5}
TIPS = {
    "nothing added": {},
    "one-sided smoothing, 0.9": {"real_target_low": 0.9, "real_target_high": 0.9},
    "two-sided smoothing, 0.9 and 0.1": {
        "real_target_low": 0.9, "real_target_high": 0.9, "fake_target_low": 0.1, "fake_target_high": 0.1,
    },
    "random ranges, 0.7 to 1 and 0 to 0.3": {"real_target_low": 0.7, "fake_target_high": 0.3},
    "flipping 5 % of steps": {"label_flipping": 0.05},
    "spherical latents": {"latent_distribution": "sphere"},
    "beta1 0.9": {"beta1": 0.9},
    "beta1 0": {"beta1": 0.0},
    "rates a fifth": {"g_lr": 2e-4, "d_lr": 2e-4},
    "D learns by SGD": {"d_optimizer": "sgd"},
    "rates fall from half": {"lr_decay_from": 0.5},
    "two D steps a G step": {"d_steps": 2},
    "two G steps a D step": {"g_steps": 2},
    "dropout 0.3 in D": {"d_dropout": 0.3},
    "noise 0.1 on D's images": {"instance_noise": 0.1},
    "half of the fakes are old": {"replay": 0.5},
    "weight average": {"ema": 0.05},
    "R1, 0.1": {"r1_gamma": 0.1},
    "spectral norm in D": {"spectral_norm": True},
    "minibatch deviation": {"minibatch_stddev": True},
    "half feature matching": {"feature_matching": 0.5},
    "gradients clipped at 1": {"clip_grad_norm": 1.0},
    "first weights N(0, 0.02)": {"weight_init": "normal"},
    "leaky ReLU in G": {"g_activation": "leaky-relu"},
    "least squares": {"objective": "least-squares"},
    "hinge": {"objective": "hinge"},
    "relativistic pairs": {"objective": "relativistic"},
    "augmentation, always": {"augment": "diffaugment"},
    "labels told": {"conditioning": "labels"},
}  # fmt: skip


def measure(tip: str, seed: int, images: int) -> dict[str, object]:
    rare = {f"{name}_every": images for name in ("sample", "evaluate", "save")}
    config, _ = resolve(RECIPE, arguments={**BASE, **TIPS[tip], **rare, "images": images, "seed": seed, "threads": 1})
    config, data = prepare(config)
    with tempfile.TemporaryDirectory() as folder:
        run = create_run(Path(folder) / "run", config)
        started_s = time.process_time()
        for _ in train(run, data):
            pass
        cpu_s = time.process_time() - started_s
        run.record(status="finished")
        torch.set_num_threads(1)
        found = judge_trial(run.directory)
    keys = ("ratio", "recognised", "rarest_class", "modes")
    return {"tip": tip, "seed": seed, "cpu_s": round(cpu_s, 1), **{key: found[key] for key in keys}}


def summary(rows: list[dict[str, float]]) -> list[str]:
    base = {row["seed"]: row["ratio"] for row in rows if row["tip"] == "nothing added"}
    lines = []
    for tip in TIPS:
        own = [row for row in rows if row["tip"] == tip and row["seed"] in base]
        if own:
            times = [row["ratio"] / base[row["seed"]] for row in own]
            mean = math.exp(statistics.fmean(map(math.log, times)))
            ends = f"{min(times):.2f} to {max(times):.2f}"
            recognised = statistics.fmean(row["recognised"] for row in own)
            ratio = statistics.fmean(row["ratio"] for row in own)
            lines.append((mean, f"| {tip} | {mean:.2f} ({ends}) | {ratio:.0f} | {recognised:.0%} | {len(own)} |"))
    return [line for _, line in sorted(lines)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--images", type=int, default=64_000)
    parser.add_argument("--seeds", type=int, default=2)
    given = parser.parse_args()
    rows = [json.loads(line) for line in given.results.read_text().splitlines()] if given.results.exists() else []
    for seed in range(given.seeds):
        for tip in TIPS:
            if not any((row["tip"], row["seed"]) == (tip, seed) for row in rows):
                rows.append(measure(tip, seed, given.images))
                with given.results.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
                print(rows[-1], flush=True)
    print("\n".join(summary(rows)))


if __name__ == "__main__":
    main()
