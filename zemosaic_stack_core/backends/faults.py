"""What went wrong on a GPU: every exception is one of five classes."""

from __future__ import annotations

import enum
import errno
from collections.abc import Iterator

# CUDA status 2, memory allocation; 208 and 712, "already mapped": pinning host memory failed. The numbers are the same
# in the runtime's and the driver's tables.
_OOM_STATUSES = frozenset({2, 208, 712})

# CuPy's exceptions that carry a CUDA status, known by name: this file must not import CuPy.
_STATUS_ERRORS = ("CUDARuntimeError", "CUDADriverError")

# What is wrong with a disk or the files of the host: CuPy keeps its compiled kernels in a folder, for one.
_HOST_ERRORS = frozenset(
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EROFS", "EFBIG", "EIO", "EACCES", "EPERM", "EMFILE", "ENFILE")
    if hasattr(errno, name)
)

# How a failed allocation reads where only a text comes back (thrust, pinned memory).
_OOM_WORDS = ("out of memory", "already mapped", "cudaerrormemoryallocation", "bad_alloc")


class FaultClass(enum.Enum):
    """Class of a GPU failure; the value is the word for logs."""

    OUT_OF_MEMORY = "OutOfMemory"
    """Device, pinned or host memory ran out: a smaller band may fit."""

    DEVICE_LOST = "DeviceLost"
    """The CUDA context is dead: every later CUDA call of the process fails, so none may be made."""

    INVALID_RESULT = "InvalidResult"
    """The device answered, but the tile can't be right."""

    HOST_FILES = "HostFiles"
    """A disk or the files of the host, as where CuPy has no room for compiled kernels: the device is not to blame."""

    OTHER = "Error"
    """Anything else; the class of the exception says more."""


def walk_chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the exception, then its causes, contexts and group members, each once."""
    waiting = [error]
    seen: set[int] = set()
    while waiting:
        current = waiting.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        if isinstance(current, BaseExceptionGroup):
            waiting.extend(current.exceptions)
        waiting.extend(link for link in (current.__cause__, current.__context__) if link is not None)


def _cuda_status(error: BaseException) -> int | None:
    """Return the CUDA status of one of CuPy's own exceptions, None for others."""
    status = getattr(error, "status", None)
    is_cuda = any(kind.__name__ in _STATUS_ERRORS for kind in type(error).__mro__)
    return status if is_cuda and isinstance(status, int) else None


def _is_oom(error: BaseException) -> bool:
    """Return whether this one exception, without its chain, is a failed allocation."""
    if isinstance(error, MemoryError) or _cuda_status(error) in _OOM_STATUSES:
        return True
    text = str(error).lower() if isinstance(error, RuntimeError) else ""
    return any(words in text for words in _OOM_WORDS)


def is_oom_error(error: BaseException) -> bool:
    """Return whether memory ran out, on the device, pinned or of the host, anywhere in the chain of the exception."""
    return any(_is_oom(link) for link in walk_chain(error))


def is_device_lost(error: BaseException) -> bool:
    """Return whether the CUDA context must be taken for dead: a CUDA status other than a failed allocation.

    Some of those are harmless, but can't be told from the sticky ones by asking: after a sticky error asking fails too.
    """
    statuses = (_cuda_status(link) for link in walk_chain(error))
    return any(status is not None and status not in _OOM_STATUSES for status in statuses)


def classify_fault(error: BaseException) -> FaultClass:
    """Return the class of a GPU failure, looking at the whole chain; a dead device outweighs the rest.

    `FaultClass.INVALID_RESULT` is never returned: that is found in the tile, not in an exception.
    """
    if is_device_lost(error):
        return FaultClass.DEVICE_LOST
    if is_oom_error(error):
        return FaultClass.OUT_OF_MEMORY
    if any(isinstance(link, OSError) and link.errno in _HOST_ERRORS for link in walk_chain(error)):
        return FaultClass.HOST_FILES
    return FaultClass.OTHER
