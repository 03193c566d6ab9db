"""Is a tile's file still the right one? The signature says: same inputs, same options, same algorithm.

The signature is a SHA-256 over the SHA-256 of each input file in order, the options that reach a pixel, and the version
of the algorithm. It is in the tile's header (``ZSC_SIGN``), under the file's checksum. Names, places and times of the
files are not part of it: a night that was moved or touched is reused.

A file is hashed once. Its `FileStamp` (size, modification and change time, file number) is kept in the report beside
the hash, and a later run trusts the hash while the stamp is the same. The change time can't be set by a program on
POSIX systems, so that a rewritten file is noticed even where its size and modification time were restored.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zemosaic_stack_core.errors import FrameReadError
from zemosaic_stack_core.options import StackOptions
from zemosaic_stack_core.writing.fits_stream import find_damage
from zemosaic_stack_core.writing.option_cards import ALGORITHM
from zemosaic_stack_core.zemosaic.parallel_plan import usable_cores

__all__ = [
    "TILE_VERSION",
    "FileStamp",
    "HashedInput",
    "InputHashes",
    "file_stamp",
    "hash_file",
    "inputs_from_json",
    "inputs_to_json",
    "is_whole",
    "tile_signature",
]

TILE_VERSION = "1"
"""Version of the tile's file: raised whenever the same stack gives another file."""

_PIECE = 1 << 20
_UNREADABLE = "unreadable"


@dataclass(frozen=True)
class FileStamp:
    """What the file system says of a file; equal stamps mean an unchanged file.

    Parameters
    ----------
    size : int
        Bytes.
    modified, changed : int
        Times of the last change of content and of anything, nanoseconds.
    number : int
        The file's number on its disk.
    """

    size: int
    modified: int
    changed: int
    number: int


@dataclass(frozen=True)
class HashedInput:
    """An input file with its stamp and SHA-256; no stamp and the word "unreadable" where it can't be read."""

    stamp: FileStamp | None
    sha256: str


def file_stamp(path: str | os.PathLike[str]) -> FileStamp | None:
    """Return the stamp of an ordinary file, None where there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a Path costs as much as the call
    except (OSError, ValueError):
        return None
    if status.st_mode & 0o170000 != 0o100000:  # a folder, a pipe that would wait forever
        return None
    return FileStamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def hash_file(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file, hexadecimal; "unreadable" where it can't be read to its end."""
    digest = hashlib.sha256()
    buffer = bytearray(_PIECE)
    view = memoryview(buffer)
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            while count := file.readinto(buffer):
                digest.update(view[:count])
    except (OSError, ValueError):
        return _UNREADABLE
    return digest.hexdigest()


class InputHashes:
    """The hashes of inputs, each computed once.

    Parameters
    ----------
    known : mapping
        From an earlier report: path as given to `HashedInput`.
    """

    def __init__(self, known: Mapping[str, HashedInput] | None = None) -> None:
        self._known = dict(known or {})

    def look(self, paths: Sequence[Path]) -> list[HashedInput]:
        """Return the hash of each file; those that are not known yet are read, several at a time.

        No thread is left when this returns: the stack's workers are forked.
        """
        names = [os.fspath(path) for path in paths]
        stamps = [file_stamp(name) for name in names]
        unknown = list(
            dict.fromkeys(
                name
                for name, stamp in zip(names, stamps, strict=True)
                if stamp is not None and not (name in self._known and self._known[name].stamp == stamp)
            )
        )
        if len(unknown) > 1:
            with ThreadPoolExecutor(max_workers=min(usable_cores(), len(unknown))) as pool:
                hashes = dict(zip(unknown, pool.map(hash_file, unknown), strict=True))
        else:
            hashes = {name: hash_file(name) for name in unknown}
        found = []
        for name, stamp in zip(names, stamps, strict=True):
            if stamp is None:
                found.append(HashedInput(None, _UNREADABLE))
                continue
            if name in hashes:
                self._known[name] = HashedInput(stamp, hashes[name])
            found.append(self._known[name])
        return found


def inputs_to_json(paths: Iterable[Path], inputs: Iterable[HashedInput]) -> list[list[Any]]:
    """Return rows of name, SHA-256, size, times and number for the report."""
    return [
        [os.fspath(path), item.sha256, *(asdict(item.stamp).values() if item.stamp else ())]
        for path, item in zip(paths, inputs, strict=True)
    ]


def inputs_from_json(rows: Iterable[Sequence[Any]]) -> dict[str, HashedInput]:
    """Undo `inputs_to_json`; rows that are not understood are left out."""
    found = {}
    for row in rows:
        if len(row) == 6 and all(isinstance(value, int) for value in row[2:]):
            found[str(row[0])] = HashedInput(FileStamp(*row[2:]), str(row[1]))
    return found


def tile_signature(
    tile_id: int, inputs: Sequence[HashedInput], options: StackOptions, *, extra: Mapping[str, Any] | None = None
) -> str:
    """Return the signature of a tile, 64 hexadecimal digits.

    Parameters
    ----------
    tile_id : int
        Its number, which is in the file.
    inputs : sequence of HashedInput
        Every frame of the plan, good or bad, in order.
    options : StackOptions
        What the stack was asked for.
    extra : mapping, optional
        Whatever else reaches the file: the maps, the radial weight, the saturation level.
    """
    content = {
        "tile": tile_id,
        "inputs": [item.sha256 for item in inputs],
        "options": asdict(options),
        "algorithm": ALGORITHM,
        "version": TILE_VERSION,
        "byteorder": sys.byteorder,
        **(extra or {}),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def is_whole(path: str | os.PathLike[str]) -> bool:
    """Return whether a tile's file agrees with its checksums."""
    try:
        return find_damage(path) is None
    except FrameReadError:
        return False
