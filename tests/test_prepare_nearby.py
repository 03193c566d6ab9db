"""Few stars near their place: found among many strangers, and never among strangers alone."""

from __future__ import annotations

import numpy as np
import pytest

from zemosaic_stack_core.prepare.canvas.geometry import Affine
from zemosaic_stack_core.prepare.stars.nearby import nearby_map

CENTER = np.array([300.0, 200.0])


def moved(x: float, y: float, degrees: float) -> Affine:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    shift = CENTER - np.array([[c, -s], [s, c]]) @ CENTER + (x, y)
    return Affine(float(c), float(-s), float(shift[0]), float(s), float(c), float(shift[1]))


@pytest.mark.parametrize(("x", "y", "degrees"), [(0, 0, 0), (31, -12, 0), (-8, 20, 1.9), (3, 3, -2.9)])
@pytest.mark.parametrize("shared", [6, 12, 40])
def test_shared_stars_are_found_among_strangers(shared: int, x: float, y: float, degrees: float) -> None:
    random = np.random.default_rng(shared)
    own, strangers = (random.uniform(0, (600, 400), (60, 2)) for _ in range(2))
    true = moved(x, y, degrees)
    others = np.concatenate([true(own[:shared]) + random.normal(0, 0.05, (shared, 2)), strangers])
    found = nearby_map(own, others, CENTER)
    assert found is not None
    assert np.abs(found(own) - true(own)).max() < 0.5


@pytest.mark.parametrize("seed", range(12))
def test_strangers_alone_share_nothing(seed: int) -> None:
    random = np.random.default_rng(seed)
    own, others = (random.uniform(0, (600, 400), (count, 2)) for count in (60, 90))
    assert nearby_map(own, others, CENTER) is None
    assert nearby_map(own[:3], others, CENTER) is None
