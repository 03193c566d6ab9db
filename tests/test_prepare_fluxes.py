"""Flux ratios of frames that share no stars with the reference come over those that do, and wide apertures agree."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from stars import list_stars

from zemosaic_stack_core.prepare.canvas.geometry import Affine
from zemosaic_stack_core.prepare.stars.detect import APERTURES, StarList, detect_stars
from zemosaic_stack_core.prepare.stars.fluxes import flux_ratios

SKY = np.random.default_rng(3)
PLACES = SKY.uniform(0, 1, (600, 2)) * (900, 200)
LIGHT = 1000 * SKY.random(600) ** -0.8


def frame(left: float, dimmed: float, *, columns: int = 300) -> tuple[StarList, Affine]:
    """Return the stars that a frame at this place of the sky sees, and its map to the frame at 0."""
    inside = (PLACES[:, 0] > left + 3) & (PLACES[:, 0] < left + columns - 4)
    flux = dimmed * LIGHT[inside] * (1 + 0.01 * np.random.default_rng(round(left)).standard_normal(inside.sum()))
    stars = list_stars(PLACES[inside] - (left, 0.0), flux, 0.01 * flux, (200, columns))
    return stars, Affine(x0=left)


def test_a_chain_is_followed() -> None:
    lists, maps = zip(frame(0, 1.0), frame(200, 0.5), frame(400, 0.8), frame(600, 1.25), strict=True)
    found = flux_ratios(lists, maps, 0, [math.nan] * 4)
    assert found == pytest.approx([1.0, 2.0, 1.25, 0.8], rel=0.01)


def test_without_common_stars_nothing_tells() -> None:
    lists, maps = zip(frame(0, 1.0), frame(150, 0.9), frame(600, 0.5), strict=True)
    found = flux_ratios(lists, maps, 0, [30.0] * 3)
    assert found[:2] == pytest.approx([1.0, 1 / 0.9], rel=0.01)
    assert math.isnan(found[2])
    empty = replace(lists[0], x=np.zeros(0), y=np.zeros(0), flux=np.zeros(0), error=np.zeros(0))
    assert math.isnan(flux_ratios([lists[0], empty], maps[:2], 0, [30.0] * 2)[1])


def test_groups_apart_are_tied_by_their_exposure_times() -> None:
    lists, maps = zip(frame(0, 1.0), frame(500, 2.0), frame(580, 2.2), strict=True)
    found = flux_ratios(lists, maps, 0, [10.0, 20.0, 20.0])
    assert found[1] / found[2] == pytest.approx(1.1, rel=0.01)
    assert math.sqrt(found[1] * found[2]) == pytest.approx(0.5, rel=0.01)


def test_two_frames_are_compared_within_one_aperture() -> None:
    y, x = np.mgrid[:120, :150]
    image = np.random.default_rng(1).normal(100, 2, (120, 150))
    for place in SKY.uniform(20, 100, (25, 2)):
        image += 4000 * np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / (2 * 1.4**2))
    stars = detect_stars(image.astype(np.float32))
    assert stars.ladder is not None
    light, wider = stars.light_with(replace(stars, fwhm=2 * stars.fwhm))
    assert np.array_equal(light, wider)
    assert np.array_equal(light, stars.ladder[:, np.searchsorted(APERTURES, 3 * stars.fwhm)])
    assert np.array_equal(stars.light_with(replace(stars, ladder=None))[0], stars.flux)
    assert stars.fwhm == pytest.approx(2.3548 * math.hypot(1.4, 0.0), rel=0.1)


def test_a_crowd_makes_stars_no_wider() -> None:
    random = np.random.default_rng(5)
    y, x = np.mgrid[:256, :256]
    image = random.normal(100, 3, (256, 256))
    for place in random.uniform(10, 245, (500, 2)):  # a crowd: a star every 11 pixels
        box = (slice(int(place[1]) - 8, int(place[1]) + 9), slice(int(place[0]) - 8, int(place[0]) + 9))
        flux = 200 * random.random() ** -1.0
        image[box] += flux * np.exp(-((x[box] - place[0]) ** 2 + (y[box] - place[1]) ** 2) / (2 * 1.2**2))
    assert 2.4 < detect_stars(image.astype(np.float32)).fwhm < 4.0
