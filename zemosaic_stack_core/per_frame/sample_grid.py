"""Which samples of a frame its statistics are made from, and how they are read.

A frame of 24 megapixels is described by 2**18 of them as well as its noise needs (``docs/normalization.md`` has the
figures). The grid depends on the frame's shape alone, so the numbers of a frame depend on nothing but its samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.frames.group import FrameSource
from zemosaic_stack_core.frames.masks import MaskSource
from zemosaic_stack_core.frames.pixel_rows import FilePool

# Most samples per channel that a frame's statistics are made from.
GRID_SAMPLES = 2**18
# The same of a frame that covers little of its image: 16 MiB per channel.
_FINER_SAMPLES = 2**22
# Of rows that are read at once, where the grid takes neighboring rows.
_BAND_BYTES = 4 * 2**20
# Additive sequences of the golden ratio and of the square root of 2: badly approximated by fractions, also when only
# every other step counts, so that their points keep apart whatever small part of the sequence one looks at.
_ROW_STEP = 0.6180339887498949
_COLUMN_STEP = 0.4142135623730951

_Integers = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class SampleGrid:
    """Rows of a frame, and for each the columns, that its statistics look at."""

    # Shape (grid row,), ascending.
    rows: _Integers
    # Shape (grid row, grid column), ascending along each grid row.
    columns: _Integers


@dataclass(frozen=True, slots=True)
class GridSamples:
    """The samples of one frame on its grid: shape (channel, sample), float32, NaN where missing."""

    values: npt.NDArray[np.float32]
    grid: SampleGrid
    # Of every frame of this shape at the same places: `values`, unless they are from a finer grid.
    coarse: npt.NDArray[np.float32]

    def center(self) -> tuple[int, int] | None:
        """Return the median row and column of the samples that are present in any channel; None where none is."""
        present = np.isfinite(self.values).any(axis=0).reshape(self.grid.columns.shape)
        per_row = present.sum(axis=1)
        total = int(per_row.sum())
        if total == 0:
            return None
        row = self.grid.rows[np.searchsorted(np.cumsum(per_row), (total + 1) // 2)]
        columns = self.grid.columns[present]
        return int(row), int(np.partition(columns, total // 2)[total // 2])


def sample_grid(rows: int, columns: int, most: int = GRID_SAMPLES) -> SampleGrid:
    """Return the grid of a frame: every sample where there are at most `most` (4 or more), else nearly as many as that.

    Notes
    -----
    The frame is cut into equal cells, as many as the grid has samples and about as high as wide, and one sample is
    taken from each. Where in its cell, is drawn from an additive sequence, rows and columns apart, so that no pattern
    of the sensor with a period (rows of an amplifier, columns, Bayer's) can keep step with the grid. Rows are
    alternately even and odd, and so are the columns along a row: each of the four positions of a Bayer pattern has the
    same number of samples.
    """
    if rows * columns <= most:
        return SampleGrid(np.arange(rows), np.broadcast_to(np.arange(columns), (rows, columns)))
    row_count = _even(min(rows, most, round((most * rows / columns) ** 0.5)))
    column_count = _even(min(columns, most // row_count))
    row_count = _even(min(rows, most // column_count))
    picked = _even_and_odd(rows, row_count, 0, _ROW_STEP * np.arange(row_count) % 1.0)
    grid_rows, order = np.sort(picked), np.argsort(picked)
    turn = np.arange(row_count)[:, None]
    grid_columns = _even_and_odd(columns, column_count, turn // 2, _COLUMN_STEP * turn % 1.0)
    return SampleGrid(grid_rows, np.sort(np.broadcast_to(grid_columns, (row_count, column_count))[order], axis=1))


def _even(count: int) -> int:
    """Return the largest even number up to `count`, or 1."""
    return max(1, count - count % 2)


def _even_and_odd(length: int, count: int, first: int | _Integers, phase: float | npt.NDArray[Any]) -> _Integers:
    """Return `count` different indices below `length`, alternately even and odd, one from each of as many stretches."""
    index = np.arange(count)
    pairs = length // 2
    if count > 2 * pairs:  # all of them, of an odd length
        return index
    step = pairs / count
    if step < 1.0:  # more than every other index: a shift would make some meet
        phase = 0.0
    pair = np.minimum((index + phase) * step, pairs - 1).astype(np.intp)
    picked: _Integers = 2 * pair + (index + first) % 2
    return picked


def read_grid_samples(
    source: FrameSource, masks: Sequence[MaskSource] = (), *, grid: SampleGrid | None = None, most: int = GRID_SAMPLES
) -> GridSamples:
    """Read the samples of a frame on its grid.

    Only rows with grid samples are read, a few megabytes at a time. A frame that covers less than half of its image (a
    panel of a mosaic on the whole grid) is read a second time on a grid that is finer by as much (up to 16 times), so
    that its statistics come from as many samples as another's: at most `most` present ones per channel. `grid` is
    ``sample_grid(source.rows, source.columns, most)``, where it is at hand.
    """
    grid = sample_grid(source.rows, source.columns, most) if grid is None else grid
    values = coarse = _read(source, masks, grid)
    present = np.isfinite(values).sum(axis=1)
    candidates = values.shape[1]
    fullest = int(present.max())
    if candidates < source.rows * source.columns and 0 < fullest < candidates // 2:
        finer = min(candidates * most // fullest, source.rows * source.columns, _FINER_SAMPLES)
        grid = sample_grid(source.rows, source.columns, finer)
        values = _read(source, masks, grid)
        _thin(values, most)
    return GridSamples(values, grid, coarse)


def _thin(values: npt.NDArray[np.float32], most: int) -> None:
    """Make samples missing, evenly along the grid, where a channel has more than `most`."""
    for channel in values:
        present = np.flatnonzero(np.isfinite(channel))
        excess = len(present) - most
        if excess > 0:
            channel[present[np.arange(excess) * len(present) // excess]] = np.nan


def _read(source: FrameSource, masks: Sequence[MaskSource], grid: SampleGrid) -> npt.NDArray[np.float32]:
    """Return the samples of a grid, of shape (channel, sample), NaN where not finite or masked."""
    channels, columns = source.channels, source.columns
    values = np.empty((channels, *grid.columns.shape), np.float32)
    rows = grid.rows.tolist()
    most_rows = max(1, _BAND_BYTES // (channels * columns * source.dtype.itemsize))
    buffer: npt.NDArray[Any] = np.empty((channels, 0, columns), source.dtype)
    with FilePool(4) as files:
        for first, last in _bands(rows, most_rows):
            start, stop = rows[first], rows[last - 1] + 1
            if buffer.shape[1] < stop - start:
                buffer = np.empty((channels, stop - start, columns), source.dtype)
            band = buffer[:, : stop - start]
            source.read_rows(start, stop, band, files)
            at = (grid.rows[first:last] - start)[:, None], grid.columns[first:last]
            with np.errstate(over="ignore"):
                values[:, first:last] = band[:, *at]
            for mask in masks:
                marked = np.broadcast_to(mask.mask_rows(start, stop, files), band.shape)
                values[:, first:last][marked[:, *at]] = np.nan
    flat = values.reshape(channels, -1)
    flat[~np.isfinite(flat)] = np.nan
    return flat


def _bands(rows: list[int], most_rows: int) -> Iterator[tuple[int, int]]:
    """Cut the grid rows into runs ``[first, last)`` of rows at most 2 apart that span at most `most_rows` rows."""
    first = 0
    for index in range(1, len(rows) + 1):
        if index == len(rows) or rows[index] - rows[index - 1] > 2 or rows[index] - rows[first] >= most_rows:
            yield first, index
            first = index
