"""The frames of one stack as ZeMosaic gives them: descriptors, some None, some of another shape, with footprints."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.frames.file_frames import FileFrame, probe_frame
from zemosaic_stack_core.frames.group import FrameGroup, open_frames
from zemosaic_stack_core.frames.host_arrays import to_host
from zemosaic_stack_core.frames.scratch import ScratchFolder

LEFT_OUT = "[P3] %d of %d frames are left out: %s; expected %s as the reference"


class OpenedFrames(NamedTuple):
    """Frames of one shape."""

    group: FrameGroup
    # Index of the reference among them.
    reference: int
    # What their indices were as given.
    kept: list[int]


@dataclass(frozen=True, kw_only=True)
class FramesGiven:
    """Frames as they are given, and what goes with them."""

    frames: Sequence[object]
    # Per frame where it has light, bool of shape (row, column); None for everywhere.
    footprints: Sequence[object] | None = None
    # Index in `frames` of the frame whose level the tile has.
    reference: int = 0
    # Makes an array of a descriptor.
    array_loader: Callable[[Any], npt.NDArray[Any]] | None = None

    def open(self, logger: logging.Logger) -> OpenedFrames:
        """Open the frames of the reference's shape; say in one line which are left out."""
        if isinstance(self.frames, (str, os.PathLike)):
            raise InvalidInputError(f"frames is {os.fspath(self.frames)!r}; expected a sequence of frames")
        scratch = ScratchFolder()
        opened = {index: self._open_one(item, scratch) for index, item in enumerate(self.frames) if item is not None}
        if not opened:
            raise InvalidInputError("no frames; expected at least one")
        reference = self.reference if self.reference in opened else min(opened)
        wanted = _shape_of(opened[reference])
        kept = [index for index, frame in opened.items() if wanted is None or _shape_of(frame) in (wanted, None)]
        left_out = sorted(set(opened) - set(kept))
        if left_out:
            shapes = ", ".join(f"frame {index} {_shape_of(opened[index])}" for index in left_out[:5])
            more = f" and {len(left_out) - 5} more" if len(left_out) > 5 else ""
            logger.warning(LEFT_OUT, len(left_out), len(opened), shapes + more, wanted)
        masks = None if self.footprints is None else [self._mask(index) for index in kept]
        group = open_frames([opened[index] for index in kept], masks, scratch=scratch)
        return OpenedFrames(group, kept.index(reference), kept)

    def _open_one(self, item: object, scratch: ScratchFolder) -> object:
        """Return the array or the open file of a descriptor."""
        frame = _frame_of(item) if self.array_loader is None else self.array_loader(item)
        return probe_frame(frame, scratch=scratch) if isinstance(frame, (str, os.PathLike)) else frame

    def _mask(self, index: int) -> object:
        """Return where a frame is missing; None where it has no footprint."""
        given = self.footprints or ()
        footprint = given[index] if index < len(given) else None
        return None if footprint is None else ~(to_host(footprint, f"footprint of frame {index}") != np.bool_(False))


def _shape_of(frame: object) -> tuple[int, ...] | None:
    """Return (row, column, channel); None of what is no frame, which opening it will say."""
    if isinstance(frame, FileFrame):
        return frame.rows, frame.columns, frame.channels
    shape = getattr(frame, "shape", getattr(getattr(frame, "data", None), "shape", None))
    if shape is None:
        return None
    return (*shape, 1) if len(shape) == 2 else tuple(shape)


def _frame_of(descriptor: object) -> object:
    """Return the array or the path of a descriptor."""
    if not isinstance(descriptor, Mapping):
        return os.fsdecode(descriptor) if isinstance(descriptor, bytes) else descriptor
    for name in ("data", "array", "path_preprocessed_cache", "path"):
        found = descriptor.get(name)
        if found is not None:
            return os.fsdecode(found) if isinstance(found, bytes) else found
    raise InvalidInputError(
        f"image descriptor has the keys {', '.join(map(str, descriptor)) or '(none)'}; "
        "expected data, array, path_preprocessed_cache or path"
    )
