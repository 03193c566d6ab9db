"""Frames onto the output grid, in one interpolation: Lanczos where every sample is there, bilinear beside missing ones.

Notes
-----
Kernel of order a, separable: ``L(t) = sinc(t) * sinc(t / a)`` for ``abs(t) < a``, the ``2 a`` weights of an axis
divided by their sum, so that a constant stays that constant. The result is multiplied by the area on the frame of an
output pixel, which conserves flux where scales differ. An output pixel has a value exactly where its center lies within
the centers of the frame's outer pixels and no sample that bilinear interpolation needs is missing; otherwise it is NaN.

Measured against OpenCV (positions in steps of 1/32 pixel) and SciPy (cubic splines, no NaN): see docs/prepare.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from .geometry import Affine

__all__ = ["AffineMap", "PixelMap", "resample"]

_Image = npt.NDArray[np.float32]
_Places = npt.NDArray[np.float64]

_BAND_PIXELS = 1 << 13  # of output computed at once: the arrays of a band stay in the cache
_ORDERS = {"lanczos2": 2, "lanczos3": 3, "lanczos4": 4}
_ROUNDING = 1e-6  # pixels that a place may be outside because of rounding
_WHOLE = 1e-5  # pixels; nearer to a sample than this is on it


class PixelMap(Protocol):
    """Where output pixels lie on a frame."""

    def places(self, start: int, stop: int, columns: int) -> tuple[_Places, _Places]:
        """Return x and y on the frame of output rows `start` to `stop`, each of shape (stop - start, columns)."""
        ...

    def areas(self, start: int, stop: int, columns: int) -> float | _Places:
        """Return the area on the frame of those output pixels, in its pixels."""
        ...


@dataclass(frozen=True)
class AffineMap:
    """An affine map from the output grid to the frame."""

    to_frame: Affine

    def places(self, start: int, stop: int, columns: int) -> tuple[_Places, _Places]:
        """Return x and y on the frame of output rows `start` to `stop`."""
        a = self.to_frame
        row, column = np.arange(start, stop, dtype=np.float64)[:, np.newaxis], np.arange(columns, dtype=np.float64)
        return a.xx * column + (a.xy * row + a.x0), a.yx * column + (a.yy * row + a.y0)

    def areas(self, start: int, stop: int, columns: int) -> float:  # noqa: ARG002 - the protocol's
        """Return the area, the same everywhere."""
        return abs(self.to_frame.determinant)


def resample(pixels: _Image, mapping: PixelMap, rows: int, columns: int, kernel: str = "lanczos3") -> _Image:
    """Resample a frame onto the output grid.

    Parameters
    ----------
    pixels : array of shape (row, column) or (row, column, channel), float32
        NaN where missing.
    mapping : PixelMap
        Where output pixels lie on the frame.
    rows, columns : int
        Size of the output.
    kernel : str
        One of `options.KERNELS`.

    Returns
    -------
    array of shape (rows, columns) or (rows, columns, channel), float32
        NaN outside the frame.
    """
    planes = [pixels] if pixels.ndim == 2 else [pixels[..., channel] for channel in range(pixels.shape[2])]
    order = _ORDERS.get(kernel, 1)
    sources = [_Source.of(np.ascontiguousarray(plane), order) for plane in planes]
    out = np.full((rows, columns, len(planes)), np.nan, np.float32)
    height = max(1, _BAND_PIXELS // columns)
    for start in range(0, rows, height):
        stop = min(rows, start + height)
        x, y = mapping.places(start, stop, columns)
        area = mapping.areas(start, stop, columns)
        inside = (x >= -_ROUNDING) & (y >= -_ROUNDING)
        inside &= (x <= pixels.shape[1] - 1 + _ROUNDING) & (y <= pixels.shape[0] - 1 + _ROUNDING)
        where = np.flatnonzero(inside)
        if not where.size:
            continue
        grid = _Grid.of(x.reshape(-1)[where], y.reshape(-1)[where], pixels.shape[:2], order)
        factor = area if isinstance(area, float) else np.broadcast_to(area, x.shape).reshape(-1)[where]
        band = out[start:stop].reshape(-1, len(planes))
        for channel, source in enumerate(sources):
            values = source.interpolate(grid)
            band[where, channel] = values if isinstance(factor, float) and factor == 1.0 else values * factor
    return out[..., 0] if pixels.ndim == 2 else out


@dataclass(frozen=True, eq=False)
class _Grid:
    """Places of output pixels on a frame: the sample at their upper left, and how far they are from it."""

    x: npt.NDArray[np.intp]
    y: npt.NDArray[np.intp]
    right: _Image
    down: _Image
    across: list[_Image]
    along: list[_Image]

    @classmethod
    def of(cls, x: _Places, y: _Places, shape: tuple[int, ...], order: int) -> _Grid:
        """Split places into whole pixels and fractions, and compute the weights of the taps."""
        x, y = np.clip(x, 0.0, shape[1] - 1), np.clip(y, 0.0, shape[0] - 1)
        # Moves by whole pixels and half turns come out with rounding errors; they must stay exact.
        x, y = _snap(x), _snap(y)
        left, top = np.floor(x).astype(np.intp), np.floor(y).astype(np.intp)
        right, down = (x - left).astype(np.float32), (y - top).astype(np.float32)
        return cls(left, top, right, down, _weights(right, order), _weights(down, order))


def _snap(places: _Places) -> _Places:
    """Make places within 1e-5 pixel of a whole pixel whole."""
    whole = np.rint(places)
    return np.where(np.abs(places - whole) < _WHOLE, whole, places)


def _weights(fraction: _Image, order: int) -> list[_Image]:
    """Return the weights of the ``2 * order`` taps, from ``1 - order`` to ``order``, that add up to 1."""
    if order == 1:
        return [np.float32(1) - fraction, fraction]
    f = fraction.astype(np.float64)
    # sin(pi (f - k)) is sin(pi f) with the sign of k, sin(pi (f - k) / order) a sum of two: three sines do for all.
    whole = np.sin(np.pi * f)
    part_sin, part_cos = np.sin(np.pi * f / order), np.cos(np.pi * f / order)
    taps = []
    for k in range(1 - order, order + 1):
        t = f - k
        near = np.abs(t) < 1e-8
        t = np.where(near, 1.0, t)
        angle = math.pi * k / order
        part = part_sin * math.cos(angle) - part_cos * math.sin(angle)
        value = (order / np.pi**2) * (whole if k % 2 == 0 else -whole) * part / (t * t)
        taps.append(np.where(near, 1.0, value))
    total = sum(taps)
    return [np.asarray(tap / total, np.float32) for tap in taps]


@dataclass(frozen=True, eq=False)
class _Source:
    """One plane of a frame, made ready for taps that reach over its border."""

    padded: _Image
    pad: int
    complete: npt.NDArray[np.bool_] | None
    missing: npt.NDArray[np.bool_]
    order: int

    @classmethod
    def of(cls, plane: _Image, order: int) -> _Source:
        """Pad the plane and find where all taps are present."""
        from scipy.ndimage import minimum_filter1d

        pad = order
        missing = np.pad(~np.isfinite(plane), pad, constant_values=True)
        padded = np.pad(plane, pad)
        padded[missing] = 0.0
        complete = None
        if order > 1:
            # Taps of the cell (row, column) are row - order + 1 ... row + order.
            present = (~missing).astype(np.uint8)
            for axis in (0, 1):
                present = minimum_filter1d(present, 2 * order, axis=axis, mode="constant", cval=0, origin=-1)
            complete = present.astype(np.bool_)
        return cls(padded, pad, complete, missing, order)

    def interpolate(self, grid: _Grid) -> _Image:
        """Return the values at places, NaN where a needed sample is missing."""
        width = self.padded.shape[1]
        base = (grid.y + self.pad) * width + (grid.x + self.pad)
        flat = self.padded.reshape(-1)
        if self.complete is None:
            return self._bilinear(grid, base, width)
        full = self.complete.reshape(-1)[base]
        if full.all():
            return _taps(flat, base, width, grid.across, grid.along, self.order)
        out = np.empty(base.size, np.float32)
        at = np.flatnonzero(full)
        out[at] = _taps(flat, base[at], width, [w[at] for w in grid.across], [w[at] for w in grid.along], self.order)
        rest = np.flatnonzero(~full)
        part = _Grid(grid.x[rest], grid.y[rest], grid.right[rest], grid.down[rest], [], [])
        out[rest] = self._bilinear(part, base[rest], width)
        return out

    def _bilinear(self, grid: _Grid, base: npt.NDArray[np.intp], width: int) -> _Image:
        """Interpolate between the four nearest samples; a sample of weight zero may be missing."""
        flat, missing = self.padded.reshape(-1), self.missing.reshape(-1)
        across, along = (np.float32(1) - grid.right, grid.right), (np.float32(1) - grid.down, grid.down)
        value = np.zeros(base.size, np.float32)
        lost = np.zeros(base.size, np.bool_)
        for row in (0, 1):
            for column in (0, 1):
                weight = across[column] * along[row]
                index = base + (row * width + column)
                value += weight * flat.take(index)
                lost |= missing.take(index) & (weight > 0)
        value[lost] = np.nan
        return value


def _taps(
    flat: _Image, base: npt.NDArray[np.intp], width: int, across: list[_Image], along: list[_Image], order: int
) -> _Image:
    """Add up the taps of a separable kernel."""
    value = np.zeros(base.size, np.float32)
    line, product = np.empty_like(value), np.empty_like(value)
    index = base + ((1 - order) * width + 1 - order)
    for weight in along:
        line.fill(0)
        for tap in across:
            # The places are inside: "clip" spares the check, and with it a copy.
            np.take(flat, index, out=product, mode="clip")
            product *= tap
            line += product
            index += 1
        line *= weight
        value += line
        index += width - 2 * order
    return value
