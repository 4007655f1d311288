"""What the API answers with: one model for each JSON answer. Its document is made of these; tests hold it to them.

Handlers build plain objects, which nothing here checks at run time.
"""

from typing import Any

from pydantic import BaseModel, Field


class Error(BaseModel):
    """What went wrong, as every request is refused."""

    class Sentence(BaseModel):
        kind: str
        message: str

    error: Sentence


class Document(BaseModel):
    """This document."""

    openapi: str
    info: dict[str, Any]
    paths: dict[str, Any]
    components: dict[str, Any]


class Evaluated(BaseModel):
    """An evaluation of an older checkpoint; without an FD ratio where there were too few images for one."""

    fd_ratio: float | None
    images_seen: int
    valid: bool | None


class Card(BaseModel):
    """A run in short; one that cannot be read has an id, a status, no failures and an error alone."""

    id: str
    status: str = Field(description="running, finished, stopped, failed, killed, unknown or unreadable")
    failures: list[str]
    error: str = ""
    reason: str | None = None
    recipe: str = ""
    data: str = ""
    images_seen: int = 0
    images: int = Field(0, description="training length")
    images_per_s: float | None = None
    seconds_left: float | None = None
    fd_ratio: float | None = None
    scored_by: str = Field("training", description="evaluate, or training for a validation FD ratio")
    valid: bool | None = Field(None, description="whether all gates of that evaluation passed")
    evaluated: Evaluated | None = Field(None, description="the newest evaluation, where training has scored since")
    grid: int | None = Field(None, description="images seen before the newest sample grid")
    changed_at: float = Field(0.0, description="seconds since 1970")
    starts: int = 1
    is_conditional: bool = False
    pace: str = Field("", description="network, widths and batch size: what decides images a second")


class Job(BaseModel):
    """A training or an evaluation that was asked for."""

    id: str
    run: str
    title: str
    command: str
    state: str = Field(description="queued, running, ended or removed")
    is_stopping: bool = False
    code: int | None = Field(None, description="exit code")
    message: str = Field("", description="why it ended, where it failed")


class Machine(BaseModel):
    cores: int | None
    load: float | None = Field(description="share of the cores in use")


class Jobs(BaseModel):
    jobs: list[Job]
    is_held: bool = Field(description="whether the queue starts nothing new")


class Runs(Jobs):
    runs: list[Card]
    machine: Machine


class Setting(BaseModel):
    """A field of a run's config, and where its value came from."""

    name: str
    value: Any
    origin: str
    is_changed: bool = Field(description="whether it differs from the recipe")
    help: str
    group: str


class Commands(BaseModel):
    terminal: str
    python: str


class Gate(BaseModel):
    result: str
    name: str
    figure: str


class Verdict(BaseModel):
    """The newest evaluation of a run."""

    headline: str
    origin: str
    gates: list[Gate]
    fd_ratio: float | None
    fd_ratios: dict[str, float | None] | None
    valid: bool | None
    images_seen: int | None
    n: int | None
    tier: str | None


class Run(Card):
    """Everything about a run but its logs."""

    path: str
    config: list[Setting]
    commands: Commands
    command: str = Field(description="what was typed last")
    facts: dict[str, Any]
    rollbacks: list[Any]
    notices: list[str]
    verdict: Verdict | None
    checkpoints: list[int]
    best: int | None
    grids: list[int]
    files: dict[str, int] = Field(description="size in bytes of each file that can be read")
    shares: dict[str, str] = Field(description="what it can be shared as")
    data_choice: str = Field(description="what a form takes for the same data; empty where they must be chosen again")


class Log(BaseModel):
    """Rows of log.jsonl and of metrics.jsonl; docs/run-directory.md says what is in them."""

    log: list[dict[str, Any]]
    metrics: list[dict[str, Any]]


class Label(BaseModel):
    label: int
    name: str


class Generator(BaseModel):
    size: int = Field(description="side of an image in pixels")
    channels: int
    labels: list[Label]
    latent_dim: int
    network: str
    class_ids: int
    has_truncation: bool
    data: str


class Tile(BaseModel):
    """What is known of an image: its seed, index and class, or its row and distance among training images."""

    seed: int | None = None
    index: int | None = None
    y: int | None = Field(None, description="class id")
    label: int | None = None
    name: str = Field("", description="of the label")
    row: int | None = None
    distance: float | None = Field(None, description="root mean square of pixels in [0, 1]")


class Tiles(BaseModel):
    """Images side by side in one picture, row by row."""

    png: str = Field(description="the picture, in base 64")
    size: int = Field(description="side of an image in pixels")
    count: int
    columns: int
    tiles: list[Tile]


class Moved(Tiles):
    latents: list[float]
    shares: list[float] = Field(description="of the variance along each direction")


class Inverted(Tiles):
    """The picture as it was prepared, then the image nearest to it."""

    latents: list[float]
    label: int | None
    name: str | None
    pixel_error: float = Field(description="root mean square of pixels in [0, 1]")
    sample_error: float = Field(description="the same of the nearest random sample")
    realness: list[float] | None = Field(description="D's opinion of both, in [0, 1]")
    notices: list[str]


class Lessons(BaseModel):
    lessons: list[dict[str, Any]]
    start: dict[str, Any]
    restarts: list[str]
    objectives: Any
    meanings: dict[str, str]


class Frame(BaseModel):
    """A pair in the plane: points, D's field from -100 (fake) to 100 (real), arrows, and what was measured."""

    steps: int
    points: list[list[float]]
    average: list[list[float]]
    real: list[list[float]]
    labels: list[int]
    field: list[list[int]]
    arrows: list[list[float]]
    measured: dict[str, float | None]
    choices: dict[str, Any]
    failure: str | None


class Choice(BaseModel):
    """A field of Config, for a form."""

    name: str
    kind: str = Field(description="int, float, bool or str")
    default: Any
    help: str
    group: str
    low: int | float | None
    high: int | float | None
    choices: list[str]
    technique: bool
    advice: str = Field(description="when to choose another value")
    source: str = Field(description="paper of a technique")


class Choices(BaseModel):
    fields: list[Choice]


class DataSet(BaseModel):
    name: str
    about: str


class DataSets(BaseModel):
    data_sets: list[DataSet]


class Recipe(BaseModel):
    name: str
    values: dict[str, Any]


class Recipes(BaseModel):
    recipes: list[Recipe]


class Settled(BaseModel):
    config: list[Setting]
    commands: Commands


class Held(BaseModel):
    is_held: bool


class Upload(BaseModel):
    id: str
    name: str
    pictures: list[str] = Field(description="endings that are read as pictures")
    packed: list[str] = Field(description="endings of archives and arrays")
    max_bytes: int = Field(description="of all its files")


class Received(BaseModel):
    bytes: int


class Look(BaseModel):
    """What an upload holds, as `gansmith data inspect --json` says it, and some of its images."""

    facts: dict[str, Any]
    png: str = Field(description="in base 64")
