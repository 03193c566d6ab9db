"""FITS files with several images: which is stacked, what goes with it, and what is asked about or said."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData, InverseVariance, StdDevUncertainty, VarianceUncertainty

from zemosaic_stack_core import FrameReadError, InvalidInputError, StackOptions, stack
from zemosaic_stack_core.command_line import ExitCode, main
from zemosaic_stack_core.master.read import read_master
from zemosaic_stack_core.master.replay import replay_master
from zemosaic_stack_core.master.write import write_master

SHAPE, N = (9, 12), 4
PLAIN = StackOptions(rejection="none")
RNG = np.random.default_rng(3)
FRAMES = RNG.integers(100, 900, (N, *SHAPE)).astype(np.float32)
OTHER = FRAMES + 5000
VARIANCES = RNG.uniform(4, 90, FRAMES.shape).astype(np.float32)
BAD = (RNG.random(FRAMES.shape) < 0.2).astype(np.uint32)


def write(folder: Path, *makers: Any, suffix: str = "") -> list[Path]:
    """Write files of the HDUs that the makers make of the number of a frame."""
    paths = [folder / f"{number}.fits{suffix}" for number in range(N)]
    for number, path in enumerate(paths):
        fits.HDUList([fits.PrimaryHDU(), *(make(number) for make in makers)]).writeto(path)
    return paths


def image(cube: Any, name: str, version: int = 1) -> Any:
    return lambda number: fits.ImageHDU(cube[number], name=name, ver=version)


SCI, ERR, DQ = image(FRAMES, "SCI"), image(np.sqrt(VARIANCES), "ERR"), image(BAD * 4 + 1, "DQ")


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("uncertainty", [StdDevUncertainty, VarianceUncertainty, InverseVariance])
def test_files_of_ccddata_are_what_ccddata_is(uncertainty, suffix, tmp_path):
    of_kind = {StdDevUncertainty: np.sqrt, VarianceUncertainty: np.copy, InverseVariance: np.reciprocal}[uncertainty]
    held = [
        CCDData(frame, unit="adu", mask=bad > 0, uncertainty=uncertainty(of_kind(variance)))
        for frame, bad, variance in zip(FRAMES, BAD, VARIANCES, strict=True)
    ]
    paths = [tmp_path / f"{number}.fits{suffix}" for number in range(N)]
    for one, path in zip(held, paths, strict=True):
        one.write(path)
    found, expected = (stack(frames, options=PLAIN, maps="all") for frames in (paths, held))
    np.testing.assert_array_equal(found.image, expected.image)
    np.testing.assert_array_equal(found.variance, expected.variance)
    assert (found.coverage == N - np.sum(BAD, axis=0)).all()
    plain = stack(paths, options=PLAIN, mask_extension="", variance_extension="")
    np.testing.assert_array_equal(plain.image, stack(list(FRAMES), options=PLAIN).image)
    again = replay_master(write_master(tmp_path / f"master{suffix}.fits", found)) if not suffix else found
    np.testing.assert_array_equal(again.image if again is found else again.result.image, found.image)


def test_uncertainties_of_some_files_only_are_refused(tmp_path):
    CCDData(FRAMES[0], unit="adu", uncertainty=StdDevUncertainty(FRAMES[0])).write(tmp_path / "a.fits")
    CCDData(FRAMES[1], unit="adu").write(tmp_path / "b.fits")
    with pytest.raises(InvalidInputError, match=r"b\.fits has no variances and others have; expected them with all"):
        stack([tmp_path / "a.fits", tmp_path / "b.fits"])


def test_the_only_sci_is_the_image(tmp_path):
    paths = write(tmp_path, image(OTHER, "PREVIEW"), SCI)
    np.testing.assert_array_equal(stack(paths, options=PLAIN).image, stack(list(FRAMES), options=PLAIN).image)


def test_planes_are_no_images(tmp_path):
    paths = write(tmp_path, image(FRAMES, "FLUX"), image(OTHER, "WHT"), image(OTHER, "VAR_POISSON"))
    np.testing.assert_array_equal(stack(paths, options=PLAIN).image, stack(list(FRAMES), options=PLAIN).image)


@pytest.mark.parametrize("names", [("SCI", "SCI"), ("CCD", "CCD"), ("", "")], ids=str)
def test_several_images_are_asked_about(names, tmp_path):
    paths = write(tmp_path, image(OTHER, names[0], 1), image(FRAMES, names[1], 2))
    with pytest.raises(FrameReadError, match=r"2 images \(HDU 1 .*; 2 .*\); expected one, .*image_extension=.SCI,2"):
        stack(paths)
    for asked in ["2", *([f"{names[1]},2"] if names[1] else [])]:
        found = stack(paths, options=PLAIN, image_extension=asked)
        np.testing.assert_array_equal(found.image, stack(list(FRAMES), options=PLAIN).image)


def test_the_planes_of_the_second_image_are_its_own(tmp_path):
    makers = [image(OTHER, "SCI", 1), image(BAD * 0, "DQ", 1), image(FRAMES, "SCI", 2), image(BAD, "DQ", 2)]
    paths = write(tmp_path, *makers)
    found = stack(paths, options=PLAIN, image_extension="SCI,2", mask_extension="DQ", maps="all")
    expected = stack(list(FRAMES), options=PLAIN, masks=list(BAD > 0), maps="all")
    np.testing.assert_array_equal(found.image, expected.image)
    again = replay_master(write_master(tmp_path / "master.fits", found))
    np.testing.assert_array_equal(again.result.image, found.image)


def test_err_and_dq_that_nothing_uses_are_said(tmp_path):
    paths = write(tmp_path, SCI, ERR, DQ)
    says = r"0.fits: not used are planes beside its image, ERR, DQ; mask_extension='DQ' .* and variance_extension='ERR'"
    with pytest.warns(UserWarning, match=says):
        found = stack(paths, options=PLAIN)
    np.testing.assert_array_equal(found.image, stack(list(FRAMES), options=PLAIN).image)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stack(paths, mask_extension="", variance_extension="")
        used = stack(paths, options=PLAIN, mask_extension="DQ", dq_bits=4, variance_extension="ERR", maps="all")
    expected = stack(list(FRAMES), options=PLAIN, masks=list(BAD > 0), variances=VARIANCES, maps="all")
    np.testing.assert_array_equal(used.image, expected.image)
    np.testing.assert_allclose(used.variance, expected.variance, rtol=1e-5)


def test_our_masters_go_to_ccddata_and_come_back(tmp_path):
    result = stack(list(FRAMES), masks=list(BAD > 0), options=PLAIN, maps="all")
    path = write_master(tmp_path / "master.fits", result)
    ccd = CCDData.read(path, hdu_uncertainty="VARIANCE", unit="adu")
    assert isinstance(ccd.uncertainty, VarianceUncertainty)
    np.testing.assert_array_equal(ccd.uncertainty.array, result.variance)
    with pytest.warns(UserWarning, match="variance_extension='VARIANCE' would use them"):
        stack([path, path])
    back = stack([path, path], variance_extension="VARIANCE", options=PLAIN, maps="all")
    usable = np.isfinite(result.variance)
    np.testing.assert_allclose(back.variance[usable], result.variance[usable] / 2, rtol=1e-6)
    np.testing.assert_array_equal(np.isnan(back.image), ~usable)


def test_the_command_line_takes_an_image_extension(tmp_path):
    paths = write(tmp_path, image(OTHER, "SCI", 1), image(FRAMES, "SCI", 2))
    command = ["stack", *map(str, paths), "-o", str(tmp_path / "master.fits"), "--rejection", "none"]
    assert main(command) != ExitCode.DONE
    assert main([*command, "--image-extension", "SCI,2", "--align", "none"]) == ExitCode.DONE
    master = read_master(tmp_path / "master.fits").result
    np.testing.assert_array_equal(master.image, stack(list(FRAMES), options=PLAIN).image)


def test_the_command_line_says_what_is_not_used(tmp_path, capsys):
    paths = write(tmp_path, SCI, ERR)
    command = ["stack", *map(str, paths), "-o", str(tmp_path / "master.fits"), "--align", "none"]
    assert main(command) == ExitCode.DONE
    assert "0.fits: not used are planes beside its image, ERR; variance_extension='ERR'" in capsys.readouterr().err


def test_files_of_different_units_are_said(tmp_path):
    paths = [tmp_path / f"{unit}.fits" for unit in ("adu", "ADU", "electron")]
    for path in paths:
        fits.writeto(path, FRAMES[0], fits.Header({"BUNIT": path.stem}))
    stack(paths[:2])
    with pytest.raises(
        InvalidInputError, match=r"electron\.fits has the unit electron; expected adu as in .*adu\.fits, or one that"
    ):
        stack(paths)


def test_a_name_may_hold_its_extension(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path, image(OTHER, "SCI", 1), image(BAD * 0, "DQ", 1), image(FRAMES, "SCI", 2), image(BAD, "DQ", 2))
    found = stack([f"~/{number}.fits[SCI,2]" for number in range(N)], options=PLAIN, mask_extension="DQ")
    np.testing.assert_array_equal(found.image, stack(list(FRAMES), options=PLAIN, masks=list(BAD > 0)).image)
    (tmp_path / "a[1].fits[SCI]").write_bytes((tmp_path / "0.fits").read_bytes())
    stack([tmp_path / "a[1].fits[SCI]"], image_extension="SCI,1", mask_extension="")


def test_a_folder_or_a_pattern_names_its_frames(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "night").mkdir()
    write(tmp_path / "night", SCI)
    expected = stack(list(FRAMES), options=PLAIN).image
    for name in (tmp_path / "night", "~/night", f"{tmp_path}/night/*.fits"):
        np.testing.assert_array_equal(stack(name, options=PLAIN).image, expected)
    with pytest.raises(InvalidInputError, match="expected a sequence of frames, or the name of a folder, a pattern"):
        stack(tmp_path / "night" / "0.fits")


def test_a_master_of_named_extensions_is_made_again_from_them(tmp_path):
    makers = [image(OTHER, "SCI", 1), image(FRAMES, "SCI", 2)]
    paths = write(tmp_path, *makers)
    for path in paths:
        fits.setval(path, "FILTER", value="H", ext=("SCI", 2))
    master = write_master(tmp_path / "m.fits", stack([f"{path}[SCI,2]" for path in paths], options=PLAIN))
    assert fits.getval(master, "FILTER") == "H"
    np.testing.assert_array_equal(replay_master(master).result.image, stack(list(FRAMES), options=PLAIN).image)
    mixed = stack([f"{paths[0]}[SCI,1]", f"{paths[1]}[SCI,2]"], options=PLAIN)
    with pytest.raises(InvalidInputError, match="made with images of different extensions"):
        replay_master(write_master(tmp_path / "mixed.fits", mixed))
