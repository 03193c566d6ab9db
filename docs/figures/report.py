"""Make the pictures of docs/report.md from a night that never was: ``python docs/figures/report.py``.

Writes ``docs/images/report.jpg`` and ``docs/images/report-frame.jpg``. Needs Chromium and the extra ``test``.
"""

from __future__ import annotations

import io
import shutil
import tempfile
from contextlib import chdir
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from zemosaic_stack_core.command_line import main as command
from zemosaic_stack_core.synthetic.night import SyntheticNight
from zemosaic_stack_core.synthetic.raw_night import RawNight

IMAGES = Path(__file__).parents[1] / "images"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


def make_night(folder: Path) -> Path:
    """Write two tiles as telescopes write them and one that is aligned, with a frame that is none."""
    stars = {"n_frames": 18, "shape": (360, 540), "n_stars": 900, "turn": 3.0}
    RawNight(**stars, pattern="GRBG", trails=(4,), clouds=(11, 12), seed=3).write(folder / "M39", darks=4, flats=4)
    RawNight(**stars, trails=(7,), clouds=(3,), seed=9).write(folder / "NGC 6940", darks=4, flats=4)
    SyntheticNight(shape=(400, 600)).write(folder / "NGC 7479")
    (folder / "NGC 7479" / "light_009.fits").write_bytes(b"<html>")
    return folder


def save(page: Page, name: str, *, height: int | None = None) -> None:
    """Write what the window shows, or so much of the whole page."""
    picture = Image.open(io.BytesIO(page.screenshot(full_page=height is not None))).convert("RGB")
    if height is not None:
        picture = picture.crop((0, 0, picture.width, height))
    picture.save(IMAGES / name, quality=82, optimize=True, progressive=True)


def main() -> None:
    """Run the night and take the pictures."""
    with tempfile.TemporaryDirectory() as scratch, chdir(scratch), sync_playwright() as started:
        command(["run", str(make_night(Path("night"))), "-o", "2026-03-14", "--backend", "cpu", "--quiet"])
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 830}, color_scheme="dark")
        page.goto(Path("2026-03-14/report.html").absolute().as_uri())
        page.evaluate("location.hash = 'tile-1'")
        page.locator("#bench .frames input").nth(11).check()
        page.wait_for_timeout(500)
        page.evaluate("document.getElementById('leave').style.position = 'static'")
        page.evaluate("scrollTo(0, 0)")  # or the head of the table stays where the window was
        save(page, "report.jpg", height=2440)
        page.locator("#bench .frames .open").nth(4).click()
        page.wait_for_timeout(500)
        save(page, "report-frame.jpg")


if __name__ == "__main__":
    main()
