"""Whether float32, which frames are handed out in, keeps what a frame of wider numbers says."""

from __future__ import annotations

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


def lost_noise(source: ArrayFrame | FileFrame, files: FilePool) -> tuple[float, float, float] | None:
    """Return level, float32's step there, and noise of a frame whose noise float32 can't carry; None of any other."""
    if source.dtype != np.float32:
        return None
    stored = source.layout.stored if isinstance(source, FileFrame) else source.array.dtype
    held = np.dtype(str(stored).rsplit(".", 1)[-1]).newbyteorder("=")  # "torch.float64"
    if held.itemsize <= 2 or held == np.float32:
        return None
    first = max(0, source.rows // 2 - _ROWS // 2)
    last = min(source.rows, first + _ROWS)
    values: npt.NDArray[np.float64]
    if isinstance(source, FileFrame):
        values = np.empty((source.channels, last - first, source.columns))
        files.read_rows(source.data_path, source.name, source.layout, first, last, values)
    else:
        values = to_host(source.array[first:last, ...], source.name).astype(np.float64)
        values = values.transpose(2, 0, 1) if values.ndim == 3 else values[None]
    with np.errstate(all="ignore"):
        values[np.abs(values) > np.finfo(np.float32).max] = np.nan  # missing, as NaN is
        steps = np.abs(np.diff(values, axis=2))
        finite = values[np.isfinite(values)]
        steps = steps[np.isfinite(steps)]
        if not finite.size or not steps.size:
            return None
        level, noise = float(np.median(np.abs(finite))), float(np.quantile(steps, _QUANTILE)) / _SIGMAS
        step = float(np.spacing(np.float32(level)))
    return (level, step, noise) if 0.0 < _COARSE * noise < step else None
