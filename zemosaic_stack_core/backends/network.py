"""A network of comparators that sorts any samples: which pairs to compare does not depend on them.

Batcher's odd-even merge sort: sorted blocks are merged into blocks of twice the size. Whole groups of `GROUP` samples
are sorted in registers, all by the same pairs; what is left is a table of pairs.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from functools import lru_cache

# 16 vectors of 16 float32 are half of the registers of AVX-512. Of 191 comparators for 32 frames 126 are in registers.
GROUP = 16


def _merges(count: int, first_block: int, last_block: int) -> Iterator[tuple[int, int]]:
    """Yield the pairs (low, high) that merge sorted blocks of `first_block` samples into ones above `last_block`.

    Knuth, The Art of Computer Programming 3, 5.2.2, algorithm M, in another order.
    """
    block = first_block
    while block < min(count, last_block):
        distance = block
        while distance >= 1:
            for base in range(distance % block, count - distance, 2 * distance):
                for low in range(base, min(base + distance, count - distance)):
                    if low // (2 * block) == (low + distance) // (2 * block):
                        yield low, low + distance
            distance //= 2
        block *= 2


def comparators_of_group() -> list[tuple[int, int]]:
    """Return the pairs that sort a group."""
    return list(_merges(GROUP, 1, GROUP))


@lru_cache(maxsize=64)
def comparators(count: int) -> array[int]:
    """Return the pairs (low, high), one after the other, int32, that sort `count` samples whose groups are sorted."""
    rest = count - count % GROUP
    pairs = array("i")
    for low, high in _merges(count - rest, 1, GROUP):
        pairs.extend((rest + low, rest + high))
    for pair in _merges(count, GROUP, count):
        pairs.extend(pair)
    return pairs
