import hashlib
import warnings

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.synthetic.night import SyntheticNight

SMALL = SyntheticNight(n_frames=5, shape=(60, 90), seed=7, dither=4)
MONO = SyntheticNight(n_frames=5, shape=(60, 90), seed=7, dither=4, color=False)
NIGHTS = pytest.mark.parametrize("night", [SMALL, MONO], ids=["color", "mono"])


def digest(night):
    content = b"".join(night.frame(index).astype("<f4").tobytes() for index in range(night.n_frames))
    return hashlib.sha256(content).hexdigest()


def clean(night):
    """A mask of the pixels that no hot pixel, cosmic ray or satellite touched, from the truth alone."""
    touched = np.zeros(night.frame_shape, bool)
    for index in range(night.n_frames):
        difference = night.frame(index) - expected(night, index)
        touched |= np.abs(difference) > 6 * np.sqrt(expected(night, index) / 0.8)
    return ~touched


def expected(night, index):
    """Data units without noise and defects, on the output grid."""
    row, column = night.shifts[index]
    sky = np.roll(night.sky(index), (row, column), axis=(0, 1)).reshape(night.frame_shape)
    return (night.transparency[index] * night.scene + sky) / 0.8 + 200.0


@NIGHTS
def test_the_same_seed_gives_the_same_night(night):
    again = SyntheticNight(n_frames=5, shape=(60, 90), seed=7, dither=4, color=night.color)
    other = SyntheticNight(n_frames=5, shape=(60, 90), seed=8, dither=4, color=night.color)
    assert digest(again) == digest(night) != digest(other)


def test_the_frames_are_the_same_on_every_system():
    assert digest(SMALL) == "380309e9c6fd171aea0d41cec0527d3436209e0c41909c117360962471f31a86"
    assert digest(MONO) == "7bc2d39630dd908b3a085a669ed571ea361465ab2ebc1404020591a70db061fe"


def test_a_frame_does_not_depend_on_the_others_having_been_made():
    late = SyntheticNight(n_frames=5, shape=(60, 90), seed=7, dither=4)
    assert np.array_equal(late.frame(4), SMALL.frame(4), equal_nan=True)


@NIGHTS
def test_borders_are_nan_exactly_where_the_camera_did_not_look(night):
    assert night.shifts[0] == (0, 0)
    assert len(set(night.shifts)) > 2
    for index, (row, column) in enumerate(night.shifts):
        seen = np.zeros(night.shape, bool)
        seen[max(0, row) : 60 + min(0, row), max(0, column) : 90 + min(0, column)] = True
        finite = np.isfinite(night.frame(index))
        assert np.array_equal(finite, np.broadcast_to(seen.reshape(60, 90, *[1] * (finite.ndim - 2)), finite.shape))


@NIGHTS
def test_an_aligned_frame_is_the_raw_one_moved(night):
    for index, (row, column) in enumerate(night.shifts):
        moved = np.roll(night.raw_frame(index), (row, column), axis=(0, 1))
        frame = night.frame(index)
        finite = np.isfinite(frame)
        assert np.array_equal(frame[finite], moved[finite].astype(np.float32))


@NIGHTS
def test_the_noise_is_that_of_photons_and_read_out(night):
    usable = clean(night)
    for index in set(range(night.n_frames)) - set(night.satellite_frames):  # a trail's faint wings are below the mask
        truth = expected(night, index)
        sigma = np.sqrt((truth - 200.0) * 0.8 + 9.0) / 0.8
        pull = ((night.frame(index) - truth) / sigma)[usable]
        pull = pull[np.isfinite(pull)]
        assert abs(pull.mean()) < 0.08
        assert 0.93 < pull.std() < 1.05


def test_the_sky_drifts_and_the_transparency_changes():
    levels = [SMALL.sky(index).mean() for index in range(5)]
    assert max(levels) > 1.15 * min(levels)
    assert len(set(SMALL.transparency)) == 5
    assert all(0.8 < value <= 1.0 for value in SMALL.transparency)


def test_hot_pixels_stay_with_the_camera_and_wander_on_the_grid():
    hottest = sorted(SMALL.hot_pixels, key=lambda pixel: -pixel[3])[0]
    row, column, channel, level = hottest
    for index in range(SMALL.n_frames):
        raw = SMALL.raw_frame(index)[row, column, channel].astype(int)
        around = int(np.median(SMALL.raw_frame(index)[..., channel]))
        assert raw - around > 0.8 * level


@NIGHTS
def test_two_frames_have_a_satellite_and_the_others_none(night):
    trails = []
    for index in range(night.n_frames):
        excess = np.nan_to_num(night.frame(index) - expected(night, index))
        excess = excess if night.color is False else excess.min(axis=2)  # in all channels: not a hot pixel
        trails.append(int((excess.max(axis=0) > 200).sum()))
    assert night.satellite_frames == (1, 3)
    assert [count > 60 for count in trails] == [index in (1, 3) for index in range(5)]


def test_cosmic_rays_are_in_one_frame_only():
    big = SyntheticNight(n_frames=3, shape=(200, 300), seed=1, dither=0, color=False)
    excess = np.stack([big.frame(index) - expected(big, index) for index in range(3)]) > 400
    hot = np.zeros(big.shape, bool)
    hot[[pixel[0] for pixel in big.hot_pixels], [pixel[1] for pixel in big.hot_pixels]] = True
    alone = (excess.sum(axis=0) == 1) & ~hot
    assert 3 <= alone.sum() <= 20
    assert not ((excess.sum(axis=0) > 1) & ~hot).any()


def test_the_truth_lists_its_stars():
    night = SyntheticNight(n_frames=1, shape=(120, 160), seed=2, dither=0, color=False)
    fluxes = [star.flux[0] for star in night.stars]
    assert fluxes == sorted(fluxes, reverse=True)
    inside = [star for star in night.stars if 10 < star.row < 110 and 10 < star.column < 150]
    brightest = inside[0]
    row, column = round(brightest.row), round(brightest.column)
    patch = night.scene[row - 5 : row + 6, column - 5 : column + 6]
    peak = np.unravel_index(patch.argmax(), patch.shape)
    assert abs(peak[0] - 5) <= 1
    assert abs(peak[1] - 5) <= 1


@pytest.mark.parametrize("raw", [False, True])
@NIGHTS
def test_files_hold_the_frames_with_wcs_and_cards(tmp_path, night, raw):
    paths = night.write(tmp_path / "new", raw=raw)
    assert paths == sorted((tmp_path / "new").iterdir())
    sky = None
    for index, path in enumerate(paths):
        with fits.open(path, checksum=True) as hdus:
            hdus.verify("exception")
            data, header = hdus[0].data, hdus[0].header
        assert data.dtype == (np.dtype("uint16") if raw else np.dtype(">f4"))
        image = np.moveaxis(data, 0, 2) if night.color else data
        assert np.array_equal(image, night.raw_frame(index) if raw else night.frame(index), equal_nan=not raw)
        assert (header["EXPTIME"], header["FILTER"]) == (10.0, "IRCUT")
        assert header["DATE-OBS"] == night.start(index).isoformat()
        shift = np.array(night.shifts[index] if raw else (0, 0))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # datfix
            place = WCS(header, naxis=2).pixel_to_world_values(*(np.array([30.0, 20.0]) - shift[::-1]))
        sky = place if sky is None else sky
        assert np.allclose(place, sky, rtol=0, atol=1e-9)


def test_the_demonstration_is_24_color_frames():
    night = SyntheticNight()
    assert (night.n_frames, night.frame_shape) == (24, (540, 960, 3))


@pytest.mark.parametrize("bad", [{"n_frames": 0}, {"shape": (15, 90)}, {"seed": -1}, {"dither": -1}, {"dither": 270}])
def test_impossible_nights_are_refused(bad):
    with pytest.raises(InvalidInputError, match="expected at least 1 frame of 16 x 16"):
        SyntheticNight(**bad)


@pytest.mark.parametrize("index", [-1, 5])
def test_a_frame_that_is_not_there_is_refused(index):
    with pytest.raises(InvalidInputError, match=f"frame {index}; expected 0 to 4"):
        SMALL.frame(index)
