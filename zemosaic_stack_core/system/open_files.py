"""Files that stay open while they are wanted again, and are read by position: `OpenFiles`."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterable
from io import FileIO
from typing import Self

from zemosaic_stack_core.errors import FrameReadError

MAX_OPEN_FILES = 128


def default_open_files() -> int:
    """Return how many files may be open at once: 128, or half of what the system still allows this process."""
    try:
        import resource
    except ImportError:  # not a POSIX system: no such limit on descriptors
        return MAX_OPEN_FILES
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MAX_OPEN_FILES
    return max(1, min(MAX_OPEN_FILES, soft // 2))


class OpenFiles:
    """Keep at most `max_open_files` files open, by default `default_open_files`, and read from them by position.

    Every band reads all frames in order, so with more frames than may be open the *last* opened file is the one to
    close: the others are met again sooner, and all but one of them survive to the next band. The least recently used
    would be exactly the next one needed.

    One thread at a time. A forked process inherits the open files and may read them, since a position is never shared;
    a copy made by pickling opens its own.
    """

    def __init__(self, max_open_files: int | None = None) -> None:
        self.max_open_files = default_open_files() if max_open_files is None else max(1, max_open_files)
        self._files: dict[str, FileIO] = {}
        self._seek_lock = threading.Lock()

    def __reduce__(self) -> tuple[type[OpenFiles], tuple[int]]:
        return type(self), (self.max_open_files,)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._files)

    def close(self) -> None:
        """Close every file."""
        while self._files:
            self._files.popitem()[1].close()

    def keep(self, paths: Iterable[str]) -> None:
        """Open as many of these files as may be open."""
        for path in paths:
            if len(self._files) < self.max_open_files:
                self.file(path, path)

    def file(self, path: str, name: str) -> FileIO:
        """Return the open file `path`; an error calls it `name`."""
        file = self._files.get(path)
        if file is None:
            while len(self._files) >= self.max_open_files:
                self._files.popitem()[1].close()
            file = self._files[path] = self._open(path, name)
        return file

    def _open(self, path: str, name: str) -> FileIO:
        """Open a file; close others where the program has used up the descriptors that were counted on."""
        while True:
            try:
                return FileIO(path)
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE) or not self._files:
                    raise FrameReadError(f"{name}: {error.strerror}; expected a readable file") from None
            self._files.popitem()[1].close()

    def read_into(self, path: str, name: str, offset: int, view: memoryview) -> None:
        """Fill `view` (of bytes) with those at `offset`; raise `FrameReadError` where the file ends before that."""
        file = self.file(path, name)
        while view:
            try:
                count = self._read_at(file, view, offset)
            except OSError as error:
                raise FrameReadError(f"{name}: {error.strerror} at byte {offset}; expected pixels") from None
            if count == 0:
                raise FrameReadError(
                    f"{name}: nothing at byte {offset}, the file became shorter; expected {len(view)} bytes of pixels"
                )
            view = view[count:]
            offset += count

    def _read_at(self, file: FileIO, view: memoryview, offset: int) -> int:
        """Read once at `offset`; return the bytes read, 0 at the end of the file."""
        if hasattr(os, "preadv"):
            return os.preadv(file.fileno(), [view], offset)
        with self._seek_lock:  # Windows has no positional read
            file.seek(offset)
            return file.readinto(view) or 0
