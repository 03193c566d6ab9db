"""The reference itself, against astropy, published examples and sums done by hand."""

import math
import warnings

import numpy as np
import pytest
import reference
from reference import stack_pixel

from zemosaic_stack_core.options import COMBINATIONS, REJECTIONS, StackOptions

NAN, INF = math.nan, math.inf

# NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.5.17.3: the 54 values of Rosner (1983).
ROSNER = """
-0.25 0.68 0.94 1.15 1.20 1.26 1.26 1.34 1.38 1.43 1.49 1.49 1.55 1.56 1.58 1.65 1.69 1.70 1.76 1.77 1.81 1.91 1.94 1.96
1.99 2.06 2.09 2.10 2.14 2.15 2.23 2.24 2.26 2.35 2.37 2.40 2.47 2.54 2.62 2.64 2.90 2.92 2.92 2.93 3.21 3.26 3.30 3.59
3.68 4.30 4.64 5.34 5.42 6.01
"""


def stack(samples, weights=None, variances=None, masked=None, **options):
    return stack_pixel(samples, options=StackOptions(**options), weights=weights, variances=variances, masked=masked)


def kept(samples, **options):
    pixel = stack(samples, **options)
    return [value for value, keep in zip(samples, pixel.kept, strict=True) if keep]


def random_pixels(rng, n, count):
    """A third Gaussian, a third with strong outliers, a third coarse integers with ties; some samples missing."""
    pixels = rng.normal(1000.0, 10.0, (count, n))
    outliers = rng.random((count, n)) < 0.15
    pixels[count // 3 :][outliers[count // 3 :]] += rng.normal(0.0, 300.0, outliers[count // 3 :].sum())
    pixels[2 * count // 3 :] = np.round(pixels[2 * count // 3 :] / 8.0)
    pixels[rng.random((count, n)) < 0.05] = NAN
    return pixels.astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "cenfunc", "stdfunc"),
    [
        pytest.param({"rejection": "kappa_sigma"}, "median", "std", id="kappa_sigma-median"),
        pytest.param({"rejection": "kappa_sigma", "center": "mean"}, "mean", "std", id="kappa_sigma-mean"),
        pytest.param({"rejection": "mad_clip"}, "median", "mad_std", id="mad_clip"),
    ],
)
def test_keeps_what_astropy_keeps(options, cenfunc, stdfunc):
    from astropy.stats import sigma_clip

    rng = np.random.default_rng(20240)
    kappas = [(3.0, 3.0), (2.3, 3.1), (3.7, 1.6), (1.4, 1.3)]
    total = narrow = 0
    for n in range(1, 61):
        kappa_low, kappa_high = kappas[n % 4]
        max_iterations = (5, 1, 2, 50, 3)[n % 5]
        pixels = random_pixels(rng, n, 168)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # astropy says that NaN are clipped
            clipped = sigma_clip(
                pixels,
                sigma_lower=kappa_low,
                sigma_upper=kappa_high,
                maxiters=max_iterations,
                cenfunc=cenfunc,
                stdfunc=stdfunc,
                axis=1,
            )
        theirs = ~np.ma.getmaskarray(clipped)
        for samples, expected in zip(pixels, theirs, strict=True):
            ours = stack(samples, kappa_low=kappa_low, kappa_high=kappa_high, max_iterations=max_iterations, **options)
            total += 1
            if ours.margin < 1e-9:
                narrow += 1
                continue
            assert ours.kept == expected.tolist(), (n, samples)
    assert total >= 10_000
    assert narrow < total // 20  # the coarse integers often lie on a bound


def test_a_sample_rejected_early_comes_back():
    """The statistics are those of the samples left by each iteration; only the last bounds judge all samples."""
    from astropy.stats import sigma_clip

    # Median 17, s 11.9: bounds -12.7 and 17.6 leave 0 0 0 0 17. Then median 0, s 6.8: bounds -17 and 0.34.
    samples = np.asarray([-15.0, 0.0, 0.0, 0.0, 0.0, 17.0, 18.0, 19.0, 20.0, 21.0, 22.0], dtype=np.float32)
    options = {"kappa_low": 2.5, "kappa_high": 0.05}
    assert kept(samples, max_iterations=1, **options) == [0.0, 0.0, 0.0, 0.0, 17.0]
    assert kept(samples, max_iterations=2, **options) == [-15.0, 0.0, 0.0, 0.0, 0.0]
    clipped = sigma_clip(samples, sigma_lower=2.5, sigma_upper=0.05, maxiters=2, axis=0)
    assert clipped.compressed().tolist() == [-15.0, 0.0, 0.0, 0.0, 0.0]


def test_rosner_finds_three_outliers_of_54():
    samples = [float(word) for word in ROSNER.split()]
    assert len(samples) == 54
    assert [round(reference.rosner_critical_value(54, k, 0.05), 3) for k in (1, 2, 3)] == [3.159, 3.151, 3.144]
    pixel = stack(samples, rejection="gesd")
    assert [v for v, above in zip(samples, pixel.above, strict=True) if above] == [5.34, 5.42, 6.01]
    assert pixel.rejected_low == 0
    assert pixel.coverage == 51


@pytest.mark.parametrize(
    ("degrees", "outside", "t"),
    [  # Abramowitz & Stegun, table 26.10
        (1, 0.05, 12.706),
        (2, 0.05, 4.303),
        (3, 0.01, 5.841),
        (4, 0.1, 2.132),
        (10, 0.05, 2.228),
        (30, 0.01, 2.750),
        (60, 0.05, 2.000),
        (120, 0.001, 3.373),
    ],
)
def test_student_t(degrees, outside, t):
    assert reference.student_t_two_sided(degrees, outside) == pytest.approx(t, abs=6e-4)


def test_kappa_sigma_by_hand():
    # Ten zeros and a hundred: median 0, s = 100*sqrt(10)/11 = 28.7, three of them 86.2; then s = 0.
    samples = [0.0] * 10 + [100.0]
    assert kept(samples) == [0.0] * 10
    # With nine zeros s = 30 and the hundred lies 3.33 s out; at kappa 3.4 it stays.
    assert kept([0.0] * 9 + [100.0], kappa_high=3.4) == [0.0] * 9 + [100.0]
    # About the mean (10) it lies exactly at 3.0 s, which keeps it.
    assert kept([0.0] * 9 + [100.0], center="mean") == [0.0] * 9 + [100.0]


def test_max_iterations_stops():
    samples = [0.0] * 20 + [10.0, 100.0, 1000.0]
    lengths = [len(kept(samples, max_iterations=k)) for k in (1, 2, 3, 4)]
    assert lengths == [22, 21, 20, 20]


def test_unequal_kappas_by_hand():
    # Median 0, s = sqrt(200/11) = 4.26.
    samples = [-10.0, *[0.0] * 9, 10.0]
    assert kept(samples, kappa_low=2.0, kappa_high=3.0, max_iterations=1) == samples[1:]
    assert kept(samples, kappa_low=3.0, kappa_high=2.0, max_iterations=1) == samples[:-1]
    assert stack(samples, kappa_low=2.0, max_iterations=1).below == [True] + [False] * 10


def test_mad_clip_by_hand():
    # Median 3, absolute deviations 2 1 0 1 97, their median 1: bounds 3 -+ 4.45.
    assert kept([1.0, 2.0, 3.0, 4.0, 100.0], rejection="mad_clip") == [1.0, 2.0, 3.0, 4.0]
    # More than half are equal: the spread is zero, and only they are kept.
    assert kept([5.0, 5.0, 5.0, 4.9, 5.1], rejection="mad_clip") == [5.0, 5.0, 5.0]


def test_an_iteration_that_would_empty_the_pixel_is_not_applied():
    # Median 0.5 and s = 0.5: bounds 0.45 .. 0.55 hold neither.
    assert kept([0.0, 1.0], kappa_low=0.1, kappa_high=0.1) == [0.0, 1.0]
    # First 0 1 1 2 (m 1, s 0.71) keeps 1 1.
    assert kept([0.0, 1.0, 1.0, 2.0], kappa_low=0.1, kappa_high=0.1) == [1.0, 1.0]
    # First (m 9, s 38) the 100 goes; the rest (m 5.5, s 4.03) would be emptied, and so the first bounds stand.
    samples = [1.0, 2.0, 9.0, 10.0, 100.0]
    assert kept(samples, kappa_low=0.35, kappa_high=0.35) == [1.0, 2.0, 9.0, 10.0]


def test_winsorized_sigma_clip_by_hand():
    # Four samples at least: three are left alone.
    assert kept([0.0, 0.0, 1e6], rejection="winsorized_sigma_clip") == [0.0, 0.0, 1e6]
    samples = [0.0, 0.2, 0.5, 0.7, 1.0, 50.0]
    assert kept(samples, rejection="winsorized_sigma_clip") == samples[:-1]
    # A round by hand: m = 0, s = sqrt(2/4) = 0.7071, nothing is clipped at 1.06, s_new = 0.8018; then at 1.2027.
    s = reference.winsorized_spread([-1.0, 0.0, 0.0, 0.0, 1.0], reference.Margin())
    assert s == pytest.approx(winsorized_spread_of_five(), rel=1e-12)


def winsorized_spread_of_five():
    """The rounds for -1 0 0 0 1, where w = -a 0 0 0 a has the deviation a/sqrt(2)."""
    a, s = 1.0, math.sqrt(0.5)
    for _ in range(50):
        a = min(a, 1.5 * s)
        s, before = 1.134 * a * math.sqrt(0.5), s
        if abs(s - before) <= 5e-4 * before:
            return s
    raise AssertionError("the rounds did not converge")


def test_winsorized_sigma_clip_keeps_three():
    # With kappa 0.3 only the two middle samples would stay.
    samples = [0.0, 4.0, 5.0, 9.0]
    assert kept(samples, rejection="winsorized_sigma_clip", kappa_low=0.3, kappa_high=0.3) == samples


def test_winsorized_quantile_by_hand():
    # n = 11: the order statistics are round(0.5) = 0 and round(9.5) = 10: nothing is winsorized, and the clip at 3
    # of the standard deviation is made twice.
    samples = [0.0] * 5 + [1.0] * 5 + [1000.0]
    assert kept(samples, rejection="winsorized_quantile") == samples[:-1]
    # n = 4 with limits of 0.34: round(1.02) = 1, round(1.98) = 2: w = 1 1 2 2, m = 1.5, s = 0.5.
    options = {"rejection": "winsorized_quantile", "winsor_limits": (0.34, 0.34)}
    assert kept([0.0, 1.0, 2.0, 3.0], **options) == [0.0, 1.0, 2.0, 3.0]  # exactly at 3 s
    assert kept([-0.1, 1.0, 2.0, 3.1], **options) == [1.0, 2.0]
    assert kept([-0.1, 1.0, 2.0, 3.1], kappa_high=3.3, **options) == [1.0, 2.0, 3.1]


def test_linear_fit_clip_by_hand():
    # 0 1 2 3 14: the line is 3*k - 2, residuals 2 0 -2 -4 4, mean absolute residual 2.4.
    samples = [3.0, 14.0, 0.0, 2.0, 1.0]
    options = {"rejection": "linear_fit_clip", "max_iterations": 1}
    assert kept(samples, kappa_high=1.7, **options) == samples
    assert kept(samples, kappa_high=1.6, **options) == [3.0, 0.0, 2.0, 1.0]
    # The fourth residual is the lowest, but the run from the low end stops at the first sample that is kept.
    assert kept(samples, kappa_low=1.6, **options) == samples
    # Four samples are left alone.
    assert kept([0.0, 1.0, 2.0, 1e6], kappa_high=0.1, **options) == [0.0, 1.0, 2.0, 1e6]


def test_linear_fit_clip_rejects_equal_samples_together():
    # Of two equal samples the one of lower rank lies farther above the line: both are in the run from the high end.
    samples = [*map(float, range(10)), 40.0, 40.0]
    assert kept(samples, rejection="linear_fit_clip", kappa_high=1.5, max_iterations=1) == samples[:10]
    assert kept(samples, rejection="linear_fit_clip", kappa_high=3.0, max_iterations=1) == samples


def test_percentile_clip_by_hand():
    # Median 100: kept from 80 to 110, the bounds included.
    samples = [79.0, 80.0, 100.0, 110.0, 111.0]
    assert kept(samples, rejection="percentile_clip") == [80.0, 100.0, 110.0]
    # A negative median takes its absolute value: -100 - v > 20, v + 100 > 10.
    assert kept([-121.0, -120.0, -100.0, -90.0, -89.0], rejection="percentile_clip") == [-120.0, -100.0, -90.0]
    # The median lies between the only two samples: they are both kept rather than none.
    assert kept([1.0, 100.0], rejection="percentile_clip") == [1.0, 100.0]


def test_minmax_by_hand():
    options = {"rejection": "minmax", "n_low": 1, "n_high": 2}
    assert kept([5.0, 1.0, 3.0, 2.0, 4.0], **options) == [3.0, 2.0]
    assert kept([5.0, 1.0, 3.0], **options) == [5.0, 1.0, 3.0]  # as many as it would reject
    # Equal samples share their fate.
    assert kept([1.0, 1.0, 2.0, 3.0, 3.0], rejection="minmax") == [1.0, 1.0, 2.0, 3.0, 3.0]
    assert kept([1.0, 1.0, 2.0, 3.0, 4.0], rejection="minmax") == [1.0, 1.0, 2.0, 3.0]


def test_noise_clip_by_hand():
    # Median 100, gain 4 e-/DN, read noise 12 e-: s = sqrt(9 + 25 + (0.03*100)^2) = sqrt(43) = 6.557.
    options = {"rejection": "noise_clip", "gain": 4.0, "read_noise": 12.0, "sensitivity": 0.03}
    assert kept([80.0, 80.4, 100.0, 119.6, 120.0], **options) == [80.4, 100.0, 119.6]
    # A negative median has no photon noise: s = 3.
    samples = [-59.1, -58.9, -50.0, -41.1, -40.9]
    assert kept(samples, rejection="noise_clip", gain=4.0, read_noise=12.0) == [-58.9, -50.0, -41.1]


def test_gesd_by_hand():
    # n = 7: two outliers at most. R_1 = 2.2678 with one of 7 away from all the others, lambda_1 = 2.0200 by t(5).
    samples = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 9.0]
    assert reference.rosner_critical_value(7, 1, 0.05) == pytest.approx(2.0200, abs=1e-4)
    assert kept(samples, rejection="gesd") == [0.0] * 6
    assert kept([-9.0, *samples[1:-1], 0.0], rejection="gesd") == [0.0] * 6
    # Fewer than four samples: floor(0.3*n) = 0.
    assert kept([0.0, 0.0, 9.0], rejection="gesd") == [0.0, 0.0, 9.0]


def test_gesd_unmasks_a_pair():
    """Two equal outliers hide each other: R_1 is not significant, R_2 is, and both go."""
    rng = np.random.default_rng(11)
    samples = [*rng.normal(0.0, 1.0, 10).round(2).tolist(), 9.0, 9.01]
    assert sorted(set(samples) - set(kept(samples, rejection="gesd"))) == [9.0, 9.01]


def test_missing_samples_take_part_in_nothing():
    pixel = stack([1.0, NAN, INF, -INF, 2.0, 6.0, 100.0], masked=[False] * 6 + [True], rejection="none")
    assert pixel.value == 3.0
    assert (pixel.coverage, pixel.missing) == (3, 4)
    pixel = stack([1.0, 50.0, 3.0], weights=[1.0, 0.0, 1.0], rejection="none")
    assert (pixel.value, pixel.coverage, pixel.missing) == (2.0, 2, 1)


@pytest.mark.parametrize("rejection", REJECTIONS)
def test_a_pixel_without_samples(rejection):
    pixel = stack([NAN, INF, NAN], rejection=rejection)
    assert math.isnan(pixel.value)
    assert (pixel.coverage, pixel.missing, pixel.weight_sum) == (0, 3, 0.0)


def test_combinations_by_hand():
    samples = [4.0, 1.0, 2.0, 100.0]
    values = {how: stack(samples, rejection="none", combine=how).value for how in COMBINATIONS}
    assert values == {"mean": 26.75, "median": 3.0, "min": 1.0, "max": 100.0, "sum": 107.0}


def test_weights_and_variances_by_hand():
    pixel = stack([1.0, 3.0, 5.0], weights=[1.0, 2.0, 1.0], variances=[4.0, 1.0, 4.0], rejection="none")
    assert (pixel.value, pixel.weight_sum) == (3.0, 4.0)
    assert pixel.variance == (1 * 4 + 4 * 1 + 1 * 4) / 16
    pixel = stack([1.0, 3.0, 5.0], weights=[1.0, 2.0, 1.0], rejection="none")
    assert pixel.variance == pytest.approx(4.0 * 6 / 16)
    assert math.isnan(stack([1.0, NAN], rejection="none").variance)


def test_weights_are_rounded_to_float32():
    pixel = stack([0.0, 1.0], weights=[0.1, 0.3], rejection="none")
    assert pixel.weight_sum == float(np.float32(0.1)) + float(np.float32(0.3))


def test_normalization_rounds_twice():
    scale, offset = np.float32(1.1), np.float32(-3.3)
    expected = np.float32(np.float32(7.7) * scale) + offset
    assert reference.normalize(7.7, 1.1, -3.3) == expected


@pytest.mark.parametrize("rejection", REJECTIONS)
def test_conservation(rejection):
    rng = np.random.default_rng(5)
    for n in range(1, 25):
        pixel = stack(random_pixels(rng, n, 3)[1], rejection=rejection, kappa_low=1.5, kappa_high=1.5)
        assert pixel.coverage + pixel.rejected_low + pixel.rejected_high + pixel.missing == n
        assert (pixel.coverage == 0) == (pixel.missing == n) == math.isnan(pixel.value)


def test_margin_is_the_distance_in_spreads():
    # Median 0, s = 30: the hundred is 10 beyond the bound of 90; the zeros are 3 s from it.
    samples = [0.0] * 9 + [100.0]
    assert stack(samples, max_iterations=1).margin == pytest.approx(10 / 30)
    # Samples on a line have residuals of rounding noise: nothing is claimed of them.
    assert stack([1.5 * k + 7.0 for k in range(7)], rejection="linear_fit_clip").margin == 0.0
    # Equal samples are exact: no rounding can change what becomes of them.
    for rejection in REJECTIONS:
        assert stack([0.1] * 7, rejection=rejection, p_low=0.5, p_high=0.5).margin >= 1.0


def test_cube_is_its_pixels():
    rng = np.random.default_rng(6)
    frames = [rng.normal(10.0, 1.0, (2, 3, 2)).astype(np.float32) for _ in range(4)]
    frames[1][0, 1, 1] = NAN
    mask = np.zeros((2, 3, 2), dtype=bool)
    mask[1, 2, 0] = True
    options = StackOptions(rejection="minmax")
    cube = reference.stack_cube(frames, options=options, masks=[None, mask, None, None], weights=np.ones((4, 2)))
    assert cube.missing.sum() == 2
    assert cube.missing[0, 1, 1] == cube.missing[1, 2, 0] == 1
    one = stack_pixel([frame[0, 1, 1] for frame in frames], options=options)
    assert (cube.image[0, 1, 1], cube.coverage[0, 1, 1]) == (one.value, one.coverage)
    assert (cube.kept.sum(0) == cube.coverage).all()
