"""Registration of star lists: found to a hundredth of a pixel, or refused with one clear line."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from stars import list_stars

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.prepare.canvas.geometry import Affine
from zemosaic_stack_core.prepare.stars.detect import StarList, detect_stars
from zemosaic_stack_core.prepare.stars.match import chance_matches, find_match
from zemosaic_stack_core.prepare.stars.register import Registration, register_frames
from zemosaic_stack_core.synthetic.raw_night import RawNight

ROWS, COLUMNS = 600, 800
Points = npt.NDArray[np.float64]


def turned(degrees: float, x: float = 0.0, y: float = 0.0, *, mirrored: bool = False) -> Affine:
    """Turn about the middle of the frame, then move."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    side = -1.0 if mirrored else 1.0
    mx, my = (COLUMNS - 1) / 2, (ROWS - 1) / 2
    return Affine(side * c, -s, mx - side * c * mx + s * my + x, side * s, c, my - side * s * mx - c * my + y)


def is_similarity(t: Affine) -> bool:
    return math.isclose(t.xx, t.yy, abs_tol=1e-9) and math.isclose(t.xy, -t.yx, abs_tol=1e-9)


class Sky:
    """Stars on the grid of the first frame, seen by frames."""

    def __init__(self, seed: int, count: int = 150, reach: float = 1000.0) -> None:
        random = np.random.default_rng(seed)
        self.places = random.uniform(-300, reach, (count * 3, 2))
        self.flux = 1000 * (1 - random.random(count * 3)) ** -1.2

    def seen(self, to_sky: Affine, seed: int, *, fixed: Points | None = None, lost: float = 0.1) -> StarList:
        random = np.random.default_rng(seed)
        places = to_sky.inverse()(self.places) + random.normal(0, 0.03, self.places.shape)
        flux = self.flux * random.normal(1, 0.05, len(self.flux))
        keep = (random.random(len(flux)) > lost) & np.all((places > 5) & (places < (COLUMNS - 6, ROWS - 6)), axis=1)
        places, flux = places[keep], flux[keep]
        if fixed is not None:
            places = np.concatenate([places, fixed + random.normal(0, 0.02, fixed.shape)])
            flux = np.concatenate([flux, np.full(len(fixed), 20000.0) * random.normal(1, 0.02, len(fixed))])
        return star_list(places, flux)


def star_list(places: Points, flux: Points) -> StarList:
    return list_stars(places, flux, 30.0, (ROWS, COLUMNS), noise=10.0)


def register(lists: list[StarList], **options: object) -> Registration:
    names = [f"frame_{i}.fits" for i in range(len(lists))]
    return register_frames(lists, **{"min_stars": 6, "max_residual": 1.0, "names": names, **options})  # type: ignore[arg-type]


def errors(found: Registration, truth: list[Affine]) -> list[float]:
    corners = np.array([(0.0, 0.0), (COLUMNS, 0.0), (COLUMNS, ROWS), (0.0, ROWS)])
    result = []
    for place, true in zip(found.places, truth, strict=True):
        assert place.transform is not None, place.reason
        wanted = true.then(truth[found.reference].inverse())
        result.append(float(np.hypot(*(place.transform(corners) - wanted(corners)).T).max()))
    return result


@pytest.mark.parametrize(
    "truth",
    [
        [Affine(), turned(0, 3.3, -2.7), turned(0.4, -8, 11)],
        [Affine(), turned(121.5, 40, -30), turned(122, 30, -20)],
        [Affine(), turned(180, 14, -6), turned(179.2, 4, 9), turned(0.3)],
        [Affine(), turned(15, 5, 5, mirrored=True), turned(0.5)],
        [Affine(), Affine(1.02, 0, 7, 0, 1.02, -3)],
        [Affine(), Affine(), Affine()],
    ],
    ids=["shifts", "121 degrees", "meridian flip", "mirrored", "scale", "nothing moves"],
)
def test_places_are_found(truth: list[Affine]) -> None:
    sky = Sky(1)
    found = register([sky.seen(t, 10 + i) for i, t in enumerate(truth)])
    assert max(errors(found, truth)) < 0.05


def test_an_affine_distortion_is_followed_where_residuals_ask_for_it() -> None:
    true = Affine(1.003, 0.001, 5.0, 0.0005, 0.997, -3.0)
    sky = Sky(2)
    match = find_match(sky.seen(true, 1), sky.seen(Affine(), 2))
    assert match is not None
    assert not is_similarity(match.transform)
    assert match.residual < 0.06
    assert max(errors(register([sky.seen(Affine(), 2), sky.seen(true, 1)]), [Affine(), true])) < 0.05


def test_a_similarity_is_kept_where_it_is_enough() -> None:
    sky = Sky(3)
    match = find_match(sky.seen(turned(2, 5, 5), 1), sky.seen(Affine(), 2))
    assert match is not None
    assert is_similarity(match.transform)


def test_hot_pixels_do_not_win_over_the_stars() -> None:
    truth = [turned(0, 2.0 * i, -1.5 * i) for i in range(6)]
    sky = Sky(4, 60)
    hot = np.random.default_rng(0).uniform(10, 590, (25, 2))
    found = register([sky.seen(t, 20 + i, fixed=hot) for i, t in enumerate(truth)])
    assert max(errors(found, truth)) < 0.1
    noted = [place.note for i, place in enumerate(found.places) if i != found.reference]
    assert all("25 points that stay on the sensor left out" in note for note in noted)


def test_a_bridge_is_used_where_the_reference_is_too_far() -> None:
    truth = [turned(0, 330.0 * i, 0) for i in range(4)]
    sky = Sky(5, 600, reach=1900.0)
    found = register([sky.seen(t, 30 + i) for i, t in enumerate(truth)], reference=0)
    assert max(errors(found, truth)) < 0.1
    assert "by way of frame" in found.places[3].note


def test_a_frame_of_another_field_is_dropped_with_its_reason() -> None:
    sky, other = Sky(6), Sky(7)
    lists = [sky.seen(turned(0, i, i), 40 + i) for i in range(6)] + [other.seen(Affine(), 50)]
    place = register(lists).places[6]
    assert place.transform is None
    assert place.reason


def test_a_frame_without_stars_is_dropped_with_its_reason() -> None:
    sky = Sky(6)
    lists = [sky.seen(turned(0, i, i), 40 + i) for i in range(3)] + [star_list(np.zeros((0, 2)), np.zeros(0))]
    assert register(lists).places[3].reason == "0 stars found; expected at least 6"


def test_two_fields_are_refused() -> None:
    sky, other = Sky(8), Sky(9)
    lists = [sky.seen(turned(0, i, i), 60 + i) for i in range(5)] + [
        other.seen(turned(0, i, 0), 70 + i) for i in range(4)
    ]
    with pytest.raises(
        InvalidInputError, match=r"two different fields: 5 frames agree with frame_\d.fits and 4 with"
    ) as caught:
        register(lists)
    assert "\n" not in str(caught.value)


def test_unrelated_detections_are_refused() -> None:
    random = np.random.default_rng(10)
    lists = [star_list(random.uniform(0, 590, (80, 2)), random.uniform(100, 1000, 80)) for _ in range(6)]
    with pytest.raises(InvalidInputError, match=r"only 1 of 6 frames with stars can be registered"):
        register(lists)


def test_a_fixed_pattern_under_a_turning_sky_is_refused() -> None:
    truth = [turned(6.0 * i) for i in range(6)]
    trees = np.random.default_rng(1).uniform(10, 590, (120, 2))
    sky = Sky(11, 40)
    with pytest.raises(InvalidInputError, match=r"can be registered on .*stay at their places on the sensor while"):
        register([sky.seen(t, 80 + i, fixed=trees) for i, t in enumerate(truth)])


@pytest.mark.parametrize("stars", [30, 60])
def test_a_landscape_of_objects_that_blend_is_refused(stars: int) -> None:
    night = RawNight(n_frames=6, shape=(240, 320), n_stars=5 * stars, turn=14.0, hot_fraction=0, cosmic_rays=0)
    random = np.random.default_rng(2)
    y, x = np.mgrid[:240, :320]
    land = np.zeros(night.shape)
    for place in random.uniform(5, (315, 235), (150, 2)):
        land += 3000 * np.exp(-((x - place[0]) ** 2 + (y - place[1]) ** 2) / (2 * 1.3**2))
    lists = [
        detect_stars((night.signal(index) + land + random.normal(0, 20, land.shape)).astype(np.float32))
        for index in range(6)
    ]
    with pytest.raises(InvalidInputError, match="stay at their places on the sensor while"):
        register(lists)


@pytest.mark.parametrize("degrees", [0.4, 3.0])
def test_a_landscape_that_outnumbers_the_stars_is_refused(degrees: float) -> None:
    trees = np.random.default_rng(3).uniform(10, 590, (150, 2))
    truth = [turned(degrees * i, 3.0 * i, 2.0 * i) for i in range(8)]
    sky = Sky(14, 17)
    with pytest.raises(InvalidInputError, match=r"stay at their places on the sensor while \d+ stars move"):
        register([sky.seen(t, 90 + i, fixed=trees, lost=0.0) for i, t in enumerate(truth)])


def test_a_rich_field_may_stand_still() -> None:
    random = np.random.default_rng(15)
    places = random.uniform(5, (COLUMNS - 6, ROWS - 6), (1400, 2))
    flux = 2000 / random.random(1400)
    lists = []
    for _ in range(3):
        seen = random.random(1400) > 0.05
        lists.append(star_list((places + random.normal(0, 0.03, places.shape))[seen], flux[seen]))
    assert max(errors(register(lists), [Affine()] * 3)) < 0.05


def test_no_stars_at_all_is_refused() -> None:
    empty = star_list(np.zeros((0, 2)), np.zeros(0))
    with pytest.raises(InvalidInputError, match="no frame of 3 has 6 stars"):
        register([empty] * 3)


def test_a_reference_without_stars_is_refused() -> None:
    sky = Sky(6)
    lists = [sky.seen(turned(0, i, i), 40 + i) for i in range(3)] + [star_list(np.zeros((0, 2)), np.zeros(0))]
    with pytest.raises(InvalidInputError, match=r"frame_3.fits: 0 stars; expected 6 in a reference"):
        register(lists, reference=3)


def test_chance_is_what_chance_is() -> None:
    random = np.random.default_rng(12)
    counts = []
    for _ in range(40):
        first, second = random.uniform(0, 600, (2, 200, 2))
        distance = np.hypot(*(first[:, np.newaxis] - second[np.newaxis]).transpose(2, 0, 1))
        counts.append((distance < 3.0).sum())
    assert np.mean(counts) == pytest.approx(chance_matches(200, 200, 600.0 * 600.0, 3.0), rel=0.2)
