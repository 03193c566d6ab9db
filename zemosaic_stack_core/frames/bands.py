"""Read a group of frames in bands of rows: `BandReader`, several of them side by side, and the `Band` they hand out."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.frames.array_frames import ArrayFrame
from zemosaic_stack_core.frames.group import FrameGroup
from zemosaic_stack_core.frames.masks import MaskSource
from zemosaic_stack_core.frames.pixel_rows import FilePool
from zemosaic_stack_core.system.open_files import default_open_files

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

    def shapes(self, rows: int) -> list[tuple[int, int, int]]:
        """Return the shape (channels, rows, columns) of each frame's buffer for bands of up to `rows` rows.

        Those of frames in memory that are handed out as views have 0 rows.
        """
        group = self.group
        return [(group.channels, 0 if is_viewed(source) else rows, group.columns) for source in group.sources]

    def allocate(self, rows: int) -> list[_Array]:
        """Return one buffer per frame, of its dtype; see `shapes`."""
        pairs = zip(self.shapes(rows), self.group.sources, strict=True)
        return [np.empty(shape, source.dtype) for shape, source in pairs]

    def read(
        self, start: int, stop: int, buffers: Sequence[_Array], first_frame: int = 0, last_frame: int | None = None
    ) -> Band:
        """Read rows `start` to `stop` of frames `first_frame` to `last_frame` (excluded), by default all.

        The buffers are as `allocate` makes them, one for each frame that is read, with at least as many rows; a view is
        copied to a buffer that has any. Raise `FrameReadError` where a file became unreadable or shorter since it was
        opened.
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
            if isinstance(source, ArrayFrame) and source.can_view and not buffer.shape[1]:
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


class BandReaders:
    """Reads bands of rows with several threads, a part of the frames each, into buffers that a device uploads."""

    def __init__(self, group: FrameGroup, threads: int) -> None:
        frames = len(group.sources)
        ends = [frames * part // threads for part in range(threads + 1)]
        self._parts = list(pairwise(ends))
        self._readers = [BandReader(group, max_open_files=default_open_files() // threads) for _ in self._parts]
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="zemosaic-rows")

    def __enter__(self) -> BandReaders:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        for reader in self._readers:
            reader.close()

    @property
    def files(self) -> FilePool:
        """Open files, for planes that go with the frames, while no band is read."""
        return self._readers[0].files

    def shapes(self, rows: int) -> list[tuple[int, int, int]]:
        """Return the shape (channels, rows, columns) of each frame's buffer for bands of up to `rows` rows."""
        group = self._readers[0].group
        return [(group.channels, rows, group.columns)] * len(group.sources)

    def read(self, start: int, stop: int, buffers: Sequence[_Array]) -> Band:
        """Read rows `start` to `stop` of all frames; see `BandReader.read`."""

        def read(reader: BandReader, part: tuple[int, int]) -> Band:
            return reader.read(start, stop, buffers[slice(*part)], *part)

        bands = list(self._pool.map(read, self._readers, self._parts))
        return Band([row for band in bands for row in band.samples], [mask for band in bands for mask in band.masks])


def is_viewed(source: object) -> bool:
    """Whether a source's rows are handed out without a copy."""
    return isinstance(source, ArrayFrame) and source.can_view
