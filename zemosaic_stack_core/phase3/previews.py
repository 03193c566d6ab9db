"""Small pictures of a tile for the report: a few kilobytes each, as data addresses that a page can hold."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.master.pictures import bin_down, color_map, stretch
from zemosaic_stack_core.stacking.result import StackResult

# Longest side of a picture, pixels; thousands of tiles get smaller ones.
PREVIEW_SIZE = 320

_JPEG_QUALITY = 82


@dataclass(frozen=True)
class TilePictures:
    """Pictures of a tile, each a ``data:`` address; empty where there is none."""

    image: str = ""
    coverage: str = ""


def tile_pictures(result: StackResult, size: int = PREVIEW_SIZE) -> TilePictures:
    """Return the stretched image and the coverage, if any, row 0 at the bottom, no side above `size` pixels."""
    picture = stretch(bin_down(result.image, size))
    coverage = ""
    if result.coverage is not None:
        mean = result.coverage if result.coverage.ndim == 2 else result.coverage.mean(axis=2)
        small = bin_down(mean, size)
        colors = color_map(np.where(small > 0, small, np.nan), 0.0, max(float(small.max()), 1.0))
        coverage = _address(colors, "PNG")
    return TilePictures(image=_address(picture, "JPEG"), coverage=coverage)


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
