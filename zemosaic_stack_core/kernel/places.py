"""Put values that were computed for some pixels back in their places, without asking how many those are."""

from __future__ import annotations

from typing import NamedTuple

from zemosaic_stack_core.kernel.typing import Array, Namespace


class Places(NamedTuple):
    """Where a mask is true, and which of those it is: `rank` is the number of true entries before each (int64)."""

    mask: Array
    rank: Array

    def put(self, xp: Namespace, values: Array, others: Array) -> Array:
        """Give `values`, one for each true entry of the mask, in their places, and `others` elsewhere.

        An assignment to a mask does the same, but a device must then tell how many entries are true.
        """
        if values.shape[0] == 0:
            return others
        put: Array = xp.where(self.mask, xp.take(values, self.rank, axis=0), others)
        return put


def places_of(xp: Namespace, mask: Array) -> Places:
    """Count the true entries of a mask."""
    number = xp.cumulative_sum(xp.astype(mask, xp.int64), axis=0)
    return Places(mask, xp.maximum(number - 1, xp.zeros_like(number)))
