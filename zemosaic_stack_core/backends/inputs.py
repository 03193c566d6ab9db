"""What a program is handed: rows of pixels, numbers of frames, parameters and tables, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple

_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Inputs(NamedTuple):
    """What a program is handed. `rows` has arrays of shape (pixel,), one a frame; of one name all have one type.

    `numbers` are float32 values, one a frame; `parameters` numbers of the whole run; `tables` flat float64 arrays;
    `whole` arrays of shape (pixel,) that all frames share. `stored` names rows that are words as a file has them, and
    what they are: one of `STORED_TYPES`.
    """

    frames: int
    pixels: int
    rows: Mapping[str, Sequence[Any]]
    numbers: Mapping[str, Sequence[float]] = _NOTHING
    parameters: Mapping[str, float] = _NOTHING
    tables: Mapping[str, Any] = _NOTHING
    whole: Mapping[str, Any] = _NOTHING
    stored: Mapping[str, str] = _NOTHING


# Pixels as FITS files have them, handed in as unsigned words of this machine's: most significant byte first, and of
# ``u16flip`` with the sign bit flipped (BZERO is 32768).
STORED_TYPES = ("f32be", "i16be", "u16flip")

# Names of array types, and of the same types in programs.
TYPES = {
    "float32": "f32",
    "float64": "f64",
    "int32": "i32",
    "bool": "bool",
    "uint8": "u8",
    "int16": "i16",
    "uint16": "u16",
}


class Layout(NamedTuple):
    """What a program is handed, without the values: names, and the types of rows.

    `rows` and `whole` are pairs of a name and a type.
    """

    rows: tuple[tuple[str, str], ...] = ()
    numbers: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    whole: tuple[tuple[str, str], ...] = ()


@cache
def _type_of(dtype: Any) -> str:
    """Return the name that programs have for an array type, empty for one that they don't know; its `str` is slow."""
    return TYPES.get(str(dtype), "")


def layout_of(inputs: Inputs) -> Layout:
    """Return the layout of inputs whose types programs know."""

    def typed(name: str, row: Any) -> tuple[str, str]:
        return name, inputs.stored.get(name) or _type_of(row.dtype)

    return Layout(
        rows=tuple(typed(name, rows[0]) for name, rows in inputs.rows.items()),
        numbers=tuple(inputs.numbers),
        parameters=tuple(inputs.parameters),
        tables=tuple(inputs.tables),
        whole=tuple(typed(name, row) for name, row in inputs.whole.items()),
    )


def readable(xp: Any, inputs: Inputs) -> Inputs:
    """Return the inputs with rows in types that programs know, one for all frames: others become float32."""

    def read(name: str, rows: Sequence[Any]) -> Sequence[Any]:
        kinds = {row.dtype for row in rows}
        if name in inputs.stored or (len(kinds) == 1 and _type_of(kinds.pop())):
            return rows
        return [xp.astype(row, xp.float32) for row in rows]

    return inputs._replace(rows={name: read(name, rows) for name, rows in inputs.rows.items()})
