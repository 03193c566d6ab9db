"""The variance of a median, against the scatter of medians of drawn samples; that of min and max is not known."""

from __future__ import annotations

import numpy as np
import pytest

from zemosaic_stack_core import StackOptions, stack

SHAPE = (300, 400)


def plain(combine: str) -> StackOptions:
    return StackOptions(rejection="none", combine=combine)


# 120,000 medians: their own variance is known to 0.4 %.
@pytest.mark.parametrize("n", [2, 3, 4, 5, 8, 25, 40])
@pytest.mark.parametrize("is_given", [False, True], ids=["empirical", "propagated"])
def test_a_medians_variance_is_the_scatter_of_medians(n, is_given):
    rng = np.random.default_rng(n)
    frames = [(100 + 3 * rng.standard_normal(SHAPE)).astype(np.float32) for _ in range(n)]
    variances = np.float32(9.0) if is_given else None
    result = stack(frames, options=plain("median"), variances=variances, maps="variance")
    scatter = float(np.var(result.image, dtype=np.float64))
    assert float(np.mean(result.variance, dtype=np.float64)) == pytest.approx(scatter, rel=0.02)


SIGMAS = {
    "1 and 2": lambda n: np.where(np.arange(n) % 2, 1.0, 2.0),
    "1 and 3": lambda n: np.where(np.arange(n) % 2, 1.0, 3.0),
    "from 1 to 3": lambda n: np.linspace(1.0, 3.0, n),
    "one of 5": lambda n: np.where(np.arange(n), 1.0, 5.0),
    "one of 1, others of 5": lambda n: np.where(np.arange(n), 5.0, 1.0),
}


@pytest.mark.parametrize("n", [5, 10, 25])
@pytest.mark.parametrize("sigmas", SIGMAS)
def test_samples_of_different_variances(sigmas, n):
    """The mean's variance times pi/2 would be up to twice too large."""
    few = {("1 and 3", 5): 0.08, ("1 and 3", 10): 0.035, ("one of 1, others of 5", 5): 0.14}
    within = few.get((sigmas, n), 0.03 if sigmas == "one of 1, others of 5" else 0.02)
    rng = np.random.default_rng(n)
    sigma = SIGMAS[sigmas](n)
    frames = [(one * rng.standard_normal(SHAPE)).astype(np.float32) for one in sigma]
    result = stack(frames, options=plain("median"), variances=(sigma**2)[:, None, None], maps="variance")
    scatter = float(np.var(result.image, dtype=np.float64))
    assert float(np.mean(result.variance, dtype=np.float64)) == pytest.approx(scatter, rel=within)


def test_rejected_samples_do_not_count():
    frames = [np.full((2, 3), value, np.float32) for value in (1, 2, 3, 4, 1000)]
    options = StackOptions(rejection="minmax", n_low=0, n_high=1, combine="median")
    found = stack(frames, options=options, variances=np.full((5, 1, 1), 4.0), maps="variance")
    expected = stack(frames[:4], options=plain("median"), variances=np.full((4, 1, 1), 4.0), maps="variance")
    np.testing.assert_array_equal(found.variance, expected.variance)


def test_samples_without_noise_do_not_hide_that_of_the_others():
    frames = [np.full((2, 3), value, np.float32) for value in range(5)]
    some = stack(frames, options=plain("median"), variances=np.array([0, 1, 1, 1, 1.0])[:, None, None], maps="variance")
    none = stack(frames, options=plain("median"), variances=np.zeros((5, 1, 1)), maps="variance")
    assert (some.variance > 0).all()
    assert (none.variance == 0).all()


@pytest.mark.parametrize("combine", ["min", "max"])
@pytest.mark.parametrize("variances", [None, np.float32(4.0)], ids=["empirical", "propagated"])
def test_min_and_max_have_no_variance(combine, variances):
    frames = [np.full((2, 3), value, np.float32) for value in range(5)]
    result = stack(frames, options=plain(combine), variances=variances, maps="all")
    assert np.isnan(result.variance).all()
    assert (result.image == (0 if combine == "min" else 4)).all()
