"""Triangles that look alike vote for a map: found whatever the turn, quick where there is nothing to find."""

from __future__ import annotations

import math

import numpy as np
import pytest

from zemosaic_stack_core.prepare.canvas.geometry import Affine
from zemosaic_stack_core.prepare.stars.asterisms import asterism_guesses

SHAPE = (600, 800)
CORNERS = np.array([(0.0, 0.0), (799.0, 0.0), (799.0, 599.0), (0.0, 599.0)])


def similarity(degrees: float, scale: float, *, mirrored: bool) -> Affine:
    c, s = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    side = -1.0 if mirrored else 1.0
    return Affine(side * c, -s, 412.0, side * s, c, 97.0)


def points(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 1, (count, 2)) * (800, 600)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("scale", [0.5, 1.0, 2.3])
@pytest.mark.parametrize("degrees", [0.0, 37.0, 121.0, 180.0])
def test_the_map_is_the_first_guess(degrees: float, scale: float, mirrored: bool) -> None:
    true = similarity(degrees, scale, mirrored=mirrored)
    source = points(1, 40)
    random = np.random.default_rng(2)
    target = true(source) + random.normal(0, 0.1, source.shape)
    target = random.permutation(target[random.random(40) > 0.3])  # a third is lost, brightness says nothing
    (guess, votes), *_ = asterism_guesses(source, target, SHAPE, 6)
    assert np.abs(guess(CORNERS) - true(CORNERS)).max() < 8.0
    assert guess.is_mirrored == mirrored
    assert votes >= 20


def test_unrelated_points_win_few_votes() -> None:
    guesses = asterism_guesses(points(3, 40), points(4, 40), SHAPE, 6)
    assert len(guesses) <= 6
    assert all(votes < 20 for _, votes in guesses)


def test_four_stars_are_enough() -> None:
    source = np.array([(100.0, 80.0), (600.0, 150.0), (350.0, 500.0), (720.0, 420.0)])
    true = similarity(121.0, 1.0, mirrored=False)
    (guess, _), *_ = asterism_guesses(source, true(source), SHAPE, 6)
    assert np.abs(guess(CORNERS) - true(CORNERS)).max() < 1e-6


@pytest.mark.parametrize("count", [0, 2])
def test_fewer_than_three_say_nothing(count: int) -> None:
    assert asterism_guesses(points(5, count), points(6, 40), SHAPE, 6) == []
    assert asterism_guesses(points(6, 40), points(5, count), SHAPE, 6) == []


def test_points_in_one_line_say_nothing() -> None:
    line = np.column_stack([np.linspace(0, 700, 12), np.full(12, 300.0)])
    assert asterism_guesses(line, line, SHAPE, 6) == []
