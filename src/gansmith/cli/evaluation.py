"""`evaluate` and `compare`: the FD ratio of samples, and whether it is valid."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from gansmith.cli.output import Json, Whole, print_table
from gansmith.errors import ConfigError

Flag = Annotated[bool, Parameter(negative=())]


def evaluate(
    target: Path,
    /,
    *,
    data: str | None = None,
    data_dir: Path | None = None,
    count: Whole | None = None,
    quick: Flag = False,
    seed: Whole = 0,
    fid: Flag = False,
    fid_weights: Path | None = None,
    num_classes: Whole | None = None,
    resize: Literal["crop", "pad", "stretch"] | None = None,
    device: str = "auto",
    json: Json = False,
) -> int:
    """Compare samples with real images: the FD ratio, where 1.00 is as close as other real images, and its gates.

    Parameters
    ----------
    target
        Run directory, checkpoint, generator file, or images: .npz, .npy, a folder or an archive.
    data
        Real images to compare with; by default those the generator was trained on, mnist for files.
    data_dir
        Folder that holds those images.
    count
        Number of samples; 10,000 by default, 2,000 with --quick. FD ratio and gates use the largest of 1,000, 2,000,
        5,000 and 10,000 that they fill, FID all.
    quick
        Use fewer samples and metrics; takes seconds.
    seed
        Seed that samples of a generator are drawn with.
    fid
        Measure the FID of Inception v3 too, against all training images; two hours on one core for 50,000.
    fid_weights
        File of its weights, where they cannot be downloaded.
    num_classes
        How many classes there are, for a file of another program that takes labels and does not say so.
    resize
        How samples of another size become as large as the real images. Without it, a black border is cut off or added
        where all images have one, else they are cropped to squares and resized.
    device
        Where networks compute: auto (an accelerator where there is one), cpu, cuda, cuda:1 or mps.
    json
        Print one JSON object instead of a table.
    """
    _check(count, seed)
    from gansmith import api
    from gansmith.files import to_json

    verdict = api.evaluate(
        target, data=data, data_dir=data_dir, count=count, quick=quick, seed=seed, fid=fid, fid_weights=fid_weights,
        num_classes=num_classes, resize=resize or "", device=device,
    )  # fmt: skip
    print(to_json(verdict) if json else verdict)
    return 0


def compare(
    *targets: Path,
    data: str | None = None,
    data_dir: Path | None = None,
    count: Whole | None = None,
    quick: Flag = False,
    seed: Whole = 0,
    again: Flag = False,
    num_classes: Whole | None = None,
    resize: Literal["crop", "pad", "stretch"] | None = None,
    json: Json = False,
) -> int:
    """Evaluate several runs or files side by side; runs that differ in their seed alone share a row.

    Parameters
    ----------
    targets
        Runs, checkpoints, generator files, .npz of images, or folders of PNGs.
    data
        Real images to compare with; by default those each run was trained on.
    data_dir
        Folder that holds those images.
    count
        Number of samples of each; 10,000 by default, 2,000 with --quick. FD ratios and gates use the largest of 1,000,
        2,000, 5,000 and 10,000 that they fill.
    quick
        Use fewer samples and metrics; takes seconds.
    seed
        Seed that samples of a generator are drawn with.
    again
        Evaluate runs again whose metrics.jsonl holds a verdict already.
    num_classes
        Number of classes of generator files that take labels and do not say how many.
    resize
        How images of another size are brought to the real ones', as of `evaluate`.
    json
        Print one JSON object instead of a table.
    """
    _check(count, seed)
    from gansmith import api
    from gansmith.files import to_json

    groups = api.compare(
        *targets, data=data, data_dir=data_dir, count=count, quick=quick, seed=seed, again=again,
        num_classes=num_classes, resize=resize or "",
    )  # fmt: skip
    if json:
        print(to_json({"groups": groups, "notice": groups.notice}))
        return 0
    print_table(*groups.table())
    print(groups.legend)
    if groups.notice:
        print(f"note: {groups.notice}")
    return 0


def _check(count: int | None, seed: int) -> None:
    """Raise ConfigError for a count or a seed out of range."""
    if count is not None and not 1 <= count <= 1_000_000:
        raise ConfigError(f"count is {count}; it must be between 1 and 1000000, such as 10000")
    if seed < 0:
        raise ConfigError(f"seed is {seed}; it must be 0 or more")
