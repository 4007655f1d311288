"""What several commands print and write."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from torch import Tensor

Json = Annotated[bool, Parameter(name="--json", negative=())]  # the flag of commands that can answer in JSON


def say(progress: str, line: str) -> None:
    """A line for people; scripts that read JSON get it on the other stream."""
    print(line, file=sys.stderr if progress == "json" else sys.stdout, flush=True)


def complain(sentence: str) -> None:
    print(f"gansmith: {sentence}", file=sys.stderr)


def require_parent(out: Path) -> None:
    if not out.absolute().parent.is_dir():
        raise FileNotFoundError(
            f"there is no folder {str(out.absolute().parent)!r} to write {out.name} in; make it first"
        )


_OTHER_KINDS = (".png", ".npz", ".npy", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff")


def require_place(out: Path) -> None:
    """As `require_parent`, for a .png, a .npz or a folder of images."""
    require_parent(out)
    if out.suffix in (".png", ".npz"):
        return
    if out.is_file() or out.suffix.lower() in _OTHER_KINDS:
        raise ValueError(f"{out} is no folder; end --out in .png or .npz, or name a folder")
    if out.is_dir() and any(out.glob("*.png")):
        raise ValueError(f"{out} holds images already, which would mix with these; name an empty or a new folder")


def write_images(images: "Tensor", labels: "Tensor", out: Path, *, truncation: float = 1.0) -> None:
    """A grid, a .npz or a folder; each file says of itself how far its samples were truncated, if they were."""
    from PIL.PngImagePlugin import PngInfo

    from gansmith.generate import enlarge, grid, to_png, write_npz
    from gansmith.runs import write_bytes

    noted = PngInfo()
    if truncation != 1:
        noted.add_text("truncation", f"{truncation:g}")

    if out.suffix == ".png":
        write_bytes(out, to_png(enlarge(grid(images)), noted))
    elif out.suffix == ".npz":
        write_npz(out, images, labels, truncation=truncation)
    else:
        out.mkdir(exist_ok=True)
        for k in range(len(images)):
            write_bytes(out / f"{k:05d}.png", to_png(grid(images[k : k + 1]), noted))
