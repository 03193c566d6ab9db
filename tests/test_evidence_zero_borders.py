"""Borders of exact zeros in registered frames: said, and left out on request; zeros that mean something are not."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from zemosaic_stack_core.command_line import main
from zemosaic_stack_core.frames.borders import zero_border_line
from zemosaic_stack_core.frames.group import open_frames
from zemosaic_stack_core.frames.pixel_rows import FilePool
from zemosaic_stack_core.master.replay import replay_master
from zemosaic_stack_core.synthetic.raw_night import RawNight

SHAPE = (60, 80)
Y, X = np.mgrid[: SHAPE[0], : SHAPE[1]]
# Where the frame number i has nothing.
BORDERS = {
    "left": lambda i: 4 * i > X,
    "right": lambda i: 80 - 4 * i <= X,
    "top": lambda i: 3 * i > Y,
    "bottom": lambda i: 60 - 3 * i <= Y,
    "corner": lambda i: (4 * i > X) | (3 * i > Y),
    "turned": lambda i: 2 * i > X - 0.2 * Y,
}


def write(folder: Path, border: str | None, *, level: float = 700.0, color: bool = False) -> list[Path]:
    random = np.random.default_rng(1)
    paths = []
    for index in range(5):
        image = np.round(random.normal(level, 8, (3, *SHAPE) if color else SHAPE)).clip(0).astype(np.uint16)
        if border is not None:
            image[..., BORDERS[border](index)] = 0
        paths.append(folder / f"r_{index}.fits")
        fits.PrimaryHDU(image).writeto(paths[-1])
    return paths


def line(paths: list[Path]) -> str:
    with FilePool() as files:
        return zero_border_line(open_frames(paths).sources, files)


@pytest.mark.parametrize("border", list(BORDERS))
@pytest.mark.parametrize("color", [False, True])
def test_borders_are_said(tmp_path: Path, border: str, color: bool) -> None:
    assert "--zeros-missing leaves them out" in line(write(tmp_path, border, color=color))


@pytest.mark.parametrize("level", [0.0, 3.0, 15.0, 700.0])
def test_zeros_all_over_a_clipped_frame_are_no_border(tmp_path: Path, level: float) -> None:
    assert line(write(tmp_path, None, level=level)) == ""


def test_one_frame_with_a_border_says_nothing(tmp_path: Path) -> None:
    paths = write(tmp_path, "left")
    assert line([paths[4]]) == ""


@pytest.mark.parametrize("border", list(BORDERS))
def test_they_are_left_out_on_request(tmp_path: Path, border: str, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(path) for path in write(tmp_path, border)]
    command = ["stack", *paths, "-o", str(tmp_path / "m.fits"), "--no-picture", "--align", "none"]
    assert main([*command, "--zeros-missing"]) == 0
    assert "--zeros-missing" not in capsys.readouterr().err
    assert np.nanmin(fits.getdata(tmp_path / "m.fits")) > 650
    assert replay_master(tmp_path / "m.fits").is_same
    assert main([*command, "--overwrite"]) == 0
    assert "--zeros-missing" in capsys.readouterr().err


def packed(folder: Path, paths: list[Path], kind: str) -> list[Path]:
    """Write the same frames in another way."""
    found = []
    for path in paths:
        image = fits.getdata(path)
        target = folder / f"{path.stem}{kind}"
        if kind == ".npy":
            np.save(target, image)
        elif kind == ".fz":
            fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(image)]).writeto(target)
        elif kind == ".float.fits":
            fits.PrimaryHDU(image.astype(np.float32)).writeto(target)
        elif kind == ".signed.fits":
            fits.PrimaryHDU(image.astype(np.int16)).writeto(target)
        else:
            target.write_bytes(gzip.compress(path.read_bytes()))
        found.append(target)
    return found


KINDS = [".npy", ".fz", ".fits.gz", ".float.fits", ".signed.fits"]


@pytest.mark.parametrize("kind", KINDS)
def test_borders_in_files_of_any_kind(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "fits").mkdir()
    folder = tmp_path / "night" / "tile"
    folder.mkdir(parents=True)
    packed(folder, write(tmp_path / "fits", "corner"), kind)
    stacked = ["stack", str(folder), "-o", str(tmp_path / "m.fits"), "--no-picture", "--align", "none", "--overwrite"]
    night = ["run", str(tmp_path / "night"), "-o", str(tmp_path / "out"), "--backend", "cpu", "--align", "none"]
    for command, master in ((stacked, tmp_path / "m.fits"), (night, tmp_path / "out" / "master_tile_001.fits")):
        assert main(command) == 0
        said = capsys.readouterr().err
        assert sum("borders of exact zeros" in line for line in said.splitlines()) == 1
        darkest = np.nanmin(fits.getdata(master))
        assert main([*command, "--zeros-missing"]) == 0
        assert "borders of exact zeros" not in capsys.readouterr().err
        assert np.nanmin(fits.getdata(master)) > 650 > darkest
        assert fits.getheader(master)["ZSC_ZERO"]
        assert replay_master(master).is_same


@pytest.mark.parametrize("pattern", [None, "RGGB"])
def test_borders_of_frames_that_are_registered_again(
    tmp_path: Path, pattern: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    night = RawNight(n_frames=4, shape=(160, 200), n_stars=160, shift=3.0, turn=0.0, pattern=pattern)
    paths = night.write(tmp_path / "night" / "tile")
    for index, path in enumerate(paths):
        with fits.open(path, mode="update") as hdus:
            hdus[0].data[:, : 6 + 4 * index] = 0
    darkest = []
    for options in ((), ("--zeros-missing",)):
        command = ["stack", str(tmp_path / "night" / "tile"), "-o", str(tmp_path / "m.fits"), "--no-picture"]
        assert main([*command, "--align", "stars", "--overwrite", "--workers", "1", *options]) == 0
        assert ("borders of exact zeros" in capsys.readouterr().err) == (not options)
        image = fits.getdata(tmp_path / "m.fits").reshape(-1, *fits.getdata(tmp_path / "m.fits").shape[-2:])[0]
        columns = [np.median(column[np.isfinite(column)]) for column in image.T if np.isfinite(column).any()]
        darkest.append(min(columns) / np.nanmedian(image))
    assert darkest[0] < 0.7 < 0.9 < darkest[1]
