"""The studio from Python: a server of its own, shown in a frame below a notebook's cell."""

import atexit
import html
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from gansmith import runs
from gansmith.errors import ConfigError

FOLDER = ".studio"


@dataclass(frozen=True)
class Served:
    """A studio that runs; shows itself in a notebook as a frame."""

    address: str
    process: "subprocess.Popen[str] | None" = None
    height_px: int = 820

    def _repr_html_(self) -> str:
        return (
            f'<iframe src="{html.escape(self.address)}" title="Gansmith studio" '
            f'style="width: 100%; height: {self.height_px}px; border: 0"></iframe>'
        )

    def close(self) -> None:
        """End the server; trainings go on."""
        if self.process is not None:
            self.process.terminate()
            self.process.communicate()


def studio(runs_dir: Path | str = "runs", *, port: int = 0, height_px: int = 820) -> Served:
    """Open the studio of a directory of runs, or the one that is open already; a notebook shows it in a frame.

    Args:
        port: 0 takes any free one.
        height_px: of the frame.

    >>> studio = gs.studio("runs")
    >>> studio.address
    'http://127.0.0.1:...'
    >>> studio.close()

    Raises ConfigError where it cannot be opened.
    """
    root = Path(runs_dir)
    if runs.is_locked(root / FOLDER):
        from gansmith.web.server import address_of

        return Served(address_of(root), height_px=height_px)
    words = [sys.executable, "-m", "gansmith", "studio", str(root), "--port", str(port)]
    with TemporaryFile("w+") as complaints:  # a pipe that nobody reads would stop the server once it is full
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=complaints, text=True)
        assert process.stdout is not None
        line = process.stdout.readline()
        if "http://" not in line:
            process.communicate()
            complaints.seek(0)
            raise ConfigError(complaints.read().strip().removeprefix("gansmith: ") or "the studio did not start")
    atexit.register(process.terminate)
    return Served("http://" + line.partition("http://")[2].split()[0], process, height_px)
