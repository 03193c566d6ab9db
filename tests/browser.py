"""Pages in a browser, for the fixture `browser`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# What lies outside of the window, or is wider than what holds it.
CUT_OFF = """() => {
  const width = document.documentElement.clientWidth, found = [];
  if (document.documentElement.scrollWidth > width) found.push("page " + document.documentElement.scrollWidth);
  for (const one of document.querySelectorAll("body *")) {
    const box = one.getBoundingClientRect(), style = getComputedStyle(one);
    const isMoved = one.closest(".pane") !== null || one.id === "tip";
    if (box.width && !isMoved && (box.right > width + 1 || box.left < -1)) found.push(one.outerHTML.slice(0, 80));
    if (one.scrollWidth > one.clientWidth + 1 && style.overflowX !== "visible" && one.tagName !== "TEXTAREA")
      found.push("cut " + one.outerHTML.slice(0, 80));
  }
  return found;
}"""


@contextmanager
def opened(browser: Any, page: Path, width: int = 1400, scheme: str = "light") -> Iterator[Any]:
    """Open a page, and hold that it asks for nothing and complains of nothing."""
    context = browser.new_context(viewport={"width": width, "height": 850}, color_scheme=scheme)
    sheet = context.new_page()
    trouble: list[str] = []
    sheet.on("console", lambda message: trouble.append(message.text))
    sheet.on("pageerror", lambda error: trouble.append(str(error)))
    sheet.on(
        "request",
        lambda request: trouble.extend([] if request.url.startswith(("file:", "data:", "blob:")) else [request.url]),
    )
    sheet.goto(page.as_uri())
    yield sheet
    assert trouble == []
    context.close()
