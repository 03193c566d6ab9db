"""Are frames as the telescope wrote them, or aligned already? Told by a few cards of their headers, at next to no cost.

Frames are raw where one of these holds, in this order:

1. a frame of one plane has a Bayer pattern (``BAYERPAT`` or ``COLORTYP``);
2. there are darks, flats or biases among lights (``IMAGETYP``, ``FRAME``, ``OBSTYPE`` or ``FRAMETYP``);
3. every frame has a celestial WCS, and these put them more than half a pixel apart;
4. they hold integers, a camera's program calls them lights, and they don't all have the same WCS.

All others, among them every ``.npy`` file and floating-point frames of one WCS or none, are taken as aligned; of FITS
files that say nothing at all, the command line looks at a few stars before it does (`stars.recognize`). So are
frames that are darks, flats or biases without exception, of a Bayer camera too: what is made of them is their master.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from zemosaic_stack_core.prepare.headers.kinds import KIND_CARDS, kind_in
from zemosaic_stack_core.prepare.options import PrepareOptions

_BAYER_CARDS = ("BAYERPAT", "COLORTYP")
_WCS_CARDS = (
    *("CTYPE1", "CTYPE2", "CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2", "CDELT1", "CDELT2", "CROTA1", "CROTA2"),
    *("CD1_1", "CD1_2", "CD2_1", "CD2_2", "PC1_1", "PC1_2", "PC2_1", "PC2_2"),
)
_SHAPE_CARDS = ("NAXIS", "NAXIS1", "NAXIS2", "NAXIS3", "BITPIX", "ZNAXIS", "ZNAXIS1", "ZNAXIS2", "ZNAXIS3", "ZBITPIX")
_WANTED = frozenset(
    name.ljust(8).encode() for name in (*KIND_CARDS, *_BAYER_CARDS, *_WCS_CARDS, *_SHAPE_CARDS, "PCOUNT", "GCOUNT")
)
_BLOCK = 2880
_MOST_BLOCKS = 400
_APART = 0.5  # pixels

_Cards = dict[str, str]


@dataclass(frozen=True)
class Recognized:
    """What frames are taken for."""

    # They are to be prepared before they are stacked.
    is_raw: bool
    # What says so.
    why: str
    # Nothing says so: the stars may be looked at, see `stars.recognize`.
    is_open: bool = False
    # What the stars say of frames taken as aligned; empty where they were not looked at.
    line: str = ""


def decide(options: PrepareOptions, paths: Sequence[str | os.PathLike[str]]) -> Recognized:
    """Return whether frames are to be prepared: where it was asked for, or else where `recognize` finds them raw.

    Options other than the defaults say that the frames are raw; ``align="none"`` alone, that they are aligned.
    """
    if options == PrepareOptions():
        return recognize(paths)
    return Recognized(options != PrepareOptions(align="none"), "asked for")


def recognize(paths: Sequence[str | os.PathLike[str]]) -> Recognized:
    """Return whether frames are raw or aligned by their headers; files that can't be read count for nothing."""
    named = [path for path in paths if not os.fspath(path).casefold().endswith(".npy")]
    read = [(cards, path) for path in named if (cards := _cards(path))]
    headers, fits = [cards for cards, _ in read], [path for _, path in read]
    if not headers:
        return Recognized(False, "no FITS header says otherwise")
    kinds = [_kind(cards) for cards in headers]
    calibration = [kind for kind in kinds if kind not in ("", "light")]
    if len(calibration) == len(paths):
        return Recognized(False, "calibration frames and no light: they make a master for calibration, as they are")
    patterns = [pattern for cards in headers if (pattern := _pattern(cards))]
    if patterns:
        return Recognized(True, f"{len(patterns)} of {len(paths)} frames are Bayer mosaics ({patterns[0]})")
    if calibration:
        counts = ", ".join(f"{calibration.count(k)} {_plural(k, calibration.count(k))}" for k in sorted({*calibration}))
        return Recognized(True, f"{counts} among {len(paths)} files")
    placed = [cards for cards in headers if "CTYPE1" in cards and "CRVAL1" in cards]
    same = len(placed) == len(headers) and all(_place(cards) == _place(headers[0]) for cards in headers)
    if same:
        return Recognized(False, "all frames have the same WCS")
    if len(placed) == len(paths):
        apart = _apart(list({_place(cards): path for cards, path in zip(headers, fits, strict=True)}.values()))
        if apart <= _APART:
            return Recognized(False, f"by their WCS the frames lie within {apart:.2g} px")
        return Recognized(True, f"by their WCS the frames lie up to {apart:.3g} px apart")
    lights = sum(kind == "light" and _bits(cards) > 0 for cards, kind in zip(headers, kinds, strict=True))
    if lights == len(paths):
        return Recognized(True, f"the {len(paths)} frames are integers that a camera's program calls lights")
    is_open = len(headers) == len(paths) > 1
    why = "no Bayer pattern, no calibration frames, no WCS that differs, no camera's integers"
    return Recognized(False, why, is_open)


def _plural(kind: str, count: int) -> str:
    """Return the name of a kind for so many frames."""
    return kind if count == 1 else "biases" if kind == "bias" else f"{kind}s"


def _kind(cards: _Cards) -> str:
    """Return a frame's kind by its header; empty where it says none."""
    return next((kind for keyword in KIND_CARDS if (kind := kind_in(cards.get(keyword, "")))), "")


def _pattern(cards: _Cards) -> str:
    """Return the Bayer pattern of a frame of one plane; empty without one."""
    planes = cards.get("ZNAXIS3", cards.get("NAXIS3", "1"))
    given = next((cards[keyword] for keyword in _BAYER_CARDS if keyword in cards), "").upper()
    return given if planes == "1" and given and given not in ("MONO", "NONE") else ""


def _bits(cards: _Cards) -> int:
    """Return BITPIX, positive for integers; 0 where it can't be told."""
    try:
        return int(cards.get("ZBITPIX", cards.get("BITPIX", "0")))
    except ValueError:
        return 0


def _place(cards: _Cards) -> tuple[str, ...]:
    """Return what the WCS depends on, as written."""
    return tuple(cards.get(keyword, "") for keyword in _WCS_CARDS)


def _apart(paths: Sequence[str | os.PathLike[str]]) -> float:
    """Return how far frames lie from the first by their WCS, pixels; 0 where that can't be told."""
    from zemosaic_stack_core.errors import FrameReadError
    from zemosaic_stack_core.prepare.canvas.wcs import pixels_apart
    from zemosaic_stack_core.prepare.headers.raw_frame import inspect_frame

    try:
        return pixels_apart([inspect_frame(path) for path in paths], _APART)
    except (FrameReadError, ValueError):  # a header that says nothing usable: stacking the frames says more
        return 0.0


def _cards(path: str | os.PathLike[str]) -> _Cards:
    """Return the wanted cards of a file's first image, values as text; empty where it is not FITS."""
    try:
        if not Path(path).is_file():  # nobody may write to a pipe
            return {}
        with Path(path).open("rb") as plain:
            is_packed = plain.read(2) == b"\x1f\x8b"
            plain.seek(0)
            if is_packed:
                with gzip.open(plain) as file:
                    return _first_image(file)
            return _first_image(plain)
    except (OSError, EOFError, ValueError, zlib.error):
        return {}


def _first_image(file: BinaryIO | gzip.GzipFile) -> _Cards:
    """Read headers until one has an image; data before it is skipped."""
    cards: _Cards = {}
    for _ in range(2):
        found, is_whole = _read_cards(file)
        cards = {**cards, **found}
        if not is_whole or found.get("NAXIS", "0") != "0":
            break
    return cards if "NAXIS" in cards else {}


def _read_cards(file: BinaryIO | gzip.GzipFile) -> tuple[_Cards, bool]:
    """Read one header."""
    cards: _Cards = {}
    for _ in range(_MOST_BLOCKS):
        block = file.read(_BLOCK)
        if len(block) < _BLOCK:
            return cards, False
        for start in range(0, _BLOCK, 80):
            keyword = block[start : start + 8]
            if keyword == b"END     ":
                return cards, True
            if keyword in _WANTED and block[start + 8 : start + 10] == b"= ":
                value = block[start + 10 : start + 80].decode("latin-1").strip()
                is_text = value.startswith("'")
                text = value[1:].split("'", 1)[0].strip() if is_text else value.split("/", 1)[0].strip()
                cards.setdefault(keyword.decode().rstrip(), text)
    return cards, False
