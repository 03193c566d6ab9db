"""Several images in one labelled picture: `save_panels`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.master.pictures import MISSING_COLOR, Stretch, apply_stretch, bin_down, find_stretch
from zemosaic_stack_core.system.atomic import atomic_output

if TYPE_CHECKING:
    from PIL import Image, ImageDraw


_Array = npt.NDArray[Any]
_Color = tuple[int, int, int]

_PAPER: _Color = (16, 18, 24)
_FRAME: _Color = (58, 63, 76)
_BRIGHT: _Color = (236, 239, 244)
_DIM: _Color = (152, 160, 176)
_ANCHORS = ((13, 22, 48), (31, 66, 121), (25, 122, 142), (66, 176, 132), (186, 214, 88), (253, 240, 172))
"""From low to high: brightness grows steadily, so the map also reads in gray and for the color-blind."""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One image of a picture.

    Parameters
    ----------
    title, subtitle : str
        The lines above it.
    image : array of shape (row, column) or (row, column, channel)
        The data. A map of more than one channel is shown as the mean of its channels.
    kind : {"image", "map"}
        Stretched, or in colors with a color bar.
    stretch : Stretch, optional
        Another image's, so that the two can be compared; default is the image's own.
    unit : str
        What the numbers of a map's color bar are.
    limits : tuple of float, optional
        Values of a map's first and last color; default is its range.
    """

    title: str
    image: _Array
    kind: Literal["image", "map"] = "image"
    subtitle: str = ""
    stretch: Stretch | None = None
    unit: str = ""
    limits: tuple[float, float] | None = None


def color_map(values: _Array, low: float, high: float) -> npt.NDArray[np.uint8]:
    """Return the colors of a map's values.

    Parameters
    ----------
    values : array of shape (row, column)
        Not finite means missing.
    low, high : float
        Values of the first and the last color.

    Returns
    -------
    array of shape (row, column, 3), uint8
    """
    finite = np.isfinite(values)
    scaled = (np.where(finite, values, low).astype(np.float64) - low) / ((high - low) or 1.0)
    steps = np.rint(255.0 * np.clip(scaled, 0.0, 1.0)).astype(np.intp)
    positions = np.linspace(0.0, 255.0, len(_ANCHORS))
    table = np.stack([np.interp(np.arange(256), positions, channel) for channel in np.transpose(_ANCHORS)], axis=1)
    colors = np.asarray(np.rint(table), dtype=np.uint8)[steps]
    colors[~finite] = MISSING_COLOR
    return colors


def save_panels(
    path: str | os.PathLike[str],
    panels: Sequence[Panel],
    *,
    title: str = "",
    footer: str = "",
    width: int = 1920,
    columns: int | None = None,
    overwrite: bool = False,
) -> Path:
    """Write images in rows, each with its title; row 0 of each image is at the bottom.

    Parameters
    ----------
    path : path
        The PNG file to write.
    panels : sequence of Panel
        From left to right, then down. Those of a row get the same height.
    title, footer : str
        A line above and below all of them.
    width : int
        Of the picture, pixels, at least 400.
    columns : int, optional
        Panels in a row; default is all.
    overwrite : bool
        An existing file may be replaced.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InvalidInputError
        No panels, a width below 400, or the file exists and `overwrite` is false.
    OutputError
        The file can't be written.
    """
    from PIL import Image, ImageDraw

    columns = columns or len(panels)
    if not panels or width < 400 or columns < 1:
        raise InvalidInputError(
            f"{len(panels)} panels, {columns} in a row, on a width of {width}; expected at least 1, 1 and 400 pixels"
        )
    unit = max(12, width // 100)  # everything is measured in text heights
    margin = 2 * unit
    strips = [_draw_row(panels[i : i + columns], width, unit, columns) for i in range(0, len(panels), columns)]
    head = margin + (int(3.2 * unit) if title else 0)
    bottom = head + sum(strip.height for strip in strips)
    canvas = Image.new("RGB", (width, bottom + (int(1.8 * unit) if footer else 0) + unit), _PAPER)
    draw = ImageDraw.Draw(canvas)
    _write(draw, (margin, margin), title, int(2.0 * unit), _BRIGHT)
    for strip in strips:
        canvas.paste(strip, (0, head))
        head += strip.height
    _write(draw, (margin, bottom), footer, unit, _DIM)
    with atomic_output(path, overwrite=overwrite) as file:
        canvas.save(file, format="PNG")
    return Path(path)


def _draw_row(panels: Sequence[Panel], width: int, unit: int, columns: int) -> Image.Image:
    """Return one row of panels on a strip of the picture's width; an incomplete row keeps its panels' size."""
    from PIL import Image, ImageDraw

    margin, gap = 2 * unit, (3 * unit) // 2
    aspects = [panel.image.shape[1] / panel.image.shape[0] for panel in panels]
    room = width - 2 * margin - gap * (columns - 1)
    height = max(1, int(room / (sum(aspects) * columns / len(panels))))
    top = int(3.4 * unit)
    has_bar = any(panel.kind == "map" for panel in panels)
    strip = Image.new("RGB", (width, top + height + (int(3.4 * unit) if has_bar else 2 * unit)), _PAPER)
    draw = ImageDraw.Draw(strip)
    left = margin
    for panel, aspect in zip(panels, aspects, strict=True):
        size = (max(1, int(height * aspect)), height)
        _write(draw, (left, 0), panel.title, int(1.35 * unit), _BRIGHT)
        _write(draw, (left, int(1.75 * unit)), panel.subtitle, unit, _DIM)
        picture, limits = _picture(panel, max(size))
        strip.paste(_resize(picture, size), (left, top))
        draw.rectangle((left - 1, top - 1, left + size[0], top + size[1]), outline=_FRAME)
        if limits is not None:
            _draw_bar(strip, (left, top + height + int(0.8 * unit)), size[0], unit, limits, panel.unit)
        left += size[0] + gap
    return strip


def _picture(panel: Panel, largest: int) -> tuple[npt.NDArray[np.uint8], tuple[float, float] | None]:
    """Return a panel's colors, row 0 first, and the limits of its color bar."""
    small = bin_down(panel.image, largest)
    if panel.kind == "image":
        return apply_stretch(small, panel.stretch or find_stretch(small)), None
    values = (small if small.ndim == 2 else small.mean(axis=2)).astype(np.float64)
    finite = panel.image[np.isfinite(panel.image)]
    limits = panel.limits or ((float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0))
    return color_map(values, *limits), limits


def _resize(picture: npt.NDArray[np.uint8], size: tuple[int, int]) -> Image.Image:
    """Return a picture of the wanted size, turned so that row 0 is at the bottom."""
    from PIL import Image

    # Enlarged, a pixel stays a square: an interpolated noise looks like stars.
    method = Image.Resampling.NEAREST if size[0] >= 2 * picture.shape[1] else Image.Resampling.LANCZOS
    return Image.fromarray(np.ascontiguousarray(picture[::-1])).resize(size, method)


def _draw_bar(
    canvas: Image.Image, corner: tuple[int, int], length: int, unit: int, limits: tuple[float, float], label: str
) -> None:
    """Draw a color bar with its limits below a panel."""
    from PIL import Image, ImageDraw

    draw = ImageDraw.Draw(canvas)
    low, high = limits
    texts = (f"{low:g}", f"{high:g} {label}".rstrip())
    font_size = unit
    widths = [draw.textlength(text, font=_font(font_size)) for text in texts]
    start = corner[0] + int(widths[0]) + unit // 2
    bar = max(1, length - int(sum(widths)) - unit)
    ramp = color_map(np.linspace(low, high if high > low else low + 1.0, bar)[np.newaxis], low, max(high, low + 1e-30))
    canvas.paste(Image.fromarray(np.repeat(ramp, unit, axis=0)), (start, corner[1]))
    draw.rectangle((start - 1, corner[1] - 1, start + bar, corner[1] + unit), outline=_FRAME)
    middle = corner[1] + unit // 2
    draw.text((corner[0], middle), texts[0], fill=_DIM, font=_font(font_size), anchor="lm")
    draw.text((start + bar + unit // 2, middle), texts[1], fill=_DIM, font=_font(font_size), anchor="lm")


def _write(draw: ImageDraw.ImageDraw, corner: tuple[int, int], text: str, size: int, color: _Color) -> None:
    """Write one line of text, its upper left corner at `corner`."""
    if text:
        draw.text(corner, text, fill=color, font=_font(size), anchor="la")


def _font(size: int) -> Any:
    """Return Pillow's own typeface."""
    from PIL import ImageFont

    return ImageFont.load_default(size=size)
