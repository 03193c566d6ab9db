"""Read a group of frames in bands of rows: `BandReader` and the `Band` it hands out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.frames.array_frames import ArrayFrame
from zemosaic_stack_core.frames.group import FrameGroup
from zemosaic_stack_core.frames.masks import MaskSource
from zemosaic_stack_core.frames.pixel_rows import FilePool

_Array = npt.NDArray[Any]
_Bools = npt.NDArray[np.bool_]


@dataclass(slots=True)
class Band:
    """The same rows of several frames."""

    # Per frame, shape (channels, rows, columns), of that frame's dtype, in input units: parts of the buffers, or
    # read-only views of the arrays.
    samples: list[_Array]
    # Per frame, shape (channels or 1, rows, columns), True = missing; None where nothing is masked in this band.
    masks: list[_Bools | None]


class BandReader:
    """Reads bands of rows of a group; a context manager, for one thread at a time. Each worker makes its own."""

    def __init__(self, group: FrameGroup, *, max_open_files: int | None = None) -> None:
        self.group = group
        self._files = FilePool(max_open_files)

    def __enter__(self) -> BandReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def files(self) -> FilePool:
        """The open files, for planes that go with the frames."""
        return self._files

    @property
    def open_files(self) -> int:
        """Files open now."""
        return len(self._files)

    def close(self) -> None:
        """Close every file."""
        self._files.close()

    def allocate(self, rows: int) -> list[_Array]:
        """Return one buffer per frame for bands of up to `rows` rows, shape (channels, rows, columns), of its dtype.

        Those of frames in memory that are handed out as views have 0 rows.
        """
        group = self.group
        return [
            np.empty((group.channels, 0 if is_viewed(source) else rows, group.columns), source.dtype)
            for source in group.sources
        ]

    def read(
        self, start: int, stop: int, buffers: Sequence[_Array], first_frame: int = 0, last_frame: int | None = None
    ) -> Band:
        """Read rows `start` to `stop` of frames `first_frame` to `last_frame` (excluded), by default all.

        The buffers are from `allocate`, one for each frame that is read, with at least as many rows. Raise
        `FrameReadError` where a file became unreadable or shorter since it was opened.
        """
        group = self.group
        if not 0 <= start < stop <= group.rows:
            raise InvalidInputError(f"rows {start} to {stop}; expected a range within 0 to {group.rows}")
        frames = range(len(group.sources))[first_frame:last_frame]
        if len(buffers) != len(frames):
            raise InvalidInputError(f"{len(buffers)} buffers for {len(frames)} frames; expected one per frame")
        band = Band([], [])
        for frame, buffer in zip(frames, buffers, strict=True):
            source = group.sources[frame]
            if isinstance(source, ArrayFrame) and source.can_view:
                samples = source.view_rows(start, stop)
            else:
                samples = buffer[:, : stop - start]
                source.read_rows(start, stop, samples, self._files)
            mask = self._mask(group.masks[frame], start, stop)
            band.samples.append(samples)
            band.masks.append(mask)
        return band

    def _mask(self, sources: Sequence[MaskSource], start: int, stop: int) -> _Bools | None:
        """Return what any of the masks marks, None for nothing."""
        mask: _Bools | None = None
        for source in sources:
            rows = source.mask_rows(start, stop, self._files)
            mask = rows if mask is None else mask | rows
        return mask if mask is not None and mask.any() else None


def is_viewed(source: object) -> bool:
    """Whether a source's rows are handed out without a copy."""
    return isinstance(source, ArrayFrame) and source.can_view
