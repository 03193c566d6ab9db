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
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zemosaic_stack_core.errors import FrameReadError
from zemosaic_stack_core.fits.stream import find_damage
from zemosaic_stack_core.master.option_cards import ALGORITHM
from zemosaic_stack_core.options import StackOptions
from zemosaic_stack_core.system.file_stamps import FileStamp, HashedInput

TILE_VERSION = "1"
"""Version of the tile's file: raised whenever the same stack gives another file."""


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
