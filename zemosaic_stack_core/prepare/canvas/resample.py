"""Frames onto the output grid, in one interpolation: Lanczos where every sample is there, bilinear beside missing ones.

Notes
-----
Kernel of order a, separable: ``L(t) = sinc(t) * sinc(t / a)`` for ``abs(t) < a``, the ``2 a`` weights of an axis
divided by their sum, so that a constant stays that constant. Places are rounded to 1/4096 pixel, for which weights are
tabled: that moves no star by more than 0.0001 pixel, and moves by whole pixels and half turns stay exact. The result is
multiplied by the area on the frame of an output pixel, which conserves flux where scales differ. An output pixel has a
value exactly where its center lies within the centers of the frame's outer pixels and no sample that bilinear
interpolation needs is missing; otherwise it is NaN.

Beside a star of few pixels the negative lobes dig rings far below the sky. A value more than 3 times the noise below
the four nearest samples is raised to there, and what that adds is taken from the star's core: flux is conserved.

Measured against OpenCV (positions in steps of 1/32 pixel) and SciPy (cubic splines, no NaN): see docs/prepare.md.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.prepare.canvas.geometry import Affine

_Image = npt.NDArray[np.float32]
_Places = npt.NDArray[np.float64]
_Indices = npt.NDArray[np.intp]

# Of output computed at once: the arrays of a band stay in the cache.
_BAND_PIXELS = 1 << 14
_ORDERS = {"bilinear": 1, "lanczos2": 2, "lanczos3": 3, "lanczos4": 4}
# Times the noise. Beside a bright star of few pixels the kernel's negative lobes reach far below the sky; noise alone
# takes a value that far below all four nearest samples once in 10 million.
_UNDERSHOOT = 3.0
# Pixels around a ring's pixel in which the star is, and rings' pixels dealt with at once.
_AROUND = np.mgrid[-3:4, -3:4].reshape(2, -1)
_RINGS_AT_ONCE = 1 << 14
# Rows that the noise is measured on.
_NOISE_ROWS = 100
# Pixels that a place may be outside because of rounding.
_ROUNDING = 1e-6
# Places per pixel, a power of 2.
_STEP_BITS = 12
_STEPS = 1 << _STEP_BITS


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
    """Return a frame, shape (row, column) or (row, column, channel), on the output grid; missing is NaN."""
    order = _ORDERS[kernel]
    source = _Source.of(pixels if pixels.ndim == 3 else pixels[..., np.newaxis], order)
    channels = source.channels
    out = np.full((channels, rows, columns), np.nan, np.float32)
    height = max(1, _BAND_PIXELS // columns)
    rings: list[_Rings] = []
    for start in range(0, rows, height):
        stop = min(rows, start + height)
        x, y = mapping.places(start, stop, columns)
        area = mapping.areas(start, stop, columns)
        inside = (x >= -_ROUNDING) & (y >= -_ROUNDING)
        inside &= (x <= pixels.shape[1] - 1 + _ROUNDING) & (y <= pixels.shape[0] - 1 + _ROUNDING)
        where = np.flatnonzero(inside)
        if not where.size:
            continue
        is_whole = where.size == inside.size
        x, y = (axis.reshape(-1) if is_whole else axis.reshape(-1)[where] for axis in (x, y))
        values, low, added = source.interpolate(x, y)
        if not isinstance(area, float):
            factor = np.broadcast_to(area, inside.shape).reshape(-1)[where].astype(np.float32)[:, np.newaxis]
        else:
            factor = np.full(1, area, np.float32)
        if not isinstance(area, float) or area != 1.0:
            values *= factor
        if added.any():
            rings.append(_Rings(start * columns + where[low], added * (factor[low] if len(factor) > 1 else factor)))
        for channel in range(channels):
            band = out[channel, start:stop].reshape(-1)
            band[slice(None) if is_whole else where] = values[:, channel]
    if rings:
        index, given = np.concatenate([ring.index for ring in rings]), np.concatenate([ring.added for ring in rings])
        for channel in range(channels):
            _give_back(out[channel], index, given[:, channel])
    return out[0] if pixels.ndim == 2 else out.transpose(1, 2, 0)


@dataclass(frozen=True, eq=False)
class _Rings:
    """Pixels of dark rings that were filled: flat indices on the output grid, and how much was added, (pixel, lane)."""

    index: _Indices
    added: _Image


def _give_back(image: _Image, index: _Indices, added: _Image) -> None:
    """Take the light that was added to dark rings from the stars that they surround, in place: flux is conserved."""
    index, added = index[added > 0], added[added > 0]
    for begin in range(0, len(index), _RINGS_AT_ONCE):
        some = slice(begin, begin + _RINGS_AT_ONCE)
        row, column = np.divmod(index[some], image.shape[1])
        rows = np.clip(row[:, np.newaxis] + _AROUND[0], 0, image.shape[0] - 1)
        columns = np.clip(column[:, np.newaxis] + _AROUND[1], 0, image.shape[1] - 1)
        above = image[rows, columns] - image[row, column][:, np.newaxis]
        # Squares: the star's core, not the noise.
        weight = np.nan_to_num(above, nan=0.0).clip(0).astype(np.float64) ** 2
        total = weight.sum(axis=1)
        share = np.divide(added[some], total, out=np.zeros(len(total)), where=total > 0)
        np.subtract.at(image, (rows, columns), (weight * share[:, np.newaxis]).astype(np.float32))


def _undershoot(pixels: _Image, lanes: int) -> _Image:
    """Return how far below the four nearest samples a value may be, by the noise of each channel, shape (lane,)."""
    found = np.full(lanes, np.inf, np.float32)
    some = pixels[:: max(1, len(pixels) // _NOISE_ROWS)]
    for channel in range(pixels.shape[2]):
        apart = np.abs(np.diff(some[..., channel], axis=1))
        apart = apart[np.isfinite(apart)]
        if apart.size:
            found[channel] = _UNDERSHOOT * float(np.median(apart)) / (0.6745 * math.sqrt(2))
    return found


@functools.cache
def _weights(order: int, lanes: int) -> list[_Image]:
    """Return for each tap, from ``1 - order`` to ``order``, its weight at every step of a pixel, shape (step, lane)."""
    fraction = np.arange(_STEPS) / _STEPS
    distance = [fraction - k for k in range(1 - order, order + 1)]
    taps = [1.0 - np.abs(t) if order == 1 else np.sinc(t) * np.sinc(t / order) for t in distance]
    taps = [np.where(np.arange(_STEPS) == 0, k == 0, tap) for k, tap in enumerate(taps, 1 - order)]  # sinc(1) is 4e-17
    total = sum(taps)
    return [np.repeat((tap / total).astype(np.float32)[:, np.newaxis], lanes, axis=1) for tap in taps]


@dataclass(frozen=True, eq=False)
class _Source:
    """A frame made ready for taps that reach over its border."""

    # Channels lie beside each other, shape (place, lane), three of them with a fourth that is empty: NumPy fetches 16
    # bytes at an index in the time of 4.
    flat: _Image
    missing: npt.NDArray[np.bool_]
    complete: npt.NDArray[np.bool_]
    width: int
    channels: int
    order: int
    # How far below the nearest samples a value may be: see `_UNDERSHOOT`.
    undershoot: _Image

    @classmethod
    def of(cls, pixels: _Image, order: int) -> _Source:
        """Pad the planes and find where all taps are present."""
        from scipy.ndimage import minimum_filter1d

        rows, columns, channels = pixels.shape
        lanes = channels if channels == 1 else -(-channels // 4) * 4
        height, width = rows + 2 * order, columns + 2 * order
        flat = np.zeros((height, width, lanes), np.float32)
        missing, complete = np.ones((height, width, lanes), np.bool_), np.zeros((height, width, lanes), np.bool_)
        complete[..., channels:] = True
        inner = (slice(order, -order), slice(order, -order))
        for channel in range(channels):
            plane = pixels[..., channel]
            lost = ~np.isfinite(plane)
            missing[(*inner, channel)] = lost
            # Taps of the cell (row, column) are row - order + 1 ... row + order.
            if lost.any():
                flat[(*inner, channel)] = np.where(lost, np.float32(0), plane)
                present = (~missing[..., channel]).astype(np.uint8)
                for axis in (0, 1):
                    present = minimum_filter1d(present, 2 * order, axis=axis, mode="constant", cval=0, origin=-1)
                complete[..., channel] = present
            else:
                flat[(*inner, channel)] = plane
                complete[2 * order - 1 : rows, 2 * order - 1 : columns, channel] = True
        shape = (height * width, lanes)
        return cls(
            flat.reshape(shape),
            missing.reshape(shape),
            complete.reshape(shape),
            width,
            channels,
            order,
            _undershoot(pixels, lanes),
        )

    def interpolate(self, x: _Places, y: _Places) -> tuple[_Image, _Indices, _Image]:
        """Return the values at places, shape (place, channel), NaN where a needed sample is missing, and `_taps`'."""
        across, along = (np.rint(axis * _STEPS).astype(np.intp) for axis in (x, y))
        base = ((along >> _STEP_BITS) + self.order) * self.width + ((across >> _STEP_BITS) + self.order)
        across &= _STEPS - 1
        along &= _STEPS - 1
        values, low, added = self._taps(base, across, along)
        full = self.complete.take(base, axis=0)
        if not full.all():
            for channel in range(self.channels):
                rest = np.flatnonzero(~full[:, channel])
                values[rest, channel] = self._bilinear(channel, base[rest], across[rest], along[rest])
                added[~full[low, channel], channel] = 0
        return values, low, added

    def _taps(self, base: _Indices, across: _Indices, along: _Indices) -> tuple[_Image, _Indices, _Image]:
        """Add up the taps of the separable kernel; return where and what was added to dark rings, too."""
        flat, order = self.flat, self.order
        tables = _weights(order, flat.shape[1])
        shape = (base.size, flat.shape[1])
        # Indices are inside: "clip" spares the check, and with it a copy.
        taps = [table.take(across, axis=0, mode="clip") for table in tables]
        value = np.zeros(shape, np.float32)
        limit = np.empty(shape, np.float32)
        line, product = np.empty(shape, np.float32), np.empty(shape, np.float32)
        first = base + ((1 - order) * self.width + 1 - order)
        for row, table in enumerate(tables):
            line.fill(0)
            for column, tap in enumerate(taps):
                # Indices stay as they are: the samples begin later.
                flat[row * self.width + column :].take(first, axis=0, out=product, mode="clip")
                if row == order - 1 and column == order - 1:
                    np.subtract(product, self.undershoot, out=limit)
                np.multiply(product, tap, out=product)
                np.add(line, product, out=line)
            table.take(along, axis=0, out=product, mode="clip")
            np.multiply(line, product, out=line)
            np.add(value, line, out=value)
        # Those below one of the four nearest samples are few: they are compared with all.
        below = value < limit
        # Four lanes of a byte are one number: looking for any of them takes NumPy ten times as long.
        low = np.flatnonzero(below.view(np.uint32) if shape[1] == 4 else below.any(axis=1))
        limit = limit[low]
        for step in (1, self.width, self.width + 1):
            np.minimum(limit, flat[base[low] + step] - self.undershoot, out=limit)
        added = np.maximum(limit - value[low], 0)
        value[low] += added
        return value, low, added

    def _bilinear(self, channel: int, base: _Indices, across: _Indices, along: _Indices) -> _Image:
        """Interpolate between the four nearest samples; a sample of weight zero may be missing."""
        tables = _weights(1, 1)
        value = np.zeros(base.size, np.float32)
        lost = np.zeros(base.size, np.bool_)
        for row in (0, 1):
            for column in (0, 1):
                weight = tables[column][across, 0] * tables[row][along, 0]
                index = base + (row * self.width + column)
                value += weight * self.flat[index, channel]
                lost |= self.missing[index, channel] & (weight > 0)
        value[lost] = np.nan
        return value
