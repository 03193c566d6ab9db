"""A network of comparators that sorts any samples: which pairs to compare does not depend on them."""

from __future__ import annotations

from array import array
from functools import lru_cache


@lru_cache(maxsize=64)
def comparators(count: int) -> array[int]:
    """Return the pairs (low, high) of Batcher's network for `count` samples, one after the other, int32.

    References
    ----------
    Knuth, The Art of Computer Programming 3, 5.2.2, algorithm M (merge exchange).
    """
    pairs = array("i")
    block = 1
    while block < count:
        distance = block
        while distance >= 1:
            for base in range(distance % block, count - distance, 2 * distance):
                for low in range(base, min(base + distance, count - distance)):
                    if low // (2 * block) == (low + distance) // (2 * block):
                        pairs.extend((low, low + distance))
            distance //= 2
        block *= 2
    return pairs
