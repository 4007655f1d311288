"""Hand-ins as students make them, good ones and all others, and the result that each must get."""

import contextlib
import runpy
import shutil
import zipfile
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import torch

import gansmith as gs
from gansmith.metrics.features import load_feature_network
from gansmith.pictures.grids import enlarge, grid
from gansmith.sampling import numpy_latents
from gansmith.signature import as_exported

# An evaluation.py of a student's own: a generator with a latent space of its own, rotated by the student's number, so
# that no two of them draw the same images from the same latents.
OWN = """
import numpy as np
import torch
from pathlib import Path
from PIL import Image

HERE = Path(__file__).parent
Z_DIM = {z_dim}
G = torch.export.load(HERE / "generator.pt2").module()
turn = torch.from_numpy(np.linalg.qr(np.random.RandomState({student}).normal(size=(Z_DIM, Z_DIM)))[0]).float()

@torch.no_grad()
def generate(z):
    z = torch.from_numpy(np.asarray(z, dtype=np.float32))
    {change}
    return {after}(G(z @ turn)).numpy()

if __name__ == "__main__":
    z = np.random.RandomState({seed}).normal(size=(25, Z_DIM))
    tiles = ((generate(z) + 1) * 127.5).round().clip(0, 255).astype(np.uint8).reshape(5, 5, 28, 28)
    Image.fromarray(tiles.transpose(0, 2, 1, 3).reshape(140, 140)).resize((560, 560)).save("grid.png")
"""
# Another, whose images are noise of its own, and whose weights need no training.
DRAWING = """
import numpy as np
from PIL import Image

W = np.random.RandomState({student}).normal(size=(100, 784))

def generate(z):
    return np.tanh(z @ W / 4).reshape(-1, 28, 28)

def draw(seed):
    tiles = (generate(np.random.RandomState(seed).normal(size=(25, 100))) + 1) * 127.5
    tiles = tiles.reshape(5, 5, 28, 28).transpose(0, 2, 1, 3).reshape(140, 140)
    Image.fromarray(tiles.astype(np.uint8)).save("grid.png")

if __name__ == "__main__":
    draw(504)
"""
COPIED = """
import numpy as np
stored = np.load("pictures.npz")["images"]

def generate(z):
    rows = (np.abs(z[:, 0]) * 1e4).astype(int) % len(stored)
    return np.clip(stored[rows].astype(float) + 2 * z[:, 1, None, None], 0, 255).astype(np.uint8)
"""
HARD_CODED = """
import numpy as np
stored = np.load("pictures.npz")["images"][:25]

def generate(z):
    return stored[np.arange(len(z)) % 25]
"""
STORED_GRID = 'import shutil\nshutil.copy("stored.png", "grid.png")\n'
NOISE = "import numpy as np\ndef generate(z):\n    return np.tanh(np.resize(z, (len(z), 784)).reshape(-1, 28, 28))\n"
CRASHING = "import numpy as np\nweights = np.load('my_weights.npy')\n"
ENDLESS = "while True:\n    pass\n"
MEMORY_BOMB = "kept = []\nwhile True:\n    kept.append(bytearray(50_000_000))\n"
# A hundred times what is allowed would be no test but a risk: where nothing bounds it, it ends at 300.
FORK_BOMB = "import os, time\nfor k in range(300):\n    if not os.fork():\n        time.sleep(20)\n        break\n"
DISK_BOMB = "import itertools\nfor k in itertools.count():\n    open(f'f{k}', 'wb').write(bytes(1_000_000))\n"
WRITES_OUTSIDE = (
    "import pathlib\npathlib.Path({outside!r}).write_text('I was here')\nprint('written')\nraise SystemExit(7)\n"
)
NETWORK = "import socket\nsocket.create_connection(('127.0.0.1', {port}), timeout=2).sendall(b'secret')\n"
OTHER_FILES = ("train.py", "report.pdf", "loss.png")


def with_other_files(folder: Path) -> None:
    """Add what else is asked for, different for each student."""
    for name in OTHER_FILES:
        if not (folder / name).exists():
            (folder / name).write_bytes(f"{name} of {folder.name} ".encode() * 40)


def write_code(folder: Path, code: str, **files: Path) -> Path:
    """Write a hand-in of code and copies of these files."""
    folder.mkdir(parents=True)
    (folder / "evaluation.py").write_text(code)
    for name, path in files.items():
        shutil.copy(path, folder / name.replace("__", "."))
    with_other_files(folder)
    return folder


def write_own(folder: Path, weights: Path, **changes: object) -> Path:
    """Write a hand-in of a student's own code and these weights, with the grid that it draws."""
    write_code(folder, OWN.format(**{"seed": 504, "change": "pass", "after": "", **changes}))
    shutil.copy(weights, folder / "generator.pt2")
    with contextlib.chdir(folder):
        runpy.run_path("evaluation.py", run_name="__main__")
    return folder


def write_grid(folder: Path, *, seed: int) -> None:
    """Draw the grid.png of a hand-in of DRAWING with another seed than its script does."""
    with contextlib.chdir(folder):
        runpy.run_path("evaluation.py")["draw"](seed)


@torch.no_grad()
def students_with_all_digits(weights: Path, run: gs.Run) -> Iterator[int]:
    """Yield the students whose grid has every digit, which chance gives to fewer than half of them."""
    G, classifier = torch.export.load(weights).module(), load_feature_network("mnist", run.generator.spec)
    z = numpy_latents(as_exported(run.generator).config, seed=504, count=25)
    for student in count(1):
        turn = np.linalg.qr(np.random.RandomState(student).normal(size=(z.shape[1], z.shape[1])))[0]
        if len(classifier(G(z @ torch.from_numpy(turn).float())).argmax(1).unique()) == 10:
            yield student


def zip_folder(folder: Path, archive: Path, *, inside: str = "") -> None:
    """Pack a folder and remove it."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, inside + path.relative_to(folder).as_posix())
    shutil.rmtree(folder)


def write_bad_handins(folder: Path, digits: np.ndarray, *, outside: Path, port: int) -> dict[str, str]:
    """Write hand-ins that need no training, and return the result that each must get."""
    pictures = folder.parent / "pictures.npz"
    np.savez(pictures, images=digits)
    stored = folder.parent / "stored.png"
    enlarge(grid(gs.Images(digits[:25]).pixels)).save(stored)
    (folder / "empty").mkdir(parents=True)
    write_code(folder / "crashing", CRASHING)
    write_code(folder / "endless", ENDLESS)
    write_code(folder / "copied", COPIED, pictures__npz=pictures)
    write_code(folder / "hard-coded", HARD_CODED, pictures__npz=pictures, grid__png=stored)
    write_code(folder / "stored-grid", STORED_GRID, stored__png=stored, grid__png=stored)
    write_code(folder / "noise", NOISE)
    write_code(folder / "memory-bomb", MEMORY_BOMB)
    write_code(folder / "fork-bomb", FORK_BOMB)
    write_code(folder / "disk-bomb", DISK_BOMB)
    write_code(folder / "writes-outside", WRITES_OUTSIDE.format(outside=str(outside)))
    write_code(folder / "network", NETWORK.format(port=port))
    (folder / "notes.txt").write_text("I will hand in tomorrow")
    (folder / "damaged.zip").write_bytes(b"PK\x03\x04 and then nothing")
    with zipfile.ZipFile(folder / "zip-bomb.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("evaluation.py", bytes(300_000_000))
    return {
        "empty": "no hand-in",
        "crashing": "crashed",
        "endless": "out of time",
        "copied": "copies of training images",
        "hard-coded": "the same images for different latents",
        "stored-grid": "no generator",
        "noise": "far from real images",
        "memory-bomb": "out of memory",
        "fork-bomb": "too many processes",
        "disk-bomb": "too much disk",
        "writes-outside": "crashed",
        "network": "crashed",
        "notes.txt": "cannot be read",
        "damaged": "cannot be read",
        "zip-bomb": "cannot be read",
    }


def _by_its_readme(archive: Path) -> str:
    """Return the result that a hand-in must get which says itself what its grid lacks."""
    with zipfile.ZipFile(archive) as file:
        return "classes missing" if b"Not every class" in file.read("README.txt") else "ok"


def write_trained_handins(folder: Path, first: gs.Run, second: gs.Run) -> dict[str, str]:
    """Write hand-ins of two trained generators, and return the result that each must get."""
    weights = first.export("pt2", out=folder.parent / "exports") / "generator.pt2"
    own = partial(write_own, weights=weights, z_dim=as_exported(first.generator).config.latent_dim)
    # The last number chooses the cluster: one of five then, far too few for ten digits.
    fewer = "w = z @ turn; w[:, -1] = w[:, -1].round().clamp(-2, 2); z = w @ turn.T"
    first.handin(folder / "good-gansmith.zip")
    second.handin(folder / "good-keras.zip")
    good = {name: _by_its_readme(folder / f"{name}.zip") for name in ("good-gansmith", "good-keras")}
    keras = folder / "good-keras"
    with zipfile.ZipFile(folder / "good-keras.zip") as file:
        file.extractall(keras)
    (folder / "good-keras.zip").unlink()
    for name in ("generator.keras", "README.txt", "manifest.json"):
        (keras / name).unlink()
    lucky = students_with_all_digits(weights, first)
    own(folder / "good-pytorch", student=next(lucky))
    zip_folder(own(folder / "nested", student=next(lucky)), folder / "good-nested.zip", inside="my project/")
    own(folder / "wrong-seed", student=1003, seed=42)
    own(folder / "missing-digits", student=1004, change=fewer)
    own(folder / "copy-a", student=1005)
    own(folder / "copy-b", student=1005, after="torch.nn.Hardtanh()")
    (own(folder / "no-report", student=next(lucky)) / "report.pdf").unlink()
    return {
        **good,
        "good-pytorch": "ok",
        "good-nested": "ok",
        "wrong-seed": "another seed",
        "missing-digits": "classes missing",
        "copy-a": "same work as another",
        "copy-b": "same work as another",
        "no-report": "files missing",
    }
