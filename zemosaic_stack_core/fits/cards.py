"""FITS headers, read without astropy: where a header ends, and what its cards say.

`astropy.io.fits` takes 0.4 s to import and milliseconds a header, and ten thousand headers are read before a stack
begins. Whoever needs a whole header with its comments makes astropy's of the same bytes: `FitsHeader.to_astropy`.

References
----------
FITS standard 4.0, sections 4.1 (cards), 4.2 (values) and 4.2.1.2 (strings that CONTINUE on the next card).
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from zemosaic_stack_core.errors import FrameReadError

if TYPE_CHECKING:
    from astropy.io import fits

# ``read_at(offset, count)`` returns the bytes there, fewer at the end of the file.
ReadAt = Callable[[int, int], bytes]

BLOCK = 2880
CARD = 80
# Bytes of a keyword and the sign of a value.
_KEY = 9
# Most headers of aligned frames fit: one system call per file.
FIRST_READ = 4 * BLOCK
# No other keyword begins like this.
_END = re.compile(rb"END(?![A-Z0-9_-])")
# Part of the cards of a block that may begin with what is no keyword: pixels do nearly everywhere.
_MOST_ODD = 0.1
_LFS_POINTER = b"version https://git-lfs"
# What people have beside their frames, by its first bytes.
_OTHER_FILES = {
    b"\xff\xd8\xff": "a JPEG picture",
    b"\x89PNG": "a PNG picture",
    b"LUCAM-RECORDER": "a SER video",
    b"RIFF": "an AVI video",
    b"PK\x03\x04": "a ZIP archive",
}
# A quote within a string is written twice. Where the last quote is missing, the string ends with the card.
_STRING = re.compile(r"'((?:[^']|'')*)")


@dataclass(frozen=True, slots=True)
class FitsHeader:
    """One header, its cards as bytes; a keyword that stands twice counts where it stands first."""

    # 80 bytes each, without END.
    cards: bytes
    # Where the data begin, bytes from the beginning of the file.
    data_offset: int = 0
    # The first 9 bytes of each card, in which a keyword is found ten times sooner: dozens are looked for in vain.
    _keys: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        starts = range(0, len(self.cards), CARD)
        object.__setattr__(self, "_keys", b"".join([self.cards[at : at + _KEY] for at in starts]))

    def __contains__(self, keyword: str) -> bool:
        return self._find(keyword) >= 0

    def __getitem__(self, keyword: str) -> str:
        value = self.get(keyword)
        if value is None:
            raise KeyError(keyword)
        return value

    def get(self, keyword: str) -> str | None:
        """Return a card's value as text: a string without its quotes and outer blanks; None without the card."""
        at = self._find(keyword)
        return None if at < 0 else self._text(at)

    def number(self, keyword: str) -> float | None:
        """Return a card's finite real number, quoted or not, None where it has none."""
        number = parse_real(self.get(keyword) or "")
        return number if math.isfinite(number) else None

    def written(self, keyword: str) -> str | None:
        """Return a card's value as it is written, a string in its quotes, without the comment; None without the card.

        For the structural cards, where a number in quotes is an error.
        """
        at = self._find(keyword)
        if at < 0:
            return None
        field = self._field(at)
        return field if field.startswith("'") else _plain(field)

    def only(self, keywords: Collection[str]) -> FitsHeader:
        """Return the first card of each of these keywords, with what continues it, in the order of the header."""
        found = sorted(at for keyword in keywords if (at := self._find(keyword)) >= 0)
        return FitsHeader(b"".join(self.cards[at : self._end(at)] for at in found))

    def to_astropy(self) -> fits.Header:
        """Return the header as astropy reads it."""
        from astropy.io import fits

        header: fits.Header = fits.Header.fromstring(self.cards.decode("ascii", "replace").replace("\ufffd", "?"))
        return header

    def _find(self, keyword: str) -> int:
        """Return where a keyword's first card with a value begins, -1 without one."""
        key = _key(keyword)
        at = self._keys.find(key)
        while at > 0 and at % _KEY:
            at = self._keys.find(key, at + 1)
        return at // _KEY * CARD

    def _field(self, at: int) -> str:
        """Return what follows the first 9 bytes of the card at `at`, the sign of a value."""
        return self.cards[at + 9 : at + CARD].decode("latin-1").strip()

    def _text(self, at: int) -> str:
        """Return the value of the card at `at`, with what continues it."""
        field = self._field(at)
        if not field.startswith("'"):
            return _plain(field)
        text = _string(field)
        if text.endswith("&"):
            for more in range(at + CARD, self._end(at), CARD):
                text = text[:-1] + _string(self._field(more))
        return text.strip()

    def _end(self, at: int) -> int:
        """Return where the card at `at` ends, and the cards that continue it."""
        while (
            _string(self._field(at)).endswith("&")
            and self.cards.startswith(b"CONTINUE", at + CARD)
            and self._field(at + CARD).startswith("'")
        ):
            at += CARD
        return at + CARD


NO_HEADER = FitsHeader(b"")


@cache
def _key(keyword: str) -> bytes:
    """Return what a card of a value begins with."""
    return keyword.ljust(8).encode("ascii") + b"="


def _plain(field: str) -> str:
    """Return a value that is no string, without its comment."""
    return field.split("/", 1)[0].strip()


def _string(field: str) -> str:
    """Return a quoted string without its quotes, empty where there is none; blanks at its end don't count."""
    match = _STRING.match(field)
    return match[1].replace("''", "'").rstrip() if match else ""


def parse_real(text: str) -> float:
    """Return a real number (Fortran's D exponent allowed), NaN where the text is none."""
    try:
        return float(text.upper().replace("D", "E"))
    except ValueError:
        return math.nan


def read_header(read_at: ReadAt, size: int, name: str, offset: int = 0) -> FitsHeader:
    """Read the header at `offset`; raise `FrameReadError` where none is or it does not end. `size` is the file's."""
    block = read_at(offset, FIRST_READ)
    if offset == 0 and not block.startswith(b"SIMPLE  ="):
        raise FrameReadError(f"{name}: {_describe_start(block)}; expected a FITS file, which starts with SIMPLE  =")
    blocks: list[bytes] = []
    position = offset
    while block:
        end = _end_card(block)
        if end >= 0:
            return FitsHeader(b"".join([*blocks, block[:end]]), position + (end // BLOCK + 1) * BLOCK)
        # A letter that is not ASCII stands in many a value, and in the odd line without a keyword.
        keys = [block[at : at + 8] for at in range(0, len(block), CARD)]
        if sum(not key.isascii() or b"\0" in key for key in keys) > _MOST_ODD * len(keys):
            raise FrameReadError(
                f"{name}: no END card before byte {position}, which is not text; expected END (cut off?)"
            )
        position += len(block) - len(block) % BLOCK
        if len(block) % BLOCK:
            break
        blocks.append(block)
        block = read_at(position, FIRST_READ)
    raise FrameReadError(f"{name}: header without an END card in {size} bytes; expected END (is the file cut off?)")


def _end_card(block: bytes) -> int:
    """Return where the END card begins, -1 without one; as to astropy, what follows it need not be blanks."""
    found = (match.start() for match in _END.finditer(block))
    return next((at for at in found if at % CARD == 0), -1)


def walk_headers(read_at: ReadAt, size: int, name: str) -> Iterator[FitsHeader]:
    """Yield the headers of a FITS file one by one; junk after the last HDU is no error.

    Raise `FrameReadError` where the file is not FITS, or a header does not end or say how long its data are.
    """
    offset = 0
    while True:
        header = read_header(read_at, size, name, offset)
        yield header
        offset = header.data_offset + -(-data_bytes(header, name) // BLOCK) * BLOCK
        if offset >= size or read_at(offset, 8) != b"XTENSION":
            return


def read_first_header(path: str | os.PathLike[str]) -> FitsHeader:
    """Return the primary header of a file; one without cards where the file is absent, unreadable or not FITS."""
    try:
        if not Path(path).is_file():  # a pipe would wait forever
            return NO_HEADER
        with Path(path).open("rb", buffering=0) as file:

            def read_at(offset: int, count: int) -> bytes:
                file.seek(offset)
                return file.read(count)

            return read_header(read_at, os.fstat(file.fileno()).st_size, os.fspath(path))
    except (OSError, ValueError):
        return NO_HEADER


def card_integer(header: FitsHeader, keyword: str, name: str, default: int | None = None) -> int:
    """Return a structural card's whole number; raise where it is none, or where it is absent and has no default."""
    value = header.written(keyword)
    if value is None:
        if default is None:
            raise FrameReadError(f"{name}: no card {keyword} in the header; expected a whole number")
        return default
    number = parse_real(value)  # as to astropy, 16.0 is whole
    if not math.isfinite(number) or number != math.floor(number):
        raise FrameReadError(f"{name}: {keyword} is {value!r}; expected a whole number")
    return int(value) if value.lstrip("+-").isdecimal() else int(number)


def card_real(header: FitsHeader, keyword: str, name: str, default: float) -> float:
    """Return a structural card's finite real number; raise where it is none."""
    value = header.written(keyword)
    if value is None:
        return default
    number = parse_real(value)
    if not math.isfinite(number):
        raise FrameReadError(f"{name}: {keyword} is {value!r}; expected a finite number")
    return number


def axis_lengths(header: FitsHeader, name: str, prefix: str = "NAXIS") -> list[int]:
    """Return the lengths of the axes, NAXIS1 first."""
    count = card_integer(header, prefix, name)
    if not 0 <= count <= 999:
        raise FrameReadError(f"{name}: {prefix} is {count}; expected 0 to 999")
    axes = [card_integer(header, f"{prefix}{i}", name) for i in range(1, count + 1)]
    if any(length < 0 for length in axes):
        raise FrameReadError(f"{name}: {prefix}1.. = {axes}; expected no negative length")
    return axes


def data_bytes(header: FitsHeader, name: str) -> int:
    """Return the size of an HDU's data without padding, as its header claims it."""
    axes = axis_lengths(header, name)
    bits = abs(card_integer(header, "BITPIX", name))
    elements = math.prod(axes) if axes else 0
    groups, parameters = card_integer(header, "GCOUNT", name, 1), card_integer(header, "PCOUNT", name, 0)
    size = bits // 8 * groups * (parameters + elements)
    if size < 0:
        raise FrameReadError(f"{name}: GCOUNT {groups}, PCOUNT {parameters}; expected no negative number")
    return size


def _describe_start(block: bytes) -> str:
    """Describe in a few words what a file that is not FITS begins with."""
    if not block:
        return "empty file"
    if block.startswith(_LFS_POINTER):
        return "a Git LFS pointer, not the picture itself (git lfs pull fetches it)"
    for start, what in _OTHER_FILES.items():
        if block.startswith(start):
            return what
    head = block[:16]
    if block.lstrip()[:1] == b"<":
        return f"starts with {head!r}, a web page"
    return f"starts with {head!r}"
