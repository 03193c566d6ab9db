"""Bayer patterns: read, checked against the sky, interpolated."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from samples import color_masks
from scipy.ndimage import convolve

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.prepare.frame_set import FrameSet
from zemosaic_stack_core.prepare.headers.raw_frame import inspect_frame
from zemosaic_stack_core.prepare.options import BAYER_PATTERNS, PrepareOptions
from zemosaic_stack_core.prepare.sensor.debayer import debayer, pattern_problem


def mosaic_of(planes: np.ndarray, pattern: str) -> np.ndarray:
    masks = color_masks(pattern, *planes.shape[:2])
    return sum(planes[..., c] * masks[c] for c in range(3)).astype(np.float32)


@pytest.mark.parametrize("pattern", BAYER_PATTERNS)
@pytest.mark.parametrize("shape", [(20, 24), (21, 23)])
def test_measured_samples_stay_and_gradients_are_exact(pattern: str, shape: tuple[int, int]) -> None:
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    # Colors that differ by constants: the filters are exact for those, linear gradients included.
    planes = np.stack([100 + 2 * x + y, 300 + 2 * x + y, 50 + 2 * x + y], axis=-1)
    mosaic = mosaic_of(planes, pattern)
    found = debayer(mosaic, pattern)
    for channel, mask in enumerate(color_masks(pattern, *shape)):
        assert np.array_equal(found[..., channel][mask], mosaic[mask])
    inner = (slice(2, -2), slice(2, -2))
    assert np.allclose(found[inner], planes[inner], atol=1e-3)


# Malvar, He and Cutler's filters, times 8: green at another color, a color at a green beside it (transposed: above it),
# and the color that a red or blue pixel is opposite to.
GREEN = [[0, 0, -1, 0, 0], [0, 0, 2, 0, 0], [-1, 2, 4, 2, -1], [0, 0, 2, 0, 0], [0, 0, -1, 0, 0]]
BESIDE = [[0, 0, 0.5, 0, 0], [0, -1, 0, -1, 0], [-1, 4, 5, 4, -1], [0, -1, 0, -1, 0], [0, 0, 0.5, 0, 0]]
OPPOSITE = [[0, 0, -1.5, 0, 0], [0, 2, 0, 2, 0], [-1.5, 0, 6, 0, -1.5], [0, 2, 0, 2, 0], [0, 0, -1.5, 0, 0]]


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("pattern", BAYER_PATTERNS)
@pytest.mark.parametrize("shape", [(70, 33), (3, 4)])
def test_colors_are_those_of_the_filters(pattern: str, shape: tuple[int, int]) -> None:
    mosaic = np.random.default_rng(3).normal(1000, 100, shape).astype(np.float32)
    filters = [GREEN, BESIDE, np.transpose(BESIDE), OPPOSITE]
    green, beside, above, opposite = (convolve(mosaic, np.array(kernel) / 8, mode="mirror") for kernel in filters)
    found = debayer(mosaic, pattern)
    for row, column in np.ndindex(shape):
        own, neighbor = pattern[2 * (row % 2) + column % 2], pattern[2 * (row % 2) + 1 - column % 2]
        for channel, color in enumerate("RGB"):
            if color == own:
                wanted = mosaic
            elif own == "G":
                wanted = beside if color == neighbor else above
            else:
                wanted = green if color == "G" else opposite
            assert found[row, column, channel] == pytest.approx(wanted[row, column], rel=1e-6)


def test_a_star_keeps_flux_and_color() -> None:
    y, x = np.mgrid[:61, :61]
    star = np.exp(-((x - 30.3) ** 2 + (y - 29.8) ** 2) / (2 * 1.3**2))
    planes = star[..., np.newaxis] * np.array([1500.0, 1000.0, 600.0])
    found = debayer(mosaic_of(planes, "GRBG"), "GRBG")
    ratio = found.sum(axis=(0, 1)) / planes.sum(axis=(0, 1))
    assert np.allclose(ratio, 1.0, atol=0.01)


@pytest.mark.parametrize("pattern", BAYER_PATTERNS)
def test_the_sky_says_where_green_is(pattern: str) -> None:
    random = np.random.default_rng(3)
    planes = np.broadcast_to(np.array([700.0, 820.0, 640.0]), (200, 220, 3))
    mosaic = mosaic_of(planes, pattern) + random.normal(0, 25, (200, 220)).astype(np.float32)
    wrong = [other for other in BAYER_PATTERNS if pattern_problem(mosaic, other)]
    assert sorted(wrong) == sorted(p for p in BAYER_PATTERNS if (p[0] == "G") != (pattern[0] == "G"))
    assert "by --bayer-pattern" in pattern_problem(mosaic, wrong[0])
    assert "no BAYERPAT, but the pixels look like a Bayer mosaic" in pattern_problem(mosaic, None)


def test_a_mono_sky_is_not_called_a_mosaic() -> None:
    random = np.random.default_rng(4)
    mono = random.normal(500, 20, (200, 220)).astype(np.float32)
    interlaced = mono.copy()
    interlaced[::2] += 15  # odd and even rows of an interline chip
    assert pattern_problem(mono, None) == ""
    assert pattern_problem(interlaced, None) == ""


@pytest.mark.parametrize(
    ("cards", "rows", "expected"),
    [
        ({"BAYERPAT": "GRBG"}, 20, "GRBG"),
        ({"BAYERPAT": "RGGB", "ROWORDER": "TOP-DOWN"}, 20, "RGGB"),
        ({"BAYERPAT": "RGGB", "ROWORDER": "BOTTOM-UP"}, 20, "GBRG"),
        ({"BAYERPAT": "RGGB", "ROWORDER": "BOTTOM-UP"}, 21, "RGGB"),
        ({"BAYERPAT": "RGGB", "XBAYROFF": 1}, 20, "GRBG"),
        ({"BAYERPAT": "RGGB", "YBAYROFF": 1}, 20, "GBRG"),
        ({"BAYERPAT": "RGGB", "XBAYROFF": 1, "YBAYROFF": 1}, 20, "BGGR"),
        ({"BAYERPAT": "RGGB", "ROWORDER": "BOTTOM-UP", "YBAYROFF": 1}, 20, "RGGB"),
        ({}, 20, None),
    ],
)
def test_the_header_says_the_pattern(tmp_path, cards: dict[str, object], rows: int, expected: str | None) -> None:
    header = fits.Header(list(cards.items()))
    fits.PrimaryHDU(np.zeros((rows, 16), np.uint16), header).writeto(tmp_path / "a.fits")
    assert inspect_frame(tmp_path / "a.fits").pattern == expected


def test_an_unknown_pattern_is_asked_about(tmp_path) -> None:
    fits.PrimaryHDU(np.zeros((8, 8), np.uint16), fits.Header([("BAYERPAT", "RGBW")])).writeto(tmp_path / "a.fits")
    with pytest.raises(InvalidInputError, match=r"a\.fits: BAYERPAT is 'RGBW'; expected .*--bayer-pattern"):
        FrameSet([inspect_frame(tmp_path / "a.fits")], []).pattern(PrepareOptions())
