"""Frames that are arrays in memory, of NumPy or any other array-API library."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.frames.host_arrays import ArrayImage, is_array, shape_of, to_host
from zemosaic_stack_core.frames.masks import ArrayMask, array_mask
from zemosaic_stack_core.frames.pixel_rows import FilePool, handed_out_dtype


@dataclass(frozen=True, slots=True)
class ArrayFrame(ArrayImage):
    """A frame in memory, whose rows are brought to the host as they are read; see `FrameSource`."""

    # The type handed out.
    dtype: np.dtype[Any]

    @property
    def path(self) -> Path | None:
        """None: there is no file."""
        return None

    @property
    def can_view(self) -> bool:
        """Whether rows can be handed out as views: a NumPy array of the type handed out, contiguous along its rows."""
        array = self.array
        if not isinstance(array, np.ndarray) or array.dtype != self.dtype or not array.dtype.isnative:
            return False
        rows = array[:, :, 0] if self.is_color else array
        return rows.strides[1] == rows.itemsize and (not self.is_color or array.shape[2] == 1)

    def view_rows(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return rows `start` to `stop`, of shape (channels, stop - start, columns), without a copy, read-only."""
        rows = np.asarray(self.array)[start:stop]
        view = rows.transpose(2, 0, 1) if self.is_color else rows[None]
        view.flags.writeable = False
        return view

    def read_rows(self, start: int, stop: int, out: npt.NDArray[Any], files: FilePool) -> None:  # noqa: ARG002 - as others of its kind
        """Fill `out`, of shape (channels, stop - start, columns), with rows `start` to `stop`."""
        rows = to_host(self.array[start:stop, ...], self.name)
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, that is, missing
            np.copyto(out, rows.transpose(2, 0, 1) if self.is_color else rows[None], casting="unsafe")


def array_frame(item: object, name: str) -> tuple[ArrayFrame, ArrayMask | None]:
    """Return a frame in memory, called `name`, and the mask it brings, if any; nothing is copied.

    `item` is an array, a masked array, or an object with ``data`` and ``mask``. Raise `InvalidInputError` unless it has
    real numbers along 2 or 3 axes, none of length 0.
    """
    mask: object = None
    if isinstance(item, np.ma.MaskedArray):
        mask = item.mask if item.mask is not np.ma.nomask else None
        item = item.data
    elif not is_array(item) and is_array(getattr(item, "data", None)):  # astropy's CCDData, NDData
        mask = getattr(item, "mask", None)
        item = cast("Any", item).data
    if not is_array(item):
        raise InvalidInputError(f"{name} is {type(item).__name__}; expected an array or the path of a file")
    shape = shape_of(item)
    if len(shape) not in (2, 3) or not all(shape):
        raise InvalidInputError(f"{name} has shape {shape}; expected (row, column) or (row, column, channel), none 0")
    frame = ArrayFrame(name, item, _dtype_of(item, name))
    if mask is None:
        return frame, None
    own = array_mask(mask, f"mask of {name}")
    if (own.rows, own.columns) != shape[:2] or own.channels not in (1, frame.channels):
        raise InvalidInputError(f"{own.name} has shape {shape_of(mask)}; expected {shape}")
    return frame, own


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
