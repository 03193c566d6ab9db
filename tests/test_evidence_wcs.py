"""Places by WCS: confirmed, contradicted or not told by stars; mosaics of which every overlap must agree."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from stars import list_stars

from zemosaic_stack_core.prepare.align import Placement, place_frames
from zemosaic_stack_core.prepare.canvas.wcs import WcsMap, pixel_to_pixel
from zemosaic_stack_core.prepare.headers.raw_frame import RawFrame
from zemosaic_stack_core.prepare.options import PrepareOptions
from zemosaic_stack_core.prepare.stars.detect import StarList

pytestmark = pytest.mark.slow

ROWS, COLUMNS = 400, 600
SCALE = 5e-4
_Values = npt.NDArray[np.float64]


def header(x: float = 0.0, y: float = 0.0, degrees: float = 0.0, ra: float = 120.0) -> str:
    """Return the WCS of a frame whose first pixel lies at (x, y) of the sky's plane, turned about its center."""
    wcs = WCS(naxis=2)
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], [ra, 40.0]
    wcs.wcs.crpix = np.array([COLUMNS / 2, ROWS / 2]) + np.array([[c, s], [-s, c]]) @ (-x, -y) + 0.5
    wcs.wcs.cd = np.array([[-c, s], [s, c]]) * SCALE
    return str(wcs.to_header().tostring(padding=False, endcard=False))


class Mosaic:
    """Tiles of a grid: where they are, what their headers say, and the stars they see."""

    def __init__(self, across: int, down: int, overlap: float, *, density: float, error: float, seed: int = 1) -> None:
        random = np.random.default_rng(seed)
        step = np.array([COLUMNS, ROWS]) * (1 - overlap)
        grid = [(column * step[0], row * step[1]) for row in range(down) for column in range(across)]
        turns = random.uniform(-1, 1, len(grid))
        self.truth = [header(x, y, turn) for (x, y), turn in zip(grid, turns, strict=True)]
        off = random.uniform(-error, error, (len(grid), 3))
        self.claims = [
            header(x + dx, y + dy, turn + 0.03 * dt / max(error, 1e-9) * error)
            for (x, y), turn, (dx, dy, dt) in zip(grid, turns, off, strict=True)
        ]
        low, high = np.array([-60.0, -60.0]), np.add(grid[-1], (COLUMNS + 60, ROWS + 60))
        count = int(density * np.prod((high - low) / (COLUMNS, ROWS)))
        sky = random.uniform(low, high, (count, 2))
        flux = 2000 * np.exp(random.uniform(0, 4, count))
        self.lists = []
        for tile in self.truth:
            points = pixel_to_pixel(header(), tile, sky)
            inside = np.all((points > 4) & (points < (COLUMNS - 5, ROWS - 5)), axis=1)
            places = points[inside] + random.normal(0, 0.03, (int(inside.sum()), 2))
            self.lists.append(list_stars(places, flux[inside], 20.0, (ROWS, COLUMNS)))

    def placed(self, **options: object) -> Placement:
        return placed(self.claims, self.lists, **options)

    def worst_overlap(self, placement: Placement, skip: Sequence[int] = ()) -> float:
        """Return how far two frames at most disagree about a place that both see, pixels."""
        used = [i for i, place in enumerate(placement.places) if place.transform is not None]
        canvas = placement.canvas(used)
        seen: list[tuple[int, _Values, npt.NDArray[np.bool_]]] = []
        reference = self.truth[placement.reference]
        for index in used:
            mapping = placement.map_from(canvas, index)
            assert mapping is not None
            places = [mapping.places(row, row + 1, canvas.columns) for row in range(0, canvas.rows, 40)]
            on = np.stack([np.stack([px[0, ::40], py[0, ::40]], axis=-1) for px, py in places]).reshape(-1, 2)
            inside = np.all((on >= 0) & (on <= (COLUMNS - 1, ROWS - 1)), axis=1)
            there = np.full(on.shape, np.nan)
            there[inside] = pixel_to_pixel(self.truth[index], reference, on[inside])
            seen.append((index, there, inside))
        worst = 0.0
        for place, (first, one, a) in enumerate(seen):
            for second, other, b in seen[place + 1 :]:
                both = a & b
                if both.sum() > 2 and not {first, second} & set(skip):
                    worst = max(worst, float(np.median(np.hypot(*(one - other)[both].T))))
        return worst


def placed(headers: Sequence[str], lists: Sequence[StarList], **options: object) -> Placement:
    frames = [
        RawFrame(path=Path(f"{i}.fits"), name=f"{i}.fits", rows=ROWS, columns=COLUMNS, channels=1, wcs_header=text,
                 wcs_place=(text,))
        for i, text in enumerate(headers)
    ]  # fmt: skip
    return place_frames(frames, lists, PrepareOptions(**options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("across", "down", "overlap", "density", "error"),
    [(4, 2, 0.1, 300, 0.4), (4, 2, 0.2, 120, 0.6), (5, 4, 0.15, 200, 0.4), (6, 5, 0.1, 400, 0.3), (2, 4, 0.12, 250, 0)],
)
def test_every_overlap_of_a_mosaic_agrees(across: int, down: int, overlap: float, density: float, error: float) -> None:
    mosaic = Mosaic(across, down, overlap, density=density, error=error)
    placement = mosaic.placed()
    assert placement.alignment == "wcs"
    assert not any(place.reason for place in placement.places)
    assert mosaic.worst_overlap(placement) < 0.15


@pytest.mark.parametrize("wrong", [None, 6])
@pytest.mark.parametrize(
    ("across", "down", "overlap", "density", "error"),
    [(4, 2, 0.15, 40, 0.4), (5, 4, 0.15, 60, 0.3), (6, 5, 0.2, 40, 0.6), (5, 4, 0.12, 80, 0.4)],
)
def test_overlaps_of_three_to_ten_stars_agree(
    across: int, down: int, overlap: float, density: float, error: float, wrong: int | None
) -> None:
    mosaic = Mosaic(across, down, overlap, density=density, error=error)
    if wrong is not None:
        corner = WCS(fits.Header.fromstring(mosaic.claims[wrong])).wcs.crpix
        mosaic.claims[wrong] = header(COLUMNS / 2 + 9.5 - corner[0], ROWS / 2 + 5.5 - corner[1], 1.0)
    placement = mosaic.placed()
    assert placement.alignment == "wcs"
    assert not any(place.reason for index, place in enumerate(placement.places) if index != wrong)
    assert mosaic.worst_overlap(placement) < 0.15
    assert wrong is None or placement.places[wrong].is_by_stars


@pytest.mark.parametrize(("x", "y", "degrees"), [(9, 5, 1), (-25, 12, -2), (3, 0, 0.5)])
@pytest.mark.parametrize("wrong", [0, 3, 5])
def test_a_wrong_solve_with_few_common_stars_is_registered_by_all_around(
    wrong: int, x: float, y: float, degrees: float
) -> None:
    mosaic = Mosaic(4, 2, 0.2, density=40, error=0.3)
    corner = WCS(fits.Header.fromstring(mosaic.claims[wrong])).wcs.crpix
    mosaic.claims[wrong] = header(COLUMNS / 2 + 0.5 + x - corner[0], ROWS / 2 + 0.5 + y - corner[1], degrees)
    placement = mosaic.placed()
    assert placement.alignment == "wcs"
    assert placement.places[wrong].is_by_stars
    assert "registered on its stars" in placement.places[wrong].note
    assert mosaic.worst_overlap(placement) < 0.3  # seven stars of one side know the turn to 0.03 degrees


@pytest.mark.parametrize(
    ("x", "y", "degrees", "ra"), [(9, 0, 0, 120), (0, 150, 3, 120), (0, 0, 0, 120.5), (0, 0, 0, 125), (0, 0, 0, 300)]
)
@pytest.mark.parametrize("wrong", [0, 5])
def test_one_wrong_solve_is_put_right_by_its_stars(wrong: int, x: float, y: float, degrees: float, ra: float) -> None:
    mosaic = Mosaic(4, 2, 0.2, density=400, error=0.3)
    own = WCS(fits.Header.fromstring(mosaic.claims[wrong]))
    corner = own.wcs.crpix
    mosaic.claims[wrong] = header(-(corner[0] - COLUMNS / 2 - 0.5) + x, -(corner[1] - ROWS / 2 - 0.5) + y, degrees, ra)
    placement = mosaic.placed()
    assert placement.alignment == "wcs"
    assert placement.places[wrong].reason or placement.places[wrong].is_by_stars
    assert sum(place.is_by_stars for place in placement.places) <= 1
    assert mosaic.worst_overlap(placement) < 0.15


def test_a_corner_with_few_common_stars_is_silence() -> None:
    mosaic = Mosaic(4, 2, 0.15, density=150, error=0.2)
    bare = header(0.85 * 3 * COLUMNS + 0.5 * COLUMNS, 0.85 * ROWS + 0.8 * ROWS)
    points = pixel_to_pixel(header(), bare, np.random.default_rng(3).uniform(1500, 2600, (6, 2)))
    mosaic.truth.append(bare)
    mosaic.claims.append(bare)
    mosaic.lists.append(list_stars(points, np.full(6, 9000.0), 20.0, (ROWS, COLUMNS)))
    placement = mosaic.placed()
    assert placement.alignment == "wcs"
    assert placement.places[-1].note == "no star confirms its WCS"
    assert mosaic.worst_overlap(placement, skip=[8]) < 0.15


def test_a_frame_of_other_stars_is_dropped_by_name() -> None:
    mosaic = Mosaic(3, 2, 0.3, density=300, error=0.2)
    points = np.random.default_rng(9).uniform(5, 390, (200, 2))
    mosaic.lists[4] = list_stars(points, np.linspace(90000, 9000, 200), 20.0, (ROWS, COLUMNS))
    placement = mosaic.placed()
    assert placement.places[4].reason == "its stars contradict its WCS and match no other frame's"
    assert sum(place.transform is not None for place in placement.places) == 5


def test_wrong_solves_of_most_frames_leave_the_stars() -> None:
    mosaic = Mosaic(1, 1, 0.1, density=300, error=0.0)
    claims = [header(i * 7.0, i * 3.0) for i in range(5)]
    placement = placed(claims, mosaic.lists * 5)
    assert placement.alignment == "stars"
    assert "px off" in placement.why or "not confirmed" in placement.why


def test_who_insists_on_the_wcs_gets_it() -> None:
    mosaic = Mosaic(3, 2, 0.2, density=300, error=0.4)
    placement = mosaic.placed(align="wcs")
    mapping = placement.map_from(placement.canvas(range(6)), 1 if placement.reference != 1 else 2)
    assert isinstance(mapping, WcsMap)
    assert mapping.correction.largest_move(ROWS, COLUMNS) < 1e-6


def test_a_chain_of_stars_is_adjusted_as_one() -> None:
    mosaic = Mosaic(3, 3, 0.3, density=500, error=0.0)
    placement = mosaic.placed(align="stars")
    assert any(place.is_bridged for place in placement.places)
    assert mosaic.worst_overlap(placement) < 0.15
