"""Where the bands of a stack write their results: arrays of the whole image, in memory that workers can share."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

#: Name and type of every plane that can be asked for.
PLANES: dict[str, type[np.generic]] = {
    "image": np.float32,
    "coverage": np.int32,
    "rejected_low": np.int32,
    "rejected_high": np.int32,
    "weight_map": np.float32,
    "variance": np.float32,
}


def output_bytes(maps: Collection[str], shape: tuple[int, int, int]) -> int:
    """Give the bytes of the image and the maps, `shape` being (channel, row, column)."""
    return 4 * (1 + len(set(maps))) * int(np.prod(shape, dtype=np.int64))


@dataclass(frozen=True)
class OutputPlanes:
    """The image and the maps that are wanted, each of shape (channel, row, column), by name."""

    planes: dict[str, npt.NDArray[Any]]

    @classmethod
    def over(cls, maps: Collection[str], shape: tuple[int, int, int], memory: Any | None = None) -> Self:
        """Lay the planes out in `memory` (a writable buffer), or in new memory."""
        names = [name for name in PLANES if name == "image" or name in maps]
        size = 4 * int(np.prod(shape, dtype=np.int64))
        if memory is None:
            return cls({name: np.empty(shape, PLANES[name]) for name in names})
        whole = np.frombuffer(memory, dtype=np.uint8)
        return cls(
            {
                name: whole[place * size : (place + 1) * size].view(PLANES[name]).reshape(shape)
                for place, name in enumerate(names)
            }
        )
