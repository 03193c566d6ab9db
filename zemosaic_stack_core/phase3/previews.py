"""Small pictures of a tile and of its frames for the report: as data addresses that a page can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.frames.group import FrameSource
from zemosaic_stack_core.frames.pixel_rows import FilePool
from zemosaic_stack_core.stacking.pictures import (
    MISSING_COLOR,
    apply_stretch,
    bin_down,
    color_map,
    data_address,
    find_stretch,
    rejection_map,
    stretch,
)
from zemosaic_stack_core.stacking.result import StackResult

# Of all pictures in a page together, as the page holds them.
_PAGE_BYTES = 4 * 1024 * 1024
# Parts of that: masters, their maps, frames.
_IMAGE_SHARE, _MAP_SHARE = 0.4, 0.2
_FRAME_SHARE = 1.0 - _IMAGE_SHARE - _MAP_SHARE
# In a page, of a pixel of a picture: measured on star fields, noisy ones among them.
_BYTES_PER_PIXEL = 0.45
# Longest and shortest sides, pixels.
_IMAGE_SIDES, _MAP_SIDES, _FRAME_SIDES = (64, 1200), (64, 640), (128, 480)
# Of a picture's shape, for what its longest side means.
_ASPECT = 0.75

_QUALITY = 80
_FRAME_QUALITY = 68
# Bars of a histogram, and the parts of the pixels below its first and above its last.
_BARS = 120
_ENDS = (0.0005, 0.995)
_HISTOGRAM_SAMPLES = 2**17
# Frames of a night whose stars are measured for its page: 5 ms each, in which no other thread of Python runs.
_MOST_MEASURED = 2000
# Rows of a frame that a row of its picture is made of, at most: enough for a trail to be seen.
_ROWS_READ = 2
# Rows of a picture that are made at once.
_PICTURE_ROWS = 32


@dataclass(frozen=True)
class PicturePlan:
    """How large the pictures of a page are, and how many frames of a tile have one: the page must open anywhere."""

    # Longest sides, pixels.
    image: int = _IMAGE_SIDES[1]
    maps: int = _MAP_SIDES[1]
    frame: int = _FRAME_SIDES[1]
    # Frames with a picture, per tile at most.
    frames: int = 10_000
    # Whether the stars of aligned frames are measured.
    has_stars: bool = True

    @classmethod
    def of_night(cls, tiles: int, frames: int) -> Self:
        """Return the plan for so many tiles of, at most, so many frames."""
        room = _PAGE_BYTES / max(tiles, 1)
        frame = _side(_FRAME_SHARE * room / max(frames, 1), _FRAME_SIDES)
        return cls(
            image=_side(_IMAGE_SHARE * room, _IMAGE_SIDES),
            maps=_side(_MAP_SHARE * room / 2, _MAP_SIDES),
            frame=frame,
            has_stars=tiles * frames <= _MOST_MEASURED,
            frames=int(_FRAME_SHARE * room / (_ASPECT * frame**2 * _BYTES_PER_PIXEL)),
        )


def _side(size: float, sides: tuple[int, int]) -> int:
    """Return the longest side of a picture of so many bytes, within limits."""
    return max(sides[0], min(sides[1], int((size / _ASPECT / _BYTES_PER_PIXEL) ** 0.5)))


@dataclass(frozen=True)
class TilePictures:
    """Pictures of a tile, each a ``data:`` address; empty where there is none."""

    image: str = ""
    coverage: str = ""
    rejected: str = ""
    # Of its frames, by their place in the record.
    frames: Mapping[int, str] = field(default_factory=dict)
    # Counts of the image's values: see `histogram`.
    histogram: Mapping[str, Any] = field(default_factory=dict)


def tile_pictures(result: StackResult, plan: PicturePlan, frames: Mapping[int, str] | None = None) -> TilePictures:
    """Return the stretched image, the coverage and what was rejected, where known, row 0 at the bottom."""
    coverage = rejected = ""
    small = None if result.coverage is None else _mean(bin_down(result.coverage, plan.maps))
    if small is not None:
        colors = color_map(np.where(small > 0, small, np.nan), 0.0, max(float(small.max()), 1.0))
        coverage = data_address(colors, _QUALITY)
    if result.rejected_low is not None and result.rejected_high is not None:
        low, high = (_mean(bin_down(counts, plan.maps)) for counts in (result.rejected_low, result.rejected_high))
        colors = rejection_map(low, high)
        if small is not None:
            colors[small == 0] = MISSING_COLOR
        rejected = data_address(colors, _QUALITY)
    return TilePictures(
        image=data_address(stretch(bin_down(result.image, plan.image)), _QUALITY),
        coverage=coverage,
        rejected=rejected,
        frames={} if frames is None else frames,
        histogram=histogram(result.image),
    )


def _mean(counts: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a map of shape (row, column): the mean of the channels."""
    return counts if counts.ndim == 2 else counts.mean(axis=2)


def histogram(image: npt.NDArray[np.float32]) -> dict[str, Any]:
    """Return counts of an image's values between `low` and `high`, a list for each channel; empty without values."""
    channels = image[..., np.newaxis] if image.ndim == 2 else image[..., :3]
    step = max(1, int((channels.shape[0] * channels.shape[1] / _HISTOGRAM_SAMPLES) ** 0.5))
    sampled = channels[::step, ::step].astype(np.float64)
    finite = sampled[np.isfinite(sampled)]
    if not finite.size:
        return {}
    low, high = map(float, np.quantile(finite, _ENDS))
    high = high if high > low else low + 1.0
    counts = [
        np.histogram(plane[np.isfinite(plane)], _BARS, (low, high))[0].tolist() for plane in np.moveaxis(sampled, 2, 0)
    ]
    return {"low": low, "high": high, "median": float(np.median(finite)), "counts": counts}


def frame_picture(source: FrameSource, side: int, files: FilePool) -> str:
    """Return the stretched picture of a frame, row 0 at the bottom; some of its rows are read."""
    factor = max(1, round(max(source.rows, source.columns) / side))
    if source.channels == 1 and source.dtype.kind in "iu" and factor > 1:
        factor += factor % 2  # whole cells of what may be a Bayer mosaic
    reach = min(factor, _ROWS_READ, source.rows)
    starts = range(0, source.rows - reach + 1, factor)
    rows: npt.NDArray[Any] = np.empty((source.channels, reach, source.columns), source.dtype)
    # A band of picture rows at a time: NumPy's calls are dear for one, and all of a large frame take memory.
    bands = []
    for first in range(0, len(starts), _PICTURE_ROWS):
        band = np.empty((len(starts[first : first + _PICTURE_ROWS]), *rows.shape), np.float32)
        for place, start in enumerate(starts[first : first + _PICTURE_ROWS]):
            source.read_rows(start, start + reach, rows, files)
            band[place] = rows
        bands.append(_bin_band(band, factor))
    small = np.concatenate(bands)
    return data_address(apply_stretch(small, find_stretch(small[::2, ::2])), _FRAME_QUALITY)


def _bin_band(band: npt.NDArray[np.float32], factor: int) -> npt.NDArray[np.float32]:
    """Return the means of the finite samples of blocks as wide as `factor`, shape (row, block, channel); NaN of none.

    `band` is of shape (row, channel, line, column): the lines of a row are averaged too.
    """
    edges = np.arange(0, band.shape[3], factor)
    finite = np.isfinite(band)
    lines = band if finite.all() else np.where(finite, band, np.float32(0.0))
    total = np.add.reduceat(lines.sum(axis=2), edges, axis=2)
    count = np.add.reduceat(finite.sum(axis=2, dtype=np.float32), edges, axis=2)
    mean = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    return np.moveaxis(mean, 1, 2)
