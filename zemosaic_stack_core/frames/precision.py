"""Whether float32, which frames are handed out in, keeps what frames of wider numbers say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.frames.array_frames import ArrayFrame
from zemosaic_stack_core.frames.file_frames import FileFrame
from zemosaic_stack_core.frames.host_arrays import to_host
from zemosaic_stack_core.frames.pixel_rows import FilePool

# Rows in the middle of a frame that are looked at.
_ROWS = 16
# Of |difference of neighbors| of normal noise, nine in ten are below 1.645 * sqrt(2) sigma.
_QUANTILE, _SIGMAS = 0.9, 2.326
# Steps of this many sigma add step^2/12, 1 % of the noise's variance. At a level of 1e8 float32 has steps of 8: with a
# sigma of 3 that is 59 %, and rounding no longer averages out over frames.
_COARSE = 0.35
# A frame whose steps are finer than this part of those that are too coarse for the first one's noise has another noise
# to be looked for only if that is ten times less. One row instead of 16 is a tenth of the time: 15 us a frame.
_SAFE = 0.1


@dataclass(frozen=True, slots=True)
class Precision:
    """A frame's level and noise, and float32's step at that level."""

    name: str
    level: float
    step: float
    noise: float

    @property
    def is_lost(self) -> bool:
        """Whether float32 can't carry the noise."""
        return 0.0 < _COARSE * self.noise < self.step


def lost_noise(sources: Sequence[ArrayFrame | FileFrame], files: FilePool) -> Precision | None:
    """Return the first frame whose noise float32 can't carry; None where it carries that of all."""
    first: Precision | None = None
    for source in sources:
        if not _is_wide(source) or (first is not None and _is_safe(source, first, files)):
            continue
        found = _look_at(source, files)
        if found is not None and found.is_lost:
            return found
        first = first or found
    return None


def _is_wide(source: ArrayFrame | FileFrame) -> bool:
    """Return whether a frame's numbers have more digits than float32."""
    if source.dtype != np.float32:
        return False
    stored = source.layout.stored if isinstance(source, FileFrame) else source.array.dtype
    held = np.dtype(str(stored).rsplit(".", 1)[-1]).newbyteorder("=")  # "torch.float64"
    return held.itemsize > 2 and held != np.float32


def _is_safe(source: ArrayFrame | FileFrame, first: Precision, files: FilePool) -> bool:
    """Return whether the largest number of a frame's middle row has steps that are fine for any likely noise."""
    row = _rows(source, source.rows // 2, source.rows // 2 + 1, files)
    with np.errstate(over="ignore"):
        step = np.spacing(np.float32(np.abs(row).max()))  # NaN where that is, or infinite: safe nowhere
    return bool(step < _SAFE * _COARSE * first.noise)


def _look_at(source: ArrayFrame | FileFrame, files: FilePool) -> Precision | None:
    """Return a frame's level and noise; None where nothing is finite."""
    first = max(0, source.rows // 2 - _ROWS // 2)
    values = _rows(source, first, min(source.rows, first + _ROWS), files)
    with np.errstate(all="ignore"):
        values[np.abs(values) > np.finfo(np.float32).max] = np.nan  # missing, as NaN is
        steps = np.abs(np.diff(values, axis=2))
        finite = values[np.isfinite(values)]
        steps = steps[np.isfinite(steps)]
        if not finite.size or not steps.size:
            return None
        level, noise = float(np.median(np.abs(finite))), float(np.quantile(steps, _QUANTILE)) / _SIGMAS
        return Precision(source.name, level, float(np.spacing(np.float32(level))), noise)


def _rows(source: ArrayFrame | FileFrame, first: int, last: int, files: FilePool) -> npt.NDArray[np.float64]:
    """Return rows of a frame, shape (channel, row, column), all their digits."""
    values: npt.NDArray[np.float64]
    if isinstance(source, FileFrame):
        values = np.empty((source.channels, last - first, source.columns))
        files.read_rows(source.data_path, source.name, source.layout, first, last, values)
        return values
    values = to_host(source.array[first:last, ...], source.name).astype(np.float64)
    return values.transpose(2, 0, 1) if values.ndim == 3 else values[None]
