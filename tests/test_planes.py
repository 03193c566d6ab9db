"""Weights and variances of single samples: read by chunks, multiplied by the radial weight, sent without copies."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from astropy.io import fits
from samples import assert_same_bits

from zemosaic_stack_core import InvalidInputError, StackOptions, stack
from zemosaic_stack_core.frames.chunk import Chunk
from zemosaic_stack_core.frames.group import open_frames
from zemosaic_stack_core.frames.planes import PlaneStack
from zemosaic_stack_core.per_frame.weighting import radial_weights
from zemosaic_stack_core.stacking.given_planes import plane_stack

SHAPE = (11, 14)


def make_frames(shape=SHAPE):
    """Return five frames of noise."""
    return list(np.random.default_rng(0).normal(100, 5, (5, *shape)).astype(np.float32))


@pytest.mark.parametrize("shape", [SHAPE, (*SHAPE, 3)], ids=["mono", "color"])
@pytest.mark.parametrize("weights", [None, np.arange(1.0, 6.0), "per sample"], ids=["none", "frames", "samples"])
def test_the_radial_weight_is_a_weight_per_pixel(shape, weights):
    frames = make_frames(shape)
    options = StackOptions(radial_feather_fraction=0.7, radial_shape_power=3.0, radial_floor=0.2)
    radial = radial_weights(SHAPE, 0, SHAPE[0], options).astype(np.float64)
    radial = radial[..., None] if len(shape) == 3 else radial
    if isinstance(weights, str):
        weights = np.random.default_rng(1).uniform(0.5, 2, (5, *shape))
    given = np.ones(5) if weights is None else weights
    given = given.reshape((5,) + (1,) * len(shape)) if given.ndim == 1 else given
    found = stack(frames, options=options, weights=weights, maps="all", rows_per_chunk=3)
    expected = stack(frames, weights=given * radial, maps="all")
    np.testing.assert_array_equal(found.image, expected.image)
    np.testing.assert_array_equal(found.weight_map, expected.weight_map)


def test_beyond_the_feather_a_floor_of_zero_leaves_nothing():
    options = StackOptions(radial_feather_fraction=0.5, radial_floor=0.0)
    result = stack(make_frames(), options=options)
    assert np.isnan(result.image[0, 0])
    assert result.coverage[0, 0] == 0
    assert np.isfinite(result.image[5, 7])


def test_a_broadcast_view_travels_small():
    group = open_frames(make_frames())
    planes = plane_stack(np.arange(5.0).reshape(5, 1, 1), group, "weights")
    big = PlaneStack(np.broadcast_to(planes.values[:, :, :1, :1], (5, 1, 3000, 4000)))
    sent = pickle.dumps(big)
    assert len(sent) < 2000
    there = pickle.loads(sent)  # noqa: S301 - what this test has just written
    assert there.values.shape == (5, 1, 3000, 4000)
    chunk = Chunk(7, 9, 0, 4000)
    np.testing.assert_array_equal(there.read(3, chunk, None), np.full((1, 8000), 3.0, dtype=np.float32))


@pytest.mark.parametrize("shape", [SHAPE, (*SHAPE, 3)], ids=["mono", "color"])
@pytest.mark.parametrize("bits", [None, 5, 2], ids=["every bit", "two bits", "one bit"])
def test_masks_of_extensions_are_masks(shape, bits, tmp_path):
    frames = make_frames(shape)
    flags = np.random.default_rng(2).integers(0, 8, (5, *shape)).astype(np.int16)
    flags[np.random.default_rng(3).random(flags.shape) < 0.6] = 0
    paths = []
    for index, (frame, flag) in enumerate(zip(frames, flags, strict=True)):
        planes = [array if array.ndim == 2 else np.moveaxis(array, 2, 0) for array in (frame, flag)]
        paths.append(tmp_path / f"{index}.fits")
        fits.HDUList([fits.PrimaryHDU(planes[0]), fits.ImageHDU(planes[1], name="DQ")]).writeto(paths[-1])
    found = stack(paths, mask_extension="DQ", dq_bits=bits, maps="all", rows_per_chunk=4)
    masks = list(flags != 0 if bits is None else flags & bits != 0)
    assert_same_bits(found, stack(frames, masks=masks, maps="all"))
    assert (found.given.mask_extension, found.given.dq_bits, found.given.arrays) == ("DQ", bits, ())


@pytest.mark.parametrize("shape", [SHAPE, (*SHAPE, 3)], ids=["mono", "color"])
def test_blank_is_missing(shape, tmp_path):
    frames = [np.rint(frame).astype(np.int16) for frame in make_frames(shape)]
    masks = [np.random.default_rng(index).random(shape) < 0.2 for index in range(5)]
    paths = []
    for index, (frame, mask) in enumerate(zip(frames, masks, strict=True)):
        stored = np.where(mask, np.int16(-32768), frame)
        paths.append(tmp_path / f"{index}.fits")
        hdu = fits.PrimaryHDU(stored if stored.ndim == 2 else np.moveaxis(stored, 2, 0))
        hdu.header["BLANK"] = -32768
        hdu.writeto(paths[-1])
    found = stack(paths, maps="all")
    expected = stack([frame.astype(np.float32) for frame in frames], masks=masks, maps="all")
    assert_same_bits(found, expected)
    assert found.frames[0].missing[0] == np.count_nonzero(masks[0].reshape(*SHAPE, -1)[..., 0])


def test_what_does_not_broadcast_is_refused():
    group = open_frames(make_frames())
    with pytest.raises(InvalidInputError, match=r"weights have the shape \(4, 1, 1\); expected \(5, 11, 14\)"):
        plane_stack(np.ones((4, 1, 1)), group, "weights")
