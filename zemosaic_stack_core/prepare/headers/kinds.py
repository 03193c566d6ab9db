"""What single cards say of a frame: its kind (light, dark, flat, bias), its Bayer pattern."""

from __future__ import annotations

from zemosaic_stack_core.frames.heads import FileHead

# What an aligned frame keeps of its raw one.
KEPT_CARDS = (
    *("OBJECT", "DATE-OBS", "DATE-END", "DATE-AVG", "MJD-OBS", "TIMESYS", "EXPTIME", "EXPOSURE", "FILTER", "GAIN"),
    *("EGAIN", "OFFSET", "CCD-TEMP", "SET-TEMP", "INSTRUME", "TELESCOP", "OBSERVER", "FOCALLEN", "APERTURE", "APTDIA"),
    *("XPIXSZ", "YPIXSZ", "XBINNING", "YBINNING", "SITELAT", "SITELONG", "AIRMASS", "RA", "DEC", "OBJCTRA"),
    *("OBJCTDEC", "BUNIT"),
)
_WCS_CARDS = (
    *("CTYPE1", "CTYPE2", "CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2", "CDELT1", "CDELT2", "CROTA1", "CROTA2"),
    *("CD1_1", "CD1_2", "CD2_1", "CD2_2", "PC1_1", "PC1_2", "PC2_1", "PC2_2"),
)
_MARKS = {
    "flat": ("flat",),
    "dark": ("dark",),
    "bias": ("bias", "offset", "zero"),
    "light": ("light", "object", "science"),
}


def kind_in(text: str, *, whole_words: bool = False) -> str:
    """Return the kind of frame that a text names, "light", "dark", "flat" or "bias"; empty where it names none."""
    text = text.casefold()
    words = "".join(c if c.isalpha() else " " for c in text).split()
    for kind, marks in _MARKS.items():
        if any(mark in words if whole_words else mark in text for mark in marks):
            return "flat" if kind == "dark" and "flat" in text else kind
    return ""


def kind_by_cards(head: FileHead) -> str:
    """Return a frame's kind by its header; empty where it says none."""
    words = (kind_in(head.get(keyword) or "") for keyword in ("IMAGETYP", "FRAME", "OBSTYPE", "FRAMETYP"))
    return next(filter(None, words), "")


def pattern_by_cards(head: FileHead) -> str:
    """Return the Bayer pattern that a header names, whatever it is; empty where it names none."""
    given = (head.get("BAYERPAT", "COLORTYP") or "").upper()
    return "" if given in ("MONO", "NONE") else given


def wcs_place(head: FileHead) -> tuple[str, ...]:
    """Return what the WCS depends on, as written."""
    return tuple(head.get(keyword) or "" for keyword in _WCS_CARDS)
