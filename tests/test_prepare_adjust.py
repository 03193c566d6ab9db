"""All overlaps at once: a long night's frames are adjusted together, and one bad pair does no harm."""

from __future__ import annotations

import tracemalloc

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.stars import star_lists
from zemosaic_stack_core.prepare.canvas.geometry import Affine
from zemosaic_stack_core.prepare.stars.adjust import Ties, adjust
from zemosaic_stack_core.prepare.stars.fluxes import overlapping_pairs
from zemosaic_stack_core.prepare.stars.register import register_frames

Points = npt.NDArray[np.float64]


def drifting(count: int, stars: int) -> tuple[list[Ties], Points, Points]:
    """Return what frames that drift by 3 pixels each share, their centers, and how far their places are off."""
    random = np.random.default_rng(4)
    centers = np.column_stack([3.0 * np.arange(count), random.normal(0, 5, count)])
    off = random.normal(0, 0.3, (count, 2))
    off[0] = 0
    pairs = [(index, index + step) for index in range(count) for step in (1, 2) if index + step < count]
    ties = []
    for first, second in [*pairs, *((0, index) for index in range(3, count, 7))]:
        at = random.uniform(0, 1000, (stars, 2)) + centers[first]
        ends = (at + off[index] + random.normal(0, 0.03, at.shape) for index in (first, second))
        ties.append(Ties.of(first, second, *ends))
    return ties, centers, off


def apart(moves: list[Affine], centers: Points, off: Points) -> Points:
    return np.array([move([at])[0] - at + by for move, at, by in zip(moves, centers, off, strict=True)])


def test_places_of_a_night_agree_and_one_bad_pair_does_no_harm() -> None:
    ties, centers, off = drifting(60, 80)
    ties[30] = Ties.of(ties[30].first, ties[30].second, ties[30].one + 7.0, ties[30].other)
    moves = adjust(ties, centers, 700.0, 0, (1.0, 0.5))
    assert np.abs(apart(moves, centers, off)).max() < 0.05
    assert moves[0] == Affine()


@pytest.mark.slow
def test_a_long_night_is_adjusted_in_the_memory_of_its_overlaps() -> None:
    ties, centers, off = drifting(1500, 20)
    tracemalloc.start()
    moves = adjust(ties, centers, 700.0, 0, (1.0, 0.5))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.abs(apart(moves, centers, off)).max() < 0.2
    assert peak < 80e6  # a matrix of everything by everything has 160


def test_one_frame_needs_no_adjustment() -> None:
    assert adjust([], np.zeros((1, 2)), 700.0, 0, (1.0, 0.5)) == [Affine()]


def test_pairs_are_with_the_nearest_and_the_reference() -> None:
    lists = star_lists(9, 60)
    maps = [Affine(x0=40.0 * index) for index in range(8)] + [None]
    pairs = overlapping_pairs(lists, maps, 0)
    assert {(0, index) for index in range(1, 8)} <= set(pairs)
    assert (3, 4) in pairs
    assert (1, 7) not in pairs
    assert all(8 not in pair and pair[0] < pair[1] for pair in pairs)
    assert overlapping_pairs(lists, [None] * 9, 0) == []
    same = overlapping_pairs(lists, [Affine()] * 9, 0)  # all at one place
    assert all(len({pair for pair in same if index in pair}) >= 4 for index in range(9))


def test_the_drift_of_a_night_is_followed() -> None:
    lists = star_lists(40, 60)
    found = register_frames(lists, min_stars=6, max_residual=1.0, names=[str(index) for index in range(40)])
    assert found.good == 40
    turns = np.array([place.transform.rotation for place in found.places if place.transform is not None])
    assert np.allclose(np.diff(turns), -0.003, atol=0.003)
