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

from collections.abc import Sequence
from dataclasses import dataclass

from zemosaic_stack_core.frames.heads import FileHead, FrameFile, head_of
from zemosaic_stack_core.prepare.headers.kinds import kind_by_cards, pattern_by_cards

_WCS_CARDS = (
    *("CTYPE1", "CTYPE2", "CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2", "CDELT1", "CDELT2", "CROTA1", "CROTA2"),
    *("CD1_1", "CD1_2", "CD2_1", "CD2_2", "PC1_1", "PC1_2", "PC2_1", "PC2_2"),
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
    heads = list(map(head_of, frames))
    headers = [head for head in heads if head.get("NAXIS") is not None]
    if not headers:
        return Recognized(False, "no FITS header says otherwise")
    kinds = [kind_by_cards(head) for head in headers]
    calibration = [kind for kind in kinds if kind not in ("", "light")]
    if len(calibration) == len(frames):
        return Recognized(False, "calibration frames and no light: they make a master for calibration, as they are")
    planes = [head for head in headers if (head.get("ZNAXIS3", "NAXIS3") or "1") == "1"]
    patterns = [pattern for pattern in map(pattern_by_cards, planes) if pattern]
    if patterns:
        return Recognized(True, f"{len(patterns)} of {len(frames)} frames are Bayer mosaics ({patterns[0]})")
    if calibration:
        counts = ", ".join(f"{calibration.count(k)} {_plural(k, calibration.count(k))}" for k in sorted({*calibration}))
        return Recognized(True, f"{counts} among {len(frames)} files")
    placed = [head for head in headers if head.observing.has_wcs]
    same = len(placed) == len(headers) and all(_place(head) == _place(headers[0]) for head in headers)
    if same:
        return Recognized(False, "all frames have the same WCS")
    if len(placed) == len(frames):
        apart = _apart(list({_place(head): head for head in headers}.values()))
        if apart <= _APART:
            return Recognized(False, f"by their WCS the frames lie within {apart:.2g} px")
        return Recognized(True, f"by their WCS the frames lie up to {apart:.3g} px apart")
    lights = sum(kind == "light" and _bits(head) > 0 for head, kind in zip(headers, kinds, strict=True))
    if lights == len(frames):
        return Recognized(True, f"the {len(frames)} frames are integers that a camera's program calls lights")
    is_open = len(headers) == len(frames) > 1
    why = "no Bayer pattern, no calibration frames, no WCS that differs, no camera's integers"
    return Recognized(False, why, is_open)


def _plural(kind: str, count: int) -> str:
    """Return the name of a kind for so many frames."""
    return kind if count == 1 else "biases" if kind == "bias" else f"{kind}s"


def _bits(head: FileHead) -> int:
    """Return BITPIX, positive for integers; 0 where it can't be told."""
    try:
        return int(head.get("ZBITPIX", "BITPIX") or 0)
    except ValueError:
        return 0


def _place(head: FileHead) -> tuple[str, ...]:
    """Return what the WCS depends on, as written."""
    return tuple(head.get(keyword) or "" for keyword in _WCS_CARDS)


def _apart(heads: Sequence[FileHead]) -> float:
    """Return how far frames lie from the first by their WCS, pixels; 0 where that can't be told."""
    from zemosaic_stack_core.errors import FrameReadError
    from zemosaic_stack_core.prepare.canvas.wcs import pixels_apart
    from zemosaic_stack_core.prepare.headers.raw_frame import inspect_frame

    try:
        return pixels_apart([inspect_frame(head) for head in heads], _APART)
    except (FrameReadError, ValueError):  # a header that says nothing usable: stacking the frames says more
        return 0.0
