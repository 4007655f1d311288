"""Go through what a release needs; nothing is published.

    python scripts/release.py [--fast]

Each step prints ok or what is wrong. --fast leaves out the slow tests and the fresh environments. What a person does
afterwards is printed at the end.
"""

import argparse
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Where the version stands besides pyproject.toml; in the changelog, the newest section's.
VERSIONS = {
    "CITATION.cff": r"^version: (\S+)$",
    "CHANGELOG.md": r"^## (\d\S*)",
    "conda/meta.yaml": r'^{% set version = "(\S+)" %}$',
    "docs/cluster/kubernetes.yaml": r"/gansmith:(\S+)$",
    "docs/how-to/sharing.md": r"^\$ gansmith --version\n(\S+)$",
}
BY_HAND = """
Left for a person:
  1. Put the date of the day behind the version in CHANGELOG.md, and commit; then build again what holds it:
     python -m build && python -m twine check --strict {files}
  2. git tag -s v{version} && git push origin HEAD v{version}
  3. python -m twine upload {files}
  4. Copy the changelog's section into the release notes.
  5. Raise the version in pyproject.toml, CITATION.cff, conda/meta.yaml, docs/cluster/kubernetes.yaml and
     docs/how-to/sharing.md, and begin its section in CHANGELOG.md.
"""


def version() -> str:
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])


def versions_agree() -> str:
    """Return which files name another version than pyproject.toml does."""
    wrong = []
    for name, pattern in VERSIONS.items():
        found = re.search(pattern, (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
        if found is None or found[1] != version():
            wrong.append(f"{name} says {found and found[1]}, pyproject.toml {version()}")
    return "; ".join(wrong)


def nothing_uncommitted() -> str:
    done = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=True)
    return f"not committed: {done.stdout.strip()}" if done.stdout.strip() else ""


def command(*words: str) -> Callable[[], str]:
    """Return a step that runs a command, whose output is shown where it fails."""

    def run() -> str:
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
        return "" if done.returncode == 0 else f"{' '.join(words)} failed:\n{(done.stdout + done.stderr)[-3000:]}"

    return run


def python(*words: str) -> Callable[[], str]:
    return command(sys.executable, *words)


def built_files() -> list[str]:
    """Return the wheel and the source distribution of this version; dist/ may hold those of others."""
    names = (f"gansmith-{version()}-*.whl", f"gansmith-{version()}.tar.gz")
    return [path.relative_to(ROOT).as_posix() for name in names for path in sorted((ROOT / "dist").glob(name))]


def metadata_is_valid() -> str:
    """Return what twine finds wrong with the files that were built."""
    return (
        python("-m", "twine", "check", "--strict", *built_files())()
        if built_files()
        else "dist/ has no files of this version"
    )


STEPS: dict[str, Callable[[], str]] = {
    "versions agree": versions_agree,
    "nothing uncommitted": nothing_uncommitted,
    "format": command(sys.executable, "-m", "ruff", "format", "--check", "."),
    "lint": python("-m", "ruff", "check", "."),
    "types": python("-m", "mypy"),
    "documents": python("scripts/check_docs.py"),
    "site": python("scripts/build_site.py"),
    "wheel and source distribution": python("-m", "build"),
    "metadata": metadata_is_valid,
    "fast tests": python("-m", "pytest", "-q", "-n", "2"),
}
SLOW_STEPS: dict[str, Callable[[], str]] = {
    "slow tests": python("-m", "pytest", "-q", "-m", "slow"),
    "every command of the wheel, pip": python("scripts/smoke_wheel.py", "--extras"),
    "every command of the wheel, uv": python("scripts/smoke_wheel.py", "--installer", "uv"),
    "every command of the wheel, uv, Python 3.13": python(
        "scripts/smoke_wheel.py", "--installer", "uv", "--python", "python3.13", "--extras"
    ),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fast", action="store_true")
    options = parser.parse_args()
    wrong = 0
    for name, step in (STEPS if options.fast else STEPS | SLOW_STEPS).items():
        problem = step()
        wrong += bool(problem)
        print(f"{'WRONG' if problem else 'ok   '} {name}" + (f": {problem}" if problem else ""), flush=True)
    by_hand = BY_HAND.format(version=version(), files=" ".join(built_files()))
    print(f"{wrong} steps to mend" if wrong else by_hand)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
