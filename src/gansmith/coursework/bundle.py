"""The zip file itself: a generator in Keras's formats, scripts that check and train it, a report, pictures.

A run is held to the rules of the assignment: trained without labels, on training images only. The 25 tiles of the grid
are what the generator draws from the latents of a fixed seed, and are never chosen by how they look.
"""

import contextlib
import io
import zipfile
from collections.abc import Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, arange, randperm

from gansmith import __version__
from gansmith.config import Config
from gansmith.coursework import evaluation
from gansmith.coursework.sources import package_files
from gansmith.coursework.tiles import TILES, missing_classes, reorder_clusters
from gansmith.data import DATASETS, Images, load_data
from gansmith.data.images import image_hashes
from gansmith.errors import ConfigError, RunError
from gansmith.exporters.keras import to_keras
from gansmith.files import file_sha256, without_folders, write_bytes, write_json
from gansmith.interrupts import uninterrupted
from gansmith.metrics.features import FeatureNetwork, load_feature_network
from gansmith.models import load_generator
from gansmith.networks import NETWORKS
from gansmith.pictures.animations import film_frames, write_film
from gansmith.pictures.plots import plot_curves
from gansmith.randomness import rng
from gansmith.reports import write_report
from gansmith.runs import RunDirectory, write_config
from gansmith.sampling import Model, generate, is_whole, numpy_latents
from gansmith.signature import as_exported
from gansmith.training.inputs import TrainingData, load_training_data, preparation
from gansmith.training.own_rows import custom_choices

SEED = 504
SMALL_SET = 500  # training images in data.npz
# What the scripts import, of which Gansmith itself needs more; a test runs them with nothing else.
EVALUATION_NEEDS = ("numpy", "h5py", "pillow")
TRAINING_NEEDS = ("torch", "numpy", "pillow", "safetensors", "tomli-w", "filelock")


def write_bundle(
    runs: Sequence[RunDirectory],
    out: Path,
    *,
    allow_labels: bool = False,
    allow_test_images: bool = False,
    images_in_memory: Images | None = None,
    seed: int = SEED,
) -> list[str]:
    """Write the bundle of the first run, with all runs in its report.

    Args:
        images_in_memory: what the first run was trained on, where that is no data set with a name.
        seed: of the latents of the grid, as the course gives it.

    Returns:
        notes on what a grader will see.

    Raises GansmithError, with nothing written, where the run breaks a rule that was not lifted, has no generator yet,
    or its images have changed.
    """
    run = runs[0]
    if not is_whole(seed) or not 0 <= seed < 2**32:
        raise ConfigError(f"seed is {seed!r:.60}; it must be a whole number from 0 to 4294967295, such as {SEED}")
    seed = int(seed)
    if not allow_labels:
        _refuse_labels(run)
    model = load_generator(run.directory)
    # A run that was trained on a GPU can be handed in on a machine without one.
    config, data = load_training_data(run.config.replace(device="cpu"), images_in_memory)
    _refuse_other_images(run, data)
    notes = [] if allow_test_images else _refuse_test_images(run, data)
    model = as_exported(reorder_clusters(model, data, seed=seed))
    z, labels = numpy_latents(model.config, seed=seed, count=TILES), _labels_in_turn(model)
    images = generate(model, z, labels)
    network = load_feature_network(config.data, model.spec)
    classifier = None if network.name.startswith("random") else network
    classes = _classes_of(data, classifier) if classifier else []
    missing = missing_classes(images, classifier, classes) if classifier else None
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with uninterrupted():
            difference = to_keras(model, folder / "generator")
        _write_evaluation(folder, model, labels, images, classifier, classes, seed=seed)
        _write_training(folder, config, data)
        _write_pictures(folder, runs)
        (folder / "README.txt").write_text(_readme(run, config, model, missing, seed), encoding="utf-8")
        _write_manifest(folder, run, difference)
        _zip(folder, out)
    return [*notes, *_on_first_weights(run), *_notes(config, missing)]


def _classes_of(data: TrainingData, classifier: FeatureNetwork) -> list[int]:
    """Return the classes that have images, of which a grid should show each: labels may have gaps."""
    whole = data.train_split or data.train
    return list(range(classifier.num_classes)) if whole.labels is None else whole.labels.unique().tolist()


def _labels_in_turn(model: Model) -> Tensor:
    """Return (25,) the label of each tile: those that occur, in turn; 0 for a generator that was trained without."""
    known = model.conditioning.known_labels
    return known[arange(TILES) % len(known)]


def use_of_labels(run: RunDirectory) -> str:
    """Return what a run, or the weights it began with, used labels for; "" where it used none."""
    if run.config.conditioning == "labels":
        return "was trained with labels"
    if run.config.classes:
        return "chose its training images by their labels"
    has_them = run.config.start_from and run.facts().get("start_from", {}).get("used_labels")
    return f"began with the weights of {run.config.start_from}, where labels were used" if has_them else ""


def _on_first_weights(run: RunDirectory) -> list[str]:
    """Return a note where it is not known whether the weights that a run began with were trained with labels."""
    is_known = not run.config.start_from or run.facts().get("start_from", {}).get("used_labels") is not None
    return [] if is_known else [f"whether labels were used for the weights of {run.config.start_from} is not recorded"]


def _refuse_labels(run: RunDirectory) -> None:
    """Raise RunError where the run read labels."""
    if use := use_of_labels(run):
        raise RunError(
            f"{run.directory} {use}, and the assignment is to train without; train default-unlabelled, or allow it "
            "with --allow-labels"
        )


def _refuse_other_images(run: RunDirectory, data: TrainingData) -> None:
    """Raise RunError where the data set is no longer the one that the run was trained on."""
    recorded = run.facts().get("data", {}).get("sha256")
    if recorded not in (None, data.data_sha256):
        raise RunError(
            f"the images at {data.train.source} have changed since {run.directory} was trained (SHA-256 "
            f"{data.data_sha256[:12]}, then {recorded[:12]}); restore the old ones"
        )


def _refuse_test_images(run: RunDirectory, data: TrainingData) -> list[str]:
    """Raise RunError where the run was trained on test images; returns a note where there are none to compare with."""
    tests = []
    for place in dict.fromkeys((run.config.data_dir or None, None)) if run.config.data in DATASETS else ():
        with contextlib.suppress(FileNotFoundError):
            tests.append(load_data(run.config.data, data_dir=place, part="test", how=preparation(run.config)))
    if not tests:
        return ["no test images were found, so it was not checked that none of them was trained on"]
    shared = len(set(image_hashes(data.train.pixels)) & set().union(*(image_hashes(test.pixels) for test in tests)))
    if shared:
        raise RunError(
            f"{shared:,} of the images {run.directory} was trained on are test images, and the assignment is to train "
            "on training images only; train on those, or allow it with --allow-test-images"
        )
    return []


def _write_evaluation(
    folder: Path,
    model: Model,
    labels: Tensor,
    images: Tensor,
    classifier: FeatureNetwork | None,
    classes: Sequence[int],
    *,
    seed: int,
) -> None:
    """Write evaluation.py and what it reads, and grid.png with these images, uint8 (25, C, H, W).

    Raises RuntimeError where evaluation.py's NumPy functions give an image that is more than one grey level off.
    """
    tiles = images.permute(0, 2, 3, 1).numpy()
    settings = {
        "seed": seed,
        "z_dim": model.config.latent_dim,
        "latent_distribution": model.config.latent_distribution,
        "labels": labels.tolist() if model.conditioning.has_labels else None,
        "classes": list(classes),
    }
    write_json(folder / "evaluation.json", settings)
    again = evaluation.generate(evaluation.inputs(settings), folder)
    difference = np.abs(evaluation.to_bytes(again).astype(int) - tiles.astype(int)).max()
    if difference > 1:
        raise RuntimeError(f"evaluation.py would generate another grid than this run, {difference} grey levels apart")
    (folder / "evaluation.py").write_bytes(_script("evaluation.py"))
    if classifier:
        np.savez(folder / "classifier.npz", **_classifier_weights(classifier))  # type: ignore[arg-type]
    evaluation.save_grid(tiles, folder / "grid.png")


def _classifier_weights(classifier: FeatureNetwork) -> dict[str, NDArray[np.float32]]:
    """Return its weights as evaluation.py reads them: kernels (h, w, in, out), matrices (in, out)."""
    weights: dict[str, NDArray[np.float32]] = {}
    state = {name: value.detach() for name, value in classifier.state_dict().items()}
    for k in range(len(classifier.convolutions)):
        weights[f"kernel{k}"] = state[f"convolutions.{k}.weight"].permute(2, 3, 1, 0).contiguous().numpy()
        weights[f"bias{k}"] = state[f"convolutions.{k}.bias"].numpy()
    for name, layer in (("hidden", "hidden"), ("classes", "classifier")):
        weights[name] = state[f"{layer}.weight"].T.contiguous().numpy()
        weights[f"{name}_bias"] = state[f"{layer}.bias"].numpy()
    return weights


def _write_training(folder: Path, config: Config, data: TrainingData) -> None:
    """Write train.py, the part of this package that it loads, config.toml and data.npz."""
    script = _script("training_script.py")
    for path, source in package_files(script.decode()).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(source)
    (folder / "train.py").write_bytes(script)
    # A path says nothing to another machine, and much of this one.
    origins = {name: Path(source).name for name, source in config.origins.items() if name != "device"}
    written = config.replace(data_dir="", device="auto", start_from=Path(config.start_from).name, origins=origins)
    write_config(folder, written)
    _write_small_set(folder / "data.npz", data)


def _script(name: str) -> bytes:
    return (resources.files("gansmith.coursework") / name).read_bytes()


def _write_small_set(path: Path, data: TrainingData) -> None:
    """Write a few training images, drawn by a fixed seed; labels only where the run read them."""
    rows = randperm(len(data.train), generator=rng("small set"))[:SMALL_SET]
    chosen = data.train.take(rows)
    arrays = {"images": chosen.pixels.permute(0, 2, 3, 1).contiguous().numpy()}
    if chosen.labels is not None:
        arrays["labels"] = chosen.labels.numpy()
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def _write_pictures(folder: Path, runs: Sequence[RunDirectory]) -> None:
    """Write the plot of losses, the film and the report."""
    plot_curves(runs[0], folder / "loss.png")
    if runs[0].grids():
        write_film(film_frames(runs[0]), folder / "film.gif")
    write_report(runs, folder / "report.pdf", with_folders=False)


def _notes(config: Config, missing: Sequence[int] | None) -> list[str]:
    """Return what a grader will miss, a sentence each."""
    absent = [
        f"class {label} does not occur in the grid; train longer, or with another seed" for label in missing or ()
    ]
    if config.classes and absent:
        absent = [f"the run was trained on the classes {config.classes} alone, so others do not occur in the grid"]
    own = [
        f"train.py will not find {what} {name!r}, which is code of your own; add it to gansmith/ in the zip"
        for what, name in custom_choices(config).items()
        if what in ("network", "objective")
    ]
    return absent + own


def _readme(run: RunDirectory, config: Config, model: Model, missing: Sequence[int] | None, seed: int) -> str:
    """Return README.txt: how to run the scripts, what to read, what each file is."""
    of_labels = "; labels were used for these" if run.facts().get("start_from", {}).get("used_labels") else ""
    how = {
        "none": "without labels",
        "clusters": "without labels (similar images were grouped by k-means on their pixels and edges)",
        "labels": "with labels",
    }[config.conditioning] + (" on images chosen by them" if config.classes else "")
    occurring = "Every class that the classifier knows occurs in the grid."
    if missing is None:
        occurring = "No classifier is included for these images, so the classes in the grid are not counted."
    elif missing:
        occurring = f"Not every class occurs in the grid: {', '.join(map(str, missing))} missing."
    files = [
        ("generator.json, generator.h5", "architecture and weights of the generator, in the formats of Keras"),
        ("generator.keras", "both in one file, for keras.models.load_model"),
        ("evaluation.json", "the seed, and what the generator takes"),
        ("classifier.npz", "the network that recognises classes for evaluation.py; not part of the generator"),
        ("grid.png, loss.png, film.gif", "the grid, the losses of both networks, the training as a film"),
        ("report.pdf", "experiments, special skills, visualisation"),
        ("config.toml", "every choice of the run: its recipe, learning rates, penalties, length"),
        ("data.npz", f"{SMALL_SET} of the training images at most, for train.py"),
        ("manifest.json", "SHA-256 of each file"),
    ]
    counts = "" if missing is None else " and counts its classes"
    listing = [(name, text) for name, text in files if name != "classifier.npz" or missing is not None]
    began = (
        f"\nIt began with the weights of {Path(config.start_from).name}, which train.py leaves out{of_labels}.\n"
        if config.start_from
        else ""
    )
    return f"""A generator of {config.data} images, trained {how} by Gansmith {__version__}.
{began}
python evaluation.py   generates the 5x5 grid from latents of seed {seed}{counts}
                       needs: Python 3.10 or later, pip install {" ".join(EVALUATION_NEEDS)}
python train.py        trains the same recipe on the few images in data.npz, by the code in gansmith/
                       needs: Python 3.11 or later, pip install {" ".join(TRAINING_NEEDS)}

{_usage(model, seed)}
The algorithm, in the order to read it; gansmith/ is the training part of the package, unchanged:

{_table(_reading(config))}

Files:

{_table(listing)}

{occurring}
"""


def _usage(model: Model, seed: int) -> str:
    """Return the part of README.txt on how to generate images with Keras alone."""
    z_dim = model.config.latent_dim
    lines = [
        "With Keras alone (2.15 or 3), images (N, H, W, C) in [-1, 1]:",
        "",
        '    generator = keras.models.model_from_json(open("generator.json").read())',
        '    generator.load_weights("generator.h5")',
        f"    np.random.seed({seed})",
        f"    z = np.random.normal(size=[{TILES}, {z_dim}])",
    ]
    if model.conditioning.has_labels:
        lines += [
            '    labels = json.load(open("evaluation.json"))["labels"]  # of the grid; any that is known will do',
            '    images = generator.predict([z, np.array(labels, dtype="int32")[:, None]])',
        ]
    else:
        lines += ["    images = generator.predict(z)"]
    lines += [""]
    if model.config.latent_distribution == "uniform":
        lines += [
            "This generator was trained with latents that are uniform in [-1, 1]; evaluation.py turns normal numbers",
            "into such.",
            "",
        ]
    if model.conditioning.has_labels:
        lines += [*_label_names(model), ""]
    if model.conditioning.in_latents:
        what = "sub-cluster of the label" if model.conditioning.has_labels else "cluster"
        lines += [f"The last of the {z_dim} numbers of z chooses the {what}, each as often as in the training images."]
        if not model.conditioning.has_labels:
            kinds = min(TILES, model.config.clusters)
            lines += [
                "Before any image was generated, clusters were put in an order in which the latents of seed",
                f"{seed} meet {kinds} kinds of training images. Their frequencies stay the same.",
            ]
        lines += [""]
    return "\n".join(lines)


def _label_names(model: Model) -> list[str]:
    """Return a line for each label, or one for all where they have no names of their own."""
    known = model.conditioning.known_labels.tolist()
    names = {label: model.class_name(label) for label in known}
    if all(name == str(label) for label, name in names.items()):
        return [f"Labels: {model.conditioning.listing}."]
    return ["Labels:", *(f"    {label}  {ascii(name)[1:-1]}" for label, name in names.items())]


def _reading(config: Config) -> list[tuple[str, str]]:
    """Return the source files that show how this run was trained, and what each shows."""
    builder: Any = NETWORKS[config.network]
    module: str = (builder.func if isinstance(builder, partial) else builder).__module__
    network = [(f"{module.replace('.', '/')}.py", f"the architecture of G and D ({config.network})")]
    return [
        ("gansmith/training/step.py", "one step of the discriminator, one of the generator, the moving average"),
        ("gansmith/training/losses.py", f"the losses of both; this run's objective is {config.objective}"),
        ("gansmith/training/penalties.py", "gradient penalties"),
        *(network if module.startswith("gansmith.") else []),
        ("gansmith/training/loop.py", "the loop over batches, with learning rates and schedules"),
        ("gansmith/training/techniques.py", "which techniques a choice in config.toml adds to a step"),
        ("gansmith/conditioning.py", "what the networks are conditioned on"),
    ]


def _table(rows: Sequence[tuple[str, str]]) -> str:
    """Return two aligned columns."""
    width = max(len(name) for name, _ in rows) + 2
    return "\n".join(f"{name:<{width}}{text}" for name, text in rows)


def _write_manifest(folder: Path, run: RunDirectory, difference: float) -> None:
    """Write manifest.json: the hash of every other file, how exact the export is, and the commands of the run."""
    files = {name: file_sha256(path) for name, path in _files_in(folder)}
    commands = [without_folders(start["command"]) for start in run.facts().get("starts", [])]
    write_json(
        folder / "manifest.json", {"files": files, "keras_largest_pixel_difference": difference, "commands": commands}
    )


def _files_in(folder: Path) -> list[tuple[str, Path]]:
    """Return every file below a folder with its name in the zip, sorted by name."""
    return sorted((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file())


def _zip(folder: Path, out: Path) -> None:
    """Pack every file of a folder, sorted and without times, so that equal contents make an equal archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in _files_in(folder):
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, path.read_bytes())
    write_bytes(out, buffer.getvalue())
