"""What requests may say: one model for each query or body. The API's document is made of these."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Seed = Annotated[int, Field(ge=0, lt=2**53)]  # a browser's numbers are exact up to there
Checkpoint = Annotated[int | None, Field(ge=0, lt=10**19, description="images seen; the newest where none is given")]
Truncation = Annotated[float, Field(ge=0, le=1)]
Minutes = Annotated[float | None, Field(gt=0, lt=100_000)]
Count = Annotated[int | None, Field(ge=1, lt=10**15)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Nothing(_Model):
    """No parameters."""


class GridQuery(_Model):
    version: int = Field(0, ge=0, description="not used; a new value makes a browser load the grid again")


class EventsQuery(_Model):
    after: str = Field("", max_length=256, description="id of the last message that was read")
    all: bool = Field(False, description="with what /events tells of all runs, in the same stream")


class CheckpointQuery(_Model):
    checkpoint: Checkpoint = None


class SampleQuery(CheckpointQuery):
    seed: Seed = 0
    count: int = Field(0, ge=0, le=1024, description="0: one for each label, else 25")
    labels: str | None = Field(None, max_length=512, description="0-9, 2024 or names: cat,dog")
    truncation: Truncation = 1.0


class TilesQuery(SampleQuery):
    columns: int | None = Field(None, ge=1, le=256)


class TileBody(_Model):
    """Entry `index` of a seed; `y` is an exact class id, `label` a class from which one is drawn."""

    seed: Seed
    index: int = Field(0, ge=0, lt=10_000)
    label: int | None = Field(None, ge=0, lt=65_536)
    y: int | None = Field(None, ge=0, lt=2**31)


class ExploreBody(_Model):
    tiles: list[TileBody] = Field(min_length=1, max_length=512)
    checkpoint: Checkpoint = None
    truncation: Truncation = 1.0
    columns: int | None = Field(None, ge=1, le=256)
    format: Literal["tiles", "png", "npz"] = "tiles"


class WalkBody(_Model):
    tiles: list[TileBody] = Field(min_length=2, max_length=16)
    steps: int = Field(24, ge=2, le=120)
    checkpoint: Checkpoint = None
    truncation: Truncation = 1.0
    format: Literal["tiles", "gif", "npz"] = "tiles"
    frame_ms: int = Field(60, ge=20, le=2000)


class MoveBody(_Model):
    """A tile, or latents as `invert` returns them, moved by standard deviations along the main directions."""

    tile: TileBody = TileBody(seed=0, index=0, label=None, y=None)
    latents: list[float] | None = Field(None, min_length=1, max_length=4096)
    label: int | None = Field(None, ge=0, lt=65_536)
    steps: list[Annotated[float, Field(ge=-8, le=8)]] = Field(default_factory=list, max_length=10)
    variety: float = Field(1.0, ge=0, le=1)
    checkpoint: Checkpoint = None


class InvertBody(_Model):
    picture: str = Field(min_length=1, max_length=2**18, description="a PNG, JPEG or WebP file in base 64")
    label: int | None = Field(None, ge=0, lt=65_536, description="search in this class alone")
    checkpoint: Checkpoint = None


class LearnBody(_Model):
    """Steps of a pair in the plane; one that is not known here, or not any more, starts from the beginning."""

    pair: str = Field(pattern="^[0-9a-f]{8,32}$", description="chosen by the page")
    restart: bool = False
    choices: dict[str, Any] = Field(default_factory=dict, max_length=16)
    steps: int = Field(0, ge=0, le=200)
    seed: Seed = 0
    field_of: int = Field(0, ge=0, lt=8, description="class whose field is shown, where D is conditioned")


class NeighboursBody(_Model):
    tile: TileBody
    count: int = Field(8, ge=1, le=32)
    checkpoint: Checkpoint = None
    truncation: Truncation = 1.0


class TrainBody(_Model):
    """A training; `choices` are fields of Config as /fields lists them."""

    recipe: str = Field("default", max_length=64)
    data: str = Field("mnist", max_length=64, description="name of a data set, or upload:ID")
    minutes: Minutes = None
    epochs: Annotated[float | None, Field(gt=0, lt=1_000_000)] = None
    images: Count = None
    choices: dict[str, Any] = Field(default_factory=dict, max_length=128)


class ResumeBody(_Model):
    """How a run goes on: to its planned length, to `images` in all, or for so many minutes more."""

    images: Count = None
    minutes: Minutes = None


class EvaluateBody(_Model):
    quick: bool = Field(True, description="2,000 samples and fewer metrics, instead of 10,000")


class StopBody(_Model):
    hold: bool = Field(False, description="keep the queue from starting the next training (pause)")


class HoldBody(_Model):
    hold: bool


class UploadBody(_Model):
    name: str = Field(min_length=1, max_length=256, description="of the archive, file or folder, for people")


class PartQuery(_Model):
    name: str = Field(min_length=1, max_length=1024, description="of the file; up to four folders around it are kept")


class LookQuery(_Model):
    size: int = Field(0, ge=0, le=1024)
    resize: Literal["crop", "pad", "stretch"] = "crop"
    color: Literal["auto", "grey", "rgb"] = "auto"
