"""The process in which a hand-in runs: `python -P -m gansmith.grading.worker LIMITS ACTION FOLDER OUT ...`.

`run` executes evaluation.py as a script. `draw` generates images with the generator of a hand-in: from a file in one of
the formats that Gansmith reads without running code from it, or by the function `generate` of evaluation.py. It writes
them to OUT as uint8 (N, C, H, W) in NumPy's format; whoever reads them trusts nothing but that.

Limits that this process sets for itself hold for all that it starts. Only the standard library is imported before.
"""

import contextlib
import json
import os
import runpy
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

SCRIPT = "evaluation.py"
NO_GENERATOR = 3  # exit code: there is no generator that could be called
REFUSED = 95  # exit code: its generator's file is none that can be read; the last line printed says why
NO_LIBRARY = 96  # exit code: a library is not installed here; the last line printed says which
BATCH = 250
# In this order, where a hand-in has several.
GENERATOR_FILES = ("generator.keras", "generator.json", "generator.onnx", "generator.safetensors", "generator.h5")
READERS = {".keras": ("keras",), ".json": ("keras",), ".h5": ("keras",), ".onnx": ("onnx", "onnxruntime")}


def limit(seconds: int, memory_mb: int, threads: int, disk_mb: int) -> None:
    """Limit this process and its children where the operating system can.

    The memory is data, not address space: mapping the libraries of a torch with CUDA takes more than any model should.

    Args:
        threads: of this user, all programs together, as the system counts them.
    """
    with contextlib.suppress(ImportError):  # Windows has no such limits
        import resource

        limits = {
            resource.RLIMIT_CPU: (seconds, seconds + 2),
            resource.RLIMIT_DATA: (memory_mb << 20, memory_mb << 20),
            resource.RLIMIT_FSIZE: (disk_mb << 20, disk_mb << 20),
            resource.RLIMIT_NPROC: (threads, threads),
            resource.RLIMIT_CORE: (0, 0),
        }
        for which, (soft, hard) in limits.items():
            most = resource.getrlimit(which)[1]
            if most != resource.RLIM_INFINITY:
                soft, hard = min(soft, most), min(hard, most)
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(which, (soft, hard))


def run_script(folder: Path) -> None:
    """Run evaluation.py as `python evaluation.py` does, in its folder."""
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    sys.argv = [SCRIPT]
    runpy.run_path(str(folder / SCRIPT), run_name="__main__")


def draw(folder: Path, out: Path, count: int, seed: int, others: list[int]) -> None:
    """Write images of the grid's latents, of `count` other latents, and of the grid with each of the other seeds."""
    import numpy as np

    generate = find_generator(folder)
    draws = {"grid": (seed, 25), "samples": ((seed + 10_000) % 2**32, count)}
    draws |= {f"seed-{other}": (other, 25) for other in others}
    for name, (own, n) in draws.items():
        np.save(out / f"{name}.npy", generate(own, n))


def find_generator(folder: Path) -> Callable[[int, int], Any]:
    """Return a function (seed, count) -> images: of the first file that is a generator, else `generate` of the script.

    Files are read without running code from them; others than generators, such as weights, are for the script.
    """
    from gansmith.errors import GansmithError

    refusals = []
    for path in (folder / name for name in GENERATOR_FILES if (folder / name).is_file()):
        try:
            return from_file(path)
        except (GansmithError, ModuleNotFoundError) as error:
            refusals.append(error)
    return from_script(folder, refusals)


def from_file(path: Path) -> Callable[[int, int], Any]:
    """Return a function (seed, count) -> images of a generator file; labels, where it takes any, come in turn.

    Raises ModuleNotFoundError where the library that reads it is not installed, GansmithError for what is no generator.
    """
    for library in READERS.get(path.suffix, ()):
        if find_spec(library) is None:
            raise ModuleNotFoundError(f"{path.name} is read by {library}, which is not installed", name=library)
    import torch

    from gansmith.models import load_generator
    from gansmith.sampling import generate, numpy_latents
    from gansmith.signature import as_exported

    model = as_exported(load_generator(path))
    known = model.conditioning.known_labels

    def images(seed: int, count: int) -> Any:
        z = numpy_latents(model.config, seed=seed, count=count)
        return generate(model, z, known[torch.arange(count) % len(known)]).numpy()

    return images


def from_script(folder: Path, refusals: Sequence[Exception]) -> Callable[[int, int], Any]:
    """Return a function (seed, count) -> images by `generate` of evaluation.py: images of latents (N, Z_DIM).

    Args:
        refusals: why files are no generators; the first ends this process where there is no such function.
    """
    module = load_script(folder) if (folder / SCRIPT).is_file() else None
    function, latent_dim = getattr(module, "generate", None), getattr(module, "Z_DIM", 100)
    if not callable(function) and refusals:
        if isinstance(refusals[0], ModuleNotFoundError):
            raise refusals[0]
        sys.stderr.write(f"{refusals[0]}\n")
        sys.exit(REFUSED)
    if not callable(function):
        files = ", ".join(GENERATOR_FILES[:3])
        sys.stderr.write(f"no generator: neither a file such as {files}, nor generate(z) in {SCRIPT}\n")
        sys.exit(NO_GENERATOR)
    return partial(images_by, function, latent_dim, [])


def load_script(folder: Path) -> ModuleType:
    """Return evaluation.py as a module; where it ends itself without an error, what it had defined by then."""
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    sys.argv = [SCRIPT]
    spec = spec_from_file_location("evaluation", folder / SCRIPT)
    assert spec is not None and spec.loader is not None
    module = sys.modules["evaluation"] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SystemExit as end:
        if end.code not in (None, 0):
            raise
    return module


def images_by(function: Callable[[Any], Any], latent_dim: int, form: list[Any], seed: int, count: int) -> Any:
    """Return uint8 images (count, C, H, W) that a function gives; the first call decides which values are black."""
    import numpy as np

    from gansmith.importers import forms

    z = np.random.RandomState(seed).normal(size=(count, latent_dim)).astype(np.float32)
    output = np.concatenate([as_array(function(part)) for part in np.array_split(z, -(-count // BATCH))])
    if len(output) != count:
        raise ValueError(f"generate(z) gives {len(output)} images for {count} latents")
    if not np.isfinite(output.astype(np.float64)).all():
        raise ValueError("generate(z) gives values that are not finite")
    form[:] = form or [forms.form_of(output)[0]]
    return np.clip(np.rint((form[0].images(output) + 1) * 127.5), 0, 255).astype(np.uint8)


def as_array(output: Any) -> Any:
    """Return a NumPy array, also of a torch tensor that needs gradients."""
    import numpy as np

    return np.asarray(output.detach().cpu() if hasattr(output, "detach") else output)


def is_library(module: str | None, folder: Path) -> bool:
    """Return whether a module that was not found is a library, and no part of another one or file of this hand-in."""
    own = {path.stem.lower() for path in folder.rglob("*") if path.is_dir() or path.suffix.lower() in (".py", ".ipynb")}
    return module is not None and "." not in module and module.lower() not in own


def main() -> None:
    limits, action, folder, *rest = sys.argv[1:]
    limit(**json.loads(limits))
    try:
        if action == "run":
            run_script(Path(folder))
        else:
            out, count, seed, *others = rest
            draw(Path(folder), Path(out), int(count), int(seed), [int(other) for other in others])
    except ModuleNotFoundError as error:
        if not is_library(error.name, Path(folder)):
            raise
        traceback.print_exc()
        sys.stderr.write(f"needs {error.name}, which is not installed here\n")
        sys.exit(NO_LIBRARY)


if __name__ == "__main__":
    main()
