"""The studio's pages in headless Chromium: each at two widths in light and dark, without errors or requests outside.

Skipped where no browser is installed. STUDIO_SCREENSHOTS names a folder that keeps the pictures; the pictures of the
docs are of real runs, in the folder that STUDIO_SCREENSHOT_RUNS names.
"""

import base64
import contextlib
import io
import itertools
import json
import os
import re
import shlex
import shutil
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import CHROMIUM, wait_until
from PIL import Image
from test_web import Server, end_trainings, make_run

from gansmith import runs
from gansmith.advice import ADVICE, SOURCES
from gansmith.config import FIELDS, resolve
from gansmith.web.jobs import Jobs
from gansmith.web.learn import KEPT

playwright = pytest.importorskip("playwright.sync_api")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")]

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]  # fmt: skip
HEIGHTS = {1280: 860, 390: 844}
SHORT = [pytest.param(width, theme, marks=pytest.mark.browser) for width, theme in ((1280, "light"), (390, "dark"))]


@pytest.fixture(scope="module")
def root(tmp_path_factory, digit_dir: Path) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for name, changes in {"0001-default-mnist": {}, "0002-slow": {"g_lr": 1e-4}}.items():
        make_run(folder, name, digit_dir, **changes)
    colors = tmp_path_factory.mktemp("colors")
    for k in range(64):  # without classes
        Image.fromarray(np.random.default_rng(k).integers(0, 255, (16, 16, 3), np.uint8)).save(colors / f"{k}.png")
    make_run(folder, "0003-colors", digit_dir, data=str(colors), data_dir="", conditioning="none")
    return folder


def runs_of(root: Path) -> Path:
    """Return the runs that the pages show: those of a folder named by the caller, for screenshots of real ones."""
    return Path(os.environ.get("STUDIO_SCREENSHOT_RUNS", root))


@pytest.fixture(scope="module")
def server(root):
    opened = Server(runs_of(root))
    yield opened
    assert "Traceback" not in opened.close()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield opened
        opened.close()


@contextlib.contextmanager
def watched_page(browser, address: str):
    """Give a page; an error in its console, a failed request and a request to anywhere else than `address` fail."""
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    opened = context.new_page()
    problems: list[str] = []
    opened.on("console", lambda said: problems.append(said.text) if said.type in ("error", "warning") else None)
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("requestfailed", lambda asked: note_failure(asked, problems))
    opened.on("response", lambda got: problems.append(f"{got.status} {got.url}") if got.status >= 400 else None)
    own = (address, "data:", "blob:")
    opened.on("request", lambda asked: None if asked.url.startswith(own) else problems.append(asked.url))
    yield opened
    context.close()
    assert not problems


@pytest.fixture
def page(browser, server):
    with watched_page(browser, server.address) as opened:
        yield opened


def note_failure(asked, problems: list[str]) -> None:
    if "ERR_ABORTED" not in str(asked.failure):  # newest wins: older requests are given up
        problems.append(f"{asked.url}: {asked.failure}")


def keep(page, name: str) -> None:
    folder = os.environ.get("STUDIO_SCREENSHOTS")
    if folder:
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=not name.endswith("-fold"))


def settle(page) -> None:
    page.locator("main .skeleton").first.wait_for(state="detached", timeout=60_000)
    page.wait_for_timeout(700)


def address(page) -> str:
    """Return the address of a page as it is now; changes of one soon after another are written together."""
    return page.evaluate("location.href")


def pages(names: list[str]) -> dict[str, str]:
    return {
        "runs": "/", "run": f"/runs/{names[0]}", "new": "/new", "explore-choose": "/explore",
        "explore": f"/explore/{names[0]}?seed=3&pins=3.0.1_3.4.2", "compare": f"/compare?runs={names[0]},{names[1]}",
        "run-last": f"/runs/{names[-1]}", "explore-last": f"/explore/{names[-1]}",
        "nothing": "/compare", "learn": "/learn", "learn-digits": "/learn?lesson=r1&step=3",
    }  # fmt: skip


@pytest.mark.parametrize(("width", "theme"), SHORT + [(1280, "dark"), (390, "light")])
def test_every_page_opens_and_fits(page, server, width, theme):
    names = [card["id"] for card in server.json("GET", "/api/v1/runs")["runs"]]
    page.set_viewport_size({"width": width, "height": HEIGHTS[width]})
    page.emulate_media(color_scheme=theme)
    for name, path in pages(names).items():
        page.goto(server.address.rstrip("/") + path)
        settle(page)
        keep(page, f"{name}-{width}-{theme}")
        assert page.locator("h1").count() == 1, name
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{name} is {wide} pixels wider than {width}"
        if name == "runs":
            assert page.locator(".card .meta .grow", has_text="images").first.is_visible()
            assert page.locator("#bar .load").is_visible()


@pytest.mark.parametrize("theme", [pytest.param("light", marks=pytest.mark.browser), "dark"])
def test_pages_are_accessible(page, server, theme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    names = [card["id"] for card in server.json("GET", "/api/v1/runs")["runs"]]
    page.emulate_media(color_scheme=theme)
    found = []
    for name, path in pages(names).items():
        page.goto(server.address.rstrip("/") + path)
        settle(page)
        for violation in axe.Axe().run(page).response["violations"]:
            found += [f"{name}: {violation['id']}: {node['html'][:160]}" for node in violation["nodes"][:3]]
    assert not found, "\n".join(found)


@pytest.mark.browser
def test_a_person_pins_walks_and_compares_with_the_keyboard(page, server):
    name = server.json("GET", "/api/v1/runs")["runs"][0]["id"]
    page.goto(f"{server.address}explore/{name}?seed=5")
    settle(page)
    page.locator(".tile").first.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_selector(".pins .tile >> nth=1")
    wait_until(lambda: re.search(r"pins=5\.0\.\d+_5\.6\.\d+", address(page)))
    page.get_by_role("button", name="Walk between them").click()
    page.get_by_role("img", name="The image at this place of the walk").wait_for()
    page.get_by_role("button", name="Close").click()
    page.locator(".pins .tile").first.drag_to(page.locator(".pins .tile").nth(1))
    page.get_by_role("img", name="The image at this place of the walk").wait_for()
    page.reload()  # the address opens the same view
    settle(page)
    assert page.locator(".pins .tile").count() == 2
    page.keyboard.press("?")
    page.get_by_role("dialog").wait_for()
    page.keyboard.press("Escape")
    assert page.get_by_role("dialog").count() == 0


@pytest.mark.browser
def test_commands_are_shown_that_run_where_the_studio_was_started(page, server, root):
    run = shlex.quote(str(runs_of(root) / server.json("GET", "/api/v1/runs")["runs"][0]["id"]))
    name = run.rsplit("/", 1)[1]
    seen = server.json("GET", f"/api/v1/runs/{name}")["checkpoints"][-1]
    expected = {
        f"explore/{name}?seed=3": [f"gansmith sample {run} --seed 3 --count 25", f'gs.sample("{run}", 25, seed=3)'],
        f"compare?runs={name},{name}@{seen}&seed=7": [
            f"gansmith compare {run} {run}/checkpoints/{seen:09d} --seed 7",
            f'gs.compare("{run}", "{run}/checkpoints/{seen:09d}", seed=7)',
        ],
        f"runs/{name}": [f"gansmith resume {run}", f'gs.evaluate("{run}")'],
        "new?recipe=r3gan": ["gansmith train r3gan --minutes 3", "gs.train('r3gan', minutes=3)"],
        "learn?lesson=what-d-sees&step=9": ["gansmith train mlp-small --minutes 2", 'gs.train("mlp-small", minutes=2)'],
    }
    for path, lines in expected.items():
        page.goto(server.address + path)
        settle(page)
        panel = page.locator("details", has=page.locator("summary", has_text="The same in a terminal, in Python"))
        panel.evaluate("panel => panel.open = true")
        for line in lines:
            panel.locator("code", has_text=line).first.wait_for(timeout=10_000)


@pytest.mark.browser
def test_failed_and_running_evaluations_are_shown(page, server, root):
    name = server.json("GET", "/api/v1/runs")["runs"][0]["id"]
    jobs = Jobs(runs_of(root))
    failed = jobs.add(["evaluate", name], run=name, title=f"evaluation of {name}")
    (jobs.folder / failed["id"] / "output.log").write_text("gansmith: its data are gone\n")
    (jobs.folder / failed["id"] / "result.json").write_text('{"code": 2}')
    page.goto(f"{server.address}runs/{name}")
    page.get_by_text("The evaluation failed: its data are gone").wait_for()
    page.goto(server.address)
    page.get_by_text(f"evaluation of {name} failed: its data are gone").wait_for()
    page.get_by_role("button", name="Dismiss").click()
    page.get_by_role("button", name="Dismiss").wait_for(state="detached")
    assert jobs.all() == []
    running = jobs.add(["evaluate", name], run=name, title=f"evaluation of {name}")
    with runs.locked(jobs.folder / running["id"]):
        page.get_by_text("is running").wait_for()
        page.goto(f"{server.address}runs/{name}")
        page.get_by_role("button", name="Cancel").click()
        page.get_by_text(f"evaluation of {name}: stops").wait_for()
        assert (jobs.folder / running["id"] / "stop").exists()
    shutil.rmtree(jobs.folder / running["id"])


def test_the_focus_stays_while_runs_change(page, server, root, digit_dir):
    run = make_run(runs_of(root), "0004-growing", digit_dir)
    (run.directory / "checkpoints").rename(run.directory / "later")
    held = "() => document.activeElement.closest('[data-run]')?.dataset.run + ' ' + document.activeElement.tagName"
    for path, role in (("", "checkbox"), ("", "link"), ("explore", "link")):
        page.goto(server.address + path)
        page.locator('[data-run="0004-growing"]').get_by_role(role).focus()
        newest = run.grids()[-1][1]
        shutil.copy(newest, newest.with_name(f"{int(newest.stem) + 64:09d}.png"))
        page.locator(f'[data-run="0004-growing"] img[src$="{int(newest.stem) + 64}"]').wait_for()
        assert page.evaluate(held) == f"0004-growing {'A' if role == 'link' else 'INPUT'}"
    with runs.locked(run.directory):
        run.record(status="running")
        page.get_by_role("link", name="Training 0004-growing").focus()
        newest = run.grids()[-1][1]
        shutil.copy(newest, newest.with_name(f"{int(newest.stem) + 64:09d}.png"))
        page.locator(f'.running img[src$="{int(newest.stem) + 64}"]').wait_for()
        assert page.evaluate("document.activeElement.ariaLabel") == "Training 0004-growing"
    page.goto(f"{server.address}runs/0004-growing")
    page.get_by_text("Nothing is saved yet").wait_for()
    page.get_by_text("Gates (memorisation").wait_for()
    page.get_by_text("validation FD ratio").first.focus()
    (run.directory / "later").rename(run.directory / "checkpoints")  # the first one
    page.get_by_role("button", name="safetensors.zip").wait_for()
    assert page.evaluate("document.activeElement.textContent") == "validation FD ratio"
    shutil.rmtree(run.directory)


def focused(page) -> str:
    return page.evaluate("document.activeElement.ariaLabel ?? document.activeElement.textContent")


@pytest.mark.browser
def test_the_focus_moves_on_where_its_control_goes(page, server):
    name, other = [card["id"] for card in server.json("GET", "/api/v1/runs")["runs"]][:2]
    page.goto(f"{server.address}explore/{name}?seed=5&pins=3.0.1_3.4.2&steps=1")
    settle(page)
    page.get_by_text("moved in").wait_for()
    page.get_by_role("button", name="Reset").press("Enter")
    page.wait_for_timeout(700)
    assert focused(page) == "Reset"
    page.get_by_role("button", name="In every class").click()
    page.get_by_role("region", name="Classes by styles").wait_for()
    page.get_by_role("button", name="Close").press("Enter")
    assert page.evaluate("document.activeElement !== document.body")
    for left in ("Pinned image 1: unpin", "Pinned"):
        page.get_by_role("button", name="Pinned image 1: unpin").press("Enter")
        page.wait_for_timeout(700)
        assert focused(page).startswith(left)
    page.goto(f"{server.address}compare?runs={name},{other}")
    settle(page)
    checkpoint = page.get_by_role("combobox", name=f"Checkpoint of {other}")
    for k in (1, 2):
        checkpoint.press("ArrowDown")
        page.wait_for_timeout(300)
        assert focused(page) and checkpoint.evaluate("(it) => it === document.activeElement && it.selectedIndex") == k
    seen = checkpoint.input_value()
    wait_until(lambda: address(page).endswith(f"{other}%40{seen}"))
    assert page.get_by_text(f"000000{seen}").first.is_visible()
    page.get_by_role("button", name=f"Remove {name}").press("Enter")
    page.wait_for_timeout(500)
    assert focused(page) == f"Remove {other}" or page.evaluate("document.activeElement.tagName") == "A"
    page.goto(f"{server.address}learn")
    settle(page)
    page.get_by_role("button", name="Train D alone").press("Enter")
    assert focused(page) == "Train D alone"
    page.get_by_role("button", name="Next step").press("Enter")
    assert focused(page) in ("Next step", "On digits")


@pytest.mark.browser
def test_explanations_stay_inside_the_window(page, server):
    name = server.json("GET", "/api/v1/runs")["runs"][0]["id"]
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 844})
        page.goto(f"{server.address}runs/{name}")
        settle(page)
        term = page.locator(".tip", has_text="validation FD ratio").first
        for show in (term.hover, term.focus):
            show()
            note = page.get_by_role("tooltip")
            note.wait_for()
            box = note.bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= width and box["y"] + box["height"] <= 844
            assert "1.00 = as close as other real images" in note.text_content()
        page.keyboard.press("Escape")
        assert note.is_hidden()


@pytest.mark.browser
def test_curves_of_other_runs_are_added_shown_whole_and_removed(page, server, root, digit_dir):
    names = [card["id"] for card in server.json("GET", "/api/v1/runs")["runs"]]
    run = make_run(runs_of(root), "0007-longer", digit_dir, images=512)
    page.goto(f"{server.address}runs/{names[0]}")
    settle(page)
    page.get_by_role("combobox", name="Lay another run").select_option("0007-longer")
    page.wait_for_timeout(2500)  # in which news of all runs arrive
    page.get_by_role("button", name="Add the chosen run").click()
    page.get_by_role("button", name="Remove 0007-longer from the curves").wait_for()
    page.wait_for_timeout(500)
    assert page.evaluate("document.querySelector('.chart').layout.xaxis.range[1]") == 512
    page.get_by_role("button", name="Table").click()
    headers = page.locator("[aria-label=Figures] th").all_text_contents()
    assert {"images seen", "losses: D", "losses: 0007-longer: D", "validation FD ratio: 0007-longer"} <= set(headers)
    assert page.locator("[aria-label=Figures] tbody tr").last.locator("td").first.text_content() == "512"
    page.reload()
    page.get_by_role("button", name="Remove 0007-longer from the curves").click()
    wait_until(lambda: "over=" not in address(page))
    page.goto(f"{server.address}compare?runs={names[0]},0007-longer")
    settle(page)
    page.get_by_role("button", name="Table").click()
    assert "D loss: 0007-longer" in page.locator("[aria-label=Figures] th").all_text_contents()
    shutil.rmtree(run.directory)


@pytest.mark.browser
def test_a_file_that_is_being_made_can_be_given_up(page, server):
    name = server.json("GET", "/api/v1/runs")["runs"][0]["id"]
    page.goto(f"{server.address}runs/{name}")
    settle(page)
    page.route("**/share/onnx.zip", lambda route: None)  # never answered
    page.get_by_role("button", name="onnx.zip").press("Enter")
    page.get_by_role("button", name="Cancel onnx.zip").press("Enter")
    page.get_by_text("onnx.zip is cancelled").wait_for()
    assert page.get_by_role("button", name="onnx.zip", exact=True).evaluate("(it) => it === document.activeElement")


@pytest.mark.browser
def test_the_lines_of_the_explorer_draw_what_it_shows(page, server, root):
    name = server.json("GET", "/api/v1/runs")["runs"][0]["id"]
    page.goto(f"{server.address}explore/{name}?seed=6&word=07&pins=9.1.1_3.4.2&steps=2_-1.5&variety=0.5")
    settle(page)
    page.get_by_text("moved in").wait_for()
    page.get_by_role("button", name="In every class").click()
    page.get_by_role("region", name="Classes by styles").wait_for()
    shown = {"Directions": "canvas", "Write": ".tiles canvas", "Pinned styles in every class": ".tiles canvas"}
    for title, canvases in shown.items():
        panel = page.locator(".panel", has=page.get_by_role("heading", name=title)).last
        line = panel.get_by_role("group", name="Python", include_hidden=True).locator("code").text_content()
        found = dict[str, object]()
        exec(f"import gansmith as gs; {line}", found)
        images = [row.numpy() if isinstance(row, torch.Tensor) else row for row in found["images"]]
        drawn = panel.locator(canvases).evaluate_all(
            "all => all.map((it) => [...it.getContext('2d').getImageData(0, 0, 28, 28).data])"
            ".map((numbers) => numbers.filter((_, k) => k % 4 === 0))"
        )
        np.testing.assert_array_equal(np.array(images).reshape(-1, 28, 28), np.array(drawn).reshape(-1, 28, 28))
    page.get_by_role("button", name="Nearest training images").click()
    panel = page.locator(".panel", has=page.get_by_role("heading", name="Nearest training images"))
    line = panel.get_by_role("group", name="Python", include_hidden=True).locator("code")
    exec(f"import gansmith as gs; {line.text_content()}", found)
    assert found["images"].shape == (9, 1, 28, 28)
    page.get_by_role("button", name="Walk between them").click()
    panel = page.locator(".panel", has=page.get_by_role("heading", name="A walk between the pinned images"))
    line = panel.get_by_role("group", name="Python", include_hidden=True).locator("code").text_content()
    exec(f"import gansmith as gs; {line}", found)
    place = panel.get_by_role("slider")
    assert found["images"].shape == (int(place.get_attribute("max")) + 1, 1, 28, 28)
    place.fill("17")
    drawn = panel.get_by_role("img", name="The image at this place").evaluate(
        "(it) => [...it.getContext('2d').getImageData(0, 0, 28, 28).data].filter((_, k) => k % 4 === 0)"
    )
    np.testing.assert_array_equal(found["images"][17].flatten().tolist(), drawn)


@pytest.mark.browser
def test_the_form_is_reopened_by_its_address_and_says_what_is_wrong(page, server, root):
    page.goto(f"{server.address}new")
    settle(page)
    assert "?" not in page.url
    page.get_by_role("button", name="fashion-mnist").click()
    page.get_by_role("button", name=re.compile("^r3gan")).click()
    page.get_by_role("spinbutton", name="Length", exact=True).fill("7")
    page.get_by_role("combobox", name="Length in").select_option("epochs")
    page.locator("summary", has_text="4 Options").click()
    page.get_by_role("searchbox", name="Search options").fill("objective")
    page.locator("#field-objective").select_option("hinge")
    bar = page.locator(".foot")
    bar.get_by_text("gansmith train r3gan --epochs 7 --data fashion-mnist --objective hinge").wait_for()
    wait_until(lambda: "hinge" in address(page))
    page.reload()
    bar.get_by_text("gansmith train r3gan --epochs 7 --data fashion-mnist --objective hinge").wait_for()
    page.get_by_role("combobox", name="Length in").select_option("minutes")
    page.get_by_role("spinbutton", name="Length", exact=True).fill("-5")
    bar.get_by_text("The length must be above 0.").wait_for()
    assert (
        page.get_by_role("button", name="Start", exact=True).is_disabled()
        and "-5" not in page.locator("main").inner_text()
    )
    page.get_by_role("spinbutton", name="Length", exact=True).fill("5")
    bar.get_by_text("--minutes 5").wait_for()
    config = resolve("default", arguments={"start_from": "weights.safetensors"})
    copied = runs.create_run(runs_of(root) / "0008-begun", config).directory
    page.goto(f"{server.address}new?from=0008-begun")
    page.get_by_text("Not taken over, since a form cannot set it: start_from (weights.safetensors).").wait_for()
    shutil.rmtree(copied)


@pytest.mark.browser
def test_fingers_find_buttons_and_each_card_its_name(browser, server):
    context = browser.new_context(viewport={"width": 1024, "height": 768}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto(server.address)
    settle(page)
    for card in server.json("GET", "/api/v1/runs")["runs"]:
        assert page.locator(f'[data-run="{card["id"]}"] a').get_by_text(card["id"], exact=True).is_visible()
    pick = page.locator(".pick").first
    assert pick.evaluate("(it) => getComputedStyle(it).opacity") == "1"
    assert (
        min(
            box[side]
            for box in (pick.bounding_box(), page.get_by_role("link", name="New run").bounding_box())
            for side in ("width", "height")
        )
        >= 44
    )
    context.close()


def test_options_show_the_values_of_the_chosen_recipe(page, server):
    page.goto(f"{server.address}new")
    settle(page)
    page.locator("summary", has_text="4 Options").click()
    page.get_by_role("searchbox", name="Search options").fill("batch_size")
    rows = {row["name"]: row["values"] for row in server.json("GET", "/api/v1/recipes")["recipes"]}
    shown = page.locator("#field-batch_size")
    for name in ("wgan-gp", "default"):
        page.get_by_role("button", name=re.compile(f"^{name}[A-Z ]")).click()
        assert shown.get_attribute("placeholder") == str(rows[name].get("batch_size", FIELDS["batch_size"].default))
    assert rows["wgan-gp"].get("batch_size") != rows["default"].get("batch_size")
    page.get_by_role("searchbox", name="Search options").fill("r1")
    assert page.get_by_text(f"When: {ADVICE['r1_gamma']}.").is_visible()
    assert page.get_by_text(f"Source: {SOURCES['r1_gamma']}.").first.is_visible()
    keep(page, "options-1280-light")


def test_a_step_of_a_lesson_asks_for_the_one_before_it(page, server):
    page.goto(f"{server.address}learn?lesson=overfitting&step=3")
    settle(page)
    page.locator("section.lesson button.primary").first.click()
    page.get_by_text("This step goes on with the pair of the step before it").wait_for()
    page.wait_for_timeout(700)
    assert not page.locator("p.seen").count() and page.get_by_role("button", name="Play").count()
    page.get_by_role("button", name="Back").click()
    assert not page.get_by_text("This step goes on").count()


def test_a_pair_that_was_let_go_is_said(page, server):
    page.goto(f"{server.address}learn")
    settle(page)
    page.get_by_role("button", name="Train D alone").click()
    wait_until(lambda: int(re.sub(r"\\D", "", page.locator(".numbers dd").first.inner_text()) or 0) > 20)
    page.get_by_role("button", name="Pause").click()
    body = {
        "choices": server.json("GET", "/api/v1/learn")["start"],
        "restart": True,
        "steps": 0,
        "seed": 0,
        "field_of": 0,
    }
    for k in range(KEPT):  # other pages
        server.json("POST", "/api/v1/learn", {"pair": f"{k:016x}", **body})
    page.get_by_role("button", name="Play").click()
    page.get_by_text("This pair was not used for a while").wait_for()


def test_a_pointer_on_the_curves_peeks_and_a_click_stays(page, server, root):
    name = server.json("GET", "/api/v1/runs")["runs"][0]["id"]
    page.goto(f"{server.address}runs/{name}")
    settle(page)
    slider = page.get_by_role("slider", name="Training frame")
    newest = slider.get_attribute("max")
    plot = page.locator(".chart .nsewdrag").first
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    places = itertools.cycle(range(8, int(box["width"] / 2), 8))  # until the pointer is near a figure

    def is_peeking() -> bool:
        page.mouse.move(box["x"] + next(places), box["y"] + 20)
        page.wait_for_timeout(100)
        return slider.input_value() != newest

    wait_until(is_peeking, seconds=20)
    page.mouse.move(2, 2, steps=3)
    wait_until(lambda: slider.input_value() == newest)
    assert "frame=" not in address(page)
    wait_until(is_peeking, seconds=20)
    page.mouse.down()
    page.mouse.up()
    page.mouse.move(2, 2, steps=3)
    wait_until(lambda: "frame=" in address(page) and slider.input_value() != newest)


DROP = """files => {
  const transfer = new DataTransfer();
  for (const [name, text] of files) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    transfer.items.add(new File([bytes], name, { type: "image/png" }));
  }
  document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
}"""


def test_images_dropped_on_the_runs_begin_a_new_one(page, server, root):
    files = []
    for k in range(64):
        buffer = io.BytesIO()
        Image.fromarray(np.random.default_rng(k).integers(0, 255, (16, 16), np.uint8)).save(buffer, "PNG")
        files.append((f"{k}.png", base64.b64encode(buffer.getvalue()).decode()))
    page.goto(server.address)
    settle(page)
    page.evaluate(DROP, files)
    wait_until(lambda: "/new" in address(page))
    page.get_by_role("img", name="Some of the images as they would be trained on").wait_for(timeout=30_000)
    shutil.rmtree(runs_of(root) / ".studio" / "uploads")


def test_nothing_starts_while_images_are_sent(page, server, root, tmp_path):
    (tmp_path / "own").mkdir()
    for k in range(3):
        Image.new("L", (16, 16), 40 * k).save(tmp_path / "own" / f"{k}.png")
    held = []
    page.route("**/api/v1/uploads/*/files*", lambda route: held.append(route))  # which are on their way
    page.goto(f"{server.address}new")
    settle(page)
    start = page.get_by_role("button", name="Start", exact=True)
    wait_until(start.is_enabled)
    page.locator("input[webkitdirectory]").set_input_files(tmp_path / "own")
    page.get_by_text("Your images are still being sent.").wait_for()
    page.wait_for_timeout(1000)
    assert start.is_disabled() and held
    page.get_by_role("button", name="Cancel").click()
    wait_until(start.is_enabled)
    assert page.evaluate("document.activeElement.textContent") == "Choose files"
    shutil.rmtree(runs_of(root) / ".studio" / "uploads")


def test_where_a_checkpoint_is_gone_another_can_be_chosen(browser, server):
    opened = browser.new_page()
    opened.goto(f"{server.address}explore/0001-default-mnist?checkpoint=999")
    opened.get_by_role("button", name="Try again").wait_for()
    choice = opened.get_by_role("combobox", name="Checkpoint")
    assert choice.locator("option:checked").inner_text() == "999 images (gone)"
    choice.select_option("")
    opened.locator("main canvas").first.wait_for(timeout=30_000)
    assert "checkpoint" not in address(opened)
    opened.close()


def test_a_run_shows_its_log(page, server):
    name = server.json("GET", "/api/v1/runs")["runs"][0]["id"]
    page.goto(f"{server.address}runs/{name}")
    settle(page)
    page.locator("summary", has_text="Log").click()
    log = page.get_by_role("region", name="Log")
    newest = server.json("GET", f"/api/v1/runs/{name}/log")["log"][-1]["images_seen"]
    wait_until(lambda: log.locator("tbody tr td").first.inner_text() == str(newest))
    assert "d loss" in log.locator("thead").inner_text().lower()


def test_a_filter_stays_in_the_address_where_no_run_matches(page, server):
    page.goto(f"{server.address}?state=running")
    page.get_by_text("No run matches.").wait_for()
    assert "state=running" in address(page)
    page.get_by_role("button", name="Show all").click()
    page.locator("article.card").first.wait_for()
    wait_until(lambda: "state=" not in address(page))


def test_a_comparison_follows_its_runs(page, server, root, digit_dir):
    run = make_run(runs_of(root), "0007-again", digit_dir)
    page.goto(f"{server.address}compare?runs=0001-default-mnist,0007-again")
    settle(page)
    run.append(run.metrics_path, {**run.metrics[-1], "images_seen": 512, "validation_fd_ratio": 0.4321})
    page.get_by_text("0.43", exact=True).wait_for(timeout=10_000)
    page.goto(server.address)
    settle(page)
    shutil.rmtree(run.directory)


def test_a_lesson_is_done_and_remembered(page, server):
    page.goto(f"{server.address}learn")
    settle(page)
    page.get_by_role("button", name="Train D alone").click()
    page.locator("p.seen").wait_for(timeout=30_000)
    keep(page, "learn-seen-1280-light")
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Next step").click()
    wait_until(lambda: address(page).endswith("/learn?lesson=what-d-sees&step=2"))
    page.reload()
    settle(page)
    page.get_by_role("button", name="Let G follow").wait_for()
    page.get_by_role("button", name="Back").click()
    page.locator("p.seen").wait_for()
    page.locator("summary", has_text="Try things yourself").click()
    page.locator("label.field", has_text=re.compile("^Loss")).locator("select").select_option("hinge")
    page.get_by_role("button", name="One step").click()
    page.get_by_role("alert").filter(has_text=re.compile("^$")).wait_for(state="attached")


@pytest.mark.browser
def test_seeds_are_shown_and_what_is_drawn_can_be_saved(page, server, tmp_path):
    name = server.json("GET", "/api/v1/runs")["runs"][0]["id"]
    page.goto(f"{server.address}explore/{name}?seed=3&pins=9.1.1_3.4.2&word=07")
    settle(page)

    def opacity() -> str:
        return page.locator(".stage .tile .seed").nth(7).evaluate("seed => getComputedStyle(seed).opacity")

    assert opacity() == "1"
    page.get_by_role("checkbox", name="seed and class on every tile").uncheck()
    wait_until(lambda: opacity() == "0" and "seeds=0" in address(page))
    page.get_by_role("button", name="Use seed 9").click()
    page.locator(".stage .tile .seed", has_text="9:0").wait_for(state="attached")
    page.get_by_role("checkbox", name="seed and class on every tile").check()
    page.get_by_role("button", name="In every class").click()
    table = page.get_by_role("region", name="Classes by styles")
    table.wait_for()
    assert table.get_by_text(re.compile(r"^\d+:\d+$")).all_text_contents() == ["9:1", "3:4"]
    sizes = {"classes": (10 * 112, 2 * 112), "moved": (112, 112), "07": (2 * 112, 112)}
    for what, size in sizes.items():
        assert save_picture(page, f"{name}-{what}.png", tmp_path) == size
    page.get_by_role("button", name="Nearest training images").click()
    assert save_picture(page, f"{name}-neighbours.png", tmp_path) == (9 * 112, 112)


@pytest.mark.browser
def test_each_of_many_classes_is_drawn_by_its_button(browser, tmp_path, digit_dir):
    for k in range(60):
        folder = tmp_path / "letters" / "abcdefghijkl"[k % 12]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(k).integers(0, 255, (16, 16), np.uint8)).save(folder / f"{k}.png")
    choices = {"data": str(tmp_path / "letters"), "data_dir": "", "conditioning": "labels", "clusters_per_class": 1}
    make_run(tmp_path / "runs", "0001-letters", digit_dir, **choices)
    opened = Server(tmp_path / "runs")
    try:
        with watched_page(browser, opened.address) as page:
            page.goto(f"{opened.address}explore/0001-letters")
            settle(page)
            for name in ("k", "b"):
                page.get_by_role("button", name=name, exact=True).click()
                page.wait_for_timeout(500)
                assert {text.split()[0] for text in page.locator(".stage .tile .seed").all_text_contents()} == {name}
            page.get_by_role("button", name="l", exact=True).click()
            page.get_by_text("The same").first.click()
            assert "--labels 11-11" in page.content() and "labels=[11]" in page.content()
    finally:
        opened.close()


@pytest.mark.browser
def test_a_page_that_is_left_while_it_loads_changes_nothing_of_the_next(page, server):
    name = server.json("GET", "/api/v1/runs")["runs"][0]["id"]
    for asked, address in ((f"**/runs/{name}", "runs/"), (f"**/runs/{name}/generator*", "explore/")):
        held = []
        page.route(asked, lambda route, _, held=held: held.append(route))
        page.goto(server.address)
        settle(page)
        page.evaluate(f"import('/static/app.js').then((app) => app.go('/{address}{name}?seed=5'))")
        page.wait_for_timeout(300)
        page.get_by_role("link", name="Compare").first.click()
        page.locator("h1", has_text="Compare").wait_for()
        assert held
        for route in held:
            route.continue_()
        page.unroute(asked)
        page.wait_for_timeout(700)
        assert page.locator("main h1").count() == 1 and "seed=5" not in page.url and "/compare" in page.url


@pytest.mark.browser
def test_the_first_button_keeps_the_focus_while_nothing_is_there(browser, tmp_path):
    opened = Server(tmp_path)
    try:
        with watched_page(browser, opened.address) as page:
            page.goto(opened.address)
            button = page.get_by_role("button", name="Train on MNIST for three minutes")
            button.focus()
            page.wait_for_timeout(2500)  # news of the machine's load come every half second
            assert button.evaluate("(it) => document.activeElement === it")
    finally:
        opened.close()


def save_picture(page, name: str, folder: Path) -> tuple[int, int]:
    """Return the size of a picture that a page saves under this name."""
    with page.expect_download() as saved:
        page.get_by_role("button", name=f"Save as PNG: {name}").click()
    saved.value.save_as(folder / name)
    with Image.open(folder / name) as picture:
        return picture.size


@pytest.mark.browser
def test_the_address_reopens_sliders_and_hands(page, server):
    name = server.json("GET", "/api/v1/runs")["runs"][0]["id"]

    def moved() -> str:
        page.get_by_text("moved in").wait_for()
        page.wait_for_timeout(300)
        return page.get_by_role("img", name="The image, moved").evaluate("canvas => canvas.toDataURL()")

    page.goto(f"{server.address}explore/{name}?word=07")
    settle(page)
    unmoved = moved()
    page.get_by_role("slider", name="PC 2 (").fill("-3.5")
    page.get_by_role("slider", name="variety").fill("0.4")
    page.get_by_role("combobox", name="Hands").select_option("many")
    wait_until(lambda: re.search(r"steps=0_-3\.5_0.*variety=0\.4", address(page)) and "hands=many" in address(page))
    before = moved()
    page.reload()
    settle(page)
    assert moved() == before != unmoved
    assert page.get_by_role("slider", name="PC 2 (").input_value() == "-3.5"
    assert page.get_by_role("combobox", name="Hands").input_value() == "many"
    page.get_by_role("button", name="Reset").click()
    wait_until(lambda: "steps" not in address(page) and "variety" not in address(page))
    page.goto(f"{server.address}explore/{name}?steps=99_nonsense_1e400&variety=-7")  # an address that a person changed
    settle(page)
    assert [page.get_by_role("slider", name=f"PC {k} (").input_value() for k in (1, 2, 3, 4)] == ["4", "0", "0", "0"]
    assert page.get_by_role("slider", name="variety").input_value() == "0"


def test_letters_are_written_as_they_are_typed(page, server, root, digit_dir, tmp_path):
    for k in range(64):
        folder = tmp_path / "letters" / ("A" if k % 2 else "a")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(k).integers(0, 255, (16, 16), np.uint8)).save(folder / f"{k}.png")
    letters = str(tmp_path / "letters")
    run = make_run(runs_of(root), "0006-letters", digit_dir, data=letters, data_dir="", conditioning="labels")
    page.goto(f"{server.address}explore/0006-letters?word=aA")
    settle(page)
    page.locator(".panel .tiles .seed", has_text=re.compile("^a ")).wait_for()
    page.locator(".panel .tiles .seed", has_text=re.compile("^A ")).wait_for()
    shutil.rmtree(run.directory)


def test_a_drawing_is_projected_and_moved(page, server, tmp_path):
    name = server.json("GET", "/api/v1/runs")["runs"][0]["id"]
    page.goto(f"{server.address}explore/{name}")
    settle(page)
    paper = page.get_by_role("img", name="A canvas to draw on")
    paper.scroll_into_view_if_needed()
    box = paper.bounding_box()
    page.mouse.move(box["x"] + 80, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 200, box["y"] + 70, steps=4)
    page.mouse.move(box["x"] + 140, box["y"] + 230, steps=4)
    page.mouse.up()
    page.get_by_text("Pixel error").wait_for(timeout=60_000)
    assert save_picture(page, f"{name}-inverted.png", tmp_path) == (2 * 112, 112)
    page.get_by_role("button", name="Move it along directions").click()
    page.get_by_text("your picture, moved in").wait_for()
    page.get_by_role("slider", name="PC 1 (").fill("2")
    keep(page, "drawing-1280-light")


@pytest.mark.browser
def test_a_run_is_taken_along(page, server):
    name = server.json("GET", "/api/v1/runs")["runs"][0]["id"]
    page.goto(f"{server.address}runs/{name}")
    settle(page)
    for button, kind in (("safetensors.zip", b"PK"), ("Save the training as a film", b"GIF8")):
        with page.expect_download() as saved:
            page.get_by_role("button", name=button).click()
        assert Path(saved.value.path()).read_bytes().startswith(kind)
    assert saved.value.suggested_filename == f"{name}-film.gif"


def test_a_run_is_watched_as_it_grows_and_is_lost_and_found(page, server, root, digit_dir):
    run = make_run(runs_of(root), "0004-growing", digit_dir)
    page.goto(f"{server.address}runs/0004-growing")
    settle(page)
    slider = page.get_by_role("slider", name="Training frame")
    frames = int(slider.get_attribute("max"))
    newest = run.grids()[-1][1]
    shutil.copy(newest, newest.with_name("000000512.png"))
    run.append(
        run.log_path, {"images_seen": 512, "kind": "failure", "failure": "mode-collapse", "message": "all alike"}
    )
    page.get_by_text("all alike").wait_for(timeout=10_000)
    wait_until(lambda: page.evaluate("document.querySelector('.timeline input').max") == str(frames + 1))
    assert page.locator("section .notice.fail").count() == 1
    look_away(page, True)  # a page that nobody sees holds no connection, and goes on where it was
    time.sleep(1)
    run.append(run.log_path, {"images_seen": 600, "kind": "failure", "failure": "divergence", "message": "far away"})
    time.sleep(2)
    assert page.locator("section .notice.fail").count() == 1
    look_away(page, False)
    page.get_by_text("far away").wait_for(timeout=10_000)
    assert page.locator("section .notice.fail").count() == 2
    page.keyboard.press(" ")
    page.get_by_role("button", name="Play").wait_for(timeout=10_000)
    shutil.rmtree(run.directory)
    page.get_by_text("there is no run '0004-growing' here").wait_for(timeout=10_000)


def test_a_proxy_that_fails_for_a_moment_does_not_end_a_page(browser, server, root, digit_dir):
    run = make_run(runs_of(root), "0008-behind-a-proxy", digit_dir)
    with contextlib.closing(browser.new_context()) as context:
        page = context.new_page()
        page.goto(f"{server.address}runs/{run.directory.name}")
        settle(page)
        refused = ("**/api/v1/runs/0008*", "**/events*")
        for pattern in refused:
            page.route(pattern, lambda route: route.fulfill(status=502, body=""))
        look_away(page, True)
        look_away(page, False)
        page.get_by_text("Server not reached; trying again").wait_for()
        page.wait_for_timeout(1000)
        assert page.get_by_role("button", name="Evaluate").is_visible()  # the run is not gone
        for pattern in refused:
            page.unroute(pattern)
        page.get_by_text("Server not reached; trying again").wait_for(state="detached")
        row = {"images_seen": 512, "kind": "failure", "failure": "divergence", "message": "far off"}
        run.append(run.log_path, row)
        page.get_by_text("far off").wait_for(timeout=10_000)
    shutil.rmtree(run.directory)


def test_scores_of_few_images_are_said_to_be_trends(page, server, root, digit_dir):
    run = make_run(runs_of(root), "0009-few", digit_dir)
    score = {"images_seen": 128, "tier": "validation", "validation_fd_ratio": 1.5, "n": 400}
    run.append(run.metrics_path, {**score, "images_seen": 600})
    page.goto(f"{server.address}runs/{run.directory.name}")
    settle(page)
    page.get_by_text("400 images are too few: the FD ratio shows a trend").wait_for()
    run.append(run.metrics_path, {**score, "images_seen": 700, "n": 1000})
    page.get_by_text("are too few").wait_for(state="detached")


def test_what_arrives_late_changes_no_other_page(page, server):
    names = [run["id"] for run in server.json("GET", "/api/v1/runs")["runs"]]
    page.goto(f"{server.address}runs/{names[0]}")
    settle(page)
    page.route(f"**/runs/{names[1]}/log", lambda route: (time.sleep(0.8), route.continue_()))
    page.get_by_role("combobox", name="Lay another run").select_option(names[1])
    page.get_by_role("button", name="Add the chosen run").click()
    page.evaluate("id => import('/static/app.js').then((app) => app.go(`/runs/${id}`))", names[2])
    page.get_by_role("heading", name=names[2], exact=True).wait_for()
    page.wait_for_timeout(1200)
    assert address(page) == f"{server.address}runs/{names[2]}"


def test_a_pin_that_is_clicked_twice_is_one_pin_less(page, server):
    name = server.json("GET", "/api/v1/runs")["runs"][0]["id"]
    page.goto(f"{server.address}explore/{name}?pins=3.0.1_3.4.2_3.5.2")
    settle(page)
    page.get_by_role("button", name="Pinned image 1: unpin").dblclick()
    page.get_by_role("button", name="Pinned image 3: unpin").wait_for(state="detached")
    assert "pins=3.4.2_3.5.2" in address(page)


def test_the_skip_link_moves_the_focus_alone(page, server):
    page.goto(f"{server.address}learn")
    settle(page)
    page.evaluate("window.same = document.querySelector('main').firstChild")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    assert page.evaluate("window.same === document.querySelector('main').firstChild")


def look_away(page, is_hidden: bool) -> None:
    page.evaluate(
        "(is) => { Object.defineProperty(document, 'hidden', { value: is, configurable: true });"
        "document.dispatchEvent(new Event('visibilitychange')); }",
        is_hidden,
    )


def test_first_visit_leads_to_a_training(browser, tmp_path):
    opened = Server(tmp_path)
    try:
        with watched_page(browser, opened.address) as page:
            page.goto(opened.address)
            page.get_by_role("button", name="Train on MNIST for three minutes").wait_for()
            keep(page, "first-visit-1280-light")
    finally:
        opened.close()


def test_own_pictures_are_uploaded_looked_at_named_and_trained_on_again(page, server, root, tmp_path):
    for k in range(12):
        folder = tmp_path / "shapes" / ("round" if k % 2 else "square")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(k).integers(0, 255, (20, 20), np.uint8)).save(folder / f"{k}.png")
    for name in ("Thumbs.db", "round/desktop.ini", "README.txt", ".DS_Store"):
        (tmp_path / "shapes" / name).write_text("no picture")
    page.goto(f"{server.address}new")
    settle(page)
    page.locator("input[webkitdirectory]").set_input_files(tmp_path / "shapes")
    page.get_by_text("2 classes: round (6), square (6)").wait_for(timeout=60_000)
    page.get_by_role("heading", name="shapes").wait_for()
    page.get_by_text("4 other files were left out.").wait_for()
    keep(page, "upload-1280-light")
    page.locator("summary", has_text="4 Options").click()
    page.get_by_role("searchbox", name="Search options").fill("side of the images")
    page.locator("#field-size").fill("16")
    page.get_by_text("prepared as 16x16 grey").wait_for(timeout=60_000)
    (upload,) = (runs_of(root) / ".studio" / "uploads").iterdir()
    config = resolve("default", arguments={"data": str(upload / "shapes")})
    copied = runs.create_run(runs_of(root) / "0005-shapes", config).directory
    page.goto(f"{server.address}new?from=0005-shapes")
    page.get_by_role("heading", name="shapes", exact=True).wait_for(timeout=60_000)
    page.get_by_role("group", name="terminal").first.get_by_text(f"uploads/{upload.name}/shapes").wait_for()
    shutil.rmtree(upload)
    page.reload()
    page.get_by_text("The other run read “shapes” from its own place").wait_for()
    assert page.get_by_role("button", name="Start", exact=True).is_disabled()
    page.get_by_role("button", name="mnist Handwritten digits").click()
    page.get_by_role("group", name="terminal").first.get_by_text("gansmith train default").wait_for()
    shutil.rmtree(copied)


def test_a_page_of_another_site_gets_nothing(browser, server):
    """A page on another port of this machine tries what pages can: reading, forms, frames, pictures."""
    body = (
        "<script>const out = {}; (async () => {"
        f"const at = '{server.address}';"
        "for (const [name, go] of Object.entries({"
        "read: () => fetch(at + 'api/v1/runs').then((a) => a.text()),"
        "simple: () => fetch(at + 'api/v1/jobs', {method: 'POST', body: '{}', mode: 'no-cors'}).then((a) => a.type),"
        "json: () => fetch(at + 'api/v1/jobs', {method: 'POST', body: '{}', "
        "headers: {'content-type': 'application/json'}}).then((a) => a.status)})) "
        "out[name] = await go().catch((e) => 'refused'); window.out = out; })();</script>"
    ).encode()

    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words):
            pass

    other = HTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    before = server.json("GET", "/api/v1/jobs")
    opened = browser.new_page()
    opened.goto(f"http://127.0.0.1:{other.server_port}/")
    wait_until(lambda: opened.evaluate("window.out !== undefined"))
    assert opened.evaluate("window.out") == {"read": "refused", "simple": "refused", "json": "refused"}
    assert server.json("GET", "/api/v1/jobs") == before
    opened.close()
    other.shutdown()
    other.server_close()


def test_the_chosen_theme_is_remembered(page, server):
    page.emulate_media(color_scheme="light")
    page.goto(server.address)
    settle(page)
    page.get_by_role("button", name="Switch between light and dark").click()
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.reload()
    settle(page)
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") != "rgb(250, 249, 247)" and dark


def test_a_training_is_started_watched_paused_and_resumed(browser, tmp_path):
    """By clicks alone, on digits that every installation has."""
    opened = Server(tmp_path)
    page = browser.new_page(viewport={"width": 1280, "height": 860})
    try:
        page.goto(f"{opened.address}new?recipe=mlp-small&minutes=10")
        settle(page)
        page.get_by_role("button", name="Start", exact=True).click()
        wait_until(lambda: any(runs.is_locked(tmp_path / name) for name in os.listdir(tmp_path)), seconds=120)
        page.locator(".card a").first.click()
        page.get_by_role("button", name="Pause").click(timeout=60_000)
        page.get_by_role("button", name="Resume").click(timeout=60_000)
        page.get_by_role("button", name="Stop").click(timeout=60_000)
        page.get_by_role("button", name="Resume").wait_for(timeout=60_000)
        time.sleep(0.5)
        assert json.loads((tmp_path / "0001-mlp-small-mnist" / "run.json").read_text())["status"] == "stopped"
    finally:
        page.close()
        opened.close()
        end_trainings(tmp_path)
