"""Draw the studio's pictures of the docs, in headless Chromium.

    python scripts/studio_pictures.py RUNS_DIR RUN docs/images

RUNS_DIR holds finished and evaluated runs, RUN is the one of them that is shown and explored; it has labels.
"""

import argparse
import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

import gansmith as gs

WIDTH, HEIGHT = 1280, 860
DRAWN = 960  # pixels, the width of the docs' text
SEEN = "Seen: "  # what a lesson says once its first step has shown what it is for


def keep(page: Page, path: Path, height: int) -> None:
    """Write what the page shows in its upper so many pixels, in 256 colours."""
    page.wait_for_timeout(1500)  # charts draw themselves in the meantime
    page.mouse.move(0, 0)
    shot = page.screenshot(full_page=True, clip={"x": 0, "y": 0, "width": WIDTH, "height": height})
    with Image.open(io.BytesIO(shot)) as picture:
        small = picture.convert("RGB").resize((DRAWN, round(height * DRAWN / WIDTH)), Image.Resampling.LANCZOS)
    small.quantize(256).save(path, optimize=True)


def draw(address: str, run_id: str, folder: Path) -> None:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        page.goto(address)
        page.locator(".card img").first.wait_for()
        keep(page, folder / "studio-runs.png", 780)
        page.goto(f"{address}runs/{run_id}")
        page.locator(".chart .plot-container").first.wait_for()
        keep(page, folder / "studio-run.png", 1346)
        page.goto(f"{address}explore/{run_id}?seed=3")
        page.locator(".stage .tile").first.wait_for()
        for k in (2, 5):
            page.locator(".stage .tile").nth(k).click()
        page.get_by_text("the newest pinned image").wait_for()
        page.get_by_role("slider", name="PC 1 (").fill("2")
        keep(page, folder / "studio-explore.png", 1180)
        page.goto(f"{address}learn")
        page.get_by_role("button", name="Train D alone").click()
        page.locator(".lesson").get_by_text(SEEN).wait_for(timeout=60_000)
        keep(page, folder / "studio-learn.png", 1048)
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs_dir", type=Path)
    parser.add_argument("run")
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    studio = gs.studio(options.runs_dir)
    try:
        draw(studio.address, options.run, options.folder)
    finally:
        studio.close()


if __name__ == "__main__":
    main()
