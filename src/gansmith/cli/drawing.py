"""`sample`: images from a trained generator."""

from pathlib import Path

from gansmith.cli.output import require_parent, write_images


def sample(
    source: Path,
    /,
    *,
    count: int = 25,
    seed: int = 0,
    numpy_seed: int | None = None,
    labels: str | None = None,
    latents: Path | None = None,
    out: Path = Path("grid.png"),
) -> int:
    """Draw images with a trained generator.

    Parameters
    ----------
    source
        Run directory or generator.safetensors.
    count
        How many images.
    seed
        Image k depends on this seed and k alone.
    numpy_seed
        Draw latents by NumPy's legacy RandomState instead, as course assignments ask for.
    labels
        Classes to draw in turn: 0-9, or 2024 for the digits 2, 0, 2, 4, or 3,11,12. By default as in training.
    latents
        A .npy file of latents (N, z_dim); sets the count.
    out
        A .png grid, a .npz with images and labels, or a folder for one PNG each.
    """
    import torch

    from gansmith.generate import choose_ids, draw_latents, generate, load_model, numpy_latents, read_latents

    if count < 1:
        raise ValueError(f"count is {count}; it must be 1 or more, such as 25")
    if seed < 0 or (numpy_seed is not None and not 0 <= numpy_seed < 2**32):
        raise ValueError("a seed must be a whole number from 0 (to 4294967295 for NumPy's), such as 504")
    require_parent(out)
    model = load_model(source)
    z_dim = model.config.z_dim
    if latents is not None:
        z = read_latents(latents, z_dim)
        count = len(z)
    elif numpy_seed is not None:
        z = numpy_latents(z_dim, seed=numpy_seed, count=count)
    else:
        z = draw_latents(z_dim, seed=seed, count=count)
    wanted = None if labels is None else parse_labels(labels)
    ids = choose_ids(model, seed=seed if numpy_seed is None else numpy_seed, count=count, labels=wanted)
    images = generate(model, z, ids)
    write_images(images, ids if model.is_labelled else torch.full_like(ids, -1), out)
    print(f"{count} images -> {out}")
    return 0


def parse_labels(text: str) -> list[int]:
    """Labels from 0-9 (a range), 3,11,12 (a list) or 2024 (one digit each)."""
    try:
        if "," in text:
            return [label for part in text.split(",") for label in parse_labels_part(part)]
        return parse_labels_part(text) if "-" in text else [int(digit) for digit in text]
    except ValueError:
        raise ValueError(f"labels are {text!r}; write a range 0-9, a list 3,11,12 or digits 2024") from None


def parse_labels_part(text: str) -> list[int]:
    first, dash, last = text.partition("-")
    return list(range(int(first), int(last) + 1)) if dash else [int(first)]
