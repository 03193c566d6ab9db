"""What must hold exactly, over samples that hypothesis makes up: scaling, missing frames, order, neighbors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from samples import assert_same_bits, counts_of

from zemosaic_stack_core import StackOptions, stack
from zemosaic_stack_core.options import COMBINATIONS, REJECTIONS

pytestmark = pytest.mark.slow

# Rules that look at the samples alone: for `noise_clip`, whose read noise is in the samples' own units, scaled
# samples are other samples.
SCALE_FREE = [rejection for rejection in REJECTIONS if rejection != "noise_clip"]

few = settings(deadline=None, derandomize=True, max_examples=20, database=None)

# Sky and noise, wild values, exact ties, missing samples. Powers of two up to 2**20 keep all of it clear of
# overflow and of subnormals.
values = st.one_of(
    st.floats(90.0, 110.0, width=32),
    st.integers(-5, 5).map(float),
    st.sampled_from([0.0, 1e-3, 65535.0, -1e6, 1e9]),
    st.just(float("nan")),
    st.just(float("inf")),
)
cubes = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 12), st.integers(1, 3), st.integers(1, 4)),
    elements=values,
    fill=st.nothing(),
)
kappas = st.sampled_from([0.4, 1.0, 1.5, 2.0, 3.0])
rules = st.fixed_dictionaries(
    {
        "kappa_low": kappas,
        "kappa_high": kappas,
        "max_iterations": st.integers(1, 6),
        "combine": st.sampled_from(COMBINATIONS),
        "center": st.sampled_from(["median", "mean"]),
        "n_low": st.integers(0, 2),
        "n_high": st.integers(0, 2),
    }
)


def run(cube, options, **arguments):
    return stack(list(cube), options=options, maps="all", workers=1, **arguments)


@pytest.mark.parametrize("rejection", SCALE_FREE)
@given(cube=cubes, parameters=rules, power=st.integers(-20, 20))
@few
def test_scaling_by_a_power_of_two_scales_the_result(rejection, cube, parameters, power):
    options = StackOptions(rejection=rejection, **parameters)
    factor = np.float32(2.0) ** np.float32(power)
    plain, scaled = run(cube, options), run(cube * factor, options)
    np.testing.assert_array_equal(scaled.image, plain.image * factor)
    for name in ("coverage", "rejected_low", "rejected_high", "weight_map"):
        np.testing.assert_array_equal(getattr(scaled, name), getattr(plain, name), err_msg=name)


@pytest.mark.parametrize("rejection", REJECTIONS)
@given(cube=cubes, parameters=rules, where=st.integers(0, 12), how=st.sampled_from(["nan", "inf", "mask", "weight"]))
@few
def test_a_frame_of_missing_samples_changes_nothing(rejection, cube, parameters, where, how):
    options = StackOptions(rejection=rejection, **parameters)
    weighted = options.combine == "mean"
    n, shape = len(cube), cube.shape[1:]
    where = min(where, n)
    weights = np.linspace(0.5, 1.0, n) if weighted and how == "weight" else None
    plain = run(cube, options, weights=weights)
    filler = {"nan": np.nan, "inf": -np.inf}.get(how, 7.0)
    more = np.insert(cube, where, filler, axis=0)
    masks = None
    if how == "mask" or (how == "weight" and not weighted):
        masks = [np.ones(shape, dtype=bool) if k == where else None for k in range(n + 1)]
    elif how == "weight":
        weights = np.insert(weights, where, 0.0)
    with_it = run(more, options, masks=masks, weights=weights)
    for name in ("image", "coverage", "rejected_low", "rejected_high", "weight_map", "variance"):
        np.testing.assert_array_equal(getattr(with_it, name), getattr(plain, name), err_msg=name)
    others = [record for k, record in enumerate(with_it.frames) if k != where]
    assert [counts_of(record) for record in others] == [counts_of(record) for record in plain.frames]
    assert with_it.frames[where].missing == (cube[0].size,)


@pytest.mark.parametrize("rejection", REJECTIONS)
@given(cube=cubes, parameters=rules, data=st.data())
@few
def test_order_of_frames(rejection, cube, parameters, data):
    """The kept values, and so the maps and every order statistic, don't depend on the order of the frames."""
    options = StackOptions(rejection=rejection, **parameters)
    order = data.draw(st.permutations(range(len(cube))))
    plain, permuted = run(cube, options), run(cube[list(order)], options)
    for name in ("coverage", "rejected_low", "rejected_high"):
        np.testing.assert_array_equal(getattr(permuted, name), getattr(plain, name), err_msg=name)
    assert [counts_of(record) for record in permuted.frames] == [counts_of(plain.frames[k]) for k in order]
    if options.combine not in ("mean", "sum"):
        np.testing.assert_array_equal(permuted.image, plain.image)


@pytest.mark.parametrize("rejection", REJECTIONS)
@given(cube=cubes, parameters=rules, data=st.data())
@few
def test_no_pixel_knows_its_neighbors(rejection, cube, parameters, data):
    options = StackOptions(rejection=rejection, **parameters)
    row, column = (data.draw(st.integers(0, length - 1)) for length in cube.shape[1:])
    whole = run(cube, options)
    alone = run(cube[:, row : row + 1, column : column + 1], options)
    for name in ("image", "coverage", "rejected_low", "rejected_high", "weight_map", "variance"):
        np.testing.assert_array_equal(getattr(alone, name)[0, 0], getattr(whole, name)[row, column], err_msg=name)


@pytest.mark.parametrize("rejection", REJECTIONS)
@given(cube=cubes, parameters=rules)
@few
def test_conservation_and_range(rejection, cube, parameters):
    """Samples add up; the answer lies among the present samples; no pixel with a sample is empty."""
    options = StackOptions(rejection=rejection, **parameters)
    result = run(cube, options)
    present = np.isfinite(cube)
    n_present = present.sum(0)
    np.testing.assert_array_equal(result.coverage + result.rejected_low + result.rejected_high, n_present)
    np.testing.assert_array_equal(result.coverage > 0, n_present > 0)
    np.testing.assert_array_equal(np.isnan(result.image), n_present == 0)
    lowest = np.where(present, cube, np.inf).min(0)
    highest = np.where(present, cube, -np.inf).max(0)
    covered = n_present > 0
    value = result.image
    if options.combine == "sum":  # its mean, within what rounding the sum leaves of it
        value = value / np.maximum(result.coverage, 1)
        room = 1e-6 * np.maximum(np.abs(lowest), np.abs(highest))
        lowest, highest = lowest - room, highest + room
    assert (value[covered] >= lowest[covered]).all()
    assert (value[covered] <= highest[covered]).all()


@pytest.mark.parametrize("rejection", REJECTIONS)
@given(cube=cubes, parameters=rules, rows=st.integers(1, 3))
@few
def test_rows_per_chunk(rejection, cube, parameters, rows):
    options = StackOptions(rejection=rejection, **parameters)
    assert_same_bits(run(cube, options, rows_per_chunk=rows), run(cube, options))


@pytest.mark.parametrize("rejection", REJECTIONS)
@given(cube=cubes, parameters=rules, weight=st.sampled_from([0.25, 1.0, 3.0]))
@few
def test_equal_weights_are_no_weights(rejection, cube, parameters, weight):
    options = StackOptions(rejection=rejection, **{**parameters, "combine": "mean"})
    plain = run(cube, options)
    weighted = run(cube, options, weights=np.full(len(cube), weight))
    for name in ("coverage", "rejected_low", "rejected_high"):
        np.testing.assert_array_equal(getattr(weighted, name), getattr(plain, name), err_msg=name)
    largest = np.abs(np.where(np.isfinite(cube), cube, 0.0)).max(0)
    covered = plain.coverage > 0
    assert (np.abs(weighted.image - plain.image)[covered] <= 2e-7 * largest[covered]).all()


@pytest.mark.parametrize("rejection", REJECTIONS)
def test_a_frame_of_zero_weight_is_as_if_it_were_not_there(rejection):
    random = np.random.default_rng(3)
    frames = random.normal(500.0, 10.0, (20, 12, 15)).astype(np.float32)
    frames[random.random(frames.shape) < 0.08] += 500.0
    options = StackOptions(rejection=rejection)
    weights = np.ones(20)
    weights[3] = 0.0
    with_it = stack(list(frames), options=options, weights=weights, maps="all")
    without = stack(list(np.delete(frames, 3, axis=0)), options=options, maps="all")
    assert (with_it.rejected_high > 0).any() or rejection == "none"
    for name in ("image", "coverage", "rejected_low", "rejected_high", "variance"):
        assert np.array_equal(getattr(with_it, name), getattr(without, name), equal_nan=True), name
