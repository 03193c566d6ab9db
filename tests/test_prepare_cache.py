"""The cache: named by content, bounded, and of no harm where its files are damaged."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.prepare.cache import PrepareCache, boxes_file, save_array, save_stars, signature
from zemosaic_stack_core.prepare.canvas.geometry import Canvas
from zemosaic_stack_core.prepare.headers.raw_frame import RawFrame
from zemosaic_stack_core.prepare.records import PreparedFrame, PreparedGroup
from zemosaic_stack_core.prepare.stars.detect import StarList


def put(cache: PrepareCache, name: str, size: int, age: int) -> Path:
    path = cache.aligned(f"{name:0<20}", f"{name}.fits")
    path.write_bytes(bytes(size))
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


def frame(path: Path) -> RawFrame:
    return RawFrame(path=path, name=str(path), rows=1, columns=1, channels=1)


def test_signatures_tell_parts_apart() -> None:
    assert signature("a", 1) == signature("a", 1)
    assert len({signature("a", 1), signature("a", 2), signature("a", "1"), signature(("a", 1))}) == 4


def test_names_of_frames_are_in_the_names_of_files(tmp_path: Path) -> None:
    cache = PrepareCache(tmp_path)
    assert cache.aligned("0123456789abcdef", "M 31_001.fit.gz").name == "aligned-M_31_001-0123456789ab.fits"


def test_files_are_known_by_content_and_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = PrepareCache(tmp_path / "cache")
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).write_bytes(content)
    frames = [frame(tmp_path / name) for name in "abc"]
    first = [item.signature for item in cache.sign(frames)]
    assert first[0] == first[1] != first[2]
    with monkeypatch.context() as patch:
        patch.setattr("hashlib.file_digest", None)  # whoever reads again falls over it
        assert [item.signature for item in PrepareCache(tmp_path / "cache").sign(frames)] == first
    (tmp_path / "a").write_bytes(b"3")
    assert cache.sign(frames)[0].signature != first[0]


def test_the_oldest_go_first_and_what_is_wanted_stays(tmp_path: Path) -> None:
    cache = PrepareCache(tmp_path, limit=250)
    old, older, oldest = put(cache, "b", 100, 1), put(cache, "c", 100, 2), put(cache, "d", 100, 3)
    new = put(cache, "a", 100, 0)
    cache.shrink([new, oldest])
    assert sorted(tmp_path.iterdir()) == sorted([new, oldest])
    assert not old.exists()
    assert not older.exists()


def test_what_killed_runs_left_goes_with_time(tmp_path: Path) -> None:
    old, new = tmp_path / ".zsc-1.tmp", tmp_path / ".zsc-2.tmp"
    for path in (old, new):
        path.write_bytes(b"part of a frame")
    os.utime(old, (1e9, 1e9))
    PrepareCache(tmp_path).shrink([])
    assert not old.exists()
    assert new.exists()


def test_too_much_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="need 3 MB; expected at most 2 MB, the cache limit"):
        PrepareCache(tmp_path, limit=2_000_000).check_room(3_000_000, [])
    with pytest.raises(
        InvalidInputError,
        match="B are free; expected nine tenths of the free space to be enough",
    ):
        PrepareCache(tmp_path).check_room(10**18, [])
    PrepareCache(tmp_path, limit=2_000_000).check_room(1_000_000, [])


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    cache = PrepareCache(tmp_path)
    stars = StarList(
        x=np.array([1.5, 2.5]),
        y=np.array([3.0, 4.0]),
        flux=np.array([9.0, 8.0]),
        error=np.array([1.0, 1.0]),
        fwhm=2.5,
        roundness=0.9,
        sky=100.0,
        noise=5.0,
        rows=10,
        columns=20,
        ladder=np.array([[4.0, 9.0], [3.0, np.nan]]),
    )
    save_stars(cache.stars_file("k"), stars)
    found = cache.load_stars("k")
    assert found is not None
    assert np.array_equal(found.points, stars.points)
    assert found.ladder is not None
    assert np.array_equal(found.ladder, stars.ladder, equal_nan=True)
    assert (found.fwhm, found.rows, found.columns) == (2.5, 10, 20)
    boxes = np.full((2, 3, 1), 7.5, np.float32)
    save_array(boxes_file(tmp_path / "k.fits"), boxes)
    assert np.array_equal(cache.load_boxes(tmp_path / "k.fits"), boxes)
    aligned = put(cache, "a", 10, 0)
    dropped = PreparedFrame(name="b", path=Path("b"), dropped="no stars")
    group = PreparedGroup(
        frames=(PreparedFrame(name="a", path=Path("a"), aligned=aligned, shift=(1.0, 2.0), stars=5), dropped),
        canvas=Canvas(rows=4, columns=5, x=1, y=2),
        alignment="stars",
        why="w",
        reference="a",
        is_color=False,
        hot_pixels=3,
        masters=(("dark", 2),),
    )
    cache.save_group("k", group)
    again = cache.load_group("k")
    assert again is not None
    assert again.from_cache
    assert again.canvas == group.canvas
    assert again.masters == group.masters
    assert again.frames[0] == group.frames[0] or again.frames[0].aligned == aligned
    assert again.frames[0].shift == (1.0, 2.0)
    assert np.isnan(again.frames[1].fwhm)
    aligned.unlink()
    assert cache.load_group("k") is None


@pytest.mark.parametrize("content", [b"", b"{}", b"\x00nonsense", b"PK\x03\x04 cut off"])
def test_a_damaged_cache_is_an_empty_one(tmp_path: Path, content: bytes) -> None:
    cache = PrepareCache(tmp_path)
    for name in ("stars-k.npz", "boxes-k.npy", "group-k.json", "inputs.json"):
        (tmp_path / name).write_bytes(content)
    assert cache.load_stars("k") is None
    assert cache.load_boxes(tmp_path / "k.fits") is None
    assert cache.load_group("k") is None
    (tmp_path / "a").write_bytes(b"1")
    assert len(cache.sign([frame(tmp_path / "a")])[0].digest) == 64
