"""What notebooks, the command line and other programs call: train, resume, sample, evaluate, export, report.

A function for each task, and `Run`, which a notebook shows as its sample grid, loss curves and FD ratio. No call leaves
anything of the process changed: threads, random states, signal handlers, environment. The examples in docstrings use
`run`, a short finished run.
"""

import copy
import html
import logging
from base64 import b64encode
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from gansmith import data as data_sets
from gansmith import evaluation, inversion, models, processes, runs
from gansmith.config import Config, choose, class_number, parse_value
from gansmith.data.images import Images
from gansmith.data.objects import as_images
from gansmith.data.prepare import Preparation
from gansmith.errors import ConfigError, DataError, GansmithError, NotFoundError
from gansmith.events import Event
from gansmith.files import quoted, require_kind, require_parent, require_writable, to_path, write_bytes
from gansmith.interrupts import uninterrupted
from gansmith.inversion import Inversion
from gansmith.isolation import isolated, torch_defaults
from gansmith.latent_space import Directions, find_directions
from gansmith.pictures import animations, plots
from gansmith.pictures.grids import enlarge, grid, to_png
from gansmith.planning import (
    RUNS,
    Plan,
    as_arguments,
    catching_signals,
    caught_anywhere,
    missing_choices,
    pass_on,
    plan_events,
    plan_resume,
    plan_training,
    refuse_lengths,
    refuse_undefined,
    to_run_path,
    undefined_choices,
    until_interrupted,
)
from gansmith.progress import check_style, lose_output, show_preparation, show_progress, write_line
from gansmith.runs import RunDirectory
from gansmith.sampling import (
    Model,
    Samples,
    chosen_labels,
    class_walk,
    device_of,
    draw_inputs,
    flatten_maps,
    generate,
    latent_walk,
    numpy_latents,
    read_latents,
    refuse_counts,
    require_whole,
    truncate,
)
from gansmith.sampling import sample as sample_model
from gansmith.signature import as_exported
from gansmith.training import diagnosis
from gansmith.training.inputs import preparation, shown_images
from gansmith.training.machine import computing_on, find_device
from gansmith.verdicts import Comparison, Verdict, caution_about, html_table

if TYPE_CHECKING:
    from gansmith.grading.pages import Grades

PlotKind = Literal["curves", "classes", "neighbours"]
MAX_FRAMES = 10_000  # of a walk: a quarter of an hour to play

logger = logging.getLogger("gansmith")


@dataclass(frozen=True)
class Run(RunDirectory):
    """A training run: its records, its generator, and what can be made of it. Shows itself in a notebook.

    >>> run.status
    'finished'
    >>> {"images_seen", "d_loss", "g_loss"} <= run.log[-1].keys()
    True

    Attributes:
        directory: the run directory.
        config: every choice, and where it came from.
        images: the images it was trained on, where these came from memory.
        log, metrics: the rows of log.jsonl and metrics.jsonl, as pandas.DataFrame takes them.
    """

    images: Images | None = field(default=None, compare=False, repr=False)

    @property
    def generator(self) -> Model:
        """The generator of the newest checkpoint."""
        return models.load_generator(self.directory)

    @property
    def verdict(self) -> Verdict | None:
        """The newest verdict of `evaluate` on the run's own data; None without one."""
        rows = [row for row in self.metrics_on_own_data() if row.get("gates")]
        return Verdict({"target": str(self.directory), **rows[-1]}) if rows else None

    def sample(
        self,
        count: int | None = None,
        *,
        seed: int = 0,
        labels: Sequence[int | str] | str | None = None,
        numpy_seed: int | None = None,
        latents: Any = None,
        truncation: float = 1.0,
    ) -> Samples:
        """Return samples of the newest checkpoint; see `gansmith.sample`."""
        return sample(
            self, count, seed=seed, labels=labels, numpy_seed=numpy_seed, latents=latents, truncation=truncation
        )

    def evaluate(
        self,
        *,
        data: Any = None,
        data_dir: Path | str | None = None,
        count: int | None = None,
        quick: bool = False,
        seed: int = 0,
        fid: bool = False,
        fid_weights: Path | str | None = None,
        device: str = "auto",
    ) -> Verdict:
        """Return the verdict on the newest checkpoint; see `gansmith.evaluate`."""
        choices: dict[str, Any] = {"count": count, "quick": quick, "seed": seed, "fid": fid, "fid_weights": fid_weights}
        choices["device"] = device
        return evaluate(self, data=data, data_dir=data_dir, **choices)

    def diagnose(self) -> "Diagnosis":
        """Say how the run ended or where it stands, and what went wrong; see `gansmith.diagnose`."""
        return diagnose(self)

    def export(self, *formats: str, out: Path | str | None = None) -> Path:
        """Write the generator for other libraries; see `gansmith.export`."""
        return export(self, *formats, out=out)

    def report(self, out: Path | str | None = None) -> Path:
        """Write a report as .pdf or .html; see `gansmith.report`."""
        return report(self, out=out)

    def invert(self, pictures: Any, *, labels: Sequence[int | str] | str | None = None, seed: int = 0) -> Inversion:
        """Project pictures into the latent space of the newest checkpoint; see `gansmith.invert`."""
        return invert(self, pictures, labels=labels, seed=seed)

    def film(self, out: Path | str | None = None, *, frame_ms: int = animations.FRAME_MS) -> Path:
        """Write a film of the training; see `gansmith.film`."""
        return film(self, out=out, frame_ms=frame_ms)

    def walk(self, out: Path | str = "walk.gif", **choices: Any) -> Path:
        """Write an interpolation between samples or classes; see `gansmith.walk`."""
        return walk(self, out=out, **choices)

    def plot(self, what: PlotKind = "curves", *, seed: int = 0, out: Path | str | None = None) -> Path:
        """Draw curves, classes, or samples beside the nearest training images; see `gansmith.plot`."""
        return plot(self, what, seed=seed, out=out)

    def handin(
        self,
        out: Path | str = "submission.zip",
        *,
        allow_labels: bool | None = None,
        allow_test_images: bool = False,
        seed: int = 504,
    ) -> Path:
        """Write the bundle a course asks for; see `gansmith.handin`."""
        return handin(self, out=out, allow_labels=allow_labels, allow_test_images=allow_test_images, seed=seed)

    def __repr__(self) -> str:
        if not self.directory.is_dir():
            return f"<Run {self.directory}: its directory is not there, seen from {Path.cwd()}>"
        facts = [self.status, f"{self.images_seen:,} images", _ratio_of(self), *undefined_choices(self)]
        return f"<Run {self.directory}: {', '.join(filter(None, facts))}>"

    @torch_defaults()
    def _repr_html_(self) -> str:
        parts = [f"<p><b>{html.escape(repr(self)[1:-1])}</b></p>"]
        if not self.directory.is_dir():
            return parts[0]
        if (png := _newest_grid(self)) is not None:
            parts.append(_picture(png))
        if self.log:
            parts.append(_picture(plots.draw_curves(self)))
        if self.verdict is not None:
            rows = [(name, result, why) for result, name, why in self.verdict.gate_rows()]
            parts.append(f"<p>evaluated after {self.verdict['images_seen']:,} images</p>")
            parts.append(html_table(("gate", "result", "measured"), rows))
        failures = diagnose(self)["failures"].values()
        return "".join([*parts, *(f"<p>{html.escape(message)}</p>" for message in failures)])


class Diagnosis(dict[str, Any]):
    """How a run ended, what went wrong in it, and what to change; shows itself as sentences.

    >>> gs.diagnose(run)
    runs/0001-mlp-small-mnist: finished, 640 of 640 images seen
    no training failure was seen: fewer than 20 steps are too few to see any

    Its keys: status, reason, images_seen, images, saved_images, failures (name: message), rollbacks, directory,
    undefined: a sentence for each choice that only the program that trained the run defines, and lost_lines: how many
    lines of log.jsonl are missing, in which failures may have been noted, and but: what "no failure" leaves open, such
    as an evaluation that failed.
    """

    _NOTHING = "no training failure was seen"
    _STATUS = {
        "running": "training now",
        "killed": "killed, or its machine went down, or its disk was full",
        "stopped": "stopped on request",
        "failed": "stopped by itself",
        "finished": "finished",
        "unknown": "without a record of how it ended",
    }

    def __repr__(self) -> str:
        ended = self._STATUS.get(self["status"], self._STATUS["unknown"])
        lines = [f"{self['directory']}: {ended}, {self['images_seen']:,} of {self['images']:,} images seen"]
        if self["status"] == "failed":
            lines.append(f"it stopped because {self['reason']}")
        lines += [step["message"] for step in self["rollbacks"]]
        lost = f"log.jsonl lacks {self['lost_lines']:,} lines, in which failures may have been noted"
        lines += self["failures"].values() or ([] if self["lost_lines"] else [self._NOTHING + self["but"]])
        lines += [lost] if self["lost_lines"] else []
        lines += [f"note: {sentence}" for sentence in self["undefined"]]
        if self["status"] not in ("finished", "running"):
            directory = quoted(self["directory"])
            lines.append(f"continue from {self['saved_images']:,} images with: gansmith resume {directory}")
        return "\n".join(lines)


def train(
    recipe: str | None = None,
    *,
    data: Any = None,
    minutes: float | None = None,
    images: int | None = None,
    epochs: float | None = None,
    out: Path | str | None = None,
    progress: str = "auto",
    **choices: Any,
) -> Run:
    """Train a generator and return the run; interrupting it stops after the step, saves, and returns the run.

    >>> run = gs.train("mlp-small", images=640, out="small", progress="none", g_width=16, d_width=16, seed=1)
    >>> run
    <Run small: finished, 640 images, validation FD ratio ...>

    Args:
        recipe: row of `gansmith.RECIPES` to start from; "default" where none is named.
        data: a data set's name, a path, or your own images (see `load_data`); MNIST where none is given.
        minutes, images, epochs: training length, one of them: wall time, images shown to the discriminator, or passes
            over the training images; the recipe's own where none is given.
        out: run directory; by default the next number under runs/. The run that is there already is continued.
        progress: auto, bar, notebook, plain, json or none.
        choices: any field of `Config`, such as batch_size=32 or label_smoothing=0.1.

    Raises:
        GansmithError: for choices or data that cannot be trained on; nothing is written then.
        TrainingFailed: when a loss becomes NaN or infinite, or a checkpoint cannot be written.
    """
    check_style(progress)
    with show_preparation(progress) as watch:
        plan = plan_training(
            recipe, data=data, minutes=minutes, images=images, epochs=epochs, out=out, choices=choices, watch=watch
        )
    run, caught = run_training(plan, progress=progress)
    pass_on(caught)
    return run


def train_events(
    recipe: str | None = None,
    *,
    data: Any = None,
    minutes: float | None = None,
    images: int | None = None,
    epochs: float | None = None,
    out: Path | str | None = None,
    **choices: Any,
) -> Iterator[Event]:
    """Train as `train` does, and yield what happens: `gansmith.events`, beginning with Started.

    >>> for event in gs.train_events("mlp-small", images=320, out="steps", g_width=16, d_width=16, save_every=320):
    ...     if event.kind == "checkpoint":
    ...         print(event.images_seen, event.to_json()["kind"])
    320 checkpoint

    Leaving the loop closes the iterator: the run stops after its step and saves, and the next call with the same `out`
    continues it. Ctrl-C does the same while it trains, and then raises KeyboardInterrupt.
    """
    plan = plan_training(recipe, data=data, minutes=minutes, images=images, epochs=epochs, out=out, choices=choices)
    return until_interrupted(plan)


def resume(
    run: "Run | Path | str",
    *,
    images: int | None = None,
    minutes: float | None = None,
    epochs: float | None = None,
    data: Any = None,
    device: str | None = None,
    progress: str = "auto",
) -> Run:
    """Continue a run that was stopped, bit for bit as if it had not been, or a finished one beyond its end.

    >>> gs.resume(run, images=1280, progress="none").images_seen
    1280

    Args:
        images, epochs: new total length.
        minutes: train for so much longer.
        data: the images, where the run was trained on images in memory; a Run that `train` returned holds them.
        device: another device to go on with, as the field of `Config`; the result then differs by rounding.

    Raises RunError where the directory or its data are not those the run began with, ConfigError where its objective,
    network or images are those of another program.
    """
    check_style(progress)
    with show_preparation(progress) as watch:
        plan = plan_resume(run, data=data, minutes=minutes, images=images, epochs=epochs, device=device, watch=watch)
    resumed, caught = run_training(plan, progress=progress)
    pass_on(caught)
    return resumed


def open_run(run: "Run | RunDirectory | Path | str") -> Run:
    """Return the run in a directory.

    >>> gs.open_run(run.directory).config.recipe
    'mlp-small'

    Raises NotFoundError where there is none, RunError where it cannot be read.
    """
    if isinstance(run, Run):
        if not run.directory.is_dir():
            raise NotFoundError(f"there is no run {str(run.directory)!r} any more, seen from {str(Path.cwd())!r}")
        opened = runs.open_run(run.directory)  # which may have gone on since
        return Run(opened.directory, opened.config, run.images)
    opened = run if isinstance(run, RunDirectory) else runs.open_run(to_run_path(run))
    return Run(opened.directory, opened.config)


def load(source: "Run | Path | str", *, num_classes: int | None = None, device: str = "cpu") -> Model:
    """Return the generator of a run, a checkpoint or a file: .safetensors, .onnx, .pt2, or Keras files.

    >>> gs.load(run.checkpoints()[-1] / "generator.safetensors").spec.size
    28

    `load(...).network` is the plain torch module, network(z, y) -> (N, C, H, W) in [-1, 1].

    Args:
        num_classes: of a file of another program that takes labels and does not say how many there are.
        device: where it computes: cpu, cuda, mps, or auto for an accelerator where there is one.
    """
    place = find_device(device)
    model = models.load_generator(to_run_path(source), num_classes=num_classes)
    if place.type != "cpu":
        with computing_on(place):
            model.network.to(place)
    return model


@torch_defaults()
def load_data(
    data: Any,
    *,
    data_dir: Path | str | None = None,
    split: str = "all",
    size: int = 0,
    resize: str = "crop",
    color: str = "auto",
    background: str = "auto",
    strict: bool = False,
) -> Images:
    """Return images of a data set by name, from a path, or from a program's own objects.

    >>> len(gs.load_data("gaussian-ring"))
    20000

    Args:
        data: a name, the path of a folder, archive or file, an array (N, H, W[, C]) or a pair of images and labels, a
            sequence of PIL images, arrays, paths or pairs (image, label), a map-style torch data set, or a Hugging Face
            `Dataset`.
        split: "all" the official training images, or one of "train", "validation" (held out of these) and "test".
        size, resize, color, background, strict: preparation, as the fields of `Config`.
    """
    how = Preparation(Config(size=parse_value("size", size)).size, resize, color, background, strict)
    if isinstance(data, str | Path):
        return data_sets.load_split(str(data), split, data_dir=data_dir, how=how)
    return data_sets.split_of(as_images(data, how), split)


@torch_defaults()
def sample(
    source: "Run | Model | Path | str",
    count: int | None = None,
    *,
    seed: int = 0,
    labels: Sequence[int | str] | str | None = None,
    numpy_seed: int | None = None,
    latents: Any = None,
    truncation: float = 1.0,
    num_classes: int | None = None,
) -> Samples:
    """Return samples of a generator.

    >>> gs.sample(run, 4, seed=7).images.shape
    (4, 28, 28, 1)

    Args:
        source: a run, a generator, or a file.
        count: how many; by default one for each label or latent given, else 25.
        seed: image k depends on this seed and k alone.
        labels: classes to draw in turn, as numbers or names, or as text such as "0-9" or "cat,dog"; by default as often
            as in training.
        numpy_seed: draw the latents of an exported file by NumPy's RandomState(numpy_seed).normal instead.
        latents: (N, latent_dim) array, or the path of a .npy file; sets the count. Latents as exported files take them,
            whose last number chooses the cluster or sub-cluster, are one longer.
        truncation: below 1, styles nearer to their mean (stylegan-lite).
        num_classes: as of `load`.

    Raises GansmithError for what cannot be drawn.
    """
    refuse_counts(1 if count is None else count, seed, numpy_seed)
    model = source if isinstance(source, Model) else load(source, num_classes=num_classes)
    if truncation != 1:
        model = replace(model, network=copy.deepcopy(model.network))
        truncate(model, truncation)
    chosen = chosen_labels(model, labels)
    if numpy_seed is not None and (seed or latents is not None):
        other = "seed" if latents is None else "latents"
        raise ConfigError(f"{other} and numpy_seed each say which latents to use; give one of them")
    exported = as_exported(model)
    if latents is not None:
        z = _as_latents(latents, *dict.fromkeys((model.config.latent_dim, exported.config.latent_dim)))
        if count not in (None, len(z)):
            raise ConfigError(f"count is {count}, and there are {len(z)} latents; omit it, or give as many latents")
        count = len(z)
        model = exported if z.shape[1] == exported.config.latent_dim else model
    count = count if count is not None else 25 if chosen is None else len(chosen)
    refuse_counts(count, seed, numpy_seed)
    if numpy_seed is not None:
        model, seed = exported, numpy_seed
        z = numpy_latents(model.config, seed=seed, count=count)
    if latents is None and numpy_seed is None:
        z, y = draw_inputs(model, seed=seed, count=count, labels=chosen)
    else:
        y = model.conditioning.draw(seed=seed, count=count, labels=chosen)
    with computing_on(device_of(model.network)):
        pixels = generate(model, z, y)
    return Samples.of(pixels, model.conditioning.label_of(y), model.class_names)


@torch_defaults()
def invert(
    source: "Run | Model | Path | str",
    pictures: Any,
    *,
    labels: Sequence[int | str] | str | None = None,
    seed: int = 0,
) -> Inversion:
    """Project pictures into latent space: find the latents and classes whose images come nearest to them.

    >>> gs.invert(run, run.sample(1, seed=5).images)
    <Inversion: 1 picture, median error ... of 255 grey levels>

    Args:
        source: a run, a generator, or a generator.safetensors; a run's D also says how real the pictures look to it.
        pictures: a path, a PIL image, an array (H, W[, C]) or (N, H, W[, C]), or a list of these. Where the generator
            draws grey figures on a plain ground, pictures of other sizes and of the opposite polarity are fitted.
        labels: search among these classes alone, as of `sample`.
        seed: of the random samples that the search begins with.

    Raises ConfigError for a generator without gradients, DataError for what is no picture.
    """
    refuse_counts(1, seed, None)
    model = source if isinstance(source, Model) else load(source)
    file = None if isinstance(source, Model) else models.find_generator(to_run_path(source))
    checkpoint = file.parent if file is not None and file.with_name("state.safetensors").is_file() else None
    chosen = chosen_labels(model, labels)
    return inversion.invert(model, pictures, labels=chosen, seed=seed, checkpoint=checkpoint)


@torch_defaults()
def directions(
    source: "Run | Model | Path | str", count: int = 10, *, seed: int = 0, label: int | str | None = None
) -> Directions:
    """Return the main directions of a generator's latent space: GANSpace's principal components.

    >>> gs.directions(run, 2).vectors.shape
    torch.Size([2, 100])

    Args:
        source: a run, a generator, or a generator.safetensors.
        count: how many, the most important first.
        seed: of the latents that are analysed.
        label: class in which they are, a number or a name; by default the one that the first sample of the seed draws.

    Raises ConfigError for a generator in another program's format, and for values out of range.
    """
    refuse_counts(1, seed, None)
    model = source if isinstance(source, Model) else load(source)
    chosen = None if label is None else chosen_labels(model, [label])
    return find_directions(model, count, seed=seed, label=None if chosen is None else chosen[0])


@torch_defaults()
def evaluate(
    target: "Run | Path | str",
    *,
    data: Any = None,
    data_dir: Path | str | None = None,
    count: int | None = None,
    quick: bool = False,
    seed: int = 0,
    fid: bool = False,
    fid_weights: Path | str | None = None,
    num_classes: int | None = None,
    resize: str = "",
    device: str = "auto",
) -> Verdict:
    """Measure samples against real images, and say whether the FD ratio is valid.

    >>> verdict = gs.evaluate(run, quick=True)
    >>> verdict["n"], verdict["valid"]
    (2000, False)

    Args:
        target: a run, a checkpoint, a generator file, a .npz of images or a folder of them.
        data: the real images; by default those the generator was trained on, MNIST for images from files.
        count: samples; by default 10,000, or 2,000 with `quick`. FD ratio and gates use the largest of 1,000, 2,000,
            5,000 and 10,000 that they fill, FID all.
        quick: fewer samples and metrics.
        seed: samples 0 to count - 1 of this seed.
        fid: measure also the FID of Inception v3 against all training images; two hours of one core for 50,000.
        fid_weights: the file of its weights, where it cannot be downloaded.
        num_classes: as of `load`.
        resize: crop, pad or stretch: how samples of another size become as large as the real images; empty: a black
            border is cut off or added where all images have one, else they are cropped to squares and resized.
        device: where networks compute: auto (an accelerator where there is one), cpu, cuda or mps.
    """
    count, seed = _counts(count, seed)
    data = _own_images(target) if data is None else _real_images(target, data)
    choices: dict[str, Any] = {"count": count, "quick": quick, "seed": seed, "fid": fid, "fid_weights": fid_weights}
    choices |= {"num_classes": num_classes, "resize": resize, "device": device}
    return evaluation.evaluate(to_run_path(target), data=data, data_dir=data_dir, **choices)


@torch_defaults()
def compare(
    *targets: "Run | Path | str",
    data: Any = None,
    data_dir: Path | str | None = None,
    count: int | None = None,
    quick: bool = False,
    seed: int = 0,
    again: bool = False,
    num_classes: int | None = None,
    resize: str = "",
) -> Comparison:
    """Evaluate several targets side by side, best first; runs that differ in their seed alone share a row.

    >>> len(gs.compare(run, quick=True))
    1

    Args:
        data, data_dir, count, quick, seed, resize: as of `evaluate`; so is num_classes, for generators.
        again: evaluate also runs whose metrics.jsonl holds a verdict already.
    """
    if not targets:
        raise ConfigError("there is nothing to compare; give two or more runs or files")
    count, seed = _counts(count, seed)
    in_memory = {to_run_path(target): _own_images(target) for target in targets} if data is None else {}
    data = data if data is None else _real_images(targets[0], data)
    return evaluation.compare(
        [to_run_path(target) for target in targets],
        again=again,
        in_memory={path: images for path, images in in_memory.items() if images is not None},
        data=data,
        data_dir=data_dir,
        count=count,
        quick=quick,
        seed=seed,
        num_classes=num_classes,
        resize=resize,
    )


def diagnose(run: "Run | Path | str") -> Diagnosis:
    """Say how a run ended or where it stands, what went wrong in it, and what to change.

    >>> gs.diagnose(run)["status"]
    'finished'
    """
    opened = open_run(run)
    facts, rows = opened.facts(), opened.log
    saved = opened.images_seen
    return Diagnosis(
        status=opened.status,
        reason=facts.get("reason"),
        images_seen=max([saved, *(row["images_seen"] for row in rows)]),
        images=opened.config.images,
        saved_images=saved,
        failures=diagnosis.summarise(rows, opened.validation_scores(), opened.config),
        rollbacks=facts.get("rollbacks", []),
        directory=str(opened.directory),
        undefined=undefined_choices(opened),
        lost_lines=opened.lost_lines(),
        but=_open_questions(opened, rows),
    )


def _open_questions(run: Run, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return what may be wrong with a run in which no failure was seen, as the rest of that sentence."""
    if max((row["images_seen"] for row in rows), default=0) < diagnosis.FIRST_STEPS * run.config.batch_size:
        return f": fewer than {diagnosis.FIRST_STEPS} steps are too few to see any"
    verdict = run.verdict
    return "" if verdict is None or verdict["valid"] is not False else f", but: {verdict.headline()}"


@torch_defaults()
def export(source: "Run | Path | str", *formats: str, out: Path | str | None = None) -> Path:
    """Write a generator for other libraries, each file read back and compared; returns the folder.

    >>> sorted(path.name for path in gs.export(run, "safetensors").iterdir())
    ['generator.safetensors', 'grid.png', 'manifest.json', 'model-card.md']

    Args:
        formats: of safetensors, onnx, keras, pt2, web; "all", or none named, for every one but web that supports the
            generator.
        out: folder; by default exports in the run, or beside the file.
    """
    with uninterrupted():
        from gansmith.exporters import export as export_generator
        from gansmith.exporters import exports_folder

    path = to_run_path(source)
    folder = to_path(out) if out is not None else exports_folder(path)
    require_writable(folder)
    with isolated():
        export_generator(path, formats or ["all"], folder)
    return folder


@torch_defaults()
def report(run: "Run | Path | str", *others: "Run | Path | str", out: Path | str | None = None) -> Path:
    """Write a report of runs: what was tried, what helped and by how much, pictures, scores, commands.

    >>> gs.report(run, out="report.html").name
    'report.html'

    Args:
        run: shown in full; `others` are compared with it.
        out: a .pdf or a self-contained .html; by default report.pdf in the first run directory.
    """
    with uninterrupted():
        from gansmith.reports import write_report

    named = [open_run(one) for one in (run, *others)]
    opened = list({one.directory.resolve(): one for one in named}.values())  # one given twice is one
    for one in opened:
        refuse_undefined(one, has_images=True)  # which are not needed
    path = _writable(opened[0].directory / "report.pdf" if out is None else out)
    write_report(opened, path)
    return path


def film(run: "Run | Path | str", *, out: Path | str | None = None, frame_ms: int = animations.FRAME_MS) -> Path:
    """Write a film of a run's training from the grids it saved.

    >>> gs.film(run).name
    'film.gif'

    Args:
        out: a .gif, .webp or .mp4; by default film.gif in the run directory.
        frame_ms: milliseconds for each grid; the last stays for two seconds.
    """
    require_whole("frame_ms", frame_ms, 20, 10_000, 200)
    opened = open_run(run)
    path = _writable(opened.directory / "film.gif" if out is None else out, animations.FORMATS)
    animations.write_film(animations.film_frames(opened), path, frame_ms=frame_ms)
    return path


def walk(
    source: "Run | Path | str",
    *,
    seeds: Sequence[int] = (0, 1, 2, 3),
    label: int | str | None = None,
    classes: Sequence[int | str] | str | None = None,
    steps: int = 12,
    out: Path | str = "walk.gif",
) -> Path:
    """Write an interpolation from one sample to the next and back to the first, as an animation or a strip.

    >>> gs.walk(run, seeds=[0, 1], steps=4, out="walk.png").name
    'walk.png'

    Args:
        seeds: samples to visit; a walk through classes stays at the first.
        label: class to stay in, a number or a name; by default the one that the first seed draws.
        classes: walk through these classes with one latent instead, as of `sample`.
        steps: images from one stop to the next.
        out: a .gif, .webp or .mp4 animation, or a .png with one row a stop.
    """
    return write_walk(source, seeds=seeds, label=label, classes=classes, steps=steps, out=out)[0]


@torch_defaults()
def write_walk(
    source: "Run | Path | str",
    *,
    seeds: Sequence[int],
    label: int | str | None,
    classes: Sequence[int | str] | str | None,
    steps: int,
    out: Path | str,
) -> tuple[Path, int]:
    """Do what `walk` does, and return also how many images were drawn."""
    if not isinstance(seeds, Iterable):
        raise ConfigError(f"seeds are {seeds!r:.60}; give two or more, such as [0, 1]")
    seeds = list(seeds)
    for seed in seeds:
        refuse_counts(1, seed, None)
    require_whole("steps", steps, 2, 1000, 12)
    if len(seeds) < (2 if classes is None else 1):
        raise ConfigError(f"seeds are {list(seeds)}; give two or more, such as 0,1, or one to walk through classes")
    path = _writable(out, (*animations.FORMATS, ".png"))
    _refuse_length(len(seeds) if classes is None else 1, steps)
    model = load(source)
    if classes is None:
        images = latent_walk(model, seeds=seeds, steps=steps, label=_one_label(model, label))
    else:
        chosen = chosen_labels(model, classes) or []
        if len(chosen) < 2 or label is not None:
            also = "" if label is None else " without label, as the walk stays in none"
            raise ConfigError(f"classes are {classes!r}; give two or more, such as 3,7{also}")
        _refuse_length(len(chosen), steps)
        y = model.conditioning.draw(seed=0, count=len(chosen), labels=chosen)
        images = class_walk(model, seed=seeds[0], y=y.tolist(), steps=steps)
    if path.suffix.lower() == ".png":
        write_bytes(path, to_png(enlarge(grid(images, columns=steps))))
    else:
        frames = [enlarge(grid(image[None]), at_least_px=224).convert("RGB") for image in images]
        animations.write_film(frames, path, frame_ms=80, hold_ms=80)
    return path, len(images)


def _refuse_length(stops: int, steps: int) -> None:
    """Raise ConfigError for a walk of too many images."""
    if stops * steps > MAX_FRAMES:
        raise ConfigError(
            f"{stops:,} stops of {steps:,} steps are {stops * steps:,} images, and a walk has up to {MAX_FRAMES:,}; "
            "take fewer"
        )


def _one_label(model: Model, label: int | str | None) -> int | None:
    """Return the label that a number or a name stands for; the text 10 is not 1 and 0 here."""
    is_number = isinstance(label, str) and label.isdecimal() and len(label) < 19
    if is_number and class_number(str(label), model.class_names) is None:
        label = int(str(label))
    found = chosen_labels(model, label)
    if found is not None and len(found) != 1:
        raise ConfigError(f"label is {label!r}, {len(found)} classes; give one, or walk through them with classes")
    return found[0] if found else None


@torch_defaults()
def plot(
    run: "Run | Path | str",
    what: PlotKind = "curves",
    *,
    seed: int = 0,
    out: Path | str | None = None,
) -> Path:
    """Draw a run's curves, its classes in several styles, or samples beside the nearest training images.

    >>> gs.plot(run).name
    'loss.png'

    Args:
        what: curves (losses and scores), classes (a row each, by name, and one style a column), or neighbours (each
            sample, then the training images closest to it).
        seed: of the latents or samples shown.
        out: a .png, for curves also .svg or .pdf; by default loss.png, classes.png or neighbours.png in the run
            directory.
    """
    refuse_counts(1, seed, None)
    opened = open_run(run)
    name = choose({"curves": "loss.png", "classes": "classes.png", "neighbours": "neighbours.png"}, what, "plot")
    kinds = (".png", ".svg", ".pdf") if what == "curves" else (".png",)
    path = _writable(opened.directory / name if out is None else out, kinds)
    if what == "curves":
        plots.plot_curves(opened, path)
    elif what == "classes":
        write_bytes(path, to_png(plots.draw_classes(opened.generator, seed=seed)))
    else:
        images, _ = sample_model(opened.generator, seed=seed, count=10)
        whole, known = shown_images(opened.config, opened.images)
        if not opened.is_trained_on(whole.sha256):
            raise DataError(f"{whole.source} holds other images than {opened.directory} was trained on; restore them")
        tiles = plots.neighbours(images, known.pixels)
        write_bytes(path, to_png(enlarge(grid(tiles, columns=len(tiles) // len(images)))))
    return path


@torch_defaults()
def handin(
    run: "Run | Path | str",
    *others: "Run | Path | str",
    out: Path | str = "submission.zip",
    allow_labels: bool | None = None,
    allow_test_images: bool = False,
    seed: int = 504,
) -> Path:
    """Write the bundle a course asks for: Keras files, code, a report, the grid, the film; returns the .zip.

    >>> gs.handin(run).name
    'submission.zip'

    What a grader will notice, such as a class missing from the grid, is logged as a warning of the logger "gansmith".

    Args:
        others: more runs, named in the report's experiments.
        allow_labels: whether a run that was trained with labels, which assignments often forbid, may be handed in. None
            writes the bundle and warns; the command line asks for --allow-labels.
        allow_test_images: hand in a run that was trained on test images.
        seed: of the latents of the grid, as the course gives it, for `np.random.seed`.

    Raises GansmithError for a run that breaks a rule which was not lifted; nothing is written then.
    """
    with uninterrupted():
        from gansmith.coursework import write_bundle
        from gansmith.coursework.bundle import use_of_labels

    path = _writable(out)
    if path.suffix.lower() != ".zip":
        raise ConfigError(f"{path} does not end in .zip; give a name that does, such as submission.zip")
    opened = [open_run(one) for one in (run, *others)]
    for one in opened:
        refuse_undefined(one, has_images=True)  # which are not needed
    own = run.images if isinstance(run, Run) else None
    in_memory = _own_images(opened[0]) if own is None else own
    with isolated():
        notes = write_bundle(
            opened,
            path,
            allow_labels=allow_labels is not False,
            allow_test_images=allow_test_images,
            images_in_memory=in_memory,
            seed=seed,
        )
    if allow_labels is None and (use := use_of_labels(opened[0])):
        notes = [
            f"{opened[0].directory} {use}; where your assignment says without, hand in a run of default-unlabelled",
            *notes,
        ]
    for note in notes:
        logger.warning("%s: %s", path, note)
    return path


@dataclass(frozen=True)
class Sweep:
    """A search over many trials, in a folder; shows its best trials in a notebook.

    >>> gs.Sweep("nowhere").trials
    Traceback (most recent call last):
    gansmith.errors.NotFoundError: nowhere holds no sweep (no sweep.json); give a folder that `gansmith sweep` wrote

    Attributes:
        directory: the folder that `sweep` wrote.
        storage: address of the database that holds its trials; None for the file in the folder.
    """

    directory: Path
    storage: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "directory", Path(self.directory))

    @property
    def settings(self) -> dict[str, Any]:
        """What is searched, and how."""
        from gansmith.sweeps.search import read_facts

        settings: dict[str, Any] = read_facts(self.directory)["settings"]
        return settings

    @property
    def trials(self) -> list[dict[str, Any]]:
        """A row for each trial, as pandas.DataFrame takes them; see `gansmith.sweeps.results.read_rows`."""
        from gansmith.sweeps import results, search

        with search.opened_study(self.directory, storage=self.storage) as study:
            return results.read_rows(study, self.directory)

    @property
    def best(self) -> Run:
        """The run of the best trial; ConfigError where none has finished."""
        from gansmith.sweeps import results

        row = results.require_best(self.trials, self.settings, self.directory)
        if row["run"] is None:
            raise NotFoundError(f"the run of trial {row['trial']} is not in this folder; open it where it was trained")
        return open_run(row["run"])

    @property
    def importances(self) -> dict[str, float]:
        """The share of each field in what made trials good, largest first; empty before two trials have finished."""
        from gansmith.sweeps import results, search

        with search.opened_study(self.directory, storage=self.storage) as study:
            return results.importances(study)

    def resume(
        self,
        trials: int | None = None,
        *,
        workers: int | None = None,
        ray: str | None = None,
        gpus: float = 0.0,
        report: Callable[[str], None] | None = print,
    ) -> "Sweep":
        """Train the trials that a sweep which was stopped lacks, or more of them; see `sweep`."""
        where = {"workers": workers, "ray": ray, "gpus": gpus}
        _run_sweep(self.directory, self.settings, where, trials=trials, storage=self.storage, report=report)
        return self

    def write_recipe(self, out: Path | str) -> Path:
        """Write the best trial's choices as a TOML file that `gansmith train --config` takes."""
        from gansmith.sweeps import results

        path, settings = _writable(out), self.settings
        results.write_recipe(
            self.directory, path, results.require_best(self.trials, settings, self.directory), settings
        )
        return path

    def report(self, out: Path | str | None = None) -> Path:
        """Write a report as .html or .pdf; by default report.html in the folder."""
        from gansmith.sweeps import results

        path = _writable(self.directory / "report.html" if out is None else out)
        results.write_sweep_report(self.directory, path, storage=self.storage)
        return path

    def __repr__(self) -> str:
        from gansmith.sweeps import results

        rows = self.trials
        best = results.best_first(rows, self.settings)
        found = f"; best validation FD ratio {best[0]['validation_fd_ratio']:.2f}" if best else ""
        return f"<Sweep {self.directory}: {results.counts(rows)}{found}>"

    def _repr_html_(self) -> str:
        from gansmith.sweeps import results

        best = results.best_first(self.trials, self.settings)[: results.BEST]
        header, rows = results.to_table(best, self.settings)
        return f"<p><b>{html.escape(repr(self)[1:-1])}</b></p>{html_table(header, rows)}"


@torch_defaults()
def sweep(
    recipe: str | None = None,
    *,
    search: Mapping[str, Any] | Sequence[str] | str,
    data: Path | str | None = None,
    trials: int | None = None,
    minutes: float | None = None,
    images: int | str | None = None,
    workers: int | None = None,
    ray: str | None = None,
    gpus: float = 0.0,
    sampler: str = "tpe",
    prune: str | None = None,
    objectives: Sequence[str] = ("fd-ratio",),
    storage: str | None = None,
    study: str | None = None,
    out: Path | str | None = None,
    file: Path | None = None,
    report: Callable[[str], None] | None = print,
    **choices: Any,
) -> Sweep:
    """Search for good choices by many trials, each an ordinary run (extra `search`); returns the sweep.

    >>> found = gs.sweep("mlp-small", search={"g_lr": (1e-4, 1e-2)}, trials=1, images=640, g_width=16, out="rates")
    trial 0: g_lr ...
    trial 0: validation FD ratio ..., the best so far
    >>> found
    <Sweep rates: 1 trial: 1 finished; best validation FD ratio ...>

    The same call continues a sweep that was stopped, or adds trials to a finished one.

    Args:
        search: fields, each with a (low, high) range, a list of choices, text such as "1e-4..1e-2:log", a dict with
            low, high, scale and step, or None for its usual range; or their names alone; or one text, as --search takes
            it.
        trials: number of them, failed and pruned ones included; 20 for a new sweep.
        minutes, images: length of each trial, one of them; 1 minute by default.
        workers, ray, gpus: trials at a time here, or on the Ray cluster at an address, each with so many GPUs.
        sampler, prune, objectives, storage, study: as the flags of `gansmith sweep`.
        out: folder; by default runs/sweep-RECIPE-DATA.
        report: is given a line for each trial that begins or ends; None for no such lines.
        choices: fields of `Config` that every trial has; those of a TOML `file` are added.
    """
    if not isinstance(data, str | Path | None):
        raise ConfigError("data is images in memory, which trials in other processes do not see; give a name or a path")
    if not isinstance(search, str | Mapping | Iterable):
        raise ConfigError(f"search is {search!r:.60}; give fields, such as {{'g_lr': (1e-4, 1e-2)}} or 'g_lr d_lr'")
    objectives = [objectives] if isinstance(objectives, str) else objectives
    if workers is not None:  # here, for the studio's server, which has no torch, loads the module of the pools
        require_whole("workers", workers, 1, 1024, 2)
    method: dict[str, Any] = {"sampler": sampler, "prune": prune, "objectives": objectives, "file": file}
    settings = _plan_sweep(recipe, search, as_arguments(data, None, choices), minutes, images, method)
    folder = to_path(out) if out is not None else RUNS / f"sweep-{settings['recipe']}-{settings['data']}"
    where = {"workers": workers, "ray": ray, "gpus": gpus}
    _run_sweep(folder, settings, where, trials=trials, storage=storage, study=study, report=report)
    return Sweep(folder, storage)


def _run_sweep(
    folder: Path,
    settings: Mapping[str, Any],
    where: Mapping[str, Any],
    *,
    report: Callable[[str], None] | None,
    **how: Any,
) -> None:
    """Train what a sweep lacks. Raises KeyboardInterrupt where it was stopped."""
    from gansmith.sweeps.search import run_sweep
    from gansmith.workers import Interrupted, open_pool

    pool = open_pool(**where, threads=int(settings["choices"].get("threads", 0)))
    try:
        run_sweep(folder, settings, pool=pool, report=report or (lambda _: None), **how)
    except Interrupted as stopped:
        if not stopped.reason:  # else a trial alone was sent the signal
            pass_on([stopped.code - 128])
        raise KeyboardInterrupt from None


def _plain(number: Any) -> Any:
    """Return a number of NumPy or torch as Python's, which files hold."""
    return number.item() if hasattr(number, "item") else number


def _plan_sweep(
    recipe: str | None,
    search: Mapping[str, Any] | Sequence[str] | str,
    arguments: Mapping[str, object],
    minutes: float | None,
    images: int | str | None,
    method: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the settings of a sweep, checked."""
    from gansmith.sweeps.search import plan_sweep
    from gansmith.sweeps.space import parse_search, to_space

    refuse_lengths(minutes=minutes, images=images, epochs=None)
    length: dict[str, Any] | None = None if minutes is None else {"minutes": _plain(minutes)}
    length = {"images": parse_value("images", images)} if images is not None else length
    if isinstance(search, str):
        space = parse_search([search])
    else:
        space = to_space(search if isinstance(search, Mapping) else dict.fromkeys(search))
    return plan_sweep(recipe, space, length=length, choices=arguments, **method)


def course(folder: Path | str, *, settings: Path | str | None = None, **choices: Any) -> Path:
    """Write a class kit: an assignment sheet, a starter notebook, data, the grader's settings; returns the folder.

    >>> sorted(path.name for path in gs.course("class", seed=7).iterdir())
    ['README.md', 'for-students', 'grade.toml', 'submissions']

    Args:
        folder: a new or an empty one.
        settings: a grade.toml to begin with.
        choices: fields of `gansmith.grading.settings.Settings`, such as data="fashion-mnist" or seed=7.
    """
    from gansmith.coursework.kit import write_kit
    from gansmith.grading.settings import read_settings

    folder = to_path(folder)
    write_kit(folder, read_settings(None if settings is None else Path(settings), **choices))
    return folder


def grade(
    handins: Path | str,
    *,
    settings: Path | str | None = None,
    out: Path | str | None = None,
    sandbox: str = "auto",
    jobs: int = 0,
    show: Callable[[str], None] = write_line,
    **choices: Any,
) -> "Grades":
    """Run and measure every hand-in in a folder, and write a table and a page for each student.

    >>> gs.grade("nowhere")
    Traceback (most recent call last):
    gansmith.errors.NotFoundError: there are no hand-ins in 'nowhere'; give a folder with one folder or .zip for each

    Code of hand-ins runs in processes with limited time, memory, files and, where the system allows, no network; see
    docs/teaching.md for what that protects from.

    Args:
        settings: the grade.toml of `course`.
        out: folder for the table and the pages; by default grades beside the hand-ins.
        sandbox: bubblewrap, unshare or limits; auto for the first of these that works here.
        jobs: hand-ins that run at once; 0 for one on each core, as far as memory reaches.
        show: called with a line on each hand-in that has run.
        choices: fields of `gansmith.grading.settings.Settings`, such as seed=7.
    """
    from gansmith.grading import grader, pages
    from gansmith.grading.handins import find_handins
    from gansmith.grading.sandbox import MEANING, find_sandbox
    from gansmith.grading.settings import read_settings

    folder = Path(handins)
    asked = read_settings(None if settings is None else Path(settings), **choices)
    require_whole("jobs", jobs, 0, 256, 0)
    find_handins(folder)
    target = folder.absolute().parent / "grades" if out is None else to_path(out)
    if target.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(
            f"{target} lies among the hand-ins, where it would be graded itself; name a folder beside them"
        )
    pages.refuse_occupied(target)
    require_writable(target)
    found = find_sandbox(sandbox)
    show(f"each hand-in runs in the sandbox {found}: {MEANING[found]}")
    with isolated():
        rows, ran = grader.grade_handins(
            folder, asked, sandbox=found, jobs=jobs or grader.room_for_jobs(asked), show=show
        )
    return pages.write_pages(rows, ran, asked, target, found)


@torch_defaults()
def run_training(plan: Plan, *, progress: str = "auto", command: Sequence[str] = ()) -> tuple[Run, list[int]]:
    """Train a planned run to its end, or until it is interrupted; returns the run and the signals that stopped it."""
    caught: list[int] = []
    with catching_signals(caught), show_progress(progress if processes.is_first() else "none") as show:
        with closing(plan_events(plan, stopped=caught, command=command)) as events:  # type: ignore[type-var]
            for event in events:
                try:
                    show(event)
                except OSError:  # of the output: files are written by the loop
                    lose_output()
    opened = runs.open_run(plan.run.directory)
    run = Run(opened.directory, opened.config, plan.images)
    caught = caught_anywhere(caught)
    # Where it was interrupted, the pictures of an earlier end are replaced all the same.
    if processes.is_first() and run.latest() and (not caught or (run.directory / "grid.png").exists()):
        with catching_signals(caught):
            images, _ = sample_model(run.generator, seed=0, count=25)
            write_bytes(run.directory / "grid.png", to_png(enlarge(grid(images))))
            plots.plot_curves(run)
    return run, caught


def _own_images(target: "Run | Path | str") -> Images | None:
    """Return the images in memory that a run was trained on; None where its data set has a name, or it is no run.

    Raises ConfigError for a run on images in memory that was opened without them.
    """
    images = target.images if isinstance(target, Run) else None
    if images is not None:
        return None if _are_of_named_set(images, open_run(target).config) else images
    opened = _run_behind(target)
    if opened is not None and "data" in missing_choices(opened, has_images=False):
        refuse_undefined(opened)
    return None


def _run_behind(target: "Run | Path | str") -> RunDirectory | None:
    """Return the run that a target is, or is a checkpoint of; None for anything else."""
    path = to_run_path(target)
    if isinstance(target, Run) or runs.holds_run(path):
        return open_run(target)
    return runs.run_of(path / "generator.safetensors" if path.is_dir() else path)


def _are_of_named_set(images: Images, config: Config) -> bool:
    """Return whether images are among those that a run's config finds by the name of its data set.

    Its test images count then. Sixteen of them are looked for.
    """
    if images.name not in data_sets.DATASETS:
        return False
    try:
        found = data_sets.load_data(images.name, data_dir=config.data_dir or None, how=preparation(config))
    except GansmithError:
        return False
    if found.spec.size != images.spec.size or found.spec.channels != images.spec.channels:
        return False
    return all((found.pixels == image).flatten(1).all(1).any() for image in images.pixels[:16])


def _real_images(target: "Run | Path | str", data: Any) -> str | Images:
    """Return a name or path as it is, and a program's own images as a run's config says where the target is a run."""
    if isinstance(data, str | Path):
        return data_sets.as_path(str(data))
    run, path = _run_behind(target), to_run_path(target)
    if run is not None:
        return as_images(data, preparation(run.config))
    is_file = models.is_generator(path)
    return as_images(data, preparation(models.load_generator(path).config) if is_file else Preparation())


def _writable(out: Path | str, kinds: Collection[str] = ()) -> Path:
    """Return the path of a file to write; GansmithError where its folder does not exist, or it is of another kind."""
    path = to_path(out)
    if kinds:
        require_kind(path, kinds)
    else:
        require_parent(path)
    require_writable(path.parent)
    return path


def _newest_grid(run: Run) -> bytes | None:
    """Return 25 samples as a PNG, or the newest grid that training drew where there is no generator to load."""
    try:
        images, _ = sample_model(run.generator, seed=0, count=25)
    except GansmithError:
        grids = run.grids()
        return grids[-1][1].read_bytes() if grids else None
    return to_png(enlarge(grid(images), at_least_px=280))


def _counts(count: int | None, seed: int) -> tuple[int | None, int]:
    """Return a number of samples, or None, and a seed, as Python's numbers; ConfigError for ones out of range."""
    refuse_counts(1 if count is None else count, seed, None)
    return None if count is None else int(count), int(seed)


def _as_latents(latents: Any, *widths: int) -> Any:
    """Return (N, one of `widths`) float32 latents from an array or the path of a .npy file."""
    import numpy as np
    import torch

    if isinstance(latents, str | Path):
        if not Path(latents).is_file():
            raise NotFoundError(f"there is no file {str(latents)!r} of latents; give a .npy file or an array")
        return read_latents(Path(latents), *widths)
    if isinstance(latents, torch.Tensor):
        latents = latents.detach().cpu()
        latents = latents.float() if latents.is_floating_point() else latents  # NumPy has no bfloat16
    try:
        found = flatten_maps(np.asarray(latents))
        if np.iscomplexobj(found):
            raise TypeError("they are complex")
        z = torch.as_tensor(found.astype(np.float32))
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"latents are no array of numbers ({error}); give one of shape (count, {widths[0]})"
        ) from None
    if z.dim() != 2 or z.shape[1] not in widths or not len(z):
        wanted = " or ".join(f"(count, {width})" for width in widths)
        raise ConfigError(f"latents have shape {tuple(z.shape)}; give finite numbers of shape {wanted}")
    if not z.isfinite().all():
        raise ConfigError("latents hold numbers that are not finite; give finite ones")
    return z


def _ratio_of(run: Run) -> str:
    """Return the newest FD ratio in words; empty without one."""
    verdict, scores = run.verdict, run.validation_scores()
    is_newest = verdict is not None and not (scores and scores[-1]["images_seen"] > verdict["images_seen"])
    if verdict is not None and verdict["fd_ratio"] is not None and is_newest:
        return f"FD ratio {verdict['fd_ratio']:.2f}" + ("" if verdict["valid"] else ", gates failed")
    if not scores:
        return ""
    of = f" of {scores[-1]['n']:,} images" if caution_about(scores[-1]["n"]) else ""
    return f"validation FD ratio {scores[-1]['validation_fd_ratio']:.2f}{of}"


def _picture(png: bytes) -> str:
    return f'<img src="data:image/png;base64,{b64encode(png).decode()}" style="max-width: 48%; vertical-align: top">'
