"""Frames whose headers say nothing: the stars at the center of three of them say whether they are aligned."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from zemosaic_stack_core import read_master, stack
from zemosaic_stack_core.command_line import main
from zemosaic_stack_core.frames.pixel_rows import FilePool
from zemosaic_stack_core.prepare.headers.recognize import Recognized, recognize
from zemosaic_stack_core.prepare.stars.recognize import recognize_by_stars
from zemosaic_stack_core.synthetic.raw_night import RawNight

STILL = RawNight(n_frames=4, shape=(140, 180), n_stars=220, turn=0.0, shift=0.0, cosmic_rays=4)
MOVED = replace(STILL, shift=9.0)
EMPTY = replace(STILL, n_stars=0)

Write = Callable[[RawNight], list[Path]]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write lights as floating-point numbers without a card that says anything."""

    def written(night: RawNight) -> list[Path]:
        folder = tmp_path / "frames"
        folder.mkdir()
        paths = [folder / f"{index}.fits" for index in range(night.n_frames)]
        for index, path in enumerate(paths):
            fits.PrimaryHDU(night.light(index).astype(np.float32)).writeto(path)
        return paths

    return written


def looked(paths: list[Path]) -> Recognized:
    found = recognize(paths)
    assert found.is_open
    with FilePool() as files:
        return recognize_by_stars(found, paths, files)


def test_aligned_frames_are_said_to_be(write: Write) -> None:
    found = looked(write(STILL))
    assert not found.is_raw
    assert found.line.startswith("the frames are aligned: ")
    assert float(found.line.split()[-2]) < 0.3


@pytest.mark.parametrize(
    "night",
    [
        MOVED,
        replace(STILL, shift=1.8, seed=4),
        replace(STILL, shift=40.0),
        replace(STILL, turn=1.5),
        replace(STILL, flip=True, shift=3.0),
    ],
)
def test_frames_that_moved_are_raw(write: Write, night: RawNight) -> None:
    found = looked(write(night))
    assert found.is_raw
    assert found.why.startswith("the stars of 0.fits and ")
    assert not found.line


def test_too_few_stars_tell_nothing(write: Write) -> None:
    found = looked(write(EMPTY))
    assert not found.is_raw
    assert "can't be told: 0 stars are in the middle of 0.fits and 2.fits" in found.line


def test_two_fields_tell_nothing(write: Write) -> None:
    paths = write(STILL)
    fits.PrimaryHDU(replace(STILL, seed=8).light(0).astype(np.float32)).writeto(paths[-1], overwrite=True)
    found = looked(paths)
    assert not found.is_raw
    assert "bright objects are at one place in the middle of 0.fits and 3.fits" in found.line


def test_missing_samples_and_colors_do_no_harm(write: Write) -> None:
    for path in write(MOVED):
        pixels = fits.getdata(path)
        pixels[:20] = np.nan
        fits.PrimaryHDU(np.stack([pixels] * 3)).writeto(path, overwrite=True)
        paths = sorted(path.parent.iterdir())
    assert looked(paths).is_raw


@pytest.mark.parametrize("pixels", [np.full((140, 180), 3.0), np.full((140, 180), np.nan), np.ones((8, 9))])
def test_frames_without_anything_tell_nothing(tmp_path: Path, pixels: np.ndarray) -> None:
    paths = [tmp_path / "a.fits", tmp_path / "b.fits"]
    for path in paths:
        fits.PrimaryHDU(pixels).writeto(path)
    assert "0 stars are in the middle of a.fits and b.fits" in looked(paths).line


def test_what_headers_say_is_not_asked_again(write: Write) -> None:
    paths = write(MOVED)
    sure = Recognized(False, "all frames have the same WCS")
    with FilePool() as files:
        assert recognize_by_stars(sure, paths, files) is sure
    assert not recognize(paths[:1]).is_open


def test_frames_that_differ_in_shape_or_are_cut_off_are_left_to_the_stack(write: Write) -> None:
    paths = write(MOVED)
    fits.PrimaryHDU(np.zeros((50, 60), np.float32)).writeto(paths[-1], overwrite=True)
    assert not looked(paths).line
    paths[-1].write_bytes(paths[0].read_bytes()[:4000])
    assert not looked(paths).line


def run(*arguments: object) -> int:
    return main([*map(str, arguments), "--backend", "cpu", "--workers", "1", "--no-picture"])


def test_the_command_registers_what_moved(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = write(MOVED)
    assert run("stack", *paths, "-o", tmp_path / "m.fits") == 0
    said = capsys.readouterr().err
    assert "raw frames: the stars of 0.fits and 2.fits lie " in said
    assert "the lights are registered first (--align none stacks them as they are)" in said
    assert "SHIFTX" in fits.getdata(tmp_path / "m.fits", "FRAMES").columns.names


def test_the_command_leaves_aligned_frames_alone(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = write(STILL)
    assert run("stack", *paths, "-o", tmp_path / "a.fits") == 0
    assert "the frames are aligned: " in capsys.readouterr().err
    assert run("stack", *paths, "-o", tmp_path / "b.fits", "--align", "none") == 0
    assert "aligned" not in capsys.readouterr().err
    assert (tmp_path / "a.fits").read_bytes() == (tmp_path / "b.fits").read_bytes()
    options = read_master(tmp_path / "a.fits").result.options
    assert np.array_equal(fits.getdata(tmp_path / "a.fits"), stack(paths, options=options).image)


def test_a_run_registers_what_moved_and_knows_it_again(write: Write, tmp_path: Path) -> None:
    moved = write(MOVED)
    plan = tmp_path / "plan"
    shutil.copytree(moved[0].parent, plan / "moved")
    seen = []
    for _ in range(2):
        assert main(["run", str(plan), "-o", str(tmp_path / "out"), "--workers", "1", "-q"]) == 0
        seen += json.loads((tmp_path / "out" / "report.json").read_text())["tiles"]
    assert seen[0]["details"]["prepared"]["alignment"] == "stars"
    assert [tile["outcome"] for tile in seen] == ["done_cpu", "reused"]
