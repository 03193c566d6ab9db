"""What depends on a pixel's neighbors: programs over a whole image, and the neighbors of a few pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.backends.host import host_program
from zemosaic_stack_core.backends.inputs import Inputs

_Image = npt.NDArray[np.float32]

# Rows of a band, an even number: what a band results in stays in the cache, and its first row is as the image's.
_BAND_ROWS = 64


def bordered(image: _Image, reach: int, *, by_color: bool) -> _Image:
    """Return an image within a border: mirrored at its outer pixels, or `by_color` its outer `reach` lines again."""
    rows, columns = image.shape
    out = np.empty((rows + 2 * reach, columns + 2 * reach), np.float32)
    out[reach:-reach, reach:-reach] = image
    left, right = _outside(columns, reach, by_color=by_color)
    out[reach:-reach, :reach], out[reach:-reach, -reach:] = image[:, left], image[:, right]
    above, below = _outside(rows, reach, by_color=by_color)
    out[:reach], out[-reach:] = out[reach + above], out[reach + below]
    return out


def _outside(length: int, reach: int, *, by_color: bool) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return which lines stand for those before the first and behind the last."""
    lines = np.arange(length)
    if by_color:
        return lines[:reach], lines[-reach:]
    padded = np.pad(lines, reach, mode="reflect")
    return padded[:reach], padded[-reach:]


def values_around(
    image: _Image,
    rows: npt.NDArray[np.intp],
    columns: npt.NDArray[np.intp],
    offsets: Sequence[tuple[int, int]],
    outside: float | None = None,
) -> _Image:
    """Return the neighbors of some pixels, shape (offset, pixel); outside a value, None for mirrored neighbors."""
    down, right = np.array(offsets).T[..., np.newaxis]
    places, are_outside = [], np.zeros((len(offsets), len(rows)), np.bool_)
    for place, length in zip((rows + down, columns + right), image.shape, strict=True):
        mirrored = length - 1 - np.abs(length - 1 - np.abs(place))
        are_outside |= place != mirrored
        places.append(mirrored.clip(0, length - 1))
    around: _Image = image[places[0], places[1]]
    if outside is not None:
        around[are_outside] = outside
    return around


def neighbor(row: int, column: int) -> str:
    """Return the name that a program has for the pixel so many rows below and columns to the right."""
    return f"{row} {column}"


def run_on_neighbors(
    function: Callable[..., Any], task: Any, image: _Image, reach: int, offsets: Sequence[tuple[int, int]]
) -> Iterator[tuple[slice, dict[str, _Image]]]:
    """Run ``function(xp, column, task)`` on bands of a bordered image; yield each band's rows and results.

    `column.whole` has the neighbors at `offsets`, and ``is_odd_row`` and ``is_odd_column``.
    """
    rows, width = image.shape[0] - 2 * reach, image.shape[1]
    program = host_program(function, task)
    # The program runs on through the border between two rows, which is cut off afterwards; behind the last pixel of
    # the image it ends.
    flat = image.reshape(-1)
    for start in range(0, rows, _BAND_ROWS):
        stop = min(rows, start + _BAND_ROWS)
        count = (stop - start) * width - 2 * reach
        first = (start + reach) * width + reach
        whole: dict[str, Any] = {neighbor(y, x): flat[first + y * width + x :][:count] for y, x in offsets}
        whole |= {name: parity[:count] for name, parity in _parities(width).items()}
        found, _ = program(Inputs(0, count, {}, whole=whole))
        results = {}
        for name, values in found.items():
            results[name] = np.lib.stride_tricks.as_strided(
                values, (stop - start, width - 2 * reach), (width * values.itemsize, values.itemsize)
            )
        yield slice(start, stop), results


@lru_cache(maxsize=4)
def _parities(width: int) -> dict[str, npt.NDArray[np.bool_]]:
    """Return which pixels of a band are in odd rows, and in odd columns."""
    row, column = np.ogrid[:_BAND_ROWS, :width]
    shape = (_BAND_ROWS, width)
    return {
        "is_odd_row": np.broadcast_to(row % 2 == 1, shape).reshape(-1),
        "is_odd_column": np.broadcast_to(column % 2 == 1, shape).reshape(-1),
    }
