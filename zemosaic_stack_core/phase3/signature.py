"""Is a tile's file still the right one? The signature says: same inputs, same options, same algorithm.

The signature is a SHA-256 over the SHA-256 of each input file in order, the options that reach a pixel, and the version
of the algorithm. It is in the tile's header (``ZSC_SIGN``), under the file's checksum. Names, places and times of the
files are not part of it: a night that was moved or touched is reused.

A file is hashed once. Its `FileStamp` (size, modification and change time, file number) is kept in the report beside
the hash, and a later run trusts the hash while the stamp is the same. The change time can't be set by a program on
POSIX systems, so that a rewritten file is noticed even where its size and modification time were restored.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from zemosaic_stack_core.master.option_cards import ALGORITHM
from zemosaic_stack_core.options import StackOptions
from zemosaic_stack_core.system.file_stamps import HashedInput, hash_text

# Version of the tile's file: raised whenever the same stack gives another file.
TILE_VERSION = "1"


def tile_signature(
    tile_id: int, inputs: Sequence[HashedInput], options: StackOptions, *, extra: Mapping[str, Any] | None = None
) -> str:
    """Return the signature of a tile, 64 hexadecimal digits.

    `inputs` are all frames of the plan, good or bad, in order; `extra` is what reaches the file besides: maps,
    saturation level, preparation.
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
    return hash_text(json.dumps(content, sort_keys=True))
