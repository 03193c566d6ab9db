"""What single cards say of a frame: its kind (light, dark, flat, bias), its Bayer pattern."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from zemosaic_stack_core.frames.frame_lists import kind_folders
from zemosaic_stack_core.frames.heads import FileHead
from zemosaic_stack_core.frames.known_folders import DARK_FLAT, kind_of_folder

# What an aligned frame keeps of its raw one.
KEPT_CARDS = (
    *("OBJECT", "DATE-OBS", "DATE-END", "DATE-AVG", "MJD-OBS", "TIMESYS", "EXPTIME", "EXPOSURE", "FILTER", "GAIN"),
    *("EGAIN", "OFFSET", "CCD-TEMP", "SET-TEMP", "INSTRUME", "TELESCOP", "OBSERVER", "FOCALLEN", "APERTURE", "APTDIA"),
    *("XPIXSZ", "YPIXSZ", "XBINNING", "YBINNING", "SITELAT", "SITELONG", "AIRMASS", "RA", "DEC", "OBJCTRA"),
    *("OBJCTDEC", "BUNIT", "ROWORDER", "READOUTM", "ISOSPEED", "PIERSIDE", "DETECTOR"),
)
_WCS_CARDS = (
    *("CTYPE1", "CTYPE2", "CRVAL1", "CRVAL2", "CRPIX1", "CRPIX2", "CDELT1", "CDELT2", "CROTA1", "CROTA2"),
    *("CD1_1", "CD1_2", "CD2_1", "CD2_2", "PC1_1", "PC1_2", "PC2_1", "PC2_2"),
)
# Letters that a kind's card, whatever else it says, has in a row; "twilight flat" is a flat.
_MARKS = (
    ("flat", ("flat",)),
    ("dark", ("dark", "dunkel")),
    ("bias", ("bias", "offset", "zero")),
    ("light", ("light", "object", "science", "hellbild")),
)
_KIND_CARDS = ("IMAGETYP", "FRAME", "OBSTYPE", "FRAMETYP", "IMGTYPE", "IMAGTYPE")
# Whole words of a file's name.
_NAME_WORDS = {
    **dict.fromkeys(("light", "lights", "sub", "subs", "science"), "light"),
    **dict.fromkeys(("dark", "darks", "masterdark"), "dark"),
    **dict.fromkeys(("flat", "flats", "flatfield", "skyflat", "domeflat", "masterflat"), "flat"),
    **dict.fromkeys(("bias", "biases", "masterbias", "offset", "offsets", "zero", "zeros"), "bias"),
    **dict.fromkeys(("darkflat", "darkflats", "flatdark", "flatdarks"), DARK_FLAT),
}
# What stands in the name of a calibration frame besides: another word belongs to an object (the Dark Shark Nebula).
_SETTINGS_TEXT = """
gain iso bin binning temp temperature c degc s sec secs seconds ms min exp exposure frame frames master super
stack stacked combined integration cal calibration cam camera mono color colour osc img image raw fit fits fts
fz gz npy xisf tif tiff dng nef arw orf pef raf srw
ha hb oiii sii nii l r g b lum luminance red green blue clear uv ir cut duo dual nb filter rgb lrgb
set session night test sky dome field library lib zwo asi qhy atik sbig fli canon nikon sony panel
"""
_SETTINGS = frozenset(_SETTINGS_TEXT.split())


def kind_in(text: str) -> str:
    """Return the kind of frame that a card's text names, "light", "dark", "flat", "bias" or `DARK_FLAT`; or nothing."""
    letters = "".join(filter(str.isalpha, text.casefold()))
    found = [kind for kind, marks in _MARKS if any(mark in letters for mark in marks)]
    return DARK_FLAT if found[:2] == ["flat", "dark"] else next(iter(found), "")


def kind_in_name(name: str) -> str:
    """Return the kind that the words of a file's name say; empty where they say none, or name an object."""
    parts = [part for part in re.split(r"[^a-z0-9.,]+|(?<=[a-z])(?=\d)|\.(?=[a-z])", name.casefold()) if part]
    words = [part for part in parts if part.isalpha()]
    kinds = set()
    for place, word in enumerate(parts):
        is_value = (
            word in ("offset", "zero") and place > 0 and parts[place + 1 : place + 2] and parts[place + 1][0].isdigit()
        )
        if word in _NAME_WORDS and not is_value:
            kinds.add(_NAME_WORDS[word])
    if "light" in kinds:
        return "light"
    # A letter and digits are a catalog's number or a camera's name: M31, asi533.
    numbered = {word for word, after in itertools.pairwise(parts) if after[0].isdigit()}
    if any(word not in _NAME_WORDS and word not in _SETTINGS and word not in numbered for word in words):
        return ""
    if kinds in ({"dark", "flat"}, {DARK_FLAT}):
        return DARK_FLAT
    return kinds.pop() if len(kinds) == 1 else ""


def kind_by_parent(folder: Path) -> str:
    """Return the kind of the frames in a folder; or nothing."""
    kind = kind_of_folder(folder.name)
    # Of lights/Ha beside darks.
    if not kind and kind_of_folder(folder.parent.name) and len(kind_folders(folder.parent.parent)) > 1:
        kind = kind_of_folder(folder.parent.name)
    return kind


def kind_by_path(path: Path, by_parent: Callable[[Path], str] = kind_by_parent) -> str:
    """Return the kind that a file called a light, its folder ("02 Darks"), or else its name says; or nothing."""
    name = kind_in_name(path.name)
    return name if name == "light" else by_parent(path.absolute().parent) or name


def kinds_of(heads: Sequence[FileHead]) -> list[str]:
    """Return the kinds of frames by their headers, or else by their paths; empty where neither says one."""
    by_parent = cache(kind_by_parent)  # thousands of frames lie in one folder
    return [kind_by_cards(head) or kind_by_path(head.path, by_parent) for head in heads]


def kind_by_cards(head: FileHead) -> str:
    """Return a frame's kind by its header; empty where it says none."""
    texts = filter(None, map(head.get, _KIND_CARDS))
    return next(filter(None, map(kind_in, texts)), "")


def calibration_kind(heads: Sequence[FileHead]) -> str:
    """Return the kind of calibration frames, "dark" of several; empty where there is a light, or nothing at all."""
    kinds = {*kinds_of(heads)}
    if not kinds or kinds & {"", "light"}:
        return ""
    return kinds.pop() if len(kinds) == 1 else "dark"


def is_our_master(head: FileHead) -> bool:
    """Return whether a file is what this program made of frames."""
    return bool(head.headers) and "ZSC_ALGO" in head.headers[0]


def find_masters(heads: Sequence[FileHead]) -> dict[int, str]:
    """Return which of some files are no frames but made of such, and what they are; none where all are.

    A master of calibration frames is a calibration frame. Of another program's stacks, more than half are meant.
    """
    lights = [i for i, kind in enumerate(kinds_of(heads)) if kind in ("", "light")]
    ours = [i for i in lights if is_our_master(heads[i])]
    stacked = {i: heads[i].number("STACKCNT", "NCOMBINE") or 0.0 for i in lights if i not in ours}
    others = [i for i, count in stacked.items() if count > 1]
    found = dict.fromkeys(ours, "a master of this program")
    if 2 * len(others) < len(stacked):
        found |= {i: f"a stack of {stacked[i]:.0f} frames" for i in others}
    return found if len(found) < len(lights) else {}


def pattern_by_cards(head: FileHead) -> str:
    """Return the Bayer pattern that a header names, whatever it is; empty where it names none."""
    given = (head.get("BAYERPAT", "COLORTYP") or "").upper()
    return "" if given in ("MONO", "NONE") else given


def wcs_place(head: FileHead) -> tuple[str, ...]:
    """Return what the WCS depends on, as written."""
    return tuple(head.get(keyword) or "" for keyword in _WCS_CARDS)
