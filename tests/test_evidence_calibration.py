"""Which calibration frames belong to which lights, and what kind a frame is: claims compared, never assumed."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.frames.pixel_rows import FilePool
from zemosaic_stack_core.prepare.frame_set import inspect_frames
from zemosaic_stack_core.prepare.headers.kinds import kind_by_path, kind_in, kind_in_name
from zemosaic_stack_core.prepare.headers.raw_frame import RawFrame, inspect_frame
from zemosaic_stack_core.prepare.headers.recognize import recognize
from zemosaic_stack_core.prepare.options import PrepareOptions
from zemosaic_stack_core.prepare.sensor.calibrate import Masters, calibrate, level_lines, make_masters

SHAPE = (12, 16)
LIGHT = {"IMAGETYP": "Light", "EXPTIME": 60.0, "GAIN": 100, "OFFSET": 50, "CCD-TEMP": -10.0, "INSTRUME": "ASI 533"}


def save(path: Path, level: float, **cards: object) -> Path:
    path.parent.mkdir(exist_ok=True)
    header = fits.Header([(key.replace("__", "-"), value) for key, value in cards.items() if value is not None])
    fits.PrimaryHDU(np.full(SHAPE, level, np.float32), header).writeto(path)
    return path


def light_and(tmp_path: Path, groups: list[tuple[float, dict[str, object]]], light: dict[str, object]) -> list[Path]:
    """Return a light, and two darks of each level and difference from the light's cards."""
    paths = [save(tmp_path / "l.fits", 1000.0, **light)]
    for number, (level, cards) in enumerate(groups):
        dark = LIGHT | {"IMAGETYP": "Dark"} | cards
        paths += [save(tmp_path / f"d{number}_{i}.fits", level, **dark) for i in range(2)]
    return paths


def calibrated(paths: list[Path], folder: Path, options: PrepareOptions | None = None) -> tuple[float, Masters]:
    """Return the level of the first light after calibration, and what it was calibrated with."""
    chosen = options or PrepareOptions()
    frames = inspect_frames(paths, chosen)
    masters = make_masters(frames.calibration, folder, lights=frames.lights, options=chosen)
    with FilePool() as files:
        light = frames.lights[0]
        return float(np.median(calibrate(light, light.read_pixels(files), masters))), masters


DIFFERENCES = [
    pytest.param({"GAIN": 300}, id="gain"),
    pytest.param({"OFFSET": 30}, id="offset"),
    pytest.param({"EXPTIME": 120.0}, id="exposure"),
    pytest.param({"XBINNING": 2, "YBINNING": 2}, id="binning"),
    pytest.param({"READOUTM": "Fast"}, id="readout"),
    pytest.param({"INSTRUME": "QHY 268"}, id="camera"),
]
KNOWN = {"XBINNING": 1, "YBINNING": 1, "READOUTM": "Low Noise"}


@pytest.mark.parametrize("other", DIFFERENCES)
def test_of_a_library_the_matching_darks_are_used(tmp_path: Path, other: dict[str, object]) -> None:
    paths = light_and(tmp_path, [(700.0, KNOWN | other), (300.0, KNOWN)], LIGHT | KNOWN)
    level, masters = calibrated(paths, tmp_path)
    assert level == pytest.approx(700.0)
    assert len(masters.lines) == 1
    assert re.match(r"left out, as they belong to no frame: 2 dark frames \(d0_0\.fits, \.\.\.\): ", masters.lines[0])


@pytest.mark.parametrize("other", DIFFERENCES)
def test_darks_that_contradict_are_refused(tmp_path: Path, other: dict[str, object]) -> None:
    paths = light_and(tmp_path, [(700.0, KNOWN | other)], LIGHT | KNOWN)
    option = "--scale-darks" if "EXPTIME" in other else "--trust-calibration"
    with pytest.raises(InvalidInputError, match=rf"l\.fits: .*; expected darks of .*{option}"):
        calibrated(paths, tmp_path)
    level, masters = calibrated(paths, tmp_path, PrepareOptions(trust_calibration=True))
    assert level == pytest.approx(300.0)
    assert "because you trust them" in masters.lines[0]


@pytest.mark.parametrize("name", ["GAIN", "OFFSET", "EXPTIME", "INSTRUME"])
def test_what_is_not_named_is_said_or_refused(tmp_path: Path, name: str) -> None:
    light = {key: value for key, value in LIGHT.items() if key != name}
    paths = light_and(tmp_path, [(300.0, {})], light)
    level, masters = calibrated(paths, tmp_path)
    assert level == pytest.approx(700.0)
    assert "can't be compared" in masters.lines[0]
    (tmp_path / "two").mkdir()
    other = {"GAIN": 300, "OFFSET": 9, "EXPTIME": 9.0, "INSTRUME": "QHY"}[name]
    paths = light_and(tmp_path / "two", [(300.0, {}), (700.0, {name: other})], light)
    with pytest.raises(InvalidInputError, match=r"not named; .* expected frames that name it, or --trust-calibration"):
        calibrated(paths, tmp_path)


def test_temperature_is_chosen_or_said(tmp_path: Path) -> None:
    paths = light_and(tmp_path, [(700.0, {"CCD-TEMP": 5.0}), (300.0, {"CCD-TEMP": -9.1})], LIGHT)
    level, masters = calibrated(paths, tmp_path)
    assert level == pytest.approx(700.0)
    level, masters = calibrated(paths[:3], tmp_path)
    assert level == pytest.approx(300.0)
    assert masters.lines == ("2 dark frames (d0_0.fits, ...): temperature 5 C, lights of other temperatures",)


def test_biases_of_two_gains_are_told_apart(tmp_path: Path) -> None:
    paths = [save(tmp_path / "l.fits", 1000.0, **LIGHT)]
    for gain, level in ((300, 900.0), (100, 200.0)):
        cards = LIGHT | {"IMAGETYP": "Bias", "GAIN": gain, "EXPTIME": 0.0}
        paths += [save(tmp_path / f"b{gain}_{i}.fits", level, **cards) for i in range(2)]
    assert calibrated(paths, tmp_path)[0] == pytest.approx(800.0)


@pytest.mark.parametrize("kind", ["DARKFLAT", "Dark Flat", "FlatDark", "Flat Dark Frame", "dark-flat"])
def test_dark_flats_are_the_darks_of_flats(tmp_path: Path, kind: str) -> None:
    y = np.linspace(0.6, 1.4, SHAPE[0])[:, np.newaxis]
    paths = [save(tmp_path / "d.fits", 500.0, IMAGETYP="Dark", EXPTIME=60.0)]
    for name, exposure, pixels in (("Light", 60.0, 500 + 1000 * y), ("Flat", 2.0, 500 + 20000 * y)):
        paths.append(tmp_path / f"{name}.fits")
        image = np.broadcast_to(pixels, SHAPE).astype(np.float32)
        fits.PrimaryHDU(image, fits.Header([("IMAGETYP", name), ("EXPTIME", exposure)])).writeto(paths[-1])
    paths.append(save(tmp_path / "x.fits", 500.0, IMAGETYP=kind, EXPTIME=2.0))
    frames = inspect_frames(paths, PrepareOptions())
    masters = make_masters(frames.calibration, tmp_path, lights=frames.lights)
    assert dict(masters.counts) == {"bias": 0, "dark": 2, "flat": 1}
    with FilePool() as files:
        found = calibrate(frames.lights[0], frames.lights[0].read_pixels(files), masters)
    assert np.ptp(found) < 0.01 * np.median(found)


@pytest.mark.parametrize(
    ("card", "seconds"),
    [
        ({"EXPTIME": "300,0"}, 300.0),
        ({"EXPTIME": "300 s"}, 300.0),
        ({"EXPOSURE": "5 min"}, 300.0),
        ({"EXP_TIME": 300}, 300.0),
        ({"EXPTIME": "500 ms"}, 0.5),
        ({"EXPTIME": "1/50"}, 0.02),
        ({"EXPTIME": "3.0D2"}, 300.0),
        ({"EXPTIME": "long"}, None),
    ],
)
def test_exposure_times_in_any_spelling(tmp_path: Path, card: dict[str, object], seconds: float | None) -> None:
    assert inspect_frame(save(tmp_path / "a.fits", 1.0, **card)).exposure == seconds


def test_lights_of_several_filters_are_not_one_master(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"{name}.fits", 1.0, **LIGHT, FILTER=name) for name in ("Ha", "OIII", "ha")]
    with pytest.raises(
        InvalidInputError, match=r"lights of several filters: Ha \(2 frames\), OIII \(1 frames\); .*--f"
    ):
        inspect_frames(paths, PrepareOptions())
    assert len(inspect_frames(paths, PrepareOptions(filter="H-a")).lights) == 2
    with pytest.raises(InvalidInputError, match="no light of filter SII"):
        inspect_frames(paths, PrepareOptions(filter="SII"))


def test_levels_that_do_not_fit_are_said(tmp_path: Path) -> None:
    def lines(light: float, dark: float, flat: np.ndarray) -> list[str]:
        folder = tmp_path / f"{light}-{dark}-{flat.max()}"
        paths = [save(folder / "l.fits", light, **LIGHT), save(folder / "d.fits", dark, **LIGHT | {"IMAGETYP": "Dark"})]
        paths.append(folder / "f.fits")
        fits.PrimaryHDU(flat.astype(np.uint16), fits.Header([("IMAGETYP", "Flat"), ("INSTRUME", "asi533")])).writeto(
            paths[-1]
        )
        frames = inspect_frames(paths, PrepareOptions())
        masters = make_masters(frames.calibration, folder, lights=frames.lights)
        with FilePool() as files:
            return [*level_lines(masters, frames.lights[0], files), *masters.lines]

    slope = np.arange(SHAPE[0] * SHAPE[1]).reshape(SHAPE) + 20000.0
    assert lines(1000.0, 300.0, slope) == []
    assert "brighter" in lines(1000.0, 1300.0, slope)[0]
    assert "saturated" in lines(1000.0, 300.0, np.minimum(slope, 20050))[0]
    with pytest.raises(InvalidInputError, match="expected one unit"):
        lines(1000.0, 0.01, slope)


def test_binned_mosaics_and_two_cameras_are_said(tmp_path: Path) -> None:
    binned = LIGHT | {"XBINNING": 2, "YBINNING": 2, "BAYERPAT": "RGGB"}
    paths = [save(tmp_path / "a.fits", 1.0, **binned), save(tmp_path / "b.fits", 1.0, **LIGHT | {"INSTRUME": "QHY"})]
    said = inspect_frames(paths, PrepareOptions()).lines
    assert "binned 2 x 2 and Bayer pattern RGGB" in said[0]
    assert "2 cameras" in said[1]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("M42_LIGHT_Ha_300.00s_gain_100_offset_50_0001.fits", "light"),
        ("Dark_Shark_Nebula_0001.fits", ""),
        ("Flat_Rock_Panorama_01.fits", ""),
        ("Zero_Dark_Thirty.fits", ""),
        ("dark_300s_gain100_-10C_001.fits", "dark"),
        ("2024-01-05_23-11-02_DARK_-10.00_300.00s_0003.fits", "dark"),
        ("MasterFlat_Ha_2x2.fits", "flat"),
        ("bias-003.fits", "bias"),
        ("offset_001.fits", "bias"),
        ("gain_100_offset_50_0001.fits", ""),
        ("M31_flat_L_0001.fit", "flat"),
        ("DarkFlat_2s_0001.fits", "dark flat"),
        ("flat_dark_01.fits", "dark flat"),
        ("dark_bias_01.fits", ""),
        ("twilight_01.fits", ""),
        ("darkest_night.fits", ""),
    ],
)
def test_words_of_names_at_their_places(name: str, kind: str) -> None:
    assert kind_in_name(name) == kind


@pytest.mark.parametrize(
    ("folder", "name", "kind"),
    [
        ("darks", "img_0001.fits", "dark"),
        ("02 Flats", "img_0001.fits", "flat"),
        ("BIASES", "x.fits", "bias"),
        ("Flat-Darks", "x.fits", "dark flat"),
        ("brutes", "x.fits", "light"),
        ("PLU", "x.fits", "flat"),
        ("offset", "M42_LIGHT_01.fits", "light"),
        ("lights", "Dark_Horse_01.fits", "light"),
        ("Dark Horse", "x.fits", ""),
        ("darks", "light_01.fits", "light"),
    ],
)
def test_folders_count_where_headers_are_silent(tmp_path: Path, folder: str, name: str, kind: str) -> None:
    assert kind_by_path(tmp_path / folder / name) == kind
    path = save(tmp_path / folder / name, 1.0, IMAGETYP="Light Frame")
    assert inspect_frame(path).kind == "light"


@pytest.mark.parametrize("text", ["Twilight Flat", "SKYFLAT", "Flat Field", "flat", "Master Flat", "Dome-Flat"])
def test_a_flat_by_any_name(text: str) -> None:
    assert kind_in(text) == "flat"


def kinds_of(paths: list[Path], **options: tuple[Path, ...]) -> list[str]:
    frames = inspect_frames(paths, PrepareOptions(**options))
    found: list[RawFrame] = [*frames.lights, *frames.calibration]
    return [frame.kind for frame in found]


def test_no_kind_against_the_other_frames(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"flat_{i}.fits", 1.0, **({"IMAGETYP": "Light"} if i else {})) for i in range(3)]
    assert kinds_of(paths) == ["light"] * 3


def test_what_is_named_is_that(tmp_path: Path) -> None:
    paths = [save(tmp_path / f"dark_{i}.fits", 1.0) for i in range(4)]
    with pytest.raises(InvalidInputError, match=r"none of them a light; expected at least one \(--lights"):
        kinds_of(paths)
    assert kinds_of(paths, lights=tuple(paths[:3])) == ["light"] * 3 + ["dark"]
    assert kinds_of(paths, lights=tuple(paths[:1]), dark_flats=tuple(paths[1:])) == ["light"] + ["dark flat"] * 3


def test_silent_headers_in_folders_of_kinds_are_raw(tmp_path: Path) -> None:
    paths = [save(tmp_path / folder / "a.fits", 1.0) for folder in ("lights", "darks", "flats")]
    assert recognize(paths).is_raw
    assert not recognize(paths[1:]).is_raw
