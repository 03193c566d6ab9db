"""Frames of any number of axes as the stack takes them: images of two axes, scaled row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.frames.host_arrays import shape_of, to_host
from zemosaic_stack_core.options import StackOptions
from zemosaic_stack_core.stacking.result import StackResult
from zemosaic_stack_core.stacking.run import stack

_Floats = npt.NDArray[np.float32]
_Bools = npt.NDArray[np.bool_]

# The maps that say what a rule keeps.
BOUNDS = ("low", "high")


def bounds_of(result: StackResult) -> tuple[_Floats, _Floats]:
    """Return the lowest and the highest sample of each pixel that was kept: maps that were asked for."""
    return np.asarray(result.low), np.asarray(result.high)


def flat_shape(shape: Sequence[int]) -> tuple[int, int]:
    """Return the shape of an image of two axes with the samples of one of any number: pixels don't know each other."""
    rows = int(shape[0]) if len(shape) > 1 else 1
    return rows, int(np.prod(shape)) // max(rows, 1)


@dataclass(frozen=True, slots=True)
class ScaledRows:
    """A frame times a number, or how far what is kept of it lies from a center, computed as the stack asks for rows."""

    # An array of any library, shape (row, column).
    frame: Any
    scale: float
    center: _Floats | None = None
    # Lowest and highest sample of each pixel that is kept; None where all are.
    bounds: tuple[_Floats, _Floats] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""
        return shape_of(self.frame)

    @property
    def dtype(self) -> np.dtype[np.float32]:
        """That of the rows."""
        return np.dtype(np.float32)

    def __getitem__(self, key: Any) -> _Floats:
        rows = key[0] if isinstance(key, tuple) else key
        samples = to_host(self.frame[rows, ...], "frame")
        with np.errstate(over="ignore", invalid="ignore"):  # beyond float32 is infinite, that is, missing
            if self.scale != 1.0:  # rounded once: frames that scaling makes equal are so to the last bit
                samples = samples.astype(np.float64) * self.scale
            values: _Floats = samples.astype(np.float32)
            if self.bounds is not None:
                low, high = self.bounds
                values[(values < low[rows]) | (values > high[rows])] = np.nan
            return values if self.center is None else np.abs(values - self.center[rows])


@dataclass(frozen=True, slots=True)
class Cube:
    """The frames of one combination, arrays of any library of shape (row, column), with what goes with them."""

    frames: tuple[Any, ...]
    masks: tuple[_Bools | None, ...]
    # One number per frame; None for 1 everywhere.
    scales: tuple[float, ...] | None = None

    def stack(self, options: StackOptions, maps: tuple[str, ...] = (), weights: object = None) -> StackResult:
        """Stack the frames."""
        return self._stack(self.frames if self.scales is None else self._scaled(), options, maps, weights)

    def deviation(self, center: _Floats, bounds: tuple[_Floats, _Floats] | None) -> _Floats:
        """Return the median of how far the samples within bounds lie from a center."""
        return self._stack(self._scaled(center, bounds), StackOptions(rejection="none", combine="median")).image

    def outside(self, rule: StackOptions) -> list[_Bools]:
        """Return, for each frame, which of its samples lie outside of what a rule keeps."""
        low, high = bounds_of(self.stack(rule, BOUNDS))
        found = []
        for frame in self._scaled():
            values = frame[:]
            found.append((values < low) | (values > high))
        return found

    def _scaled(
        self, center: _Floats | None = None, bounds: tuple[_Floats, _Floats] | None = None
    ) -> tuple[ScaledRows, ...]:
        """Return the frames as the stack asks for their rows."""
        scales = (1.0,) * len(self.frames) if self.scales is None else self.scales
        return tuple(ScaledRows(*one, center, bounds) for one in zip(self.frames, scales, strict=True))

    def _stack(
        self, frames: tuple[Any, ...], options: StackOptions, maps: tuple[str, ...] = (), weights: object = None
    ) -> StackResult:
        """Stack frames made of these."""
        masks = None if all(mask is None for mask in self.masks) else self.masks
        return stack(frames, options=options, maps=maps, weights=weights, masks=masks)
