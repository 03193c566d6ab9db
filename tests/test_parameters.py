"""Every parameter acts, for every rule that it belongs to, the way the definition says; and for no other rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
from samples import assert_matches_reference, assert_same_bits, make_frames

from zemosaic_stack_core import StackOptions, StackResult, stack
from zemosaic_stack_core.options import COMBINATIONS, REJECTIONS

pytestmark = pytest.mark.slow

N = 13
SHAPES = {"mono": (6, 8), "color": (4, 5, 3)}
# Bounds of which nobody takes the one for the other.
UNEQUAL = {"kappa_low": 2.2, "kappa_high": 2.6}

# For ``noise_clip``, whose spread at this sky is twice the frames' true noise.
NOISE = {"kappa_low": 0.9, "kappa_high": 1.1, "read_noise": 1.0}

KAPPA_RULES = ("kappa_sigma", "mad_clip", "winsorized_sigma_clip", "winsorized_quantile", "linear_fit_clip")
REPEATED_RULES = ("kappa_sigma", "mad_clip", "winsorized_sigma_clip", "linear_fit_clip")


class Row(NamedTuple):
    """A rule, the parameters it is run with, one that is changed, and what more is rejected then: at which end."""

    rule: str
    base: Mapping[str, Any]
    change: Mapping[str, Any]
    more: str

    def __str__(self) -> str:
        return f"{self.rule}-" + "-".join(f"{name}={value}" for name, value in self.change.items())


TABLE = [
    *(Row(rule, UNEQUAL, {"kappa_low": 1.4}, "low") for rule in KAPPA_RULES),
    *(Row(rule, UNEQUAL, {"kappa_high": 1.5}, "high") for rule in KAPPA_RULES),
    *(Row(rule, {**UNEQUAL, "max_iterations": 1}, {"max_iterations": 3}, "any") for rule in REPEATED_RULES),
    Row("kappa_sigma", UNEQUAL, {"center": "mean"}, "fewer high"),  # bright outliers pull the mean up
    Row("percentile_clip", {}, {"p_low": 0.05}, "low"),
    Row("percentile_clip", {}, {"p_high": 0.04}, "high"),
    Row("minmax", {}, {"n_low": 3}, "low"),
    Row("minmax", {}, {"n_high": 4}, "high"),
    Row("minmax", {}, {"n_low": 0}, "fewer low"),
    Row("winsorized_quantile", UNEQUAL, {"winsor_limits": (0.3, 0.05)}, "low"),
    Row("winsorized_quantile", UNEQUAL, {"winsor_limits": (0.05, 0.3)}, "high"),
    Row("noise_clip", NOISE, {"kappa_low": 0.6}, "low"),
    Row("noise_clip", NOISE, {"kappa_high": 0.5}, "high"),
    Row("noise_clip", {**NOISE, "max_iterations": 1}, {"max_iterations": 3}, "any"),
    Row("noise_clip", NOISE, {"gain": 4.0}, "any"),
    Row("noise_clip", NOISE, {"read_noise": 30.0}, "fewer any"),
    Row("noise_clip", NOISE, {"sensitivity": 0.3}, "fewer any"),
    Row("gesd", {}, {"outlier_fraction": 0.08}, "fewer any"),
    Row("gesd", {}, {"alpha": 0.6}, "any"),
]
OWN = {rule: {name for row in TABLE if row.rule == rule for name in row.change} for rule in REJECTIONS}
OF_RULES = {name for names in OWN.values() for name in names}


@cache
def cube(kind: str) -> tuple[list[Any], list[Any]]:
    return make_frames(7, N, SHAPES[kind], "masks")


@cache
def stacked(kind: str, options: StackOptions) -> StackResult:
    frames, masks = cube(kind)
    result = stack(frames, options=options, masks=masks, maps="all")
    assert_matches_reference(result, frames, options, masks=masks)
    return result


def count(result: StackResult, end: str) -> int:
    low, high = int(np.sum(result.rejected_low)), int(np.sum(result.rejected_high))
    return {"low": low, "high": high, "any": low + high}[end]


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("row", TABLE, ids=str)
def test_a_parameter_acts_as_the_definition_says(row: Row, kind: str) -> None:
    base = StackOptions(rejection=row.rule, **row.base)
    before, after = stacked(kind, base), stacked(kind, replace(base, **row.change))
    fewer, _, end = row.more.rpartition(" ")
    more = count(after, end) - count(before, end)
    assert (more < 0) if fewer else (more > 0)
    assert not np.array_equal(before.image, after.image, equal_nan=True)


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("row", TABLE, ids=str)
def test_it_acts_the_same_on_every_backend(row: Row, kind: str, other_backend: Any) -> None:
    options = StackOptions(rejection=row.rule, **(dict(row.base) | dict(row.change)))
    frames, masks = cube(kind)
    made = [other_backend.make(frame) for frame in frames]
    found = stack(made, options=options, masks=masks, maps="all", backend=other_backend.backend)
    assert_same_bits(found, stacked(kind, options))


@pytest.mark.parametrize("rule", REJECTIONS)
def test_a_parameter_of_other_rules_does_not_act(rule: str) -> None:
    foreign = {}
    for row in TABLE:
        foreign |= {name: value for name, value in row.change.items() if name not in OWN[rule]}
    options = StackOptions(rejection=rule)
    assert_same_bits(stacked("mono", replace(options, **foreign)), stacked("mono", options))


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("combine", COMBINATIONS)
@pytest.mark.parametrize("rule", REJECTIONS)
def test_every_rule_with_every_combination(rule: str, combine: str, kind: str) -> None:
    options = StackOptions(rejection=rule, **UNEQUAL)
    means, others = stacked(kind, options), stacked(kind, replace(options, combine=combine))
    np.testing.assert_array_equal(means.coverage, others.coverage)  # what is kept has nothing to do with it
    covered = means.coverage > 2
    if combine in ("min", "max"):
        assert ((others.image < means.image) == (combine == "min"))[covered].all()


def test_no_parameter_is_forgotten() -> None:
    of_other_tests = {
        *("rejection", "combine"),  # above
        *("grow_radius", "grow_min_size"),  # test_growth
        *("reject_below", "reject_above"),  # test_unbounded
        *("normalization", "reference", "on_unnormalizable"),  # test_normalization, test_statistics
        "statistics_section",  # test_given_numbers
        *("weighting", "errors"),  # test_weighting, test_variances
        *("radial_feather_fraction", "radial_shape_power", "radial_floor"),  # test_weighting, test_planes
    }
    assert {field.name for field in fields(StackOptions)} == OF_RULES | of_other_tests
