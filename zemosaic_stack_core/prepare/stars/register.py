"""A set of star lists, one grid: the reference, every frame's place on it, and what must be refused."""

from __future__ import annotations

import math
from bisect import bisect, insort
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.prepare.canvas.geometry import Affine
from zemosaic_stack_core.prepare.stars.detect import MOST_STARS, StarList
from zemosaic_stack_core.prepare.stars.match import GUESSES, StarMatch, chance_matches, find_match, refine_match

# Frames in a row, each of which overlaps with the next only.
_BRIDGES = 8
# Pixels; a map that moves no corner further is called the identity.
_STILL = 1.0
# Pixels; two detections at one place of the sensor.
_FIXED = 0.7
# Pixels; farther apart, two detections that blend differently are not one object.
_SAME_PLACE = 1.5
# Part of the set: fewer strangers are dropped, more mean two fields.
_OTHER_FIELD = 0.25
# Times its error: such a star is seen in every frame of a sky that stands still.
_BRIGHT = 25.0
# Part of them; more that are lost are elsewhere. Less is enough where both frames have lost so many.
_BRIGHT_LOST = 0.3
_BOTH_LOST = 0.15
_FEW_LOST = 4
_FEW_LEFT = 30
# Part of a set that nothing moves in.
_TORN = 0.2
_REFERENCES_TRIED = 3


@dataclass(frozen=True, eq=False, kw_only=True)
class Place:
    """Where a frame lies on the reference, and what speaks for it."""

    # From its pixels to the reference's, by WCS the nearest affine map; None where the frame can't be used.
    transform: Affine | None = None
    # The evidence, against the reference or a frame that overlaps more.
    match: StarMatch | None = None
    # Star flux of the reference over the frame's.
    flux_ratio: float = math.nan
    # Why the frame can't be used; empty where it can.
    reason: str = ""
    # What is worth knowing of a good match.
    note: str = ""
    # Of a frame placed by WCS: what its stars move it by on the reference's grid; part of `transform`.
    correction: Affine | None = None
    # What it shares with another frame moves in two ways.
    is_torn: bool = False
    # Its map goes by way of another frame.
    is_bridged: bool = False
    # Among frames placed by WCS, this one is not.
    is_by_stars: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class Registration:
    """Places of all frames by their stars; at least two (or the only frame's) are good."""

    # Index of the reference frame.
    reference: int
    places: tuple[Place, ...]

    @property
    def good(self) -> int:
        """Number of frames that have a place."""
        return sum(place.transform is not None for place in self.places)


def rank_references(lists: Sequence[StarList]) -> list[int]:
    """Return the frames from the best reference to the worst: many stars, sharp and round."""

    def score(stars: StarList) -> float:
        if not len(stars) or not np.isfinite(stars.fwhm):
            return 0.0
        return float(min(len(stars), 400) ** 0.5 * stars.roundness / stars.fwhm)

    return sorted(range(len(lists)), key=lambda i: (-score(lists[i]), i))


def register_frames(
    lists: Sequence[StarList],
    *,
    min_stars: int,
    max_residual: float,
    names: Sequence[str],
    reference: int | None = None,
) -> Registration:
    """Find every frame's place on the grid of a reference, by default the best; raise where frames share no sky."""
    usable = [i for i, stars in enumerate(lists) if len(stars) >= min_stars]
    if not usable:
        raise InvalidInputError(
            f"no frame of {len(lists)} has {min_stars} stars (the best has {max(map(len, lists))}); "
            "expected images of the night sky in focus, or --align none for frames that are aligned already"
        )
    if reference is not None and reference not in usable:
        raise InvalidInputError(
            f"{names[reference]}: {len(lists[reference])} stars; expected {min_stars} in a reference"
        )
    search = _Search(lists, names, min_stars, max_residual)
    order = [i for i in rank_references(lists) if i in usable] if reference is None else [reference]
    best: Registration | None = None
    for _ in range(_REFERENCES_TRIED):
        tried = Registration(reference=order[0], places=search.places(order[0]))
        if best is None or tried.good > best.good:
            best = tried
        # What a reference has found would find the same: the next one is among those that it has not.
        order = [i for i in order[1:] if tried.places[i].transform is None]
        if tried.good > 0.6 * len(usable) or not order:
            break
    assert best is not None  # noqa: S101 - there is at least one candidate
    search.refuse_bad_set(best, usable)
    return best


@dataclass(frozen=True, eq=False)
class _Search:
    """The star lists of a set, and what a match must show."""

    lists: Sequence[StarList]
    names: Sequence[str]
    min_stars: int
    max_residual: float

    def places(self, reference: int) -> tuple[Place, ...]:
        """Match every frame with the reference; those that fail, with the frames that did not."""
        lists, own = self.lists, self.lists[reference]
        places = [Place(reason="not tried")] * len(lists)
        itself = refine_match(own, own, Affine())
        places[reference] = Place(transform=Affine(), match=itself, flux_ratio=1.0)
        # From the reference outwards in time: a neighbor's place is nearly always a good first guess.
        for index in sorted(range(len(lists)), key=lambda i: (abs(i - reference), i)):
            if index == reference:
                continue
            if len(lists[index]) < self.min_stars:
                reason = f"{len(lists[index])} stars found; expected at least {self.min_stars}"
                places[index] = Place(reason=reason)
                continue
            neighbor = index + (1 if index < reference else -1)
            guess = places[neighbor].transform if 0 <= neighbor < len(lists) else None
            places[index] = self._place(index, reference, guess)
        self._bridge(places, reference)
        return tuple(places)

    def _bridge(self, places: list[Place], reference: int) -> None:
        """Match frames that have no place with those that have one, but for those that nothing can place."""
        asked: set[tuple[int, int]] = set()
        placed = _Placed(places, reference)
        for _ in range(_BRIDGES):
            lost = [
                index
                for index, (place, stars) in enumerate(zip(places, self.lists, strict=True))
                if place.transform is None and not place.is_torn and len(stars) >= self.min_stars
            ]
            for index in lost:
                for via in placed.bridges(index):
                    if (index, via) in asked:
                        continue
                    asked.add((index, via))
                    place, onward = self._place(index, via), places[via]
                    if place.transform is not None and onward.transform is not None:
                        transform = place.transform.then(onward.transform)
                        placed.add(index, transform)
                        places[index] = replace(
                            place,
                            transform=transform,
                            flux_ratio=place.flux_ratio * onward.flux_ratio,
                            note=f"matched by way of frame {via + 1}",
                            is_bridged=True,
                        )
                        break
            if len(lost) == sum(places[i].transform is None for i in lost):
                break

    def _place(self, index: int, via: int, guess: Affine | None = None) -> Place:
        """Match one frame with another and judge the match."""
        source, target = self.lists[index], self.lists[via]
        match = refine_match(source, target, guess) if guess is not None else None
        if match is None or match.stars < 12 or match.seen < 0.5 * match.overlap or self._problem(match):
            match = find_match(source, target) or match
        if match is None:
            return Place(reason=f"no pattern of stars in common ({len(source)} and {len(target)} stars)")
        problem = self._problem(match)
        if problem:
            return Place(match=match, reason=problem)
        match, reason, note = self._against_fixed_points(source, target, match)
        if reason:
            return Place(match=match, reason=reason, is_torn=True)
        return Place(transform=match.transform, match=match, flux_ratio=match.flux_ratio, note=note)

    def _problem(self, match: StarMatch) -> str:
        """Return what speaks against a match; empty where nothing does."""
        return match.problem(self.min_stars, self.max_residual)

    def _against_fixed_points(self, source: StarList, target: StarList, match: StarMatch) -> tuple[StarMatch, str, str]:
        """Return the match that holds against what stays on the sensor (hot pixels, trees), why none does, a note."""
        left_out = "{} points that stay on the sensor left out"
        rest_source, rest_target = source.without(match.source), target.without(match.target)
        if match.transform.largest_move(source.rows, source.columns) >= _STILL:
            fixed, chance = _fixed_points(rest_source, rest_target)
            if fixed <= 3 + chance + 4 * chance**0.5:
                return match, "", ""
            if fixed <= match.stars:
                return match, "", left_out.format(fixed)
            return match, _torn(fixed, match.stars), ""
        # Nothing moves. Is it the sky that stands still, or does another sky move behind what was matched?
        # Objects of a landscape that blend are not matched, and would be matched as still once more.
        rest = _moved_away(rest_source, target), _moved_away(rest_target, source)
        if min(map(len, rest)) < _FEW_LOST:
            return match, "", ""
        # Among few, chance finds no six that agree.
        least = max(self.min_stars, 6 if max(map(len, rest)) <= _FEW_LEFT else 8)
        other = find_match(*rest, 4 * GUESSES)
        moves = other is not None and other.transform.largest_move(source.rows, source.columns) >= 2 * _STILL
        # Stars behind a landscape blend with it: their places tell, their brightness does not.
        if other is None or not moves or other.problem(least, self.max_residual, math.inf):
            return match, _lost_reason((source, target), rest, match, least), ""
        if other.stars >= match.stars:
            return other, "", left_out.format(match.stars)
        return match, _torn(match.stars, other.stars), ""

    def refuse_bad_set(self, found: Registration, usable: Sequence[int]) -> None:
        """Raise where too few frames share a sky, or the others share another."""
        lost = [i for i in usable if found.places[i].transform is None]
        good = len(usable) - len(lost)
        if not lost or (len(self.lists) == 1 and good):
            return
        reference, names = self.names[found.reference], self.names
        strangers = self._own_group(lost) if len(lost) >= 2 else []
        if len(strangers) >= max(2, _OTHER_FIELD * len(usable)):
            raise InvalidInputError(
                f"two different fields: {good} frames agree with {reference} and {len(strangers)} with "
                f"{names[strangers[0]]}, but not with each other; expected one field (stack them apart)"
            )
        # Where some show a sky that moves behind what stays, what stayed in the others is no sky either.
        torn = [i for i in lost if found.places[i].is_torn]
        if len(torn) >= _TORN * len(usable) and not self._has_moved(found):
            lost, good = torn, len(usable) - len(torn)
        elif good >= max(2, 0.5 * len(usable)):
            return
        # Reasons differ in their numbers, so the first stands for all.
        raise InvalidInputError(
            f"only {good} of {len(usable)} frames with stars can be registered on {reference}: "
            f"{names[lost[0]]}: {found.places[lost[0]].reason}; expected frames of one field"
        )

    def _has_moved(self, found: Registration) -> bool:
        """Return whether any frame has a place that is not the reference's."""
        return any(
            place.transform is not None and place.transform.largest_move(stars.rows, stars.columns) >= _STILL
            for place, stars in zip(found.places, self.lists, strict=True)
        )

    def _own_group(self, lost: Sequence[int]) -> list[int]:
        """Return the lost frames that agree among each other, the best first; empty where none do."""
        first, *rest = sorted(lost, key=rank_references(self.lists).index)
        others = [index for index in rest if self._place(index, first).transform]
        return [first, *others] if others else []


class _Placed:
    """The frames that have a place, for those that are to be matched by way of one."""

    def __init__(self, places: Sequence[Place], reference: int) -> None:
        """Begin with what the reference has found."""
        self.indices: list[int] = []
        # The two that lie farthest from the reference, with how far, the farthest first.
        self.far: list[tuple[float, int]] = []
        for index, place in enumerate(places):
            if index != reference and place.transform is not None:
                self.add(index, place.transform)

    def add(self, index: int, transform: Affine) -> None:
        """Add a frame at its place."""
        insort(self.indices, index)
        distance = math.hypot(transform.x0, transform.y0)
        self.far = sorted([*self.far, (distance, index)], key=lambda one: (-one[0], one[1]))[:2]

    def bridges(self, index: int) -> list[int]:
        """Return those to try in the reference's stead: near in time, and far from each other in place."""
        at = bisect(self.indices, index)
        near = sorted(self.indices[max(0, at - 2) : at + 2], key=lambda i: (abs(i - index), i))[:2]
        return list(dict.fromkeys([*near, *(i for _, i in self.far)]))


def _lost_reason(
    lists: tuple[StarList, StarList], rest: tuple[StarList, StarList], match: StarMatch, least: int
) -> str:
    """Return the reason where objects stay but too many bright ones, of `rest`, are not where they were; else ""."""
    bright, lost = (
        [
            int(_must_be_seen(one, other, factor).sum())
            for one, other, factor in zip(stars, lists[::-1], (match.flux_ratio, 1 / match.flux_ratio), strict=True)
        ]
        for stars in (lists, rest)
    )
    # Both frames lose the stars of a sky that moves; clouds and airplanes are one frame's.
    share = _BOTH_LOST if min(lost) >= _FEW_LOST else _BRIGHT_LOST
    if sum(lost) < least or sum(lost) <= share * sum(bright):
        return ""
    return (
        f"{match.stars} objects stay at their places on the sensor while {sum(lost)} of {sum(bright)} bright ones "
        "are not where they were (trees, a horizon, dust?)"
    )


def _must_be_seen(one: StarList, other: StarList, factor: float) -> npt.NDArray[np.bool_]:
    """Return which stars are so bright that a frame of the same sky, `factor` times as bright, must show them."""
    strong = np.minimum(one.flux * factor / np.median(other.error), one.flux / one.error) > _BRIGHT
    if len(other) >= MOST_STARS:  # fainter ones were not listed
        strong &= one.flux * factor > 2 * other.flux[-1]
    return np.asarray(strong)


def _moved_away(stars: StarList, other: StarList) -> StarList:
    """Return the stars that have none of another list at their place on the sensor."""
    from scipy.spatial import KDTree

    if not len(stars) or not len(other):
        return stars
    distance, _ = KDTree(other.points).query(stars.points)
    return stars.without(np.flatnonzero(distance < _SAME_PLACE))


def _torn(fixed: int, moving: int) -> str:
    """Return the reason where two things move differently."""
    return f"{fixed} objects stay at their places on the sensor while {moving} stars move (trees, a horizon, dust?)"


def _fixed_points(source: StarList, target: StarList) -> tuple[int, float]:
    """Return how many detections share their place on the sensor, and how many would by chance."""
    from scipy.spatial import KDTree

    if not len(source) or not len(target):
        return 0, 0.0
    distance, _ = KDTree(target.points).query(source.points)
    chance = chance_matches(len(source), len(target), source.rows * source.columns, _FIXED)
    return int((distance < _FIXED).sum()), chance
