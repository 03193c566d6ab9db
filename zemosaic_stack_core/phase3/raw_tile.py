"""Tiles of frames as the telescope wrote them: registered and resampled before they are stacked."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zemosaic_stack_core.frames.file_frames import probe_frame
from zemosaic_stack_core.frames.scratch import ScratchFolder
from zemosaic_stack_core.phase3.frame_check import FrameChoice, choose_frames
from zemosaic_stack_core.phase3.outcome import DroppedFrame
from zemosaic_stack_core.phase3.tile import StackSettings
from zemosaic_stack_core.prepare.headers.recognize import decide

if TYPE_CHECKING:
    from zemosaic_stack_core.prepare.options import PrepareOptions
    from zemosaic_stack_core.prepare.records import PreparedGroup


_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class RawChoice:
    """The frames of a tile to stack, and how they were prepared.

    Parameters
    ----------
    choice : FrameChoice
        Good and dropped frames.
    group : PreparedGroup or None
        Of raw frames.
    given : int
        Frames that the tile was to be made of; calibration frames don't count.
    settings : StackSettings
        How to stack: raw frames' levels are matched where nobody asked for anything else.
    """

    choice: FrameChoice
    group: PreparedGroup | None
    given: int
    settings: StackSettings

    @property
    def extras(self) -> dict[str, Any]:
        """What `write_tile` puts into the file besides."""
        if self.group is None or self.group.alignment == "none":
            return {}
        from zemosaic_stack_core.prepare.report import frames_columns, history_lines

        group = self.group
        return {"columns": lambda names: frames_columns(group, names), "history": history_lines(group)}

    @property
    def facts(self) -> dict[str, Any]:
        """What the report says of the preparation."""
        if self.group is None:
            return {}
        from zemosaic_stack_core.prepare.report import group_facts

        return {"prepared": group_facts(self.group)}


def tile_is_raw(frames: Sequence[Path], settings: StackSettings) -> bool:
    """Say whether a tile's frames are to be prepared."""
    return settings.prepare is not None and decide(settings.prepare, frames).is_raw


def _have_moved(frames: Sequence[Path], options: PrepareOptions) -> bool:
    """Say whether frames whose headers leave it open are not aligned, by their stars.

    Only where a tile is made: what the stars say of the same files never changes, so its signature can do without.
    """
    found = decide(options, frames)
    if not found.is_open:
        return False
    from zemosaic_stack_core.prepare.look import look_at_stars

    found = look_at_stars(found, frames)
    if found.is_raw or found.line:
        _LOGGER.info("prepare: %s", f"{found.why}; they are registered first" if found.is_raw else found.line)
    return found.is_raw


def choose_tile_frames(
    frames: Sequence[Path], settings: StackSettings, *, is_raw: bool, cache: Path, scratch: ScratchFolder
) -> RawChoice:
    """Open the frames of a tile, prepared where they are raw; bad ones are left out."""
    choice = choose_frames(frames, scratch=scratch, saturation=settings.saturation)
    if not is_raw and settings.prepare is not None:
        is_raw = _have_moved([frame.path for frame in choice.frames], settings.prepare)
    if not is_raw or not choice.frames:
        return RawChoice(choice, None, len(frames), settings)
    from zemosaic_stack_core.prepare.pipeline import prepare_frames

    def tell(line: str) -> None:
        _LOGGER.info("prepare: %s", line)

    folder = settings.cache_folder or cache
    paths = [frame.path for frame in choice.frames]
    group = prepare_frames(paths, settings.prepare, cache_folder=folder, report=tell, workers=settings.limits.workers)
    dropped = [*choice.dropped, *(DroppedFrame(name=frame.name, reason=frame.dropped) for frame in group.dropped)]
    good = tuple(probe_frame(path, scratch=scratch) for path in group.paths)
    if settings.raw_normalization is not None and group.levels == "none" and group.alignment != "none":
        options = replace(settings.options, normalization=settings.raw_normalization)
        settings = replace(settings, options=options)
    return RawChoice(FrameChoice(good, tuple(dropped)), group, len(group.frames) + len(choice.dropped), settings)
