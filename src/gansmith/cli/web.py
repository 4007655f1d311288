"""`studio`: the web application."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from gansmith.cli.output import Whole
from gansmith.errors import ConfigError


def studio(
    runs_dir: Path = Path("runs"),
    /,
    *,
    host: str = "127.0.0.1",
    name: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    port: Whole = 8787,
    open_browser: Annotated[bool, Parameter(name="--open", negative=())] = False,
) -> int:
    """Open a web application on this machine: train, watch, explore and compare runs in a browser.

    Parameters
    ----------
    runs_dir
        Folder of the runs.
    host
        Address to listen on. Beyond this machine, as with 0.0.0.0, a token is asked for.
    name
        Another name by which browsers reach the studio, such as that of a reverse proxy with TLS; a token is asked for.
        Several times for several names.
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

    serve(runs_dir, host=host, names=name, port=port, show=lambda address: _show(address, runs_dir, open_browser))
    return 0


def _show(address: str, runs_dir: Path, open_browser: bool) -> None:
    print(f"studio of {runs_dir}: {address} (Ctrl-C ends it; trainings go on)", flush=True)
    if open_browser:
        import webbrowser

        webbrowser.open(address)
