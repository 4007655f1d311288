"""The public names for type checkers; `_HOME` in __init__.py says the same to Python, and a test compares the two."""

# ruff: noqa: I001 (a line for each renamed import is all that sorting would give)

from gansmith.api import (
    Diagnosis as Diagnosis,
    Run as Run,
    Sweep as Sweep,
    compare as compare,
    course as course,
    diagnose as diagnose,
    directions as directions,
    evaluate as evaluate,
    export as export,
    film as film,
    grade as grade,
    handin as handin,
    invert as invert,
    load as load,
    load_data as load_data,
    open_run as open_run,
    plot as plot,
    report as report,
    resume as resume,
    sample as sample,
    sweep as sweep,
    train as train,
    train_events as train_events,
    walk as walk,
)
from gansmith.config import (
    Config as Config,
    resolve as resolve,
)
from gansmith.data import DATASETS as DATASETS
from gansmith.data.images import Images as Images
from gansmith.errors import (
    GansmithError as GansmithError,
    TrainingFailed as TrainingFailed,
)
from gansmith.inversion import Inversion as Inversion
from gansmith.latent_space import Directions as Directions
from gansmith.networks import NETWORKS as NETWORKS
from gansmith.recipes import RECIPES as RECIPES
from gansmith.sampling import (
    Model as Model,
    Samples as Samples,
)
from gansmith.training.losses import (
    OBJECTIVES as OBJECTIVES,
    Objective as Objective,
)
from gansmith.verdicts import (
    Comparison as Comparison,
    Verdict as Verdict,
)
from gansmith.web.notebook import studio as studio

__version__: str
