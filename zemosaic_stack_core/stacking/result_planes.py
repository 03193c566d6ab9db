"""Where the chunks of a stack write their results: arrays of the whole image."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

# Name and type of every plane that can be asked for.
PLANES: dict[str, type[np.generic]] = {
    "image": np.float32,
    "coverage": np.int32,
    "rejected_low": np.int32,
    "rejected_high": np.int32,
    "weight_map": np.float32,
    "variance": np.float32,
    "low": np.float32,
    "high": np.float32,
}


def result_bytes(maps: Collection[str], shape: tuple[int, int, int], frames: int) -> int:
    """Return the bytes of the image and the maps, `shape` being (channel, row, column)."""
    bits = -(-frames // 8) if "rejected" in maps else 0
    return (4 * (1 + len({*maps} - {"rejected"})) + bits) * math.prod(shape)


@dataclass(frozen=True)
class ResultPlanes:
    """The image and the maps that are wanted, each of shape (channel, row, column), by name."""

    by_name: dict[str, npt.NDArray[Any]]
    # Shape (frame // 8, channel, row, column), uint8: which samples are rejected, a bit per frame; None: not wanted.
    rejected: npt.NDArray[np.uint8] | None = None

    @classmethod
    def new(cls, maps: Collection[str], shape: tuple[int, int, int], frames: int) -> Self:
        """Return uninitialized planes of a shape (channel, row, column)."""
        planes = {name: np.empty(shape, kind) for name, kind in PLANES.items() if name == "image" or name in maps}
        rejected = np.zeros((-(-frames // 8), *shape), np.uint8) if "rejected" in maps else None
        return cls(planes, rejected)
