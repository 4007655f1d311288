"""Every choice of a training run, as one flat frozen dataclass.

A value comes from the first of: a flag, the environment (GANSMITH_<FIELD>), a TOML file, the recipe's row, the
default here. All of them pass through `Config`, which is the only place that says what a field may be. Names that
stand for code (networks, objectives, data sets) are checked by their own tables through `choose`. What `--help` does
not need is imported where it is used.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gansmith.recipes import RECIPES

NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
NAME_RULE = "a name is 1 to 64 letters, digits, dots, dashes and underscores"
# Variables that start like a field's but say where things are.
RESERVED_VARIABLES = ("GANSMITH_DATA", "GANSMITH_CACHE", "GANSMITH_OFFLINE")
# What may change when a run goes on in its own directory.
LENGTH_AND_INTERVALS = (
    "images",
    "schedule_images",
    "first_images",
    "log_every",
    "sample_every",
    "evaluate_every",
    "stop_early",
    "save_every",
    "keep_last",
    "keep_every",
    "on_trouble",
    "trackers",
)
# What may change when a run goes on; its data are known by their hash.
MAY_CHANGE = ("data_dir", *LENGTH_AND_INTERVALS)
# Name, place and cadence of a run: runs that differ only in these repeat one experiment.
CIRCUMSTANCES = ("recipe", "seed", "threads", *MAY_CHANGE)
# What every run chooses in some way; whatever else differs from its default is a technique in use.
CHOICES = (
    "recipe", "dataset", "data_dir", "classes", "limit_images", "use_all_training_images", "batch", "seed", "network",
    "g_width", "d_width", "z_dim", "conditioning", "clusters", "objective", "update", "g_optimizer", "d_optimizer",
    "g_learning_rate", "d_learning_rate", "beta1", "beta2", "precision", "threads",
    *LENGTH_AND_INTERVALS,
)  # fmt: skip


def _field(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    return dataclasses.field(default=default, metadata={"help": help, "low": low, "high": high, "choices": choices})


@dataclass(frozen=True, kw_only=True)
class Config:
    """One run's choices; raises ValueError for any value that is out of range or of the wrong type.

    Progress is counted in real images shown to the discriminator. Fractions are of the schedule's length, so a
    recipe keeps its shape when its budget changes. Defaults leave every technique out: a recipe's row says what it
    uses, and a file written before a technique existed still means what it meant.
    """

    recipe: str = _field("default", "name of the row these choices started from")
    # data
    dataset: str = _field("mnist", "data set to learn; `gansmith list datasets`")
    data_dir: str = _field("", "folder that holds the IDX files; if given, only it is used")
    classes: str = _field("", "labels to train on, such as 3 or 0-4; scores still compare with all (empty: every one)")
    limit_images: int = _field(0, "train on so many images only, spread over the stored order (0: all)", low=0)
    use_all_training_images: bool = _field(False, "train on the validation images too (for a hand-in)")
    # length and reproducibility
    images: int = _field(500_000, "training length in images shown to the discriminator", low=1)
    schedule_images: int = _field(0, "length that schedules refer to (0: the same as images)", low=0)
    first_images: int = _field(0, "length that the first half of the schedules refers to (0: the same)", low=0)
    batch: int = _field(64, "real images per step", low=2, high=65_536)
    seed: int = _field(0, "one number fixes every random choice", low=0, high=2**63 - 1)
    # networks
    network: str = _field("compact", "pair of networks; `gansmith list networks`")
    g_width: int = _field(32, "channels or units of the generator's wide layers", low=1, high=4096)
    d_width: int = _field(64, "the same of the discriminator", low=1, high=4096)
    z_dim: int = _field(64, "length of the latent vector", low=1, high=65_536)
    latent: str = _field(
        "normal",
        "distribution of latents: normal, uniform between -1 and 1, or spread over a sphere",
        choices=("normal", "uniform", "sphere"),
    )
    initialisation: str = _field(
        "own",
        "first weights: the network's own, or one scheme for all its layers",
        choices=("own", "normal", "glorot", "he", "orthogonal"),
    )
    g_activation: str = _field(
        "own",
        "activation between the generator's layers: the network's own, or one for all",
        choices=("own", "relu", "leaky-relu", "elu", "selu", "silu", "gelu", "tanh"),
    )
    d_activation: str = _field(
        "own",
        "the same of the discriminator",
        choices=("own", "relu", "leaky-relu", "elu", "selu", "silu", "gelu", "tanh"),
    )
    g_dropout: float = _field(
        0.0, "share of units dropped in the generator, while training and while sampling", low=0.0, high=0.95
    )
    dropout: float = _field(0.0, "share of units dropped in the discriminator", low=0.0, high=0.95)
    spectral_norm: bool = _field(False, "divide each weight of the discriminator by its largest singular value")
    style_mixing: float = _field(
        0.0, "share of generated images that train with the styles of two latents", low=0.0, high=1.0
    )
    minibatch_stddev: bool = _field(False, "show the discriminator how much the images of a batch differ")
    conditioning: str = _field(
        "none",
        "what both players are told of an image: nothing, its label, a cluster found without labels, "
        "or (auto) labels where the data has them and clusters elsewhere",
        choices=("none", "labels", "clusters", "auto"),
    )
    clusters: int = _field(
        2000, "number of clusters where they are used, of two dozen images each at least", low=2, high=65_536
    )
    clusters_per_label: int = _field(
        1,
        "groups of similar images that both players are told apart within each label, at most one for 24 images",
        low=1,
        high=4096,
    )
    g_conditioning: str = _field(
        "auto",
        "how the generator is told: the network's own way, or an embedding multiplied with the latent or put beside it",
        choices=("auto", "multiplied", "concatenated"),
    )
    d_conditioning: str = _field(
        "auto",
        "how the discriminator is told: the network's own way, an embedding multiplied with the image, put beside it "
        "or projected on the features; or not told, and asked to name the class",
        choices=("auto", "multiplied", "concatenated", "projection", "classifier"),
    )
    # objective
    objective: str = _field("non-saturating", "loss pair; `gansmith list objectives`")
    balance: float = _field(
        0.5, "boundary-equilibrium: generated images' error wanted, as a share of real images'", low=0.0, high=1.0
    )
    update: str = _field(
        "alternating",
        "the classic discriminator step before the generator step, or one pass that serves both players",
        choices=("alternating", "joint"),
    )
    real_target_low: float = _field(1.0, "smallest target for real images", low=0.0, high=1.0)
    real_target_high: float = _field(1.0, "largest target for real images", low=0.0, high=1.0)
    fake_target_low: float = _field(0.0, "smallest target for generated images", low=0.0, high=1.0)
    fake_target_high: float = _field(0.0, "largest target for generated images", low=0.0, high=1.0)
    flip_probability: float = _field(0.0, "how often real and fake targets swap places", low=0.0, high=1.0)
    g_targets: str = _field(
        "hard",
        "whether the generator steps towards 1, or towards the soft range that the discriminator gives real images",
        choices=("hard", "soft"),
    )
    feature_matching: float = _field(
        0.0, "share of the generator's loss that compares the discriminator's features", low=0.0, high=1.0
    )
    r1: float = _field(0.0, "weight of the gradient penalty on real images at the end of its schedule", low=0.0)
    r2: float = _field(0.0, "the same on generated images", low=0.0)
    gradient_penalty: float = _field(
        0.0, "weight of the penalty on slopes other than one between real and generated images", low=0.0
    )
    dragan: float = _field(0.0, "weight of the same penalty around real images", low=0.0)
    penalty_boost: float = _field(1.0, "the penalties start this many times stronger", low=1.0)
    penalty_warmup: float = _field(0.2, "fraction of the schedule over which that boost fades", low=0.0, high=1.0)
    d_loss_target: float = _field(
        0.0, "the discriminator's loss that steers that boost, instead of the schedule (0: the schedule)", low=0.0
    )
    penalty_every: int = _field(1, "steps between penalties; their weight grows to match", low=1)
    # images into the discriminator
    augment: str = _field(
        "none",
        "random changes to all images the discriminator sees: always, or as often as it knows its images too well; "
        "nudges move some a little; auto takes nudges where training images are few",
        choices=("none", "always", "adaptive", "nudges", "auto"),
    )
    d_noise: float = _field(
        0.0, "standard deviation of the noise on the discriminator's images at the start", low=0.0, high=10.0
    )
    d_noise_until: float = _field(1.0, "fraction of the schedule over which that noise fades", low=0.0, high=1.0)
    replay: float = _field(0.0, "share of the discriminator's generated images that are old ones", low=0.0, high=0.95)
    replay_images: int = _field(1_000, "how many old images are kept", low=1, high=1_000_000)
    # who steps when
    d_steps: int = _field(1, "discriminator steps, each on a fresh batch, for each turn of the generator", low=1)
    g_steps: int = _field(1, "generator steps in each of its turns", low=1, high=100)
    fresh_fakes: bool = _field(
        False, "the generator's turn begins with fresh images, not those the discriminator has just learnt from"
    )
    d_loss_bound: float = _field(0.0, "the discriminator rests while its loss is below this", low=0.0)
    g_loss_bound: float = _field(0.0, "the generator rests while its loss is below this", low=0.0)
    # optimisation
    g_optimizer: str = _field("adam", "the generator's optimiser", choices=("adam", "adamw", "rmsprop", "sgd"))
    d_optimizer: str = _field("adam", "the discriminator's optimiser", choices=("adam", "adamw", "rmsprop", "sgd"))
    g_learning_rate: float = _field(2e-4, "the generator's learning rate", low=0.0)
    d_learning_rate: float = _field(2e-4, "the discriminator's learning rate", low=0.0)
    beta1: float = _field(0.5, "Adam's memory of the gradient", low=0.0, high=0.9999)
    beta2: float = _field(0.999, "Adam's and RMSprop's memory of the squared gradient", low=0.0, high=0.999999)
    rate_boost: float = _field(1.0, "learning rates start this many times higher and fall over penalty_warmup", low=1.0)
    beta2_start: float = _field(
        0.0, "beta2 at the start, rising to beta2 over penalty_warmup (0: beta2 from the start)", low=0.0, high=0.999999
    )
    momentum: float = _field(0.0, "SGD's memory of the gradient", low=0.0, high=0.9999)
    weight_decay: float = _field(0.0, "AdamW's pull of the weights towards zero", low=0.0)
    clip_gradient: float = _field(0.0, "longest gradient a player may step along (0: any)", low=0.0)
    clip_weights: float = _field(0.0, "largest weight of the discriminator (0: any)", low=0.0)
    decay: str = _field("linear", "how learning rates fall", choices=("linear", "cosine", "step"))
    decay_from: float = _field(1.0, "fraction of the schedule after which rates fall (1: never)", low=0.0, high=1.0)
    decay_factor: float = _field(0.1, "what each fall of a step decay leaves of the rates", low=0.0, high=1.0)
    ema: float = _field(
        0.0, "half-life of the generator's weight average, as a fraction of images seen (0: none)", low=0.0, high=1.0
    )
    ema_growth: str = _field(
        "linear",
        "how that half-life grows: with the images seen, or over penalty_warmup to its share of the whole schedule",
        choices=("linear", "cosine"),
    )
    match_tones: bool = _field(
        False,
        "scale and shift what the generator's last tanh squashes until pixels have the data's mean and mean square",
    )
    # machine
    precision: str = _field(
        "auto",
        "number format of the networks' arithmetic; auto takes bfloat16 where the processor gains by it",
        choices=("auto", "float32", "bfloat16"),
    )
    threads: int = _field(0, "processor threads (0: one a core)", low=0, high=1024)
    on_trouble: str = _field(
        "warn",
        "what to do when a run goes wrong: say so, say so and stop, or go back to the best checkpoint with half the "
        "learning rates, three times at most",
        choices=("warn", "stop", "rollback"),
    )
    # intervals, in images; 0 lets the length decide
    log_every: int = _field(0, "images between log lines", low=0)
    sample_every: int = _field(0, "images between sample grids", low=0)
    evaluate_every: int = _field(0, "images between quick scores", low=0)
    stop_early: int = _field(0, "end after so many quick scores in a row without a better one (0: never)", low=0)
    save_every: int = _field(0, "images between checkpoints", low=0)
    keep_last: int = _field(0, "newest checkpoints to keep beside the best one (0: all)", low=0)
    keep_every: int = _field(0, "where keep_last is set, also keep one checkpoint each so many images", low=0)
    trackers: str = _field(
        "tensorboard", "who else is told: tensorboard, mlflow, wandb, with commas between them, or none"
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check(field, getattr(self, field.name))
        for name in ("recipe", "dataset"):  # which pictures, reports and scripts repeat
            if not NAME.fullmatch(getattr(self, name)):
                raise ValueError(f"{name} is {getattr(self, name)!r}; {NAME_RULE}, such as {FIELDS[name].default}")
        for player in ("real", "fake"):
            low, high = (getattr(self, f"{player}_target_{end}") for end in ("low", "high"))
            if low > high:
                raise ValueError(
                    f"{player}_target_low is {low} and {player}_target_high is {high}; the low end must not be above "
                    "the high one: swap them"
                )
        if self.first_images / 2 >= self.schedule_length:
            raise ValueError(
                f"first_images is {self.first_images}, half of which leaves nothing of {self.schedule_length} images "
                "for the second half of the schedules; lower it"
            )

    @property
    def schedule_length(self) -> int:
        """How many images the schedules take."""
        return self.schedule_images or self.images

    def is_recipes_own(self, name: str) -> bool:
        """Whether a field has the value that the recipe's row gives it."""
        row = RECIPES.get(self.recipe, {})
        return name in row and getattr(self, name) == row[name]

    def replace(self, **changes: Any) -> "Config":
        """The same choices but for `changes`, checked again."""
        return dataclasses.replace(self, **changes)

    @property
    def ids_per_label(self) -> int:
        """How many ids in a row belong to one label, and where no label is told, to one cluster."""
        return self.clusters_per_label if self.conditioning == "labels" else 1

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def techniques(self) -> dict[str, Any]:
        """The techniques in use, each with its value; empty for the plain algorithm."""
        return {
            name: value
            for name, value in self.as_dict().items()
            if name not in CHOICES and value != FIELDS[name].default
        }

    def to_toml(self) -> str:
        import tomli_w

        return tomli_w.dumps(self.as_dict())


FIELDS = {field.name: field for field in dataclasses.fields(Config)}


def _check(field: "dataclasses.Field[Any]", value: object) -> None:
    name, kind, rule = field.name, field.type, field.metadata
    right_type = isinstance(value, int | float) if kind is float else isinstance(value, kind)  # type: ignore[arg-type]
    if not right_type or (kind is not bool and isinstance(value, bool)):
        raise ValueError(f"{name} is {value!r}; it must be {_KINDS[kind]}, such as {_example(field)}")
    if rule["choices"] and value not in rule["choices"]:
        raise ValueError(_unknown(str(value), rule["choices"], name))
    if isinstance(value, int | float):
        low, high = rule["low"], rule["high"]
        least, most = -_HUGE if low is None else low, _HUGE if high is None else high
        if not least <= value <= most:  # nor is what is no number
            bounds = f"between {low} and {high}" if high is not None else f"{low} or more"
            if high is None and value > most:
                bounds += f", and no more than {most:g}"
            raise ValueError(f"{name} is {value}; it must be {bounds}: give one such as {_example(field)}")


_HUGE = 10**18
_KINDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
}


def _example(field: "dataclasses.Field[Any]") -> str:
    return repr(field.default) if field.default != "" else "'.'"


def parse_value(name: str, raw: object) -> Any:
    """The value of field `name` from a flag, a variable or a file; counts may be written 200k or 2M."""
    field = FIELDS[name]
    if not isinstance(raw, str) or field.type is str:
        return float(raw) if field.type is float and isinstance(raw, int) and not isinstance(raw, bool) else raw
    text = raw.strip()
    try:
        if field.type is bool:
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.lower()]
        if field.type is int:
            return parse_count(text)
        return float(text)
    except (KeyError, ValueError):
        kind = _KINDS[field.type]
        raise ValueError(f"{name} is {raw!r}; it must be {kind}, such as {_example(field)}") from None


def parse_count(text: str) -> int:
    """A whole number, also as 200k or 1.5M; raises ValueError for anything else."""
    from fractions import Fraction

    scale = {"k": 1_000, "M": 1_000_000}.get(text[-1:], 1)
    digits = text[:-1] if scale > 1 else text
    if scale > 1 and not re.fullmatch(r"[+-]?\d{1,20}(\.\d{1,20})?", digits):  # an exponent could ask for any memory
        raise ValueError(f"{text!r} is not a whole number")
    number = Fraction(digits) * scale if scale > 1 else Fraction(int(digits))
    if number.denominator != 1:
        raise ValueError(f"{text!r} is not a whole number")
    return number.numerator


def parse_labels(text: str, *, what: str = "labels") -> list[int]:
    """Labels, or other whole numbers, from 0-9 (a range), 3,11,12 (a list) or 2024 (one digit each)."""
    try:
        if "," in text:
            return [label for part in text.split(",") for label in _parse_range(part)]
        return _parse_range(text) if "-" in text else [int(digit) for digit in text]
    except ValueError:
        raise ValueError(f"{what} are {text!r}; write a range 0-9, a list 3,11,12 or digits 2024") from None


def _parse_range(text: str) -> list[int]:
    first, dash, last = text.partition("-")
    if dash and int(last) - int(first) >= 65_536:
        raise ValueError("no data set has so many labels")
    return list(range(int(first), int(last) + 1)) if dash else [int(first)]


def choose(table: Mapping[str, Any], name: str, what: str) -> Any:
    """The row called `name`; a ValueError that names the closest rows where there is none."""
    if name not in table:
        raise ValueError(_unknown(name, table, what))
    return table[name]


def is_repeat(config: Config, first: Config) -> bool:
    """Whether two runs repeat one experiment, their lengths within a quarter: runs of equal minutes differ a little."""
    neutral = {name: FIELDS[name].default for name in CIRCUMSTANCES}
    is_as_long = abs(config.images - first.images) <= first.images / 4
    return is_as_long and config.replace(**neutral) == first.replace(**neutral)


def _unknown(name: str, allowed: Iterable[str], what: str) -> str:
    import difflib

    allowed = list(allowed)
    close = difflib.get_close_matches(name, allowed, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "choose one of these"
    return f"there is no {what} {name!r}; {hint} (allowed: {', '.join(allowed)})"


def resolve(
    recipe: str | None = None,
    *,
    file: Path | str | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
) -> tuple[Config, dict[str, str]]:
    """The choices that result from all sources, and for each field the source it came from.

    Raises ValueError for an unknown field, recipe or value, FileNotFoundError for a missing file.
    """
    layers: list[tuple[str, Mapping[str, object]]] = []
    if file is not None:
        layers.append((str(file), _read_toml(Path(file))))
    layers.append(("environment", _from_environment(environ or {})))
    layers.append(("flag", flags or {}))

    name = recipe
    for source, values in reversed(layers):
        for key in values:
            if key not in FIELDS:
                raise ValueError(f"{source}: {_unknown(key, FIELDS, 'field')}")
        if name is None and "recipe" in values:
            name = str(values["recipe"])
    name = "default" if name is None else name
    layers.insert(0, (f"recipe {name}", choose(RECIPES, name, "recipe")))

    chosen: dict[str, Any] = {}
    origins = dict.fromkeys(FIELDS, "default")
    for source, values in layers:
        for key, raw in values.items():
            chosen[key] = parse_value(key, raw)
            origins[key] = source
    chosen["recipe"] = name
    return Config(**chosen), origins


_MAX_TOML_BYTES = 2**14  # dotted keys cost the square of their length


def _read_toml(path: Path) -> dict[str, object]:
    import tomllib

    if not path.is_file():
        raise FileNotFoundError(
            f"there is no file {str(path)!r}; give the path of a TOML file with field = value lines"
        )
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_TOML_BYTES + 1)
        if len(text) > _MAX_TOML_BYTES:
            raise ValueError(f"{path} is longer than {_MAX_TOML_BYTES:,} bytes; write field = value lines alone")
        return tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not valid TOML ({error}); write lines such as batch = 64") from None


def _from_environment(environ: Mapping[str, str]) -> dict[str, object]:
    prefix = "GANSMITH_"
    return {
        key.removeprefix(prefix).lower(): value
        for key, value in sorted(environ.items())
        if key.startswith(prefix) and key not in RESERVED_VARIABLES
    }


def load_config(path: Path) -> Config:
    """The choices written in a run's config.toml."""
    values = _read_toml(path)
    for key in values:
        if key not in FIELDS:
            raise ValueError(f"{path}: {_unknown(key, FIELDS, 'field')}")
    try:
        return Config(**{key: parse_value(key, raw) for key, raw in values.items()})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
