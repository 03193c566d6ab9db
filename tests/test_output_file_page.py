"""The page of the output file has every card, column and extension that is written, with its unit, and no other."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from zemosaic_stack_core.command_line import main
from zemosaic_stack_core.master.option_cards import _ARRAYS_CARD, _OPTION_CARDS, _PLANE_CARDS
from zemosaic_stack_core.options import StackOptions
from zemosaic_stack_core.synthetic.night import SyntheticNight
from zemosaic_stack_core.synthetic.raw_night import RawNight

PAGE = (Path(__file__).parents[1] / "docs" / "output-file.md").read_text(encoding="utf-8")
ROWS = {row[0].strip("`"): row[1:] for row in (re.split(r"\s*\|\s*", line.strip("| ")) for line in PAGE.splitlines())}
SECTIONS = {section.partition("\n")[0]: section for section in PAGE.split("## ")}
# Structure of FITS, and what the frames themselves bring.
OTHERS = re.compile(
    r"SIMPLE|XTENSION|BITPIX|NAXIS\d?|[PG]COUNT|EXTEND|EXTNAME|C(TYPE|RVAL|RPIX|D)\d(_\d)?|RADESYS|HISTORY|OBJECT|"
    r"TELESCOP|INSTRUME|FILTER|IMAGETYP|EGAIN|RDNOISE|ROWORDER|GAIN|CCD-TEMP|XPIXSZ|FOCALLEN|XBINNING|YBINNING"
)


def named_in(*titles: str) -> set[str]:
    return {name for title in titles for name in re.findall(r"^\| `([^`]+)`", SECTIONS[title], re.MULTILINE)}


CARDS = named_in("Cards of the exposure", "Cards that say how it was made", "Cards of a tile")


@pytest.fixture(scope="module")
def masters(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Make masters of aligned and of raw frames, a tile, and one of frames with planes."""
    folder = tmp_path_factory.mktemp("masters")
    RawNight(n_frames=4, shape=(160, 200), n_stars=220, turn=0.2, shift=3.0).write(folder / "raw")
    aligned = SyntheticNight(n_frames=4, shape=(24, 32), dither=3).write(folder / "night" / "tile_1")
    for path in aligned:
        with fits.open(path, mode="append") as hdus:
            flags = np.zeros(hdus[0].data.shape, np.int16)
            hdus.append(fits.ImageHDU(flags, name="DQ"))
            hdus.append(fits.ImageHDU(np.ones(flags.shape, np.float32), name="VAR"))
    planes = ["--mask-extension", "DQ", "--dq-bits", "4", "--variance-extension", "VAR", "--zeros-missing"]
    for name, given in (
        ("raw", [str(folder / "raw"), "--workers", "1"]),
        ("planes", [*map(str, aligned), *planes, "--image-extension", "0"]),
    ):
        output = ["-o", str(folder / f"{name}.fits"), "--maps", "all", "--sha256", "--backend", "cpu", "-q"]
        assert main(["stack", *given, *output]) == 0
    tiles = ["run", str(folder / "night"), "-o", str(folder / "tiles"), "--maps", "all", "--backend", "cpu", "-q"]
    assert main(tiles) == 0
    return [folder / "raw.fits", folder / "planes.fits", folder / "tiles" / "master_tile_001.fits"]


@pytest.mark.slow
def test_all_that_is_written_is_on_the_page(masters: list[Path]) -> None:
    cards, columns, extensions = set(), {}, set()
    for path in masters:
        with fits.open(path) as hdus:
            cards |= {card for card in hdus[0].header if not OTHERS.fullmatch(card)}
            columns |= {column.name: column.unit or "" for column in hdus["FRAMES"].columns}
            extensions |= {hdu.name for hdu in hdus[1:]}
    assert cards <= CARDS
    assert named_in("Extensions") == extensions
    assert named_in("The table FRAMES") == set(columns)
    assert {name: ROWS[name][0] for name in columns if name not in extensions} == {
        name: unit for name, unit in columns.items() if name not in extensions
    }
    rarely = {"ZSC_SKIP", _ARRAYS_CARD}
    assert CARDS - cards == rarely


def test_every_option_has_its_row() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (.+) \|$", PAGE, re.MULTILINE)
    known = {(_OPTION_CARDS[one.name][0], one.name, _OPTION_CARDS[one.name][1]) for one in fields(StackOptions)}
    assert set(rows) == known
    assert {keyword for keyword, _, _ in _PLANE_CARDS} <= CARDS
