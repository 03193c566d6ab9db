"""Affine maps, the canvas and its WCS."""

from __future__ import annotations

import math

import numpy as np
import pytest

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.prepare.canvas.geometry import Affine, corners_of, fit_affine, fit_similarity, union_canvas
from zemosaic_stack_core.prepare.canvas.wcs import parse_wcs, placed_wcs


def similarity(degrees: float, scale: float, x: float, y: float, *, mirrored: bool = False) -> Affine:
    c, s = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    side = -1.0 if mirrored else 1.0
    return Affine(c, -side * s, x, s, side * c, y)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("degrees", [-170.0, -33.3, 0.0, 121.0, 180.0])
def test_a_similarity_is_recovered_from_points(degrees: float, mirrored: bool) -> None:
    true = similarity(degrees, 1.2, 40.0, -7.5, mirrored=mirrored)
    points = np.random.default_rng(1).uniform(0, 500, (20, 2))
    found = fit_similarity(points, true(points), mirrored=mirrored)
    assert np.allclose(found(points), true(points), atol=1e-9)
    assert found.scale == pytest.approx(1.2)
    assert found.is_mirrored is mirrored
    assert abs((found.rotation - degrees + 180) % 360 - 180) < 1e-6


def test_weights_decide_between_points_that_disagree() -> None:
    points = np.array([(0.0, 0.0), (10.0, 0.0), (0.0, 10.0), (10.0, 10.0)])
    moved = points + np.array([1.0, 0.0])
    moved[3] += (5.0, 5.0)
    found = fit_similarity(points, moved, np.array([1.0, 1.0, 1.0, 0.0]))
    assert np.allclose(found(points[:3]), moved[:3])


def test_an_affine_map_is_recovered_from_points() -> None:
    true = Affine(1.01, 0.02, 3.0, -0.01, 0.97, -8.0)
    points = np.random.default_rng(2).uniform(0, 500, (12, 2))
    assert np.allclose(fit_affine(points, true(points))(points), true(points), atol=1e-9)


def test_inverse_and_composition_agree() -> None:
    first, second = similarity(20, 1.1, 3, 4), Affine(1.01, 0.02, 3.0, -0.01, 0.97, -8.0)
    points = np.random.default_rng(3).uniform(0, 500, (12, 2))
    assert np.allclose(first.inverse()(first(points)), points)
    assert np.allclose(first.then(second)(points), second(first(points)))
    assert first.moved(5, -6)(points) == pytest.approx(first(points) + np.array([5, -6]))


def test_a_single_frame_is_its_own_canvas() -> None:
    canvas = union_canvas([Affine()(corners_of(30, 50))], 30, 50)
    assert (canvas.rows, canvas.columns, canvas.x, canvas.y) == (30, 50, 0, 0)


def test_the_canvas_holds_every_pixel_center_and_no_more() -> None:
    maps = [Affine(), Affine(x0=-3.5, y0=7.25), Affine(x0=10.0)]
    canvas = union_canvas([m(corners_of(30, 50)) for m in maps], 30, 50)
    # columns -3.5 ... 59, rows 0 ... 36.25
    assert (canvas.columns, canvas.x) == (3 + 60, 3)
    assert (canvas.rows, canvas.y) == (37, 0)


def test_a_turned_frame_widens_the_canvas() -> None:
    turned = similarity(90, 1.0, 29.0, 0.0)
    canvas = union_canvas([Affine()(corners_of(30, 50)), turned(corners_of(30, 50))], 30, 50)
    assert (canvas.rows, canvas.columns) == (50, 50)


def test_frames_that_are_worlds_apart_are_refused() -> None:
    far = Affine(x0=5000.0, y0=3000.0)
    with pytest.raises(InvalidInputError, match="canvas of 3030 x 5050; expected at most 36 times a frame of 30 x 50"):
        union_canvas([Affine()(corners_of(30, 50)), far(corners_of(30, 50))], 30, 50)


def wcs_header() -> str:
    from astropy.wcs import WCS

    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [83.6, 22.0]
    wcs.wcs.crpix = [100.5, 80.5]
    wcs.wcs.cd = [[-3e-4, 1e-5], [1e-5, 3e-4]]
    return str(wcs.to_header().tostring(padding=False, endcard=False))


@pytest.mark.parametrize(
    "transform", [Affine(x0=12.0, y0=-4.0), similarity(121, 0.999, 300, 40), Affine(-1, 0, 99, 0, 1, 3)]
)
def test_the_wcs_goes_where_the_pixels_go(transform: Affine) -> None:
    header = wcs_header()
    points = np.random.default_rng(4).uniform(0, 200, (10, 2))
    cards = placed_wcs(header, transform)
    assert cards is not None
    before = parse_wcs(header).wcs_pix2world(points, 0)
    after = parse_wcs(cards).wcs_pix2world(transform(points), 0)
    assert np.allclose(before, after, atol=1e-9)
