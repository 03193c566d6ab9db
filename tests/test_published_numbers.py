"""The stack against numbers that others have published, or that follow from the normal distribution.

Each tolerance is four standard errors of the simulation, taken from the scatter of its independent parts.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from test_reference import ROSNER

from zemosaic_stack_core import StackOptions, stack
from zemosaic_stack_core.backends import numpy_backend
from zemosaic_stack_core.kernel import stack_chunk
from zemosaic_stack_core.kernel.samples import Samples
from zemosaic_stack_core.stacking.critical_values import gesd_critical_values

ERRORS = 4.0


def assert_agrees(parts: npt.NDArray[np.float64], published: float, finest: float) -> None:
    """Compare the mean of independent parts with a number that is published to its `finest` digit.

    The simulation must be good enough to tell the number from one that is 6 % off: clipping once gives others.
    """
    error = float(np.std(parts, ddof=1)) / math.sqrt(parts.size)
    assert error < 0.06 * published / ERRORS, "the test decides too little"
    assert float(np.mean(parts)) == pytest.approx(published, abs=ERRORS * error + 0.5 * finest)


@pytest.mark.parametrize(
    ("kappa", "percent", "finest", "spread", "n"),
    [(3.0, 0.3131, 1e-4, 0.98485, 10_000), (2.5, 1.921, 1e-3, 0.93656, 5000), (2.0, 14.66, 1e-2, 0.72574, 4000)],
)
def test_iterated_clipping_of_many_clean_samples(
    kappa: float, percent: float, finest: float, spread: float, n: int
) -> None:
    cube = np.random.default_rng(11).standard_normal((n, 200), dtype=np.float32)
    options = StackOptions(kappa_low=kappa, kappa_high=kappa, max_iterations=200)
    result = stack_chunk(numpy_backend(), Samples(values=list(cube)), options, maps=("variance",))
    assert result.variance is not None
    assert_agrees(100.0 * (1.0 - np.asarray(result.coverage) / n), percent, finest)
    # The empirical variance of the mean times the number of samples is the variance of what was kept.
    kept = np.sqrt(np.asarray(result.variance, np.float64) * np.asarray(result.coverage))
    assert_agrees(kept, spread, 1e-5)


@pytest.mark.parametrize(("n", "efficiency"), [(5, 0.6973), (25, 0.6478)])
def test_efficiency_of_the_median(n: int, efficiency: float) -> None:
    frames = np.random.default_rng(n).standard_normal((n, 400, 500 if n == 25 else 2000), dtype=np.float32)
    result = stack(list(frames), options=StackOptions(rejection="none", combine="median"))
    squares = np.asarray(result.image, np.float64).reshape(400, -1) ** 2
    assert_agrees(1.0 / (n * np.mean(squares, axis=1)), efficiency, 1e-4)


def test_rosner_s_example() -> None:
    samples = [float(word) for word in ROSNER.split()]
    assert len(samples) == 54
    frames = [np.full((1, 2), value, np.float32) for value in samples]
    options = StackOptions(rejection="gesd", alpha=0.05)
    result = stack(frames, options=options, maps="all")
    assert result.rejected_high is not None
    assert result.rejected_low is not None
    assert result.rejected_high.tolist() == [[3, 3]]
    assert result.rejected_low.tolist() == [[0, 0]]
    taken = [value for value, frame in zip(samples, result.frames, strict=True) if frame.rejected_high == (2,)]
    assert taken == [5.34, 5.42, 6.01]
    most = int(options.outlier_fraction * 54)
    table = gesd_critical_values(54, options).values.reshape(55, most + 1)
    assert [round(float(value), 3) for value in table[54, 1:4]] == [3.159, 3.151, 3.144]


@pytest.mark.parametrize("color", [False, True], ids=["mono", "color"])
def test_a_weighted_mean_of_unequal_noise_reaches_the_inverse_variance_limit(color: bool) -> None:
    rng = np.random.default_rng(3)
    sigma = np.array([4.0, 5.0, 7.0, 10.0, 16.0, 24.0])
    shape = (200, 300, 3) if color else (200, 300)
    frames = [rng.normal(1000.0, one, shape).astype(np.float32) for one in sigma]
    limit = 1.0 / math.sqrt(np.sum(sigma**-2))
    result = stack(frames, options=StackOptions(rejection="none", weighting="noise_variance"))
    # The standard error of a deviation from 60000 samples is 0.3 %.
    assert float(np.std(result.image[..., 0] if color else result.image)) == pytest.approx(limit, rel=0.01)
    plain = stack(frames, options=StackOptions(rejection="none"))
    assert float(np.std(plain.image)) > 1.5 * limit
