"""Frames of wider numbers than float32 whose noise it can't carry are warned of, by their own noise."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from zemosaic_stack_core import stack

SHAPE = (40, 50)
WIDE = [(1e8, 3, "f8"), (1e8, 3, "i4"), (1e9, 0.5, "f8")]


def make(level: float, noise: float, dtype: str = "f8") -> Any:
    rng = np.random.default_rng(2)
    return [(level + noise * rng.standard_normal(SHAPE)).astype(dtype) for _ in range(3)]


def files_of(frames: Any, folder: Path) -> list[Path]:
    paths = [folder / f"{index}.fits" for index in range(len(frames))]
    for path, frame in zip(paths, frames, strict=True):
        fits.writeto(path, frame)
    return paths


@pytest.mark.parametrize("is_file", [False, True], ids=["array", "file"])
@pytest.mark.parametrize(("level", "noise", "dtype"), [(1e8, 3, "f8"), (1e8, 3, "i4"), (1e9, 0.5, "f8")])
def test_lost_noise_is_warned_of(level, noise, dtype, is_file, tmp_path):
    frames = make(level, noise, dtype)
    with pytest.warns(UserWarning, match=r"float32 has steps of .* too coarse for a noise of .*; subtract one number"):
        stack(files_of(frames, tmp_path) if is_file else frames)


@pytest.mark.parametrize("is_file", [False, True], ids=["array", "file"])
@pytest.mark.parametrize(
    ("level", "noise", "dtype"),
    [
        (1e8, 30, "f8"),
        (60000, 3, "i4"),
        (1e-17, 1e-19, "f8"),
        (1e8, 0, "f8"),
        (0, 1, "f8"),
        (1e8, 3, "f4"),
        (1000, 3, "u2"),
    ],
)
def test_what_float32_carries_is_not(level, noise, dtype, is_file, tmp_path):
    frames = make(level, noise, dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stack(files_of(frames, tmp_path) if is_file else frames)


def test_a_level_subtracted_first_keeps_the_noise():
    frames = make(1e8, 3)
    truth = np.mean(frames, axis=0)
    kept = stack([frame - 1e8 for frame in frames]).image + np.float64(1e8)
    with pytest.warns(UserWarning, match="too coarse"):
        lost = stack(frames).image
    assert np.abs(kept - truth).max() < 1e-5
    assert np.abs(lost - truth).max() > 1


def test_dask_frames_are_looked_at_too():
    da = pytest.importorskip("dask.array", reason="dask is an extra")
    with pytest.warns(UserWarning, match="too coarse"):
        stack([da.from_array(frame, chunks=9) for frame in make(1e8, 3)])
