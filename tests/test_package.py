"""What is published beside the code: its metadata, the conda recipe, completion, what a release needs."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import release
import smoke_wheel

from gansmith import cli

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Packages that conda-forge calls differently.
CONDA_NAMES = {"matplotlib": "matplotlib-base", "tensorboardX": "tensorboardx", "torch": "pytorch", "typst": "typst-py"}


def test_the_conda_recipe_has_the_requirements_of_the_package():
    recipe = (ROOT / "conda" / "meta.yaml").read_text(encoding="utf-8")
    run = re.search(r"^  run:\n(.*?)\n\n", recipe, re.DOTALL | re.MULTILINE)[1]
    listed = dict(re.findall(r"^    - (\S+) (\S+)$", run, re.MULTILINE))
    assert listed.pop("python") == PROJECT["requires-python"]
    parsed = [re.fullmatch(r"([\w.-]+)(\S+)", requirement).groups() for requirement in PROJECT["dependencies"]]
    assert listed == {CONDA_NAMES.get(name, name): bounds for name, bounds in parsed}
    assert f'version = "{PROJECT["version"]}"' in recipe


def test_versions_agree(tmp_path, monkeypatch):
    assert release.versions_agree() == ""
    for name in ("pyproject.toml", *release.VERSIONS):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    raised = (ROOT / "pyproject.toml").read_text(encoding="utf-8").replace(f'"{PROJECT["version"]}"', '"9.9.9"', 1)
    (tmp_path / "pyproject.toml").write_text(raised, encoding="utf-8")
    monkeypatch.setattr(release, "ROOT", tmp_path)
    wrong = release.versions_agree().split("; ")
    assert [line.split(" says ")[0] for line in wrong] == list(release.VERSIONS)
    assert all(name in release.BY_HAND for name in release.VERSIONS)


def test_only_files_of_this_version_are_uploaded(tmp_path, monkeypatch):
    monkeypatch.setattr(release, "ROOT", tmp_path)
    monkeypatch.setattr(release, "version", lambda: "0.2.0")
    (tmp_path / "dist").mkdir()
    for version in ("0.1.0", "0.2.0", "0.2.0.post1"):
        for name in (f"gansmith-{version}-py3-none-any.whl", f"gansmith-{version}.tar.gz"):
            (tmp_path / "dist" / name).touch()
    assert release.built_files() == ["dist/gansmith-0.2.0-py3-none-any.whl", "dist/gansmith-0.2.0.tar.gz"]
    assert "dist/*" not in release.BY_HAND


def test_the_smoke_test_names_commands_of_this_version():
    commands = {*cli.COMMANDS, *(f"data {name}" for name in cli.DATA_COMMANDS), "--version", "--help"}
    commands |= {f"bench {name}" for name in cli.BENCH_COMMANDS}
    for line in (*smoke_wheel.LINES, *smoke_wheel.EXTRA_LINES, *smoke_wheel.HELP_ONLY):
        assert commands & {line.split()[0], " ".join(line.split()[:2])}, line


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_completion_scripts_name_commands_and_flags(gansmith, shell):
    code, script, _ = gansmith("completion", shell)
    assert code == 0
    assert "stacked-mnist" in script and "batch-size" in script


@pytest.mark.skipif(not shutil.which("bash"), reason="has no bash")
def test_bash_completes_a_command(gansmith, tmp_path):
    script = tmp_path / "completion.bash"
    script.write_text(gansmith("completion", "bash")[1])
    ask = f"source {script}; COMP_WORDS=(gansmith eva); COMP_CWORD=1; _gansmith; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["evaluate"]


def line_for(shell):
    """Return the line of the install page that sets completion up for a shell."""
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    return next(line for line in page.splitlines() if f"gansmith completion {shell}" in line)


def test_the_line_for_zsh_registers_the_function_of_its_script(gansmith):
    script = gansmith("completion", "zsh")[1]
    registered = re.search(r"compdef (\w+) gansmith'", line_for("zsh"))[1]
    assert f"\n{registered}() {{\n" in script  # which the script itself does not register


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh")
def test_zsh_knows_the_command_after_the_line_of_the_page(tmp_path):
    line = line_for("zsh").replace("~", str(tmp_path))
    environ = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    environ |= {"HOME": str(tmp_path), "ZDOTDIR": str(tmp_path)}
    subprocess.run(["zsh", "-f", "-c", line], env=environ, check=True)
    ask = "print -r -- ${_comps[gansmith]}"
    done = subprocess.run(["zsh", "-i", "-c", ask], env=environ, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == re.search(r"compdef (\w+) gansmith'", line)[1]


def test_the_container_keeps_its_cache_in_the_mounted_folder():
    container = (ROOT / "Containerfile").read_text(encoding="utf-8")
    place = re.search(r"^WORKDIR (\S+)$\nENTRYPOINT", container, re.MULTILINE)[1]
    assert f"GANSMITH_CACHE={place}/" in container
    run = re.search(r"docker run .*", container)[0]
    assert f'--user "$(id -u):$(id -g)" -v "$PWD:{place}"' in run
    assert run in (ROOT / "docs" / "install.md").read_text(encoding="utf-8")


def start_s(*words: str) -> float:
    """Return the least processor time of three starts of Python with these words."""
    code = (
        "import resource, subprocess, sys; subprocess.run([sys.executable, *sys.argv[1:]], check=True, "
        "stdout=subprocess.DEVNULL); print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime)"
    )
    command = [sys.executable, "-c", code, *words]
    return min(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(3))


def test_starting_costs_little():
    """Beside modules of Python's own, on the same machine: two and six times as much was measured."""
    own_s = start_s("-c", "import argparse, json, logging")
    assert 0 < start_s("-c", "import gansmith") < 5 * own_s
    assert start_s("-m", "gansmith", "--help") < 20 * own_s
