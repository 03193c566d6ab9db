"""Frames to leave out: a list of paths and names that somebody wrote, or the report of a night did."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.frames.frame_lists import read_lines


@dataclass(frozen=True)
class Exclusions:
    """What a list of frames to leave out says."""

    source: Path
    # Number and text of each line that names a frame.
    lines: tuple[tuple[int, str], ...] = ()

    def find(self, frames: Sequence[Path]) -> set[int]:
        """Return the places of the frames that are named; raise `InvalidInputError` where a line names none.

        A whole path is that file. Anything else is the end of a path: a name, or a name with folders in front.
        """
        whole = [frame.absolute() for frame in frames]
        found: set[int] = set()
        strange: list[tuple[int, str]] = []
        ends: dict[int, dict[tuple[str, ...], list[int]]] = {}
        real: dict[str, list[int]] = {}
        for number, text in self.lines:
            path = Path(text).expanduser()
            parts = path.parts
            if len(parts) not in ends:
                ends[len(parts)] = _by_end(whole, len(parts))
            places = ends[len(parts)].get(parts, [])
            if not places and path.is_absolute():  # by a link
                if not real:
                    real = defaultdict(list)
                    for place, frame in enumerate(whole):
                        real[os.path.realpath(frame)].append(place)
                places = real.get(os.path.realpath(path), [])
            if not places:
                strange.append((number, text))
            found.update(places)
        if strange:
            number, text = strange[0]
            more = f", and {len(strange) - 1} more of its lines" if len(strange) > 1 else ""
            raise InvalidInputError(
                f"{self.source}: line {number}, {text!r}{more}: no frame is called that; expected the path or the name "
                f"of one of the {len(frames)} frames"
            )
        return found


def _by_end(paths: Sequence[Path], length: int) -> dict[tuple[str, ...], list[int]]:
    """Return the places of paths by the last so many of their parts."""
    places: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, path in enumerate(paths):
        places[path.parts[-length:]].append(place)
    return places


def read_exclusions(path: str | os.PathLike[str]) -> Exclusions:
    """Read a list of frames to leave out: UTF-8, a path or a name a line; blank lines and ``#`` comments are ignored.

    Raise `FrameReadError` where it can't be read.
    """
    source = Path(path).expanduser()
    return Exclusions(source, tuple(read_lines(source, "list of frames to leave out")))


def without_excluded(paths: Sequence[Path], exclusions: Exclusions) -> tuple[list[Path], list[Path]]:
    """Return the frames that stay and those that are left out; raise `InvalidInputError` where none would stay."""
    places = exclusions.find(paths)
    if paths and len(places) == len(paths):
        raise InvalidInputError(f"{exclusions.source}: leaves out all {len(paths)} frames; expected some to stay")
    return (
        [path for place, path in enumerate(paths) if place not in places],
        [path for place, path in enumerate(paths) if place in places],
    )
