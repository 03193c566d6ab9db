"""Frames of any number of axes as the stack takes them: images of two axes, scaled row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.frames.host_arrays import shape_of, to_host
from zemosaic_stack_core.options import StackOptions
from zemosaic_stack_core.stacking.result import StackResult
from zemosaic_stack_core.stacking.run import stack

_Floats = npt.NDArray[np.float32]
_Bools = npt.NDArray[np.bool_]


def flat_shape(shape: Sequence[int]) -> tuple[int, int]:
    """Return the shape of an image of two axes with the samples of one of any number: pixels don't know each other."""
    rows = int(shape[0]) if len(shape) > 1 else 1
    return rows, int(np.prod(shape)) // max(rows, 1)


@dataclass(frozen=True, slots=True)
class ScaledRows:
    """A frame times a number, or how far that lies from a center, computed as the stack asks for its rows."""

    # An array of any library, shape (row, column).
    frame: Any
    scale: float
    center: _Floats | None = None

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
            values = samples.astype(np.float32)
            return values if self.center is None else np.abs(values - self.center[rows])


@dataclass(frozen=True, slots=True)
class Cube:
    """The frames of one combination, arrays of any library of shape (row, column), with what goes with them."""

    frames: tuple[Any, ...]
    masks: tuple[_Bools | None, ...]
    # One number per frame; None for 1 everywhere.
    scales: tuple[float, ...] | None = None

    def values(self, frame: int) -> _Floats:
        """Return a frame's samples as the stack sees them."""
        return ScaledRows(self.frames[frame], 1.0 if self.scales is None else self.scales[frame])[:]

    def stack(
        self, options: StackOptions, maps: tuple[str, ...] = (), weights: object = None, center: _Floats | None = None
    ) -> StackResult:
        """Stack the frames, or how far each lies from a center."""
        scales = (1.0,) * len(self.frames) if self.scales is None else self.scales
        is_plain = center is None and self.scales is None
        scaled = [ScaledRows(frame, scale, center) for frame, scale in zip(self.frames, scales, strict=True)]
        masks = None if all(mask is None for mask in self.masks) else self.masks
        return stack(self.frames if is_plain else scaled, options=options, maps=maps, weights=weights, masks=masks)

    def outside(self, options: StackOptions) -> list[_Bools]:
        """Return, for each frame, which of its samples lie outside of what a rule keeps."""
        low, high = (self.stack(replace(options, combine=end)).image for end in ("min", "max"))
        found = []
        for frame in range(len(self.frames)):
            values = self.values(frame)
            found.append((values < low) | (values > high))
        return found
