"""What goes with every sample besides its value: which planes were given, and numbers that are read by chunks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.frames.chunk import Chunk
from zemosaic_stack_core.frames.pixel_rows import FilePool


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanesGiven:
    """Masks, weights and variances of single samples: the FITS extensions they are in, and those given as arrays."""

    # EXTNAME of each frame's file; that of the image with EXTVER, if need be ("SCI,2").
    image_extension: str | None = None
    # None: MASK and UNCERT, where astropy's CCDData wrote the file; an empty name: none.
    mask_extension: str | None = None
    # Bits of the mask that count; None for all.
    dq_bits: int | None = None
    variance_extension: str | None = None
    # Exact zeros of files are missing: borders that programs which register frames have filled.
    zeros_missing: bool | None = None
    # What was given as arrays, of "masks", "weights", "variances": no file has them; or images of several extensions.
    arrays: tuple[str, ...] = ()


# Nothing but the frames.
NO_PLANES = PlanesGiven()


@dataclass(frozen=True)
class PlaneStack:
    """One number per sample."""

    # Shape (frame, channel, row, column). Often a broadcast view: it takes no more memory than what the caller gave.
    values: npt.NDArray[Any]
    # Shape (row, column): multiplied in for every frame and channel.
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
        samples: npt.NDArray[Any],  # noqa: ARG002 - as others of its kind
        files: FilePool,  # noqa: ARG002 - as others of its kind
    ) -> npt.NDArray[np.float32]:
        """Return a frame's numbers in a chunk, shape (channel, pixel): a `VarianceSource`."""
        return self.read(frame, chunk, None)

    def read(self, frame: int, chunk: Chunk, factor: npt.NDArray[np.float32] | None) -> npt.NDArray[np.float32]:
        """Return a frame's numbers in a chunk, shape (channel, pixel), times a factor per channel, rounded once."""
        return self.read_exact(frame, chunk, factor).astype(np.float32)

    def read_exact(self, frame: int, chunk: Chunk, factor: npt.NDArray[np.float32] | None) -> npt.NDArray[np.float64]:
        """Return the same, not rounded yet."""
        part = self.values[frame, :, chunk.start : chunk.stop, chunk.first : chunk.last]
        part = part.reshape(part.shape[0], -1).astype(np.float64)
        if self.factor is not None:
            part *= self.factor[chunk.start : chunk.stop, chunk.first : chunk.last].reshape(-1)
        if factor is not None:
            part *= factor.astype(np.float64)[:, None]
        return part


def _broadcast(values: npt.NDArray[Any], shape: tuple[int, ...], factor: npt.NDArray[np.float32] | None) -> PlaneStack:
    """Return the stack of planes of what `PlaneStack.__reduce__` sent."""
    return PlaneStack(np.broadcast_to(values, shape), factor)
