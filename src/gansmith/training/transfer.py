"""Transfer: a new run whose networks start with the weights of another run, or of a generator file.

G starts with the averaged weights that the source draws images with, D with its own where the source is a checkpoint of
a run. Every parameter and buffer of the same name and shape is taken; embeddings of class ids are taken
class by class, by name. The others, and the optimisers, start new.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor, nn

from gansmith.checkpoints import load_counters
from gansmith.config import FIELDS, Config, resolve
from gansmith.data.images import ImageSpec
from gansmith.errors import ConfigError, DataError, GansmithError, RunError, reason_of
from gansmith.files import file_sha256, tensor_sha256
from gansmith.models import find_generator, load_generator
from gansmith.networks import build_networks
from gansmith.recipes import RECIPES
from gansmith.runs import run_of
from gansmith.sampling import Model
from gansmith.training.calibration import UNCALIBRATED, output_layer
from gansmith.training.inputs import TrainingData

ORIGIN = "start-from"  # of choices that follow the source
MIN_SHARE = 0.5  # of G's numbers, embeddings of class ids left out, that must fit

Pair = tuple[int, int]  # rows of a new and of an old tensor

_COLORS = {1: "grey", 3: "rgb"}


@dataclass(frozen=True)
class Source:
    """Where a run's first weights come from.

    Attributes:
        name: as it was given.
        files: the SHA-256 of each file by its path, the generator.safetensors first.
        model: the generator, its output not calibrated where the checkpoint says what it was before.
        discriminator: D's tensors; None for a generator alone.
        ids_sha256: hash of the class ids of the images it was trained on; None where that is not known.
    """

    name: str
    files: dict[str, str]
    model: Model
    discriminator: dict[str, Tensor] | None
    ids_sha256: str | None


def find_source(start_from: str) -> Source:
    """Return the newest checkpoint of a run, a checkpoint, or a generator file, to start from.

    Raises NotFoundError where there is none, DataError for damage and for a file that Gansmith did not write.
    """
    path = find_generator(Path(start_from).expanduser()).resolve()
    if path.suffix.lower() != ".safetensors":
        raise DataError(f"training cannot start from {start_from}; give a run or a generator.safetensors of Gansmith's")
    model, state = load_generator(path), path.with_name("state.safetensors")
    files = {str(file): file_sha256(file) for file in (path, state) if file.is_file()}
    if len(files) == 1 or not path.with_name("state.json").is_file():
        return Source(start_from, files, model, None, None)
    uncalibrated, D = _read_state(state)
    try:
        ids_sha256 = load_counters(path.parent).get("ids_sha256")
        if uncalibrated:
            output_layer(model.network, model.spec.channels).load_state_dict(uncalibrated)
    except (RuntimeError, ValueError) as error:
        raise DataError(f"{path.parent} is damaged ({reason_of(error)}); start from another checkpoint") from None
    return Source(start_from, files, model, D, ids_sha256)


def _read_state(file: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the uncalibrated output layer's and D's tensors in a checkpoint's state; DataError for damage."""
    found: tuple[dict[str, Tensor], dict[str, Tensor]] = ({}, {})
    try:
        with safetensors.safe_open(file, framework="pt") as stored:
            for name in stored.keys():
                for prefix, tensors in zip((UNCALIBRATED, "D."), found, strict=True):
                    if name.startswith(prefix):
                        tensors[name.removeprefix(prefix)] = stored.get_tensor(name)
    except safetensors.SafetensorError as error:
        raise DataError(f"{file} is damaged ({error}); start from another checkpoint") from None
    for values in (*found[0].values(), *found[1].values()):
        if values.is_floating_point() and not values.isfinite().all():
            raise DataError(f"{file} holds non-finite numbers; start from another checkpoint")
    return found


def resolve_with_source(
    recipe: str | None, *, begun: Config | None = None, **sources: Any
) -> tuple[Config, tuple[str, ...]]:
    """Return the choices of `config.resolve`, and those that follow the source of the weights, with a sentence on them.

    What shapes the networks and the images follows the source where the user gave no value; where no recipe was named
    either, so do the recipe and the conditioning.

    Args:
        begun: the config of the run that is continued; what followed the source stands, which may be gone.
        sources: file, environ and arguments, as of `config.resolve`.
    """
    config = resolve(recipe, **sources)
    if not config.start_from:
        return config, ()
    is_named = recipe is not None or "recipe" in config.origins
    if begun is not None:
        wanted = {name: getattr(begun, name) for name, origin in begun.origins.items() if origin == ORIGIN}
        followed = begun.recipe
    else:
        model = find_source(config.start_from).model
        wanted, followed = shaping_choices(model, with_conditioning=not is_named), model.config.recipe
    if not is_named and followed in RECIPES:
        config = resolve(followed, **sources)
    free = {name: value for name, value in wanted.items() if config.origins.get(name, "recipe") == "recipe"}
    listing = [f"{name} {value}" for name, value in free.items() if getattr(config, name) != value]
    config = config.replace(**free, origins={**config.origins, **dict.fromkeys(free, ORIGIN)})
    listing.insert(0, f"recipe {config.recipe}")
    return config, (f"as of {config.start_from}: {', '.join(listing)}",)


def shaping_choices(model: Model, *, with_conditioning: bool) -> dict[str, Any]:
    """Return the fields that shape a model's networks and images, with its values.

    A model with labels asks for labels where the new data has them.
    """
    groups = ("Networks", "Conditioning") if with_conditioning else ("Networks",)
    choices = {name: getattr(model.config, name) for name, field in FIELDS.items() if field.metadata["group"] in groups}
    if choices.get("conditioning") == "labels":
        choices["conditioning"] = "auto"
    color = {"color": _COLORS[model.spec.channels]} if model.spec.channels in _COLORS else {}
    return choices | {"size": model.spec.size} | color


def take_weights(
    G: nn.Module, D: nn.Module, config: Config, data: TrainingData, *, facts: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Give G and D the weights of the config's source, and return what run.json says of it.

    Args:
        facts: what run.json says of an earlier start of the run, before its first checkpoint.

    Raises ConfigError where less than half of G fits, RunError where the source has changed since the earlier start.
    """
    source = find_source(facts["file"] if facts else config.start_from)
    if facts and facts["files"] != source.files:
        raise RunError(
            f"{source.name}, whose weights the run starts with, has changed since it began, and no checkpoint was "
            "saved; restore it, or train a new run with another --out"
        )
    others = build_networks(_with_another_id(config), replace(data.spec, num_classes=data.spec.num_classes + 1))
    ids = matching_ids(source, config, data)
    each, old_each = config.ids_per_class, source.model.config.ids_per_class
    of_labels = sorted({(new // each, old // old_each) for new, old in ids})
    sizes = len(data.conditioning.frequencies), len(source.model.conditioning.frequencies)
    by_row = {sizes: ids, (data.spec.num_classes, source.model.spec.num_classes): of_labels}
    on_ids = _on_class_ids(G, others[0])
    found = _fitting(source.model.network.state_dict(), G.state_dict(), on_ids, by_row)
    if (share := _share(found, G, on_ids)) < MIN_SHARE:
        raise ConfigError(_refusal(source, config, data.spec, share))
    taken = [_load("G", G, found, on_ids, config.start_from)]
    if source.discriminator is None:
        taken.append(f"D starts new: {config.start_from} holds a generator alone")
    else:
        on_ids = _on_class_ids(D, others[1])
        found = _fitting(source.discriminator, D.state_dict(), on_ids, by_row)
        taken.append(_load("D", D, found, on_ids, config.start_from))
    return {
        "file": next(iter(source.files)),
        "files": source.files,
        "taken": taken,
        "used_labels": _used_labels(source),
    }


def _used_labels(source: Source) -> bool | None:
    """Return whether a source, or what it began with itself, was trained with labels or on classes chosen by them.

    None where that is not known: of a generator file outside its run, and of a run that does not record it.
    """
    if source.model.config.conditioning == "labels" or source.model.config.classes:
        return True
    try:
        run = run_of(Path(next(iter(source.files))))
    except GansmithError:  # weights can be taken from what is no longer a whole run
        run = None
    if run is None:
        return None
    if not run.config.start_from:
        return False
    found: bool | None = run.facts().get("start_from", {}).get("used_labels")
    return found


def preview_weights(config: Config, data: TrainingData) -> list[str]:
    """Return what the networks of a new run will take from the source, a sentence each; raises as `take_weights`."""
    G, D = build_networks(config, data.spec)
    sentences: list[str] = take_weights(G, D, config, data)["taken"]
    return sentences


def _with_another_id(config: Config) -> Config:
    """Return the config with one cluster fewer or more, so that what depends on class ids has another shape."""
    return config.replace(clusters=config.clusters - 1 if config.clusters > 2 else 3)


def _on_class_ids(network: nn.Module, other: nn.Module) -> set[str]:
    """Return the names of tensors with a row for each class id or label; `other` has another number of them."""
    shapes = {name: value.shape for name, value in other.state_dict().items()}
    return {name for name, value in network.state_dict().items() if value.shape != shapes.get(name)}


def matching_ids(source: Source, config: Config, data: TrainingData) -> list[Pair]:
    """Return pairs of class ids, new and the source's, that mean the same; sub-clusters of a class pair up in turn.

    Classes are the same by their name, or their number where they have none. Clusters are the same for the same images.
    """
    old = source.model
    kind, each, old_each = config.conditioning, config.ids_per_class, old.config.ids_per_class
    if kind != old.config.conditioning or kind == "none":
        return []
    if kind == "clusters":
        is_same = (source.ids_sha256, old.config.clusters) == (tensor_sha256(data.y), config.clusters)
        return [(k, k) for k in range(config.clusters)] if is_same else []
    places = {name: k for k, name in enumerate(_names(old.class_names, old.spec.num_classes))}
    names = _names(data.train.class_names, data.spec.num_classes)
    return [
        (each * k + j, old_each * places[name] + j % old_each)
        for k, name in enumerate(names)
        if name in places
        for j in range(each)
    ]


def _names(class_names: Sequence[str], count: int) -> list[str]:
    """Return a name for each label, its number where it has none."""
    return [class_names[k] if k < len(class_names) else str(k) for k in range(count)]


def _fitting(
    stored: Mapping[str, Tensor], new: Mapping[str, Tensor], on_ids: set[str], by_row: Mapping[Pair, Sequence[Pair]]
) -> dict[str, Tensor]:
    """Return what fits of the stored tensors: those of the same shape, and the rows of matching class ids or labels.

    Args:
        by_row: the pairs of matching rows of tensors with so many, new and stored.
    """
    found = {}
    for name in new.keys() & stored.keys():
        value, old = new[name].cpu(), stored[name].to(new[name].dtype)  # as stored ones are
        if name in on_ids:
            pairs = by_row.get((len(value), len(old)), ())
            if not pairs or old.shape[1:] != value.shape[1:]:
                continue
            rows, old_rows = torch.tensor(pairs).T
            found[name] = value.index_copy(0, rows, old[old_rows])
        elif old.shape == value.shape:
            found[name] = old
    return found


def _share(found: Mapping[str, Tensor], network: nn.Module, on_ids: set[str]) -> float:
    """Return the share of a network's numbers that were found, those of class ids left out."""
    counts: dict[str, int] = {name: t.numel() for name, t in network.state_dict().items() if name not in on_ids}
    return sum(count for name, count in counts.items() if name in found) / max(1, sum(counts.values()))


def _load(name: str, network: nn.Module, found: Mapping[str, Tensor], on_ids: set[str], start_from: str) -> str:
    """Give a network the tensors that were found, and return what it takes and what starts new, in a sentence."""
    state = network.state_dict()
    network.load_state_dict({**state, **found})
    others = [key for key in state if key not in found and key not in on_ids]
    embeddings = [key for key in on_ids if key not in found]
    lacking = [f"{', '.join(others)} (not there in this shape)"] if others else []
    lacking += [f"{', '.join(sorted(embeddings))} (of other class ids)"] if embeddings else []
    amount = f"{_share(found, network, on_ids):.0%} of its weights from" if others else "the weights of"
    return f"{name} starts with {amount} {start_from}{'; new: ' if lacking else ''}{', '.join(lacking)}"


def _refusal(source: Source, config: Config, spec: ImageSpec, share: float) -> str:
    """Return why the weights do not fit, with both values of what differs."""
    old = source.model
    pairs = {
        name: (getattr(config, name), getattr(old.config, name))
        for name, field in FIELDS.items()
        if field.metadata["group"] == "Networks"
    }
    pairs |= {"size": (spec.size, old.spec.size), "channels": (spec.channels, old.spec.channels)}
    differing = [f"{name} is {new} here and {there} there" for name, (new, there) in pairs.items() if new != there]
    return (
        f"only {share:.0%} of G's weights fit those of {source.name} ({'; '.join(differing) or 'its layers differ'}); "
        "omit these choices, which then follow it, or start from another run"
    )
