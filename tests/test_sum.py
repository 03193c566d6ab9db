"""The sum of the kept samples: its weights, its variance, what is missing, and the exposure that it stands for."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from samples import assert_matches_reference, make_frames

from zemosaic_stack_core import InvalidInputError, StackOptions, stack, write_master

PLAIN = StackOptions(rejection="none", combine="sum")


@pytest.mark.parametrize("rejection", ["none", "kappa_sigma", "gesd"])
@pytest.mark.parametrize("n", [3, 8, 31])
def test_a_weighted_sum_is_the_references(rejection, n):
    frames, masks = make_frames(6, n, pattern="scattered")
    options = StackOptions(rejection=rejection, combine="sum")
    variances = [np.full(frame.shape, 2.0 + k, np.float32) for k, frame in enumerate(frames)]
    weights = np.random.default_rng(n).uniform(0.1, 2.0, n)
    for given in ({"weights": weights}, {"variances": variances}, {"weights": weights, "variances": variances}):
        with_cube = {name: np.stack(value) if name == "variances" else value for name, value in given.items()}
        result = stack(frames, options=options, masks=masks, maps="all", **with_cube)
        assert_matches_reference(result, frames, options, masks=masks, allow_narrow=0.05, **given)


def test_missing_samples_are_not_made_up():
    frames = [np.array([[1.0, 2.0]], np.float32), np.array([[10.0, np.nan]], np.float32), np.full((1, 2), 100.0)]
    result = stack(frames, options=PLAIN)
    np.testing.assert_array_equal(result.image, np.nansum(frames, axis=0))
    np.testing.assert_array_equal(result.coverage, [[3, 2]])
    assert np.isnan(stack([frame * np.nan for frame in frames], options=PLAIN).image).all()


@pytest.mark.parametrize("n", [2, 5, 40])
@pytest.mark.parametrize("given", ["empirical", "propagated", "weighted"])
def test_its_variance_is_the_scatter_of_sums(n, given):
    rng = np.random.default_rng(n)
    frames = [(100 + 3 * rng.standard_normal((300, 400))).astype(np.float32) for _ in range(n)]
    how = {"propagated": {"variances": np.float32(9.0)}, "weighted": {"weights": np.linspace(0.5, 2, n)}}
    result = stack(frames, options=PLAIN, maps="variance", **how.get(given, {}))
    scatter = float(np.var(result.image, dtype=np.float64))
    assert float(np.mean(result.variance, dtype=np.float64)) == pytest.approx(scatter, rel=0.02)


def test_many_counts_are_added_exactly():
    frames = [np.full((3, 4), 65535, np.uint16)] * 200
    for rejection in ("none", "kappa_sigma"):
        result = stack(frames, options=StackOptions(rejection=rejection, combine="sum"))
        assert (result.image == 200 * 65535).all()


@pytest.mark.parametrize("option", [{"weighting": "noise_variance"}, {"radial_feather_fraction": 0.9}])
def test_weights_known_up_to_a_factor_are_refused(option):
    with pytest.raises(InvalidInputError, match="with combine 'sum'; expected combine 'mean'"):
        StackOptions(combine="sum", **option)


def test_its_exposure_is_that_of_all_frames(tmp_path):
    paths = []
    for index, seconds in enumerate((10.0, 20.0, 30.0)):
        paths.append(tmp_path / f"{index}.fits")
        fits.writeto(paths[-1], np.full((4, 5), 7.0, np.float32), fits.Header({"EXPTIME": seconds}))
    for combine, seconds in (("sum", 60.0), ("mean", 20.0)):
        written = write_master(
            tmp_path / f"{combine}.fits", stack(paths, options=StackOptions(rejection="none", combine=combine))
        )
        assert fits.getval(written, "EXPTIME") == seconds
