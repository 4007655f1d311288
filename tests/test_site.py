"""The site: its pages, its navigation, the commands that its pages show, and what they print."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path, PurePosixPath

import build_site
import pytest
import reference_pages
import run_pages
import tricks
from cyclopts import CycloptsError
from PIL import Image

from gansmith.benchmarks.boards import RANKED
from gansmith.cli import _with_values, app
from gansmith.cli.training import train
from gansmith.config import FIELDS, resolve
from gansmith.errors import GansmithError, NotFoundError
from gansmith.metrics.distances import frechet_distance, frechet_of_moments

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PLACEHOLDERS = {"RECIPE": "default", "N": "1", "M": "1", "S": "1", "URL": "url"}  # what a page writes for a value


def commands_of(text):
    """Return the commands of a page's blocks, and those of its tables and sentences that have no placeholder."""
    lines = [
        line for kind, block in FENCE.findall(text) if kind in ("", "sh", "console") for line in block.splitlines()
    ]
    inline = re.findall(r"`(gansmith [^`]+)`", FENCE.sub("", text))
    found = []
    for line in [*lines, *inline]:
        for part in re.split(r"[;|>]|&&", line.split("#")[0].removeprefix("$ ")):
            if part.strip().startswith("gansmith ") and "..." not in part and "SMALL" not in part:
                words = re.sub(r"\[.*?\]", "", part).split(" ")
                found.append(" ".join(PLACEHOLDERS.get(word, word) for word in words).strip())
    return found


def problem_with(command):
    """Return what the command line says against a command, without running it."""
    words = _with_values([word for word in shlex.split(command)[1:] if word not in ("RUN_OR_FILE",)])
    if words[-1] in ("--help", "--version"):
        words = words[:-1]
        return "" if not words or app.parse_commands(words)[0] else f"no command {words}"
    if len(words) < 2 and words[0] not in (
        "list",
        "doctor",
    ):  # names a command, as in "what `gansmith evaluate` prints"
        return "" if words[0] in app else f"no command {words[0]}"
    try:
        function, bound, *_ = app.parse_args(words, exit_on_error=False, print_error=False)
        if function is train and "overrides" in bound.arguments:
            given = vars(bound.arguments["overrides"]).items()
            resolve(
                bound.arguments.get("recipe"), arguments={name: value for name, value in given if value is not None}
            )
    except (CycloptsError, GansmithError) as error:
        message = " ".join(str(error).split())
        return "" if "requires an argument" in message else message
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_that_a_page_shows_is_one_of_this_version(page):
    shown = {
        "gansmith train mlp-small --nz 100",
        "gansmith train mlp-small --lr 0.001",
        "gansmith train mlp-small --n-critic 5",
    }
    commands = [command for command in commands_of(page.read_text(encoding="utf-8")) if command not in shown]
    wrong = {command: problem for command in commands if (problem := problem_with(command))}
    assert wrong == {}


def test_numbers_are_read_alike_where_pydantic_is_loaded():
    """Which the command line's library then asks whether values have the types of their flags."""
    pytest.importorskip("pydantic")
    assert not problem_with("gansmith train mlp-small --images 2k --g-lr 3e-3 --seed 7")


def test_a_command_that_does_not_exist_is_noticed():
    assert problem_with("gansmith train mlp-small --learning-rate 1")
    assert problem_with("gansmith train mlp-small --batch-size 1")
    assert problem_with("gansmith paint run")
    assert not problem_with("gansmith train mlp-small --batch-size 32 --minutes 3")


def places_and_pages(folder):
    """Return the pages that the navigation names, and those that are written, both as paths within the site."""
    build_site.lay_out(folder)
    settings = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))
    written = {PurePosixPath(path.relative_to(folder).as_posix()) for path in folder.rglob("*.md")}
    return list(build_site.pages_in_order(settings["project"]["nav"])), written


def test_the_navigation_names_pages_that_exist_once_each(tmp_path):
    placed, written = places_and_pages(tmp_path / "pages")
    assert len(placed) == len(set(placed)) > 30
    assert set(placed) - written == set()


def test_the_pages_of_the_site_link_to_pages_that_exist(tmp_path):
    build_site.lay_out(tmp_path / "pages")
    broken = []
    for page in tmp_path.rglob("*.md"):
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)\s]+)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert broken == []


def test_the_settings_page_has_every_field_with_its_default_and_its_recipes():
    page = reference_pages.settings_page()
    rows = dict(re.findall(r"^\| `(\w+)` \|(.*)\|$", page, re.MULTILINE))
    assert rows.keys() == FIELDS.keys()
    assert "`64`" in rows["batch_size"] and "2 to 65,536" in rows["batch_size"]
    assert "`128`: vanilla-cs231n" in rows["batch_size"]
    assert "`none`, `diffaugment`" in rows["augment"] and "arXiv:2006.10738" in rows["augment"]


def test_every_measured_change_is_at_its_fields():
    effects, page = reference_pages.measured_effects(), reference_pages.TRICKS_PAGE.read_text(encoding="utf-8")
    assert effects.keys() <= FIELDS.keys()
    rows = dict(re.findall(r"^\| (.+?) \| .+? \| (\S+) \(", page, re.MULTILINE))
    assert rows.keys() == tricks.TRICKS.keys() and rows.pop(tricks.NOTHING) == "1.00"
    assert {text for texts in effects.values() for text in texts} == {
        f"{name}: {score}" for name, score in rows.items()
    }
    assert effects["spectral_norm"] == [f"spectral normalisation: {rows['spectral normalisation']}"]
    objectives = ("least squares", "hinge", "minimax", "relativistic", "boundary equilibrium", "auxiliary classifier")
    assert {f"{name}: {rows[name]}" for name in objectives} <= set(effects["objective"])


def commands_within(parent, words=()):
    """Yield every command below one, with its words."""
    for name in parent:
        if not name.startswith("-"):
            if parent[name].default_command:
                yield " ".join([*words, name]), parent[name]
            yield from commands_within(parent[name], (*words, name))


def test_every_flag_of_every_command_has_a_text():
    commands = dict(commands_within(app))
    assert len(commands) > 25 and "data inspect" in commands
    bare = [
        f"{words} {argument.name}"
        for words, command in commands.items()
        for argument in command.assemble_argument_collection(parse_docstring=True)
        if argument.show and not argument.parameter.help
    ]
    assert bare == []


def test_the_formulas_page_has_every_figure_of_a_verdict():
    page = reference_pages.formulas_page()
    for name in ("distances.frechet_distance", "distances.kid_against_splits", "inception.fid_of"):
        assert f"::: gansmith.metrics.{name}\n" in page
    for function in (frechet_distance, frechet_of_moments):
        assert "tr(S_r + S_f" in function.__doc__ and "arXiv:1706.08500" in function.__doc__


def test_the_gallery_has_every_recipe_of_a_board():
    page = (ROOT / "docs" / "explanation" / "gallery.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?) \|", page, re.MULTILINE)
    assert sorted(re.findall(r"`([\w-]+)`", " ".join(rows))) == sorted(RANKED)


def test_the_command_page_has_every_command_and_the_name_page_every_name():
    commands, names = reference_pages.commands_page(), reference_pages.names_page()
    for name in app:
        if not name.startswith("-"):
            assert f"## gansmith {name}\n" in commands
    for name in reference_pages.gansmith.__all__:
        assert re.search(rf"^(### {name}|::: gansmith\.[\w.]+\.{name})$", names, re.MULTILINE), name


def test_outputs_agree_but_for_numbers():
    assert run_pages.agrees("1,024 images at 3.1 s", "640 images  at 2e-05 s\n")
    assert run_pages.agrees("a\n...\nb 1", "a\nx\ny\nb 2")
    assert run_pages.agrees("a ... c", "a b c")
    assert not run_pages.agrees("1 image", "2 images")
    assert not run_pages.agrees("a\n...\nb", "a\nx\nc")


def test_a_block_of_the_how_to_pages_is_run_unless_its_page_says_why():
    fences = {
        (page.stem, line)
        for page in (ROOT / "docs" / "how-to").glob("*.md")
        for kind, block in FENCE.findall(page.read_text(encoding="utf-8"))
        if kind not in ("console", "pycon")
        for line in block.splitlines()
    }
    assert fences == {
        ("measuring", "gansmith evaluate RUN --fid --count 50000"),
        ("measuring", 'gs.evaluate(RUN, fid=True, count=50_000)["metrics"]["fid"]'),
    }


def test_a_picture_of_a_session_is_stored_where_its_page_shows_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page, text = tmp_path / "docs" / "page.md", '![Noise](images/a.png "runs/a/grid.png")'
    assert run_pages.run_page(text) == (text, ["no picture runs/a/grid.png"])
    (tmp_path / "runs" / "a").mkdir(parents=True)
    Image.effect_noise((64, 32), 90).save(tmp_path / "runs" / "a" / "grid.png")
    assert run_pages.run_page(text) == (text, [])
    run_pages.store_pictures(text, page, tmp_path)
    with Image.open(page.parent / "images" / "a.png") as stored:
        assert stored.size == (64, 32) and len(stored.getcolors()) <= run_pages.COLOURS


def test_stored_pictures_are_there_small_and_described():
    shown = [
        (page, picture)
        for page in run_pages.pages()
        for picture in re.findall(r'!\[(.*?)\]\((\S+\.png) "\S+"\)', page.read_text(encoding="utf-8"))
    ]
    assert {page.stem for page, _ in shown} >= {"own-pictures", "assignment"}
    for page, (text, place) in shown:
        assert len(text) > 20 and (page.parent / place).stat().st_size < 60_000, place
    stored = {path.name for path in (ROOT / "docs" / "images" / "tutorials").iterdir()}
    assert stored == {Path(place).name for _, (_, place) in shown}


def test_of_an_output_that_is_shown_in_part_only_that_part_is_renewed():
    shown = "$ train\n1 image\n...\nnote: 2 of ... are left\nFD 3\n$ diagnose\nfine\n"
    printed = "$ train\n4 image\nskipped\nnote: 5 of 6 are left\nFD 7\nFD 8\n$ diagnose\nfailed\n"
    assert run_pages.lines_shown(shown, printed) == (
        "$ train\n4 image\n...\nnote: 2 of ... are left\nFD 7\n$ diagnose\nfine\n"  # which `agrees` has refused
    )


@pytest.mark.slow
@pytest.mark.parametrize("page", run_pages.pages(), ids=lambda path: path.stem)
def test_the_commands_of_a_page_print_what_it_shows(page, tmp_path, monkeypatch):
    run_pages.lay_out_inputs(tmp_path)
    text = page.read_text(encoding="utf-8")
    if run_pages.WEB_EXPORT.search(text):
        monkeypatch.delenv("GANSMITH_OFFLINE")
        try:
            run_pages.place_runtime(tmp_path)
        except NotFoundError as error:
            pytest.skip(str(error))
    with run_pages.session(tmp_path):
        _, differences = run_pages.run_page(text)
    assert differences == []


@pytest.mark.slow
def test_the_python_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (block,) = [block for kind, block in FENCE.findall(PAGES[0].read_text(encoding="utf-8")) if kind == "python"]
    assert PAGES[0].name == "README.md" and "minutes=3)" in block
    exec(block.replace("minutes=3", "images=1_024"), {})
    printed, run = capsys.readouterr().out, tmp_path / "runs" / "0001-default-mnist"
    assert "FD ratio" in printed and f"<Run {Path('runs', run.name)}: finished, 1,024 images, FD ratio " in printed
    assert {"generator.onnx", "generator.h5", "generator.json"} <= {path.name for path in (run / "exports").iterdir()}
    with Image.open("2024.png") as picture:
        assert picture.width == picture.height


def test_the_settings_that_readers_choose_are_those_of_the_outputs():
    text = (ROOT / "docs" / "tutorials" / "index.md").read_text(encoding="utf-8")
    assert dict(re.findall(r" GANSMITH_(\w+)=(\w+)", text)) == run_pages.SETTINGS


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("zensical")
    placed, written = places_and_pages(tmp_path / "pages")
    assert written - set(placed) == set()  # every page has its place
    done = subprocess.run([sys.executable, "scripts/build_site.py"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (ROOT / "build" / "site" / "index.html").is_file()
    names = (ROOT / "build" / "site" / "reference" / "names.html").read_text(encoding="utf-8")
    assert "gansmith.api.train" in names
    assert "<blockquote>" not in names  # as which Markdown would show the examples of docstrings
