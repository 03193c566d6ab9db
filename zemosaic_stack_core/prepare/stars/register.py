"""A set of star lists, one grid: the reference, every frame's place on it, and what must be refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.prepare.canvas.geometry import Affine
from zemosaic_stack_core.prepare.stars.detect import StarList
from zemosaic_stack_core.prepare.stars.match import GUESSES, StarMatch, chance_matches, find_match, refine_match

_BRIDGES = 8  # frames in a row, each of which overlaps with the next only
_STILL = 1.0  # pixels; a map that moves no corner further is called the identity
_FIXED = 0.7  # pixels; two detections at one place of the sensor
_OTHER_FIELD = 0.25  # part of the set: fewer strangers are dropped, more mean two fields
_BRIGHT = 25.0  # times its error: such a star is seen in every frame of a sky that stands still
_BRIGHT_LOST = 0.3  # part of them; more that are lost are elsewhere
_REFERENCES_TRIED = 3


@dataclass(frozen=True, eq=False, kw_only=True)
class FramePlace:
    """Where a frame lies.

    Parameters
    ----------
    transform : Affine or None
        From its pixels to the reference's; None where it was not found.
    match : StarMatch or None
        The evidence; against frame `via`.
    reason : str
        Why the frame can't be used; empty where it can.
    via : int
        Index of the frame that it was matched with: the reference, or one that overlaps more.
    note : str
        What is worth knowing of a good match.
    """

    transform: Affine | None = None
    match: StarMatch | None = None
    reason: str = ""
    via: int = -1
    note: str = ""


@dataclass(frozen=True, eq=False, kw_only=True)
class Registration:
    """Places of all frames; at least two (or the only frame) are good.

    Parameters
    ----------
    reference : int
        Index of the reference frame.
    places : tuple of FramePlace
        One per frame.
    """

    reference: int
    places: tuple[FramePlace, ...]


def choose_reference(lists: Sequence[StarList]) -> list[int]:
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
    """Find every frame's place on the reference's grid.

    Parameters
    ----------
    lists : sequence of StarList
        One per frame.
    min_stars, max_residual
        See `PrepareOptions`.
    names : sequence of str
        For messages.
    reference : int, optional
        Index of the frame to take; default the best.

    Raises
    ------
    InvalidInputError
        The set has no common sky: no stars, two fields, a fixed pattern under a moving sky. One line.
    """
    usable = [i for i, stars in enumerate(lists) if len(stars) >= min_stars]
    most = max(len(stars) for stars in lists)
    if not usable:
        raise InvalidInputError(
            f"no frame of {len(lists)} has {min_stars} stars (the best has {most}); "
            "expected images of the night sky in focus, or --align none for frames that are aligned already"
        )
    if reference is not None and reference not in usable:
        raise InvalidInputError(
            f"{names[reference]}: {len(lists[reference])} stars; expected {min_stars} in a reference"
        )
    order = [i for i in choose_reference(lists) if i in usable] if reference is None else [reference]
    best: Registration | None = None
    for _ in range(_REFERENCES_TRIED):
        candidate = order[0]
        places = _place_all(lists, candidate, min_stars, max_residual)
        tried = Registration(reference=candidate, places=places)
        if best is None or _good(places) > _good(best.places):
            best = tried
        # What a reference has found would find the same: the next one is among those that it has not.
        order = [i for i in order[1:] if places[i].transform is None]
        if _good(places) > 0.6 * len(usable) or not order:
            break
    assert best is not None  # noqa: S101 - there is at least one candidate
    _refuse_bad_set(best, lists, usable, min_stars, max_residual, names)
    return best


def _good(places: Sequence[FramePlace]) -> int:
    """Return the number of frames that have a place."""
    return sum(place.transform is not None for place in places)


def _place_all(
    lists: Sequence[StarList], reference: int, min_stars: int, max_residual: float
) -> tuple[FramePlace, ...]:
    """Match every frame with the reference; those that fail, with the frames that did not."""
    places: list[FramePlace] = [FramePlace(reason="not tried")] * len(lists)
    places[reference] = FramePlace(
        transform=Affine(), match=refine_match(lists[reference], lists[reference], Affine()), via=reference
    )
    # From the reference outwards in time: a neighbor's place is nearly always a good first guess.
    for index in sorted(range(len(lists)), key=lambda i: (abs(i - reference), i)):
        if index == reference:
            continue
        if len(lists[index]) < min_stars:
            places[index] = FramePlace(reason=f"{len(lists[index])} stars found; expected at least {min_stars}")
            continue
        neighbor = index + (1 if index < reference else -1)
        guess = places[neighbor].transform if 0 <= neighbor < len(lists) else None
        places[index] = _place(lists[index], lists[reference], guess, min_stars, max_residual, reference)
    asked: set[tuple[int, int]] = set()
    for _ in range(_BRIDGES):
        lost = [i for i, place in enumerate(places) if place.transform is None and len(lists[i]) >= min_stars]
        for index in lost:
            for via in _bridges(places, index, reference):
                if (index, via) in asked:
                    continue
                asked.add((index, via))
                place = _place(lists[index], lists[via], None, min_stars, max_residual, via)
                onward = places[via].transform
                if place.transform is not None and onward is not None:
                    places[index] = replace(place, transform=place.transform.then(onward),
                                            note=f"matched by way of frame {via + 1}")  # fmt: skip
                    break
        if len(lost) == sum(places[i].transform is None for i in lost):
            break
    return tuple(places)


def _bridges(places: Sequence[FramePlace], index: int, reference: int) -> list[int]:
    """Return placed frames to try in the reference's stead: near in time, and far from each other in place."""
    placed = [i for i, place in enumerate(places) if place.transform is not None and i != reference]
    near = sorted(placed, key=lambda i: (abs(i - index), i))[:2]
    far = sorted(placed, key=lambda i: (-_moved(places[i]), i))[:2]
    return list(dict.fromkeys([*near, *far]))


def _moved(place: FramePlace) -> float:
    """Return how far a frame is from the reference, pixels."""
    return 0.0 if place.transform is None else float(np.hypot(place.transform.x0, place.transform.y0))


def _place(
    source: StarList, target: StarList, guess: Affine | None, min_stars: int, max_residual: float, via: int
) -> FramePlace:
    """Match one frame and judge the match."""
    match = refine_match(source, target, guess) if guess is not None else None
    if match is None or match.stars < 12 or match.stars < 0.5 * match.overlap or match.problem(min_stars, max_residual):
        match = find_match(source, target) or match
    if match is None:
        return FramePlace(reason=f"no pattern of stars in common ({len(source)} and {len(target)} stars)", via=via)
    problem = match.problem(min_stars, max_residual)
    if problem:
        return FramePlace(match=match, reason=problem, via=via)
    return _against_fixed_points(source, target, match, min_stars, max_residual, via)


def _against_fixed_points(
    source: StarList, target: StarList, match: StarMatch, min_stars: int, max_residual: float, via: int
) -> FramePlace:
    """Check a match against what stays at its place on the sensor: hot pixels, dust, trees, a horizon."""
    rest_source, rest_target = _without(source, match.source), _without(target, match.target)
    if match.transform.largest_move(source.rows, source.columns) >= _STILL:
        fixed, chance = _fixed_points(rest_source, rest_target)
        if fixed <= 3 + chance + 4 * chance**0.5:
            return FramePlace(transform=match.transform, match=match, via=via)
        if fixed <= match.stars:
            return FramePlace(transform=match.transform, match=match, via=via,
                              note=f"{fixed} points that stay on the sensor left out")  # fmt: skip
        return FramePlace(match=match, via=via, reason=_torn(fixed, match.stars))
    # Nothing moves. Is it the sky that stands still, or does another sky move behind what was matched?
    if min(len(rest_source), len(rest_target)) < max(min_stars, 8):
        return FramePlace(transform=match.transform, match=match, via=via)
    other = find_match(rest_source, rest_target, 4 * GUESSES)
    moving = other is not None and not other.problem(max(min_stars, 8), max_residual)
    if other is None or not moving or other.transform.largest_move(source.rows, source.columns) < 2 * _STILL:
        lost, bright = _bright_without_partner(source, target, match)
        if lost >= max(min_stars, 8) and lost > _BRIGHT_LOST * bright:
            return FramePlace(match=match, via=via, reason=(
                f"{match.stars} objects stay at their places on the sensor while {lost} of {bright} bright ones "
                "are not where they were (trees, a horizon, dust?)"))  # fmt: skip
        return FramePlace(transform=match.transform, match=match, via=via)
    if other.stars >= match.stars:
        return FramePlace(transform=other.transform, match=other, via=via,
                          note=f"{match.stars} points that stay on the sensor left out")  # fmt: skip
    return FramePlace(match=match, via=via, reason=_torn(match.stars, other.stars))


def _bright_without_partner(source: StarList, target: StarList, match: StarMatch) -> tuple[int, int]:
    """Return how many stars that must be seen in the other frame are not, and how many must be."""
    lost = bright = 0
    ratio = match.flux_ratio
    for one, other, partners, factor in (
        (source, target, match.source, ratio),
        (target, source, match.target, 1 / ratio),
    ):
        strong = np.minimum(one.flux * factor / np.median(other.error), one.flux / one.error) > _BRIGHT
        bright += int(strong.sum())
        strong[partners] = False
        lost += int(strong.sum())
    return lost, bright


def _torn(fixed: int, moving: int) -> str:
    """Say that two things move differently."""
    return f"{fixed} objects stay at their places on the sensor while {moving} stars move (trees, a horizon, dust?)"


def _without(stars: StarList, indices: npt.NDArray[np.intp]) -> StarList:
    """Return the list without some of its stars."""
    keep = np.ones(len(stars), np.bool_)
    keep[indices] = False
    return replace(stars, x=stars.x[keep], y=stars.y[keep], flux=stars.flux[keep], error=stars.error[keep],
                   ladder=None if stars.ladder is None else stars.ladder[keep])  # fmt: skip


def _fixed_points(source: StarList, target: StarList) -> tuple[int, float]:
    """Return how many detections share their place on the sensor, and how many would by chance."""
    from scipy.spatial import KDTree

    if not len(source) or not len(target):
        return 0, 0.0
    distance, _ = KDTree(target.points).query(source.points)
    chance = chance_matches(len(source), len(target), source.rows * source.columns, _FIXED)
    return int((distance < _FIXED).sum()), chance


def _refuse_bad_set(
    found: Registration, lists: Sequence[StarList], usable: Sequence[int], min_stars: int, max_residual: float,
    names: Sequence[str],
) -> None:  # fmt: skip
    """Raise where too few frames share a sky, or the others share another."""
    good = [i for i in usable if found.places[i].transform is not None]
    lost = [i for i in usable if found.places[i].transform is None]
    if not lost or (len(lists) == 1 and good):
        return
    strangers = _own_group(lists, lost, min_stars, max_residual) if len(lost) >= 2 else []
    if len(strangers) >= max(2, _OTHER_FIELD * len(usable)):
        raise InvalidInputError(
            f"two different fields: {len(good)} frames agree with {names[found.reference]} and {len(strangers)} with "
            f"{names[strangers[0]]}, but not with each other; expected one field (stack them apart)"
        )
    if len(good) < 2 or len(good) < 0.5 * len(usable):
        reason = _commonest([found.places[i].reason for i in lost])
        raise InvalidInputError(
            f"only {len(good)} of {len(usable)} frames with stars can be registered on {names[found.reference]}: "
            f"{names[lost[0]]}: {reason}; expected frames of one field"
        )


def _own_group(lists: Sequence[StarList], lost: Sequence[int], min_stars: int, max_residual: float) -> list[int]:
    """Return the lost frames that agree among each other, the best first; empty where none do."""
    order = sorted(lost, key=choose_reference(lists).index)
    first = order[0]
    others = [i for i in order[1:] if _place(lists[i], lists[first], None, min_stars, max_residual, first).transform]
    return [first, *others] if others else []


def _commonest(reasons: Sequence[str]) -> str:
    """Return the first reason; reasons differ in their numbers, so the first stands for all."""
    return next(iter(reasons), "")
