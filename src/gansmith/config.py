"""Every choice of a training run, as one flat frozen dataclass.

A value comes from the first of: an argument (a flag, or a keyword in Python), the environment (GANSMITH_<FIELD>), a
TOML file, the recipe's row, the default here. `Config` is the only place that says what a field may be, and remembers
where each value came from. Names that stand for code (networks, objectives, data sets) are checked by their own tables
through `choose`. Nothing heavy is imported here, so `--help` answers at once.
"""

import dataclasses
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gansmith.errors import ConfigError, DamagedError, NotFoundError
from gansmith.files import encoding_of
from gansmith.recipes import RECIPES

MAX_NAME = 64
NAME = re.compile(rf"(?!-)[A-Za-z0-9._-]{{1,{MAX_NAME}}}")
NAME_RULE = f"a name is 1 to {MAX_NAME} letters (a to z), digits, dots, underscores, and dashes after the first"
# Variables that start like a field's and are none: places, and how long processes wait for each other.
RESERVED_VARIABLES = ("GANSMITH_DATA", "GANSMITH_CACHE", "GANSMITH_OFFLINE", "GANSMITH_TIMEOUT", "GANSMITH_PROGRAM")
ACTIVATIONS = ("default", "relu", "leaky-relu", "elu", "selu", "silu", "gelu", "tanh")
DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d{1,3})?")
OPTIMIZER_NAMES = ("adam", "adamw", "rmsprop", "sgd", "soap")


def _field(
    default: Any,
    help: str,
    *,
    group: str,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    search: tuple[float, float] | None = None,
    scale: str = "linear",
    may_change: bool = False,
    technique: bool = False,
    is_circumstance: bool | None = None,
) -> Any:
    """Return a field with what every list of fields is derived from.

    Args:
        group: heading in `--help` and in forms.
        low, high: range of a number, both ends allowed.
        search: usual range, which a sweep takes where none is given; by default from low to high.
        scale: linear or log, of that range.
        may_change: whether a run may go on with another value.
        technique: whether another value than the default is a technique in use, which reports name.
        is_circumstance: whether runs that differ in it alone repeat one experiment; by default, `may_change`.
    """
    metadata = {
        "help": help, "group": group, "low": low, "high": high, "choices": choices, "scale": scale,
        "search": search or (None if low is None or high is None else (low, high)),
        "may_change": may_change, "technique": technique,
        "is_circumstance": may_change if is_circumstance is None else is_circumstance,
    }  # fmt: skip
    return dataclasses.field(default=default, metadata=metadata)


_data = partial(_field, group="Data")
_length = partial(_field, group="Length and seed")
_network = partial(_field, group="Networks")
_condition = partial(_field, group="Conditioning")
_loss = partial(_field, group="Objective")
_penalty = partial(_field, group="Gradient penalties", technique=True)
_images = partial(_field, group="Images shown to the discriminator", technique=True)
_turns = partial(_field, group="Steps of G and D", technique=True)
_optimiser = partial(_field, group="Optimisers and schedules")
_machine = partial(_field, group="Machine")
_output = partial(_field, group="Logs, samples, checkpoints", may_change=True)


@dataclass(frozen=True, kw_only=True)
class Config:
    """One run's choices; raises ConfigError for any value that is out of range or of the wrong type.

    >>> gs.Config(batch_size=32).batch_size
    32
    >>> run.config.techniques()
    {}

    Training length is counted in real images shown to the discriminator. Fractions are of the schedule's length, so a
    recipe keeps its shape when its budget changes. Defaults leave every technique out: a recipe's row says what it
    uses.

    Attributes:
        origins: where each value came from: "argument", "environment", a file's name, "recipe" or "start-from"; a field
            that is absent has its default. Not part of what is compared.
    """

    recipe: str = _field("default", "name of the row these choices started from", group="Data", is_circumstance=True)
    data: str = _data(
        "mnist", "data set to train on: a name (`gansmith list datasets`), or the path of pictures or arrays"
    )
    data_dir: str = _data("", "folder or file that holds the data set; if given, only it is used", may_change=True)
    size: int = _data(0, "side of the images in pixels (0: the pictures' own where they agree)", low=0, high=1024)
    resize: str = _data("crop", "how other pictures become square", choices=("crop", "pad", "stretch"))
    color: str = _data("auto", "grey or RGB images; auto: grey where all pictures are", choices=("auto", "grey", "rgb"))
    background: str = _data(
        "auto", "color under transparency and around padded pictures", choices=("auto", "white", "black")
    )
    strict: bool = _data(False, "refuse pictures that cannot be read, instead of leaving out up to one in ten")
    classes: str = _data("", "labels to train on, such as 3 or 0-4; evaluation still compares with all (empty: all)")
    limit_images: int = _data(0, "train on this many images only, taken evenly from the whole set (0: all)", low=0)
    mirror: bool = _data(False, "train on the mirror image of each training image too")
    use_all_training_images: bool = _data(False, "train on the validation images too (for a hand-in)")
    start_from: str = _data(
        "", "run, checkpoint or generator.safetensors whose weights G and D start with (empty: random ones)"
    )

    images: int = _length(500_000, "training length in images shown to the discriminator", low=1, may_change=True)
    schedule_images: int = _length(
        0, "length that schedules refer to (0: the same as images)", low=0, may_change=True, is_circumstance=False
    )
    planned_images: int = _length(
        0, "length expected at the start, where --minutes corrected it half-way (0: the same)", low=0, may_change=True
    )
    batch_size: int = _length(64, "real images per step", low=2, high=65_536, search=(16, 256), scale="log")
    seed: int = _length(0, "fixes every random choice", low=0, high=2**63 - 1, is_circumstance=True)

    network: str = _network("compact", "pair of generator and discriminator; `gansmith list networks`")
    g_width: int = _network(
        32, "channels or units of the generator's widest layers", low=1, high=4096, search=(16, 256), scale="log"
    )
    d_width: int = _network(
        64, "channels or units of the discriminator's widest layers", low=1, high=4096, search=(16, 256), scale="log"
    )
    latent_dim: int = _network(64, "length of the latent vector z", low=1, high=65_536, search=(16, 256), scale="log")
    latent_distribution: str = _network(
        "normal",
        "distribution of z: standard normal, uniform in [-1, 1], or uniform on a sphere",
        choices=("normal", "uniform", "sphere"),
        technique=True,
    )
    weight_init: str = _network(
        "default",
        "weight initialisation: the network's own, or one scheme for all layers",
        choices=("default", "normal", "glorot", "he", "orthogonal"),
        technique=True,
    )
    g_activation: str = _network(
        "default",
        "activation between the generator's layers: the network's own, or one for all",
        choices=ACTIVATIONS,
        technique=True,
    )
    d_activation: str = _network(
        "default",
        "activation between the discriminator's layers: the network's own, or one for all",
        choices=ACTIVATIONS,
        technique=True,
    )
    g_dropout: float = _network(
        0.0, "dropout probability in the generator, in training and in sampling", low=0.0, high=0.95, technique=True
    )
    d_dropout: float = _network(0.0, "dropout probability in the discriminator", low=0.0, high=0.95, technique=True)
    spectral_norm: bool = _network(False, "spectral normalisation of the discriminator's weights", technique=True)
    style_mixing: float = _network(
        0.0, "probability of style mixing (two latents for one image)", low=0.0, high=1.0, technique=True
    )
    minibatch_stddev: int = _network(
        0,
        "group size of the discriminator's minibatch standard deviation (0: none); the nearest divisor of the batch",
        low=0,
        high=65_536,
        technique=True,
        search=(0, 64),
    )

    conditioning: str = _condition(
        "none",
        "what G and D are conditioned on: nothing, class labels, k-means clusters as pseudo-labels, or (auto) labels "
        "where the data has them and clusters elsewhere",
        choices=("none", "labels", "clusters", "auto"),
    )
    clusters: int = _condition(
        2000,
        "number of k-means clusters, at most one for each 24 images",
        low=2,
        high=65_536,
        search=(10, 2000),
        scale="log",
    )
    clusters_per_class: int = _condition(
        1,
        "sub-clusters of each class that G and D are conditioned on, at most one for each 24 images",
        low=1,
        high=4096,
        technique=True,
        search=(1, 200),
        scale="log",
    )
    g_conditioning: str = _condition(
        "auto",
        "how y enters the generator: the network's own way, or an embedding multiplied or concatenated with z",
        choices=("auto", "multiplied", "concatenated"),
        technique=True,
    )
    d_conditioning: str = _condition(
        "auto",
        "how y enters the discriminator: the network's own way, an embedding multiplied or concatenated with the "
        "image, a projection discriminator, or an auxiliary classifier",
        choices=("auto", "multiplied", "concatenated", "projection", "classifier"),
        technique=True,
    )

    objective: str = _loss("non-saturating", "pair of losses; `gansmith list objectives`")
    began_gamma: float = _loss(
        0.5,
        "boundary-equilibrium objective: reconstruction error of generated over real images",
        low=0.0,
        high=1.0,
        technique=True,
    )
    label_smoothing: float = _loss(
        0.0, "one-sided label smoothing: real images' target is 1 minus this", low=0.0, high=1.0, technique=True
    )
    fake_label_smoothing: float = _loss(
        0.0,
        "target of generated images; with label_smoothing, two-sided smoothing",
        low=0.0,
        high=1.0,
        technique=True,
    )
    random_labels: bool = _loss(False, "draw each target between its hard and its smoothed value", technique=True)
    label_flipping: float = _loss(
        0.0, "probability that a step swaps real and generated images' targets", low=0.0, high=1.0, technique=True
    )
    g_targets: str = _loss(
        "hard",
        "target of the generator's loss: 1, or the smoothed target of real images",
        choices=("hard", "smoothed"),
        technique=True,
    )
    feature_matching: float = _loss(
        0.0, "share of the generator's loss that is feature matching", low=0.0, high=1.0, technique=True
    )

    d_class_loss: float = _loss(
        0.0,
        "class loss in the discriminator's loss: weight of classifying real images by their labels",
        low=0.0,
        high=100.0,
        search=(0.05, 5.0),
        scale="log",
        technique=True,
    )
    g_class_loss: float = _loss(
        0.0,
        "class loss in the generator's loss: weight of the discriminator classifying generated images by their labels",
        low=0.0,
        high=100.0,
        search=(0.01, 1.0),
        scale="log",
        technique=True,
    )

    d_rotation_loss: float = _loss(
        0.0,
        "rotation loss in the discriminator's loss: weight of predicting how real images were rotated",
        low=0.0,
        high=100.0,
        search=(0.1, 10.0),
        scale="log",
        technique=True,
    )
    g_rotation_loss: float = _loss(
        0.0,
        "rotation loss in the generator's loss: weight of D predicting how generated images were rotated",
        low=0.0,
        high=100.0,
        search=(0.02, 2.0),
        scale="log",
        technique=True,
    )

    r1_gamma: float = _penalty(
        0.0, "gamma of R1, the gradient penalty on real images", low=0.0, search=(0.01, 100.0), scale="log"
    )
    r2_gamma: float = _penalty(
        0.0, "gamma of R2, the gradient penalty on generated images", low=0.0, search=(0.01, 100.0), scale="log"
    )
    gradient_penalty: float = _penalty(
        0.0,
        "lambda of WGAN-GP's gradient penalty between real and generated",
        low=0.0,
        search=(0.1, 100.0),
        scale="log",
    )
    dragan: float = _penalty(
        0.0, "lambda of DRAGAN's gradient penalty around real images", low=0.0, search=(0.1, 100.0), scale="log"
    )
    penalty_start_factor: float = _penalty(
        1.0,
        "factor on all penalties at the start, from which d_loss_target adapts it",
        low=1.0,
        search=(1.0, 100.0),
        scale="log",
    )
    burn_in: float = _penalty(
        0.2, "fraction of the schedule over which start factors fade by half a cosine", low=0.0, high=1.0
    )
    d_loss_target: float = _penalty(
        0.0,
        "adapt the penalties' factor to keep the discriminator's loss here (0: follow burn_in)",
        low=0.0,
        search=(0.1, 1.3),
    )
    penalty_every: int = _penalty(
        1,
        "lazy regularisation: steps between penalties, whose weight grows to match",
        low=1,
        search=(1, 16),
        scale="log",
    )

    augment: str = _images(
        "none",
        "augmentation of real and generated images: DiffAugment, DiffAugment in ADA's feedback (adaptive), small "
        "random shifts, flips (shifts and mirror images), or (auto) where training images are few, flips if they look "
        "the same in a mirror, else shifts",
        choices=("none", "diffaugment", "adaptive", "shifts", "flips", "auto"),
    )
    instance_noise: float = _images(
        0.0, "standard deviation of Gaussian noise on D's inputs at the start", low=0.0, high=10.0, search=(0.0, 1.0)
    )
    instance_noise_until: float = _images(
        1.0, "fraction of the schedule over which the instance noise fades to zero", low=0.0, high=1.0
    )
    replay: float = _images(
        0.0, "share of D's generated images drawn from a replay buffer of old ones", low=0.0, high=0.95
    )
    replay_size: int = _images(
        1_000, "images in the replay buffer", low=1, high=1_000_000, search=(100, 10_000), scale="log"
    )

    d_steps: int = _turns(
        1, "discriminator steps, each on a new batch, per turn of the generator (n_critic)", low=1, search=(1, 5)
    )
    g_steps: int = _turns(1, "generator steps per turn", low=1, high=100, search=(1, 5))
    fresh_fakes: bool = _turns(False, "the generator's step draws new images instead of those of D's step")
    d_loss_bound: float = _turns(
        0.0, "the discriminator skips its step while its loss is below this", low=0.0, search=(0.0, 1.0)
    )
    g_loss_bound: float = _turns(
        0.0, "the generator skips its step while its loss is below this", low=0.0, search=(0.0, 2.0)
    )

    g_optimizer: str = _optimiser("adam", "the generator's optimiser", choices=OPTIMIZER_NAMES)
    d_optimizer: str = _optimiser("adam", "the discriminator's optimiser", choices=OPTIMIZER_NAMES)
    g_lr: float = _optimiser(2e-4, "the generator's learning rate", low=0.0, search=(1e-5, 1e-2), scale="log")
    d_lr: float = _optimiser(2e-4, "the discriminator's learning rate", low=0.0, search=(1e-5, 1e-2), scale="log")
    beta1: float = _optimiser(0.5, "Adam's and SOAP's beta1", low=0.0, high=0.9999)
    beta2: float = _optimiser(
        0.999, "Adam's and SOAP's beta2, RMSprop's alpha", low=0.0, high=0.999999, search=(0.9, 0.9999)
    )
    lr_start_factor: float = _optimiser(
        1.0,
        "factor on both learning rates at the start, fading over burn_in",
        low=1.0,
        technique=True,
        search=(1.0, 10.0),
        scale="log",
    )
    beta2_start: float = _optimiser(
        0.0,
        "beta2 at the start, moving to beta2 over burn_in (0: beta2 from the start)",
        low=0.0,
        high=0.999999,
        technique=True,
        search=(0.9, 0.999),
    )
    momentum: float = _optimiser(0.0, "SGD's momentum", low=0.0, high=0.9999, technique=True)
    weight_decay: float = _optimiser(
        0.0, "AdamW's weight decay", low=0.0, technique=True, search=(1e-6, 0.1), scale="log"
    )
    clip_grad_norm: float = _optimiser(
        0.0,
        "gradient clipping: largest norm of all gradients of G or D (0: any)",
        low=0.0,
        technique=True,
        search=(0.1, 100.0),
        scale="log",
    )
    clip_weights: float = _optimiser(
        0.0,
        "weight clipping of the discriminator, as in WGAN (0: none)",
        low=0.0,
        technique=True,
        search=(1e-3, 1.0),
        scale="log",
    )
    lr_decay: str = _optimiser(
        "linear", "how learning rates decay", choices=("linear", "cosine", "step"), technique=True
    )
    lr_decay_from: float = _optimiser(
        1.0, "fraction of the schedule after which learning rates decay (1: never)", low=0.0, high=1.0, technique=True
    )
    lr_decay_factor: float = _optimiser(
        0.1, "factor on the learning rates at each step of a step decay", low=0.0, high=1.0, technique=True
    )
    ema: float = _optimiser(
        0.0,
        "half-life of the exponential moving average (EMA) of G's weights, as a fraction of images seen (0: none)",
        low=0.0,
        high=1.0,
        technique=True,
    )
    ema_growth: str = _optimiser(
        "linear",
        "how the EMA's half-life grows: with the images seen, or over burn_in to its share of the whole schedule",
        choices=("linear", "cosine"),
        technique=True,
    )
    calibrate_output: bool = _optimiser(
        False,
        "output calibration: rescale G's last layer until pixels have the data's mean and mean square",
        technique=True,
    )

    device: str = _machine(
        "auto",
        "where to train: cpu, cuda (an NVIDIA or AMD GPU; cuda:1 is the second), mps (a Mac's GPU), or (auto) an "
        "accelerator where it is faster for this recipe",
        may_change=True,
    )
    precision: str = _machine(
        "auto",
        "number format of matrix products and convolutions; auto takes bfloat16 where it is faster",
        choices=("auto", "float32", "bfloat16"),
    )
    threads: int = _machine(0, "CPU threads (0: one per core)", low=0, high=1024, is_circumstance=True)
    on_failure: str = _machine(
        "warn",
        "what to do about a training failure: warn, stop, or rollback to the best checkpoint with half the learning "
        "rates, three times at most",
        choices=("warn", "stop", "rollback"),
        may_change=True,
        is_circumstance=False,
    )

    log_every: int = _output(0, "images between log lines (0: a 200th of the length)", low=0)
    sample_every: int = _output(0, "images between sample grids (0: a twelfth)", low=0)
    evaluate_every: int = _output(0, "images between validation FD ratios (0: chosen from the length)", low=0)
    early_stopping: int = _output(
        0,
        "stop after this many validation FD ratios in a row without a better one (0: never)",
        low=0,
        is_circumstance=False,
    )
    save_every: int = _output(0, "images between checkpoints (0: a quarter)", low=0)
    keep_last: int = _output(0, "newest checkpoints to keep besides the best one (0: all)", low=0)
    keep_every: int = _output(0, "if keep_last is set, also keep one checkpoint per this many images (0: none)", low=0)
    trackers: str = _output(
        "tensorboard", "experiment trackers: tensorboard, mlflow, wandb, with commas between them, or none"
    )

    origins: Mapping[str, str] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        for field in FIELDS.values():
            _check(field, getattr(self, field.name))
        for name in ("recipe", "data"):  # which pictures, reports and scripts repeat
            if not NAME.fullmatch(getattr(self, name)):
                raise ConfigError(f"{name} is {getattr(self, name)!r}; {NAME_RULE}, such as {FIELDS[name].default}")
        if not DEVICE.fullmatch(self.device):
            raise ConfigError(f"device is {self.device!r}; it must be auto, cpu, cuda, cuda:0 or mps, such as auto")
        if self.planned_images / 2 >= self.schedule_length:
            raise ConfigError(
                f"planned_images is {self.planned_images}, half of which leaves nothing of {self.schedule_length} "
                "images for the second half of the schedules; lower it"
            )
        object.__setattr__(self, "origins", dict(self.origins))

    @property
    def schedule_length(self) -> int:
        """Length of the schedules in images."""
        return self.schedule_images or self.images

    @property
    def ids_per_class(self) -> int:
        """Number of class ids in a row that belong to one label; without labels, to one cluster."""
        return self.clusters_per_class if self.conditioning == "labels" else 1

    @property
    def classifies(self) -> bool:
        """Whether D learns to name the labels of real images beside its logit, and is not shown them with the image."""
        hides_labels = self.conditioning == "labels" and self.d_conditioning in ("auto", "projection")
        return self.d_class_loss > 0 and hides_labels

    def is_from_recipe(self, name: str) -> bool:
        """Return whether a field has its value from the recipe; where origins are lost, an equal value counts."""
        row = RECIPES.get(self.recipe, {})
        return name in row and getattr(self, name) == row[name] and self.origins.get(name, "recipe") == "recipe"

    def is_open(self, name: str) -> bool:
        """Return whether nobody asked for a field's value: it is the recipe's, or the default that the recipe keeps."""
        is_default = name not in self.origins and getattr(self, name) == FIELDS[name].default
        return is_default or self.is_from_recipe(name)

    def replace(self, **changes: Any) -> "Config":
        """Return the same choices but for `changes`, checked again."""
        return dataclasses.replace(self, **changes)

    def replace_open(self, wanted: Mapping[str, Any]) -> "Config":
        """Return the same choices but for those of `wanted` that nobody asked for."""
        return self.replace(**{name: value for name, value in wanted.items() if self.is_open(name)})

    def as_dict(self) -> dict[str, Any]:
        """Return every field with its value."""
        return {name: getattr(self, name) for name in FIELDS}

    def techniques(self) -> dict[str, Any]:
        """Return the techniques in use, each with its value; empty for the plain algorithm."""
        return {
            name: getattr(self, name)
            for name, field in FIELDS.items()
            if field.metadata["technique"] and getattr(self, name) != field.default
        }

    def to_toml(self) -> str:
        """Return every field with its value, and a table of origins."""
        import tomli_w

        return tomli_w.dumps({**self.as_dict(), "origins": dict(self.origins)})


FIELDS = {field.name: field for field in dataclasses.fields(Config) if field.name != "origins"}


def _check(field: "dataclasses.Field[Any]", value: object) -> None:
    name, kind, rule = field.name, field.type, field.metadata
    right_type = isinstance(value, int | float) if kind is float else isinstance(value, kind)  # type: ignore[arg-type]
    if not right_type or (kind is not bool and isinstance(value, bool)):
        raise ConfigError(f"{name} is {value!r:.60}; it must be {_KINDS[kind]}, such as {_example(field)}")
    if isinstance(value, str) and value != value.encode(errors="ignore").decode():
        raise ConfigError(f"{name} is {value!r:.60}, which is no UTF-8 text; rename the file or folder")
    if rule["choices"] and value not in rule["choices"]:
        raise ConfigError(_unknown(str(value), rule["choices"], name))
    if isinstance(value, int | float):
        low, high = rule["low"], rule["high"]
        least, most = -_HUGE if low is None else low, _HUGE if high is None else high
        if not least <= value <= most:  # NaN fails too
            bounds = f"between {low} and {high}" if high is not None else f"{low} or more"
            if high is None and value > most:
                bounds += f", and no more than {most:g}"
            raise ConfigError(f"{name} is {value}; it must be {bounds}: give one such as {_example(field)}")


_HUGE = 10**18
_EXAMPLES = {"classes": "'3,7'", "start_from": "'runs/0001-default-mnist'"}
_KINDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
}


def _example(field: "dataclasses.Field[Any]") -> str:
    return repr(field.default) if field.default != "" else _EXAMPLES.get(field.name, "'.'")


BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def parse_value(name: str, raw: object) -> Any:
    """Return the value of field `name` from a flag, a variable or a file; counts may be written 200k or 2M."""
    field = FIELDS[name]
    raw = _plain(name, raw)
    if not isinstance(raw, str) or field.type is str:
        if field.type is int and isinstance(raw, float) and raw.is_integer():
            return int(raw)
        if field.type is float and isinstance(raw, int) and not isinstance(raw, bool):
            return float(min(max(raw, -_HUGE), _HUGE))  # a larger int is outside every range, and may not fit a float
        return raw
    text = raw.strip()
    try:
        if field.type is bool:
            return BOOLEANS[text.lower()]
        if field.type is int:
            return parse_count(text)
        return float(text)
    except (KeyError, ValueError):
        kind = _KINDS[field.type]
        raise ConfigError(f"{name} is {raw!r}; it must be {kind}, such as {_example(field)}") from None


def _plain(name: str, raw: object) -> object:
    """Return what a notebook gives for a field as Python's own: NumPy's numbers, paths, a device, a list of classes."""
    if name == "classes" and isinstance(raw, list | tuple | range) and len(raw) == 1:
        raw = raw[0]
    kind = type(raw)
    if kind.__module__ == "numpy" and getattr(raw, "ndim", None) == 0:
        raw = raw.item()  # type: ignore[attr-defined]
    if isinstance(raw, os.PathLike):
        return os.fspath(raw)
    if name == "device" and kind.__module__ == "torch":
        return str(raw)
    if name == "classes" and isinstance(raw, int) and not isinstance(raw, bool):
        return f"{raw}-{raw}" if raw > 9 else str(raw)  # its digits would be several classes
    if name == "classes" and isinstance(raw, list | tuple | range) and not raw:
        raise ConfigError("classes is empty; name some, such as [3, 7], or omit it for all")
    if name == "classes" and isinstance(raw, list | tuple | range):
        return ",".join(f'"{one}"' if "," in str(one) else str(one) for one in raw)
    return raw


def parse_count(text: str) -> int:
    """Return a whole number, also from 200k, 1.5M, 1e6 or 1,000; raises ConfigError or ValueError for anything else."""
    from fractions import Fraction

    if re.fullmatch(r"[+-]?\d{1,3}(,\d{3}){1,6}", text):
        text = text.replace(",", "")
    if re.fullmatch(r"[+-]?\d{1,20}(\.\d{1,20})?[eE]\+?\d{1,2}", text):
        number = Fraction(text)
        if number.denominator == 1:
            return number.numerator
    scale = {"k": 1_000, "K": 1_000, "m": 1_000_000, "M": 1_000_000}.get(text[-1:], 1)
    digits = text[:-1] if scale > 1 else text
    if scale > 1 and not re.fullmatch(r"[+-]?\d{1,20}(\.\d{1,20})?", digits):  # an exponent could ask for any memory
        raise ConfigError(f"{text!r} is not a whole number")
    number = Fraction(digits) * scale if scale > 1 else Fraction(int(digits))
    if number.denominator != 1:
        raise ConfigError(f"{text!r} is not a whole number")
    return number.numerator


def parse_labels(text: str, *, what: str = "labels", names: Sequence[str] = ()) -> list[int]:
    """Return labels, or other whole numbers, from 0-9 (a range), 3,11,12 (a list), 2024 (one digit each), or names.

    Args:
        names: of classes by number; a text that is a name, such as 3-7, stands for it. In a list, a name with a comma
            is written in quotation marks.

    Raises ConfigError for anything else.
    """
    import csv

    label = class_number(text, names)
    if label is not None:
        return [label]
    if re.fullmatch(r"[0-9]{2,6}", text) and 10 <= int(text) < len(names):
        each = ",".join(text)
        raise ConfigError(f"{text} may be the class {text} or the classes {each}; write {text}-{text} or {each}")
    words: list[str] = []
    try:
        words = next(csv.reader([text], skipinitialspace=True), [])
        if len(words) < 2:
            return _parse_range(text) if "-" in text else [int(digit) for digit in text]
        found = [(word, class_number(word, names)) for word in words]
        return [k for word, label in found for k in (_parse_range(word) if label is None else [label])]
    except (ValueError, csv.Error):
        if names:
            missing = next((word for word in words if class_number(word, names) is None), text)
            raise ConfigError(unknown_class(missing.strip(), names)) from None
        raise ConfigError(f"{what} are {text!r}; write a range 0-9, a list 3,11,12 or digits 2024") from None


def class_number(word: str, names: Sequence[str]) -> int | None:
    """Return the number of the class with this name, upper or lower case if no other is written the same; else None.

    Raises ConfigError where several names differ from it in case alone.
    """
    if word in names:
        return names.index(word)
    found = [number for number, name in enumerate(names) if _folded(name) == _folded(word)]
    if len(found) > 1:
        listing = " or ".join(repr(names[number]) for number in found)
        raise ConfigError(f"{word!r} may be the class {listing}; write it as one of these")
    return found[0] if found else None


def _folded(name: str) -> str:
    """Return a name without what typing may change: case, outer spaces, the way accents are composed."""
    return unicodedata.normalize("NFC", name.strip()).casefold()


def unknown_class(word: str, names: Sequence[str]) -> str:
    """Return a sentence on a name that no class has, with the closest one."""
    import difflib

    if not names:
        return f"there is no class {word!r}, for no class has a name; write numbers, such as 0-9 or 3,11,12"
    close = difflib.get_close_matches(word, names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f"there is no class {word!r}; {hint}choose among {', '.join(names[:12])}{more}, or write numbers such as 0-2"


def _parse_range(text: str) -> list[int]:
    first, dash, last = text.partition("-")
    if dash and int(last) - int(first) >= 65_536:
        raise ConfigError("no data set has so many labels")
    return list(range(int(first), int(last) + 1)) if dash else [int(first)]


def choose(table: Mapping[str, Any], name: str, what: str) -> Any:
    """Return the row called `name`; ConfigError with the closest names where there is none."""
    if not isinstance(name, str) or name not in table:
        raise ConfigError(_unknown(f"{name!s:.60}", table, what))
    return table[name]


def close_name(name: str, allowed: Sequence[str]) -> str | None:
    """Return what a name that is not allowed probably stands for; None where nothing is close."""
    import difflib

    folded = {_folded(other).replace("_", "-"): other for other in reversed(allowed)}
    asked = _folded(name).replace("_", "-")
    for known in dict.fromkeys((asked, _OTHER_OBJECTIVES.get(asked, asked))):
        longer = [other for other in folded if len(known) > 2 and other.startswith(f"{known}-")]
        if found := [known] if known in folded else longer:
            return folded[found[-1]]
    cutoff = 0.6 if len(name) > 4 else 0.75  # of short names, half the letters are those of many
    return next((folded[other] for other in difflib.get_close_matches(asked, folded, n=1, cutoff=cutoff)), None)


def is_repeat(config: Config, first: Config) -> bool:
    """Return whether two runs are of one plan but for the seed; its length may differ by a quarter, as by minutes."""
    neutral = {name: field.default for name, field in FIELDS.items() if field.metadata["is_circumstance"]}
    neutral |= {"schedule_images": 0, "planned_images": 0}
    is_alike = is_as_long(config.images, first.images) and is_as_long(config.schedule_length, first.schedule_length)
    is_alike &= (config.images > config.schedule_length) == (first.images > first.schedule_length)
    return is_alike and config.replace(**neutral) == first.replace(**neutral)


def is_as_long(images: int, first: int) -> bool:
    """Return whether lengths differ by a quarter at most, as those of equal minutes do."""
    return abs(images - first) <= first / 4


def _unknown(name: str, allowed: Iterable[str], what: str) -> str:
    allowed = list(allowed)
    close = close_name(name, allowed)
    hint = f"did you mean {close!r}?" if close else "choose one of these"
    return f"there is no {what} {name!r}; {hint} (allowed: {', '.join(allowed)})"


def resolve(
    recipe: str | None = None,
    *,
    file: Path | str | None = None,
    environ: Mapping[str, str] | None = None,
    arguments: Mapping[str, object] | None = None,
) -> Config:
    """Return the choices that result from all sources.

    >>> config = gs.resolve("mlp-small", arguments={"label_smoothing": 0.1})
    >>> config.latent_dim, config.label_smoothing, config.origins["label_smoothing"]
    (100, 0.1, 'argument')

    Raises ConfigError for an unknown field, recipe or value, NotFoundError for a missing file.
    """
    if recipe is not None and not isinstance(recipe, str):
        raise ConfigError(f"recipe is of type {type(recipe).__name__}; give the name of one, and images as data=")
    layers: list[tuple[str, Mapping[str, object]]] = []
    if file is not None:
        written = read_toml(Path(file))
        layers.append((str(file), {key: value for key, value in written.items() if key not in ("format", "origins")}))
    layers.append(("environment", _from_environment(environ or {})))
    layers.append(("argument", arguments or {}))

    name = recipe
    for source, values in reversed(layers):
        for key in values:
            if key not in FIELDS:
                raise ConfigError(f"{source}: {unknown_field(key)}")
        if name is None and "recipe" in values:
            name = str(values["recipe"])
    name = "default" if name is None else name
    row = choose(RECIPES, name, "recipe")
    if not isinstance(row, Mapping):
        raise ConfigError(f"RECIPES[{name!r}] is {row!r:.60}; it must be a dict of fields and values")
    layers.insert(0, ("recipe", row))
    for key in layers[0][1]:
        if key not in FIELDS:
            raise ConfigError(f"recipe {name}: {unknown_field(key)}")

    chosen: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for source, values in layers:
        is_other = "data" in values and "data_dir" not in values and values["data"] != chosen.get("data")
        if is_other and "data_dir" in origins and origins["data_dir"] == origins.get("data"):  # the folder of that data
            del chosen["data_dir"], origins["data_dir"]
        for key, raw in values.items():
            try:
                chosen[key] = parse_value(key, raw)
            except ConfigError as error:
                where = f"GANSMITH_{key.upper()}" if source == "environment" else source
                raise error if source in ("argument", "recipe") else ConfigError(f"{where}: {error}") from None
            origins[key] = Path(source).name  # of a file, whose folder is nobody else's business
    chosen["recipe"] = name
    if is_path(str(chosen.get("data", ""))):
        if chosen.get("data_dir"):
            raise ConfigError(f"data is the path {chosen['data']!r} and data_dir another; give one of them")
        chosen["data"], chosen["data_dir"] = name_of(chosen["data"]), chosen["data"]
        origins["data_dir"] = origins["data"]
    return Config(**chosen, origins=origins)


# Endings of what a data set may be given by.
ARCHIVES = (".zip", ".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz")
ARRAY_FILES = (".npz", ".npy", ".csv", ".csv.gz", ".tsv", ".bin", ".mat", ".parquet")


def is_path(what: str) -> bool:
    """Return whether a data set is given by its path rather than by its name."""
    return bool(re.search(r"[/\\]|^[.~]", what)) or what.lower().endswith((*ARRAY_FILES, *ARCHIVES))


def name_of(path: str | Path) -> str:
    """Return what a data set given by its path is called: letters, digits, dots, dashes and underscores."""
    stem = Path(os.path.realpath(os.path.expanduser(path))).name  # which never fail, whatever the path
    for ending in (*ARCHIVES, *ARRAY_FILES):
        stem = stem[: -len(ending)] if stem.lower().endswith(ending) else stem
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.")[:MAX_NAME] or "images"


_MAX_TOML_BYTES = 2**15  # dotted keys cost the square of their length


def read_toml(path: Path) -> dict[str, object]:
    """Return what a short TOML file holds; ConfigError where it is not valid, NotFoundError where there is none."""
    import tomllib

    if not path.is_file():
        raise NotFoundError(f"there is no file {str(path)!r}; give the path of a TOML file with field = value lines")
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_TOML_BYTES + 1)
        if len(text) > _MAX_TOML_BYTES:
            raise ConfigError(f"{path} is longer than {_MAX_TOML_BYTES:,} bytes; write field = value lines alone")
        return tomllib.loads(text.decode(encoding_of(text)))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DamagedError(f"{path} is not valid TOML ({error}); write lines such as batch_size = 64") from None


def _from_environment(environ: Mapping[str, str]) -> dict[str, object]:
    prefix = "GANSMITH_"
    return {
        key.removeprefix(prefix).lower(): value
        for key, value in sorted(environ.items())
        if key.startswith(prefix) and key not in RESERVED_VARIABLES and value
    }


def load_config(path: Path, *, written_in: int) -> Config:
    """Return the choices in a run's config.toml; ConfigError where another format of run directory wrote it."""
    values = read_toml(path)
    if not values:
        raise DamagedError(f"{path} is empty; restore it, or remove it to have it read from the newest checkpoint")
    found, origins = values.pop("format", None), values.pop("origins", {})
    if found != written_in:
        raise ConfigError(
            f"{path.parent} was written by another version of Gansmith (run format "
            f"{'2 or older' if found is None else found}, this version reads {written_in}); use that version, or train "
            "a new run"
        )
    for key in values:
        if key not in FIELDS:
            raise ConfigError(f"{path}: {unknown_field(key)}")
    is_readable = isinstance(origins, dict) and all(isinstance(value, str) for value in origins.values())
    try:
        config = Config(**{key: parse_value(key, raw) for key, raw in values.items()})
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return config.replace(origins=origins if is_readable else {})


# What other projects call a field or a flag, by what it is here.
_OTHER_NAMES = {
    "g_lr and d_lr": "lr learning_rate",
    "g_lr": "lr_g glr lrg g_learning_rate lr_generator generator_lr gen_lr",
    "d_lr": "lr_d dlr lrd d_learning_rate lr_discriminator discriminator_lr disc_lr",
    "batch_size": "bs batch batchsize b batch_gpu mini_batch_size minibatch",
    "latent_dim": "nz z z_dim zdim latent latent_size latents_dim noise_dim noise_size dim_z nlatent z_size",
    "latent_distribution": "z_distribution noise_type",
    "r1_gamma and r2_gamma": "gamma",
    "r1_gamma": "r1 r1_weight lambda_r1 r1_reg",
    "r2_gamma": "r2 r2_weight lambda_r2",
    "gradient_penalty": "lambda_gp gp_lambda gp gp_weight lambda lambda_ penalty_weight",
    "epochs": "n_epochs num_epochs nepochs epoch nepoch max_epochs",
    "epochs or images": "niter",
    "images": "nimg total_images train_images",
    "images (steps times batch_size)": "iterations n_iter iters num_iters max_iter max_iters steps "
    "max_steps num_steps n_steps",
    "images (500k is 500 kimg)": "kimg total_kimg",
    "minutes": "duration time max_time",
    "minutes (60 an hour)": "hours",
    "beta1": "b1 adam_beta1",
    "beta2": "b2 adam_beta2",
    "beta1 and beta2": "betas beta adam_betas",
    "g_width": "ngf g_dim g_channels gf_dim",
    "d_width": "ndf d_dim d_channels df_dim",
    "g_width and d_width": "width hidden hidden_dim hidden_size nf cbase",
    "d_steps": "n_critic ncritic n_dis critic_iters d_iters num_d_steps",
    "g_steps": "n_gen g_iters",
    "clip_weights or clip_grad_norm": "clip",
    "clip_weights": "clip_value weight_clip",
    "clip_grad_norm": "clip_grad grad_clip max_grad_norm",
    "label_smoothing": "smoothing smooth soft_labels one_sided",
    "label_smoothing (0.1 for a target of 0.9)": "real_label",
    "label_flipping": "flip_labels label_flip swap_labels",
    "objective": "loss gan_type gan_mode loss_type criterion adv_loss",
    "network": "arch architecture backbone",
    "a recipe's name, or network": "model gan",
    "a recipe's name, or config": "cfg",
    "data": "dataset data_set",
    "start_from": "pretrained pretrained_model init_from finetune finetune_from transfer resume_pkl netg",
    "start_from (gansmith resume RUN goes on with a run)": "checkpoint checkpoint_path ckpt ckpt_path load weights",
    "penalty_every": "d_reg_every d_reg_interval r1_interval lazy",
    "data_dir": "dataroot data_root data_path root datadir",
    "conditioning": "cond",
    "conditioning labels": "conditional class_cond",
    "conditioning clusters": "n_clusters k_means",
    "size": "image_size img_size imsize imagesize resolution",
    "classes or labels": "label class digit digits",
    "classes": "labels",
    "color grey": "grey gray greyscale grayscale",
    "color rgb": "rgb",
    "mirror": "flip flips hflip horizontal_flip x_flip xflip random_flip",
    "g_optimizer and d_optimizer": "optimizer optim opt",
    "d_dropout or g_dropout": "dropout",
    "weight_init": "init init_type initialisation initialization",
    "g_activation and d_activation": "activation act",
    "spectral_norm": "sn use_sn spectral",
    "instance_noise": "noise noise_std d_noise",
    "augment": "aug augmentation augmentations",
    "augment diffaugment": "diffaug diffaugment diff_augment",
    "augment adaptive": "ada",
    "ema (a half-life as a share of the images seen, such as 0.05)": "ema_decay ema_beta ema_kimg ema_rate",
    "ema": "use_ema",
    "minibatch_stddev": "mbstd mbstd_group mbstd_group_size minibatch_std",
    "precision bfloat16": "amp bf16 fp16 half mixed_precision",
    "precision float32": "fp32 float32",
    "device": "accelerator",
    "device cuda": "gpu gpu_id gpu_ids cuda use_cuda",
    "device mps": "mps use_mps",
    "device cpu": "no_cuda cpu",
    "threads": "num_threads workers num_workers n_workers n_cpu j cpus",
    "seed": "manual_seed random_seed rng_seed",
    "out": "outdir out_dir outf output output_dir save_dir logdir log_dir o results_dir result_dir run_dir name",
    "out (a folder)": "checkpoints_dir checkpoint_dir ckpt_dir",
    "log_every (steps times batch_size)": "log_interval log_step print_freq log_freq print_every",
    "sample_every (steps times batch_size)": "sample_interval sample_freq sample_step",
    "evaluate_every (steps times batch_size)": "eval_every eval_interval eval_freq fid_every",
    "save_every (steps times batch_size)": "save_interval checkpoint_every snap save_freq checkpoint_interval",
    "early_stopping": "patience early_stop",
    "trackers wandb": "wandb",
    "trackers tensorboard": "tensorboard",
    "trackers mlflow": "mlflow",
    "lr_decay": "scheduler lr_policy lr_scheduler schedule",
    "weight_decay": "wd l2",
    "progress": "verbose quiet silent",
    "count": "n num num_samples n_samples nsamples number num_images",
    "truncation": "trunc truncation_psi psi",
}
_OTHER_OBJECTIVES = {
    **dict.fromkeys("wgan wgan-gp".split(), "wasserstein"),
    **dict.fromkeys("bce vanilla ns nsgan cross-entropy logistic standard".split(), "non-saturating"),
    **dict.fromkeys("lsgan ls mse l2".split(), "least-squares"),
    **dict.fromkeys("ralsgan ragan rahinge".split(), "relativistic-average"),
    **dict.fromkeys("rgan rpgan rsgan".split(), "relativistic"),
    **dict.fromkeys("acgan ac".split(), "auxiliary-classifier"),
    **dict.fromkeys("began be".split(), "boundary-equilibrium"),
    **dict.fromkeys("saturating mm".split(), "minimax"),
}
SYNONYMS = {name: ours for ours, names in _OTHER_NAMES.items() for name in names.split()}
_SEVERAL = "torchrun --nproc-per-node 2 -m gansmith train ... uses several GPUs (docs/scaling.md)"
_OF_THE_DATA = "the data's labels are counted; --classes 3,7 trains on some of them"
_AS_THE_DATA = "images keep the channels of the data set; --color grey or rgb chooses others"
_OF_THE_NETWORK = "layers are normalised as --network does it; --spectral-norm normalises D's weights"
# What other projects have and this one has not.
UNSUPPORTED = {
    **dict.fromkeys("ngpu num_gpus n_gpu gpus devices".split(), _SEVERAL),
    **dict.fromkeys("processes num_processes nprocs nproc nproc_per_node world_size".split(), _SEVERAL),
    **dict.fromkeys("nc channels".split(), _AS_THE_DATA),
    **dict.fromkeys("norm norm_layer batch_norm bn batchnorm normalization".split(), _OF_THE_NETWORK),
    "mode": "what to do is a command, such as gansmith train, sample or evaluate",
    **dict.fromkeys("n_classes num_classes nclasses".split(), _OF_THE_DATA),
    **dict.fromkeys(
        "resume continue continue_train restore load_checkpoint".split(),
        "`gansmith resume RUN` continues a run, and --start-from RUN begins a new one with its weights",
    ),
}


def unknown_field(name: str, also: Iterable[str] = ()) -> str:
    """Return a sentence on a name that is no field: what other projects call it here, or the closest names."""
    key = name.replace("-", "_").lower()
    if key in UNSUPPORTED:
        return f"there is no field {name!r}: {UNSUPPORTED[key]}"
    if key in SYNONYMS:
        return f"there is no field {name!r}; here it is {SYNONYMS[key]}"
    close = close_name(name, (*FIELDS, *also))
    return f"there is no field {name!r}; " + (f"did you mean {close!r}?" if close else "see gansmith train --help")
