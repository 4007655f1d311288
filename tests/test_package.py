"""What is published beside the code: its metadata, the conda recipe, completion, what a release needs."""

import re
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


def test_versions_agree():
    assert release.versions_agree() == ""


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


def test_bash_completes_a_command(gansmith, tmp_path):
    script = tmp_path / "completion.bash"
    script.write_text(gansmith("completion", "bash")[1])
    ask = f"source {script}; COMP_WORDS=(gansmith eva); COMP_CWORD=1; _gansmith; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["evaluate"]


@pytest.mark.parametrize(("words", "limit_s"), [(["-c", "import gansmith"], 0.15), (["-m", "gansmith", "--help"], 0.6)])
def test_starting_costs_little(words, limit_s):
    """Three times what was measured on a quiet core, so that a busy machine does not fail it."""
    code = (
        "import resource, subprocess, sys; subprocess.run([sys.executable, *sys.argv[1:]], check=True, "
        "stdout=subprocess.DEVNULL); print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert 0 < float(done.stdout) < limit_s
