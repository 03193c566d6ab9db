"""Units and places of frames: converted, refused or said; and what a stack says of its own."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.wcs import WCS

from zemosaic_stack_core import InvalidInputError, StackOptions, read_master, stack, write_master
from zemosaic_stack_core.command_line import main
from zemosaic_stack_core.master.replay import replay_master

PLAIN = StackOptions(rejection="none")
FRAMES = np.random.default_rng(3).uniform(50, 100, (3, 9, 12)).astype(np.float32)
EXPECTED = stack(list(FRAMES), options=PLAIN, variances=np.float32(4), maps="variance")


def write(folder: Any, units: Any, factors: Any = (1, 1, 1), **more: Any) -> list[Any]:
    """Write the frames, each in a unit, with their standard deviations."""
    paths = []
    for index, (frame, unit, factor) in enumerate(zip(FRAMES, units, factors, strict=True)):
        header = fits.Header({"BUNIT": unit} if unit else {})
        header.update({name: values[index] for name, values in more.items()})
        paths.append(folder / f"{index}.fits")
        hdus = [fits.PrimaryHDU(frame * factor, header), fits.ImageHDU(frame * 0 + 2 * factor, name="UNCERT")]
        fits.HDUList(hdus).writeto(paths[-1])
    return paths


def place(shift: float = 0.0, scale: float = 1e-3) -> WCS:
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ["RA---TAN", "DEC--TAN"], [0.001, 40.0], [6.0 + shift, 5.0]
    wcs.wcs.cdelt = [-scale, scale]
    wcs.wcs.set()
    return wcs


class TestUnits:
    """Of files and arrays alike."""

    def test_files_are_converted_with_their_uncertainties(self, tmp_path):
        paths = write(tmp_path, ("Jy", "mJy", "JY"), (1, 1000, 1))
        found = stack(paths, options=PLAIN, maps="variance")
        np.testing.assert_allclose(found.image, EXPECTED.image, rtol=1e-6)
        np.testing.assert_allclose(found.variance, EXPECTED.variance, rtol=1e-6)
        assert found.unit == "Jy"

    def test_files_of_integers_are_converted(self, tmp_path):
        for index, (unit, value) in enumerate((("km", 1), ("m", 3000), ("m", 5000))):
            fits.writeto(tmp_path / f"{index}.fits", np.full((4, 5), value, np.uint16), fits.Header({"BUNIT": unit}))
        assert (stack(sorted(tmp_path.glob("*.fits")), options=PLAIN).image == 3).all()

    @pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
    def test_a_file_and_arrays_together(self, tmp_path, order):
        path = write(tmp_path, ("Jy", "Jy", "Jy"))[0]
        deviation = StdDevUncertainty(np.full(FRAMES[0].shape, 2000.0, np.float32))
        held = [CCDData(frame * 1000, unit="mJy", uncertainty=deviation) for frame in FRAMES[1:]]
        frames = [path, *held][order]
        found = stack(frames, options=PLAIN, maps="variance")
        factor = 1 if frames[0] is path else 1000
        np.testing.assert_allclose(found.image, EXPECTED.image * factor, rtol=1e-6)
        np.testing.assert_allclose(found.variance, EXPECTED.variance * factor**2, rtol=1e-6)
        assert found.unit == ("Jy" if frames[0] is path else "mJy")

    def test_words_for_what_a_converter_gives_are_one_unit(self, tmp_path):
        np.testing.assert_array_equal(
            stack(write(tmp_path, ("ADU", "DN", "counts")), options=PLAIN).image, EXPECTED.image
        )

    @pytest.mark.parametrize("other", ["electron", "mag", "what is this", "Jy/beam"])
    def test_others_are_refused(self, tmp_path, other):
        with pytest.raises(
            InvalidInputError, match=rf"1\.fits has the unit {other}; expected Jy as in .*0\.fits, or one"
        ):
            stack(write(tmp_path, ("Jy", other, "Jy")))

    def test_an_array_without_a_unit_among_files_with_one_is_refused(self, tmp_path):
        path = write(tmp_path, ("Jy", "Jy", "Jy"))[0]
        with pytest.raises(InvalidInputError, match="frame 1 has the unit none; expected Jy"):
            stack([path, FRAMES[1]])

    def test_a_file_without_a_unit_is_said(self, tmp_path):
        with pytest.warns(UserWarning, match=r"2\.fits has no BUNIT; taken for 'Jy' as in .*0\.fits"):
            found = stack(write(tmp_path, ("Jy", "Jy", "")), options=PLAIN)
        np.testing.assert_array_equal(found.image, EXPECTED.image)

    def test_files_that_say_nothing_have_none(self, tmp_path):
        assert stack(write(tmp_path, ("", "", ""))).unit == ""

    def test_lazy_and_16_bit_arrays_are_converted_as_they_are_read(self):
        frames = [(FRAMES[0].astype(np.uint16)) * u.km, (FRAMES[0].astype(np.uint16).astype(float) * 1000) * u.m]
        np.testing.assert_array_equal(stack(frames, options=PLAIN).image, FRAMES[0].astype(np.uint16))


class TestHeader:
    """What a stack says of itself."""

    def test_of_files(self, tmp_path):
        times, dates = (10.0, 20.0, 30.0), ("2024-01-02T03:04:05", "2024-01-01T00:00:00", "2024-01-03T00:00:00")
        paths = write(tmp_path, ("adu",) * 3, EXPTIME=times, OBJECT=("M 1",) * 3, **{"DATE-OBS": dates})
        for path in paths:
            with fits.open(path, mode="update") as hdus:
                hdus[0].header.update(place().to_header())
        result = stack(paths, options=StackOptions(rejection="none", normalization="additive", reference=2))
        header = result.header
        assert (header["OBJECT"], header["NCOMBINE"], header["EXPTIME"], header["EXPTOTAL"]) == ("M 1", 3, 20.0, 60.0)
        assert (header["DATE-OBS"], header["BUNIT"]) == ("2024-01-01T00:00:00", "adu")
        np.testing.assert_allclose(result.wcs.pixel_to_world_values(5, 4), place().pixel_to_world_values(5, 4))
        written = fits.getheader(write_master(tmp_path / "m.fit", result))
        assert {card.keyword: card.value for card in header.cards}.items() <= dict(written).items()
        assert read_master(tmp_path / "m.fit").result.unit == "adu"

    def test_of_ccddata(self, tmp_path):
        meta = {
            "EXPTIME": 7.0,
            "OBJECT": "M 2",
            "DATE-OBS": "2024-01-01T00:00:00",
            "a list": [1, 2],
            "MJD-OBS": 60310.0,
        }
        frames = [CCDData(frame, unit="electron", meta=dict(meta), wcs=place()) for frame in FRAMES]
        result = stack(frames, options=PLAIN)
        assert (result.unit, result.wcs is frames[0].wcs) == ("electron", True)
        for header in (result.header, fits.getheader(write_master(tmp_path / "m.fits", result))):
            assert (header["EXPTOTAL"], header["OBJECT"], header["BUNIT"]) == (21.0, "M 2", "electron")
            assert header["CTYPE1"] == "RA---TAN"
            assert "MJD-OBS" not in header
        ccd = CCDData.read(tmp_path / "m.fits")
        assert ccd.unit == u.electron
        np.testing.assert_allclose(ccd.wcs.pixel_to_world_values(5, 4), place().pixel_to_world_values(5, 4))

    def test_of_plain_arrays(self):
        result = stack(list(FRAMES))
        assert (result.unit, result.wcs, result.header["NCOMBINE"]) == ("", None, 3)

    def test_the_unit_of_the_stack_is_in_it_though_the_reference_had_another(self, tmp_path):
        paths = write(tmp_path, ("Jy", "mJy", "Jy"), (1, 1000, 1))
        result = stack(paths, options=StackOptions(normalization="additive", reference=1))
        assert result.header["BUNIT"] == "Jy"


class TestPlaces:
    """Frames in memory that lie elsewhere."""

    def test_other_places_are_said(self):
        frames = [
            CCDData(frame, unit="adu", wcs=place(shift)) for frame, shift in zip(FRAMES, (0, 0, 3.5), strict=True)
        ]
        with pytest.warns(UserWarning, match=r"frame 2: its WCS puts it 3\.5 pixels from frame 0; they are stacked as"):
            stack(frames)

    def test_a_turn_or_another_scale_is_seen(self):
        frames = [
            CCDData(frame, unit="adu", wcs=place(scale=scale))
            for frame, scale in zip(FRAMES, (1e-3, 1e-3, 1.3e-3), strict=True)
        ]
        with pytest.warns(UserWarning, match="frame 2: its WCS puts it"):
            stack(frames)

    def test_files_of_other_places_are_said(self, tmp_path):
        paths = write(tmp_path, ("adu",) * 3)
        for path, shift in zip(paths, (0, 0, 7.25), strict=True):
            with fits.open(path, mode="update") as hdus:
                hdus[0].header.update(place(shift).to_header())
        with pytest.warns(UserWarning, match=r"2\.fits: its WCS puts it 7\.25 pixels from .*0\.fits; they are"):
            result = stack(paths)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            stack(paths[:2])
            assert replay_master(write_master(tmp_path / "m.fit", result)).is_same

    def test_a_wcs_that_nobody_can_read_is_not_compared(self, tmp_path):
        cards = {"CTYPE1": ("RA---TAN",) * 3, "CTYPE2": ("DEC--XYZ",) * 3, "CRVAL1": (1.0, 2.0, 3.0)}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            stack(write(tmp_path, ("adu",) * 3, **cards))

    def test_one_place_is_not_said(self):
        frames = [
            CCDData(frame, unit="adu", wcs=wcs) for frame, wcs in zip(FRAMES, (place(), place(1e-4), None), strict=True)
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            stack(frames)


class TestUrls:
    """Frames behind URLs, by fsspec."""

    fsspec = pytest.importorskip("fsspec", reason="fsspec comes with dask")

    def put(self, folder: Any) -> list[str]:
        memory = self.fsspec.filesystem("memory")
        names = []
        for path in write(folder, ("adu",) * 3):
            memory.pipe(f"/{folder.name}/{path.name}", path.read_bytes())
            names.append(f"memory://{folder.name}/{path.name}")
        return names

    def test_they_are_frames_with_their_planes(self, tmp_path):
        names = self.put(tmp_path)
        found = stack(names, options=PLAIN, maps="variance")
        np.testing.assert_array_equal(found.image, EXPECTED.image)
        np.testing.assert_array_equal(found.variance, EXPECTED.variance)
        assert [(frame.name, frame.path) for frame in found.frames] == [(name, None) for name in names]
        assert found.header["NCOMBINE"] == 3
        extension = stack([f"{name}[UNCERT]" for name in names], options=PLAIN)
        assert (extension.image == 2).all()

    def test_they_are_read_once(self, tmp_path, monkeypatch):
        names = self.put(tmp_path)
        opened = []
        real = self.fsspec.open
        monkeypatch.setattr(self.fsspec, "open", lambda name, mode: opened.append(name) or real(name, mode))
        stack(names, options=StackOptions(normalization="additive"), rows_per_chunk=2)
        assert opened == names

    @pytest.mark.parametrize(
        ("name", "says"),
        [
            ("memory://nowhere/x.fits", "memory://nowhere/x.fits: no such file; expected a file that fsspec can read"),
            ("nonsense://x.fits", "nonsense://x.fits: Protocol not known: nonsense; expected"),
        ],
    )
    def test_what_is_not_there_is_one_line(self, name, says):
        with pytest.raises(OSError, match=says):
            stack([name])

    def test_one_name_or_a_command_line_takes_none(self, tmp_path, capsys):
        with pytest.raises(InvalidInputError, match=r"https://host/x\.fits: a URL; expected files"):
            stack("https://host/x.fits")
        assert main(["stack", "https://host/x.fits", "-o", str(tmp_path / "m.fits")]) == 2
        assert "https://host/x.fits: a URL; expected files, folders" in capsys.readouterr().err

    def test_without_fsspec_it_says_what_to_install(self, monkeypatch):
        monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
        with pytest.raises(
            InvalidInputError, match="URLs are read with fsspec, which is not installed; expected: python"
        ):
            stack(["https://example.org/x.fits"])


def test_every_frames_precision_is_looked_at(tmp_path):
    wide = [np.random.default_rng(1).normal(level, 3, (20, 30)) for level in (1000, 1000, 1e8)]
    with pytest.warns(UserWarning, match="frame 2: float32 has steps of 8"):
        stack(wide)
    for index, frame in enumerate(wide):
        fits.writeto(tmp_path / f"{index}.fits", frame)
    with pytest.warns(UserWarning, match=r"2\.fits: float32 has steps of 8"):
        stack(str(tmp_path))
    with pytest.warns(UserWarning, match="frame 1: float32 has steps of 8"):
        stack([wide[0].astype(np.float32), wide[2], wide[1]])
