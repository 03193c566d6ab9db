"""Units of frames: whether two are the same, and by which factor one becomes the other."""

from __future__ import annotations

import math
import warnings
from contextlib import suppress
from typing import Any

from zemosaic_stack_core.errors import InvalidInputError

# What programs call the number that a converter gave; of astropy's units the first two don't convert.
_DATA_NUMBERS = frozenset(("adu", "dn", "count", "counts", "ct"))


def known_unit(unit: Any) -> Any:
    """Return a unit of astropy's or the text of one; None where it says nothing or has no dimension."""
    text = "" if unit is None else str(unit).strip()
    return None if text in ("", "1", "dimensionless") else unit


def unit_factor(found: Any, expected: Any, names: tuple[str, str]) -> float:
    """Return what numbers in one unit, of astropy's or as text, are multiplied with to be in another.

    `names` are of the frame and of the one that has the expected unit. Raise where there is no such factor.
    """
    if _same(found, expected):
        return 1.0
    one, other = astropy_unit(found), astropy_unit(expected)
    factor = None
    if one is not None and other is not None:
        try:
            factor, twice = float(one.to(other, 1.0)), float(one.to(other, 2.0))
            if not math.isclose(twice, 2.0 * factor):  # magnitudes: no factor leads there
                factor = None
        except (ValueError, TypeError):  # of no common dimension
            factor = None
    if factor is None:
        texts = ("none" if unit is None else str(unit) for unit in (found, expected))
        found, expected = texts
        raise InvalidInputError(
            f"{names[0]} has the unit {found}; expected {expected} as in {names[1]}, or one that converts to it"
        )
    return factor


def _same(found: Any, expected: Any) -> bool:
    """Return whether two units, or two texts in any case, are the same."""
    if found is None or expected is None:
        return found is expected
    texts = {str(unit).strip().casefold() for unit in (found, expected)}
    return len(texts) == 1 or texts <= _DATA_NUMBERS


def astropy_unit(unit: Any) -> Any:
    """Return astropy's unit of a text, ``ADU`` and ``Counts`` among them; None where it knows none."""
    if not isinstance(unit, str):
        return unit
    from astropy import units

    for text in (unit, unit.lower(), unit.lower().removesuffix("s")):
        with warnings.catch_warnings(), suppress(ValueError, TypeError):
            warnings.simplefilter("ignore", units.UnitsWarning)  # an old way to write it
            return units.Unit(text)
    return None
