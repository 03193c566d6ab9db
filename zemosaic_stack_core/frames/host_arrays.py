"""Bring parts of arrays of any array-API library to NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class ArrayImage:
    """An image in memory, of NumPy or any other array-API library, left where it is."""

    # What messages call it: ``"frame 3"`` for the fourth of a list.
    name: str
    # Shape (row, column[, channel]).
    array: Any

    @property
    def rows(self) -> int:
        """Rows of the image."""
        return int(self.array.shape[0])

    @property
    def columns(self) -> int:
        """Columns of the image."""
        return int(self.array.shape[1])

    @property
    def channels(self) -> int:
        """Channels, 1 without a channel axis."""
        return int(self.array.shape[2]) if self.is_color else 1

    @property
    def is_color(self) -> bool:
        """Whether the array has a channel axis."""
        return len(self.array.shape) == 3


def is_array(value: object) -> bool:
    """Return whether `value` is an array of NumPy or of another array-API library."""
    if isinstance(value, np.ndarray):
        return True
    import array_api_compat

    return bool(array_api_compat.is_array_api_obj(value)) or hasattr(value, "__dlpack__")


def shape_of(array: object) -> tuple[int, ...]:
    """Return the shape of an array of any library."""
    return tuple(int(length) for length in cast("Any", array).shape)


def to_host(array: object, name: str) -> npt.NDArray[Any]:
    """Return an array of any library, on any device, as a NumPy array; a view where the library allows it."""
    if isinstance(array, np.ndarray):
        return np.asarray(array)
    import array_api_compat

    try:
        return np.asarray(array_api_compat.to_device(array, "cpu"))
    except (AttributeError, TypeError, ValueError, RuntimeError):
        pass  # array-api-strict calls its CPU by another name, others have no devices at all
    try:
        return np.from_dlpack(cast("Any", array))
    except (AttributeError, TypeError, ValueError, RuntimeError, BufferError):
        kind = f"{type(array).__module__}.{type(array).__name__}"
        raise InvalidInputError(f"{name}: {kind} can't be brought to the host; expected an array-API array") from None
