"""Choose how frames are aligned, and place them: by stars, by WCS, or as they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.prepare.canvas.geometry import Affine, Canvas, corners_of, union_canvas
from zemosaic_stack_core.prepare.canvas.resample import AffineMap, PixelMap
from zemosaic_stack_core.prepare.canvas.wcs import WcsMap, border_points, placed_wcs
from zemosaic_stack_core.prepare.headers.raw_frame import RawFrame
from zemosaic_stack_core.prepare.options import PrepareOptions
from zemosaic_stack_core.prepare.stars.detect import StarList
from zemosaic_stack_core.prepare.stars.fluxes import flux_ratios
from zemosaic_stack_core.prepare.stars.match import refine_match
from zemosaic_stack_core.prepare.stars.register import Place, rank_references, register_frames
from zemosaic_stack_core.prepare.wcs_places import EVIDENCE, TRUSTED, WcsPlaces, adjusted


@dataclass(frozen=True, eq=False, kw_only=True)
class Placement:
    """Where all frames of a set lie on the reference."""

    # What the places were found by, "stars", "wcs" or "none", and why by that.
    alignment: str
    why: str
    # Index of the reference frame.
    reference: int
    frames: Sequence[RawFrame]
    places: tuple[Place, ...]

    def canvas(self, used: Sequence[int]) -> Canvas:
        """Return the canvas that holds the frames of the indices `used`."""
        largest = max(self.frames, key=lambda frame: frame.rows * frame.columns)
        canvas = Canvas(rows=largest.rows, columns=largest.columns)
        if self.alignment != "none" and used:
            borders = []
            for index in used:
                rows, columns = self.frames[index].shape
                transform = self.places[index].transform
                place = self.places[index]
                if self.alignment == "wcs" and not place.is_by_stars:
                    border = border_points(self._header(index), self._header(self.reference), rows, columns)
                    borders.append((place.correction or Affine())(border))
                elif transform is not None:
                    borders.append(transform(corners_of(rows, columns)))
            canvas = union_canvas(borders, largest.rows, largest.columns)
        return replace(canvas, wcs_header=self._wcs(used, canvas))

    def _header(self, index: int) -> str:
        """Return the header of a frame that was placed by WCS."""
        return self.frames[index].wcs_header or ""

    def _wcs(self, used: Sequence[int], canvas: Canvas) -> str | None:
        """Return the canvas's WCS: the reference's, or that of the frame nearest to it."""
        # The grid is the reference's even where that frame itself is not used.
        near = [self.reference, *sorted(used, key=lambda index: abs(index - self.reference))]
        for index in near:
            header, transform = self.frames[index].wcs_header, self.places[index].transform
            if header is not None and transform is not None and not self.places[index].is_by_stars:
                cards = placed_wcs(header, transform.moved(canvas.x, canvas.y))
                if cards is not None:
                    return cards
        return None

    def map_from(self, canvas: Canvas, index: int) -> PixelMap | None:
        """Return where the canvas's pixels lie on a frame; None where they are the frame's."""
        if self.alignment == "none":
            return None
        place = self.places[index]
        transform = place.transform or Affine()
        is_by_wcs = self.alignment == "wcs" and not place.is_by_stars
        if is_by_wcs and index != self.reference and canvas.wcs_header is not None:
            to_canvas = Affine().moved(canvas.x, canvas.y)
            correction = to_canvas.inverse().then(place.correction or Affine()).then(to_canvas)
            return WcsMap(frame=self._header(index), canvas=canvas.wcs_header, correction=correction)
        return AffineMap(transform.moved(canvas.x, canvas.y).inverse())

    def spread(self, used: Sequence[int]) -> float:
        """Return how far the frames' first pixels lie from each other, pixels: the larger of x and y."""
        places = np.array([(t.x0, t.y0) for t in (self.places[i].transform for i in used) if t is not None])
        return float(np.ptp(places, axis=0).max()) if len(places) else 0.0


def place_frames(frames: Sequence[RawFrame], lists: Sequence[StarList], options: PrepareOptions) -> Placement:
    """Find every frame's place; raise where they can't be registered, or have no WCS and one was asked for."""
    named = _named_reference(frames, options)
    if options.align == "none":
        _refuse_shapes(frames, options.align)
        places = (Place(transform=Affine()),) * len(frames)
        return Placement(alignment="none", why="asked for", reference=named or 0, frames=frames, places=places)
    alignment, why, reference, looked = _choose(frames, lists, options, named)
    if alignment == "stars":
        _refuse_shapes(frames, alignment)
    if looked is not None:
        reference, places = looked.reference, _places_by_wcs(looked, insists=options.align == "wcs")
    else:
        found = register_frames(
            lists,
            min_stars=options.min_stars,
            max_residual=options.max_residual,
            names=[frame.name for frame in frames],
            reference=named,
        )
        reference, places = found.reference, found.places
        if any(place.is_bridged for place in places):  # maps multiplied along a chain add up their errors
            places = tuple(adjusted(places, lists, reference))
    return Placement(alignment=alignment, why=why, reference=reference, frames=frames, places=places)


def _refuse_shapes(frames: Sequence[RawFrame], alignment: str) -> None:
    """Raise where frames that are not placed by their WCS have several shapes."""
    first = frames[0]
    other = next((frame for frame in frames if frame.shape != first.shape), None)
    if other is not None:
        raise InvalidInputError(
            f"{other.name} is {other.rows} x {other.columns}; expected {first.rows} x {first.columns} as in "
            f"{first.name}: frames of several shapes are placed by their WCS, not by {alignment}"
        )


def _named_reference(frames: Sequence[RawFrame], options: PrepareOptions) -> int | None:
    """Return the index of the frame that the user named."""
    if options.reference is None:
        return None
    wanted = Path(options.reference)
    for index, frame in enumerate(frames):
        if frame.path == wanted or frame.path.resolve() == wanted.resolve():
            return index
    raise InvalidInputError(
        f"{options.reference}: not among the {len(frames)} lights; expected one of them as reference"
    )


def _choose(
    frames: Sequence[RawFrame], lists: Sequence[StarList], options: PrepareOptions, named: int | None
) -> tuple[str, str, int, WcsPlaces | None]:
    """Return the alignment, why, the index of the reference, and what the WCS says where it is taken."""
    reference = rank_references(lists)[0] if named is None else named
    lacking = [frame.name for frame in frames if frame.wcs_header is None]
    if options.align == "stars":
        return "stars", "asked for", reference, None
    if options.align == "wcs":
        if lacking:
            raise InvalidInputError(f"{lacking[0]}: no celestial WCS; expected one in every frame for --align wcs")
        return "wcs", "asked for", reference, WcsPlaces.look(frames, lists, reference)
    if lacking:
        return "stars", f"{len(lacking)} of {len(frames)} frames have no WCS", reference, None
    is_one = len(frames) > 1 and len({frame.wcs_place for frame in frames}) == 1
    looked = WcsPlaces.look(frames, lists, reference)
    if len(frames) == 1:
        return "wcs", "one frame", reference, looked
    sound, off = looked.confirmed(), looked.contradicted()
    if sound and reference not in sound and named is None:
        reference = next(index for index in rank_references(lists) if index in sound)
        looked = WcsPlaces.look(frames, lists, reference)
        sound, off = looked.confirmed(), looked.contradicted()
    if is_one and off:
        return "stars", "all frames have the same WCS, which proves nothing", reference, None
    if off and (reference not in sound or 2 * len(off) > len(frames)):
        worst = min(off, key=lambda index: (off[index], index == reference))
        found = f"{off[worst]:.1f} px off" if math.isfinite(off[worst]) else "not confirmed by any star"
        return "stars", f"the WCS of {frames[worst].name} is {found}", reference, None
    if not looked.apart:
        which = "all frames have the same WCS, which proves nothing" if is_one else "every frame has a WCS"
        return "wcs", f"{which}; frames share too few stars to check it", reference, looked
    good = [apart for apart in looked.apart.values() if apart <= TRUSTED]
    parts = [f"stars of {len(sound)} confirm it to {np.median(good):.2f} px"] if good else []
    parts += [f"those of {len(off)} contradict it"] if off else []
    silent = len(frames) - len(sound) - len(off)
    parts += [f"{silent} share too few to say"] if silent else []
    return "wcs", f"every frame has a WCS; {', '.join(parts)}", reference, looked


def _places_by_wcs(looked: WcsPlaces, *, insists: bool) -> tuple[Place, ...]:
    """Return the frames' places by their WCS, adjusted to their stars, unless that is insisted on."""
    reference, lists = looked.reference, looked.lists
    if insists:
        reason = "its WCS can't be mapped to the reference's"
        places = [Place(transform=one, reason="" if one is not None else reason) for one in looked.maps]
    else:
        places = adjusted(looked.places(), lists, reference, looked)
    transforms = [place.transform for place in places]
    seconds = [frame.seconds for frame in looked.frames]
    ratios = flux_ratios(lists, transforms, reference, seconds, looked.matches)
    found = []
    for stars, place, ratio in zip(lists, places, ratios, strict=True):
        match = None
        if place.transform is not None and len(stars):
            match = refine_match(stars, lists[reference], place.transform)
        if match is not None and match.problem(*EVIDENCE):
            match = None
        found.append(replace(place, match=match or place.match, flux_ratio=ratio))
    return tuple(found)
