"""Masters of bias, dark and flat, and what they do to a light with bias, dark current and response."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.frames.pixel_rows import FilePool
from zemosaic_stack_core.prepare.frame_set import FrameSet, inspect_frames
from zemosaic_stack_core.prepare.headers.raw_frame import RawFrame, inspect_frame
from zemosaic_stack_core.prepare.options import PrepareOptions
from zemosaic_stack_core.prepare.sensor.calibrate import Masters, calibrate, make_masters

SHAPE = (16, 20)
BIAS = 300.0
CURRENT = np.random.default_rng(1).uniform(0, 4, SHAPE)  # per second
RESPONSE = np.random.default_rng(2).uniform(0.7, 1.3, SHAPE)
RESPONSE[4, 5] = 0.0  # a dead pixel
LIGHT = np.random.default_rng(3).uniform(1000, 2000, SHAPE)


def read_pixels(frame: RawFrame) -> np.ndarray:
    with FilePool() as files:
        return frame.read_pixels(files)


def save(path: Path, pixels: np.ndarray, kind: str, seconds: float, **cards: object) -> RawFrame:
    header = fits.Header([("IMAGETYP", kind), ("EXPTIME", seconds), *cards.items()])
    fits.PrimaryHDU(pixels.astype(np.float32), header).writeto(path)
    return inspect_frame(path)


@pytest.fixture
def frames(tmp_path: Path) -> dict[str, list[RawFrame]]:
    """Noiseless frames: 3 biases, 3 darks of 30 s with a cosmic ray each, 3 flats of 2 s, a light of 30 s."""
    darks = []
    for index in range(5):
        pixels = BIAS + 30 * CURRENT
        pixels[index, 3] += 5000.0
        darks.append(save(tmp_path / f"d{index}.fits", pixels, "Dark Frame", 30.0))
    return {
        "bias": [save(tmp_path / f"b{i}.fits", np.full(SHAPE, BIAS), "Bias", 0.0) for i in range(3)],
        "dark": darks,
        "flat": [
            save(tmp_path / f"f{i}.fits", BIAS + (20000 + 3000 * i) * RESPONSE, "Flat Field", 2.0) for i in range(3)
        ],
        "light": [save(tmp_path / "l.fits", BIAS + 30 * CURRENT + LIGHT * RESPONSE, "Light", 30.0)],
    }


def masters_of(frames: dict[str, list[RawFrame]], folder: Path, *kinds: str, scale_darks: bool = False) -> Masters:
    chosen = [frame for kind in kinds for frame in frames[kind]]
    return make_masters(chosen, folder, lights=frames["light"], options=PrepareOptions(scale_darks=scale_darks))


def test_a_light_is_what_it_was(frames: dict[str, list[RawFrame]], tmp_path: Path) -> None:
    light = frames["light"][0]
    found = calibrate(light, read_pixels(light), masters_of(frames, tmp_path, "bias", "dark", "flat"))
    scale = float(np.median(RESPONSE))
    assert np.isnan(found[4, 5])
    found[4, 5] = LIGHT[4, 5] * scale
    assert np.allclose(found, LIGHT * scale, rtol=2e-4)


def test_without_flats_the_response_stays(frames: dict[str, list[RawFrame]], tmp_path: Path) -> None:
    light = frames["light"][0]
    pixels = read_pixels(light)
    assert np.allclose(calibrate(light, pixels, masters_of(frames, tmp_path, "dark")), LIGHT * RESPONSE, atol=0.05)
    only_bias = calibrate(light, pixels, masters_of(frames, tmp_path, "bias"))
    assert np.allclose(only_bias, LIGHT * RESPONSE + 30 * CURRENT, atol=0.05)
    assert calibrate(light, pixels, Masters()) is pixels


def test_a_dark_is_scaled_by_the_times(frames: dict[str, list[RawFrame]], tmp_path: Path) -> None:
    light = save(tmp_path / "l60.fits", BIAS + 60 * CURRENT + LIGHT, "Light", 60.0)
    frames["light"] = [light]
    scaled = masters_of(frames, tmp_path, "bias", "dark", scale_darks=True)
    assert np.allclose(calibrate(light, read_pixels(light), scaled), LIGHT, atol=0.1)
    with pytest.raises(InvalidInputError, match=r"l60\.fits: exposure 60 s, darks of 30 s; expected .*--scale-darks"):
        masters_of(frames, tmp_path, "bias", "dark")
    with pytest.raises(InvalidInputError, match="no biases; expected biases to scale darks"):
        masters_of(frames, tmp_path, "dark", scale_darks=True)


def test_the_dark_of_the_lights_time_is_taken(frames: dict[str, list[RawFrame]], tmp_path: Path) -> None:
    frames["dark"] += [save(tmp_path / f"e{i}.fits", np.full(SHAPE, 900.0), "Dark", 10.0) for i in range(3)]
    masters = masters_of(frames, tmp_path, "dark")
    found = masters.dark_for(frames["light"][0])
    assert found is not None
    assert found[1] == 1.0
    assert found[0].group.path is not None
    assert np.median(np.load(found[0].group.path)) < 500
    assert masters.lines == ("left out, as they belong to no frame: 3 dark frames (e0.fits, ...): exposure 10 s",)
    assert dict(masters.counts) == {"bias": 0, "dark": 8, "flat": 0}


def test_each_color_of_a_flat_has_its_own_level(frames: dict[str, list[RawFrame]], tmp_path: Path) -> None:
    tint = np.ones(SHAPE)
    tint[::2, ::2], tint[1::2, 1::2] = 0.5, 2.0
    flats = [save(tmp_path / f"c{i}.fits", 20000 * RESPONSE * tint, "Flat", 2.0) for i in range(3)]
    made = make_masters(flats, tmp_path, lights=frames["light"], pattern="RGGB").flats[0].path
    assert made is not None
    flat = np.load(made)
    for row in (0, 1):
        for column in (0, 1):
            assert np.median(flat[row::2, column::2]) == pytest.approx(1.0, abs=1e-3)


def test_flats_go_by_filter(frames: dict[str, list[RawFrame]], tmp_path: Path) -> None:
    flats = [save(tmp_path / f"{name}.fits", 9000 * RESPONSE, "Flat", 2.0, FILTER=name) for name in ("Ha", "OIII")]
    light = save(tmp_path / "h.fits", LIGHT, "Light", 30.0, FILTER="H a")
    masters = make_masters(flats, tmp_path, lights=[light])
    found = masters.flat_for(light)
    assert found is not None
    assert found.group.facts.filter == "Ha"
    assert masters.lines == ("left out, as they belong to no frame: 1 flat frames (OIII.fits, ...): filter OIII",)
    with pytest.raises(
        InvalidInputError, match=r"l\.fits: filter not named; 1 flat .* have filter Ha and .* OIII; exp"
    ):
        make_masters(flats, tmp_path, lights=frames["light"])


def test_a_dark_flat_is_refused(frames: dict[str, list[RawFrame]], tmp_path: Path) -> None:
    frames["flat"] = [save(tmp_path / "dim.fits", np.full(SHAPE, BIAS - 5), "Flat", 2.0)]
    with pytest.raises(InvalidInputError, match=r"dim\.fits: median -5 after bias or dark; expected light in a flat"):
        masters_of(frames, tmp_path, "bias", "flat")
    assert {path.suffix for path in tmp_path.iterdir()} == {".fits", ".npy"}  # the master bias, and nothing half made
    assert len(list(tmp_path.glob("*.npy"))) == 1


def test_masters_are_found_again(frames: dict[str, list[RawFrame]], tmp_path: Path) -> None:
    first = masters_of(frames, tmp_path, "bias", "dark", "flat")
    times = [path.stat().st_mtime_ns for path in tmp_path.glob("master-*.npy")]
    assert masters_of(frames, tmp_path, "bias", "dark", "flat") == first
    assert [path.stat().st_mtime_ns for path in tmp_path.glob("master-*.npy")] == times


@pytest.mark.parametrize(
    ("cards", "name", "kind"),
    [
        ({"IMAGETYP": "Light Frame"}, "dark_1.fits", "light"),
        ({"IMAGETYP": "Dark Frame"}, "a.fits", "dark"),
        ({"IMAGETYP": "Master Dark"}, "a.fits", "dark"),
        ({"IMAGETYP": "FLAT"}, "a.fits", "flat"),
        ({"IMAGETYP": "DARKFLAT"}, "a.fits", "dark flat"),
        ({"FRAME": "Bias"}, "a.fits", "bias"),
        ({"OBSTYPE": "zero"}, "a.fits", "bias"),
        ({}, "bias-003.fits", "bias"),
        ({}, "darkest_night.fits", "light"),
        ({}, "a.fits", "light"),
    ],
)
def test_kinds_are_told_apart(tmp_path: Path, cards: dict[str, str], name: str, kind: str) -> None:
    fits.PrimaryHDU(np.zeros((4, 4), np.uint16), fits.Header(list(cards.items()))).writeto(tmp_path / name)
    assert inspect_frame(tmp_path / name).kind == kind


def test_frames_of_two_shapes_are_refused(tmp_path: Path) -> None:
    small = save(tmp_path / "s.fits", np.zeros((4, 6)), "Light", 1.0)
    large = save(tmp_path / "t.fits", np.zeros((5, 6)), "Light", 1.0)
    with pytest.raises(InvalidInputError, match=r"t\.fits is 5 x 6 with 1 channels; expected 4 x 6 .* as in .*s\.fits"):
        _ = FrameSet([small, large], []).shape


def test_calibration_frames_alone_are_refused(frames: dict[str, list[RawFrame]]) -> None:
    with pytest.raises(InvalidInputError, match="3 files, none of them a light"):
        inspect_frames([frame.path for frame in frames["bias"]], PrepareOptions())


def test_calibration_frames_that_are_named_are_what_they_are_named(frames: dict[str, list[RawFrame]]) -> None:
    light = frames["light"][0]
    found = inspect_frames([light.path], PrepareOptions(darks=(light.path,)))
    assert [frame.kind for frame in found.lights] == ["light"]
    assert [frame.kind for frame in found.calibration] == ["dark"]
