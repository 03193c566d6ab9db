"""One master tile from its frames, on the GPU or the CPU: what ZeMosaic's Phase 3 calls for each group.

`create_master_tile` stacks and writes. What comes after the stack, such as cropping, is the caller's: a list of
`AfterStack` steps, which see the same `StackedTile` whichever backend made it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import FrameReadError, InvalidInputError
from zemosaic_stack_core.frames.borders import zero_border_line
from zemosaic_stack_core.frames.file_frames import FileFrame
from zemosaic_stack_core.frames.frame_lists import least_frames
from zemosaic_stack_core.frames.group import FrameGroup, group_frames
from zemosaic_stack_core.frames.masks import ZeroMask
from zemosaic_stack_core.frames.pixel_rows import FilePool
from zemosaic_stack_core.frames.scratch import ScratchFolder
from zemosaic_stack_core.gpu.auto import stack_tile
from zemosaic_stack_core.gpu.phase3_gpu import Phase3Gpu
from zemosaic_stack_core.master.tile import MasterExtras, TileFacts
from zemosaic_stack_core.master.write import write_master
from zemosaic_stack_core.options import MAPS, StackOptions, check_maps, is_whole_number
from zemosaic_stack_core.per_frame.choice import choose_options
from zemosaic_stack_core.phase3.frame_check import FrameChoice, choose_frames
from zemosaic_stack_core.phase3.tile_record import DroppedFrame
from zemosaic_stack_core.stacking.adviser import advise
from zemosaic_stack_core.stacking.combined_header import observing_header
from zemosaic_stack_core.stacking.job import StackRequest
from zemosaic_stack_core.stacking.limits import NO_LIMITS, Limits
from zemosaic_stack_core.stacking.result import StackResult
from zemosaic_stack_core.stacking.telemetry import QUIET, PcbTile, Progress, Telemetry
from zemosaic_stack_core.stacking.workers import choose_workers

if TYPE_CHECKING:
    from astropy.io import fits

    from zemosaic_stack_core.prepare.raw_policy import RawPolicy


@dataclass(frozen=True, kw_only=True)
class StackSettings:
    """How the tiles of a run are made.

    Parameters
    ----------
    options : StackOptions
        Normalization, weighting, rejection, combination.
    maps : tuple of str
        Maps in the tile's file, see `stack`.
    auto : frozenset of str
        Names of options that are chosen for each tile's frames: ``rejection``, ``normalization``.
    min_frames : int or None
        A tile of fewer good frames fails; at least 1. None: one of which a third of the frames or less is good.
    strict : bool
        A bad frame fails its tile.
    zeros_missing : bool
        Samples of exactly zero are missing.
    saturation : float or None
        Saturation level, input units; None for that of the frame's type.
    limits : Limits
        What a tile may take of the machine; `read_limits` makes them of a plan of ZeMosaic's.
    raw_policy : RawPolicy or None
        What becomes of frames that are raw, kept in ``prepared`` in the output folder where it names no other; None
        where all frames are aligned.
    """

    options: StackOptions
    auto: frozenset[str] = frozenset()
    maps: tuple[str, ...] = ("coverage",)
    min_frames: int | None = 1
    strict: bool = False
    zeros_missing: bool = False
    saturation: float | None = None
    limits: Limits = NO_LIMITS
    raw_policy: RawPolicy | None = None

    def __post_init__(self) -> None:
        if self.min_frames is not None and not is_whole_number(self.min_frames, 1):
            raise InvalidInputError(f"min_frames is {self.min_frames!r}; expected a whole number of at least 1")

    def least_frames(self, given: int) -> int:
        """Return how many of so many frames must be good."""
        return least_frames(given) if self.min_frames is None else self.min_frames


@dataclass(frozen=True, kw_only=True)
class StackedTile:
    """A stack on its way to its file; a step of `after_stack` takes one and returns one.

    Parameters
    ----------
    result : StackResult
        Image and maps, (row, column[, channel]).
    dropped : tuple of DroppedFrame
        Frames that were left out, and why.
    alpha : array of shape (row, column), uint8, or None
        What goes into ALPHA; None for 255 where every channel has coverage, else 0.
    origin : tuple of int
        (row, column) on the frames' grid of the image's first pixel: not (0, 0) after a crop.
    chosen : tuple of str
        Options that were chosen for these frames, and why.
    zero_borders : str
        A line about frames with borders of exact zeros that were averaged in; empty without any.
    """

    result: StackResult
    dropped: tuple[DroppedFrame, ...] = ()
    alpha: npt.NDArray[np.uint8] | None = None
    origin: tuple[int, int] = (0, 0)
    chosen: tuple[str, ...] = ()
    zero_borders: str = ""

    @property
    def said(self) -> dict[str, Any]:
        """What was chosen for the frames, and what the rule can do with so many."""
        advice = advise(len(self.result.frames), self.result.options).line.removeprefix("advice: ")
        said = {"chosen": list(self.chosen), "advice": advice, "zero_borders": self.zero_borders}
        return {name: value for name, value in said.items() if value}

    def crop(self, rows: slice, columns: slice) -> StackedTile:
        """Return the tile cut to some rows and columns, its maps and alpha with it; the WCS will follow.

        Parameters
        ----------
        rows, columns : slice
            Of step 1.

        Raises
        ------
        InvalidInputError
            Nothing would be left, or a step is not 1.
        """
        height, width = self.result.image.shape[:2]
        top, bottom, row_step = rows.indices(height)
        left, right, column_step = columns.indices(width)
        if (row_step, column_step) != (1, 1) or top >= bottom or left >= right:
            raise InvalidInputError(f"crop to {rows}, {columns} of {height} x {width}; expected some rows and columns")

        def cut(array: Any) -> Any:
            return None if array is None else array[top:bottom, left:right]

        result = self.result
        flags = None if result.rejected is None else result.rejected[:, top:bottom, left:right]
        maps = {name: cut(getattr(result, name)) for name in MAPS}
        cropped = replace(result, image=cut(result.image), rejected=flags, **maps)
        origin = (self.origin[0] + top, self.origin[1] + left)
        return replace(self, result=cropped, alpha=cut(self.alpha), origin=origin)


# A step between the stack and its file: the caller's crop, its alpha.
AfterStack = Callable[[StackedTile], StackedTile]


def stack_frames(
    choice: FrameChoice,
    settings: StackSettings,
    *,
    gpu: Phase3Gpu | None = None,
    telemetry: Telemetry = QUIET,
) -> StackedTile:
    """Stack chosen frames; one that turns out to be unreadable on the way is dropped too.

    Raises `InvalidInputError` where fewer good frames are left than wanted, or a bad one in strict settings.
    """
    frames, dropped = list(choice.frames), list(choice.dropped)
    request = StackRequest(options=settings.options, maps=check_maps(settings.maps))
    while True:
        _check_enough(frames, dropped, settings, choice.spare)
        group = _group(frames, zeros_missing=settings.zeros_missing)
        try:
            workers = choose_workers(group, settings.limits, is_host=True)
            chosen = choose_options(group, settings.options, settings.auto, kind=choice.kind, workers=workers)
            request = replace(request, options=chosen.options, statistics=chosen.statistics)
            result = stack_tile(group, request, gpu, settings.limits, telemetry)
        except FrameReadError as error:
            bad = _named_in(str(error), frames)
            if bad is None:
                raise
            frames.remove(bad)
            reason = " ".join(str(error).removeprefix(f"{bad.name}: ").split())
            dropped.append(DroppedFrame(name=bad.name, reason=reason))
            continue
        with FilePool() as files:
            zero_borders = "" if settings.zeros_missing else zero_border_line(frames, files)
        return StackedTile(result=result, dropped=tuple(dropped), chosen=chosen.lines, zero_borders=zero_borders)


def _group(frames: Sequence[FileFrame], *, zeros_missing: bool) -> FrameGroup:
    """Return the group of a tile's frames."""
    if not zeros_missing:
        return group_frames(frames)
    group = group_frames(frames, [(ZeroMask(frame),) for frame in frames])
    return replace(group, given=replace(group.given, zeros_missing=True))


def _check_enough(
    frames: Sequence[FileFrame], dropped: Sequence[DroppedFrame], settings: StackSettings, spare: int
) -> None:
    """Raise where a tile can't be made of what is left; `spare` of the dropped frames are good and not wanted."""
    if settings.strict and len(dropped) > spare:
        first = dropped[0]
        raise InvalidInputError(
            f"{len(dropped)} bad of {len(frames) + len(dropped)} frames, first {first.name}: {first.reason} (strict)"
        )
    given = len(frames) + len(dropped)
    least = settings.least_frames(given - spare)
    if len(frames) < least:
        why = f"; first bad one {dropped[0].name}: {dropped[0].reason}" if dropped else ""
        raise InvalidInputError(
            f"{len(frames)} good of {given - spare} frames; expected at least {least} (--min-frames){why}"
        )


def _named_in(message: str, frames: Sequence[FileFrame]) -> FileFrame | None:
    """Return the frame that an error is about: messages begin with the frame's name."""
    named = [frame for frame in frames if message.startswith(frame.name)]
    return max(named, key=lambda frame: len(frame.name), default=None)


def write_tile(
    path: str | os.PathLike[str], tile: StackedTile, extras: MasterExtras, *, overwrite: bool = False
) -> Path:
    """Write a stacked tile as ZeMosaic's later phases want it: see `write_master`."""
    result = tile.result
    facts = result.facts
    cards: list[tuple[str, str | int | float | bool, str]] = []
    if facts.gpu_attempts:
        cards.append(("ZSC_GATT", facts.gpu_attempts, "attempts on the GPU for this tile"))
    if facts.gpu_attempts and not facts.used_gpu:
        cards.append(("ZSC_GWHY", _ascii(facts.fallback_reason), ""))
    if tile.dropped:
        cards.append(("ZSC_NDRP", len(tile.dropped), "frames dropped, see the report"))
    if tile.origin != (0, 0):
        extras = replace(extras, reference=_moved_header(tile))
    return write_master(path, result, replace(extras, alpha=tile.alpha, cards=cards), overwrite=overwrite)


def _ascii(text: str) -> str:
    """Return text that a card can hold, on one line."""
    return "".join(letter if " " <= letter <= "~" else "?" for letter in " ".join(text.split()))[:200]


def _moved_header(tile: StackedTile) -> fits.Header:
    """Return the reference frame's header with the WCS moved by the crop."""
    from astropy.io import fits

    header = observing_header(tile.result)
    if header is None:
        return fits.Header()
    for keyword, shift in (("CRPIX1", tile.origin[1]), ("CRPIX2", tile.origin[0])):
        if isinstance(header.get(keyword), (int, float)):
            header[keyword] = header[keyword] - shift
    return header


def create_master_tile(
    frames: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    tile_id: int,
    settings: StackSettings | None = None,
    gpu: Phase3Gpu | None = None,
    after_stack: Sequence[AfterStack] = (),
    pcb_tile: PcbTile | None = None,
    progress: Progress | None = None,
    overwrite: bool = False,
) -> tuple[Path, dict[str, Any]]:
    """Make one master tile: choose the frames, stack them, take the caller's steps, write the file.

    Parameters
    ----------
    frames : sequence of paths
        Aligned frames on one grid. Bad ones are dropped one by one.
    output : path
        The file to write.
    tile_id : int
        The tile's number.
    settings : StackSettings, optional
        Default: the defaults of `StackOptions`, with the coverage map.
    gpu : Phase3Gpu or None
        State of the run, shared by its tiles; None for the CPU.
    after_stack : sequence of callables
        Each takes a `StackedTile` and returns one: crop, alpha. The same steps run whichever backend made the tile.
    pcb_tile, progress : callable, optional
        See `stack_auto`.
    overwrite : bool
        An existing file may be replaced.

    Returns
    -------
    path : Path
        The file.
    meta : dict
        ``backend used_gpu gpu_attempts fallback_reason normalization weighting rejection combine reference frames_given
        frames_used dropped notes details``, and ``result``, the whole `StackResult`.

    Raises
    ------
    InvalidInputError
        Too few good frames, or an option that does not fit.
    OutputError
        The file can't be written.
    """
    chosen = StackSettings(options=StackOptions()) if settings is None else settings
    paths = [Path(frame) for frame in frames]
    with ScratchFolder() as scratch:
        choice = choose_frames(paths, scratch=scratch, saturation=chosen.saturation)
        telemetry = Telemetry(progress=progress, pcb_tile=pcb_tile, tile_id=tile_id)
        tile = stack_frames(choice, chosen, gpu=gpu, telemetry=telemetry)
        for step in after_stack:
            tile = step(tile)
        extras = MasterExtras(tile=TileFacts(tile_id=tile_id, raw_frames=len(paths)))
        written = write_tile(output, tile, extras, overwrite=overwrite)
    return written, _meta(tile, len(paths))


def _meta(tile: StackedTile, raw_frames: int) -> dict[str, Any]:
    """Return how a tile was made: what really acted."""
    result = tile.result
    options = result.options
    return {
        "backend": result.backend,
        "used_gpu": result.facts.used_gpu,
        "gpu_attempts": result.facts.gpu_attempts,
        "fallback_reason": result.facts.fallback_reason,
        "normalization": options.normalization,
        "weighting": options.weighting,
        "rejection": options.rejection,
        "combine": options.combine,
        "reference": result.reference,
        "frames_given": raw_frames,
        "frames_used": len(result.frames),
        "dropped": [(frame.name, frame.reason) for frame in tile.dropped],
        "notes": [(frame.name, frame.note) for frame in result.frames if frame.note],
        "result": result,
        "details": asdict(result.facts),
    }
