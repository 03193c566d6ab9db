"""A raw night with a known truth, prepared from end to end; and what must be refused."""

from __future__ import annotations

import hashlib
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from zemosaic_stack_core import StackOptions, stack
from zemosaic_stack_core.errors import FrameReadError, InvalidInputError
from zemosaic_stack_core.prepare import PreparedFrame, PreparedGroup, PrepareOptions, prepare_frames
from zemosaic_stack_core.prepare.report import describe_frame, frames_columns, group_facts, history_lines
from zemosaic_stack_core.prepare.stars.detect import detect_stars
from zemosaic_stack_core.synthetic.raw_night import RawNight

NIGHT = RawNight(n_frames=5, shape=(180, 220), n_stars=240, turn=3.0, flip=True, fwhm=(2.4, 3.0), cosmic_rays=6)
COLOR = replace(NIGHT, n_frames=4, pattern="GRBG", shift=8.0, seed=2)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Five mono lights, half of them after a meridian flip, with darks, biases and flats."""
    return NIGHT.write(tmp_path_factory.mktemp("raw"), darks=5, biases=3, flats=3)


@pytest.fixture(scope="module")
def prepared(raw: list[Path], tmp_path_factory: pytest.TempPathFactory) -> PreparedGroup:
    return prepare_frames(raw, cache_folder=tmp_path_factory.mktemp("cache") / "c", workers=1)


def digests(group: PreparedGroup) -> list[str]:
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in group.paths]


def test_transforms_are_those_of_the_night(prepared: PreparedGroup) -> None:
    assert prepared.alignment == "stars"
    assert prepared.why == "5 of 5 frames have no WCS"
    assert prepared.masters == (("bias", 3), ("dark", 5), ("flat", 3))
    assert not prepared.dropped
    index = [frame.name for frame in prepared.frames].index(prepared.reference)
    back = NIGHT.transform(index).inverse()
    for number, frame in enumerate(prepared.frames):
        true = NIGHT.transform(number).then(back)
        assert frame.shift == pytest.approx(true.shift_at(109.5, 89.5), abs=0.05)
        assert (frame.rotation - true.rotation + 180) % 360 - 180 == pytest.approx(0, abs=0.02)
        assert frame.scale == pytest.approx(1, abs=1e-4)
        assert frame.matched >= 20
        assert frame.fwhm == pytest.approx(NIGHT.width(number), abs=0.6)
    assert 0.9 * len(NIGHT.hot_pixels[0]) <= prepared.hot_pixels <= 1.1 * len(NIGHT.hot_pixels[0])


def test_the_master_has_the_stars_where_and_as_bright_as_they_are(prepared: PreparedGroup) -> None:
    image = stack(prepared.paths, options=StackOptions(normalization="additive", rejection="mad_clip")).image
    assert image.shape == (prepared.canvas.rows, prepared.canvas.columns)
    index = [frame.name for frame in prepared.frames].index(prepared.reference)
    places, fluxes = NIGHT.stars
    places = NIGHT.transform(index).inverse().moved(prepared.canvas.x, prepared.canvas.y)(places)
    stars = detect_stars(image)
    distance = np.hypot(stars.x[:, np.newaxis] - places[:, 0], stars.y[:, np.newaxis] - places[:, 1])
    partner, near = distance.argmin(axis=1), distance.min(axis=1)
    good = (near < 1.5) & (fluxes[partner, 1] > 5000) & (fluxes[partner, 1] < 80000)
    assert good.sum() > 20
    assert np.median(near[good]) < 0.1
    through = np.mean([NIGHT.transparency(i) for i in range(5)]) * np.median(NIGHT.flat)
    ratio = np.median(stars.flux[good] / (fluxes[partner, 1][good] * through))
    assert ratio == pytest.approx(0.97, abs=0.05)  # what the aperture holds


def test_outside_a_frame_is_nan_and_inside_is_not(prepared: PreparedGroup) -> None:
    for number, frame in enumerate(prepared.frames):
        assert frame.aligned is not None
        image = fits.getdata(frame.aligned)
        index = [f.name for f in prepared.frames].index(prepared.reference)
        to_canvas = NIGHT.transform(number).then(NIGHT.transform(index).inverse())
        y, x = np.mgrid[: image.shape[0], : image.shape[1]]
        points = np.column_stack([x.ravel() - prepared.canvas.x, y.ravel() - prepared.canvas.y])
        there = to_canvas.inverse()(points)
        inside = np.all((there > 1) & (there < (218, 178)), axis=1).reshape(image.shape)
        outside = np.any((there < -1) | (there > (220, 180)), axis=1).reshape(image.shape)
        assert np.isnan(image[outside]).all()
        assert np.isnan(image[inside]).mean() < 0.02  # hot pixels
        assert not (image == 0).any()


@pytest.mark.slow
def test_workers_and_a_second_run_change_no_bit(raw: list[Path], prepared: PreparedGroup, tmp_path: Path) -> None:
    two = prepare_frames(raw, cache_folder=tmp_path / "two", workers=2)
    assert digests(two) == digests(prepared)
    lines: list[str] = []
    again = prepare_frames(raw, cache_folder=tmp_path / "two", workers=1, report=lines.append)
    assert again.from_cache
    assert again.paths == two.paths
    assert any("5 aligned frames found in the cache" in line for line in lines)
    assert [frame.shift for frame in again.frames] == [frame.shift for frame in two.frames]


def test_a_frame_that_changed_is_aligned_again(raw: list[Path], tmp_path: Path) -> None:
    lights = [shutil.copy(path, tmp_path / path.name) for path in raw[:3]]
    first = prepare_frames(lights, cache_folder=tmp_path / "c", workers=1)
    with fits.open(lights[1], mode="update") as hdus:
        hdus[0].data[5, 5] += 1
    second = prepare_frames(lights, cache_folder=tmp_path / "c", workers=1)
    assert not second.from_cache
    assert first.paths[0] == second.paths[0]
    assert first.paths[1] != second.paths[1]


def test_a_moved_folder_is_recognized(raw: list[Path], tmp_path: Path) -> None:
    lights = [shutil.copy(path, tmp_path / path.name) for path in raw[:3]]
    prepare_frames(lights, cache_folder=tmp_path / "c", workers=1)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    assert prepare_frames([shutil.move(p, moved) for p in lights], cache_folder=tmp_path / "c", workers=1).from_cache


def test_colors_become_one_canvas_of_three(tmp_path: Path) -> None:
    group = prepare_frames(COLOR.write(tmp_path / "raw"), cache_folder=tmp_path / "c", workers=1)
    assert group.is_color
    planes = fits.getdata(group.paths[0])
    assert planes.shape == (3, group.canvas.rows, group.canvas.columns)
    sky = np.nanmedian(planes, axis=(1, 2)) - 300 - 20
    assert sky / sky[1] == pytest.approx([0.8, 1.0, 0.7], abs=0.03)


def test_drizzled_colors_are_measured_samples(tmp_path: Path) -> None:
    paths = COLOR.write(tmp_path / "raw")
    group = prepare_frames(paths, PrepareOptions(cfa="drizzle"), cache_folder=tmp_path / "c", workers=1)
    planes = fits.getdata(group.paths[0])
    there = np.isfinite(planes).mean(axis=(1, 2))
    assert there[1] > 1.5 * there[0]
    assert there[0] < 0.5
    image = stack(group.paths, options=StackOptions(normalization="additive")).image
    assert np.isfinite(image[40:-40, 40:-40, 1]).mean() > 0.95


def test_frames_that_lie_on_each_other_are_left_alone(tmp_path: Path) -> None:
    still = replace(NIGHT, n_frames=3, shift=0.0, turn=0.0, flip=False)
    paths = still.write(tmp_path / "raw")
    lines: list[str] = []
    group = prepare_frames(paths, cache_folder=tmp_path / "c", workers=1, report=lines.append)
    assert group.paths == tuple(paths)
    assert group.alignment == "none"
    assert "nothing moves by 0.1 px or more: the frames are stacked as they are" in lines


def test_the_best_are_kept_and_the_widest_dropped(raw: list[Path], tmp_path: Path) -> None:
    lights = raw[:5]
    best = prepare_frames(lights, PrepareOptions(keep_best=0.6), cache_folder=tmp_path / "c", workers=1)
    assert len(best.kept) == 3
    assert {frame.dropped for frame in best.dropped} == {"not among the best 60 %"}
    assert min(frame.quality for frame in best.kept) >= max(frame.quality for frame in best.dropped)
    widest = sorted(frame.fwhm for frame in best.frames)
    limit = (widest[-1] + widest[-2]) / 2
    sharp = prepare_frames(lights, PrepareOptions(max_fwhm=limit), cache_folder=tmp_path / "c", workers=1)
    assert [frame.dropped for frame in sharp.dropped] == [f"FWHM {widest[-1]:.2f} px; at most {limit:g} was asked for"]
    with pytest.raises(InvalidInputError, match=r"the sharpest has a FWHM of \d\.\d\d px; expected at most 0\.5, as"):
        prepare_frames(lights, PrepareOptions(max_fwhm=0.5), cache_folder=tmp_path / "c", workers=1)


def test_frames_are_ranked_by_the_stars_they_show() -> None:
    frame = PreparedFrame(name="a", path=Path("a"), fwhm=3.0, noise=10.0, flux_ratio=1.0)
    assert frame.quality > replace(frame, fwhm=4.0).quality > 0
    assert frame.quality > replace(frame, flux_ratio=2.0).quality  # clouds: half the light of the reference's
    assert replace(frame, flux_ratio=math.nan).quality == frame.quality
    assert replace(frame, fwhm=math.nan).quality == 0.0
    assert replace(frame, noise=0.0).quality == 0.0


def test_a_mosaic_is_placed_by_its_wcs(tmp_path: Path) -> None:
    still = replace(NIGHT, n_frames=3, shift=40.0, turn=0.0, flip=False, seed=5)
    paths = still.write(tmp_path / "raw")
    for index, path in enumerate(paths):
        x, y = still.transform(index).shift_at(0, 0)
        cards = {
            "CTYPE1": "RA---TAN",
            "CTYPE2": "DEC--TAN",
            "CRVAL1": 10.0,
            "CRVAL2": 20.0,
            "CRPIX1": 100.0 - x,
            "CRPIX2": 90.0 - y,
            "CDELT1": -3e-4,
            "CDELT2": 3e-4,
        }
        with fits.open(path, mode="update") as hdus:
            hdus[0].header.update(cards)
    group = prepare_frames(paths, PrepareOptions(reference=paths[0]), cache_folder=tmp_path / "c", workers=1)
    assert group.alignment == "wcs"
    assert "stars of 3 confirm it to 0.0" in group.why
    assert group.levels in ("plane", "feather")  # the night's sky tilts
    first, second = (fits.getdata(path) for path in group.paths[:2])
    assert abs(float(np.nanmedian(second - first))) < 1.0  # of a sky of 400
    assert [frame.flux_ratio for frame in group.frames] == pytest.approx(
        [still.transparency(0) / still.transparency(index) for index in range(3)], rel=0.01
    )
    for index, frame in enumerate(group.frames):
        assert frame.shift == pytest.approx(still.transform(index).shift_at(0, 0), abs=1e-3)
    header = fits.getheader(group.paths[1])
    assert header["CRPIX1"] == pytest.approx(100.0 + group.canvas.x)
    assert header["CRPIX2"] == pytest.approx(90.0 + group.canvas.y)


def test_a_wcs_that_the_stars_contradict_is_not_taken(tmp_path: Path) -> None:
    paths = replace(NIGHT, n_frames=3, turn=0.0, flip=False).write(tmp_path / "raw")
    for index, path in enumerate(paths):
        cards = {
            "CTYPE1": "RA---TAN",
            "CTYPE2": "DEC--TAN",
            "CRVAL1": 10.0,
            "CRVAL2": 20.0,
            "CRPIX1": 100.0 + 0.1 * index,
            "CRPIX2": 90.0,
            "CDELT1": -3e-4,
            "CDELT2": 3e-4,
        }
        with fits.open(path, mode="update") as hdus:
            hdus[0].header.update(cards)
    group = prepare_frames(paths, cache_folder=tmp_path / "c", workers=1)
    assert group.alignment == "stars"
    assert re.fullmatch(r"the WCS of .*light_000[012]\.fits is \d+\.\d px off", group.why)


def test_calibration_alone(raw: list[Path], tmp_path: Path) -> None:
    options = PrepareOptions(align="none")
    group = prepare_frames(raw, options, cache_folder=tmp_path / "c", workers=1)
    assert group.alignment == "none"
    assert [fits.getdata(path).shape for path in group.paths] == [NIGHT.shape] * 5
    sky = np.nanmedian(fits.getdata(group.paths[0])) / np.median(NIGHT.flat)
    assert sky == pytest.approx(NIGHT.sky, rel=0.08)


def test_a_frame_of_clouds_is_dropped_with_its_reason(raw: list[Path], tmp_path: Path) -> None:
    blank = tmp_path / "blank.fits"
    header = fits.Header([("IMAGETYP", "Light Frame"), ("EXPTIME", 30.0)])
    sky = np.random.default_rng(3).normal(900, 20, NIGHT.shape)
    fits.PrimaryHDU(sky.astype(np.uint16), header).writeto(blank)
    group = prepare_frames([*raw[:4], blank], cache_folder=tmp_path / "c", workers=1)
    assert [frame.dropped for frame in group.dropped] == ["0 stars found; expected at least 6"]
    assert describe_frame(group.frames[-1]).endswith("DROPPED: 0 stars found; expected at least 6")
    assert history_lines(group)[-1] == "dropped blank.fits: 0 stars found; expected at least 6"


def test_a_frame_that_clouds_dimmed_is_kept_and_named(tmp_path: Path) -> None:
    night = replace(NIGHT, n_frames=4, clouds=(2,), faintest=8000.0, brightest=400000.0)
    lines: list[str] = []
    group = prepare_frames(night.write(tmp_path / "raw"), cache_folder=tmp_path / "c", workers=1, report=lines.append)
    assert len(group.kept) == 4
    (line,) = [line for line in lines if line.startswith("light lost")]
    found = re.search(r"against the clearest frame: light_0002\.fits (\d+) %; --keep-best 75% leaves out", line)
    assert found is not None
    assert 80 < int(found[1]) < 95
    assert group_facts(group)["light_lost"] == line
    assert [frame.transparency > 0.7 for frame in group.frames] == [True, True, False, True]
    assert max(frame.transparency for frame in group.frames) == 1.0
    assert "transparency 1" in describe_frame(group.frames[2])
    assert frames_columns(group, [str(path) for path in group.paths])["TRANSPAR"][1][2] < 0.2


def test_what_was_found_can_be_told(prepared: PreparedGroup) -> None:
    line = describe_frame(prepared.frames[1])
    assert "matched to" in line
    assert "FWHM" in line
    facts = group_facts(prepared)
    assert facts["frames"][0]["stars"] == prepared.frames[0].stars
    assert not any(isinstance(v, float) and not math.isfinite(v) for f in facts["frames"] for v in f.values())
    columns = frames_columns(prepared, [str(path) for path in prepared.paths])
    assert columns["RAWFILE"][1] == [frame.name for frame in prepared.frames]
    assert columns["SHIFTX"] == ("pix", [frame.shift[0] for frame in prepared.frames])


def refused(paths: list[Path], folder: Path, match: str, **options: object) -> None:
    wanted = PrepareOptions(**options)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match=match) as caught:
        prepare_frames(paths, wanted, cache_folder=folder / "new", workers=1)
    assert "\n" not in str(caught.value)
    assert not (folder / "new").exists()


def test_noise_is_refused(tmp_path: Path) -> None:
    dark = replace(NIGHT, n_frames=3, n_stars=0, hot_fraction=0.0)
    refused(dark.write(tmp_path / "raw"), tmp_path, "no frame of 3 has 6 stars")


def test_hot_pixels_alone_are_refused(tmp_path: Path) -> None:
    hot = replace(NIGHT, n_frames=4, n_stars=0, hot_fraction=0.01)
    refused(hot.write(tmp_path / "raw"), tmp_path, "no frame of 4 has 6 stars")


def test_two_fields_are_refused(raw: list[Path], tmp_path: Path) -> None:
    other = replace(NIGHT, n_frames=3, seed=77).write(tmp_path / "other")
    refused([*raw[:3], *other], tmp_path, r"two different fields: 3 frames agree with .* and 3 with")


def test_trees_are_refused(tmp_path: Path) -> None:
    sky = replace(NIGHT, shift=0.0, turn=40.0, flip=False)
    trees = replace(NIGHT, n_frames=1, n_stars=500, sky=0.0, seed=9, brightest=400000.0, fwhm=(3.5, 3.5)).signal(0)
    paths = sky.write(tmp_path / "raw")
    random = np.random.default_rng(4)
    for path in paths:
        with fits.open(path, mode="update") as hdus:
            hdus[0].data = (hdus[0].data + random.poisson(trees)).clip(0, 65535).astype(np.uint16)
    refused(paths, tmp_path, r"stay at their places on the sensor while \d+ ")


def test_a_pattern_that_must_be_asked_about(tmp_path: Path) -> None:
    paths = COLOR.write(tmp_path / "raw")
    for path in paths:
        with fits.open(path, mode="update") as hdus:
            del hdus[0].header["BAYERPAT"]
    refused(paths, tmp_path, r"no BAYERPAT, but the pixels look like a Bayer mosaic .*expected --bayer-pattern")
    with fits.open(paths[1], mode="update") as hdus:
        hdus[0].header["BAYERPAT"] = "RGGB"
    refused(paths, tmp_path, r"has the Bayer pattern None and .* RGGB; expected one, or --bayer-pattern")


def test_a_cache_that_is_too_small_is_told_before_the_work(raw: list[Path], tmp_path: Path) -> None:
    refused(raw[:3], tmp_path, r"the aligned frames need .* kB; expected at most 9 B, the cache limit", cache_limit=9)


def test_a_reference_must_be_a_light(raw: list[Path], tmp_path: Path) -> None:
    refused(raw[:3], tmp_path, "absent.fits: not among the 3 lights", reference="absent.fits")
    named = PrepareOptions(reference=raw[1])
    assert prepare_frames(raw[:3], named, cache_folder=tmp_path / "c", workers=1).reference == str(raw[1])


def test_wcs_must_be_there(raw: list[Path], tmp_path: Path) -> None:
    refused(raw[:3], tmp_path, "no celestial WCS; expected one in every frame for --align wcs", align="wcs")


def test_a_file_that_is_no_frame_is_named(raw: list[Path], tmp_path: Path) -> None:
    (tmp_path / "bad.fits").write_bytes(b"SIMPLE")
    with pytest.raises(FrameReadError, match=r"bad\.fits"):
        prepare_frames([*raw[:2], tmp_path / "bad.fits"], cache_folder=tmp_path / "c", workers=1)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("align", "magic"),
        ("cfa", "x"),
        ("kernel", "x"),
        ("hot_pixels", "x"),
        ("levels", "x"),
        ("bayer_pattern", "RGBW"),
        ("keep_best", 0.0),
        ("max_fwhm", -1.0),
        ("min_stars", 3),
        ("max_residual", math.nan),
        ("cache_limit", 0),
        ("drizzle_pixel_fraction", 5.0),
        ("darks", "dark.fits"),
    ],
)
def test_options_are_checked(option: str, value: object) -> None:
    with pytest.raises(InvalidInputError, match=rf"{option} is .*; expected"):
        PrepareOptions(**{option: value})  # type: ignore[arg-type]
