import numpy as np
import pytest
from PIL import Image

from zemosaic_stack_core.errors import InvalidInputError, OutputError
from zemosaic_stack_core.stacking.pictures import (
    MISSING_COLOR,
    Stretch,
    apply_stretch,
    bin_down,
    color_map,
    find_stretch,
    save_preview,
    save_tiff,
    stretch,
)


def sky(shape=(60, 80), level=1000.0):
    return np.random.default_rng(3).normal(level, 10.0, shape).astype(np.float32)


def read(path):
    with Image.open(path) as picture:
        picture.load()
        return picture.copy()


def test_the_median_becomes_a_dark_gray_and_order_is_kept():
    image = sky()
    image[30, 40] = 30000.0
    picture = stretch(image)
    assert picture.shape == (60, 80, 3)
    assert picture.dtype == np.uint8
    assert abs(float(np.median(picture)) - 0.17 * 255) < 3
    assert (picture[30, 40] == 255).all()
    order = np.argsort(image, axis=None)
    assert (np.diff(picture[..., 0].ravel()[order].astype(int)) >= 0).all()


@pytest.mark.parametrize("factor", [2.0**-20, 1.0, 2.0**20])
def test_the_unit_of_the_data_does_not_matter(factor):
    assert np.array_equal(stretch(sky() * np.float32(factor)), stretch(sky()))


def test_missing_pixels_have_a_color_of_their_own():
    image = sky((60, 80, 3))
    image[2, 3, 1] = np.nan
    image[4, 5] = np.inf
    picture = stretch(image)
    is_missing = (picture == MISSING_COLOR).all(axis=2)
    assert sorted(zip(*np.nonzero(is_missing), strict=True)) == [(2, 3), (4, 5)]


def test_red_is_red():
    image = sky((60, 80, 3))
    image[10:20, 10:20, 0] += 5000.0
    red, green, blue = stretch(image)[15, 15].astype(int)
    assert red > green + 100
    assert red > blue + 100


def test_unlinked_takes_out_the_color_of_the_sky_and_linked_keeps_it():
    image = sky((60, 80, 3))
    image[..., 0] += 40.0
    medians = [np.median(stretch(image, kind), axis=(0, 1)) for kind in ("auto", "linked")]
    assert np.ptp(medians[0]) < 4
    assert medians[1][0] > medians[1][1] + 20


def test_one_channel_of_three_axes_is_gray_and_more_than_three_are_cut():
    image = sky((60, 80, 5))
    assert np.array_equal(stretch(image[..., :1]), stretch(image[..., 0]))
    assert np.array_equal(stretch(image[..., :2]), stretch(image[..., 0]))
    assert np.array_equal(stretch(image), stretch(image[..., :3]))


@pytest.mark.parametrize(
    "image",
    [
        np.full((4, 5), np.nan, np.float32),
        np.zeros((4, 5), np.float32),
        np.full((4, 5), 1e30, np.float32),
        np.eye(5, dtype=np.uint16),
        np.array([[1.0]]),
        np.array([[-5.0, np.nan]]),
    ],
    ids=str,
)
def test_strange_images_give_a_picture(image):
    picture = stretch(image)
    finite = np.isfinite(image)
    assert (picture[~finite] == MISSING_COLOR).all()
    assert (picture[finite] != MISSING_COLOR).any() or not finite.any()


def test_the_stretch_of_another_image_can_be_used():
    image = sky()
    how = find_stretch(image)
    assert np.array_equal(apply_stretch(image, how), stretch(image))
    assert np.median(apply_stretch(image + 50, how)) > np.median(stretch(image)) + 50
    with pytest.raises(InvalidInputError, match="stretch has 2 channels; expected 1, as the image"):
        apply_stretch(image, Stretch(black=(0, 0), white=(1, 1), midtones=(0.5, 0.5)))


@pytest.mark.parametrize("shape", [(5,), (0, 4), (2, 3, 4, 5)])
def test_what_is_no_image_is_refused(shape):
    with pytest.raises(InvalidInputError, match="expected \\(row, column\\) or \\(row, column, channel\\)"):
        stretch(np.zeros(shape))


def test_bin_down_is_the_mean_of_what_is_there():
    image = np.arange(35, dtype=np.float32).reshape(5, 7)
    image[0, 1] = image[2:4, 2:4] = np.nan
    binned = bin_down(image, 4)
    assert binned.shape == (3, 4)
    assert binned[0, 0] == np.float32((0 + 7 + 8) / 3)
    assert np.isnan(binned[1, 1])
    assert binned[2, 3] == image[4, 6]
    assert bin_down(image, 7) is image


def test_a_preview_has_row_0_at_the_bottom_and_no_side_above_the_limit(tmp_path):
    image = sky((61, 203, 3))
    image[:20, :20] += (9000.0, 0.0, 0.0)  # red, at the first rows
    image.flags.writeable = False
    picture = read(save_preview(tmp_path / "a.png", image, max_size=100))
    assert picture.format is None or picture.size == (68, 21)
    assert picture.size == (68, 21)
    red, _, blue = picture.getpixel((2, 18))
    assert red > blue + 100
    assert picture.getpixel((2, 2))[0] < 150
    with pytest.raises(InvalidInputError, match=r"a\.png: the file exists"):
        save_preview(tmp_path / "a.png", image)
    with pytest.raises(OutputError):
        save_preview(tmp_path / "absent" / "a.png", image)


@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 3)])
def test_a_tiff_has_16_bits_of_the_same_stretch(tmp_path, shape):
    tifffile = pytest.importorskip("tifffile", reason="the extra formats is not installed")
    image = sky(shape)
    image[3, 4] = np.nan
    found = tifffile.imread(save_tiff(tmp_path / "a.tif", image))
    assert (found.dtype, found.shape) == (np.dtype("u2"), shape)
    assert (found[-4, 4] == 0).all()
    picture = stretch(image)[::-1] if len(shape) == 3 else stretch(image)[::-1, :, 0]
    seen = np.isfinite(image[::-1])
    assert np.abs(found[seen] / 257.0 - picture[seen]).max() < 1.0
    with pytest.raises(InvalidInputError, match=r"a\.tif: the file exists"):
        save_tiff(tmp_path / "a.tif", image)


def test_without_a_stretch_values_are_linear(tmp_path):
    tifffile = pytest.importorskip("tifffile", reason="the extra formats is not installed")
    image = np.linspace(-5.0, 95.0, 3 * 20 * 3, dtype=np.float32).reshape(3, 20, 3)
    found = tifffile.imread(save_tiff(tmp_path / "a.tif", image, kind="none"))[::-1]
    np.testing.assert_allclose(found, 65535 * (image + 5.0) / 100.0, atol=0.51)
    assert find_stretch(np.full((2, 2), 7.0), "none") == Stretch(black=(7.0,), white=(8.0,), midtones=(0.5,))
    assert find_stretch(np.full((2, 2), np.nan), "none") == Stretch(black=(0.0,), white=(1.0,), midtones=(0.5,))


def test_a_color_map_goes_from_dark_to_bright():
    colors = color_map(np.array([[0.0, 1.0, 2.0, np.nan, -5.0, 9.0]]), 0.0, 2.0)[0].astype(int)
    assert colors[0].sum() < colors[1].sum() < colors[2].sum()
    assert colors[3].tolist() == list(MISSING_COLOR)
    assert (colors[4] == colors[0]).all()
    assert (colors[5] == colors[2]).all()
    ramp = color_map(np.linspace(0, 1, 100)[np.newaxis], 0.0, 1.0)[0] @ (0.299, 0.587, 0.114)
    assert (np.diff(ramp) > 0).all()
    assert color_map(np.full((2, 2), 7), 7.0, 7.0).shape == (2, 2, 3)
