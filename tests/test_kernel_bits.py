"""The same bits however the image is cut, and on every backend: compared with ==, NaN for NaN."""

import numpy as np
import pytest
from samples import assert_same_bits, make_frames

from zemosaic_stack_core import StackOptions, stack
from zemosaic_stack_core.options import COMBINATIONS, REJECTIONS


def tight(rejection, **more):
    return StackOptions(rejection=rejection, kappa_low=1.6, kappa_high=1.9, p_low=0.06, p_high=0.05, **more)


def on(case, frames, masks=None, **arguments):
    """Stack on that backend: frames, masks and per-sample weights are its own arrays."""
    return stack(
        [case.make(frame) for frame in frames],
        masks=None if masks is None else [None if mask is None else case.make(mask) for mask in masks],
        maps="all",
        backend=case.backend,
        workers=1,
        **arguments,
    )


@pytest.mark.parametrize("n", [1, 2, 3, 5, 31, 32, 33, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("rejection", REJECTIONS)
def test_rows_per_chunk(rejection, n):
    frames, masks = make_frames(30, n, shape=(13, 5), pattern="borders")
    whole = stack(frames, options=tight(rejection), masks=masks, maps="all", workers=1)
    for rows in (1, 7):
        cut = stack(frames, options=tight(rejection), masks=masks, maps="all", workers=1, rows_per_chunk=rows)
        assert_same_bits(cut, whole)


@pytest.mark.parametrize("width", [1, 3, 37])
@pytest.mark.parametrize("rejection", REJECTIONS)
def test_width(rejection, width):
    """A part of the columns alone gives what it gives as part of the whole."""
    frames, _ = make_frames(31, 9, shape=(6, 41), pattern="scattered")
    whole = stack(frames, options=tight(rejection), maps="all", workers=1)
    part = stack([frame[:, 2 : 2 + width] for frame in frames], options=tight(rejection), maps="all", workers=1)
    for name in ("image", "coverage", "weight_map", "rejected_low", "rejected_high", "variance"):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[:, 2 : 2 + width], err_msg=name)


@pytest.mark.parametrize("rejection", REJECTIONS)
def test_weights_and_chunks(rejection):
    frames, masks = make_frames(32, 9, shape=(8, 5), pattern="masks")
    rng = np.random.default_rng(0)
    for weights in (rng.uniform(0.1, 1.0, 9), rng.uniform(0.1, 1.0, (9, 8, 5))):
        whole = stack(frames, options=tight(rejection), masks=masks, weights=weights, maps="all", workers=1)
        cut = stack(
            frames, options=tight(rejection), masks=masks, weights=weights, maps="all", workers=1, rows_per_chunk=3
        )
        assert_same_bits(cut, whole)


@pytest.mark.parametrize("rejection", REJECTIONS)
def test_two_workers(rejection):
    frames, masks = make_frames(33, 8, shape=(12, 5), pattern="scattered")
    one = stack(frames, options=tight(rejection), masks=masks, maps="all", workers=1)
    two = stack(frames, options=tight(rejection), masks=masks, maps="all", workers=2, rows_per_chunk=5)
    assert_same_bits(two, one)


@pytest.mark.parametrize("rejection", REJECTIONS)
def test_backends(other_backend, rejection):
    for n in (1, 2, 5, 33) if other_backend.id != "cupy" else (2, 9):
        frames, masks = make_frames(34, n, shape=(5, 7), pattern="scattered")
        expected = stack(frames, options=tight(rejection), masks=masks, maps="all", workers=1)
        assert_same_bits(on(other_backend, frames, masks, options=tight(rejection)), expected)


@pytest.mark.parametrize("combine", COMBINATIONS)
def test_backends_combine(other_backend, combine):
    frames, masks = make_frames(35, 6, shape=(5, 7), pattern="masks")
    for rejection in ("none", "kappa_sigma"):
        options = tight(rejection, combine=combine)
        expected = stack(frames, options=options, masks=masks, maps="all", workers=1)
        assert_same_bits(on(other_backend, frames, masks, options=options), expected)


@pytest.mark.parametrize("rejection", ["none", "kappa_sigma", "minmax"])
def test_backends_weights(other_backend, rejection):
    frames, masks = make_frames(36, 6, shape=(4, 5, 3), pattern="borders")
    rng = np.random.default_rng(0)
    for weights in (rng.uniform(0.1, 1.0, 6), rng.uniform(0.1, 1.0, (6, 3)), rng.uniform(0.1, 1.0, (6, 4, 5, 3))):
        expected = stack(frames, options=tight(rejection), masks=masks, weights=weights, maps="all", workers=1)
        assert_same_bits(on(other_backend, frames, masks, options=tight(rejection), weights=weights), expected)


def test_backends_many_frames(other_backend):
    frames, masks = make_frames(37, 130 if other_backend.id != "cupy" else 70, shape=(3, 4), pattern="scattered")
    expected = stack(frames, options=tight("kappa_sigma"), masks=masks, maps="all", workers=1)
    assert_same_bits(on(other_backend, frames, masks, options=tight("kappa_sigma")), expected)


def test_backends_chunks(other_backend):
    frames, masks = make_frames(38, 5, shape=(16, 3), pattern="borders")
    expected = stack(frames, options=tight("kappa_sigma"), masks=masks, maps="all", workers=1)
    for rows in (1, 7, 16):
        assert_same_bits(on(other_backend, frames, masks, options=tight("kappa_sigma"), rows_per_chunk=rows), expected)


def test_backends_mixed_input(other_backend):
    """NumPy frames on another backend, and another library's frames on NumPy."""
    frames, _ = make_frames(39, 4, shape=(3, 5), pattern="scattered")
    expected = stack(frames, maps="all", workers=1)
    assert_same_bits(stack(frames, maps="all", backend=other_backend.backend, workers=1), expected)
    made = [other_backend.make(frame) if k % 2 else frame for k, frame in enumerate(frames)]
    assert_same_bits(stack(made, maps="all", workers=1), expected)


@pytest.mark.parametrize("normalization", ["additive", "multiplicative", "additive_scaling", "linear_fit", "sky_mean"])
def test_backends_normalization(other_backend, normalization):
    frames, masks = make_frames(40, 5, shape=(6, 7), pattern="scattered")
    options = tight("kappa_sigma", normalization=normalization, reference=1)
    expected = stack(frames, options=options, masks=masks, maps="all", workers=1)
    assert any(record.offset != (0.0,) or record.scale != (1.0,) for record in expected.frames)
    assert_same_bits(on(other_backend, frames, masks, options=options), expected)
