"""The command `gansmith`: one table of commands, and how errors are shown.

Each command parses, calls the library, prints. Nothing heavy is imported until a command needs it, so `--help`
answers at once.
"""

import errno
import gc
import io
import os
import re
import stat
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Literal

from cyclopts import App, CycloptsError

from gansmith.cli.benchmarks import gaussians, losses, stacked_mnist
from gansmith.cli.boards import ablate, recipes
from gansmith.cli.data import check, export, fetch, inspect
from gansmith.cli.evaluation import compare, evaluate
from gansmith.cli.exports import export as export_model
from gansmith.cli.exports import handin, report
from gansmith.cli.info import describe, diagnose, doctor, list_
from gansmith.cli.output import complain, is_first_process
from gansmith.cli.sampling import film, invert, plot, sample, walk
from gansmith.cli.sweeps import sweep
from gansmith.cli.teaching import course, grade
from gansmith.cli.training import resume, train
from gansmith.cli.web import studio
from gansmith.config import BOOLEANS, FIELDS, SYNONYMS, UNSUPPORTED, close_name
from gansmith.errors import ConfigError, GansmithError, ProcessLost, TrainingFailed, is_out_of_memory

app = App(
    name="gansmith",
    help="Train, measure and ship small image generators (GANs) on this machine.",
    version_flags=["--version"],
    help_format="plaintext",  # Markdown would import a parser first
    help_epilogue="Start with: gansmith train --minutes 3",
)
data_app = App(name="data", help="Look into your own images; fetch, check or export those of a data set.")
app.command(data_app)
bench_app = App(name="bench", help="Train on a published benchmark and print the figures of its table.")
app.command(bench_app)


def completion(shell: Literal["bash", "zsh", "fish", "powershell"], /) -> int:
    """Print a script that completes commands and flags in a shell, for its startup file.

    Parameters
    ----------
    shell
        bash, zsh, fish or powershell.
    """
    print(app.generate_completion(shell=shell))
    return 0


COMMANDS: dict[str, Callable[..., int]] = {
    "train": train,
    "resume": resume,
    "sample": sample,
    "invert": invert,
    "walk": walk,
    "film": film,
    "plot": plot,
    "evaluate": evaluate,
    "compare": compare,
    "report": report,
    "export": export_model,
    "handin": handin,
    "course": course,
    "grade": grade,
    "ablate": ablate,
    "sweep": sweep,
    "studio": studio,
    "list": list_,
    "describe": describe,
    "diagnose": diagnose,
    "doctor": doctor,
    "completion": completion,
}
DATA_COMMANDS: dict[str, Callable[..., int]] = {"fetch": fetch, "check": check, "inspect": inspect, "export": export}
BENCH_COMMANDS: dict[str, Callable[..., int]] = {
    "stacked-mnist": stacked_mnist,
    "gaussians": gaussians,
    "losses": losses,
    "recipes": recipes,
}
for _name, _command in COMMANDS.items():
    app.command(_command, name=_name)
for _name, _command in DATA_COMMANDS.items():
    data_app.command(_command, name=_name)
for _name, _command in BENCH_COMMANDS.items():
    bench_app.command(_command, name=_name)


def main() -> None:
    """Run the command line and exit: 0 done, 1 training failed, 2 a mistake in the request, 130 interrupted.

    Mistakes are `GansmithError`s and what the operating system refuses; any other exception keeps its traceback.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # it was closed by whoever started this
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
    for stream in (sys.stdout, sys.stderr):  # a name that the terminal cannot show is no reason to fail
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        words = _with_values(_completed([_at_home(word) for word in sys.argv[1:]]))
        is_left = _is_left_to_first(words)
        code = 0 if is_left else app(words, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except CycloptsError as error:
        if is_first_process():
            complain(_usage(" ".join(str(error).split()), sys.argv[1:]))
        code = 2
    except GansmithError as error:
        complain(str(error))
        code = 2
    except TrainingFailed as error:
        if is_first_process() or isinstance(error, ProcessLost):
            complain(str(error))
        code = 1
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        complain(_beyond_memory(error))
        code = 2
    except OSError as error:
        if error.errno is None:
            raise
        if _is_unread(error):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 0
        else:
            complain(_place_in_words(error))
            code = 2
    gc.freeze()  # else leaving looks for cycles in all of torch, for a quarter of a second
    sys.exit(code or 0)


def _is_unread(error: OSError) -> bool:
    """Return whether whoever read the output, such as `head`, has seen enough; Windows says so in its own way."""
    if os.name != "nt":
        return isinstance(error, BrokenPipeError)
    is_odd = error.errno in (errno.EINVAL, errno.EPIPE) and error.filename is None
    return is_odd and stat.S_ISFIFO(os.fstat(sys.stdout.fileno()).st_mode)


def _is_left_to_first(words: list[str]) -> bool:
    """Return whether this process leaves the command to process 0: under torchrun, that one alone runs `evaluate`.

    Other commands than train and resume are refused there: process 0 raises ConfigError, the others end.
    """
    command = words[0] if words else ""
    is_alone = os.environ.get("WORLD_SIZE", "1") in ("", "0", "1")
    if is_alone or command in ("train", "resume") or command[:1] in ("", "-"):
        return False
    from gansmith.processes import is_launched

    if not is_launched():
        return False
    if command == "evaluate":
        return not is_first_process()
    if not is_first_process():
        sys.exit(2)
    raise ConfigError(
        f"torchrun started {os.environ['WORLD_SIZE']} processes, and each would {command}; start {command} without "
        "torchrun, which is for train, resume and evaluate"
    )


def _usage(sentence: str, words: list[str]) -> str:
    """Return a sentence on a flag that does not exist: what it is called here, or the closest flag of this command."""
    command = re.match(r'Unknown command "([^"]+)"', sentence)
    if command is not None:
        return _unknown_command(command[1])
    surplus = re.match(r"Unused Tokens: \[(.*)\]", sentence)
    if surplus is not None:
        return f"gansmith {_command_of(words)} does not take {surplus[1]}; put a name with spaces in quotes"
    unknown = re.search(r'Unknown option: "?(-{1,2}[\w-]+)', sentence)
    if unknown is None:
        return re.sub(r'unable to convert ("[^"]*") into (int|float)', _no_number, sentence)
    flag = unknown[1]
    whole = flag.lstrip("-").replace("-", "_").lower()
    flags = _flags_of(words)
    known = {other: ours for other, ours in SYNONYMS.items() if _terms(ours) & flags.keys()}
    for name in (whole, whole.removeprefix("no_")):
        if name in UNSUPPORTED:
            return f"there is no {flag}: {UNSUPPORTED[name]}"
        if name in known:
            return f"there is no {flag}; here it is {_as_flags(known[name], flags)}"
    close = close_name(whole, [*flags, *known])
    if close:
        ours = known.get(close, close)
        return f"there is no {flag}; did you mean {_as_flags(ours, flags)}?"
    return f"there is no {flag}; gansmith {_command_of(words)} --help lists the flags"


def _no_number(found: re.Match[str]) -> str:
    return f"{found[1]} is no {'whole number' if found[2] == 'int' else 'number'}, such as 3"


# What other programs call our commands.
_COMMANDS_ELSEWHERE = {
    **dict.fromkeys("generate gen draw infer predict synthesize".split(), "sample"),
    **dict.fromkeys("eval test score metrics".split(), "evaluate"),
    **dict.fromkeys("status info show check".split(), "diagnose"),
    **dict.fromkeys("fit run start".split(), "train"),
    **dict.fromkeys("continue restore".split(), "resume"),
    **dict.fromkeys("convert save".split(), "export"),
    **dict.fromkeys("ui web serve gui dashboard".split(), "studio"),
    **dict.fromkeys("interpolate morph".split(), "walk"),
    **dict.fromkeys("gif video animate".split(), "film"),
    **dict.fromkeys("project encode".split(), "invert"),
    "fid": "evaluate --fid", "help": "--help", "version": "--version", "-V": "--version", "--verison": "--version",
    "datasets": "data", "models": "list", "recipes": "list", "ls": "list", "tune": "sweep", "hpo": "sweep",
}  # fmt: skip


def _unknown_command(name: str) -> str:
    """Return a sentence on a command that does not exist: what it is called here, or the closest, or all there are."""
    names = sorted(known for known in app.resolved_commands() if not known.startswith("-"))
    ours = _COMMANDS_ELSEWHERE.get(name, "")
    if ours.split(" ")[0] in (*names, "--help", "--version"):
        return f"there is no command {name!r}; here it is: gansmith {ours}"
    close = close_name(name, names)
    return f"there is no command {name!r}" + (
        f"; did you mean {close}?" if close else f"; choose one of {', '.join(names)}"
    )


def _command_of(words: list[str]) -> str:
    return " ".join(app.parse_commands(words)[0])


def _flags_of(words: list[str]) -> dict[str, str]:
    """Return the flags of the command in these words by their names as fields are written: batch_size: --batch-size."""
    return _flags_of_command(app.parse_commands(words)[0])


@lru_cache
def _flags_of_command(command: tuple[str, ...]) -> dict[str, str]:
    arguments = app.parse_commands(command)[1][-1].assemble_argument_collection()
    names = [name for argument in arguments for name in argument.names if name.startswith("--")]
    return {name[2:].replace("-", "_"): name for name in names}


def _terms(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


def _as_flags(text: str, flags: Mapping[str, str]) -> str:
    """Return a text on fields with each that is a flag written as one; of `this or that`, what there is."""
    either = text.split(" or ")
    if all(name.isidentifier() for name in either):
        text = " or ".join(name for name in either if name in flags)
    return re.sub(r"\w+", lambda word: flags.get(word[0], word[0]), text)


def _place_in_words(error: OSError) -> str:
    """Return what the operating system refused, and what to do."""
    where = str(error.filename or "the output").replace("/.partial-", "/").replace("\\.partial-", "\\")
    if error.errno == errno.ENAMETOOLONG:
        return f"{where[:100]}...: the path is too long; give a shorter one"
    return f"{where}: {error.strerror}; choose a place that can be read and written, with space left"


def _beyond_memory(error: Exception) -> str:
    asked = re.search(r"tried to allocate (\d+) bytes", str(error))
    count = int(asked[1]) if asked else 0
    size = f" ({count / 1e9:,.0f} GB at once)" if count >= 1e9 else f" ({count / 1e6:,.0f} MB at once)" if count else ""
    place = "the device has" if "out of memory" in str(error) else "this machine has, or this process may take"
    return f"that takes more memory than {place}{size}; ask for fewer images, a smaller batch or width"


def _completed(words: list[str]) -> list[str]:
    """Return the words of `train` with flags not written out, such as --batch, completed where only one begins so."""
    if words[:1] != ["train"] or {"--help", "-h"} & set(words):
        return words
    flags = sorted(_flags_of(words).values())
    return [_complete(word, flags) for word in words]


def _complete(word: str, flags: list[str]) -> str:
    name, equals, value = word.partition("=")
    if not name.startswith("--") or len(name) < 4 or name in flags:
        return word
    longer = [flag for flag in flags if flag.startswith(name)]
    return f"{longer[0]}{equals}{value}" if len(longer) == 1 else word


def _at_home(word: str) -> str:
    """Return `~/folder` and `--out=~/folder` with the home folder, which shells leave to the program after `=`."""
    name, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return f"{name}{equals}{os.path.expanduser(value)}" if value.startswith(("~/", "~\\")) else word


def _with_values(words: list[str]) -> list[str]:
    """Return the words with `--flag true`, `yes` or `1` as `--flag=true`, since a flag alone takes no value."""
    switches = {f"--{name.replace('_', '-')}" for name, field in FIELDS.items() if field.type is bool}
    joined: list[str] = []
    for word in words:
        if joined and joined[-1] in switches and word.lower() in BOOLEANS:
            joined[-1] += f"={str(BOOLEANS[word.lower()]).lower()}"
        else:
            joined.append(word)
    return joined
