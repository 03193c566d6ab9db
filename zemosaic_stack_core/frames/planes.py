"""Numbers that go with every sample, such as weights and variances, read by chunks like the samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.frames.chunk import Chunk
from zemosaic_stack_core.frames.group import FrameGroup
from zemosaic_stack_core.frames.pixel_rows import FilePool


@dataclass(frozen=True)
class PlaneStack:
    """One number per sample.

    Parameters
    ----------
    values : array of shape (frame, channel, row, column)
        Often a broadcast view: it takes no more memory than what the caller gave.
    factor : array of shape (row, column), float32, or None
        Multiplied in for every frame and channel.
    """

    values: npt.NDArray[Any]
    factor: npt.NDArray[np.float32] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process without the copies that a broadcast view stands for."""
        values = self.values
        kept = values[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in values.strides)]
        return _broadcast, (kept, values.shape, self.factor)

    @property
    def is_checked(self) -> bool:
        """They were looked at when they were given."""
        return True

    def read_variances(
        self,
        frame: int,
        chunk: Chunk,
        samples: npt.NDArray[Any],  # noqa: ARG002 - the protocol's
        files: FilePool,  # noqa: ARG002 - the protocol's
    ) -> npt.NDArray[np.float32]:
        """Give a frame's numbers in a chunk, shape (channel, pixel): a `VarianceSource`."""
        return self.read(frame, chunk, None)

    def read(self, frame: int, chunk: Chunk, factor: npt.NDArray[np.float32] | None) -> npt.NDArray[np.float32]:
        """Give a frame's numbers in a chunk, shape (channel, pixel), times a factor per channel, rounded once."""
        return self.read_exact(frame, chunk, factor).astype(np.float32)

    def read_exact(self, frame: int, chunk: Chunk, factor: npt.NDArray[np.float32] | None) -> npt.NDArray[np.float64]:
        """Give the same, not rounded yet."""
        part = self.values[frame, :, chunk.start : chunk.stop, chunk.first : chunk.last]
        part = part.reshape(part.shape[0], -1).astype(np.float64)
        if self.factor is not None:
            part *= self.factor[chunk.start : chunk.stop, chunk.first : chunk.last].reshape(-1)
        if factor is not None:
            part *= factor.astype(np.float64)[:, None]
        return part


def _broadcast(values: npt.NDArray[Any], shape: tuple[int, ...], factor: npt.NDArray[np.float32] | None) -> PlaneStack:
    """Make a stack of planes of what `PlaneStack.__reduce__` sent."""
    return PlaneStack(np.broadcast_to(values, shape), factor)


def plane_stack(values: object, group: FrameGroup, name: str) -> PlaneStack:
    """Check numbers given per sample and lay them out by channel.

    Parameters
    ----------
    values : array
        Broadcastable to (frame, row, column[, channel]).
    group : FrameGroup
        The frames.
    name : str
        What messages call the numbers.

    Raises
    ------
    InvalidInputError
        The shape does not fit, or a number is negative or not finite.
    """
    array = np.asarray(values)
    shape = (len(group.sources), group.rows, group.columns)
    full = (*shape, group.channels) if group.is_color else shape
    if array.dtype.kind not in "fiub":
        raise InvalidInputError(f"{name} have the type {array.dtype}; expected real numbers")
    try:
        whole = np.broadcast_to(array, full)
    except ValueError:
        raise InvalidInputError(
            f"{name} have the shape {array.shape}; expected {full} or one that broadcasts to it"
        ) from None
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InvalidInputError(f"{name} hold a value that is not finite; expected finite numbers of at least 0")
    if array.dtype.kind in "fi" and array.size and array.min() < 0:
        raise InvalidInputError(f"{name} hold the value {array.min():g}; expected numbers of at least 0")
    if not group.is_color:
        return PlaneStack(whole[:, None, :, :])
    return PlaneStack(np.moveaxis(whole, 3, 1))
