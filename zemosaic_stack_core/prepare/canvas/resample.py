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
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.backends.host import host_program
from zemosaic_stack_core.backends.inputs import Inputs
from zemosaic_stack_core.backends.tracing import WINDOW, WINDOW_ROOM
from zemosaic_stack_core.prepare.canvas.geometry import Affine
from zemosaic_stack_core.prepare.medians import median_of

_Image = npt.NDArray[np.float32]
_Places = npt.NDArray[np.float64]
_Indices = npt.NDArray[np.intp]
# Flat indices of pixels of dark rings on the output grid, and how much was added there.
_Ring = tuple[_Indices, _Image]

# Of output computed at once: the arrays of a band stay in the cache.
_BAND_PIXELS = 1 << 15
_ORDERS = {"bilinear": 1, "lanczos2": 2, "lanczos3": 3, "lanczos4": 4}
# Samples of a border, as many as taps reach over it.
_BORDER = 4
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
_STEPS = 1 << 12


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


@dataclass(frozen=True, eq=False)
class BorderedFrame:
    """A frame that lies within a border of missing samples, as `resample` wants it."""

    # Shape (channel, entry): rows, border included, one behind the other, and room for the last window.
    whole: _Image
    # What is within the borders, shape (channel, row, column).
    planes: _Image

    @property
    def image(self) -> _Image:
        """The frame, shape (row, column) or (row, column, channel)."""
        return self.planes[0] if len(self.planes) == 1 else self.planes.transpose(1, 2, 0)

    @classmethod
    def empty(cls, channels: int, rows: int, columns: int) -> BorderedFrame:
        """Return a frame whose planes are to be filled."""
        height, width = rows + 2 * _BORDER, columns + 2 * _BORDER
        whole = np.empty((channels, height * width + WINDOW_ROOM), np.float32)
        images = whole[:, : height * width].reshape(channels, height, width)
        whole[:, height * width :] = np.nan
        images[:, :_BORDER] = images[:, -_BORDER:] = images[..., :_BORDER] = images[..., -_BORDER:] = np.nan
        return cls(whole, images[:, _BORDER:-_BORDER, _BORDER:-_BORDER])

    @classmethod
    def of(cls, pixels: _Image) -> BorderedFrame:
        """Return a copy of a frame, shape (row, column) or (row, column, channel)."""
        planes = pixels[np.newaxis] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        frame = cls.empty(*planes.shape)
        frame.planes[:] = planes
        return frame


def resample(
    pixels: _Image | BorderedFrame, mapping: PixelMap, rows: int, columns: int, kernel: str = "lanczos3"
) -> _Image:
    """Return a frame, shape (row, column) or (row, column, channel), on the output grid; missing is NaN."""
    order = _ORDERS[kernel]
    frame = pixels if isinstance(pixels, BorderedFrame) else BorderedFrame.of(pixels)
    planes = frame.planes
    undershoot = [_undershoot(plane) for plane in planes]
    limits = {"right": planes.shape[2] - 1 + _ROUNDING, "bottom": planes.shape[1] - 1 + _ROUNDING}
    weights = {"weights": _weights(order)}
    out = np.empty((len(planes), rows, columns), np.float32)
    height = max(1, _BAND_PIXELS // columns)
    rings: list[list[_Ring]] = [[] for _ in planes]
    for start in range(0, rows, height):
        stop = min(rows, start + height)
        x, y = mapping.places(start, stop, columns)
        area = mapping.areas(start, stop, columns)
        numbers, whole = {"undershoot": undershoot}, {"x": x.reshape(-1), "y": y.reshape(-1)}
        if isinstance(area, float):
            numbers["area"] = [area] * len(planes)
        else:
            whole["area"] = area.reshape(-1)
        program = host_program(_interpolate, _Task(order, planes.shape[2] + 2 * _BORDER))
        inputs = Inputs(len(planes), x.size, {"image": list(frame.whole)}, numbers, limits, whole=whole | weights)
        with np.errstate(invalid="ignore"):  # missing samples that are infinite
            found, _ = program(inputs)
        out[:, start:stop] = found["value"].reshape(-1, *x.shape)
        if found["is_ring"].any():
            for ring, is_ring, added in zip(rings, found["is_ring"], found["added"], strict=True):
                index = np.flatnonzero(is_ring)
                ring.append((start * columns + index, added[index]))
    for image, bands in zip(out, rings, strict=True):
        if bands:
            _give_back(image, *(np.concatenate(parts) for parts in zip(*bands, strict=True)))
    return out[0] if len(out) == 1 else out.transpose(1, 2, 0)


class _Task(NamedTuple):
    """What the program must know before it is compiled."""

    order: int
    # Samples of a row of the bordered frame.
    width: int


def _interpolate(xp: Any, column: Any, task: _Task) -> dict[str, Any]:
    """Give every channel's value at a pixel's place, what was added there because it was in a dark ring, and if it was.

    A frame of the program is a channel; `xp` and `column` are those of `backends.tracing`.
    """
    order, width = task.order, task.width
    x, y = column.whole("x"), column.whole("y")
    none, nan = column.full(0.0, "f32"), column.full(math.nan, "f32")
    inside = (x >= -_ROUNDING) & (y >= -_ROUNDING)
    inside = inside & (x <= column.parameter("right")) & (y <= column.parameter("bottom"))
    cells, parts = [], []
    for axis in (x, y):
        steps = xp.round(xp.where(inside, axis, 0.0) * float(_STEPS))
        cells.append(xp.floor(steps * (1 / _STEPS)))
        parts.append(steps - cells[-1] * float(_STEPS))
    corner = xp.astype((cells[1] + float(_BORDER)) * float(width) + (cells[0] + float(_BORDER)), xp.int32)
    across, along = (column.window("weights", xp.astype(part * float(WINDOW), xp.int32), 2 * order) for part in parts)

    def channel(frame: Any, carry: list[Any]) -> list[Any]:
        value, nearest = none, []
        for row, weight in enumerate(along, 1 - order):
            samples = frame.window("image", corner, 2 * order, row * width + 1 - order)
            line = samples[0] * across[0]
            for sample, tap in zip(samples[1:], across[1:], strict=True):
                line = line + sample * tap
            value = value + line * weight
            if row in (0, 1):
                nearest += samples[order - 1 : order + 1]
        lowest = nearest[0] - frame.number("undershoot")
        for sample in nearest[1:]:
            lowest = xp.minimum(lowest, sample - frame.number("undershoot"))
        is_whole = xp.isfinite(value)
        added = xp.where(is_whole, xp.maximum(lowest - value, none), none)
        value = value + added

        def beside_missing(_: list[Any]) -> tuple[list[Any], Any]:
            return [_bilinear(xp, nearest, parts, none, nan)], is_whole

        area = frame.number("area") if frame.has("area") else xp.astype(column.whole("area"), xp.float32)
        value = column.repeat(1, [value], inside & ~is_whole, beside_missing)[0]
        frame.give("value", xp.where(inside, value * area, nan))
        frame.give("added", added * area)
        frame.give("is_ring", inside & (added > 0.0))
        return carry

    column.visit([], channel)
    return {}


def _bilinear(xp: Any, nearest: list[Any], parts: list[Any], none: Any, nan: Any) -> Any:
    """Return what lies between the four nearest samples; one of weight zero may be missing, or else it is NaN."""
    x, y = (xp.astype(part * (1 / _STEPS), xp.float32) for part in parts)
    value, is_lost = none, none > none
    for sample, weight in zip(nearest, ((1.0 - x) * (1.0 - y), x * (1.0 - y), (1.0 - x) * y, x * y), strict=True):
        is_there = xp.isfinite(sample)
        value = value + weight * xp.where(is_there, sample, none)
        is_lost = is_lost | (~is_there & (weight > 0.0))
    return xp.where(is_lost, nan, value)


def _give_back(image: _Image, index: _Indices, added: _Image) -> None:
    """Take the light that was added to dark rings from the stars that they surround, in place: flux is conserved."""
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


def _undershoot(plane: _Image) -> float:
    """Return how far below the four nearest samples a value may be, by the noise of a channel."""
    some = plane[:: max(1, len(plane) // _NOISE_ROWS)]
    apart = np.abs(np.diff(some, axis=1))
    apart = apart[np.isfinite(apart)]
    return _UNDERSHOOT * median_of(apart) / (0.6745 * math.sqrt(2)) if apart.size else math.inf


@functools.cache
def _weights(order: int) -> _Image:
    """Return the weights of the taps, from ``1 - order`` to ``order``, at every step of a pixel: `WINDOW` a step."""
    fraction = np.arange(_STEPS) / _STEPS
    distance = [fraction - k for k in range(1 - order, order + 1)]
    taps = [1.0 - np.abs(t) if order == 1 else np.sinc(t) * np.sinc(t / order) for t in distance]
    taps = [np.where(np.arange(_STEPS) == 0, k == 0, tap) for k, tap in enumerate(taps, 1 - order)]  # sinc(1) is 4e-17
    weights = np.zeros((_STEPS, WINDOW), np.float32)
    weights[:, : 2 * order] = (np.stack(taps) / sum(taps)).T
    return weights.reshape(-1)
