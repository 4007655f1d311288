"""`studio`: the web application."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from gansmith.errors import ConfigError

# Pages of a notebook on this machine, which may show the studio in a frame.
_NOTEBOOKS = ("http://localhost:*", "http://127.0.0.1:*")


def studio(
    runs_dir: Path = Path("runs"),
    /,
    *,
    host: str = "127.0.0.1",
    port: int = 8787,
    open_browser: Annotated[bool, Parameter(name="--open", negative=())] = False,
    in_notebook: Annotated[bool, Parameter(negative=(), show=False)] = False,
) -> int:
    """Open a web application on this machine: train, watch, explore and compare runs in a browser.

    Parameters
    ----------
    runs_dir
        Folder of the runs.
    host
        Address to listen on. Beyond this machine, as with 0.0.0.0, a token is asked for.
    port
        Port to listen on; 0 takes any free one.
    open_browser
        Open the browser too.
    """
    try:
        from gansmith.web.server import serve
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"the studio needs the extra `studio` ({error.name}): pip install 'gansmith[studio]'"
        ) from None

    serve(
        runs_dir, host=host, port=port, frames=_NOTEBOOKS if in_notebook else (),
        show=lambda address: _show(address, runs_dir, open_browser),
    )  # fmt: skip
    return 0


def _show(address: str, runs_dir: Path, open_browser: bool) -> None:
    print(f"studio of {runs_dir}: {address} (Ctrl-C ends it; trainings go on)", flush=True)
    if open_browser:
        import webbrowser

        webbrowser.open(address)
