"""A chunk: the piece of the image that is stacked at once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Chunk:
    """Rows ``start`` to ``stop``, columns ``first`` to ``last`` (all columns unless it is part of one row)."""

    start: int
    stop: int
    first: int
    last: int

    @property
    def pixels(self) -> int:
        """Pixels of one channel."""
        return (self.stop - self.start) * (self.last - self.first)
