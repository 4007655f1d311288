"""`sample`, `invert`, `walk`, `film` and `plot`: pictures of a generator and of its training."""

from pathlib import Path
from typing import Literal

from gansmith.cli.output import Whole
from gansmith.config import parse_labels
from gansmith.errors import ConfigError, printable
from gansmith.files import require_kind, require_place


def sample(
    source: Path,
    /,
    *,
    count: Whole | None = None,
    seed: Whole = 0,
    numpy_seed: Whole | None = None,
    labels: str | None = None,
    latents: Path | None = None,
    truncation: float = 1.0,
    num_classes: Whole | None = None,
    device: str = "cpu",
    out: Path = Path("grid.png"),
) -> int:
    """Draw images with a trained generator.

    Parameters
    ----------
    source
        Run directory, checkpoint, or a generator as .safetensors, .onnx, .pt2, .keras, or a Keras pair .json and .h5.
    count
        How many images; 25 by default.
    seed
        Image k depends on this seed and k alone.
    numpy_seed
        Take the latents that numpy.random.normal draws after this numpy.random.seed, as course assignments ask for.
    labels
        Classes to draw in turn: names such as cat,dog, or 0-9, or 2024 for the digits 2, 0, 2, 4, or 3,11,12. A
        word that is the name of a class always means that class. By default as often as in training.
    latents
        A .npy file of latents (N, latent_dim), or as exported files take them; sets the count.
    truncation
        How far styles may lie from their mean, 0 to 1; less is truer to type and less varied, and the file says so.
    num_classes
        How many classes there are, for a file of another program that takes labels and does not say so.
    device
        Where it computes: cpu, cuda, cuda:1, mps, or auto for an accelerator where there is one.
    out
        A .png grid, a .npz with images and labels, or a folder for one PNG each (cat/00000.png with labels).
    """
    from gansmith import api
    from gansmith.sampling import refuse_counts

    require_place(out)
    refuse_counts(25 if count is None else count, seed, numpy_seed)
    model = api.load(source, num_classes=num_classes, device=device)
    samples = api.sample(
        model,
        25 if count is None and latents is None else count,
        seed=seed,
        labels=labels,
        numpy_seed=numpy_seed,
        latents=latents,
        truncation=truncation,
    )
    samples.save(out, truncation=truncation)
    for notice in model.notices:
        print(f"note: {notice}")
    print(f"{len(samples)} images -> {out}")
    return 0


def invert(
    source: Path,
    picture: Path,
    /,
    *more: Path,
    labels: str | None = None,
    seed: Whole = 0,
    out: Path = Path("inverted.png"),
) -> int:
    """Project pictures into latent space: find what the generator draws nearest to them.

    Parameters
    ----------
    source
        Run directory, checkpoint, or a generator.safetensors.
    picture
        A picture, drawn, photographed or from the data; it is prepared like the run's images.
    more
        More pictures.
    labels
        Search among these classes alone: names such as cat,dog, or 0-9, or 3,7.
    seed
        Of the random samples that the search begins with.
    out
        A .png with each picture beside its reconstruction, a .npz with latents, labels, images and errors, or a .npy
        with the latents, which `sample --latents` takes.
    """
    from gansmith import api

    require_kind(out, (".png", ".npz", ".npy"))
    paths = [str(path) for path in (picture, *more)]
    if out.resolve() in [path.resolve() for path in (picture, *more)]:
        raise ConfigError(f"{out} is one of the pictures; give another file with --out")
    found = api.invert(source, paths, labels=labels, seed=seed)
    found.save(out)
    for notice in found.notices:
        print(f"note: {notice}")
    for k, path in enumerate(paths):
        label = "" if found.labels[k] < 0 else f"class {printable(found.class_name(k))}, "
        opinion = "" if found.realness is None else f", more real to D than {found.realness[k, 0]:.0%} of samples"
        print(
            f"{path}: {label}error {found.errors[k]:.1f} of 255 grey levels (nearest random sample "
            f"{found.sample_errors[k]:.1f}){opinion}"
        )
    print(f"-> {out}")
    return 0


def walk(
    source: Path,
    /,
    *,
    seeds: str = "0,1,2,3",
    label: str | None = None,
    classes: str | None = None,
    steps: Whole = 12,
    out: Path = Path("walk.gif"),
) -> int:
    """Interpolate from one sample to the next and back to the first, as an animation or a strip.

    Parameters
    ----------
    source
        Run directory, checkpoint, or a generator as .safetensors, .onnx, .pt2, .keras, or a Keras pair .json and .h5.
    seeds
        Samples to visit, such as 0,1,2,3 or 0-3; a walk through classes stays at the first.
    label
        Class to stay in, a number or a name; by default the one that the first seed draws.
    classes
        Walk through these classes with one latent instead: cat,dog or 0-9, 2024 or 3,11,12. Of a run, checkpoint or
        .safetensors, as other files have no embeddings.
    steps
        Images from one stop to the next.
    out
        A .gif, .webp or .mp4 animation, or a .png with one row a stop.
    """
    from gansmith import api

    is_one = seeds.isdecimal() and len(seeds) < 19  # 12 is no 1 and 2 here
    stops = [int(seeds)] if is_one else parse_labels(seeds, what="seeds")
    written, count = api.write_walk(source, seeds=stops, label=label, classes=classes, steps=steps, out=out)
    print(f"{count} images -> {written}")
    return 0


def film(
    run: Path,
    /,
    *,
    out: Path | None = None,
    frame_ms: Whole = 200,
) -> int:
    """Make a film of a run's training from the grids it saved: the same latents, seen again and again.

    Parameters
    ----------
    run
        Run directory.
    out
        A .gif, .webp or .mp4 file; by default film.gif in the run directory.
    frame_ms
        Milliseconds for each grid; the last stays for two seconds.
    """
    from gansmith import api

    print(f"film -> {api.film(run, out=out, frame_ms=frame_ms)}")
    return 0


def plot(
    run: Path,
    what: Literal["curves", "classes", "neighbours"] = "curves",
    /,
    *,
    seed: Whole = 0,
    out: Path | None = None,
) -> int:
    """Draw a run's curves, its classes in several styles, or samples beside the nearest training images.

    Parameters
    ----------
    run
        Run directory.
    what
        curves (losses and scores), classes (a row each, by name, and one style a column), or neighbours (each sample,
        then the training images closest to it).
    seed
        Seed of the latents or samples shown.
    out
        A .png, for curves also .svg or .pdf; by default loss.png, classes.png or neighbours.png in the run directory.
    """
    from gansmith import api

    print(f"{what} -> {api.plot(run, what, seed=seed, out=out)}")
    return 0
