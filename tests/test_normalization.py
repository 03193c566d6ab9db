"""Statistics of a frame, its scale and offset to the reference, and the choice of the reference."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.frames.group import open_frames
from zemosaic_stack_core.kernel.rules.centered import MAD_TO_SIGMA
from zemosaic_stack_core.options import NORMALIZATIONS, StackOptions
from zemosaic_stack_core.per_frame.normalization import (
    FrameStatistics,
    choose_reference,
    frame_statistics,
    match_frame,
)
from zemosaic_stack_core.per_frame.numbers import estimate_frame_numbers

ALL = tuple(name for name in NORMALIZATIONS if name != "none")


def clipped_deviation(values):
    """Standard deviation after a 3-sigma, 5-iteration clip about the median, written from the definition."""
    kept = values
    for _ in range(5):
        median, deviation = np.median(kept), np.std(kept)
        inside = values[(values >= median - 3 * deviation) & (values <= median + 3 * deviation)]
        if len(inside) == len(kept):
            break
        kept = inside
    return np.std(kept)


def of(low=900.0, high=1100.0, median=1000.0, spread=20.0, noise=19.0, luminance_low=None):
    """Statistics of a frame; numbers for mono, tuples for color."""
    rows = [np.atleast_1d(np.array(value, np.float64)) for value in (low, high, median, spread, noise)]
    return FrameStatistics(*rows, float(rows[0][0]) if luminance_low is None else luminance_low)


@settings(max_examples=80, deadline=None)
@given(
    st_numpy.arrays(
        np.float32,
        st.integers(1, 60),
        elements=st.one_of(
            st.floats(-1000, 1000, width=32), st.sampled_from([np.float32(np.nan), np.float32(np.inf), np.float32(7)])
        ),
    )
)
def test_statistics_are_those_of_numpy(values):
    found = frame_statistics(values[None])
    present = values[np.isfinite(values)].astype(np.float64)
    if not present.size:
        assert math.isnan(found.median[0])
        assert math.isnan(found.noise[0])
        return
    expected = [
        *np.percentile(present, [25, 90, 50]),
        MAD_TO_SIGMA * np.median(np.abs(present - np.median(present))),
        clipped_deviation(present),
    ]
    got = [found.low[0], found.high[0], found.median[0], found.spread[0], found.noise[0]]
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-10)
    assert found.luminance_low == found.low[0]


def test_luminance_is_of_samples_present_in_all_channels():
    values = np.random.default_rng(1).normal(100, 10, (3, 501)).astype(np.float32)
    values[1, 7] = np.nan
    values[0, 8] = np.nan
    luminance = 0.299 * values[0].astype(float) + 0.587 * values[1].astype(float) + 0.114 * values[2].astype(float)
    expected = np.nanpercentile(luminance, 25)
    assert frame_statistics(values).luminance_low == pytest.approx(expected, rel=1e-12)
    assert frame_statistics(values[:2]).luminance_low == frame_statistics(values).low[0]


def test_a_far_outlier_takes_no_digit_from_the_noise():
    values = np.random.default_rng(2).normal(0, 1, 20001).astype(np.float32)
    values[:20] = 1e30
    assert frame_statistics(values[None]).noise[0] == pytest.approx(np.std(values[20:].astype(float)), rel=0.02)


FRAME = of(low=(900, 90), high=(1100, 120), median=(1000, 100), spread=(20, 5), luminance_low=700.0)
REFERENCE = of(low=(1000, 80), high=(1300, 155), median=(1100, 150), spread=(30, 4), luminance_low=650.0)
EXPECTED = {
    "none": ((1, 1), (0, 0)),
    "linear_fit": ((1.5, 2.5), (1000 - 1350, 80 - 225)),
    "sky_mean": ((1, 1), (-50, -50)),
    "additive": ((1, 1), (100, 50)),
    "multiplicative": ((1.1, 1.5), (0, 0)),
    "additive_scaling": ((1.5, 0.8), (1100 - 1500, 150 - 80)),
}


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_scale_and_offset_are_those_of_the_formula(normalization):
    found = match_frame(normalization, FRAME, REFERENCE)
    scale, offset = EXPECTED[normalization]
    np.testing.assert_allclose(found.scale, scale, rtol=1e-14)
    np.testing.assert_allclose(found.offset, offset, rtol=1e-14)
    assert found.problem == ""


@pytest.mark.parametrize("normalization", ALL)
def test_the_reference_is_normalized_to_itself_by_exactly_one_and_zero(normalization):
    values = np.random.default_rng(3).normal(1234.567, 7.8, (3, 1001)).astype(np.float32)
    found = match_frame(normalization, frame_statistics(values), frame_statistics(values))
    np.testing.assert_array_equal(found.scale, 1)
    np.testing.assert_array_equal(found.offset, 0)


def test_unknown_normalization():
    with pytest.raises(InvalidInputError, match="linear_fit, sky_mean"):
        match_frame("linear", FRAME, REFERENCE)


@pytest.mark.parametrize(
    ("normalization", "frame", "reference", "problem"),
    [
        ("linear_fit", of(1000, 1000), of(), "frame has percentiles 1000 and 1000; expected a difference above 0.001"),
        ("linear_fit", of(1000, 1000.9), of(), "expected a difference above 0.001"),
        ("linear_fit", of(-1000.9, -1000), of(), "expected a difference above 0.001"),
        ("linear_fit", of(), of(5, 5), "reference frame has percentiles 5 and 5"),
        ("linear_fit", of(0, 1), of(0, 21), "scale 21; expected at most 20"),
        ("multiplicative", of(median=1.9, spread=20), of(), "frame has median 1.9 and spread 20; expected a median"),
        ("multiplicative", of(median=0, spread=0), of(), "frame has median 0 and spread 0"),
        ("multiplicative", of(), of(median=-1, spread=20), "reference frame has median -1"),
        ("multiplicative", of(median=-1000), of(), "scale -1; expected medians of the same sign"),
        ("multiplicative", of(median=1e-30, spread=0), of(median=1e30), "expected finite float32 numbers"),
        ("additive_scaling", of(spread=0), of(), "frame has a spread of 0"),
        ("additive_scaling", of(), of(spread=0), "reference frame has a spread of 0"),
        *((name, of(*[np.nan] * 5), of(), "frame has a channel without finite samples") for name in ALL),
        *((name, of(), of(*[np.nan] * 5), "reference frame has a channel without") for name in ALL),
    ],
)
def test_what_cannot_be_normalized_is_left_as_it_is_and_says_why(normalization, frame, reference, problem):
    found = match_frame(normalization, frame, reference)
    np.testing.assert_array_equal(found.scale, 1)
    np.testing.assert_array_equal(found.offset, 0)
    assert found.problem.startswith(f"{normalization}: ")
    assert problem in found.problem


@pytest.mark.parametrize(
    ("normalization", "frame", "reference"),
    [
        ("linear_fit", of(1000, 1001.1), of(1000, 1002)),
        ("linear_fit", of(-1e-4, 1e-4), of(-1e-4, 3e-4)),
        ("linear_fit", of(0, 1), of(0, 20)),
        ("multiplicative", of(median=2.1, spread=20), of()),
        ("multiplicative", of(median=-1000), of(median=-500)),
        ("multiplicative", of(median=5, spread=0), of()),
        ("sky_mean", of(5, 5, 5, 0, 0), of()),
        ("additive", of(5, 5, 5, 0, 0), of()),
        ("additive_scaling", of(spread=1e-3), of()),
    ],
)
def test_what_can_just_be_normalized_is(normalization, frame, reference):
    assert match_frame(normalization, frame, reference).problem == ""


def test_one_bad_channel_leaves_all_as_they_are():
    dead = replace(FRAME, spread=np.array([20.0, 0.0]))
    np.testing.assert_array_equal(match_frame("additive_scaling", dead, REFERENCE).scale, [1, 1])


# The reference


def test_reference_is_the_least_noise_of_the_half_nearest_the_median_background():
    levels, noises = (1000, 1010, 1020, 1030, 400, 1900), (9, 7, 8, 6, 1, 2)
    frames = [of(median=level, noise=noise) for level, noise in zip(levels, noises, strict=True)]
    # Median background 1015; distances 15, 5, 5, 15, 615, 885, of which the median is 15.
    assert choose_reference(frames) == 3
    assert choose_reference(frames[:3]) == 1


def test_reference_ties_go_to_the_first_frame():
    assert choose_reference([of(), of(), of()]) == 0
    assert choose_reference([of(noise=3), of(noise=2), of(noise=2)]) == 1


def test_frames_without_samples_or_noise_are_no_reference():
    nothing = of(*[np.nan] * 5)
    assert choose_reference([nothing, of(noise=0), of(noise=9)]) == 2
    assert choose_reference([nothing, of(noise=0)]) == 1
    assert choose_reference([nothing, nothing]) is None
    assert choose_reference([of(median=(1000, np.nan), noise=(1, np.nan)), of(median=(1000, 1000), noise=(5, 5))]) == 1


# What each normalization removes

GAINS = (1.0, 0.8, 0.9, 1.1, 1.2, 1.0, 1.0)
OFFSETS = (0.0, 20.0, -20.0, 20.0, -20.0, 20.0, -20.0)
NOISE = 20.0
SHAPE = (480, 540)  # just below the grid's limit: the statistics are of all samples
MATCHED = {"linear_fit": 25, "sky_mean": 25, "additive": 50, "multiplicative": 50, "additive_scaling": 50}


def same_sky(*, seed=8):
    """Return the true sky and frames `gain * (sky + noise) + offset` of it."""
    random = np.random.default_rng(seed)
    y, x = np.linspace(0, 1, SHAPE[0])[:, None], np.linspace(0, 1, SHAPE[1])[None]
    truth = 1000 + 30 * x + 10 * y + 300 * np.exp(-((x - 0.5) ** 2 + (y - 0.4) ** 2) / 0.01)
    for row, column, peak in zip(
        random.integers(0, SHAPE[0], 200),
        random.integers(0, SHAPE[1], 200),
        400 * random.random(200) ** -0.7,
        strict=True,
    ):
        near = np.s_[max(0, row - 8) : row + 9, max(0, column - 8) : column + 9]
        square = (np.arange(SHAPE[0])[near[0]] - row)[:, None] ** 2 + (np.arange(SHAPE[1])[near[1]] - column) ** 2
        truth[near] += peak * np.exp(-square / 5.0)
    frames = [
        (gain * (truth + random.normal(0, NOISE, SHAPE)) + offset).astype(np.float32)
        for gain, offset in zip(GAINS, OFFSETS, strict=True)
    ]
    return truth, frames


@pytest.fixture(scope="module")
def night():
    return same_sky()


def normalized(frames, normalization):
    numbers = estimate_frame_numbers(open_frames(frames), StackOptions(normalization=normalization, reference=0))
    assert numbers.notes == ("",) * len(frames)
    return [
        frame * scale + offset
        for frame, scale, offset in zip(frames, numbers.scale[:, 0], numbers.offset[:, 0], strict=True)
    ]


@pytest.mark.parametrize("normalization", ALL)
def test_level_difference_left_is_under_a_tenth_of_the_noise_of_a_median(night, normalization):
    """The level that a normalization matches: the median, or the 25th percentile for linear_fit and sky_mean."""
    _, frames = night
    levels = [np.percentile(frame, MATCHED[normalization]) for frame in normalized(frames, normalization)]
    noise_of_median = 1.2533 * NOISE / math.sqrt(SHAPE[0] * SHAPE[1])
    assert max(abs(level - levels[0]) for level in levels) < 0.1 * noise_of_median
    before = [np.percentile(frame, MATCHED[normalization]) for frame in frames]
    assert max(abs(level - before[0]) for level in before) > 100 * noise_of_median


@pytest.mark.parametrize("normalization", ALL)
def test_color_frames_are_level_in_every_channel(normalization):
    """Each channel has gains and offsets of its own; sky_mean shifts all channels alike, by their luminance."""
    random = np.random.default_rng(9)
    sky = 1000 + 60 * np.linspace(0, 1, 300)[:, None, None] + np.array([0.0, 150.0, -200.0])
    frames = []
    for k, (gain, offset) in enumerate(zip(GAINS, OFFSETS, strict=True)):
        gains, offsets = gain * np.array([1.0, 0.95, 1.05]) ** (k % 2), offset * np.array([1.0, -1.0, 0.5])
        frames.append((gains * (sky + random.normal(0, NOISE, (300, 200, 3))) + offsets).astype(np.float32))
    numbers = estimate_frame_numbers(open_frames(frames), StackOptions(normalization=normalization, reference=0))
    images = [
        frame * scale + offset for frame, scale, offset in zip(frames, numbers.scale, numbers.offset, strict=True)
    ]
    if normalization == "sky_mean":
        levels = np.array([np.percentile(image @ [0.299, 0.587, 0.114], 25) for image in images])
        noise = NOISE * np.hypot(np.hypot(0.299, 0.587), 0.114)
    else:
        levels = np.array([np.percentile(image, MATCHED[normalization], axis=(0, 1)) for image in images])
        noise = NOISE
    assert np.abs(levels - levels[0]).max() < 0.1 * 1.2533 * noise / math.sqrt(300 * 200)


def residuals(truth, frames, normalization):
    """Return the errors of each frame: level of the darker half of the sky, flux of the brightest part."""
    images = normalized(frames, normalization)
    dark, bright = truth < np.percentile(truth, 50), truth > np.percentile(truth, 99)
    dark_level = [np.mean(image[dark], dtype=np.float64) for image in images]
    flux = [np.mean(image[bright], dtype=np.float64) - level for image, level in zip(images, dark_level, strict=True)]
    return np.array(dark_level) - dark_level[0], np.array(flux) / flux[0] - 1


@pytest.mark.parametrize("normalization", ALL)
def test_sky_is_level_to_a_tenth_of_the_noise_per_pixel_where_the_normalization_can(night, normalization):
    """An independent measure: the mean of the darker half of the true sky, which no normalization looks at."""
    truth, frames = night
    level, flux = residuals(truth, frames, normalization)
    gains = np.array(GAINS)
    if normalization in ("linear_fit", "additive_scaling"):
        assert np.abs(level).max() < 0.1 * NOISE
        assert np.abs(flux).max() < 0.02
    elif normalization == "multiplicative":
        # It removes a gain; an offset of 20 on a sky of 1000 is left as a wrong gain of about 2 %.
        assert np.abs(level).max() < 0.1 * NOISE
        assert 0.01 < np.abs(flux).max() < 0.04
    else:
        # A shift alone leaves each frame its gain: the level is right at the percentile it matches and the flux is off.
        assert np.abs(level[gains == 1]).max() < 0.02 * NOISE
        np.testing.assert_allclose(flux, gains - 1, atol=0.01)


def test_only_a_change_of_noise_with_the_gain_is_a_gain_to_linear_fit_and_additive_scaling():
    """A cloud dims the stars and not the noise: percentiles near the sky can't see it."""
    truth, _ = same_sky()
    random = np.random.default_rng(4)
    clear = (truth + random.normal(0, NOISE, SHAPE)).astype(np.float32)
    cloudy = (1000 + 0.5 * (truth - 1000) + random.normal(0, NOISE, SHAPE)).astype(np.float32)
    for normalization in ("linear_fit", "additive_scaling"):
        _, flux = residuals(truth, [clear, cloudy], normalization)
        assert flux[1] < -0.3
