"""The array library that frames came in, in which the answer is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import array_api_compat
import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Namespace:
    """An array library and a device of its."""

    xp: Any
    device: Any

    @classmethod
    def of(cls, array: Any) -> Namespace:
        """Return those of an array; NumPy's for anything else."""
        known = array if array_api_compat.is_array_api_obj(array) else np.empty(0)
        return cls(array_api_compat.array_namespace(known), array_api_compat.device(known))

    @property
    def is_numpy(self) -> bool:
        """Whether it is NumPy."""
        return bool(array_api_compat.is_numpy_namespace(self.xp))

    def give(self, values: npt.NDArray[Any], dtype: Any = None) -> Any:
        """Return values in this library, on this device; NaN becomes 0 in a type without it, halves go to even."""
        kind = values.dtype if dtype is None else host_dtype(dtype)
        if kind.kind in "iu" and values.dtype.kind == "f":
            values = np.rint(np.nan_to_num(values))
        values = values.astype(kind, copy=False)
        return values if self.is_numpy else self.xp.asarray(values, device=self.device)


def host_dtype(dtype: Any) -> np.dtype[Any]:
    """Return a type of any library as NumPy's."""
    found: np.dtype[Any]
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = np.dtype(str(dtype).rsplit(".", 1)[-1])  # "torch.float32", "array_api_strict.float32"
    return found
