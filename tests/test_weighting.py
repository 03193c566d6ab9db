"""Weights per frame, tables of weights, exposures, and the radial weight."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.frames.file_frames import probe_frame
from zemosaic_stack_core.frames.group import group_frames, open_frames
from zemosaic_stack_core.options import StackOptions
from zemosaic_stack_core.per_frame.given_numbers import GivenNumbers
from zemosaic_stack_core.per_frame.numbers import estimate_frame_numbers
from zemosaic_stack_core.per_frame.weighting import (
    check_frame_weights,
    exposure_weights,
    frame_exposures,
    inverse_variance_weights,
    radial_weights,
    read_weights_csv,
    star_width_weights,
)


def write_fits(path, cards=(), *, empty_primary=False):
    """Write a frame of 2 x 3 float32 pixels with cards in its (or an empty primary's) header."""

    def header(lines):
        text = "".join(line.ljust(80) for line in [*lines, "END"])
        return text.ljust(-(-len(text) // 2880) * 2880).encode()

    image = ["BITPIX  = -32", "NAXIS   = 2", "NAXIS1  = 3", "NAXIS2  = 2"]
    data = np.arange(6, dtype=">f4").tobytes().ljust(2880, b"\0")
    if empty_primary:
        first = header(["SIMPLE  = T", "BITPIX  = 8", "NAXIS   = 0", *cards])
        path.write_bytes(first + header(["XTENSION= 'IMAGE   '", *image, "PCOUNT  = 0", "GCOUNT  = 1"]) + data)
    else:
        path.write_bytes(header(["SIMPLE  = T", *image, *cards]) + data)
    return path


# Noise, star width, exposure


def test_inverse_variance_weights_per_channel():
    noise = np.array([[2.0, 10.0], [4.0, 5.0], [1.0, np.nan], [np.nan, 0.0]])
    # 0.25 is the median of 1/4, 1/16, 1; 0.625 that of 1/4 and 1.
    expected = [[0.25, 0.25], [0.0625, 1.0], [1.0, 0.625], [0.25, 0.625]]
    np.testing.assert_array_equal(inverse_variance_weights(noise), expected)
    np.testing.assert_array_equal(inverse_variance_weights(np.full((3, 2), np.nan)), np.ones((3, 2)))


def test_star_width_weights_per_channel():
    fwhm = np.array([[2.0], [4.0], [np.nan], [5.0]])
    np.testing.assert_array_equal(star_width_weights(fwhm)[:, 0], [1.0, 0.5, 0.5, 0.4])
    np.testing.assert_array_equal(star_width_weights(np.full((2, 1), np.nan)), np.ones((2, 1)))


def test_weighted_mean_of_unequal_noise_reaches_the_inverse_variance_limit():
    random = np.random.default_rng(6)
    sigmas = np.array([5.0, 8.0, 10.0, 20.0, 40.0, 15.0])
    gains = np.array([1.0, 0.8, 1.2, 1.1, 0.9, 1.0])
    truth = 1000 + 40 * random.random((400, 500))
    noises = [random.normal(0, sigma, truth.shape) for sigma in sigmas]
    frames = [(gain * (truth + noise)).astype(np.float32) for gain, noise in zip(gains, noises, strict=True)]
    asked = StackOptions(normalization="multiplicative", reference=0, weighting="noise_variance")
    weight = estimate_frame_numbers(open_frames(frames), asked).weight[:, 0].astype(np.float64)
    # The error of the weighted mean, from the noise itself: exact normalization, so that only the weights are judged.
    error = np.std(np.tensordot(weight, np.array(noises), 1) / weight.sum())
    # The sky's own texture (a spread of 11.5) is noise to the estimate; it belongs to every frame.
    texture = np.std(truth)
    reached = math.sqrt(np.sum(weight**2 * sigmas**2)) / weight.sum()
    assert error == pytest.approx(reached, rel=0.01)
    seen = np.sqrt(sigmas**2 + texture**2)
    np.testing.assert_allclose(weight, (seen.min() / seen) ** 2, rtol=0.05)


def test_inverse_variance_limit_on_a_flat_sky():
    random = np.random.default_rng(7)
    sigmas = np.array([5.0, 8.0, 10.0, 20.0, 40.0, 15.0])
    frames = [random.normal(1000, sigma, (512, 512)).astype(np.float32) for sigma in sigmas]
    numbers = estimate_frame_numbers(open_frames(frames), StackOptions(weighting="noise_variance"))
    weight = numbers.weight[:, 0].astype(np.float64)
    error = np.std(np.tensordot(weight, np.array(frames, np.float64), 1) / weight.sum())
    limit = 1 / math.sqrt(np.sum(1 / sigmas**2))
    assert error == pytest.approx(limit, rel=0.01)
    assert np.std(np.mean(np.array(frames, np.float64), axis=0)) > 1.9 * limit


def test_exposures_are_read_from_headers(tmp_path):
    paths = [
        write_fits(tmp_path / "a.fits", ["EXPTIME =                 30.0 / seconds"]),
        write_fits(tmp_path / "b.fits", ["EXPOSURE= 6.0D1"]),
        write_fits(tmp_path / "c.fits", ["EXPTIME = 15", "EXPOSURE= 99"], empty_primary=True),
    ]
    sources = [probe_frame(path) for path in paths]
    np.testing.assert_array_equal(frame_exposures(sources), [30, 60, 15])
    numbers = estimate_frame_numbers(group_frames(sources), StackOptions(weighting="exposure"))
    np.testing.assert_array_equal(numbers.weight[:, 0], np.float32([0.5, 1, 0.25]))
    np.testing.assert_array_equal(exposure_weights(np.array([1.0, 4.0])), [0.25, 1])


@pytest.mark.parametrize("cards", [[], ["EXPTIME = 'long'"], ["EXPTIME = -3"]])
def test_header_without_a_usable_exposure(tmp_path, cards):
    sources = [probe_frame(write_fits(tmp_path / "a.fits", cards))]
    with pytest.raises(InvalidInputError, match=r"a\.fits: no usable EXPTIME or EXPOSURE"):
        frame_exposures(sources)
    np.testing.assert_array_equal(frame_exposures(sources, [7]), [7])


@pytest.mark.parametrize(
    ("exposures", "message"),
    [
        ([1, 2, 3], r"shape \(3,\); expected \(2,\)"),
        ([1, -2], "frame 1: exposure is -2; expected a finite number of seconds >= 0"),
        ([math.nan, 2], "frame 0: exposure is nan"),
        ([0, 0], "all 2 exposures are 0"),
        (["a", 1], "expected one number of seconds per frame"),
    ],
)
def test_bad_exposures(exposures, message):
    sources = open_frames([np.zeros((2, 3))] * 2).sources
    with pytest.raises(InvalidInputError, match=message):
        frame_exposures(sources, exposures)


# Manual weights


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([1, 2], [[1, 1, 1], [2, 2, 2]]),
        ([[1], [0]], [[1, 1, 1], [0, 0, 0]]),
        ([[1, 2, 3], [4, 5, 0]], [[1, 2, 3], [4, 5, 0]]),
    ],
)
def test_manual_weights_per_frame_and_channel(weights, expected):
    np.testing.assert_array_equal(check_frame_weights(weights, 2, 3), expected)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, 2, 3], r"shape \(3,\); expected \(2,\) or \(2, 3\)"),
        ([[1, 2], [3, 4]], r"shape \(2, 2\)"),
        ([1, -1], r"weight of frame 1 is \[-1.0, -1.0, -1.0\]; expected finite numbers >= 0"),
        ([math.inf, 1], "weight of frame 0"),
        ([0, 0], "weights of a channel are all zero"),
        ([[1, 1, 0], [1, 1, 0]], "weights of a channel are all zero"),
        (["heavy", 1], "expected real numbers, one per frame"),
        ([1j, 1], "expected real numbers, one per frame"),
    ],
)
def test_bad_manual_weights(weights, message):
    with pytest.raises(InvalidInputError, match=message):
        check_frame_weights(weights, 2, 3)


def test_weights_are_not_written_to():
    weights = np.ones((2, 1))
    weights.flags.writeable = False
    asked = StackOptions(weighting="exposure")
    frames = open_frames([np.zeros((2, 3))] * 2)
    numbers = estimate_frame_numbers(frames, asked, GivenNumbers(weight=weights, exposures=[1, 2]))
    np.testing.assert_array_equal(numbers.weight[:, 0], [0.5, 1])


# Tables of weights

NAMES = ("night 1/a.fits", "night 1/b.fits", "night 2/a.fits")


@pytest.fixture
def table(tmp_path):
    def write(text, encoding="utf-8"):
        path = tmp_path / "weights.csv"
        path.write_bytes(text.encode(encoding))
        return path

    return write


@pytest.mark.parametrize(
    "text",
    [
        "file,weight\nnight 1/a.fits,0.5\nb.fits,2\nnight 2/a.fits,0\n",
        "\ufeffWeight, File ,comment\r\n0,night 2/a.fits,cloud\r\n0.5,night 1/a.fits,\r\n2,/data/night 1/b.fits,\r\n",
        'file,weight\n"night 1\\a.fits",5e-1\nb.fits, 2 \n"./night 2/a.fits",0\nother.fits,nonsense\n',
    ],
    ids=["plain", "bom, order, spaces, a third column", "quotes, other files"],
)
def test_table_of_weights(table, text):
    names = [name if "/data/" not in text else name.replace("night 1/b", "/data/night 1/b") for name in NAMES]
    np.testing.assert_array_equal(read_weights_csv(table(text), names), [0.5, 2, 0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "columns are nothing; expected file and weight"),
        ("name,weight\na,1\n", "columns are name, weight; expected file and weight"),
        ("file,weight\nb.fits,1\n", "no row for night 1/a.fits and 1 more; expected one row per frame"),
        ("file,weight\na.fits,1\n", "line 2: a.fits is 2 frames, such as night 1/a.fits and night 2/a.fits"),
        ("file,weight\nb.fits,1\nnight 1/b.fits,1\n", "lines 2 and 3: both for night 1/b.fits"),
        ("file,weight\nb.fits,-1\n", "line 2: weight is '-1'; expected a finite number >= 0"),
        ("file,weight\nb.fits,nan\n", "line 2: weight is 'nan'"),
        ("file,weight\nb.fits\n", "line 2: weight is ''"),
        (
            "file,weight\nb.fits,0\nnight 1/a.fits,0\nnight 2/a.fits,0\n",
            "all weights are 0; expected at least one above 0",
        ),
    ],
)
def test_bad_table_of_weights(table, text, message):
    path = table(text)
    with pytest.raises(InvalidInputError, match=message) as raised:
        read_weights_csv(path, NAMES)
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)


def test_unreadable_table_of_weights(tmp_path, table):
    with pytest.raises(InvalidInputError, match=r"none\.csv: No such file"):
        read_weights_csv(tmp_path / "none.csv", NAMES)
    with pytest.raises(InvalidInputError, match="expected a readable table"):
        read_weights_csv(table("file,weight\nä,1\n", "latin-1"), NAMES)


# The radial weight


def radial_options(feather, power, floor):
    return StackOptions(radial_feather_fraction=feather, radial_shape_power=power, radial_floor=floor)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.floats(0.05, 3), st.floats(0.5, 6), st.floats(0, 1), st.data())
def test_radial_weight_is_the_formula_and_the_same_in_any_band(rows, columns, feather, power, floor, data):
    options = radial_options(feather, power, floor)
    whole = radial_weights((rows, columns), 0, rows, options)
    assert whole.shape == (rows, columns)
    assert whole.dtype == np.float32
    start = data.draw(st.integers(0, rows - 1))
    stop = data.draw(st.integers(start + 1, rows))
    np.testing.assert_array_equal(radial_weights((rows, columns), start, stop, options), whole[start:stop])
    largest = math.hypot((rows - 1) / 2, (columns - 1) / 2)
    for row, column in ((0, 0), (rows // 2, columns // 2), (start, columns // 3)):
        radius = math.hypot(row - (rows - 1) / 2, column - (columns - 1) / 2)
        reach = min(1.0, radius / (feather * largest)) if largest else 0.0
        cosine = math.cos(math.pi / 2 * reach) if reach < 1.0 else 0.0
        expected = max(floor, cosine**power)
        assert whole[row, column] == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_radial_weight_at_center_and_corner():
    weights = radial_weights((101, 201), 0, 101, radial_options(1.0, 2.0, 0.0))
    assert weights[50, 100] == 1
    assert weights[0, 0] == 0
    np.testing.assert_array_equal(weights, weights[::-1, ::-1])
    assert radial_weights((101, 201), 0, 1, radial_options(0.5, 2.0, 0.25))[0, 0] == np.float32(0.25)
    np.testing.assert_array_equal(radial_weights((1, 1), 0, 1, radial_options(1.0, 1.0, 0.0)), [[1]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"radial_feather_fraction": math.inf}, "radial_feather_fraction is inf; expected a finite number > 0"),
        ({"radial_feather_fraction": 0.0}, "radial_feather_fraction is 0.0; expected a finite number > 0"),
        ({"radial_shape_power": 0.0}, "radial_shape_power is 0.0; expected a finite number > 0"),
        ({"radial_floor": math.nan}, "radial_floor is nan; expected a finite number >= 0 and <= 1"),
        ({"radial_floor": 1.5}, "radial_floor is 1.5; expected a finite number >= 0 and <= 1"),
        ({"radial_feather_fraction": 0.9, "combine": "median"}, "radial_feather_fraction is 0.9 with combine 'median'"),
    ],
)
def test_bad_radial_options(changes, message):
    with pytest.raises(InvalidInputError, match=message):
        StackOptions(**changes)
