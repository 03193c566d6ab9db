"""How much memory a stack may take."""

from __future__ import annotations

import ctypes
import platform

from .errors import InvalidInputError
from .options import is_whole
from .zemosaic.parallel_plan import available_memory

__all__ = ["chunk_budget", "keep_freed_memory"]

#: Without a limit from the caller: this part of the free memory, and at most so much for each worker.
FREE_SHARE = 4
WORKER_BYTES = 1 << 30
#: Of a device's free memory, the part that a stack plans with; the rest is for what the runtime takes.
DEVICE_SHARE = 0.7
#: Parameters of glibc's ``mallopt``, and their values here, bytes.
TRIM_THRESHOLD = (-1, 1 << 26)
MAP_THRESHOLD = (-3, 1 << 25)


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
    if memory_limit is not None and not is_whole(memory_limit, 1):
        raise InvalidInputError(f"memory_limit is {memory_limit!r}; expected a whole number of bytes above 0")
    if device_bytes is not None:
        free = int(device_bytes * DEVICE_SHARE)
        return free if memory_limit is None else min(free, memory_limit)
    if memory_limit is not None:
        return memory_limit // workers
    return min(available_memory()[1] // FREE_SHARE // workers, WORKER_BYTES)


def keep_freed_memory() -> None:
    """Let this process keep freed arrays for the next ones, instead of giving their pages back at once.

    The kernel's rows are just large enough for glibc to map each anew, and the system to clear it page by page: a
    quarter of the time of 400 frames. For processes of our own only; nothing on other C libraries.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    for parameter, value in (TRIM_THRESHOLD, MAP_THRESHOLD):
        mallopt(parameter, value)
