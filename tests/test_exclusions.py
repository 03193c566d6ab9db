"""Lists of frames to leave out: what a line names, and what is said of one that names nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from zemosaic_stack_core.errors import FrameReadError, InvalidInputError
from zemosaic_stack_core.frames.exclusions import read_exclusions, without_excluded
from zemosaic_stack_core.phase3.run_plan import TileSpec, leave_out

FRAMES = [Path("/night/a/1.fits"), Path("/night/a/2.fits"), Path("/night/b/1.fits"), Path("/night/b/# 3.fits")]


def listed(folder: Path, text: str | bytes) -> Path:
    path = folder / "list.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("", set()),
        ("# nothing but a comment\n\n", set()),
        ("2.fits", {1}),
        ("1.fits\n", {0, 2}),
        ("b/1.fits", {2}),
        ("./b/1.fits\r\n  2.fits  \r\n", {1, 2}),
        ("/night/a/1.fits", {0}),
        ("b/# 3.fits", {3}),
        (b"\xef\xbb\xbf2.fits", {1}),
    ],
)
def test_a_line_is_a_path_or_the_end_of_one(tmp_path: Path, text: str | bytes, places: set[int]) -> None:
    assert read_exclusions(listed(tmp_path, text)).find(FRAMES) == places


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "2.fits\n\n3.fits",
            "line 3, '3.fits': no frame is called that; expected the path or the name of one of",
        ),
        ("/other/a/1.fits", "line 1, '/other/a/1.fits'"),
        ("its\n.fits\n2", "line 1, 'its', and 2 more of its lines"),
    ],
)
def test_a_line_that_names_no_frame_is_an_error(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InvalidInputError) as error:
        read_exclusions(listed(tmp_path, text)).find(FRAMES)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_list_that_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(FrameReadError, match="expected a readable list of frames to leave out"):
        read_exclusions(tmp_path / "none.txt")
    with pytest.raises(FrameReadError, match="not UTF-8 text"):
        read_exclusions(listed(tmp_path, b"\xff\xfe1\x00"))


def test_a_frame_is_known_by_a_link_and_by_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "1.fits").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.chdir(tmp_path)
    frames = [Path("real/1.fits"), Path("real/2.fits")]
    assert read_exclusions(listed(tmp_path, f"{tmp_path}/link/1.fits")).find(frames) == {0}
    assert read_exclusions(listed(tmp_path, f"{tmp_path}/real/2.fits")).find(frames) == {1}


def test_something_must_stay(tmp_path: Path) -> None:
    exclusions = read_exclusions(listed(tmp_path, "2.fits"))
    assert without_excluded(FRAMES, exclusions) == ([FRAMES[0], *FRAMES[2:]], [FRAMES[1]])
    with pytest.raises(InvalidInputError, match=r"leaves out all 1 frames; expected some to stay"):
        without_excluded(FRAMES[1:2], exclusions)


def test_a_tile_that_loses_all_its_frames_says_so(tmp_path: Path) -> None:
    tiles = [
        TileSpec(tile_id=1, name="a", frames=tuple(FRAMES[:2])),
        TileSpec(tile_id=2, name="b", frames=tuple(FRAMES[2:])),
        TileSpec(tile_id=3, name="c", frames=(), problem="no frames"),
    ]
    path = listed(tmp_path, "a/2.fits\nb/1.fits\nb/# 3.fits")
    first, second, third = leave_out(tiles, read_exclusions(path))
    assert (first.frames, first.excluded, first.problem) == ((FRAMES[0],), ("/night/a/2.fits",), "")
    assert (second.frames, len(second.excluded)) == ((), 2)
    assert second.problem == f"{path} leaves out all its frames"
    assert third == tiles[2]
