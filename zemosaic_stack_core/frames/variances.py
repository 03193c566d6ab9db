"""The variance of every sample as read, input units squared: from a FITS extension, or a detector's noise model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.frames.array_frames import ArrayFrame
from zemosaic_stack_core.frames.chunk import Chunk
from zemosaic_stack_core.frames.file_frames import FileFrame
from zemosaic_stack_core.frames.pixel_rows import FilePool
from zemosaic_stack_core.frames.planes import PlaneStack

_Floats = npt.NDArray[np.float64]

# What an extension holds, by the card UTYPE that astropy's CCDData writes, else by the extension's name.
_KINDS_OF_UTYPE = {
    "VARIANCEUNCERTAINTY": "variance",
    "STDDEVUNCERTAINTY": "deviation",
    "INVERSEVARIANCE": "inverse",
}
_KINDS_OF_NAME = {
    **dict.fromkeys(("UNCERT", "ERR", "ERROR", "SIGMA", "STD", "STDDEV"), "deviation"),
    **dict.fromkeys(("IVAR", "INVVAR"), "inverse"),
}


@dataclass(frozen=True)
class FrameVariances:
    """Variances that each frame brings, in an extension of its file or in memory."""

    # What goes with each frame, and what that holds: see `kind_of_variances`.
    planes: tuple[FileFrame | ArrayFrame, ...]
    kinds: tuple[str, ...]

    @property
    def is_checked(self) -> bool:
        """Not before every sample is read."""
        return False

    def read_variances(
        self, frame: int, chunk: Chunk, samples: npt.NDArray[Any], files: FilePool
    ) -> npt.NDArray[np.float32]:
        """Return a frame's variances in a chunk, shape (channel, pixel), rounded to float32 once."""
        plane = self.planes[frame]
        rows = np.empty((plane.channels, chunk.stop - chunk.start, plane.columns), plane.dtype)
        plane.read_rows(chunk.start, chunk.stop, rows, files)
        part = rows[:, :, chunk.first : chunk.last].reshape(plane.channels, -1).astype(np.float64)
        with np.errstate(all="ignore"):
            if self.kinds[frame] == "deviation":
                part = np.where(part < 0.0, np.nan, part * part)
            elif self.kinds[frame] == "inverse":
                part = 1.0 / part
            return np.broadcast_to(part.astype(np.float32), samples.shape)


@dataclass(frozen=True)
class DetectorVariances:
    """Variances that a detector's gain (electrons per data unit) and read noise (electrons) make.

    `sensitivity` is noise that is a fraction of the signal.

    Notes
    -----
    ``(read_noise/gain)^2 + max(v, 0)/gain + (sensitivity*v)^2`` of each sample as read, in float64, rounded once.
    """

    gain: float
    read_noise: float
    sensitivity: float

    @property
    def is_checked(self) -> bool:
        """It is one wherever the sample is finite."""
        return True

    def read_variances(
        self,
        frame: int,  # noqa: ARG002 - as others of its kind
        chunk: Chunk,  # noqa: ARG002 - as others of its kind
        samples: npt.NDArray[Any],
        files: FilePool,  # noqa: ARG002 - as others of its kind
    ) -> npt.NDArray[np.float32]:
        """Return the variances of these samples, shape (channel, pixel)."""
        value = samples.astype(np.float64)
        with np.errstate(all="ignore"):
            variance = np.maximum(value, 0.0)
            variance /= self.gain
            variance += (self.read_noise / self.gain) ** 2
            if self.sensitivity > 0.0:
                value *= self.sensitivity
                value *= value
                variance += value
            return variance.astype(np.float32)


# Hands out the variances of a frame's samples in a chunk; `is_checked` says that all of them are known to be finite
# numbers of at least 0.
VarianceSource = FrameVariances | DetectorVariances | PlaneStack


def kind_of_variances(plane: FileFrame, extension: str) -> str:
    """Return what an extension of this name holds, "variance", "deviation" or "inverse".

    The card UTYPE decides, as astropy's ``CCDData`` writes it. Without it extensions named UNCERT, ERR, ERROR, SIGMA,
    STD, STDDEV hold standard deviations, IVAR, INVVAR inverse variances, and all others variances.
    """
    by_name = _KINDS_OF_NAME.get(extension.strip().upper(), "variance")
    return _KINDS_OF_UTYPE.get(plane.utype.upper(), by_name)
