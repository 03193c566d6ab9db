"""Which files have the formats of other programs: told without their libraries, which `foreign` reads them with."""

from __future__ import annotations

from pathlib import Path

# By the file's name: many of them begin as a TIFF does.
RAW_SUFFIXES = (
    *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".erf", ".iiq", ".kdc", ".mrw", ".nef", ".nrw", ".orf", ".pef"),
    *(".raf", ".rw2", ".rwl", ".sr2", ".srw"),
)
XISF_SUFFIXES = (".xisf",)
TIFF_SUFFIXES = (".tif", ".tiff")
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def foreign_format(path: Path, start: bytes) -> str:
    """Return the format of a file by its first bytes and name, empty where it is none of these."""
    if start.startswith(b"XISF0100"):
        return "xisf"
    if path.suffix.casefold() in RAW_SUFFIXES:
        return "raw"
    return "tiff" if start.startswith(_TIFF_MAGIC) else ""
