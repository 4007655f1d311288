"""A process that trains one job of the queue by the command line's own words, and outlives the server.

python -m gansmith.web.trainer .studio/jobs/0007
"""

import _thread
import sys
import threading
import time
from pathlib import Path

from gansmith import runs
from gansmith.cli import main as run_command_line
from gansmith.errors import RunError
from gansmith.files import read_json, write_json
from gansmith.web.jobs import is_job
from gansmith.workers.process import define_own_rows

_LOOK_S = 0.3


def train(folder: Path) -> int:
    """Train the job in a folder to its end, or until a file `stop` appears in it; returns the command's exit code."""
    with runs.locked(folder):
        job = read_json(folder / "job.json")
        if not is_job(job):
            raise RunError(f"{folder} holds no training of a studio")
        sys.argv = ["gansmith", *job["words"]]
        threading.Thread(target=_watch, args=(folder / "stop",), daemon=True).start()
        code = 130
        define_own_rows()
        try:
            run_command_line()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        except KeyboardInterrupt:  # while data were loaded: there is nothing to save yet
            pass
        write_json(folder / "result.json", {"code": code})
    return code


def _watch(stop: Path) -> None:
    """Interrupt the main thread, as Ctrl-C does, once the file is there."""
    while not stop.exists():
        time.sleep(_LOOK_S)
    _thread.interrupt_main()


if __name__ == "__main__":
    try:
        sys.exit(train(Path(sys.argv[1])))
    except RunError as error:
        sys.exit(f"gansmith: {error}")
