"""Are frames as the telescope wrote them, or aligned already? Told by a few cards of their headers, at next to no cost.

Frames are raw where one of these holds, in this order:

1. a frame of one plane has a Bayer pattern (``BAYERPAT`` or ``COLORTYP``);
2. there are darks, flats or biases among lights (``IMAGETYP``, ``FRAME``, ``OBSTYPE`` or ``FRAMETYP``);
3. every frame has a celestial WCS, and these put them more than half a pixel apart;
4. they hold integers, a camera's program calls them lights, and they don't all have the same WCS.

All others are taken as aligned, but not on trust: of FITS files the command line looks at a few stars before it does
(`stars.recognize`). One WCS in all frames is no evidence: capture programs copy that of the last solve into every
frame. Frames that are darks, flats or biases without exception, of a Bayer camera too, make a master for calibration.
A file that can't be read never changes what the others are taken for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.frames.heads import FileHead, FrameFile, head_of
from zemosaic_stack_core.prepare.headers.kinds import (
    find_masters,
    kind_by_cards,
    kinds_of,
    pattern_by_cards,
    wcs_place,
)

# Pixels that aligned frames may lie apart by their WCS.
_APART = 0.5


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


def recognize(frames: Sequence[FrameFile]) -> Recognized:
    """Return whether frames, by path or head, are raw or aligned; a file that can't be read says nothing."""
    # A file that can't be read is named where the frames are opened; it says nothing of the others.
    heads = [head for head in map(head_of, frames) if head.get("NAXIS") is not None or head.is_npy]
    masters = find_masters(heads)
    heads = [head for index, head in enumerate(heads) if index not in masters]
    headers = [head for head in heads if not head.is_npy]
    if not headers:
        return Recognized(False, "no FITS header says otherwise")
    kinds = [kind_by_cards(head) for head in headers]
    calibration = [kind for kind in kinds_of(headers) if kind not in ("", "light")]
    if len(calibration) == len(heads):
        return Recognized(False, "calibration frames and no light: they make a master for calibration, as they are")
    planes = [head for head in headers if (head.get("ZNAXIS3", "NAXIS3") or "1") == "1"]
    patterns = [pattern for pattern in map(pattern_by_cards, planes) if pattern]
    if patterns:
        return Recognized(True, f"{len(patterns)} of {len(heads)} frames are Bayer mosaics ({patterns[0]})")
    if calibration:
        counts = ", ".join(f"{calibration.count(k)} {_plural(k, calibration.count(k))}" for k in sorted({*calibration}))
        return Recognized(True, f"{counts} among {len(heads)} files")
    is_open = len(headers) == len(heads) > 1
    placed = {wcs_place(head): head for head in headers if head.observing.has_wcs}
    if len(placed) == 1 and all(head.observing.has_wcs for head in headers):
        return Recognized(False, "all frames have the same WCS, which proves nothing", is_open)
    if all(head.observing.has_wcs for head in heads):
        apart = _apart(list(placed.values()))
        if apart > _APART:
            return Recognized(True, f"by their WCS the frames lie up to {apart:.3g} px apart")
        if apart >= 0:
            return Recognized(False, f"by their WCS the frames lie within {apart:.2g} px", is_open)
    lights = sum(kind == "light" and _bits(head) > 0 for head, kind in zip(headers, kinds, strict=True))
    if lights == len(heads):
        return Recognized(True, f"the {len(heads)} frames are integers that a camera's program calls lights")
    why = "no Bayer pattern, no calibration frames, no WCS that differs, no camera's integers"
    return Recognized(False, why, is_open)


def refuse_calibration(heads: Sequence[FileHead]) -> None:
    """Raise where there are calibration frames among lights that are stacked as they are."""
    kinds = kinds_of(heads)
    found = [head for head, kind in zip(heads, kinds, strict=True) if kind not in ("", "light")]
    if 0 < len(found) < len(heads):
        kind = next(kind for kind in kinds if kind not in ("", "light"))
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        raise InvalidInputError(
            f"{found[0].name}{more} of {len(heads)} files: a {kind}, but the frames are stacked as they are; expected "
            "lights alone (--align auto calibrates with the others, --lights says which are lights)"
        )


def _plural(kind: str, count: int) -> str:
    """Return the name of a kind for so many frames."""
    return kind if count == 1 else "biases" if kind == "bias" else f"{kind}s"


def _bits(head: FileHead) -> int:
    """Return BITPIX, positive for integers; 0 where it can't be told."""
    try:
        return int(head.get("ZBITPIX", "BITPIX") or 0)
    except ValueError:
        return 0


def _apart(heads: Sequence[FileHead]) -> float:
    """Return how far frames lie from the first by their WCS, pixels; NaN where that can't be told."""
    from zemosaic_stack_core.errors import FrameReadError
    from zemosaic_stack_core.prepare.canvas.wcs import pixels_apart
    from zemosaic_stack_core.prepare.headers.raw_frame import inspect_frame

    try:
        return pixels_apart([inspect_frame(head) for head in heads], _APART)
    except (FrameReadError, ValueError):  # a header that says nothing usable: stacking the frames says more
        return math.nan
