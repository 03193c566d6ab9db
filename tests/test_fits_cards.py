"""One scanner of FITS cards: what astropy reads of a card is what every part of the program reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from zemosaic_stack_core import stack
from zemosaic_stack_core.errors import FrameReadError
from zemosaic_stack_core.fits.cards import FitsHeader, read_first_header, read_header
from zemosaic_stack_core.frames.file_frames import probe_frame
from zemosaic_stack_core.frames.heads import read_head
from zemosaic_stack_core.master.read import read_master
from zemosaic_stack_core.master.write import write_master
from zemosaic_stack_core.prepare.headers.raw_frame import inspect_frame
from zemosaic_stack_core.prepare.headers.recognize import recognize

PRINTABLE = st.characters(min_codepoint=0x20, max_codepoint=0x7E)


def header_of(*cards: str) -> FitsHeader:
    return FitsHeader("".join(card.ljust(80) for card in cards).encode("latin-1"))


@given(text=st.text(PRINTABLE, max_size=200))
def test_any_text_comes_back(text: str) -> None:
    header = fits.Header([("BEFORE", 1), ("TEXT", text, "about"), ("AFTER", "x")])
    found = FitsHeader(header.tostring(endcard=False, padding=False).encode())
    assert found.get("TEXT") == text.strip()
    assert (found.get("BEFORE"), found.get("AFTER"), found.get("TEX")) == ("1", "x", None)
    assert found.only(["TEXT"]).to_astropy() == fits.Header([("TEXT", text, "about")])


@pytest.mark.parametrize(
    ("card", "value", "number"),
    [
        ("KEY     = 'O''Neill'           / a name", "O'Neill", None),
        ("KEY     = ''''", "'", None),
        ("KEY     = ''", "", None),
        ("KEY     = 'never closed / at all", "never closed / at all", None),
        ("KEY     = '12.5'", "12.5", 12.5),
        ("KEY     =                12 / comment", "12", 12.0),
        ("KEY     = 1.5D3", "1.5D3", 1500.0),
        ("KEY     =                    / undefined", "", None),
        ("KEY     =10.0", "10.0", 10.0),
        ("KEY     = nan", "nan", None),
        ("KEY     = T", "T", None),
        ("KEY     = 'Nébuleuse'", "Nébuleuse", None),
        ("KEY       10.0", None, None),
        ("OTHER   = 'KEY     = 1'", None, None),
    ],
)
def test_values(card: str, value: str | None, number: float | None) -> None:
    header = header_of("FIRST   = 1", card)
    assert header.get("KEY") == value
    assert header.number("KEY") == number
    assert ("KEY" in header) == (value is not None)


def test_a_string_goes_on_where_it_says_so_and_no_farther() -> None:
    header = header_of(
        "A       = 'one&'", "CONTINUE  ' two&'", "CONTINUE  'three' / end", "CONTINUE  'four'", "B       = 2"
    )
    assert header.get("A") == "one twothree"
    assert header_of("A       = 'one&'", "B       = 2").get("A") == "one&"


def test_the_first_of_two_cards_counts() -> None:
    assert header_of("A       = 1", "A       = 2")["A"] == "1"
    with pytest.raises(KeyError):
        header_of("A       = 1")["B"]


def test_a_structural_number_in_quotes_is_told_from_one_without() -> None:
    assert header_of("BITPIX  = '16'").written("BITPIX") == "'16'"
    assert header_of("BITPIX  = 16 / bits").written("BITPIX") == "16"


def test_a_header_of_many_blocks_ends_at_its_end_card() -> None:
    cards = ["SIMPLE  = T", *(f"COMMENT END     {i}" for i in range(500)), "LAST    = 'END'", "END"]
    text = "".join(card.ljust(80) for card in cards)
    raw = text.ljust(-(-len(text) // 2880) * 2880).encode() + b"pixels"
    header = read_header(lambda offset, count: raw[offset : offset + count], len(raw), "a.fits")
    assert header.data_offset == len(raw) - 6
    assert header["LAST"] == "END"
    with pytest.raises(FrameReadError, match="without an END card"):
        read_header(lambda offset, count: raw[: 80 * 400][offset : offset + count], 32000, "a.fits")


def test_every_path_reads_the_same_name(tmp_path: Path) -> None:
    """A quote in a string is written twice; four readers disagreed on what that means."""
    name = "O'Neill's & Barnard's long name of a nebula, longer than what one card of eighty holds"
    for index in range(3):
        header = fits.Header([("OBJECT", name), ("FILTER", "H'a"), ("BAYERPAT", "R'G"), ("EXPTIME", 2.0)])
        pixels = np.full((12, 16), index, np.float32)
        fits.PrimaryHDU(pixels, header).writeto(tmp_path / f"{index}.fits")
    paths = sorted(tmp_path.iterdir())
    assert read_first_header(paths[0])["OBJECT"] == name
    assert read_head(paths[0]).get("OBJECT") == name
    assert probe_frame(paths[0]).observing.object == name
    assert inspect_frame(paths[0]).facts.filter == "H'a"
    assert inspect_frame(paths[0]).cards.to_astropy()["OBJECT"] == name
    assert "(R'G)" in recognize(paths).why
    result = stack(paths)
    assert {record.observing.object for record in result.frames if record.observing} == {name}
    master = write_master(tmp_path / "master.fits", result)
    assert read_first_header(master)["OBJECT"] == name
    assert read_master(master).header["OBJECT"] == name
    assert read_head(master).observing.object == name
