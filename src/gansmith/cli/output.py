"""What several commands print."""

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from gansmith.config import parse_count
from gansmith.errors import printable
from gansmith.files import quoted
from gansmith.progress import is_terminal

if TYPE_CHECKING:
    from cyclopts import Token
    from rich.console import Console


def _to_whole(_: Any, tokens: Sequence["Token"]) -> int:
    """Return a whole number, also from 10k or 10,000: the parser itself would round 10.6 to 11."""
    text = tokens[0].value.strip()
    try:
        return parse_count(text)
    except ValueError:
        raise ValueError(f'unable to convert "{text}" into int') from None


Whole = Annotated[int, Parameter(converter=_to_whole)]
Json = Annotated[bool, Parameter(name="--json", negative=())]  # the flag of commands that can answer in JSON


def is_first_process() -> bool:
    """Return whether this is process 0 of those that torchrun started, or the only one."""
    return int(os.environ.get("WORLD_SIZE") or 1) < 2 or os.environ.get("RANK", "0") == "0"


def command_name() -> str:
    """Return how this command is called: by its name, or as a program with rows of its own."""
    from gansmith.workers.process import own_program

    program = own_program()
    return "gansmith" if program is None else f"python {quoted(os.path.relpath(program))}"


def say(progress: str, line: str) -> None:
    """Print a line for people, in process 0; scripts that read JSON get it on the other stream."""
    if is_first_process():
        print(line, file=sys.stderr if progress == "json" else sys.stdout, flush=True)


def complain(sentence: str) -> None:
    """Print what went wrong on stderr."""
    print(f"gansmith: {printable(sentence)}", file=sys.stderr)


def report(line: str) -> None:
    """Print what goes on, on stderr."""
    print(line, file=sys.stderr, flush=True)


def console(width: int) -> "Console":
    """Return a console as wide as the terminal, or of this width where output is no terminal."""
    from rich.console import Console

    if is_terminal():
        return Console(highlight=False)
    return Console(width=width, force_terminal=False, highlight=False)


def print_table(header: Sequence[str], rows: Sequence[Sequence[Any]], *, width: int = 140) -> None:
    """Print rows under a header, columns aligned."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(*header, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(escape("" if cell is None else printable(str(cell))) for cell in row))
    shown = console(width)
    with shown.capture() as text:
        shown.print(table)
    print(text.get(), end="")  # rich would leave with code 1 where nobody reads on
