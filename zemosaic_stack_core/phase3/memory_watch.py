"""How much memory a tile took: the process and its workers, looked at while the tile is made."""

from __future__ import annotations

import time

# A look takes about a millisecond for each process; more often is not worth it.
_SECONDS = 0.5


class MemoryWatch:
    """Keep the largest memory seen of this process and its children.

    On Linux memory that processes share is counted once (the proportional set size); elsewhere once in each.
    """

    def __init__(self) -> None:
        import psutil

        self._psutil = psutil
        self._process = psutil.Process()
        self._looked = 0.0
        self.peak = 0

    def look(self, *, now: bool = False) -> None:
        """Look, unless the last look was a moment ago."""
        moment = time.monotonic()
        if not now and moment - self._looked < _SECONDS:
            return
        self._looked = moment
        try:
            processes = [self._process, *self._process.children(recursive=True)]
        except self._psutil.Error:
            processes = [self._process]
        self.peak = max(self.peak, sum(map(self._size, processes)))

    def _size(self, process: object) -> int:
        """Return a process's memory in bytes, 0 where it has gone."""
        try:
            memory = process.memory_full_info()  # type: ignore[attr-defined]
            return int(getattr(memory, "pss", memory.rss))
        except (self._psutil.Error, OSError):
            return 0
