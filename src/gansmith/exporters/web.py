"""A page that draws images in its visitor's browser, with ONNX Runtime Web: a folder that any static host serves.

The runtime is not part of Gansmith. It is fetched once, checked by its hash, and kept in the user's cache folder.
"""

import json
import os
import shutil
import tarfile
import zlib
from hashlib import sha256
from importlib import resources
from pathlib import Path

from gansmith import __version__
from gansmith.data.download import download
from gansmith.data.official import OFFICIAL, OFFLINE, cache_dir
from gansmith.errors import GansmithError, NotFoundError
from gansmith.exporters.onnx import to_onnx
from gansmith.files import file_sha256, replacing
from gansmith.latent_space import find_directions
from gansmith.pictures.grids import enlarge, grid
from gansmith.sampling import Model, sample
from gansmith.signature import as_exported

VERSION = "1.30.0"
ARCHIVE = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"
# The published integrity of the archive: the base 64 of its SHA-512.
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
# What the page needs of it, by the name it gets, and the SHA-256 of each.
RUNTIME = {
    "ort.js": (
        "package/dist/ort.wasm.bundle.min.mjs",
        "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    ),
    "ort-wasm-simd-threaded.wasm": (
        "package/dist/ort-wasm-simd-threaded.wasm",
        "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    ),
}
PAGE = ("index.html", "style.css", "app.js", "offline.js")
DIRECTIONS = 10  # sliders

NOTICES = f"""This page was made by Gansmith {__version__}. It runs ONNX Runtime Web {VERSION} (ort.js and
ort-wasm-simd-threaded.wasm) under the MIT License:

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def to_web(model: Model, path: Path) -> float:
    """Write the folder `web` beside `path` and return the largest pixel difference of its ONNX file.

    Raises GansmithError where the optional packages for ONNX or the runtime cannot be had.
    """
    runtime = find_runtime()
    folder = path.with_name("web")
    folder.mkdir()
    difference = to_onnx(model, folder / "model")
    (folder / "model.json").write_text(json.dumps(page_facts(model)), encoding="utf-8")
    enlarge(grid(sample(model, seed=0, count=1)[0]), at_least_px=64).save(folder / "icon.png")
    for name in RUNTIME:
        shutil.copyfile(runtime / name, folder / name)
    (folder / "notices.txt").write_text(NOTICES, encoding="utf-8")
    source = resources.files("gansmith.exporters") / "web_page"
    for name in PAGE:
        (folder / name).write_bytes((source / name).read_bytes())
    _list_for_offline_use(folder)
    return difference


def page_facts(model: Model) -> dict[str, object]:
    """Return what the page knows of the generator besides its ONNX file: latents, labels, names, directions."""
    exported, config = as_exported(model), model.config
    conditioning = exported.conditioning
    found = find_directions(model, min(DIRECTIONS, config.latent_dim))
    extra = exported.config.latent_dim - config.latent_dim  # the number that chooses a cluster moves with no direction
    labels = conditioning.known_labels.tolist() if conditioning.has_labels else []
    official = OFFICIAL[config.data].class_names if config.data in OFFICIAL and labels else ()
    official = official if len(official) > max(labels, default=0) else ()
    names = list(model.class_names or official)
    names += [str(label) for label in range(len(names), max(labels, default=-1) + 1)]
    is_writing = model.spec.channels == 1 or model.class_names or official  # not numbers for want of names
    characters = {names[label]: label for label in labels if len(names[label]) == 1 and is_writing}
    digits = [digit for digit in "2026" if digit in characters]
    return {
        "title": f"{config.data} generator",
        "about": f"Images of {model.spec.size} x {model.spec.size} pixels, drawn by a generator that was trained on "
        f"{config.data} by the recipe {config.recipe}.",
        "size": model.spec.size,
        "channels": model.spec.channels,
        "latent_dim": exported.config.latent_dim,
        "distribution": exported.config.latent_distribution,
        "in_latents": conditioning.in_latents,
        "has_truncation": config.latent_distribution != "sphere" and not hasattr(model.network, "truncate"),
        "has_labels": bool(labels),
        "labels": labels,
        "names": names,
        "frequencies": conditioning.frequencies.tolist(),
        "characters": characters,
        "text": "".join(digits if len(digits) == 4 else list(characters)[:5]),
        "directions": [[round(x, 5) for x in vector] + [0.0] * extra for vector in found.vectors.tolist()],
        "shares": [round(share, 5) for share in found.shares.tolist()],
    }


def _list_for_offline_use(folder: Path) -> None:
    """Name in the service worker the files that it keeps, and their version, a hash of them all."""
    names = sorted(path.name for path in folder.iterdir() if path.name != "offline.js")
    hashes = "".join(file_sha256(folder / name) for name in names)
    worker = folder / "offline.js"
    text = worker.read_text(encoding="utf-8").replace("@FILES@", json.dumps(["./", *names]))
    version = sha256(hashes.encode()).hexdigest()[:16]
    worker.write_text(text.replace("@VERSION@", version), encoding="utf-8")


def find_runtime() -> Path:
    """Return the folder with the runtime's files, fetched first where the cache does not have them.

    Raises NotFoundError where they cannot be fetched.
    """
    folder = cache_dir("onnxruntime-web") / VERSION
    if all((folder / name).is_file() and file_sha256(folder / name) == digest for name, (_, digest) in RUNTIME.items()):
        return folder
    remedy = f"run the export once with a network, or download {ARCHIVE} and put it into {folder}"
    archive = folder / ARCHIVE.rsplit("/", 1)[1]
    if not archive.is_file():
        if os.environ.get(OFFLINE):
            raise NotFoundError(f"ONNX Runtime Web is not here yet, and {OFFLINE} forbids to fetch it; {remedy}")
        try:
            download([ARCHIVE], archive, integrity=INTEGRITY)
        except NotFoundError as error:
            raise NotFoundError(f"ONNX Runtime Web could not be fetched ({error}); {remedy}") from None
    try:
        with tarfile.open(archive) as stored:
            for name, (member, digest) in RUNTIME.items():
                _unpack(stored, member, folder / name, digest)
    except (tarfile.TarError, zlib.error, KeyError, EOFError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            remedy = f"make room in {folder}, or make it writable"
            raise GansmithError(f"{archive} cannot be unpacked ({error.strerror}); {remedy}") from None
        archive.unlink(missing_ok=True)
        raise GansmithError(f"{archive} is damaged and was removed ({error}); export again") from None
    archive.unlink()
    return folder


def _unpack(stored: tarfile.TarFile, member: str, path: Path, digest: str) -> None:
    """Write one file of an archive under its name once its hash is right."""
    source = stored.extractfile(member)
    if source is None:
        raise KeyError(f"{member} is no file")
    with replacing(path) as partial:
        with partial.open("wb") as target:
            shutil.copyfileobj(source, target)
        if file_sha256(partial) != digest:
            raise KeyError(f"{member} is not the published file")
