"""Kinds of frames by their cards: light, dark, flat, bias."""

from __future__ import annotations

# What an aligned frame keeps of its raw one.
KEPT_CARDS = (
    "OBJECT", "DATE-OBS", "DATE-END", "DATE-AVG", "MJD-OBS", "TIMESYS", "EXPTIME", "EXPOSURE", "FILTER", "GAIN",
    "EGAIN", "OFFSET", "CCD-TEMP", "SET-TEMP", "INSTRUME", "TELESCOP", "OBSERVER", "FOCALLEN", "APERTURE", "APTDIA",
    "XPIXSZ", "YPIXSZ", "XBINNING", "YBINNING", "SITELAT", "SITELONG", "AIRMASS", "RA", "DEC", "OBJCTRA", "OBJCTDEC",
    "BUNIT",
)  # fmt: skip
BAYER_CARDS = ("BAYERPAT", "COLORTYP")
KIND_CARDS = ("IMAGETYP", "FRAME", "OBSTYPE", "FRAMETYP")


def kind_in(text: str, *, whole_words: bool = False) -> str:
    """Return the kind of frame that a text names, "light", "dark", "flat" or "bias"; empty where it names none."""
    text = text.casefold()
    words = "".join(c if c.isalpha() else " " for c in text).split()
    for kind, marks in (("flat", ("flat",)), ("dark", ("dark",)), ("bias", ("bias", "offset", "zero")),
                        ("light", ("light", "object", "science"))):  # fmt: skip
        if any(mark in words if whole_words else mark in text for mark in marks):
            return "flat" if kind == "dark" and "flat" in text else kind
    return ""
