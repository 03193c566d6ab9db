"""Places by WCS, as far as stars confirm them: `WcsPlaces`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from heapq import nsmallest

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.prepare.canvas.geometry import Affine, corners_of, fit_affine
from zemosaic_stack_core.prepare.canvas.wcs import pixel_to_pixel
from zemosaic_stack_core.prepare.headers.raw_frame import RawFrame
from zemosaic_stack_core.prepare.stars.adjust import Ties, adjust
from zemosaic_stack_core.prepare.stars.detect import StarList
from zemosaic_stack_core.prepare.stars.fluxes import overlapping_pairs
from zemosaic_stack_core.prepare.stars.match import StarMatch, find_match, must_be_seen, refine_match
from zemosaic_stack_core.prepare.stars.nearby import nearby_map
from zemosaic_stack_core.prepare.stars.register import Place

_Values = npt.NDArray[np.float64]
_Indices = npt.NDArray[np.intp]

# Pixels that stars may be from where the WCS has them.
TRUSTED = 1.0
# Bright stars that two frames must share, by their WCS, to contradict it: fewer that don't match say nothing.
_ENOUGH_STARS = 8
# Pixels from its border that a star must lie on the other frame to count as shared.
_MARGIN = 5
# What a match must show that starts from the WCS: stars, and their residual in pixels.
EVIDENCE = (6, 1.5)
# What one must show that starts from nothing.
_SURE = (8, 1.0)
# Frames that each is compared with, besides the reference: those at the sides and corners of a tile.
_NEIGHBORS = 8
# Stars that a narrow overlap must share to be adjusted by; pixels that they may be from where the WCS has them, and
# that their displacements may differ by.
_FEW, _FEW_RADIUS, _ALIKE = 3, 3.0, 0.35
# Pixels that stars may be apart in an overlap that needs no adjustment.
_AGREE = 0.08
# Pixels that places are expected to be off: shift, and turn or scale at a corner.
_BY_WCS = (0.5, 0.15)
_BY_STARS = (1.0, 0.5)
# Brightest stars of a frame that are sought near where its WCS has them.
_SOUGHT = 150
# Frames that a lost one is tried on.
_TRIED = 5
# Diagonals of a frame that a frame whose WCS no star confirms may be away from all others.
_FAR = 3.0


@dataclass(frozen=True, eq=False)
class WcsPlaces:
    """What the WCS of a set says on the reference's grid, and what stars say of that."""

    frames: Sequence[RawFrame]
    lists: Sequence[StarList]
    reference: int
    # Stars of each frame on the reference's grid by its WCS; None where that can't map it.
    there: list[_Values | None] = field(default_factory=list)
    # The nearest affine maps of the same.
    maps: list[Affine | None] = field(default_factory=list)
    # Pairs of frames whose stars match, and how far these are from where the WCS has them, pixels.
    matches: dict[tuple[int, int], StarMatch] = field(default_factory=dict)
    apart: dict[tuple[int, int], float] = field(default_factory=dict)
    # Partners in overlaps of too few stars for a match, by their indices.
    few: dict[tuple[int, int], tuple[_Indices, _Indices]] = field(default_factory=dict)
    # Stars that overlaps without any partners must share.
    missed: dict[tuple[int, int], int] = field(default_factory=dict)

    @classmethod
    def look(cls, frames: Sequence[RawFrame], lists: Sequence[StarList], reference: int) -> WcsPlaces:
        """Map all stars to the reference's grid, and match frames that overlap there."""
        found = cls(frames, lists, reference)
        target = frames[reference].wcs_header or ""
        for frame, stars in zip(frames, lists, strict=True):
            x, y = np.meshgrid(np.linspace(0, frame.columns - 1, 9), np.linspace(0, frame.rows - 1, 9))
            grid = np.column_stack([x.reshape(-1), y.reshape(-1)])
            mapped = pixel_to_pixel(frame.wcs_header or "", target, np.concatenate([grid, stars.points]))
            usable = bool(np.isfinite(mapped).all())
            found.there.append(mapped[len(grid) :] if usable else None)
            found.maps.append(fit_affine(grid, mapped[: len(grid)]) if usable else None)
        for pair in overlapping_pairs(lists, found.maps, reference, _NEIGHBORS):
            found._compare(*pair)
        return found

    def _compare(self, first: int, second: int) -> None:
        """Match two frames where their WCS has them, and note how far their stars are from there."""
        one, other = self.maps[first], self.maps[second]
        there, back = self.there[first], self.there[second]
        if one is None or other is None or there is None or back is None:
            return
        source, target, expected = self.lists[first], self.lists[second], one.then(other.inverse())
        match = refine_match(source, target, expected)
        if match is None or match.problem(*EVIDENCE):
            few = _few_partners(there, back, source.rows * source.columns)
            if few is not None:
                self.few[first, second] = few
                apart = float(np.median(np.hypot(*(there[few[0]] - back[few[1]]).T)))
                if apart <= TRUSTED:
                    self.apart[first, second] = apart
                return
            self.missed[first, second] = min(
                must_be_seen(source, target, expected, margin=_MARGIN),
                must_be_seen(target, source, expected.inverse(), margin=_MARGIN),
            )
            if self.missed[first, second] >= _ENOUGH_STARS:
                self.apart[first, second] = math.inf
            return
        self.matches[first, second] = match
        self.apart[first, second] = float(np.median(np.hypot(*(there[match.source] - back[match.target]).T)))

    def confirmed(self) -> set[int]:
        """Return the largest group of frames whose stars confirm that they are where their WCS has them."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        pairs = np.array([pair for pair, apart in self.apart.items() if apart <= TRUSTED], np.intp).reshape(-1, 2)
        links = coo_array((np.ones(len(pairs)), pairs.T), shape=(len(self.frames),) * 2)
        _, group = connected_components(links, directed=False)
        sizes = np.bincount(group)
        own = group[self.reference]
        largest = own if sizes[own] == sizes.max() else int(np.argmax(sizes))
        members = set(np.flatnonzero(group == largest).tolist())
        return members if len(members) > 1 else set()

    @cached_property
    def _tied(self) -> set[int]:
        """The frames whose WCS the stars of at least one overlap confirm."""
        return {index for pair, apart in self.apart.items() if apart <= TRUSTED for index in pair}

    def contradicted(self) -> dict[int, float]:
        """Return frames that stars contradict and none confirm, and how far they are off, pixels."""
        off: dict[int, float] = {}
        sound = self._tied
        for pair, apart in self.apart.items():
            if apart > TRUSTED:
                off |= {index: min(apart, off.get(index, math.inf)) for index in pair if index not in sound}
        # Each overlap may be too narrow to say it: together they are not.
        missed, has_sound = Counter[int](), set[int]()
        for pair, count in self.missed.items():
            for index, other in (pair, pair[::-1]):
                missed[index] += count
                has_sound |= {index} if other in sound else set()
        silent = has_sound - sound - {index for pair in self.few for index in pair}
        for index in silent:
            if missed[index] >= _ENOUGH_STARS:
                off.setdefault(index, math.inf)
        return off | {index: math.inf for index, place in enumerate(self.maps) if place is None}

    def places(self) -> list[Place]:
        """Return the frames' places: by WCS, by their stars where these contradict it; none where nothing fits."""
        sound, off = self.confirmed(), self.contradicted()
        places = [Place(transform=transform) for transform in self.maps]
        if not sound:
            sound = {self.reference}
        for index in range(len(places)):
            if index in sound or index == self.reference:
                continue
            found = self._by_stars(index, sound)
            if found is not None:
                places[index] = found
            elif index in off:
                places[index] = Place(reason="its stars contradict its WCS and match no other frame's")
            elif self._is_far(index):
                places[index] = Place(reason="its WCS puts it far from all others, and no star confirms that")
            elif len(sound) > 1:
                places[index] = replace(places[index], note="no star confirms its WCS")
        return places

    def _by_stars(self, index: int, sound: set[int]) -> Place | None:
        """Return the place of a frame by stars that it shares with one whose WCS is confirmed, wherever they are."""
        for other, match, transform in self._matches_of(index, sound):
            onward = self.maps[other]
            if onward is not None:
                return self._moved(index, transform.then(onward), match)
        own, there = self.maps[index], self.there[index]
        around = self._stars_around(index)
        if own is None or there is None or not len(around):
            return None
        move = nearby_map(there[:_SOUGHT], around, self._centers[index])
        return None if move is None else self._moved(index, own.then(move), None)

    def _moved(self, index: int, transform: Affine, match: StarMatch | None) -> Place:
        """Return the place of a frame that its stars put there: by WCS where that says the same."""
        own, corners = self.maps[index], corners_of(self.lists[index].rows, self.lists[index].columns)
        away = math.inf if own is None else float(np.hypot(*(own(corners) - transform(corners)).T).max())
        if away <= 2 * TRUSTED:
            return Place(transform=own, match=match)
        how_far = f"{away:.0f} px off" if math.isfinite(away) else "nowhere near"
        note = f"its WCS is {how_far}: registered on its stars"
        return Place(transform=transform, match=match, note=note, is_by_stars=True)

    def _stars_around(self, index: int) -> _Values:
        """Return the brightest stars of confirmed frames near one, on the reference's grid."""
        stars = self.lists[index]
        apart = np.hypot(*(self._centers - self._centers[index]).T)
        near = np.flatnonzero(apart < math.hypot(stars.rows, stars.columns))
        found = [self.there[other] for other in near.tolist() if other != index and other in self._tied]
        return np.concatenate([np.zeros((0, 2)), *(one[:_SOUGHT] for one in found if one is not None)])

    @cached_property
    def _centers(self) -> _Values:
        """Where the frames' middles are by their WCS, shape (frame, 2); NaN where it can't map them."""
        found = np.full((len(self.lists), 2), np.nan)
        for index, (stars, place) in enumerate(zip(self.lists, self.maps, strict=True)):
            if place is not None:
                found[index] = place([((stars.columns - 1) / 2, (stars.rows - 1) / 2)])[0]
        return found

    @cached_property
    def _matched(self) -> dict[int, list[int]]:
        """The frames that each frame's stars match where their WCS has them."""
        found: dict[int, list[int]] = {}
        for first, second in self.matches:
            found.setdefault(first, []).append(second)
            found.setdefault(second, []).append(first)
        return found

    def _matches_of(self, index: int, sound: set[int]) -> Iterator[tuple[int, StarMatch, Affine]]:
        """Yield a frame's matches with others, and the maps: those found where the WCS has it, then any."""
        for other in self._matched.get(index, ()):
            if other in sound:
                match = self.matches.get((index, other))
                if match is not None:
                    yield other, match, match.transform
                else:
                    match = self.matches[other, index]
                    yield other, match, match.transform.inverse()
        for other in nsmallest(_TRIED, sound, key=lambda other: (other != self.reference, abs(other - index))):
            found = find_match(self.lists[index], self.lists[other])
            if found is not None and not found.problem(*_SURE):
                yield other, found, found.transform

    def _is_far(self, index: int) -> bool:
        """Return whether a frame lies far from all others by its WCS."""
        distance = np.hypot(*(self._centers - self._centers[index]).T)
        distance[index] = np.nan
        if np.isnan(distance).all():
            return False
        stars = self.lists[index]
        return float(np.nanmin(distance)) > _FAR * math.hypot(stars.rows, stars.columns)


def _few_partners(one: _Values, other: _Values, area: float) -> tuple[_Indices, _Indices] | None:
    """Return the partners of a narrow overlap, stars displaced alike from where the WCS has them; None if too few.

    `one` and `other` are both frames' stars on the reference's grid, `area` is a frame's, pixels.
    """
    from scipy.spatial import KDTree

    pairs = KDTree(one).query_ball_tree(KDTree(other), _FEW_RADIUS)
    first = np.repeat(np.arange(len(one)), [len(found) for found in pairs])
    second = np.array([index for found in pairs for index in found], np.intp)
    if len(first) < _FEW:
        return None
    displaced = KDTree(other[second] - one[first])
    groups = displaced.query_ball_tree(displaced, _ALIKE)
    best = np.array(max(groups, key=len), np.intp)
    # Of all pairs that chance brings so near, those that it displaces alike.
    chance = len(one) * len(other) * math.pi * _ALIKE**2 / area
    if len(best) < _FEW + int(20 * chance) or len({*first[best].tolist()}) < len(best):
        return None
    return first[best], second[best]


def adjusted(
    places: Sequence[Place], lists: Sequence[StarList], reference: int, looked: WcsPlaces | None = None
) -> list[Place]:
    """Return the places with the corrections that make all overlaps agree; the reference stays.

    `looked` is what the WCS says of frames placed by it; others are where their stars' maps put them.
    """
    maps = [place.transform for place in places]
    by_wcs = [looked is not None and not place.is_by_stars for place in places]
    there = [None if one is None else one(stars.points) for one, stars in zip(maps, lists, strict=True)]
    if looked is not None:
        there = [mine if known else other for known, mine, other in zip(by_wcs, looked.there, there, strict=True)]
    ties = []
    for first, second in overlapping_pairs(lists, maps, reference, _NEIGHBORS):
        one, other, ahead, behind = maps[first], maps[second], there[first], there[second]
        if one is None or other is None or ahead is None or behind is None:
            continue
        match = looked.matches.get((first, second)) if looked and by_wcs[first] and by_wcs[second] else None
        match = match or refine_match(lists[first], lists[second], one.then(other.inverse()))
        which = None
        if match is not None and not match.problem(*EVIDENCE):
            which = match.source, match.target
        elif looked is not None:
            which = looked.few.get((first, second)) if by_wcs[first] and by_wcs[second] else None
            which = which or _few_partners(ahead, behind, lists[first].rows * lists[first].columns)
        if which is not None:
            ties.append(Ties.of(first, second, ahead[which[0]], behind[which[1]]))
    if all(_agrees(tie) for tie in ties):
        return list(places)
    middles = [[((stars.columns - 1) / 2, (stars.rows - 1) / 2)] for stars in lists]
    centers = np.array([(one or Affine())(middle)[0] for one, middle in zip(maps, middles, strict=True)])
    reach = max(math.hypot(stars.rows, stars.columns) for stars in lists) / 2
    moves = adjust(ties, centers, reach, reference, _BY_STARS if looked is None else _BY_WCS)
    return [
        place
        if place.transform is None or index == reference
        else replace(place, transform=place.transform.then(move), correction=move)
        for index, (place, move) in enumerate(zip(places, moves, strict=True))
    ]


def _agrees(tie: Ties) -> bool:
    """Return whether the stars of an overlap are where they should be, as far as their number and scatter can tell."""
    apart = tie.one - tie.other
    middle = np.median(apart, axis=0)
    scatter = float(np.median(np.hypot(*(apart - middle).T)))
    return float(np.hypot(*middle)) < _AGREE + 4 * scatter / math.sqrt(len(apart))
