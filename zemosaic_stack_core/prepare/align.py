"""Choose how frames are aligned, and place them: by stars, by WCS, or as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.prepare.canvas.canvas import Canvas, placed_wcs, union_canvas
from zemosaic_stack_core.prepare.canvas.geometry import Affine, corners_of
from zemosaic_stack_core.prepare.canvas.resample import AffineMap, PixelMap
from zemosaic_stack_core.prepare.headers.inventory import RawFrame
from zemosaic_stack_core.prepare.options import PrepareOptions
from zemosaic_stack_core.prepare.stars.detect import StarList
from zemosaic_stack_core.prepare.stars.fluxes import flux_ratios
from zemosaic_stack_core.prepare.stars.register import choose_reference, register_frames
from zemosaic_stack_core.prepare.stars.wcs_align import WcsMap, border_points, check_wcs, wcs_affine


@dataclass(frozen=True, eq=False, kw_only=True)
class PlacedFrame:
    """Where a frame lies on the reference, and what speaks for it.

    Parameters
    ----------
    transform : Affine or None
        From the frame to the reference; by WCS the nearest affine map. None where the frame can't be used.
    header : str or None
        By WCS: the frame's header.
    matched : int
        Stars in common with the frame it was matched with.
    residual : float
        Pixels.
    flux_ratio : float
        Star flux of the reference over this frame's.
    reason, note : str
        Why it can't be used; other things worth knowing.
    """

    transform: Affine | None = None
    header: str | None = None
    matched: int = 0
    residual: float = float("nan")
    flux_ratio: float = float("nan")
    reason: str = ""
    note: str = ""


@dataclass(frozen=True, eq=False, kw_only=True)
class Placement:
    """All frames' places.

    Parameters
    ----------
    alignment : {"stars", "wcs", "none"}
        What they were found by.
    why : str
        Why by that.
    reference : int
        Index of the reference frame.
    frames : tuple of PlacedFrame
        One per frame.
    wcs_headers : tuple of (str or None)
        The frames' headers where they have a WCS.
    rows, columns : int
        Size of every frame.
    """

    alignment: str
    why: str
    reference: int
    frames: tuple[PlacedFrame, ...]
    wcs_headers: tuple[str | None, ...]
    rows: int
    columns: int

    def canvas(self, alive: Sequence[int], rows: int, columns: int) -> Canvas:
        """Return the canvas that holds the frames `alive`."""
        if self.alignment == "none" or not alive:
            return Canvas(rows=rows, columns=columns, x=0, y=0, wcs_header=self._wcs(alive, 0, 0))
        borders = []
        for index in alive:
            placed = self.frames[index]
            if self.alignment == "wcs" and placed.header is not None:
                borders.append(border_points(placed.header, _header(self.frames[self.reference]), rows, columns))
            elif placed.transform is not None:
                borders.append(placed.transform(corners_of(rows, columns)))
        canvas = union_canvas(borders, rows, columns)
        return replace(canvas, wcs_header=self._wcs(alive, canvas.x, canvas.y))

    def _wcs(self, alive: Sequence[int], x: int, y: int) -> str | None:
        """Return the canvas's WCS: the reference's, or that of the frame nearest to it."""
        # The grid is the reference's even where that frame itself is not used.
        near = [self.reference, *sorted(alive, key=lambda index: abs(index - self.reference))]
        for index in near:
            header, transform = self.wcs_headers[index], self.frames[index].transform
            if header is not None and transform is not None:
                cards = placed_wcs(header, transform.moved(x, y))
                if cards is not None:
                    return cards
        return None

    def maps(self, alive: Sequence[int], canvas: Canvas) -> list[PixelMap | None]:
        """Return where the canvas's pixels lie on each of the frames `alive`."""
        result: list[PixelMap | None] = []
        for index in alive:
            placed = self.frames[index]
            if self.alignment == "none":
                result.append(None)
            elif self.alignment == "wcs" and index != self.reference and canvas.wcs_header is not None:
                result.append(WcsMap(frame=_header(placed), canvas=canvas.wcs_header))
            else:
                transform = placed.transform or Affine()
                result.append(AffineMap(transform.moved(canvas.x, canvas.y).inverse()))
        return result

    def spread(self, alive: Sequence[int]) -> float:
        """Return how far the frames' first pixels lie from each other, pixels: the larger of x and y."""
        places = np.array([(t.x0, t.y0) for t in (self.frames[i].transform for i in alive) if t is not None])
        return float(np.ptp(places, axis=0).max()) if len(places) else 0.0


def place_frames(frames: Sequence[RawFrame], lists: Sequence[StarList], options: PrepareOptions) -> Placement:
    """Find every frame's place.

    Raises
    ------
    InvalidInputError
        The set can't be registered, or has no WCS where one was asked for.
    """
    headers = tuple(frame.wcs_header for frame in frames)
    named = _named_reference(frames, options)
    if options.align == "none":
        still = PlacedFrame(transform=Affine())
        return Placement(alignment="none", why="asked for", reference=named or 0, frames=(still,) * len(frames),
                         wcs_headers=headers,
                         rows=frames[0].rows, columns=frames[0].columns)  # fmt: skip
    alignment, why, reference = _choose(frames, lists, options, named)
    if alignment == "wcs":
        return _by_wcs(frames, lists, reference, why, headers)
    found = register_frames(lists, min_stars=options.min_stars, max_residual=options.max_residual,
                            names=[frame.name for frame in frames], reference=named)  # fmt: skip
    ratios = {found.reference: 1.0}
    placed: list[PlacedFrame] = [PlacedFrame()] * len(frames)
    waiting = list(range(len(frames)))
    while waiting:
        later = [i for i in waiting if found.places[i].via not in ratios and found.places[i].transform is not None]
        for index in (i for i in waiting if i not in later):
            place = found.places[index]
            match = place.match
            if place.transform is not None and match is not None:
                ratios[index] = match.flux_ratio * ratios[place.via]
            placed[index] = PlacedFrame(
                transform=place.transform, matched=0 if match is None else match.stars,
                residual=float("nan") if match is None else match.residual, flux_ratio=ratios.get(index, float("nan")),
                reason=place.reason, note=place.note,
            )  # fmt: skip
        waiting = later if len(later) < len(waiting) else []
    return Placement(
        alignment="stars",
        why=why,
        reference=found.reference,
        frames=tuple(placed),
        wcs_headers=headers,
        rows=frames[0].rows,
        columns=frames[0].columns,
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
) -> tuple[str, str, int]:
    """Return the alignment, why, and the reference."""
    reference = choose_reference(lists)[0] if named is None else named
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
    check = check_wcs([frame.wcs_header or "" for frame in frames], list(lists), [f.name for f in frames], reference)
    if check.contradicted:
        return "stars", check.worst, reference
    if not check.confirmed:
        overlapping = "frames share too few stars to check it"
        return "wcs", f"every frame has a WCS; {overlapping}", reference
    silent = f", {check.silent} share too few to say" if check.silent else ""
    return (
        "wcs",
        f"every frame has a WCS; stars of {check.confirmed} confirm it to {check.median_offset:.2f} px{silent}",
        reference,
    )


def _by_wcs(
    frames: Sequence[RawFrame], lists: Sequence[StarList], reference: int, why: str, headers: tuple[str | None, ...]
) -> Placement:
    """Place frames by their WCS."""
    from zemosaic_stack_core.prepare.stars.match import refine_match

    target = frames[reference].wcs_header or ""
    transforms = [
        Affine() if index == reference else wcs_affine(frame.wcs_header or "", target, frame.rows, frame.columns)
        for index, frame in enumerate(frames)
    ]
    exposures = [float("nan") if frame.exposure is None else frame.exposure for frame in frames]
    ratios = flux_ratios(lists, transforms, reference, exposures)
    placed = []
    for index, (frame, transform) in enumerate(zip(frames, transforms, strict=True)):
        header = frame.wcs_header or ""
        match = refine_match(lists[index], lists[reference], transform) if len(lists[index]) else None
        if match is not None and match.problem(6, 1.5):
            match = None
        placed.append(PlacedFrame(
            transform=transform, header=header, matched=0 if match is None else match.stars,
            residual=float("nan") if match is None else match.residual, flux_ratio=ratios[index],
        ))  # fmt: skip
    return Placement(
        alignment="wcs",
        why=why,
        reference=reference,
        frames=tuple(placed),
        wcs_headers=headers,
        rows=frames[0].rows,
        columns=frames[0].columns,
    )


def _header(placed: PlacedFrame) -> str:
    """Return the header of a frame that was placed by WCS."""
    return placed.header or ""
