"""The samples that statistics are made from, and the numbers of the frames of a stack."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import UnreadableFrame

from benchmarks import additions, frame_numbers
from zemosaic_stack_core.errors import FrameReadError, InvalidInputError
from zemosaic_stack_core.frames.group import group_frames, open_frames
from zemosaic_stack_core.frames.pixel_rows import FilePool
from zemosaic_stack_core.options import NORMALIZATIONS, StackOptions
from zemosaic_stack_core.per_frame.given_numbers import GivenNumbers
from zemosaic_stack_core.per_frame.normalization import frame_statistics
from zemosaic_stack_core.per_frame.numbers import estimate_frame_numbers
from zemosaic_stack_core.per_frame.sample_grid import GRID_SAMPLES, read_grid_samples, sample_grid
from zemosaic_stack_core.per_frame.star_width import image_star_width, star_width

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"


def sky(seed, shape=(120, 90), level=1000.0, noise=20.0):
    return np.random.default_rng(seed).normal(level, noise, shape).astype(np.float32)


def options(**changes):
    return StackOptions(**changes)


# The grid


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(4, 3000))
def test_grid_lies_in_the_frame_once_and_is_nearly_as_large_as_it_may_be(rows, columns, most):
    grid = sample_grid(rows, columns, most)
    flat = (grid.rows[:, None] * columns + grid.columns).ravel()
    assert (np.diff(grid.rows) > 0).all()
    assert (np.diff(grid.columns, axis=1) > 0).all()
    assert flat.min() >= 0
    assert flat.max() < rows * columns
    assert len(np.unique(flat)) == len(flat) <= most
    if rows * columns <= most:
        assert len(flat) == rows * columns
    elif min(rows, columns) > 1:
        assert len(flat) >= min(most, rows * columns) // 4


@pytest.mark.parametrize("shape", [(1080, 1920), (4000, 6000), (1201, 1799), (513, 513), (9576, 6388)])
def test_grid_takes_each_position_of_a_bayer_pattern_equally_often(shape):
    grid = sample_grid(*shape)
    parity = 2 * (grid.rows[:, None] % 2) + grid.columns % 2
    counts = np.bincount(parity.ravel(), minlength=4)
    assert counts.max() - counts.min() <= 2 * len(grid.rows)
    assert counts.max() <= 1.01 * counts.min()
    assert 0.99 * GRID_SAMPLES <= grid.columns.size <= GRID_SAMPLES


@pytest.mark.parametrize("period", [2, 3, 4, 5, 6, 8, 16, 32])
@pytest.mark.parametrize("axis", [0, 1])
def test_grid_does_not_keep_step_with_a_pattern(period, axis):
    shape = (2048, 3072)
    grid = sample_grid(*shape)
    index = np.broadcast_to(grid.rows[:, None], grid.columns.shape) if axis == 0 else grid.columns
    share = np.bincount(index.ravel() % period, minlength=period) / index.size
    # Some 418 rows can't be shared out among many phases as evenly as 261,668 samples are among those of columns.
    np.testing.assert_allclose(share, 1 / period, rtol=0.02 if axis == 1 else 0.15 if period <= 16 else 0.5)


def test_small_frame_is_read_whole_with_its_missing_samples_dropped():
    frame = sky(1)
    frame[3, 4] = np.nan
    frame[5, 6] = np.inf
    mask = np.zeros(frame.shape, np.bool_)
    mask[7, 8] = True
    group = open_frames([frame], [mask])
    values = read_grid_samples(group.sources[0], group.masks[0]).values
    expected = frame.copy()
    expected[[3, 5, 7], [4, 6, 8]] = np.nan
    np.testing.assert_array_equal(values[0], expected.ravel())


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.uint8, np.float64])
def test_sampled_color_frame_gives_the_samples_at_the_grid(dtype):
    frame = np.random.default_rng(3).integers(0, 200, (90, 70, 3)).astype(dtype)
    source = open_frames([frame]).sources[0]
    grid = sample_grid(90, 70, 500)
    samples = read_grid_samples(source, most=500)
    at = grid.rows[:, None], grid.columns
    np.testing.assert_array_equal(samples.values, [frame[..., channel][at].ravel() for channel in range(3)])
    assert samples.values.shape[1] <= 500


def test_only_rows_of_the_grid_are_read_a_few_megabytes_at_a_time():
    class Watched:
        name, path, rows, columns, channels, is_color = "watched", None, 3000, 4000, 1, False
        dtype = np.dtype(np.uint16)

        def __init__(self):
            self.read = 0

        def read_rows(self, start, stop, out, files):
            assert out.nbytes <= 4 * 2**20
            self.read += stop - start
            out[:] = np.arange(start, stop)[None, :, None]

    source = Watched()
    samples = read_grid_samples(source)
    assert source.read < source.rows / 4
    np.testing.assert_array_equal(samples.values[0].reshape(samples.grid.columns.shape)[:, 0], samples.grid.rows)


def test_frame_that_covers_a_corner_is_sampled_as_densely_as_another():
    frame = np.full((400, 500), np.nan, np.float32)
    frame[:80, 400:] = sky(4, (80, 100))
    source = open_frames([frame]).sources[0]
    samples = read_grid_samples(source, most=4000)
    count = int(np.isfinite(samples.values).sum())
    assert 3500 <= count <= 4000
    row, column = samples.center()
    assert abs(row - 40) < 4
    assert abs(column - 450) < 4


def test_empty_frame_has_no_center_and_no_statistics():
    samples = read_grid_samples(open_frames([np.full((5, 6), np.nan, np.float32)]).sources[0])
    assert samples.center() is None
    assert np.isnan(frame_statistics(samples.values).median).all()


def make_field(shape, seed, *, bayer=False):
    """Sky 1000, noise 20, a gradient of 60, a nebula, a star every 4000 pixels."""
    random = np.random.default_rng(seed)
    rows, columns = shape
    y, x = np.arange(rows, dtype=np.float32)[:, None] / rows, np.arange(columns, dtype=np.float32)[None] / columns
    field = random.standard_normal(shape, dtype=np.float32) * np.float32(20.0)
    field += 1000.0 + 60.0 * x + 30.0 * y + 150.0 * np.exp(-((x - 0.4) ** 2 + (y - 0.6) ** 2) / 0.02)
    count = rows * columns // 4000
    stamp = np.exp(-((np.arange(-6, 7)[:, None] ** 2 + np.arange(-6, 7)[None] ** 2) / 5.0)).astype(np.float32)
    places = random.integers(6, rows - 6, count), random.integers(6, columns - 6, count)
    for row, column, peak in zip(*places, 300.0 * random.random(count) ** -0.9, strict=True):
        field[row - 6 : row + 7, column - 6 : column + 7] += np.float32(peak) * stamp
    if bayer:
        field[0::2, 0::2] *= 0.7
        field[1::2, 1::2] *= 0.6
    return field


@pytest.mark.parametrize("bayer", [False, True])
def test_grid_error_is_below_a_hundredth_of_the_noise(bayer):
    frame = make_field((1633, 2450), 11, bayer=bayer)
    of_all = frame_statistics(frame.reshape(1, -1))
    of_grid = frame_statistics(read_grid_samples(open_frames([frame]).sources[0]).values)
    assert of_all.noise[0] > 20.0
    for name in ("low", "high", "median", "spread", "noise"):
        error = abs(getattr(of_grid, name)[0] - getattr(of_all, name)[0])
        assert error < of_all.noise[0] / 100, name


def test_grid_error_on_a_real_frame():
    path = DATA / "ngc7023_seestar" / "Light_NGC_7023_10.0s_IRCUT_20240730-224436.fit"
    if not path.exists():
        pytest.skip("no ../shared/data: a real frame of a Seestar S50 is needed")
    source = open_frames([path]).sources[0]
    frame = np.empty((1, source.rows, source.columns), source.dtype)
    with FilePool() as files:
        source.read_rows(0, source.rows, frame, files)
    of_all = frame_statistics(frame.reshape(1, -1).astype(np.float32))
    of_grid = frame_statistics(read_grid_samples(source).values)
    for name in ("low", "high", "median", "spread", "noise"):
        assert abs(getattr(of_grid, name)[0] - getattr(of_all, name)[0]) < of_all.noise[0] / 100, name


# The numbers of the frames


def test_nothing_is_read_where_nothing_is_needed():
    group = group_frames([UnreadableFrame(AssertionError("read"))])
    numbers = estimate_frame_numbers(group, options())
    assert numbers.scale is None
    assert numbers.offset is None
    assert numbers.reference is None
    assert numbers.sky is None
    assert numbers.noise is None
    np.testing.assert_array_equal(numbers.weight, np.ones((1, 1), np.float32))
    assert numbers.weight.dtype == np.float32
    assert estimate_frame_numbers(group, options(weighting="exposure"), GivenNumbers(exposures=[3])).sky is None


@pytest.mark.parametrize("color", [False, True])
@pytest.mark.parametrize("weighting", ["none", "noise_variance"])
def test_numbers_depend_neither_on_workers_nor_on_the_other_frames(color, weighting):
    shape = (60, 50, 3) if color else (60, 50)
    frames = [sky(seed, shape, 1000 + 7 * seed, 20 + seed) for seed in range(6)]
    asked = options(normalization="linear_fit", reference=0, weighting=weighting)
    one = estimate_frame_numbers(open_frames(frames), asked, workers=1)
    two = estimate_frame_numbers(open_frames(frames), asked, workers=3)
    few = estimate_frame_numbers(open_frames(frames[:2]), asked)
    channels = 3 if color else 1
    for name in ("scale", "offset", "weight", "sky", "noise"):
        value = getattr(one, name)
        assert value.shape == (6, channels)
        assert value.dtype == (np.float32 if name in ("scale", "offset", "weight") else np.float64)
        np.testing.assert_array_equal(value, getattr(two, name))
        if name != "weight":
            np.testing.assert_array_equal(value[:2], getattr(few, name))
    assert one.notes == ("",) * 6
    assert one.excluded == ()
    assert one.reference == 0


def test_noise_is_that_of_the_normalized_frame():
    frames = [sky(1), 2.0 * sky(2) + 100.0]
    asked = options(normalization="additive_scaling", reference=0, weighting="noise_variance")
    numbers = estimate_frame_numbers(open_frames(frames), asked)
    for frame, samples in enumerate(frames):
        normalized = samples * numbers.scale[frame, 0] + numbers.offset[frame, 0]
        expected = frame_statistics(normalized.reshape(1, -1)).noise[0]
        assert numbers.noise[frame, 0] == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(numbers.sky[:, 0], [np.median(frame) for frame in frames])


def test_reference_auto_is_the_quiet_frame_of_median_background():
    levels_and_noise = [(1000, 20), (1003, 12), (1001, 15), (500, 5), (1900, 9), (1002, 15)]
    frames = [sky(seed, level=level, noise=noise) for seed, (level, noise) in enumerate(levels_and_noise)]
    assert estimate_frame_numbers(open_frames(frames), options(normalization="additive")).reference == 1


@pytest.mark.parametrize("action", ["keep", "exclude", "error"])
def test_frame_that_cannot_be_normalized(action):
    frames = [sky(0), np.full((120, 90), 7.0, np.float32), sky(2) + 50]
    asked = options(normalization="additive_scaling", reference=0, on_unnormalizable=action, weighting="noise_variance")
    if action == "error":
        with pytest.raises(InvalidInputError, match=r"^frame 1: additive_scaling: the frame has a spread of 0"):
            estimate_frame_numbers(open_frames(frames), asked)
        return
    numbers = estimate_frame_numbers(open_frames(frames), asked)
    assert numbers.scale[1, 0] == 1
    assert numbers.offset[1, 0] == 0
    assert numbers.offset[2, 0] != 0
    fate = "used as it is" if action == "keep" else "excluded"
    assert numbers.notes[1].startswith(f"{fate}, not normalized: additive_scaling: ")
    assert "median weight, noise_variance" in numbers.notes[1]
    assert numbers.notes[0] == numbers.notes[2] == ""
    assert numbers.excluded == ((1,) if action == "exclude" else ())
    assert (numbers.weight[1, 0] == 0) == (action == "exclude")
    assert numbers.weight.max() == 1


def test_color_frame_with_one_dead_channel_is_kept_in_all():
    frames = [sky(seed, (40, 30, 3)) + 10 * seed for seed in range(3)]
    frames[1][..., 1] = np.nan
    numbers = estimate_frame_numbers(open_frames(frames), options(normalization="additive", reference=0))
    np.testing.assert_array_equal(numbers.scale[1], 1)
    np.testing.assert_array_equal(numbers.offset[1], 0)
    assert "a channel without finite samples" in numbers.notes[1]


def test_no_frame_can_be_normalized():
    frames = [np.full((4, 5), np.nan, np.float32)] * 2
    numbers = estimate_frame_numbers(open_frames(frames), options(normalization="additive"))
    assert numbers.reference is None
    assert all("no frame has finite samples in every channel" in note for note in numbers.notes)
    with pytest.raises(InvalidInputError, match="no frame can be normalized, frame 0"):
        estimate_frame_numbers(open_frames(frames), options(normalization="additive", on_unnormalizable="exclude"))


def test_reference_that_is_no_frame():
    with pytest.raises(InvalidInputError, match=r"reference is 2; expected a frame from 0 to 1"):
        estimate_frame_numbers(open_frames([sky(0), sky(1)]), options(normalization="additive", reference=2))


def test_weights_multiply_and_are_rounded_once():
    frames = [sky(0, noise=10), sky(1, noise=20)]
    weighting = estimate_frame_numbers(open_frames(frames), options(weighting="noise_variance"))
    given = np.array([[0.3], [0.7]])
    both = estimate_frame_numbers(open_frames(frames), options(weighting="noise_variance"), GivenNumbers(weight=given))
    noise = weighting.noise[:, 0]
    expected = (np.min(noise) / noise) ** 2 * [0.3, 0.7]
    np.testing.assert_array_equal(both.weight[:, 0], expected.astype(np.float32))
    with pytest.raises(InvalidInputError, match="weight 1e\\+300 is beyond float32"):
        estimate_frame_numbers(open_frames(frames), options(), GivenNumbers(weight=np.array([[1e300], [1]])))


def test_exposure_from_arrays_needs_seconds():
    frames = [sky(0), sky(1), sky(2)]
    with pytest.raises(InvalidInputError, match="frame 0 is an array without a header; expected exposures="):
        estimate_frame_numbers(open_frames(frames), options(weighting="exposure"))
    numbers = estimate_frame_numbers(
        open_frames(frames), options(weighting="exposure"), GivenNumbers(exposures=[30, 60, 15])
    )
    np.testing.assert_array_equal(numbers.weight[:, 0], np.float32([0.5, 1, 0.25]))


def test_an_error_ends_the_estimate():
    frame = UnreadableFrame(FrameReadError("broken"), shape=(20, 20))
    asked = options(normalization="additive")
    with pytest.raises(FrameReadError):
        estimate_frame_numbers(group_frames([frame] * 5), asked, workers=2)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("statistics")]


# Star widths


def star_field(fwhm, *, beta=None, seed=5, shape=(400, 400), stars=60, hot=200):
    """Stars of a known width on sky 1000 and noise 10, and hot pixels."""
    random = np.random.default_rng(seed)
    frame = random.normal(1000, 10, shape)
    y, x = np.mgrid[: shape[0], : shape[1]]
    for row, column in random.uniform(20, np.array(shape) - 20, (stars, 2)):
        near = np.s_[max(0, int(row) - 25) : int(row) + 26, max(0, int(column) - 25) : int(column) + 26]
        square = (y[near] - row) ** 2 + (x[near] - column) ** 2
        peak = 300 * random.uniform(0.02, 1) ** -0.8
        if beta is None:
            frame[near] += peak * np.exp(-4 * np.log(2) * square / fwhm**2)
        else:
            frame[near] += peak * (1 + square / (fwhm / 2) ** 2 * (2 ** (1 / beta) - 1)) ** -beta
    frame[random.integers(0, shape[0], hot), random.integers(0, shape[1], hot)] += random.uniform(500, 20000, hot)
    return frame.astype(np.float32)


@pytest.mark.parametrize("beta", [None, 3.0], ids=["gaussian", "moffat"])
@pytest.mark.parametrize("fwhm", [1.8, 2.5, 3.5, 5.0])
def test_star_width_is_the_true_one(fwhm, beta):
    assert image_star_width(star_field(fwhm, beta=beta)) == pytest.approx(fwhm, rel=0.03 if beta is None else 0.12)


def test_hot_pixels_are_no_stars():
    assert np.isnan(image_star_width(star_field(3.0, stars=0, hot=500)))
    assert np.isnan(image_star_width(star_field(3.0, stars=2)))
    few = image_star_width(star_field(3.0, stars=12, hot=800))
    assert few == pytest.approx(3.0, rel=0.05)


@pytest.mark.parametrize(
    "frame",
    [np.full((50, 50), np.nan), np.full((50, 50), 3.0), np.ones((3, 3)), np.ones((1, 400))],
    ids=["missing", "flat", "tiny", "a row"],
)
def test_frame_without_stars_has_no_width(frame):
    assert np.isnan(image_star_width(frame.astype(np.float32)))


def test_missing_samples_and_masks_are_no_stars():
    frame = star_field(3.0)
    frame[:100] = np.nan
    mask = np.zeros(frame.shape, np.bool_)
    mask[:, 200:] = True
    bright = frame.copy()
    bright[:, 200:] = 60000 * np.random.default_rng(0).random((400, 200))
    group = open_frames([bright], [mask])
    assert star_width(group.sources[0], group.masks[0])[0] == pytest.approx(3.0, rel=0.05)


def test_stars_are_searched_for_where_the_frame_has_samples(monkeypatch):
    monkeypatch.setattr("zemosaic_stack_core.per_frame.star_width.CROP_SIDE", 200)
    frame = np.full((900, 1000), np.nan, np.float32)
    frame[650:, 750:] = star_field(2.5, shape=(250, 250), stars=40)
    group = open_frames([frame, star_field(2.5, shape=(900, 1000), stars=300)])
    numbers = estimate_frame_numbers(group, options(weighting="noise_fwhm"))
    np.testing.assert_allclose(numbers.fwhm[:, 0], 2.5, rtol=0.05)


def test_sharper_frames_weigh_more_and_a_starless_one_is_reported():
    frames = [star_field(2.0), star_field(3.0), sky(0, (400, 400)), star_field(4.0)]
    numbers = estimate_frame_numbers(open_frames(frames), options(weighting="noise_fwhm"), workers=2)
    fwhm = numbers.fwhm[:, 0]
    assert np.isnan(fwhm[2])
    np.testing.assert_allclose(numbers.weight[[0, 1, 3], 0], fwhm[0] / fwhm[[0, 1, 3]], rtol=1e-6)
    assert numbers.weight[2, 0] == numbers.weight[1, 0]
    assert numbers.notes == ("", "", "median weight, noise_fwhm: no star that can be measured", "")


def test_star_width_tells_seeing_apart_on_real_frames():
    paths = sorted((DATA / "stargate").glob("*.fit"))
    if not paths:
        pytest.skip("no ../shared/data: real frames with hot pixels are needed")
    fwhm = [star_width(open_frames([path]).sources[0])[0] for path in paths[:3]]
    # Gaussian fits of photutils give 3.86, 3.74 and 3.74 pixels.
    np.testing.assert_allclose(fwhm, [3.86, 3.74, 3.74], rtol=0.12)


@pytest.mark.slow
def test_benchmark_runs(capsys):
    frame_numbers.main(["--megapixels", "0.02", "--seeds", "1"])
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {one["operation"] for one in found} == {
        "level left, worst of seeds",
        "grid error, worst of seeds",
        "frame numbers",
    }
    left = next(one for one in found if one["operation"] == "level left, worst of seeds")
    assert max(left[normalization] for normalization in NORMALIZATIONS[1:]) < 0.1


@pytest.mark.slow
def test_benchmark_of_additions_runs(capsys):
    additions.main(["--megapixels", "0.001", "--frames", "6", "--repeat", "1", "--json"])
    costs = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (costs[0]["group"], costs[0]["ratio"], costs[0]["added"]) == ("plain", 1.0, 0.0)
    assert {one["group"] for one in costs} >= {"rule", "normalization", "weights", "masks", "maps", "growth"}
    assert all(one["ns_per_sample"] > 0 for one in costs)
