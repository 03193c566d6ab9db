"""Which frames make which tile: a JSON plan, or a folder whose sub-folders are tiles."""

from __future__ import annotations

import json
import logging
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zemosaic_stack_core.errors import FrameReadError, InvalidInputError
from zemosaic_stack_core.frames.exclusions import Exclusions
from zemosaic_stack_core.frames.frame_lists import FRAME_SUFFIXES, expand_frame_arguments, kind_folders, natural_key
from zemosaic_stack_core.frames.known_folders import is_kept, kind_of_folder

# In the output folder: the aligned frames of tiles whose frames are raw.
PREPARED_FOLDER = "prepared"

_LOGGER = logging.getLogger(__name__)
_MASTER = re.compile(r"master_tile_\d{3,}\.fits")

# Windows, macOS, NAS devices; and what begins with "@".
_SYSTEM_FOLDERS = frozenset(
    ("$recycle.bin", "recycler", "system volume information", "__macosx", "lost+found", "#recycle", "#snapshot")
)


@dataclass(frozen=True, kw_only=True)
class TileSpec:
    """One tile to make.

    Parameters
    ----------
    tile_id : int
        Its number, at least 0; the file is ``master_tile_<number>.fits``.
    name : str
        What people call it.
    frames : tuple of Path
        Its frames, in the order in which they are stacked.
    problem : str
        Why there are no frames; empty where there are.
    excluded : tuple of str
        Names of frames that were left out on request.
    """

    tile_id: int
    name: str
    frames: tuple[Path, ...]
    problem: str = ""
    excluded: tuple[str, ...] = ()

    @property
    def file_name(self) -> str:
        """Name of the master tile's file."""
        return f"master_tile_{self.tile_id:03d}.fits"


@dataclass(frozen=True)
class Shard:
    """Part `index` (from 1) of `count` of a run."""

    index: int
    count: int

    def take(self, tiles: Sequence[TileSpec]) -> list[TileSpec]:
        """Return this shard's tiles: every `count`-th, so that shards are alike where neighbouring tiles are."""
        return list(tiles[self.index - 1 :: self.count])

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def parse_shard(text: str) -> Shard:
    """Read ``i/n``.

    Raises
    ------
    InvalidInputError
        Not two whole numbers with 1 <= i <= n.
    """
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise InvalidInputError(f"shard is {text!r}; expected i/n with 1 <= i <= n, such as 2/8")
    return Shard(int(match[1]), int(match[2]))


def read_run_plan(path: str | os.PathLike[str], *, output: str | os.PathLike[str] | None = None) -> list[TileSpec]:
    """Read the tiles of a run.

    Parameters
    ----------
    path : path
        A JSON file ``{"tiles": [{"id": 1, "frames": ["a.fits", ...]}, ...]}``: frames are files, folders or patterns,
        relative to the plan's folder; ``id`` is by default the position, from 1; ``name`` is optional; there is
        nothing else in it. Or a folder:
        each of its sub-folders, in natural order, is a tile, numbered from 1; hidden ones, those of the system, those
        without frames, what a preparation keeps and the tiles of an earlier run are not. A tile's frames may lie in its
        folders ``lights``, ``darks`` and the like; ``darks``, ``flats`` and ``biases`` beside the tiles belong to all,
        and where there are ``lights``, these folders are one tile.
    output : path, optional
        The output folder, which is not a tile even where it lies in the plan's folder.

    Returns
    -------
    list of TileSpec
        At least one. A tile whose frames can't be listed is there, with its `problem`: it fails alone.

    Raises
    ------
    InvalidInputError
        The plan is not one: no tile, two tiles of one number, a field of another type; or the output lies in a tile's
        folder, where the next run would take the tiles for frames.
    FrameReadError
        The plan can't be read.
    """
    source = Path(path)
    tiles = _folder_tiles(source, output) if source.is_dir() else _json_tiles(source)
    twice = [number for number, count in Counter(tile.tile_id for tile in tiles).items() if count > 1]
    if twice:
        raise InvalidInputError(f"{source}: {len(twice)} numbers are used twice, first {twice[0]}; expected each once")
    return tiles


def leave_out(tiles: Sequence[TileSpec], exclusions: Exclusions) -> list[TileSpec]:
    """Return the tiles without the frames that a list names; one that loses all has a problem.

    Raises InvalidInputError where a line of the list names no frame of any tile.
    """
    places = exclusions.find([frame for tile in tiles for frame in tile.frames])
    left: list[TileSpec] = []
    first = 0
    for tile in tiles:
        is_out = [first + place in places for place in range(len(tile.frames))]
        first += len(tile.frames)
        frames = tuple(frame for frame, out in zip(tile.frames, is_out, strict=True) if not out)
        excluded = tuple(os.fspath(frame) for frame, out in zip(tile.frames, is_out, strict=True) if out)
        problem = f"{exclusions.source} leaves out all its frames" if excluded and not frames else tile.problem
        left.append(replace(tile, frames=frames, excluded=excluded, problem=problem))
    return left


def _folder_tiles(source: Path, output: str | os.PathLike[str] | None) -> list[TileSpec]:
    """Return the tiles of a folder of folders."""
    try:
        entries = [entry for entry in source.iterdir() if not _is_system(entry.name)]
    except OSError as error:
        raise FrameReadError(f"{source}: {error.strerror}; expected a readable folder") from None
    if output is not None:
        _refuse_output_in_a_tile(source, Path(output))
    target = None if output is None else Path(os.path.realpath(output))
    if kind_folders(source) and not any(entry.name.casefold().endswith(FRAME_SUFFIXES) for entry in entries):
        return [_tile(1, Path(os.path.realpath(source)).name, [os.fspath(source)])]
    folders: list[Path] = []
    # Of calibration frames; and names of those without any.
    shared: list[Path] = []
    empty = []
    for entry in sorted(filter(Path.is_dir, entries), key=natural_key):
        if target is not None and Path(os.path.realpath(entry)) in (target, target / PREPARED_FOLDER):
            continue
        if _is_output(entry):
            _LOGGER.warning("%s: holds the tiles of an earlier run; left out of the plan", entry)
            continue
        if is_kept(entry):
            _LOGGER.warning("%s: what the preparation of frames keeps; left out of the plan", entry)
            continue
        if _is_empty(entry):
            empty.append(entry.name)
            continue
        (folders if kind_of_folder(entry.name) in ("", "light") else shared).append(entry)
    if not folders:  # masters of calibration frames, a tile each
        folders, shared = shared, []
    elif shared:
        names = ", ".join(entry.name for entry in shared)
        _LOGGER.warning("%s: calibration frames in %s belong to every tile", source, names)
    if empty and folders:
        _LOGGER.warning("%s: %d folders without frames left out, as %s", source, len(empty), empty[0])
    if not folders:
        has_frames = any(entry.name.casefold().endswith(FRAME_SUFFIXES) for entry in entries)
        found = "frames, but no folder of frames" if has_frames else "no folder in this folder"
        one = "; for a single tile: zemosaic-worker stack" if has_frames else ""
        raise InvalidInputError(f"{source}: {found}; expected one for each tile, with its frames{one}")
    more = list(map(os.fspath, shared))
    return [_tile(number, folder.name, [os.fspath(folder), *more]) for number, folder in enumerate(folders, start=1)]


def _is_system(name: str) -> bool:
    """Return whether a folder is hidden, or one of those that systems and storage devices put everywhere."""
    return name.startswith((".", "@")) or name.casefold() in _SYSTEM_FOLDERS


def _is_empty(folder: Path) -> bool:
    """Return whether a folder that can be read has no frames, nor has its ``lights``."""
    try:
        parts = [folder, *kind_folders(folder)]
        parts += [below for part in parts[1:] for below in part.iterdir() if below.is_dir()]
        names = [entry.name for part in parts for entry in part.iterdir()]
    except OSError:
        return False
    return not any(name.casefold().endswith(FRAME_SUFFIXES) for name in names)


def _refuse_output_in_a_tile(source: Path, output: Path) -> None:
    """Raise where the next run would take the tiles for frames."""
    root, target = Path(os.path.realpath(source)), Path(os.path.realpath(output))
    if root not in target.parents:
        return
    inside = target.relative_to(root).parts
    if len(inside) > 1 or _has_frames(target):
        raise InvalidInputError(
            f"{output}: lies in {source / inside[0]}, which is a tile of the plan; expected a folder outside of it"
        )


def _has_frames(folder: Path) -> bool:
    """Return whether a folder has frames that are not the tiles of a run."""
    try:
        names = [entry.name.casefold() for entry in folder.iterdir()]
    except OSError:
        return False
    return any(name.endswith(FRAME_SUFFIXES) and not _MASTER.fullmatch(name) for name in names)


def _is_output(folder: Path) -> bool:
    """Return whether a folder holds the tiles and a report of an earlier run, and nothing else that could be frames."""
    try:
        has_report = any(True for _ in folder.glob("report*.json"))
        has_tiles = any(_MASTER.fullmatch(entry.name) for entry in folder.iterdir())
    except OSError:
        return False
    return has_report and has_tiles and not _has_frames(folder)


def _tile(number: int, name: str, arguments: list[str]) -> TileSpec:
    """Return a tile; where its frames can't be listed, one that says why."""
    frames: list[Path] = []
    for argument in arguments:
        try:
            frames += expand_frame_arguments([argument])
        except (InvalidInputError, FrameReadError) as error:
            if len(arguments) == 1:
                return TileSpec(tile_id=number, name=name, frames=(), problem=str(error))
            frames.append(Path(argument))  # one bad frame among others: it is dropped with the reason that it has
    # Absolute: the workers of a cluster run elsewhere, and the frames' names in the tile must not depend on that.
    return TileSpec(tile_id=number, name=name, frames=tuple(frame.absolute() for frame in frames))


def _json_tiles(source: Path) -> list[TileSpec]:
    """Return the tiles of a JSON plan."""
    try:
        plan = json.loads(source.read_text(encoding="utf-8-sig"))  # editors on Windows write the mark
    except OSError as error:
        raise FrameReadError(f"{source}: {error.strerror}; expected a plan (JSON) or a folder of tiles") from None
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"{source}: not a JSON file ({error}); expected a plan of tiles") from None
    if isinstance(plan, dict):
        _refuse_unknown(str(source), plan, ("tiles",))
    entries = plan.get("tiles") if isinstance(plan, dict) else None
    if not isinstance(entries, list) or not entries:
        raise InvalidInputError(f'{source}: no list of tiles; expected {{"tiles": [{{"frames": [...]}}, ...]}}')
    return [_json_tile(source, position, entry) for position, entry in enumerate(entries, start=1)]


def _refuse_unknown(where: str, entry: dict[str, Any], known: tuple[str, ...]) -> None:
    """Raise where a plan has a key that means nothing: more often than not it is misspelt."""
    for key in entry:
        if key not in known:
            raise InvalidInputError(f"{where}: {key!r} means nothing in a plan; expected {', '.join(known)}")


def _json_tile(source: Path, position: int, entry: Any) -> TileSpec:
    """Return one tile of a JSON plan."""
    where = f"{source}: tile {position} of the list"
    if not isinstance(entry, dict):
        raise InvalidInputError(f'{where} is a {type(entry).__name__}; expected {{"id": ..., "frames": [...]}}')
    _refuse_unknown(where, entry, ("id", "name", "frames"))
    number = entry.get("id", position)
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 10**9:
        raise InvalidInputError(f"{where}: id is {number!r}; expected a whole number of at least 0")
    frames = entry.get("frames")
    if not isinstance(frames, list) or not all(isinstance(frame, str) for frame in frames):
        raise InvalidInputError(f"{where}: frames is {type(frames).__name__}; expected a list of paths")
    name = entry.get("name", f"tile {number}")
    if not isinstance(name, str):
        raise InvalidInputError(f"{where}: name is {name!r}; expected text")
    folder = source.parent
    # A list file keeps its mark in front: the path behind it is what is relative to the plan.
    arguments = [f"@{folder / frame[1:]}" if frame.startswith("@") else os.fspath(folder / frame) for frame in frames]
    return _tile(number, name, arguments)
