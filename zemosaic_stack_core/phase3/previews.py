"""Small pictures of a tile for the report: a few kilobytes each, as data addresses that a page can hold."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.master.pictures import MISSING_COLOR, bin_down, stretch
from zemosaic_stack_core.stacking.result import StackResult

PREVIEW_SIZE = 320
"""Longest side of a picture, pixels; thousands of tiles get smaller ones."""

_JPEG_QUALITY = 82
# Dark blue over teal to green, evenly brighter: more samples, more light.
_RAMP = ((20, 28, 54), (28, 58, 98), (34, 96, 126), (40, 130, 138), (66, 160, 146), (134, 204, 168))


@dataclass(frozen=True)
class TilePictures:
    """Pictures of a tile, each a ``data:`` address; empty where there is none."""

    image: str = ""
    coverage: str = ""


def tile_pictures(result: StackResult, size: int = PREVIEW_SIZE) -> TilePictures:
    """Return the stretched image and the coverage of a tile, row 0 at the bottom.

    Parameters
    ----------
    result : StackResult
        With its coverage, or without.
    size : int
        Longest side, pixels.
    """
    picture = stretch(bin_down(result.image, size))
    coverage = ""
    if result.coverage is not None:
        mean = result.coverage if result.coverage.ndim == 2 else result.coverage.mean(axis=2)
        coverage = _address(_colored(bin_down(mean, size)), "PNG")
    return TilePictures(image=_address(picture, "JPEG"), coverage=coverage)


def _colored(coverage: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """Return a coverage map in colors, (row, column, 3); the color of missing samples where it is 0."""
    values = coverage.astype(np.float64)
    top = max(float(values.max(initial=0.0)), 1.0)
    place = np.clip(values / top, 0.0, 1.0) * (len(_RAMP) - 1)
    ramp = np.asarray(_RAMP, dtype=np.float64)
    low = np.minimum(place.astype(np.intp), len(_RAMP) - 2)
    part = (place - low)[..., np.newaxis]
    colors: npt.NDArray[np.uint8] = np.rint(ramp[low] * (1.0 - part) + ramp[low + 1] * part).astype(np.uint8)
    colors[values <= 0.0] = MISSING_COLOR
    return colors


def _address(picture: npt.NDArray[np.uint8], kind: str) -> str:
    """Return a picture as a data address."""
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(picture[::-1]))
    if kind == "PNG":
        image = image.quantize(64)
    buffer = io.BytesIO()
    if kind == "PNG":
        image.save(buffer, "PNG", optimize=True)
    else:
        image.save(buffer, kind, quality=_JPEG_QUALITY)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
