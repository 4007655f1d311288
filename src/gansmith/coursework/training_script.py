"""Trains this hand-in's recipe on the images in data.npz, with the training code in the folder gansmith/.

    python train.py                  20,000 images: a few minutes on two cores
    python train.py --images 2000    a short try

Prints the losses of the discriminator and the generator, and writes them to losses.csv and a grid of generated images
to samples.png. README.txt says what must be installed, and which file to read for the algorithm.
"""

import argparse
import csv
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from gansmith.checkpoints import FORMAT
from gansmith.config import load_config
from gansmith.data.image_files import read_npz
from gansmith.runs import create_run
from gansmith.training.inputs import load_training_data
from gansmith.training.loop import train_events

HERE = Path(__file__).resolve().parent
LOSSES = ("images_seen", "d_loss", "g_loss")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20_000, help="training length in real images shown to D")
    length = parser.parse_args().images
    config = load_config(HERE / "config.toml", written_in=FORMAT)
    config = config.replace(images=length, schedule_images=0, planned_images=0)  # schedules fit the new length
    config = config.replace(classes="", limit_images=0)  # data.npz holds only images that were chosen by these
    config = config.replace(start_from="", on_failure="warn")  # weights of another run are not handed in
    config, data = load_training_data(config, read_npz(HERE / "data.npz"))
    if data.scorer is not None:
        data.scorer.prepare(0, names=["random"])  # others need packages that README.txt does not name
    for notice in data.notices:  # what so few images change
        print(f"note: {notice}")
    with TemporaryDirectory() as folder:
        run = create_run(Path(folder) / "run", config)
        for event in train_events(run, data):
            row = event.to_json()
            if event.kind == "log":
                print("  ".join(f"{name} {row[name]:.6g}" for name in LOSSES if name in row), flush=True)
        with (HERE / "losses.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, LOSSES, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(row for row in run.log if "d_loss" in row)
        shutil.copyfile(run.grids()[-1][1], HERE / "samples.png")
    print("losses -> losses.csv, generated images -> samples.png")


if __name__ == "__main__":
    main()
