"""CFA drizzle: each Bayer sample lands on the grid of its own color, nothing is interpolated, holes are missing."""

from __future__ import annotations

import numpy as np
import pytest
from samples import color_masks

from zemosaic_stack_core.prepare.canvas.cfa_drizzle import drizzle_cfa
from zemosaic_stack_core.prepare.canvas.geometry import Affine
from zemosaic_stack_core.prepare.canvas.resample import AffineMap
from zemosaic_stack_core.prepare.options import BAYER_PATTERNS

ROWS, COLUMNS = 20, 26


def mosaic(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).uniform(100, 900, (ROWS, COLUMNS)).astype(np.float32)


@pytest.mark.parametrize("pattern", BAYER_PATTERNS)
def test_in_place_every_sample_is_itself_and_the_rest_is_missing(pattern: str) -> None:
    samples = mosaic()
    found = drizzle_cfa(samples, pattern, AffineMap(Affine()), ROWS, COLUMNS)
    for channel, mask in enumerate(color_masks(pattern, ROWS, COLUMNS)):
        assert np.allclose(found[..., channel][mask], samples[mask], rtol=1e-6)
        assert np.isnan(found[..., channel][~mask]).all()


def test_four_shifts_fill_every_color() -> None:
    filled = np.zeros((ROWS, COLUMNS, 3), np.bool_)
    for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
        filled |= np.isfinite(drizzle_cfa(mosaic(), "GRBG", AffineMap(Affine(x0=dx, y0=dy)), ROWS, COLUMNS))
    assert filled[:-1, :-1].all()


def test_a_missing_sample_lands_nowhere() -> None:
    samples = mosaic()
    samples[4, 6] = np.nan
    found = drizzle_cfa(samples, "GRBG", AffineMap(Affine()), ROWS, COLUMNS)
    whole = drizzle_cfa(mosaic(), "GRBG", AffineMap(Affine()), ROWS, COLUMNS)
    assert np.isnan(found[4, 6, 1])
    assert np.isfinite(whole).sum() - np.isfinite(found).sum() == 1


def test_a_turned_frame_keeps_a_constant_and_uses_every_sample() -> None:
    c, s = np.cos(0.3), np.sin(0.3)
    turn = Affine(c, -s, 3.0, s, c, -4.0)
    found = drizzle_cfa(np.full((ROWS, COLUMNS), 50.0, np.float32), "RGGB", AffineMap(turn), 40, 50)
    assert np.allclose(found[np.isfinite(found)], 50.0, rtol=1e-5)
    where = np.isfinite(found).sum(axis=(0, 1))
    inside = np.isfinite(found).any(axis=2).sum()
    assert 0.2 * inside < where[0] < 0.6 * inside
    assert where[1] > 1.5 * where[0]


def test_flux_goes_with_the_area() -> None:
    half = Affine(0.5, 0, 0, 0, 0.5, 0)  # two output pixels per sample
    found = drizzle_cfa(np.full((ROWS, COLUMNS), 80.0, np.float32), "RGGB", AffineMap(half), 2 * ROWS, 2 * COLUMNS)
    assert np.nanmedian(found) == pytest.approx(20.0, rel=1e-5)


def test_only_affine_maps_are_taken() -> None:
    with pytest.raises(TypeError, match="affine"):
        drizzle_cfa(mosaic(), "RGGB", object(), ROWS, COLUMNS)  # type: ignore[arg-type]
