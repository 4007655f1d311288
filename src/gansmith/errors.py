"""The errors that a user can mend; every other exception is a bug of ours and keeps its traceback."""


class GansmithError(ValueError):
    """A request that cannot be met: its message says what was wrong, what is allowed and what to do.

    >>> gs.open_run("nowhere")
    Traceback (most recent call last):
    gansmith.errors.NotFoundError: nowhere holds no run (no config.toml); give a directory that `train` wrote
    """


class ConfigError(GansmithError):
    """A field, a name or a combination of choices that is not allowed."""


class DamagedError(ConfigError):
    """A file of choices that is no TOML."""


class DataError(GansmithError):
    """Images or files that cannot be used."""


class RunError(GansmithError):
    """A run directory that cannot be read, continued or written."""


class NotFoundError(GansmithError, FileNotFoundError):
    """A file, a run or a data set that is nowhere."""


def printable(text: str) -> str:
    """Return text without what a terminal would take for commands."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "?" for letter in text)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception says that a device or this machine has too little memory."""
    texts = ("can't allocate memory", "out of memory")  # of torch, on processors and on devices
    is_torchs = isinstance(error, RuntimeError) and any(text in str(error) for text in texts)
    return isinstance(error, MemoryError) or is_torchs


class TrainingFailed(RuntimeError):
    """A training run that stopped by itself; what was saved before is intact.

    >>> try:
    ...     gs.train("mlp-small", images=6400, out="steep", progress="none", g_lr=1e18, d_lr=1e18)
    ... except gs.TrainingFailed as error:
    ...     print(error.failure)
    not-finite

    Attributes:
        failure: name of the training failure, such as "diverged"; empty where a checkpoint could not be written.
    """

    def __init__(self, message: str, *, failure: str = "") -> None:
        super().__init__(message)
        self.failure = failure


class ProcessLost(TrainingFailed):
    """Another process of a run under torchrun ended or did not answer in time."""


_MAX_REASON = 200  # characters: libraries quote file names and headers in full


def reason_of(error: Exception) -> str:
    """Return the first line of an exception's message, cut off where it is long, or the name of its class."""
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0] if len(lines[0]) <= _MAX_REASON else f"{lines[0][:_MAX_REASON]}..."


def unreadable(path: object, error: Exception, remedy: str) -> str:
    """Return the sentence that a file cannot be read, and why; a permission that is missing has a remedy of its own."""
    if isinstance(error, PermissionError):
        return f"{error.filename or path} cannot be read (permission denied); allow it, as with chmod u+r"
    return f"{path} cannot be read ({reason_of(error)}); {remedy}"
