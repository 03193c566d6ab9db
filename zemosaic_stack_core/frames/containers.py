"""What people hold in memory, taken apart: masked arrays, quantities, astropy's NDData, xarray's DataArray.

No package is imported for it: a container is known by its attributes. What it says beside its numbers is honored, or
refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.frames.host_arrays import is_array, shape_of, to_host
from zemosaic_stack_core.frames.units import known_unit

# The types of astropy's uncertainties, as `FrameVariances` calls them.
_KINDS = {"std": "deviation", "var": "variance", "ivar": "inverse"}
# The unit of an uncertainty of each kind is that of the data to this power.
POWERS = {"deviation": 1, "variance": 2, "inverse": -2}


@dataclass(frozen=True, slots=True)
class Contents:
    """What a frame in memory holds."""

    array: Any
    masks: tuple[object, ...] = ()
    # Uncertainties of the samples, and their kind: see `kind_of_variances`.
    uncertainty: Any = None
    kind: str = ""
    # astropy's unit, or of xarray and HDUs the text of one; None without one, or without dimension.
    unit: Any = None
    # What it says of itself, by keyword, and astropy's WCS; None without.
    header: Mapping[str, Any] | None = None
    wcs: Any = None
    # Names of the axes, and the coordinates along those that have some.
    axes: tuple[str, ...] = ()
    coordinates: Mapping[str, Any] = field(default_factory=dict)


def contents_of(item: object, name: str) -> Contents:
    """Return what a frame in memory, called `name`, holds; nothing is copied."""
    if isinstance(item, np.ma.MaskedArray):
        return Contents(item.data, () if item.mask is np.ma.nomask else (item.mask,))
    holder = cast("Any", item)
    if hasattr(item, "unmasked") and hasattr(item, "mask"):  # astropy's Masked
        inner = contents_of(holder.unmasked, name)
        return replace(inner, masks=(*inner.masks, np.asarray(holder.mask)))
    if isinstance(item, np.ndarray):
        unit = getattr(item, "unit", None)
        return Contents(item if unit is None else item.view(np.ndarray), unit=known_unit(unit))
    if is_array(item):
        return Contents(item)
    if is_lazy(item):
        return Contents(item)
    data = getattr(item, "data", None)
    if not (is_array(data) or hasattr(data, "unmasked")):
        raise InvalidInputError(f"{name} is {type(item).__name__}; expected an array or the path of a file")
    inner = contents_of(data, name)
    mask = getattr(item, "mask", None)
    masks = inner.masks if mask is None or mask is False or mask is np.ma.nomask else (*inner.masks, mask)
    said = (getattr(item, name, None) for name in ("meta", "attrs", "header"))
    header = next((one for one in said if isinstance(one, Mapping)), None)
    unit = known_unit(getattr(item, "unit", None)) or inner.unit
    if unit is None and hasattr(item, "attrs") and isinstance(text := holder.attrs.get("units"), str):
        unit = known_unit(text)
    elif unit is None and header is getattr(item, "header", None) and header is not None:  # an HDU of astropy's
        unit = known_unit(header.get("BUNIT"))
    held = replace(inner, masks=masks, unit=unit, header=header, wcs=getattr(item, "wcs", None))
    if getattr(item, "uncertainty", None) is not None:
        held = _with_uncertainty(held, holder.uncertainty, name)
    axes = tuple(map(str, getattr(item, "dims", ())))
    coordinates = {axis: np.asarray(holder.coords[axis]) for axis in axes if axis in holder.coords}
    return replace(held, axes=axes, coordinates=coordinates)


def is_lazy(item: object) -> bool:
    """Return whether an object hands out rows when asked: it has ``shape``, ``dtype`` and ``[]``, and no ``data``."""
    return all(hasattr(item, name) for name in ("shape", "dtype", "__getitem__")) and not hasattr(item, "data")


def check_alike(held: Contents, first: Contents, names: tuple[str, str]) -> None:
    """Raise unless a frame is on the grid of the first one and has an uncertainty if that has; `names` are of both."""
    name, first_name = names
    if held.axes and first.axes and held.axes != first.axes:
        order = ", ".join(map(repr, first.axes))
        raise InvalidInputError(
            f"{name} has the axes {held.axes}; expected {first.axes} as in {first_name} "
            f"(transpose({order}) orders them)"
        )
    for axis in held.coordinates.keys() & first.coordinates.keys():
        if not np.array_equal(held.coordinates[axis], first.coordinates[axis]):
            raise InvalidInputError(
                f"{name} has other coordinates along {axis!r} than {first_name}; expected one grid "
                "(xarray.align(*frames, join='inner') cuts frames to it)"
            )
    if (held.uncertainty is None) != (first.uncertainty is None):
        has, lacks = (name, first_name) if first.uncertainty is None else (first_name, name)
        raise InvalidInputError(f"{has} has an uncertainty and {lacks} has none; expected one with all frames or none")


def _with_uncertainty(held: Contents, uncertainty: Any, name: str) -> Contents:
    """Return a frame with its uncertainty, in the unit that goes with the frame's own."""
    kind = _KINDS.get(str(getattr(uncertainty, "uncertainty_type", "")))
    if kind is None:
        raise InvalidInputError(
            f"{name} has an uncertainty of type {type(uncertainty).__name__}; "
            "expected StdDevUncertainty, VarianceUncertainty or InverseVariance, or None"
        )
    array, unit = uncertainty.array, getattr(uncertainty, "unit", None)
    if array is None:
        return held
    if not is_array(array) or not array.shape:  # one number for all samples
        array = np.broadcast_to(np.asarray(array), shape_of(held.array))
    expected = None if held.unit is None else held.unit ** POWERS[kind]
    if unit is not None and expected is not None and unit != expected:
        array = to_host(array, name) * float(unit.to(expected))
    return replace(held, uncertainty=array, kind=kind)
