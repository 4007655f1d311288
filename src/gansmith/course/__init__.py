"""One zip file with what a course asks for: a generator in Keras's formats, code that checks it, a report, pictures.

The rules it holds a run to are those of the assignment: trained without labels, on training images only. The 25 tiles
of the grid are drawn once, from the latents of a fixed seed, and never chosen by how they look.
"""

import contextlib
import io
import shutil
import zipfile
from collections.abc import Sequence
from hashlib import sha256
from importlib import metadata, resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gansmith.errors import GansmithError
from gansmith.data import load_data
from gansmith.data.images import to_float
from gansmith.exporters.keras import to_keras
from gansmith.pictures.animations import film_frames, write_film
from gansmith.sampling import Model, generate, numpy_latents
from gansmith.models import load_generator
from gansmith.randomness import rng
from gansmith.course import evaluation
from gansmith.course.script import training_script
from gansmith.metrics.features import FeatureNetwork, load_feature_network
from gansmith.pictures.plots import plot_curves
from gansmith.reports import write_report
from gansmith.runs import RunDirectory
from gansmith.files import write_bytes, write_json
from gansmith.training.inputs import TrainingData, load_training_data

SEED, TILES = 504, 25
SMALL_SET = 500  # images that travel with train.py


def bundle(
    runs: Sequence[RunDirectory], out: Path, *, allow_labels: bool = False, allow_test_images: bool = False
) -> list[str]:
    """Write the bundle of the first run, with all runs in its report; gives notes on what a grader will see.

    Raises ValueError where the run breaks a rule that was not lifted, or has no generator yet; nothing is written then.
    """
    run = runs[0]
    if (run.config.conditioning == "labels" or run.config.classes) and not allow_labels:
        read = "was trained with labels" if run.config.conditioning == "labels" else "chose its images by their labels"
        raise GansmithError(
            f"{run.directory} {read}, and the rule is to train without; train default-unlabelled, or lift the rule "
            "with --allow-labels"
        )
    model = load_generator(run.directory)
    config, data = load_training_data(run.config)
    recorded = run.facts().get("data", {}).get("sha256")
    if recorded not in (None, data.data_sha256):
        raise GansmithError(
            f"the images at {data.train.source} have changed since {run.directory} was trained (SHA-256 "
            f"{data.data_sha256[:12]}, then {recorded[:12]}); bring the old ones back"
        )
    notes = [] if allow_test_images else _refuse_test_images(run, data)
    ids = tile_ids(model, data)
    images = generate(model, numpy_latents(config, seed=SEED, count=TILES), ids)
    classifier = load_feature_network(config.data, model.spec)
    has_classifier = not classifier.name.startswith("random")
    with TemporaryDirectory() as folder:
        place = Path(folder)
        difference = to_keras(model, place / "generator")
        settings = {
            "seed": SEED,
            "latent_dim": config.latent_dim,
            "latent_distribution": config.latent_distribution,
            "ids": ids.tolist(),
            "num_classes": classifier.num_classes if has_classifier else 0,
        }
        write_json(place / "evaluation.json", settings)
        _check_evaluation(settings, ids, images, place)
        shutil.copyfile(str(resources.files("gansmith.course") / "evaluation.py"), place / "evaluation.py")
        if has_classifier:
            np.savez(place / "classifier.npz", **_classifier_weights(classifier))  # type: ignore[arg-type]
        evaluation.save_grid(images.permute(0, 2, 3, 1).numpy(), place / "grid.png")
        plot_curves(run, place / "loss.png")
        if run.grids():
            write_film(film_frames(run), place / "film.gif")
        (place / "train.py").write_text(training_script(config, model.spec), encoding="utf-8")
        _write_small_set(place / "data.npz", data)
        write_report(runs, place / "report.pdf")
        missing = missing_classes(images, classifier) if has_classifier else []
        (place / "README.txt").write_text(_readme(run, missing if has_classifier else None), encoding="ascii")
        _write_manifest(place, run, difference)
        _zip(place, out)
    return notes + [
        f"class {label} does not occur in the grid; train longer, or with another seed" for label in missing
    ]


def tile_ids(model: Model, data: TrainingData) -> Tensor:
    """(25,) what the generator is told of each tile: a rule that looks at training images, never at drawn ones.

    Labels take turns. Clusters are put in an order in which neighbours look alike (Ward's tree over the mean image of
    each, leaves in their best order) and divided into 25 equal shares of the training images, and each tile takes the
    largest cluster of its share, for large ones are least odd, or the one in its middle. So every kind of image that
    makes up a twenty-fifth of the data is met, without a label having been read.
    """
    if model.conditioning.has_labels:
        return model.conditioning.draw(seed=0, count=TILES, labels=range(model.spec.num_classes))
    count = len(model.conditioning.frequencies)
    if count == 1:
        return torch.zeros(TILES, dtype=torch.int64)
    from scipy.cluster.hierarchy import leaves_list, linkage

    pixels = data.train.pixels.flatten(1).float()
    sizes = torch.bincount(data.ids, minlength=count).clamp(min=1)
    means = torch.zeros(count, pixels.shape[1]).index_add_(0, data.ids, pixels) / sizes[:, None]
    order = torch.from_numpy(leaves_list(linkage(means.numpy(), "ward", optimal_ordering=True))).long()
    frequencies = model.conditioning.frequencies[order]
    shares = frequencies.cumsum(0)
    share_of = ((shares - frequencies / 2) / shares[-1] * TILES).long()
    points = (torch.arange(TILES, dtype=torch.float64) + 0.5) / TILES * shares[-1]
    tiles = torch.searchsorted(shares, points).clamp(max=count - 1)
    for tile in share_of.unique().tolist():
        tiles[tile] = torch.where(share_of == tile, frequencies, -1.0).argmax()
    return order[tiles]


def missing_classes(images: Tensor, classifier: FeatureNetwork) -> list[int]:
    """Classes that the classifier sees nowhere among these images, uint8 (N, C, H, W)."""
    with torch.no_grad():
        found = set(classifier(to_float(images)).argmax(1).tolist())
    return sorted(set(range(classifier.num_classes)) - found)


def _check_evaluation(settings: dict[str, Any], ids: Tensor, images: Tensor, place: Path) -> None:
    """Have evaluation.py's own arithmetic draw the tiles; RuntimeError where a grey level is off by more than one."""
    drawn = evaluation.to_bytes(evaluation.draw(evaluation.draw_latents(settings), ids.numpy()[:, None], place))
    difference = np.abs(drawn.astype(int) - images.permute(0, 2, 3, 1).numpy().astype(int)).max()
    if difference > 1:
        raise RuntimeError(f"evaluation.py would draw another grid than this run, {difference} grey levels apart")


def _refuse_test_images(run: RunDirectory, data: TrainingData) -> list[str]:
    """ValueError where the run learnt from test images; a note where there are none to compare with."""
    tests = []
    for place in dict.fromkeys((run.config.data_dir or None, None)):
        with contextlib.suppress(FileNotFoundError):
            tests.append(load_data(run.config.data, data_dir=place, part="test"))
    if not tests:
        return ["there are no test images at hand, so it was not checked that none of them was trained on"]

    def hashes(pixels: Tensor) -> set[bytes]:
        return {sha256(image.tobytes()).digest() for image in pixels.numpy()}

    shared = len(hashes(data.train.pixels) & set().union(*(hashes(test.pixels) for test in tests)))
    if shared:
        raise GansmithError(
            f"{shared:,} of the images {run.directory} learned from are test images, and the rule is to train on "
            "training images only; train on those, or lift the rule with --allow-test-images"
        )
    return []


def _classifier_weights(classifier: FeatureNetwork) -> dict[str, NDArray[np.float32]]:
    """Its weights as NumPy lays them out: kernels (h, w, in, out), matrices (in, out)."""
    weights: dict[str, NDArray[np.float32]] = {}
    state = {name: value.detach() for name, value in classifier.state_dict().items()}
    for k in range(len(classifier.convolutions)):
        weights[f"kernel{k}"] = state[f"convolutions.{k}.weight"].permute(2, 3, 1, 0).contiguous().numpy()
        weights[f"bias{k}"] = state[f"convolutions.{k}.bias"].numpy()
    for name, layer in (("hidden", "hidden"), ("classes", "classifier")):
        weights[name] = state[f"{layer}.weight"].T.contiguous().numpy()
        weights[f"{name}_bias"] = state[f"{layer}.bias"].numpy()
    return weights


def _write_small_set(path: Path, data: TrainingData) -> None:
    """A few training images for train.py, drawn by a fixed seed; labels only where the run read them."""
    rows = torch.randperm(len(data.train), generator=rng("small set"))[:SMALL_SET]
    chosen = data.train.take(rows)
    arrays = {"images": chosen.pixels.permute(0, 2, 3, 1).contiguous().numpy()}
    if chosen.labels is not None:
        arrays["labels"] = chosen.labels.numpy()
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def _readme(run: RunDirectory, missing: Sequence[int] | None) -> str:
    if missing is None:
        seen = "No classifier ships for these images, so nothing here names what the grid shows."
    elif missing:
        seen = f"Not every class occurs in the grid: {', '.join(map(str, missing))} missing."
    else:
        seen = "Every class that the classifier knows occurs in the grid."
    told = {
        "none": "without labels",
        "clusters": "without labels (similar images were grouped by their pixels)",
        "labels": "with labels",
    }[run.config.conditioning] + (" on images chosen by them" if run.config.classes else "")
    namer = "" if missing is None else _CLASSIFIER_LINE
    return f"""A generator of {run.config.data} images, trained {told} by Gansmith {metadata.version("gansmith")}.

python evaluation.py   draws the 5x5 grid from latents of seed {SEED} and names what it sees (NumPy, h5py, Pillow)
python train.py        trains the same recipe on the {SMALL_SET} images in data.npz (PyTorch, NumPy, Pillow)

generator.json, generator.h5   architecture and weights, in the formats of Keras
evaluation.json                seed, and what the generator is told of each tile, fixed before anything was drawn
{namer}grid.png, loss.png, film.gif   the grid, both networks' losses, the training as a film
report.pdf                     experiments, special skills, visualisation
manifest.json                  SHA-256 of each file

{seen}
"""


_CLASSIFIER_LINE = (
    "classifier.npz                 the small network that names classes for evaluation.py; not part of the generator\n"
)


def _write_manifest(place: Path, run: RunDirectory, difference: float) -> None:
    files = {path.name: sha256(path.read_bytes()).hexdigest() for path in sorted(place.iterdir())}
    commands = [start["command"] for start in run.facts().get("starts", [])]
    write_json(
        place / "manifest.json", {"files": files, "keras_largest_pixel_difference": difference, "commands": commands}
    )


def _zip(place: Path, out: Path) -> None:
    """Every file of a folder, in order and without times, so that equal contents make an equal archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(place.iterdir()):
            entry = zipfile.ZipInfo(path.name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, path.read_bytes())
    write_bytes(out, buffer.getvalue())
