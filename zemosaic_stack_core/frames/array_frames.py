"""Frames that are arrays in memory, of NumPy or any other array-API library."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.fits.observing import ObservingFacts, TextCards, observing_facts
from zemosaic_stack_core.frames.containers import Contents, is_lazy
from zemosaic_stack_core.frames.file_frames import check_plane
from zemosaic_stack_core.frames.host_arrays import ArrayImage, shape_of, to_host
from zemosaic_stack_core.frames.masks import MaskSource, array_mask
from zemosaic_stack_core.frames.pixel_rows import STORED_TYPES, FilePool, handed_out_dtype
from zemosaic_stack_core.frames.scratch import ScratchFolder

# Objects that read rows when asked may share a file and its position: sections of one FITS file do.
_ONE_AT_A_TIME = threading.Lock()
# An image with more channels than this, and at least as many as rows or columns, is a cube whose planes come first.
MOST_CHANNELS = 4


@dataclass(frozen=True, slots=True)
class ArrayFrame(ArrayImage):
    """A frame in memory, whose rows are brought to the host as they are read; see `FrameSource`."""

    # The type handed out.
    dtype: np.dtype[Any]
    # What it said of itself, by keyword, and astropy's WCS; None without. Its unit, as text; empty without one.
    header: Mapping[str, Any] | None = field(default=None, repr=False, compare=False)
    wcs: Any = field(default=None, repr=False, compare=False)
    unit: str = ""
    # What its numbers are multiplied with to be in the unit of the stack.
    factor: float = 1.0
    # Keeps the folder of what was computed while this record lives.
    scratch: ScratchFolder | None = field(default=None, repr=False, compare=False)

    @property
    def path(self) -> Path | None:
        """None: there is no file."""
        return None

    @property
    def observing(self) -> ObservingFacts | None:
        """What its header says of the exposure; None without a header."""
        return observing_facts([TextCards(self.header)], None) if self.header else None

    @property
    def can_view(self) -> bool:
        """Whether rows can be handed out as views: a NumPy array of the type handed out, contiguous along its rows."""
        array = self.array
        if not isinstance(array, np.ndarray) or array.dtype != self.dtype or not array.dtype.isnative:
            return False
        if self.factor != 1.0:
            return False
        return _has_contiguous_rows(array)

    @property
    def stored_type(self) -> str:
        """What the words of an array are that came from a file as they lay there; else empty. See `PixelLayout`."""
        array = self.array
        is_viewed = isinstance(array, np.ndarray) and _has_contiguous_rows(array) and self.factor == 1.0
        return STORED_TYPES.get((array.dtype.str, False), "") if is_viewed else ""

    @property
    def words(self) -> ArrayFrame:
        """The same frame, handing out its words as they are."""
        words = np.asarray(self.array).view(f"u{self.array.itemsize}")
        return replace(self, array=words, dtype=words.dtype)

    def scaled_by(self, factor: float) -> ArrayFrame:
        """Return the same frame, its numbers multiplied in float64 and rounded once."""
        return replace(self, factor=self.factor * factor, dtype=np.dtype(np.float32))

    def view_rows(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return rows `start` to `stop`, of shape (channels, stop - start, columns), without a copy, read-only."""
        rows = np.asarray(self.array)[start:stop]
        view = rows.transpose(2, 0, 1) if self.is_color else rows[None]
        view.flags.writeable = False
        return view

    def read_rows(self, start: int, stop: int, out: npt.NDArray[Any], files: FilePool) -> None:  # noqa: ARG002 - as others of its kind
        """Fill `out`, of shape (channels, stop - start, columns), with rows `start` to `stop`."""
        with _ONE_AT_A_TIME if is_lazy(self.array) else nullcontext():
            rows = to_host(self.array[start:stop, ...], self.name)
        if self.factor != 1.0:
            rows = rows.astype(np.float64) * self.factor
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, that is, missing
            np.copyto(out, rows.transpose(2, 0, 1) if self.is_color else rows[None], casting="unsafe")


def array_frame(held: Contents, name: str, scratch: ScratchFolder) -> tuple[ArrayFrame, list[MaskSource]]:
    """Return a frame in memory, called `name`, and the masks that it brings; nothing is copied.

    A dask array is computed into `scratch`, block by block, each once. Raise `InvalidInputError` unless it has real
    numbers along 2 or 3 axes, none of length 0.
    """
    shape = shape_of(held.array)
    if len(shape) not in (2, 3) or not all(shape):
        raise InvalidInputError(f"{name} has shape {shape}; expected (row, column) or (row, column, channel), none 0")
    if len(shape) == 3 and shape[2] > MOST_CHANNELS and shape[2] >= min(shape[:2]):
        raise InvalidInputError(
            f"{name} has shape {shape}, which is {shape[2]} channels; expected (row, column, channel) "
            "(numpy.moveaxis(cube, 0, -1) makes that of planes first)"
        )
    dtype = _dtype_of(held.array, name)
    array = held.array
    if hasattr(array, "compute") and hasattr(array, "chunks"):
        array = _computed(array, name, scratch)
        dtype = handed_out_dtype(array.dtype)
    unit = "" if held.unit is None else str(held.unit)
    frame = ArrayFrame(name, array, dtype, held.header, held.wcs, unit, scratch=scratch)
    masks: list[MaskSource] = []
    for mask in held.masks:
        own = array_mask(mask, f"mask of {name}")
        if (own.rows, own.columns) != shape[:2] or own.channels not in (1, frame.channels):
            raise InvalidInputError(f"{own.name} has shape {shape_of(mask)}; expected {shape}")
        masks.append(own)
    return frame, masks


def array_plane(array: object, frame: ArrayFrame, name: str, scratch: ScratchFolder) -> ArrayFrame:
    """Return what goes with every sample of a frame, as a source of rows called `name`; raise where it does not fit."""
    plane, _ = array_frame(Contents(array), name, scratch)
    check_plane(plane, frame)
    return plane


def _computed(array: Any, name: str, scratch: ScratchFolder) -> npt.NDArray[Any]:
    """Return a dask array's values, on disk; what it masks is NaN, for which whole numbers become real ones."""
    dtype = np.dtype(array.dtype).newbyteorder("=")
    if isinstance(getattr(array, "_meta", None), np.ma.MaskedArray) and dtype.kind != "f":
        dtype = np.dtype(np.float32 if dtype.itemsize <= 2 else np.float64)

    def blocks() -> Iterator[npt.NDArray[Any]]:
        start = 0
        for rows in array.chunks[0]:
            block = array[start : start + rows].compute()
            start += rows
            if isinstance(block, np.ma.MaskedArray):
                if dtype.kind != "f" and np.ma.is_masked(block):
                    raise InvalidInputError(f"{name} is masked and its _meta is not; expected a masked _meta")
                block = np.where(np.ma.getmaskarray(block), np.nan, block.data) if dtype.kind == "f" else block.data
            yield to_host(block, name).astype(dtype, order="C")

    return np.memmap(scratch.store(blocks(), name), dtype, "r", shape=shape_of(array))


def _has_contiguous_rows(array: npt.NDArray[Any]) -> bool:
    """Whether the pixels of each row, and channel, lie side by side."""
    rows = array[:, :, 0] if array.ndim == 3 else array
    return bool(rows.strides[1] == rows.itemsize and (array.ndim == 2 or array.shape[2] == 1))


def _dtype_of(array: object, name: str) -> np.dtype[Any]:
    """Return the type that an array of any library is handed out in."""
    text = str(cast("Any", array).dtype)
    try:
        native = np.dtype(text.rsplit(".", 1)[-1]).newbyteorder("=")  # "torch.float32", "array_api_strict.float32"
    except TypeError:
        native = np.dtype(object)
    if native.kind not in "buif":
        raise InvalidInputError(f"{name} has type {text}; expected integers or real numbers")
    return handed_out_dtype(native)
