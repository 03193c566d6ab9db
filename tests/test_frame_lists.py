"""Files, folders, patterns and list files on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from zemosaic_stack_core.errors import FrameReadError, InvalidInputError
from zemosaic_stack_core.frames.frame_lists import expand_frame_arguments


def touch(folder: Path, *names: str) -> None:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()


def names(*arguments: str | Path) -> list[str]:
    return [path.name for path in expand_frame_arguments([str(argument) for argument in arguments])]


def test_files_in_the_order_given_whether_they_exist_or_not(tmp_path: Path) -> None:
    assert names(tmp_path / "b.fits", tmp_path / "a.fits", tmp_path / "a.xyz") == ["b.fits", "a.fits", "a.xyz"]


def test_folder_in_natural_order_known_suffixes_only(tmp_path: Path) -> None:
    touch(tmp_path, "light_10.fits", "light_9.FIT", "Light_1.fits.gz", "light_02.fts", "light_2.npy", "x.fz")
    touch(tmp_path, "notes.txt", "master.png", "._light_3.fits", "archive.gz", "7.fits")
    touch(tmp_path / "sub.d", "light_0.fits")
    expected = ["7.fits", "Light_1.fits.gz", "light_02.fts", "light_2.npy", "light_9.FIT", "light_10.fits", "x.fz"]
    assert names(tmp_path) == expected
    assert names(tmp_path, tmp_path / "sub.d") == [*expected, "light_0.fits"]


def test_list_file(tmp_path: Path) -> None:
    text = "\ufeff# frames of the night\n\n  b c.fits  \nsub/ä.fits\r\n# end\n" + str(tmp_path / "z.fits")
    (tmp_path / "list.txt").write_text(text, encoding="utf-8")
    found = expand_frame_arguments([f"@{tmp_path / 'list.txt'}"])
    assert found == [tmp_path / "b c.fits", tmp_path / "sub" / "ä.fits", tmp_path / "z.fits"]


def test_pattern_that_no_shell_expanded(tmp_path: Path) -> None:
    touch(tmp_path, "a10.fits", "a9.fits", "b.fits", "[1]*.fits")
    assert names(tmp_path / "a*.fits") == ["a9.fits", "a10.fits"]
    assert names(tmp_path / "[1]*.fits") == ["[1]*.fits"]


def test_nothing_found(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("# nothing\n\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\xff")
    for argument, error, message in (
        (tmp_path, InvalidInputError, "no frames in it; expected files ending in .fit, .fits"),
        (f"@{tmp_path / 'list.txt'}", InvalidInputError, "no paths in this list; expected one a line"),
        (f"@{tmp_path / 'none.txt'}", FrameReadError, "No such file or directory; expected a readable list"),
        (f"@{tmp_path / 'binary'}", FrameReadError, "not UTF-8 text; expected one path a line"),
        (tmp_path / "q*.fits", InvalidInputError, "no file matches; expected at least one"),
    ):
        with pytest.raises(error, match=message):
            names(argument)
    with pytest.raises(InvalidInputError, match="no frames named; expected files, folders or @list files"):
        names()
