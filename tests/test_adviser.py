"""What the adviser says is what the rules do."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize

from zemosaic_stack_core import StackOptions, stack
from zemosaic_stack_core.options import REJECTIONS
from zemosaic_stack_core.stacking.adviser import advise, largest_deviation, rule_text


def deviation(samples: list[float], center: str) -> float:
    values = np.array(samples)
    middle = np.mean(values) if center == "mean" else np.median(values)
    return float((values.max() - middle) / values.std())


class TestLargestDeviation:
    @pytest.mark.parametrize("n", [2, 3, 4, 5, 8, 11, 24, 101])
    def test_the_mean_reaches_its_bound(self, n: int) -> None:
        assert deviation([1.0] + [0.0] * (n - 1), "mean") == pytest.approx(largest_deviation(n, "mean"), rel=1e-12)

    @pytest.mark.parametrize("n", [3, 4, 5, 8, 9, 24, 101])
    def test_the_median_reaches_its_bound(self, n: int) -> None:
        half = n // 2
        samples = [0.0] * (half + 1) + [1.0 / (half + 2)] * (n - half - 2) + [1.0]
        assert deviation(samples, "median") == pytest.approx(largest_deviation(n, "median"), rel=1e-12)

    @pytest.mark.parametrize("center", ["mean", "median"])
    @pytest.mark.parametrize("n", [3, 4, 5, 6, 7])
    def test_nothing_goes_beyond(self, n: int, center: str) -> None:
        random = np.random.default_rng(n)
        bound = largest_deviation(n, center)
        for _ in range(6):
            found = minimize(
                lambda samples: -deviation(list(samples), center),
                random.normal(size=n),
                method="Nelder-Mead",
                options={"maxiter": 3000, "maxfev": 3000},
            )
            assert -found.fun <= bound * (1 + 1e-9)
        for samples in random.standard_cauchy((2000, n)):
            assert deviation(list(samples), center) <= bound * (1 + 1e-9)

    def test_one_and_two_samples(self) -> None:
        assert largest_deviation(1, "median") == 0.0
        assert largest_deviation(2, "median") == deviation([0.0, 1.0], "median") == 1.0

    @pytest.mark.parametrize(("center", "last", "first"), [("median", 7, 8), ("mean", 9, 11)])
    def test_where_kappa_3_begins_to_reject(self, center: str, last: int, first: int) -> None:
        options = StackOptions(center=center, max_iterations=1)  # 10 samples reach 3 exactly: rounding decides
        for n in (last, first):
            frames = [np.zeros((1, 1), np.float32) for _ in range(n)]
            frames[0] += np.float32(1.0)
            assert (largest_deviation(n, center) > 3.0) == (n == first)
            assert (stack(frames, options=options, maps="all").rejected_high == 1).all() == (n == first)


@pytest.mark.parametrize(
    ("kappa", "percent"),
    [(3.0, 0.3131), (2.5, 1.921), (2.0, 14.66)],
)
def test_the_published_loss_of_many_frames(kappa: float, percent: float) -> None:
    # Iterated to the end on normal data; the simulation has 100 frames, whose own mean loss is a little lower.
    advice = advise(100, StackOptions(kappa_low=kappa, kappa_high=kappa, max_iterations=50))
    assert advice.clean_loss is not None
    assert 100 * advice.clean_loss == pytest.approx(percent, rel=0.15)


@pytest.mark.parametrize("rejection", REJECTIONS)
@pytest.mark.parametrize("n", [1, 2, 3, 5, 24])
def test_every_rule_gets_advice(rejection: str, n: int) -> None:
    advice = advise(n, StackOptions(rejection=rejection), is_thorough=True)
    assert advice == advise(n, StackOptions(rejection=rejection), is_thorough=True)
    assert advice.line.startswith("advice: ")
    assert "\n" not in advice.line
    assert 0 <= advice.most_outliers < max(1, (n + 1) // 2)
    assert len(advice.lines) >= 2
    if rejection == "none" or n < 3:
        assert advice.problem


def test_too_few_frames_for_kappa_sigma() -> None:
    advice = advise(7, StackOptions())
    assert advice.most_outliers == 0
    assert advice.limit == pytest.approx(math.sqrt(7 * 5 / 4))
    assert "rejects nothing at all with 7 frames: no sample can lie more than 2.96" in advice.line
    assert advice.better.startswith("winsorized_sigma_clip 3/3 rejects up to 3 bright outliers")


def test_nothing_is_wrong_with_the_default_and_many_frames() -> None:
    advice = advise(24, StackOptions(), is_thorough=True)
    assert (advice.problem, advice.better) == ("", "")
    assert advice.most_outliers == 3
    assert advice.clean_loss == pytest.approx(0.002, abs=0.001)
    assert advice.least_amplitude is not None
    assert 4 <= advice.least_amplitude <= 8


def test_a_rule_that_takes_too_much() -> None:
    advice = advise(40, StackOptions(kappa_low=1.5, kappa_high=1.5))
    assert "% of clean data with 40 frames" in advice.problem
    assert advice.better


def test_what_it_says_of_outliers_holds_in_a_stack() -> None:
    options = StackOptions(rejection="winsorized_sigma_clip")
    n = 12
    most = advise(n, options).most_outliers
    random = np.random.default_rng(5)
    frames = (1000 + 20 * random.standard_normal((n, 1, 400))).astype(np.float32)
    for outliers, is_rejected in ((most, True), (n // 2 + 1, False)):
        cube = frames.copy()
        cube[:outliers] += np.float32(5e4)
        result = stack(list(cube), options=options)
        share = np.mean([result.frames[index].rejected_high[0] / 400 for index in range(outliers)])
        assert (share >= 0.9) == is_rejected


def test_minmax_is_exact_for_any_number_of_frames() -> None:
    advice = advise(3000, StackOptions(rejection="minmax", n_low=1, n_high=5))
    assert advice.clean_loss == 6 / 3000
    assert advice.most_outliers == 5
    assert advise(6, StackOptions(rejection="minmax", n_low=1, n_high=5)).most_outliers == 0


def test_a_loss_that_depends_on_the_sky_is_not_told() -> None:
    advice = advise(10, StackOptions(rejection="percentile_clip"))
    assert advice.clean_loss is None
    assert any("depends on the noise" in line for line in advice.lines)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (StackOptions(kappa_low=2.5), "kappa_sigma 2.5/3"),
        (StackOptions(grow_radius=2.5), "kappa_sigma 3/3, growing 2.5 px from 10 samples"),
        (StackOptions(rejection="none"), "no rejection"),
        (StackOptions(rejection="minmax", n_high=2), "minmax 1/2"),
        (StackOptions(rejection="percentile_clip"), "percentile_clip 0.2/0.1"),
        (StackOptions(rejection="gesd"), "gesd (alpha 0.05, at most 30% outliers)"),
    ],
)
def test_rules_in_words(options: StackOptions, text: str) -> None:
    assert rule_text(options) == text
