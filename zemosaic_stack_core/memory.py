"""How much memory a stack may take."""

from __future__ import annotations

from .errors import InvalidInputError
from .zemosaic.parallel_plan import available_memory

__all__ = ["chunk_budget"]

#: Without a limit from the caller: this part of the free memory, and at most so much for each worker.
FREE_SHARE = 4
WORKER_BYTES = 1 << 30
#: Of a device's free memory, the part that a stack plans with; the rest is for what the runtime takes.
DEVICE_SHARE = 0.7


def chunk_budget(memory_limit: int | None, workers: int, device_bytes: int | None) -> int:
    """Give the bytes that the working set of one worker's chunk may take.

    Parameters
    ----------
    memory_limit : int or None
        For all workers together; None for a quarter of the free memory, at most 1 GiB a worker.
    workers : int
        Number of workers.
    device_bytes : int or None
        Free memory of the device, None on the host.
    """
    if memory_limit is not None and (not isinstance(memory_limit, int) or memory_limit < 1):
        raise InvalidInputError(f"memory_limit is {memory_limit!r}; expected a number of bytes above 0")
    if device_bytes is not None:
        free = int(device_bytes * DEVICE_SHARE)
        return free if memory_limit is None else min(free, memory_limit)
    if memory_limit is not None:
        return memory_limit // workers
    return min(available_memory()[1] // FREE_SHARE // workers, WORKER_BYTES)
