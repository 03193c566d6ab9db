"""The FRAMES table of a master tile: one row per frame, written and read back.

File names and notes are stored as percent-encoded UTF-8 where they have characters that a FITS string may not hold.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.fits.observing import ObservingFacts, parse_date
from zemosaic_stack_core.master.tile import FrameRow, MasterExtras
from zemosaic_stack_core.stacking.result import FrameRecord, StackResult
from zemosaic_stack_core.system.quantities import percent_of

if TYPE_CHECKING:
    from astropy.io import fits


# Name and type of each column; ``*`` has one value per channel, percentages are of the samples that were present.
# SHA256 is left out where it was not computed for any frame.
_COLUMNS = (
    ("FILE", "text"),
    ("RELFILE", "text"),
    ("SIZE", ">i8"),
    ("SHA256", "text"),
    ("EXPTIME", ">f8"),
    ("DATE_OBS", "text"),
    ("SCALE", "*>f4"),
    ("OFFSET", "*>f4"),
    ("WEIGHT", "*>f4"),
    ("SKY", "*>f8"),
    ("NOISE", "*>f8"),
    ("FWHM", "*>f8"),
    ("REJLO", "*>i8"),
    ("REJHI", "*>i8"),
    ("MISSING", "*>i8"),
    ("REJLOPCT", "*>f4"),
    ("REJHIPCT", "*>f4"),
    ("NOTE", "text"),
)
# A percentage has none: FITS knows no unit of that name, and astropy warns of it.
TABLE_UNITS = {"SIZE": "byte", "EXPTIME": "s", "FWHM": "pix"}
# Characters of a name that stand in the table as they are.
_SAFE = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")


def frames_table(result: StackResult, extras: MasterExtras, folder: Path) -> npt.NDArray[np.void]:
    """Return the table's rows, one per frame, big-endian; file names are also stored relative to the folder.

    Raises InvalidInputError unless there is a SHA-256 for every frame, or none.
    """
    count = len(result.frames)
    if len(extras.sha256) not in (0, count):
        raise InvalidInputError(f"sha256 has {len(extras.sha256)} entries; expected one for each of {count} frames")
    pixels = result.image.size // result.channels
    hashes = extras.sha256 or [None] * count
    rows = [
        _row(frame, pixels) | {"RELFILE": _relative(frame.path, folder), "SHA256": sha256 or ""}
        for frame, sha256 in zip(result.frames, hashes, strict=True)
    ]
    columns: list[tuple[str, str, Sequence[Any]]] = [
        (name, kind, [row[name] for row in rows]) for name, kind in _COLUMNS if name != "SHA256" or any(extras.sha256)
    ]
    for name, (_, values) in extras.columns.items():
        columns.append((name, "text" if any(isinstance(value, str) for value in values) else ">f8", values))
    return _structured(columns, count, result.channels)


def _structured(columns: Sequence[tuple[str, str, Sequence[Any]]], count: int, channels: int) -> npt.NDArray[np.void]:
    """Return columns, each a name, a type and its values, as a structured array."""
    types: list[tuple[Any, ...]] = []
    stored = []
    for name, kind, values in columns:
        if kind == "text":
            values = [_encode(value) for value in values]
            types.append((name, f"S{max([1, *map(len, values)])}"))
        elif kind.startswith("*"):
            types.append((name, kind[1:], () if channels == 1 else (channels,)))
            values = [value[0] for value in values] if channels == 1 else values
        else:
            types.append((name, kind))
        stored.append(values)
    table = np.zeros(count, dtype=types)
    for (name, *_), values in zip(types, stored, strict=True):
        table[name] = values
    return table


def table_header(table: npt.NDArray[np.void], name: str, units: Mapping[str, str]) -> fits.Header:
    """Return the header of a binary table; some columns have units.

    `astropy.io.fits.BinTableHDU` makes the same, and imports all of `astropy.table` for it: 0.2 s.
    """
    from astropy.io import fits

    header = fits.Header()
    header["XTENSION"] = ("BINTABLE", "binary table extension")
    header["BITPIX"] = (8, "array data type")
    header["NAXIS"] = (2, "number of array dimensions")
    header["NAXIS1"] = (table.dtype.itemsize, "length of dimension 1")
    header["NAXIS2"] = (len(table), "length of dimension 2")
    header["PCOUNT"] = (0, "number of group parameters")
    header["GCOUNT"] = (1, "number of groups")
    columns = fits.ColDefs(table)
    header["TFIELDS"] = (len(columns), "number of table fields")
    for index, column in enumerate(columns, start=1):
        header[f"TTYPE{index}"] = column.name
        header[f"TFORM{index}"] = column.format
        if column.name in units:
            header[f"TUNIT{index}"] = units[column.name]
        if column.dim:
            header[f"TDIM{index}"] = column.dim
    header["EXTNAME"] = (name, "extension name")
    return header


def _row(frame: FrameRecord, pixels: int) -> dict[str, Any]:
    """Return one row, a value or a tuple per column, but for what is not in the record."""
    facts = frame.observing or ObservingFacts()
    unknown = (math.nan,) * len(frame.weight)
    return {
        "FILE": frame.name,
        "SIZE": -1 if facts.size is None else facts.size,
        "EXPTIME": math.nan if facts.exposure is None else facts.exposure,
        "DATE_OBS": "" if facts.start is None else facts.start.isoformat(),
        "SCALE": frame.scale,
        "OFFSET": frame.offset,
        "WEIGHT": frame.weight,
        "SKY": frame.sky or unknown,
        "NOISE": frame.noise or unknown,
        "FWHM": frame.fwhm or unknown,
        "REJLO": frame.rejected_low,
        "REJHI": frame.rejected_high,
        "MISSING": frame.missing,
        "REJLOPCT": _percent(frame.rejected_low, frame.missing, pixels),
        "REJHIPCT": _percent(frame.rejected_high, frame.missing, pixels),
        "NOTE": frame.note,
    }


def _percent(rejected: tuple[int, ...], missing: tuple[int, ...], pixels: int) -> tuple[float, ...]:
    """Return rejected samples in percent of those present, per channel."""
    return tuple(percent_of(part, pixels - gone) for part, gone in zip(rejected, missing, strict=True))


def _relative(path: Path | None, folder: Path) -> str:
    """Return a file's name relative to a folder; empty without a file, or where it is on another drive."""
    if path is None:
        return ""
    try:
        return Path(os.path.relpath(path, folder)).as_posix()
    except ValueError:
        return ""


def _encode(text: str) -> bytes:
    """Return printable ASCII; a blank at the end, which FITS would drop, is encoded too."""
    encoded = quote_from_bytes(os.fsencode(text), safe=_SAFE)
    return (encoded[:-1] + "%20" if encoded.endswith(" ") else encoded).encode("ascii")


def _decode(text: bytes | str) -> str:
    """Return the text that `_encode` was given."""
    return os.fsdecode(unquote_to_bytes(text))


def read_frames_table(table: npt.NDArray[Any], folder: Path) -> tuple[FrameRow, ...]:
    """Return the rows of a FRAMES table as astropy reads it; files are looked for by name, then beside the master."""
    present = [name for name in (*(name for name, _ in _COLUMNS), "RAWFILE") if name in (table.dtype.names or ())]
    # Column by column: a row of an astropy table takes a millisecond.
    columns = [np.asarray(table[name]).tolist() for name in present]
    return tuple(_read_row(dict(zip(present, row, strict=True)), folder) for row in zip(*columns, strict=True))


def _read_row(row: dict[str, Any], folder: Path) -> FrameRow:
    """Return one row."""
    name, relative, note = _decode(row["FILE"]), _decode(row["RELFILE"]), _decode(row["NOTE"])
    # Without a relative name it was an array, "frame 3", or a file on another drive, which has its whole name.
    candidates = [Path(name), folder / relative] if relative else [Path(name)] if Path(name).is_absolute() else []
    record = FrameRecord(
        name=name,
        path=next((path for path in candidates if path.is_file()), None),
        weight=_per_channel(row["WEIGHT"]),
        scale=_per_channel(row["SCALE"]),
        offset=_per_channel(row["OFFSET"]),
        rejected_low=_per_channel(row["REJLO"]),
        rejected_high=_per_channel(row["REJHI"]),
        missing=_per_channel(row["MISSING"]),
        sky=_known(row["SKY"]),
        noise=_known(row["NOISE"]),
        fwhm=_known(row["FWHM"]),
        note=note,
        observing=ObservingFacts(
            size=None if row["SIZE"] < 0 else row["SIZE"],
            exposure=None if math.isnan(row["EXPTIME"]) else row["EXPTIME"],
            start=parse_date(row["DATE_OBS"]),
        ),
    )
    raw = _decode(row.get("RAWFILE", ""))
    return FrameRow(record=record, relative=relative, sha256=row.get("SHA256", ""), raw=raw)


def _per_channel(values: Any) -> tuple[Any, ...]:
    """Return one number per channel."""
    return tuple(values) if isinstance(values, list) else (values,)


def _known(values: Any) -> tuple[float, ...] | None:
    """Return one float per channel, None where nothing was measured."""
    numbers = _per_channel(values)
    return None if all(math.isnan(number) for number in numbers) else numbers
