"""What happens during training, one small dataclass each; `to_json` gives the object that `--progress json` prints."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True)
class Event:
    """Something that happened after so many training images."""

    kind: ClassVar[str] = ""
    images_seen: int

    def to_json(self) -> dict[str, Any]:
        """Return the event as one JSON object with its kind."""
        own = dict(vars(self))
        values = own.pop("values", {})
        return {"kind": self.kind, **own, **values}


@dataclass(frozen=True)
class Started(Event):
    """Training begins or continues.

    Attributes:
        directory: of the run.
        images: length in images.
        data, source: the data set, and where it was found.
        train_images: how many images are trained on.
        notices: a sentence for each thing a user should know, such as a choice that the data changed.
    """

    kind: ClassVar[str] = "start"
    directory: str = ""
    images: int = 0
    data: str = ""
    source: str = ""
    train_images: int = 0
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Logged(Event):
    """A row of log.jsonl: d_loss, g_loss, d_real, d_fake, images_per_s and health signals."""

    kind: ClassVar[str] = "log"
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scored(Event):
    """A validation FD ratio, a row of metrics.jsonl.

    Attributes:
        validation_fd_ratio: `fd` over `fd_real`; 1.00 is as close as other real images.
        fd: Frechet distance of n samples to validation images: n, or up to 10,000 for evaluators trained on the data.
        fd_real: the same of n training images.
    """

    kind: ClassVar[str] = "score"
    validation_fd_ratio: float = float("nan")
    fd: float = float("nan")
    fd_real: float = float("nan")
    n: int = 0
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sampled(Event):
    """A sample grid was written; each of its tiles is `tile_px` pixels wide."""

    kind: ClassVar[str] = "sample"
    path: str = ""
    tile_px: int = 0


@dataclass(frozen=True)
class Saved(Event):
    """A checkpoint was written."""

    kind: ClassVar[str] = "checkpoint"
    path: str = ""


@dataclass(frozen=True)
class LengthChanged(Event):
    """The length was corrected to what fits into the minutes asked for."""

    kind: ClassVar[str] = "length"
    images: int = 0


@dataclass(frozen=True)
class FailureDetected(Event):
    """A training failure, such as mode collapse, with its figure, likely cause and remedy."""

    kind: ClassVar[str] = "failure"
    failure: str = ""
    message: str = ""


@dataclass(frozen=True)
class RolledBack(Event):
    """The run went back to an earlier checkpoint, with lower learning rates from there on."""

    kind: ClassVar[str] = "rollback"
    back_to: int = 0
    failure: str = ""
    message: str = ""
