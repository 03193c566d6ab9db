"""The cards of a FITS header, read without astropy."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    pass


_BLOCK = 2880


def read_first_cards(path: str | os.PathLike[str]) -> dict[str, str]:
    """Return the values of the primary header as text; empty where the file is absent, unreadable or not FITS."""
    return _structural(_first_header(path))


def has_first_card(path: str | os.PathLike[str], keyword: str) -> bool:
    """Return whether the primary header has a card of that name; False where `read_first_cards` finds none."""
    name = keyword.ljust(8).encode("ascii")
    head = _first_header(path)
    # Ten thousand headers are looked at: in nearly all of them the name is nowhere.
    return name in head and any(head[start : start + 8] == name for start in range(0, len(head), 80))


def _first_header(path: str | os.PathLike[str]) -> bytes:
    """Return the primary header; empty where the file is absent, unreadable or not FITS."""
    try:
        if not Path(path).is_file():  # a pipe would wait forever
            return b""
        with Path(path).open("rb") as file:
            return _read_header(file) or b""
    except OSError:
        return b""


def _read_header(file: BinaryIO) -> bytes | None:
    """Return the next header with its padding, empty at the end of the file, None where it is not a header."""
    head = b""
    while True:
        block = file.read(_BLOCK)
        if not block and not head:
            return b""
        starts = (b"SIMPLE  ", b"XTENSION")
        if len(block) < _BLOCK or (not head and not block.startswith(starts)):
            return None
        head += block
        if b"END     " in block and any(block[start : start + 8] == b"END     " for start in range(0, _BLOCK, 80)):
            return head


def _structural(head: bytes) -> dict[str, str]:
    """Return the plain values of a header that this program wrote, as text."""
    cards: dict[str, str] = {}
    for start in range(0, len(head), 80):
        card = head[start : start + 80].decode("latin-1")
        if card[8:10] == "= ":
            value = card[10:].strip()
            text = value[1:].split("'", 1)[0].rstrip() if value.startswith("'") else value.split("/", 1)[0].strip()
            cards.setdefault(card[:8].rstrip(), text)
    return cards
