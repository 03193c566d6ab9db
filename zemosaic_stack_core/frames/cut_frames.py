"""Part of a frame, as a source of rows of its own: what its statistics are made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.fits.observing import ObservingFacts
from zemosaic_stack_core.frames.array_frames import ArrayFrame
from zemosaic_stack_core.frames.file_frames import FileFrame
from zemosaic_stack_core.frames.masks import MaskSource, Section
from zemosaic_stack_core.frames.pixel_rows import FilePool
from zemosaic_stack_core.options import SECTION

# Rows are read whole, so many bytes at once.
_BAND_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True)
class CutFrame:
    """Part of a frame; see `FrameSource`."""

    whole: FileFrame | ArrayFrame | CutFrame
    section: Section

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.whole.name

    @property
    def path(self) -> Path | None:
        """The frame's file; None of an array."""
        return self.whole.path

    @property
    def observing(self) -> ObservingFacts | None:
        """What the frame's header says of the exposure."""
        return self.whole.observing

    @property
    def rows(self) -> int:
        """Rows of the part."""
        return self.section.stop - self.section.start

    @property
    def columns(self) -> int:
        """Columns of the part."""
        return self.section.last - self.section.first

    @property
    def channels(self) -> int:
        """Channels, 1 for mono."""
        return self.whole.channels

    @property
    def is_color(self) -> bool:
        """Whether the frame has a channel axis."""
        return self.whole.is_color

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type handed out."""
        return self.whole.dtype

    @property
    def stored_type(self) -> str:
        """What its words are: they are never looked at."""
        return ""

    @property
    def words(self) -> CutFrame:
        """The same frame."""
        return self

    def read_rows(self, start: int, stop: int, out: npt.NDArray[Any], files: FilePool) -> None:
        """Fill `out`, of shape (channels, stop - start, columns), with rows `start` to `stop` of the part."""
        rows = np.empty((self.channels, stop - start, self.whole.columns), self.dtype)
        self.whole.read_rows(self.section.start + start, self.section.start + stop, rows, files)
        out[:] = rows[:, :, self.section.first : self.section.last]


def read_section(
    source: FileFrame | ArrayFrame | CutFrame, section: Section, files: FilePool, masks: Sequence[MaskSource] = ()
) -> npt.NDArray[np.float32]:
    """Return part of a frame, shape (channel, row, column), NaN where masked."""
    part = np.empty((source.channels, section.stop - section.start, section.last - section.first), np.float32)
    step = max(1, _BAND_BYTES // (source.channels * source.columns * source.dtype.itemsize))
    buffer: npt.NDArray[Any] = np.empty((source.channels, min(step, part.shape[1]), source.columns), source.dtype)
    for above in range(section.start, section.stop, step):
        below = min(above + step, section.stop)
        band, out = buffer[:, : below - above], part[:, above - section.start : below - section.start]
        source.read_rows(above, below, band, files)
        out[:] = band[:, :, section.first : section.last]
        for mask in masks:
            marked = np.broadcast_to(mask.mask_rows(above, below, files), band.shape)
            out[marked[:, :, section.first : section.last]] = np.nan
    return part


def section_of(text: str, rows: int, columns: int) -> Section:
    """Return the section of an image that is written as `SECTION`; raise unless it lies in the image."""
    found = SECTION.fullmatch(text)
    assert found is not None  # noqa: S101 - checked where the options were made

    def ends(first: str | None, last: str | None, length: int) -> tuple[int, int]:
        return int(first or 1) - 1, length if last in (None, "*") else int(last or 0)

    (first, last), (start, stop) = ends(found[1], found[2], columns), ends(found[3], found[4], rows)
    if not (first < last <= columns and start < stop <= rows):
        raise InvalidInputError(
            f"statistics_section is {text}; expected one within [1:{columns},1:{rows}] (columns, rows)"
        )
    return Section(start, stop, first, last)
