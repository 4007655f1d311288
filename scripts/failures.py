"""Provoke each training failure that `diagnose` knows in a small run: table and pictures of docs/failures.md.

    GANSMITH_DATA=... python scripts/failures.py                           prints the table
    GANSMITH_DATA=... python scripts/failures.py docs/images/failures      draws the pictures too
    GANSMITH_DATA=... python scripts/failures.py docs/images/failures memorisation     only that one

A run that is meant to show one failure may show others too; the table has them all.
"""

import subprocess
import sys
import tempfile
from io import BytesIO
from pathlib import Path

from PIL import Image

from gansmith.pictures.plots import draw_curves
from gansmith.runs import RunDirectory, open_run
from gansmith.training.chores import GRID_ROWS
from gansmith.training.diagnosis import FAILURES

SMALL = "--images 12800 --batch-size 32 --g-width 16 --d-width 16 --threads 1 --data mnist"
PROVOKED = {
    "not-finite": f"default {SMALL} --g-lr 1e4 --d-lr 1e4",
    "diverged": f"default {SMALL} --g-lr 0.3 --d-lr 0.3",
    "mode-collapse": "mlp-small --images 25600 --log-every 128 --threads 1 --data mnist",
    "missing-classes": f"default {SMALL} --classes 3",
    "discriminator-wins": f"default {SMALL} --r1-gamma 0 --r2-gamma 0 --d-loss-target 0 --g-lr 1e-6",
    "generator-wins": f"default {SMALL} --d-lr 1e-9",
    "vanishing-gradient": "mlp-small --images 25600 --log-every 128 --threads 1 --data mnist --objective minimax "
    "--g-lr 1e-9 --d-lr 3e-3",
    "memorisation": f"default {SMALL} --limit-images 10",
    "stalled": f"default {SMALL} --evaluate-every 640 --g-lr 1e-9",
}
ROWS = 3  # of the last grid, below the curves


def main() -> None:
    folder, *chosen = sys.argv[1:] or [""]
    print("| failure | command | reported after, of 100 % of the run |\n|---|---|---|")
    for name in chosen or FAILURES:
        with tempfile.TemporaryDirectory() as place:
            directory = Path(place, "run")
            command = ["train", *PROVOKED[name].split()]
            subprocess.run(
                [sys.executable, "-m", "gansmith", *command, "--out", directory], stdout=subprocess.DEVNULL, check=False
            )
            run = open_run(directory)
            found = [row for row in run.log if row.get("kind") == "failure"]
            when = ", ".join(f"{row['failure']} {row['images_seen'] / run.config.images:.0%}" for row in found)
            print(f"| `{name}` | `gansmith {' '.join(command)}` | {when or 'not reported'} |", flush=True)
            if folder:
                Path(folder).mkdir(parents=True, exist_ok=True)
                picture(run).quantize(64).save(Path(folder, f"{name}.png"), optimize=True)


def picture(run: RunDirectory) -> Image.Image:
    """Return the run's curves, and below them the first rows of its last grid."""
    curves = Image.open(BytesIO(draw_curves(run))).convert("RGB")
    curves = curves.resize((curves.width * 2 // 3, curves.height * 2 // 3), Image.Resampling.LANCZOS)
    grids = run.grids()
    if not grids:
        return curves
    frame = Image.open(grids[-1][1]).convert("RGB")
    frame = frame.crop((0, 0, frame.width, frame.height * ROWS // GRID_ROWS))
    frame = frame.resize((curves.width, curves.width * frame.height // frame.width), Image.Resampling.NEAREST)
    both = Image.new("RGB", (curves.width, curves.height + frame.height), "white")
    both.paste(curves)
    both.paste(frame, (0, curves.height))
    return both


if __name__ == "__main__":
    main()
