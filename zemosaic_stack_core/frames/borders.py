"""Borders of exact zeros: what programs that register frames of integers write where a frame has nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import FrameReadError
from zemosaic_stack_core.frames.file_frames import FileFrame
from zemosaic_stack_core.frames.pixel_rows import FilePool

# Frames that are looked at, and rows of each.
_FRAMES = 24
_ROWS = 24
# Part of the rows looked at, or of a row at the top or bottom, that must begin or end with zeros.
_PART = 0.3
# Part of the samples that are zero all over a frame that was clipped at zero: there they say nothing.
_CLIPPED = 0.02


def zero_border_line(sources: Sequence[object], files: FilePool) -> str:
    """Return a line about frames with borders of exact zeros; empty where fewer than two have one."""
    frames = [source for source in sources if isinstance(source, FileFrame)]
    chosen = frames[:: max(1, -(-len(frames) // _FRAMES))]
    found = [frame for frame in chosen if _has_zero_border(frame, files)]
    if len(found) < 2:
        return ""
    return (
        f"{len(found)} of {len(chosen)} frames looked at have borders of exact zeros, as {found[0].name}: they darken "
        "the master there; --zeros-missing leaves them out"
    )


def _has_zero_border(frame: FileFrame, files: FilePool) -> bool:
    """Return whether exact zeros fill the edge of a frame, and are not all over it."""
    try:
        wanted = sorted({int(row) for row in np.linspace(0, frame.rows - 1, _ROWS)})
        rows = np.stack([_zeros(frame, row, files) for row in wanted])
    except FrameReadError:  # stacking says more
        return False
    edges = max(float(rows[0].mean()), float(rows[-1].mean()), float(rows[:, 0].mean()), float(rows[:, -1].mean()))
    if edges < _PART or rows.all():
        return False
    # What is left when whole rows and the runs at both ends are gone.
    inner = rows[~rows.all(axis=1)]
    ahead, behind = np.logical_and.accumulate(inner, 1), np.logical_and.accumulate(inner[:, ::-1], 1)[:, ::-1]
    inside = ~(ahead | behind)
    return float((inner & inside).sum()) <= _CLIPPED * float(inside.sum())


def _zeros(frame: FileFrame, row: int, files: FilePool) -> npt.NDArray[np.bool_]:
    """Return where all channels of a row are exactly zero."""
    zeros: npt.NDArray[np.bool_] = (frame.read_planes(row, row + 1, files)[:, 0] == 0).all(axis=0)
    return zeros
