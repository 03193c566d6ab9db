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
}


def result_bytes(maps: Collection[str], shape: tuple[int, int, int]) -> int:
    """Return the bytes of the image and the maps, `shape` being (channel, row, column)."""
    return 4 * (1 + len(set(maps))) * math.prod(shape)


@dataclass(frozen=True)
class ResultPlanes:
    """The image and the maps that are wanted, each of shape (channel, row, column), by name."""

    by_name: dict[str, npt.NDArray[Any]]

    @classmethod
    def new(cls, maps: Collection[str], shape: tuple[int, int, int]) -> Self:
        """Return uninitialized planes of a shape (channel, row, column)."""
        return cls({name: np.empty(shape, kind) for name, kind in PLANES.items() if name == "image" or name in maps})
