"""Sort samples over the frame axis.

A chunk is a list of rows, one per frame; sorting it gives a list of rows, one per rank. Two ways give the same
values, and which one runs depends on the number of frames alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from zemosaic_stack_core.kernel.typing import Array, Namespace

#: Up to this many frames the network is faster than a transpose, a library sort and a transpose back
#: (ns per sample at 32, 64, 100 frames: 2.8, 3.7, 5.1 against 4.8, 4.7, 4.5; NumPy 2.4, AVX2).
NETWORK_FRAMES = 64


def sort_frames(xp: Namespace, rows: Sequence[Array]) -> list[Array]:
    """Sort every pixel's samples ascending.

    Parameters
    ----------
    xp : namespace
        The array API namespace of the rows.
    rows : sequence of arrays of shape (pixel,), float32
        One per frame, without NaN.

    Returns
    -------
    list of arrays of shape (pixel,), float32
        One per rank: the first holds each pixel's smallest sample.

    Notes
    -----
    Few frames: Batcher's odd-even merge exchange network (Knuth, The Art of Computer Programming 3, 5.2.2,
    algorithm M), each comparator one `minimum` and one `maximum` of two rows. Many frames: `sort` along the last
    axis. Sorting moves values and rounds nothing, so both give the same list.
    """
    if len(rows) > NETWORK_FRAMES:
        # Equal values have equal bits but for the sign of zero, so stability buys nothing; it costs eight times here.
        by_pixel = xp.sort(xp.stack(list(rows), axis=-1), axis=-1, stable=False)
        by_rank = xp.asarray(xp.permute_dims(by_pixel, (1, 0)), copy=True)
        return [by_rank[rank, ...] for rank in range(len(rows))]
    ranks = list(rows)
    for low, high in _merge_exchange_network(len(ranks)):
        first, second = ranks[low], ranks[high]
        ranks[low], ranks[high] = xp.minimum(first, second), xp.maximum(first, second)
    return ranks


@cache
def _merge_exchange_network(count: int) -> tuple[tuple[int, int], ...]:
    """Give the comparators (low, high) of Batcher's network for `count` inputs, in order."""
    comparators: list[tuple[int, int]] = []
    block = 1
    while block < count:
        distance = block
        while distance >= 1:
            for base in range(distance % block, count - distance, 2 * distance):
                for low in range(base, min(base + distance, count - distance)):
                    if low // (2 * block) == (low + distance) // (2 * block):
                        comparators.append((low, low + distance))
            distance //= 2
        block *= 2
    return tuple(comparators)
