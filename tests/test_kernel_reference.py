"""`stack` against the scalar reference: the same kept samples, the value within one unit in the last place."""

import numpy as np
import pytest
import reference
from samples import PATTERNS, assert_matches_reference, make_frames

from zemosaic_stack_core import StackOptions, stack
from zemosaic_stack_core.options import CENTERS, COMBINATIONS, NORMALIZATIONS, REJECTIONS

COUNTS = (1, 2, 3, 5, 8, 31, 32, 33, 70)
NUMBERS_OF_FRAMES = [pytest.param(n, id=f"n{n}") for n in COUNTS]


def check(frames, options, *, allow_narrow=0.0, weights=None, masks=None):
    result = stack(frames, options=options, maps="all", weights=weights, masks=masks, workers=1)
    assert_matches_reference(result, frames, options, weights=weights, masks=masks, allow_narrow=allow_narrow)


@pytest.mark.parametrize("n", NUMBERS_OF_FRAMES)
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("rejection", REJECTIONS)
def test_default_options(rejection, pattern, n):
    frames, masks = make_frames(1, n, pattern=pattern)
    check(frames, StackOptions(rejection=rejection), masks=masks, allow_narrow=0.05)


@pytest.mark.parametrize("n", NUMBERS_OF_FRAMES)
@pytest.mark.parametrize("rejection", REJECTIONS)
def test_tight_and_unequal_kappas(rejection, n):
    """Many iterations with many samples rejected, on both sides."""
    frames, _ = make_frames(2, n, pattern="scattered")
    for kappa_low, kappa_high in ((1.1, 1.7), (2.2, 1.3)):
        options = StackOptions(rejection=rejection, kappa_low=kappa_low, kappa_high=kappa_high, max_iterations=20)
        check(frames, options, allow_narrow=0.05)


PARAMETERS = [
    {"rejection": "kappa_sigma", "center": "mean"},
    {"rejection": "kappa_sigma", "center": "mean", "kappa_low": 1.5, "kappa_high": 2.0},
    {"rejection": "kappa_sigma", "kappa_low": 0.3, "kappa_high": 0.4},
    {"rejection": "kappa_sigma", "kappa_low": 2.5, "kappa_high": 0.05, "max_iterations": 2},
    {"rejection": "kappa_sigma", "max_iterations": 1},
    {"rejection": "mad_clip", "kappa_low": 0.3, "kappa_high": 0.4},
    {"rejection": "mad_clip", "max_iterations": 1},
    {"rejection": "winsorized_sigma_clip", "kappa_low": 0.3, "kappa_high": 0.4},
    {"rejection": "winsorized_sigma_clip", "max_iterations": 1},
    {"rejection": "winsorized_quantile", "winsor_limits": (0.2, 0.1)},
    {"rejection": "winsorized_quantile", "winsor_limits": (0.0, 0.45), "kappa_low": 2.0},
    {"rejection": "winsorized_quantile", "winsor_limits": (0.49, 0.49), "kappa_low": 0.3, "kappa_high": 0.3},
    {"rejection": "linear_fit_clip", "kappa_low": 0.3, "kappa_high": 0.4},
    {"rejection": "linear_fit_clip", "max_iterations": 1, "kappa_low": 2.0, "kappa_high": 2.0},
    {"rejection": "percentile_clip", "p_low": 0.03, "p_high": 0.06},
    {"rejection": "percentile_clip", "p_low": 0.0, "p_high": 1e-4},
    {"rejection": "minmax", "n_low": 0, "n_high": 3},
    {"rejection": "minmax", "n_low": 2, "n_high": 0},
    {"rejection": "minmax", "n_low": 0, "n_high": 0},
    {"rejection": "noise_clip", "gain": 5.0, "read_noise": 10.0},
    {"rejection": "noise_clip", "gain": 50.0, "read_noise": 0.0, "sensitivity": 0.02},
    {"rejection": "noise_clip", "gain": 0.5, "read_noise": 1.0, "kappa_low": 0.3, "kappa_high": 0.5},
    {"rejection": "gesd", "outlier_fraction": 0.1},
    {"rejection": "gesd", "outlier_fraction": 0.6, "alpha": 0.3},
    {"rejection": "gesd", "outlier_fraction": 1.0, "alpha": 0.9},
    {"rejection": "gesd", "alpha": 1e-4},
]


@pytest.mark.parametrize("parameters", PARAMETERS, ids=lambda p: "-".join(map(str, p.values())))
def test_parameters(parameters):
    for n, pattern in ((4, "scattered"), (9, "scattered"), (20, "scattered"), (72, "complete")):
        frames, _ = make_frames(3, n, pattern=pattern)
        check(frames, StackOptions(**parameters), allow_narrow=0.1)  # many rounds of many decisions


SLACK = {"kappa_low": 0.5, "kappa_high": 0.7}
CHANGES = [
    ("kappa_sigma", {}, {"kappa_low": 1.0}),
    ("kappa_sigma", {}, {"kappa_high": 1.0}),
    ("kappa_sigma", {}, {"center": "mean"}),
    ("kappa_sigma", {}, {"max_iterations": 1}),
    ("mad_clip", {}, {"kappa_low": 1.0}),
    ("mad_clip", {}, {"kappa_high": 1.0}),
    ("mad_clip", {}, {"max_iterations": 1}),
    ("winsorized_sigma_clip", {}, {"kappa_low": 1.0}),
    ("winsorized_sigma_clip", {}, {"kappa_high": 1.0}),
    ("winsorized_sigma_clip", {}, {"max_iterations": 1}),
    ("winsorized_quantile", {}, {"kappa_low": 1.0}),
    ("winsorized_quantile", {}, {"kappa_high": 1.0}),
    ("winsorized_quantile", {}, {"winsor_limits": (0.2, 0.05)}),
    ("winsorized_quantile", {}, {"winsor_limits": (0.05, 0.2)}),
    ("linear_fit_clip", {}, {"kappa_low": 1.0}),
    ("linear_fit_clip", {}, {"kappa_high": 1.0}),
    ("linear_fit_clip", {}, {"max_iterations": 1}),
    ("percentile_clip", {}, {"p_low": 0.05}),
    ("percentile_clip", {}, {"p_high": 0.05}),
    ("minmax", {}, {"n_low": 3}),
    ("minmax", {}, {"n_high": 3}),
    ("noise_clip", {}, {"gain": 9.0}),
    ("noise_clip", {}, {"read_noise": 50.0}),
    ("noise_clip", {}, {"sensitivity": 0.5}),
    ("noise_clip", {}, {"kappa_low": 0.5}),
    ("noise_clip", {}, {"kappa_high": 0.5}),
    ("noise_clip", SLACK, {"max_iterations": 1}),
    ("gesd", {}, {"outlier_fraction": 0.1}),
    ("gesd", {}, {"alpha": 0.8}),
]


@pytest.mark.parametrize(
    ("rejection", "base", "change"), CHANGES, ids=[f"{rule}-{'-'.join(change)}" for rule, _, change in CHANGES]
)
@pytest.mark.parametrize("shape", [(20, 20), (9, 11, 3)], ids=["mono", "color"])
def test_every_parameter_acts(rejection, base, change, shape):
    frames, _ = make_frames(4, 25, shape=shape)
    without = stack(frames, options=StackOptions(rejection=rejection, **base), workers=1)
    acting = stack(frames, options=StackOptions(rejection=rejection, **{**base, **change}), workers=1)
    assert (without.image != acting.image).any()


@pytest.mark.parametrize("n", [1, 2, 9, 32])
@pytest.mark.parametrize("combine", COMBINATIONS)
@pytest.mark.parametrize("rejection", ["none", "kappa_sigma", "minmax", "linear_fit_clip"])
def test_combinations(rejection, combine, n):
    for pattern in ("complete", "borders", "scattered"):
        frames, _ = make_frames(5, n, pattern=pattern)
        check(frames, StackOptions(rejection=rejection, combine=combine), allow_narrow=0.05)


@pytest.mark.parametrize("rejection", REJECTIONS)
def test_weights_per_frame(rejection):
    for n, pattern in ((3, "complete"), (8, "borders"), (31, "scattered")):
        frames, masks = make_frames(6, n, pattern=pattern)
        weights = np.random.default_rng(n).uniform(0.1, 2.0, n)
        check(frames, StackOptions(rejection=rejection), weights=weights, masks=masks, allow_narrow=0.05)


@pytest.mark.parametrize("rejection", REJECTIONS)
def test_a_frame_of_zero_weight_is_missing(rejection):
    for n in (6, 21):
        frames, _ = make_frames(7, n)
        weights = np.tile([1.0, 0.0, 2.0], n // 3)
        check(frames, StackOptions(rejection=rejection), weights=weights, allow_narrow=0.05)
        result = stack(frames, options=StackOptions(rejection=rejection), weights=weights, workers=1)
        assert [record.missing for record in result.frames] == [(frames[0].size * (w == 0.0),) for w in weights]


@pytest.mark.parametrize("rejection", REJECTIONS)
def test_weights_per_sample(rejection):
    rng = np.random.default_rng(8)
    for n, pattern in ((3, "complete"), (9, "scattered")):
        frames, masks = make_frames(8, n, pattern=pattern)
        weights = rng.uniform(0.1, 2.0, (n, *frames[0].shape))
        weights[rng.random(weights.shape) < 0.1] = 0.0
        check(frames, StackOptions(rejection=rejection), weights=weights, masks=masks, allow_narrow=0.05)


@pytest.mark.parametrize("rejection", REJECTIONS)
def test_color(rejection):
    rng = np.random.default_rng(9)
    n, shape = 7, (4, 5, 3)
    frames, _ = make_frames(9, n, shape=shape, pattern="scattered")
    masks = [rng.random(shape) < 0.1 if k % 2 else None for k in range(n)]
    check(frames, StackOptions(rejection=rejection), masks=masks, allow_narrow=0.05)
    weights = rng.uniform(0.5, 1.0, (n, 3))
    check(frames, StackOptions(rejection=rejection), weights=weights, masks=masks, allow_narrow=0.05)


@pytest.mark.parametrize("rejection", REJECTIONS)
def test_integer_samples_with_many_ties(rejection):
    rng = np.random.default_rng(10)
    for n in (4, 12, 33):
        frames = [rng.poisson(3.0, (6, 8)).astype(np.uint16) for _ in range(n)]
        frames[0][2, 2] = 65535
        options = StackOptions(rejection=rejection, kappa_low=1.3, kappa_high=1.7, p_low=0.45, p_high=0.55)
        check(frames, options, allow_narrow=0.4)  # samples of whole numbers are often as far out as the bound


@pytest.mark.parametrize("rejection", REJECTIONS)
@pytest.mark.parametrize("huge", [65535.0, 1e9, 1e30, 3.4028234663852886e38], ids=lambda value: f"{value:.0e}")
def test_huge_outliers_leave_no_trace(rejection, huge):
    """Samples of 1 +- 0.01 are judged as finely after a wild one is rejected as without it."""
    rng = np.random.default_rng(11)
    for n in (6, 16, 40):
        cube = rng.normal(1.0, 0.01, (n, 4, 6)).astype(np.float32)
        cube[0, 1:] = huge
        cube[1, 2:] = -huge / 3.0  # not -huge: a mean of nearly zero would be all rounding
        cube[2, 3] = huge / 1e3
        for center in CENTERS if rejection == "kappa_sigma" else ("median",):
            options = StackOptions(rejection=rejection, center=center, kappa_low=1.4, kappa_high=1.6, max_iterations=9)
            check(list(rng.permuted(cube, axis=0)), options, allow_narrow=0.05)


@pytest.mark.parametrize("rejection", REJECTIONS)
@pytest.mark.parametrize("level", [1000.0, 0.1, -7.3, 0.0])
def test_no_spread(rejection, level):
    """Equal samples are kept; of equal samples and a few others, what the rule says."""
    for n in (2, 5, 12, 40):
        cube = np.full((n, 4, 5), level, dtype=np.float32)
        cube[0, 1:] += 5.0
        cube[1, 2:] -= 3.0
        cube[2:4, 3] += 50.0
        for center in CENTERS if rejection == "kappa_sigma" else ("median",):
            options = StackOptions(rejection=rejection, center=center, kappa_low=1.4, kappa_high=1.6)
            check(list(cube), options, allow_narrow=0.8 if level == 0.0 or n == 2 else 0.25)


@pytest.mark.parametrize("rejection", REJECTIONS)
def test_negative_and_small_levels(rejection):
    rng = np.random.default_rng(12)
    for level, noise in ((-500.0, 20.0), (1e-6, 3e-7), (0.0, 1e-20), (3e7, 5.0)):
        frames = list(rng.normal(level, noise, (11, 5, 6)).astype(np.float32))
        frames[3][0] *= np.float32(1.5)
        options = StackOptions(rejection=rejection, kappa_low=1.5, kappa_high=1.5)
        check(frames, options, allow_narrow=0.3 if level == 3e7 else 0.05)  # 3e7 +- 5 is a few steps of float32


@pytest.mark.parametrize("rejection", REJECTIONS)
def test_input_variances_are_propagated(rejection):
    rng = np.random.default_rng(13)
    frames, masks = make_frames(13, 9, shape=(4, 5), pattern="masks")
    options = StackOptions(rejection=rejection, kappa_low=1.5, kappa_high=1.5)
    variances = rng.uniform(0.5, 30.0, (9, 4, 5)).astype(np.float32)
    for weights in (None, rng.uniform(0.1, 1.0, 9), rng.uniform(0.1, 1.0, (9, 4, 5))):
        result = stack(
            frames, options=options, weights=weights, masks=masks, variances=variances, maps="all", workers=1
        )
        assert_matches_reference(
            result, frames, options, weights=weights, masks=masks, variances=variances, allow_narrow=0.05
        )


def test_a_mask_of_rows_and_columns_covers_every_channel():
    frames, _ = make_frames(14, 5, shape=(4, 5, 3))
    masks = [np.random.default_rng(k).random((4, 5)) < 0.3 if k != 2 else None for k in range(5)]
    whole = [None if mask is None else np.repeat(mask[..., None], 3, axis=2) for mask in masks]
    result = stack(frames, masks=masks, maps="all", workers=1)
    assert_matches_reference(result, frames, StackOptions(), masks=whole, allow_narrow=0.05)


@pytest.mark.parametrize("normalization", [name for name in NORMALIZATIONS if name != "none"])
@pytest.mark.parametrize("shape", [(24, 25), (12, 13, 3)], ids=["mono", "color"])
def test_normalized_samples(normalization, shape):
    """Each sample times its frame's scale, plus its offset, in float32: two rounded operations, before all else."""
    frames, _ = make_frames(15, 5, shape=shape, pattern="scattered")
    frames = [frame * np.float32(0.9 + 0.05 * k) + np.float32(7 * k) for k, frame in enumerate(frames)]
    options = StackOptions(normalization=normalization, reference=2)
    result = stack(frames, options=options, maps="all", workers=1)
    assert result.reference == 2
    assert result.frames[2].scale == (1.0,) * len(result.frames[2].scale)
    assert result.frames[2].offset == (0.0,) * len(result.frames[2].offset)
    assert all(record.scale[0] != 1.0 or record.offset[0] != 0.0 for k, record in enumerate(result.frames) if k != 2)
    normalized = [
        np.asarray(frame * np.float32(record.scale)) + np.float32(record.offset)
        for frame, record in zip(frames, result.frames, strict=True)
    ]
    sample = frames[0][5, 5].flat[0]
    expected = reference.normalize(sample, result.frames[0].scale[0], result.frames[0].offset[0])
    assert normalized[0][5, 5].flat[0] == expected
    assert_matches_reference(result, normalized, options, allow_narrow=0.01)
