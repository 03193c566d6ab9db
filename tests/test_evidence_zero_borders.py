"""Borders of exact zeros in registered frames: said, and left out on request; zeros that mean something are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from zemosaic_stack_core.command_line import main
from zemosaic_stack_core.frames.borders import zero_border_line
from zemosaic_stack_core.frames.group import open_frames
from zemosaic_stack_core.frames.pixel_rows import FilePool
from zemosaic_stack_core.master.replay import replay_master

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
