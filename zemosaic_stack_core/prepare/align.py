"""Choose how frames are aligned, and place them: by stars, by WCS, or as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.prepare.canvas.geometry import Affine, Canvas, corners_of, union_canvas
from zemosaic_stack_core.prepare.canvas.resample import AffineMap, PixelMap
from zemosaic_stack_core.prepare.canvas.wcs import WcsMap, border_points, placed_wcs, wcs_affine
from zemosaic_stack_core.prepare.headers.raw_frame import RawFrame
from zemosaic_stack_core.prepare.options import PrepareOptions
from zemosaic_stack_core.prepare.stars.detect import StarList
from zemosaic_stack_core.prepare.stars.fluxes import flux_ratios
from zemosaic_stack_core.prepare.stars.match import refine_match
from zemosaic_stack_core.prepare.stars.register import Place, rank_references, register_frames

# Pixels that stars may be from where the WCS has them.
_TRUSTED = 1.0
# Stars that two frames must share, by their WCS, to check it.
_ENOUGH_STARS = 10
# Pixels from its border that a star must lie on the other frame to count as shared.
_MARGIN = 5
# What a match must show that starts from the WCS: stars, and their residual in pixels.
_EVIDENCE = (6, 1.5)


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
        rows, columns = self.frames[0].shape
        canvas = Canvas(rows=rows, columns=columns)
        if self.alignment != "none" and used:
            borders = []
            for index in used:
                transform = self.places[index].transform
                if self.alignment == "wcs":
                    borders.append(border_points(self._header(index), self._header(self.reference), rows, columns))
                elif transform is not None:
                    borders.append(transform(corners_of(rows, columns)))
            canvas = union_canvas(borders, rows, columns)
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
            if header is not None and transform is not None:
                cards = placed_wcs(header, transform.moved(canvas.x, canvas.y))
                if cards is not None:
                    return cards
        return None

    def map_from(self, canvas: Canvas, index: int) -> PixelMap | None:
        """Return where the canvas's pixels lie on a frame; None where they are the frame's."""
        if self.alignment == "none":
            return None
        if self.alignment == "wcs" and index != self.reference and canvas.wcs_header is not None:
            return WcsMap(frame=self._header(index), canvas=canvas.wcs_header)
        transform = self.places[index].transform or Affine()
        return AffineMap(transform.moved(canvas.x, canvas.y).inverse())

    def spread(self, used: Sequence[int]) -> float:
        """Return how far the frames' first pixels lie from each other, pixels: the larger of x and y."""
        places = np.array([(t.x0, t.y0) for t in (self.places[i].transform for i in used) if t is not None])
        return float(np.ptp(places, axis=0).max()) if len(places) else 0.0


def place_frames(frames: Sequence[RawFrame], lists: Sequence[StarList], options: PrepareOptions) -> Placement:
    """Find every frame's place; raise where they can't be registered, or have no WCS and one was asked for."""
    named = _named_reference(frames, options)
    if options.align == "none":
        places = (Place(transform=Affine()),) * len(frames)
        return Placement(alignment="none", why="asked for", reference=named or 0, frames=frames, places=places)
    alignment, why, reference = _choose(frames, lists, options, named)
    if alignment == "wcs":
        places = _places_by_wcs(frames, lists, reference)
    else:
        found = register_frames(
            lists,
            min_stars=options.min_stars,
            max_residual=options.max_residual,
            names=[frame.name for frame in frames],
            reference=named,
        )
        reference, places = found.reference, found.places
    return Placement(alignment=alignment, why=why, reference=reference, frames=frames, places=places)


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
) -> tuple[str, str, int]:
    """Return the alignment, why, and the index of the reference."""
    reference = rank_references(lists)[0] if named is None else named
    lacking = [frame.name for frame in frames if frame.wcs_header is None]
    if options.align == "stars":
        return "stars", "asked for", reference
    if options.align == "wcs":
        if lacking:
            raise InvalidInputError(f"{lacking[0]}: no celestial WCS; expected one in every frame for --align wcs")
        return "wcs", "asked for", reference
    if lacking:
        return "stars", f"{len(lacking)} of {len(frames)} frames have no WCS", reference
    if len(frames) == 1:
        return "wcs", "one frame", reference
    if len({frame.wcs_place for frame in frames}) == 1:
        return "stars", "all frames have the same WCS, which proves nothing", reference
    offsets = wcs_offsets([frame.wcs_header or "" for frame in frames], lists, reference)
    known = {index: offset for index, offset in offsets.items() if offset is not None}
    for index, offset in known.items():
        if not offset <= _TRUSTED:
            found = f"{offset:.1f} px off" if np.isfinite(offset) else "not confirmed by any star"
            return "stars", f"the WCS of {frames[index].name} is {found}", reference
    if not known:
        return "wcs", "every frame has a WCS; frames share too few stars to check it", reference
    silent = f", {len(offsets) - len(known)} share too few to say" if len(offsets) > len(known) else ""
    median = float(np.median(list(known.values())))
    why = f"every frame has a WCS; stars of {len(known)} confirm it to {median:.2f} px{silent}"
    return "wcs", why, reference


def _places_by_wcs(frames: Sequence[RawFrame], lists: Sequence[StarList], reference: int) -> tuple[Place, ...]:
    """Return the frames' places by their WCS, with what the stars say of them."""
    target = frames[reference].wcs_header or ""
    transforms = [
        Affine() if index == reference else wcs_affine(frame.wcs_header or "", target, frame.rows, frame.columns)
        for index, frame in enumerate(frames)
    ]
    ratios = flux_ratios(lists, transforms, reference, [frame.seconds for frame in frames])
    places = []
    for stars, transform, ratio in zip(lists, transforms, ratios, strict=True):
        match = refine_match(stars, lists[reference], transform) if len(stars) else None
        if match is not None and match.problem(*_EVIDENCE):
            match = None
        places.append(Place(transform=transform, match=match, flux_ratio=ratio))
    return tuple(places)


def wcs_offsets(headers: Sequence[str], lists: Sequence[StarList], reference: int) -> dict[int, float | None]:
    """Return how far each frame's stars lie from where its WCS has them, pixels, but the reference's.

    They are compared with the reference's or those of the frame before it; None where too few are shared by either.
    """
    offsets: dict[int, float | None] = {}
    for index, stars in enumerate(lists):
        if index == reference:
            continue
        offsets[index] = None
        for other in dict.fromkeys((reference, max(index - 1, 0))):
            if offsets[index] is None and other != index:
                expected = wcs_affine(headers[index], headers[other], stars.rows, stars.columns)
                offsets[index] = _offset(stars, lists[other], expected)
    return offsets


def _offset(source: StarList, target: StarList, expected: Affine) -> float | None:
    """Return how far stars are from where they should be; infinite where none fits, None where there are too few."""
    on_target = source.count_on(target, expected, margin=_MARGIN)
    on_source = target.count_on(source, expected.inverse(), margin=_MARGIN)
    if min(on_target, on_source) < _ENOUGH_STARS:
        return None
    match = refine_match(source, target, expected)
    if match is None or match.problem(*_EVIDENCE):
        return float("inf")
    middle = source.points[match.source]
    return float(np.median(np.hypot(*(match.transform(middle) - expected(middle)).T)))
