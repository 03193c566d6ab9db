"""The site of the documentation: figures enlarge."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import pytest
from browser import CUT_OFF, opened
from PIL import Image

STATIC = Path(__file__).parents[1] / "docs" / "_static"


@pytest.mark.slow
@pytest.mark.parametrize("width", [1400, 390])
def test_a_figure_enlarges_by_the_keyboard(browser: Any, tmp_path: Path, width: int) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (3000, 900)).save(buffer, "PNG")
    address = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    page = tmp_path / "page.html"
    style, script = ((STATIC / name).read_text() for name in ("enlarge.css", "enlarge.js"))
    page.write_text(
        f"<!doctype html><style>img {{ max-width: 100% }}\n{style}</style><script>{script}</script>"
        f"<article><p><img src='{address}' alt='a figure'></p></article>"
    )
    with opened(browser, page, width) as sheet:
        assert sheet.evaluate(CUT_OFF) == []
        sheet.keyboard.press("Tab")
        sheet.keyboard.press("Enter")
        dialog = sheet.get_by_role("dialog", name="a figure")
        figure = dialog.locator("img")
        assert figure.bounding_box()["width"] == pytest.approx(width - 24, abs=1)
        figure.click()
        assert figure.bounding_box()["width"] == 3000
        sheet.keyboard.press("Escape")
        dialog.wait_for(state="hidden")
        sheet.locator("article img").click()
        dialog.get_by_text("Close").click()
        dialog.wait_for(state="hidden")
