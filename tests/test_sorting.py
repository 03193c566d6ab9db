"""Sorting over the frame axis: both ways give what a plain sort gives, on every backend."""

import numpy as np
import pytest

from zemosaic_stack_core.kernel.sorting import NETWORK_FRAMES, sort_frames

COUNTS = [*range(1, 35), NETWORK_FRAMES - 1, NETWORK_FRAMES, NETWORK_FRAMES + 1, 100, 257]


def sorted_by(backend, cube):
    xp = backend.backend.xp
    ranks = sort_frames(xp, [backend.make(row) for row in cube])
    out = np.empty_like(cube)
    for row, rank in zip(out, ranks, strict=True):
        assert rank.shape == row.shape
        backend.backend.download(rank, row)
    return out


@pytest.mark.parametrize("n", COUNTS)
def test_sorts(n):
    rng = np.random.default_rng(n)
    cube = rng.normal(0.0, 100.0, (n, 41)).astype(np.float32)
    cube[:, 10:20] = rng.integers(-3, 3, (n, 10))  # ties
    cube[rng.random((n, 41)) < 0.1] = np.finfo(np.float32).max
    cube.flags.writeable = False
    ranks = sort_frames(np, list(cube))
    np.testing.assert_array_equal(np.stack(ranks), np.sort(cube, axis=0))


@pytest.mark.parametrize("n", [1, 2, 3, 7, 16, NETWORK_FRAMES + 5])
def test_sorts_on_every_backend(backend, n):
    cube = np.random.default_rng(n).normal(0.0, 1.0, (n, 9)).astype(np.float32)
    np.testing.assert_array_equal(sorted_by(backend, cube), np.sort(cube, axis=0))


@pytest.mark.parametrize("n", range(1, 15))
def test_the_network_sorts_every_pattern_of_zeros_and_ones(n):
    """The 0-1 principle (Knuth, 5.3.4): a network that sorts these sorts everything."""
    patterns = ((np.arange(2**n)[None, :] >> np.arange(n)[:, None]) & 1).astype(np.float32)
    np.testing.assert_array_equal(np.stack(sort_frames(np, list(patterns))), np.sort(patterns, axis=0))


def test_one_pixel():
    for n in (3, NETWORK_FRAMES + 1):
        rows = [np.asarray([float(-k)], dtype=np.float32) for k in range(n)]
        assert [float(rank[0]) for rank in sort_frames(np, rows)] == sorted(float(-k) for k in range(n))
