"""Install a wheel in a fresh environment and run every command of it, away from the repository.

    python scripts/smoke_wheel.py [WHEEL] [--extras] [--python python3.11] [--installer pip|uv] [--environment FOLDER]

Without WHEEL, the newest one of dist/. torch is installed first and pinned, by pip, since other installers take a build
for graphics cards. With --extras, commands that need EXTRAS run too. No command may use the network. Prints a line for
each command, and ends with 1 where one fails.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[1]
SMALL = "--images 512 --batch-size 32 --g-width 8 --d-width 8 --threads 1 --trackers none --progress plain"
# A line for each command, in an order in which later ones find the runs of earlier ones.
LINES = (
    "--version",
    "--help",
    "doctor",
    "list",
    "describe mlp-small",
    "completion bash",
    "data check mnist",
    "data export mnist --split train --out real.npz",
    "data export mnist --split validation --out real",
    "data inspect real",
    f"train mlp-small {SMALL} --out run",
    f"train cgan-keras {SMALL} --out labelled",
    "resume run --images 640 --progress plain",
    "sample run --count 9 --out grid.png",
    "sample labelled --labels 7 --count 4 --out seven.npz",
    "walk run --seeds 0,1 --steps 3 --out walk.gif",
    "film run --out film.gif",
    "plot run curves --out curves.png",
    "plot run neighbours --out neighbours.png",
    "invert run real/7/00000.png --out found.png",
    "evaluate run --quick --count 200",
    "compare run labelled --quick --count 200",
    "diagnose run",
    "report run --out report.html",
    "report run --out report.pdf",
    "export run --format safetensors --out exported",
    "sample exported/generator.safetensors --count 2 --out from-export.png",
    "course class --data real.npz",
    "bench gaussians --images 256 --out ring",
    "ablate mlp-small --without beta1 --images 256 --seeds 2 --out ablation",
)
# The same of commands that need an extra, or run for long; with --extras.
EXTRA_LINES = (
    "export run --format all --out all",
    "sample all/generator.onnx --count 2 --out from-onnx.png",
    "sample all/generator.keras --count 2 --out from-keras.png",
    "handin run --out submissions/student.zip",
    "grade submissions --settings class/grade.toml --out grades",
    "sweep mlp-small --search g-lr --trials 2 --images 256 --threads 1 --out sweep",
    "sweep sweep --best --out recipe.toml",
    "bench losses --images 256 --seeds 1 --quick --out losses",
    "bench recipes mlp-small --images 256 --seeds 1 --out recipes",
    "bench stacked-mnist --images 256 --samples 260 --out stacked",
)
EXTRAS = "keras,onnx,search,studio,teaching"
# Commands that need the network, and without --extras those that need one of these.
HELP_ONLY = ("data fetch", "studio", "sweep", "grade", "handin", "bench stacked-mnist", "bench losses", "bench recipes")


def make_environment(folder: Path, wheel: str, python: str, installer: str) -> Path:
    """Return the folder of programs of an environment with the wheel, new unless the folder holds one already."""
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    if (programs / "gansmith").exists():
        return programs
    subprocess.run([python, "-m", "venv", folder], check=True)
    constraints = ["--constraint", str(ROOT / "constraints.txt")]
    pip = [str(programs / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *constraints, "torch"], check=True)
    if installer == "uv":
        subprocess.run([*pip, "uv"], check=True)
        pip = [str(programs / "python"), "-m", "uv", "pip", "install", "--quiet", "--python", str(programs / "python")]
    subprocess.run([*pip, *constraints, wheel], check=True)
    return programs


def studio_answers(programs: Path, environ: dict[str, str], folder: Path) -> bool:
    """Return whether the web application starts, gives its page and ends."""
    words = [programs / "gansmith", "studio", "runs", "--port", "0"]
    with subprocess.Popen(words, env=environ, cwd=folder, stdout=subprocess.PIPE, text=True) as server:
        try:
            line = server.stdout.readline()
            print(f"   {line.rstrip()}", flush=True)
            with urllib.request.urlopen(re.search(r"http://\S+", line)[0], timeout=20) as page:
                return b"<title>" in page.read()
        finally:
            server.terminate()


def missing_commands(programs: Path, environ: dict[str, str], folder: Path) -> list[str]:
    """Return the commands that neither LINES nor HELP_ONLY has."""
    code = (
        "from gansmith import cli; "
        "groups = {'': cli.COMMANDS, 'data ': cli.DATA_COMMANDS, 'bench ': cli.BENCH_COMMANDS}; "
        "print('\\n'.join(group + name for group, rows in groups.items() for name in rows))"
    )
    done = subprocess.run(
        [programs / "python", "-c", code], env=environ, cwd=folder, check=True, capture_output=True, text=True
    )
    known = (*LINES, *EXTRA_LINES, *HELP_ONLY)
    return [name for name in done.stdout.splitlines() if not any(f"{line} ".startswith(f"{name} ") for line in known)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", nargs="?", type=Path)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--installer", choices=("pip", "uv"), default="pip")
    parser.add_argument("--environment", type=Path, help="folder to keep the environment in, used again the next time")
    parser.add_argument("--install-only", action="store_true")
    parser.add_argument("--extras", action="store_true")
    options = parser.parse_args()
    wheel = options.wheel or max((ROOT / "dist").glob("*.whl"), key=lambda path: path.stat().st_mtime)
    failed = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        place = options.environment or folder / "venv"
        wanted = f"{wheel.absolute()}[{EXTRAS}]" if options.extras else str(wheel.absolute())
        programs = make_environment(place.absolute(), wanted, options.python, options.installer)
        if options.install_only:
            return 0
        environ = {key: value for key, value in os.environ.items() if not key.startswith(("GANSMITH_", "PYTHON"))}
        environ |= {"GANSMITH_OFFLINE": "1", "GANSMITH_CACHE": str(folder / "cache")}
        extra = missing_commands(programs, environ, folder)
        (folder / "submissions").mkdir()
        more = EXTRA_LINES if options.extras else ()
        for line in [*LINES, *more, *(f"{command} --help" for command in [*HELP_ONLY, *extra])]:
            begun = time.perf_counter()
            program = shutil.which("gansmith", path=str(programs))
            done = subprocess.run(
                [program, *line.split()], env=environ, cwd=folder, capture_output=True, text=True, check=False
            )
            ok = done.returncode == 0
            print(f"{'ok' if ok else 'FAILS'} {time.perf_counter() - begun:5.1f} s  gansmith {line}", flush=True)
            if not ok:
                failed.append(line)
                print(done.stdout[-500:] + done.stderr[-2000:], flush=True)
        if options.extras and not studio_answers(programs, environ, folder):
            failed.append("studio")
    print(f"{wheel.name}: {len(failed)} commands failed" if failed else f"{wheel.name}: every command ran")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
