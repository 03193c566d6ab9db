"""Memory that worker processes share: a mapped temporary file."""

from __future__ import annotations

import errno
import logging
import mmap
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from zemosaic_stack_core.errors import ScratchError
from zemosaic_stack_core.system.memory import available_memory

_LOGGER = logging.getLogger(__name__)

_ADVICE = "TMPDIR names another folder"


class SharedFile:
    """Memory of `size` bytes that worker processes share: a mapped temporary file, removed in every case.

    A file in the temporary folder and not POSIX shared memory: that is often limited to 64 MB in containers, where
    writing past it kills the process. Where the temporary folder has no room, a file in memory that belongs to no
    folder, on systems that have such files (Linux): a process alone would need as much memory for its results. Raise
    `ScratchError` where there is no room in either place. A sparse file takes room on the disk only where something is
    written; a full disk then shows at a write, which must not go through the mapping.
    """

    def __init__(self, size: int, *, is_sparse: bool = False) -> None:
        try:
            self._make(_temporary_file, size, is_sparse)
        except OSError as error:
            reason = f"{_temporary_folder()}{error.strerror or error}"
            try:
                self._make(_memory_file, size, is_sparse)
            except OSError:
                raise ScratchError(f"{reason}; expected room there for {size} bytes of results ({_ADVICE})") from error
            _LOGGER.warning("%s; %d bytes of results are kept in memory instead (%s)", reason, size, _ADVICE)

    def _make(self, open_file: Callable[[int], tuple[int, Path]], size: int, is_sparse: bool) -> None:
        """Make the file and map it; leave nothing of it where that fails."""
        descriptor, self.path = open_file(size)
        self._file = os.fdopen(descriptor, "r+b")
        try:
            if hasattr(os, "posix_fallocate") and not is_sparse:
                os.posix_fallocate(descriptor, 0, size)  # a full disk is an error here, and a fatal signal later
            else:
                self._file.truncate(size)
            self.memory = mmap.mmap(descriptor, size)
            self._hide()
        except BaseException:
            self.remove()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def _hide(self) -> None:
        """On Linux, take the file's name away: the workers find it by its descriptor, and SIGKILL leaves nothing."""
        hidden = _path_of(self._file.fileno())
        if self.path != hidden and hidden.exists():
            self.path.unlink()
            self.path = hidden

    def remove(self) -> None:
        """Remove the file's name; the mapping lives on with whoever holds it."""
        self._file.close()
        if self.path.parent.name == "fd":  # it has no name any more
            return
        try:
            self.path.unlink(missing_ok=True)
        except PermissionError:  # Windows keeps a mapped file: it goes with the last array over it, or with the process
            weakref.finalize(self.memory, _remove_unmapped, self.path)


def _path_of(descriptor: int) -> Path:
    """Return the path, on Linux, under which other processes find an open file that has no name."""
    return Path(f"/proc/{os.getpid()}/fd/{descriptor}")


def _temporary_file(size: int) -> tuple[int, Path]:
    """Open a new file in the temporary folder, if that has as much room."""
    if not hasattr(os, "posix_fallocate") and shutil.disk_usage(tempfile.gettempdir()).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    descriptor, name = tempfile.mkstemp(prefix="zemosaic-", suffix=".planes")
    return descriptor, Path(name)


def _memory_file(size: int) -> tuple[int, Path]:
    """Open a new file in memory, which no mount limits, if there is as much memory."""
    if not hasattr(os, "memfd_create"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if size > available_memory()[1]:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    descriptor = os.memfd_create("zemosaic")
    path = _path_of(descriptor)
    if not path.exists():  # no /proc
        os.close(descriptor)
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    return descriptor, path


def _temporary_folder() -> str:
    """Return the temporary folder as the beginning of a message; empty where there is none that can be written."""
    try:
        return f"{tempfile.gettempdir()}: "
    except OSError:
        return ""


def _remove_unmapped(path: Path) -> None:
    """Remove a file that nothing maps any more; at the end of the process something still may."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def map_file(path: Path) -> mmap.mmap:
    """Map a file that another process made."""
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), 0)
