"""Pictures of stacks for people: the automatic stretch, and PNG files.

Row 0 of an image is at the bottom of the picture, as in DS9 and Siril; north is up where the WCS says so. What has no
value is dark violet (`MISSING_COLOR`), so that a hole never looks like dark sky. No number of a stack comes from here.
"""

from __future__ import annotations

import base64
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.kernel.rules.centered import MAD_TO_SIGMA
from zemosaic_stack_core.system.atomic import atomic_output

_Image = npt.NDArray[Any]
_Picture = npt.NDArray[np.uint8]

# Maps that a report draws, also where the master's file is to be without them.
DRAWN_MAPS = ("coverage", "rejected_low", "rejected_high")
# Red, green, blue of a pixel without a value.
MISSING_COLOR = (46, 16, 66)
# Colors of a map from low to high: dark blue over teal to green, evenly brighter.
_MAP_COLORS = ((20, 28, 54), (28, 58, 98), (34, 96, 126), (40, 130, 138), (66, 160, 146), (134, 204, 168))
# Of what was rejected below and above, where most was; and of where nothing was.
_LOW_COLOR, _HIGH_COLOR, _NOTHING_COLOR = (70, 150, 255), (255, 140, 70), (14, 18, 28)
# Black point, in spreads from the median; PixInsight's STF and Siril use the same.
_SHADOWS = -2.8
# Where the median lands, 0 black to 1 white.
_TARGET = 0.17
# Of the pixels: a few hundred star cores are white in a megapixel.
_WHITE_PERCENTILE = 99.97
_STATISTICS_SAMPLES = 2**18
_CURVE_STEPS = 4096
# Longest side of a thumbnail, pixels.
_THUMBNAIL = 320


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """How data values become brightness, per channel."""

    # Data values.
    black: tuple[float, ...]
    white: tuple[float, ...]
    # Balance of the transfer function, 0 to 1.
    midtones: tuple[float, ...]


def stretch(image: _Image, kind: str = "auto") -> _Picture:
    """Return a picture, (row, column, 3), in which both the background's noise and the bright stars can be seen.

    The image is (row, column[, channel]): 1 channel is gray, 3 or more are red, green, blue and not shown; not finite
    is missing. `kind` is as of `find_stretch`.
    """
    return apply_stretch(image, find_stretch(image, kind))


def find_stretch(image: _Image, kind: str = "auto") -> Stretch:
    """Return the stretch of an image, from at most 2**18 pixels of a regular grid.

    ``auto`` stretches each channel by itself, which takes out the sky's color, ``linked`` all alike, which keeps it;
    ``none`` is linear from the lowest to the highest value of all pixels.

    Notes
    -----
    Black is the median less 2.8 normalized MAD; white a high percentile. The midtones transfer function
    ``(m - 1) x / ((2 m - 1) x - m)`` takes the median to a gray of 0.17 (PixInsight's screen transfer function).
    """
    channels = _channels(image)
    if kind == "none":
        is_finite = np.isfinite(channels)
        low = float(np.min(channels, initial=np.inf, where=is_finite))
        high = float(np.max(channels, initial=-np.inf, where=is_finite))
        low = low if low <= high else 0.0
        return Stretch(black=(low,), white=(high if high > low else low + 1.0,), midtones=(0.5,))
    step = max(1, int((channels.shape[0] * channels.shape[1] / _STATISTICS_SAMPLES) ** 0.5))
    sampled = channels[::step, ::step].astype(np.float64)
    columns = [sampled[..., index] for index in range(sampled.shape[2])]
    found = [
        _find_channel_stretch(column[np.isfinite(column)]) for column in ([sampled] if kind == "linked" else columns)
    ]
    found *= len(columns) // len(found)
    black, white, midtones = zip(*found, strict=True)
    return Stretch(black=black, white=white, midtones=midtones)


def _find_channel_stretch(values: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Return black, white and midtones of one channel's finite values."""
    if values.size == 0:
        return 0.0, 1.0, 0.5
    median = float(np.median(values))
    spread = MAD_TO_SIGMA * float(np.median(np.abs(values - median)))
    if spread == 0.0:  # more than half of the pixels are equal: drawn by a program, or an empty sky in integers
        spread = float(values.std())
    black = max(float(values.min()), median + _SHADOWS * spread)
    white = max(float(np.percentile(values, _WHITE_PERCENTILE)), median + 5.0 * spread)
    if not white > black:
        margin = max(1.0, 1e-3 * abs(median))
        return median - margin, median + margin, _balance(0.5)
    return black, white, _balance((median - black) / (white - black))


def _balance(value: float) -> float:
    """Return the balance that takes a value to the target: the transfer function with the two in each other's place."""
    return float(_midtones(value, _TARGET)) if value > 0.0 else 0.5


def _midtones(value: Any, balance: Any) -> Any:
    """Return the midtones transfer function of values from 0 to 1."""
    return (balance - 1) * value / ((2 * balance - 1) * value - balance)


def apply_stretch(image: _Image, how: Stretch) -> _Picture:
    """Return the picture, (row, column, 3), of an image under a stretch of as many channels or of one."""
    channels = _channels(image)
    count = channels.shape[2]
    if len(how.black) not in (1, count):
        raise InvalidInputError(f"stretch has {len(how.black)} channels; expected {count}, as the image")
    picture = np.empty((*channels.shape[:2], 3), dtype=np.uint8)
    missing = np.zeros(channels.shape[:2], dtype=bool)
    for index in range(count):
        black, white, midtones = (values[index % len(values)] for values in (how.black, how.white, how.midtones))
        plane = channels[..., index].astype(np.float32)
        absent = ~np.isfinite(plane)
        missing |= absent
        plane -= np.float32(black)
        plane *= np.float32(_CURVE_STEPS / (white - black))
        plane[absent] = 0.0
        np.clip(plane, 0.0, _CURVE_STEPS, out=plane)
        gray = _curve(midtones)[plane.astype(np.uint16)]
        picture[..., index if count > 1 else slice(None)] = gray if count > 1 else gray[..., np.newaxis]
    picture[missing] = MISSING_COLOR
    return picture


def _curve(midtones: float) -> _Picture:
    """Return the brightness of each of the steps from black to white."""
    return np.asarray(np.rint(255.0 * _midtones(np.linspace(0.0, 1.0, _CURVE_STEPS + 1), midtones)), dtype=np.uint8)


def _channels(image: _Image) -> _Image:
    """Return a view of shape (row, column, 1 or 3)."""
    if image.ndim not in (2, 3) or not image.size:
        raise InvalidInputError(f"image has shape {image.shape}; expected (row, column) or (row, column, channel)")
    planes = image[..., np.newaxis] if image.ndim == 2 else image
    return planes[..., :3] if planes.shape[2] >= 3 else planes[..., :1]


def color_map(values: _Image, low: float, high: float) -> _Picture:
    """Return the colors, (row, column, 3), of a map (row, column) between two values; not finite is missing."""
    is_missing = ~np.isfinite(values)
    scaled = (np.where(is_missing, low, values).astype(np.float64) - low) / ((high - low) or 1.0)
    places = np.clip(scaled, 0.0, 1.0) * (len(_MAP_COLORS) - 1)
    anchors = np.arange(len(_MAP_COLORS))
    channels = [np.rint(np.interp(places, anchors, channel)) for channel in np.transpose(_MAP_COLORS)]
    colors = np.stack(channels, axis=-1).astype(np.uint8)
    colors[is_missing] = MISSING_COLOR
    return colors


def rejection_map(low: _Image, high: _Image) -> _Picture:
    """Return the colors, (row, column, 3), of counts rejected below (blue) and above (orange); a count shows."""
    top = max(float(np.percentile(np.maximum(low, high), _WHITE_PERCENTILE)), 1e-6)
    colors = np.zeros((*low.shape, 3)) + _NOTHING_COLOR
    for counts, color in ((low, _LOW_COLOR), (high, _HIGH_COLOR)):
        part = np.sqrt(np.clip(counts / top, 0.0, 1.0))[..., np.newaxis]
        colors += part * (np.array(color) - _NOTHING_COLOR)
    return np.clip(np.rint(colors), 0, 255).astype(np.uint8)


def bin_down(image: _Image, largest: int) -> _Image:
    """Return an image shrunk by a whole factor, so that neither side is longer than `largest` pixels.

    Each pixel is the mean of the finite ones it covers; NaN where there are none. Memory is that of the result. An
    image that is small enough is returned as it is.
    """
    factor = -(-max(image.shape[:2]) // largest)
    if factor <= 1:
        return image
    rows, columns = (-(-length // factor) for length in image.shape[:2])
    total = np.zeros((rows, columns, *image.shape[2:]), dtype=np.float32)
    count = np.zeros(total.shape, dtype=np.float32)
    for row in range(factor):
        for column in range(factor):
            part = image[row::factor, column::factor].astype(np.float32)
            finite = np.isfinite(part)
            part[~finite] = 0.0
            total[: part.shape[0], : part.shape[1]] += part
            count[: part.shape[0], : part.shape[1]] += finite
    total[count == 0] = np.nan
    np.divide(total, count, out=total, where=count > 0)
    return total


def data_address(picture: _Picture, quality: int) -> str:
    """Return a picture as a data address, JPEG, row 0 at the bottom."""
    from PIL import Image

    is_gray = bool((picture == picture[..., :1]).all())
    shown = np.ascontiguousarray((picture[..., 0] if is_gray else picture)[::-1])
    buffer = io.BytesIO()
    Image.fromarray(shown).save(buffer, "JPEG", quality=quality)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def thumbnail(image: _Image) -> str:
    """Return a small stretched picture of an image as a data address, from some of its pixels: in milliseconds."""
    step = max(1, max(image.shape[:2]) // (2 * _THUMBNAIL))
    return data_address(stretch(bin_down(image[::step, ::step], _THUMBNAIL)), 85)


def save_preview(
    path: str | os.PathLike[str], image: _Image, *, max_size: int = 1600, kind: str = "auto", overwrite: bool = False
) -> Path:
    """Write a stretched PNG of an image, row 0 at the bottom, no side longer than `max_size` pixels.

    Raises InvalidInputError where the file exists and `overwrite` is false, or the image is not one; OutputError where
    the file can't be written.
    """
    from PIL import Image

    picture = stretch(bin_down(image, max_size), kind)
    with atomic_output(path, overwrite=overwrite) as file:
        # Level 1 takes a third of the default's time and a tenth more space.
        Image.fromarray(np.ascontiguousarray(picture[::-1])).save(file, format="PNG", compress_level=1)
    return Path(path)


def save_tiff(path: str | os.PathLike[str], image: _Image, *, kind: str = "auto", overwrite: bool = False) -> Path:
    """Write an image as a TIFF of 16 bits, stretched as `find_stretch` has it, row 0 at the bottom; missing is black.

    Raises InvalidInputError and OutputError as `save_preview`. It needs tifffile.
    """
    import tifffile

    how = find_stretch(image, kind)
    channels = _channels(image)[::-1]
    picture = np.empty(channels.shape, dtype=np.uint16)
    for index in range(channels.shape[2]):
        black, white, midtones = (values[index % len(values)] for values in (how.black, how.white, how.midtones))
        plane = np.clip((channels[..., index].astype(np.float32) - np.float32(black)) / np.float32(white - black), 0, 1)
        picture[..., index] = np.rint(65535 * np.nan_to_num(_midtones(plane, np.float32(midtones)), nan=0.0))
    with atomic_output(path, overwrite=overwrite) as file:
        is_color = channels.shape[2] == 3
        tifffile.imwrite(
            file,
            picture if is_color else picture[..., 0],
            photometric="rgb" if is_color else "minisblack",
            metadata=None,
        )
    return Path(path)
