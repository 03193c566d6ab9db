"""What marks samples of a frame as missing: boolean arrays, and mask or data-quality extensions of FITS files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.frames.file_frames import FileFrame
from zemosaic_stack_core.frames.host_arrays import ArrayImage, is_array, shape_of, to_host
from zemosaic_stack_core.frames.pixel_rows import FilePool

_Bools = npt.NDArray[np.bool_]


class ArrayMask(ArrayImage):
    """A mask in memory, bool, True = missing; one without a channel axis counts for all channels."""

    __slots__ = ()

    def mask_rows(self, start: int, stop: int, files: FilePool) -> _Bools:  # noqa: ARG002 - as others of its kind
        """Return rows `start` to `stop`, of shape (1 or channels, stop - start, columns)."""
        rows = to_host(self.array[start:stop, ...], self.name)
        return rows[None] if rows.ndim == 2 else rows.transpose(2, 0, 1)


@dataclass(frozen=True, slots=True)
class FileMask:
    """A mask in a FITS extension: nonzero (or not a number) is missing."""

    plane: FileFrame
    # Only these count; None for all.
    bits: int | None = None

    def __post_init__(self) -> None:
        if self.bits is not None and (self.plane.layout.native.kind not in "ui" or self.plane.layout.is_scaled):
            raise InvalidInputError(f"{self.plane.name}: values of type float; expected whole numbers for dq_bits")

    def mask_rows(self, start: int, stop: int, files: FilePool) -> _Bools:
        """Return rows `start` to `stop`, of shape (1 or channels, stop - start, columns)."""
        plane = self.plane
        # Bits above the 24th don't survive float32: read the integers as they are.
        dtype = plane.layout.native if plane.layout.blank is None and not plane.layout.is_scaled else plane.dtype
        values = np.empty((plane.channels, stop - start, plane.columns), dtype)
        plane.read_rows(start, stop, values, files)
        if self.bits is not None and values.dtype.kind in "ui":
            values &= np.array(self.bits & ((1 << 8 * values.itemsize) - 1), f"u{values.itemsize}").view(values.dtype)
        missing: _Bools = values != 0
        return missing


@dataclass(frozen=True, slots=True)
class ZeroMask:
    """Samples that are exactly zero in all channels of a frame are missing."""

    frame: FileFrame

    def mask_rows(self, start: int, stop: int, files: FilePool) -> _Bools:
        """Return rows `start` to `stop`, of shape (1, stop - start, columns)."""
        missing: _Bools = (self.frame.read_planes(start, stop, files) == 0).all(axis=0, keepdims=True)
        return missing


class _Rows(Protocol):
    """A frame, of a file or in memory."""

    @property
    def channels(self) -> int: ...
    @property
    def columns(self) -> int: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    def read_rows(self, start: int, stop: int, out: npt.NDArray[Any], files: FilePool) -> None: ...


@dataclass(frozen=True, slots=True)
class RangeMask:
    """Samples of a frame below or above a range, as read, are missing; None for no bound on that side."""

    frame: _Rows
    low: float | None
    high: float | None

    def mask_rows(self, start: int, stop: int, files: FilePool) -> _Bools:
        """Return rows `start` to `stop`, of shape (channels, stop - start, columns)."""
        values = np.empty((self.frame.channels, stop - start, self.frame.columns), self.frame.dtype)
        self.frame.read_rows(start, stop, values, files)
        missing: _Bools = np.zeros(values.shape, np.bool_)
        with np.errstate(over="ignore"):  # a bound beyond float32 is none
            if self.low is not None:
                missing |= values < np.float32(self.low)
            if self.high is not None:
                missing |= values > np.float32(self.high)
        return missing


class Section(NamedTuple):
    """Rows ``start <= r < stop`` and columns ``first <= c < last`` of an image."""

    start: int
    stop: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class CutMask:
    """Part of a mask."""

    whole: MaskSource
    section: Section

    def mask_rows(self, start: int, stop: int, files: FilePool) -> _Bools:
        """Return rows `start` to `stop` of the part, of shape (1 or channels, stop - start, columns)."""
        rows = self.whole.mask_rows(self.section.start + start, self.section.start + stop, files)
        return rows[:, :, self.section.first : self.section.last]


# Hands out rows of a mask.
MaskSource = ArrayMask | FileMask | ZeroMask | RangeMask | CutMask


def array_mask(mask: object, name: str) -> ArrayMask:
    """Return a mask in memory as a `MaskSource`; raise where it is no boolean array of 2 or 3 axes."""
    if isinstance(mask, (list, tuple)):
        mask = np.asarray(mask)
    if not is_array(mask):
        raise InvalidInputError(f"{name} is {type(mask).__name__}; expected a boolean array or None")
    if str(mask.dtype).rsplit(".", 1)[-1] != "bool":  # type: ignore[attr-defined]
        raise InvalidInputError(f"{name} has type {mask.dtype}; expected bool, True = missing")  # type: ignore[attr-defined]
    if len(shape_of(mask)) not in (2, 3):
        raise InvalidInputError(f"{name} has shape {shape_of(mask)}; expected (row, column) or (row, column, channel)")
    return ArrayMask(name, mask)
