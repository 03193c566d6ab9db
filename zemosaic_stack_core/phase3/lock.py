"""One run per output folder: `OutputLock`."""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import weakref
from io import FileIO
from pathlib import Path
from typing import Any, Self

from zemosaic_stack_core.errors import InvalidInputError, OutputError
from zemosaic_stack_core.phase3.run_plan import Shard
from zemosaic_stack_core.system.atomic import remove_leftovers

_LOGGER = logging.getLogger(__name__)

# Lock files are called so, with the shard behind it where there is one, and ``.lock``.
LOCK_NAME = ".zemosaic-run"


class OutputLock:
    """Hold an output folder for a run; a context manager.

    The lock is the operating system's own, on an open file: it dies with the process, however that ends, so there is no
    stale lock to remove by hand. Shards of one partition share a folder; two runs, a run and a shard, or shards of
    different partitions don't. The folder is made where it does not exist.

    Entering raises `InvalidInputError` where another run that lives is at work in the folder, and `OutputError` where
    the folder can't be made or written.
    """

    def __init__(self, folder: str | os.PathLike[str], shard: Shard | None = None) -> None:
        self.folder = Path(folder)
        self._name = f"{LOCK_NAME}.lock" if shard is None else f"{LOCK_NAME}.{shard.index}-of-{shard.count}.lock"
        self._shard = shard
        self._file: FileIO | None = None

    def __enter__(self) -> Self:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = self._take()
        except FileExistsError:
            raise OutputError(f"{self.folder}: not a folder; expected a folder for the tiles") from None
        except OSError as error:
            if isinstance(error, (InvalidInputError, OutputError)):
                raise
            raise OutputError(f"{self.folder}: {error.strerror}; expected a folder that can be written") from None
        try:
            self._refuse_company()
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._release()

    def sweep(self) -> list[Path]:
        """Remove what killed runs left in the folder: temporary files, and locks of the dead.

        Temporary files stay while another shard is at work here: one of them may be its.
        """
        swept = []
        alone = True
        for path in self._others():
            if _holder(path) is not None:
                alone = False
            else:
                path.unlink(missing_ok=True)
                swept.append(path)
        return swept + (remove_leftovers(self.folder) if alone else [])

    def _take(self) -> FileIO:
        """Open and lock this run's own lock file."""
        path = self.folder / self._name
        while True:
            file = FileIO(path, "a+")
            if not _try_lock(file):
                file.close()
                raise InvalidInputError(_refusal(self.folder, path, _read(path)))
            if _is_named(file, path):
                file.truncate(0)
                file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
                _close_in_children(file)
                return file
            file.close()  # its last owner removed the name between the opening and the lock

    def _refuse_company(self) -> None:
        """Raise where a run that can't share the folder is at work in it."""
        for path in self._others():
            others_count = path.name.removesuffix(".lock").rpartition("-of-")[2]
            if self._shard is not None and others_count == str(self._shard.count):
                continue
            holder = _holder(path)
            if holder is not None:
                raise InvalidInputError(_refusal(self.folder, path, holder))

    def _others(self) -> list[Path]:
        """Return the lock files beside this run's own."""
        return sorted(path for path in self.folder.glob(f"{LOCK_NAME}*.lock") if path.name != self._name)

    def _release(self) -> None:
        """Remove the lock's file, then unlock it."""
        if self._file is None:
            return
        try:
            (self.folder / self._name).unlink(missing_ok=True)
        except OSError:  # Windows removes no open file; there the next run takes it over
            self._file.close()
            (self.folder / self._name).unlink(missing_ok=True)
        self._file.close()
        self._file = None


def _close_in_children(file: FileIO) -> None:
    """Close a lock's file in processes forked from this one: a worker that outlives its parent must not hold it."""
    if not hasattr(os, "register_at_fork"):
        return
    reference = weakref.ref(file)

    def close() -> None:
        held = reference()
        if held is not None:
            held.close()

    os.register_at_fork(after_in_child=close)


def _refusal(folder: Path, path: Path, holder: dict[str, Any]) -> str:
    """Return the line that a second run gets."""
    who = f"process {holder.get('pid', 'unknown')} on {holder.get('host', 'an unknown host')}"
    return f"{folder}: {who} is at work in this folder ({path.name}); expected one run at a time"


def _read(path: Path) -> dict[str, Any]:
    """Return what a lock's holder wrote."""
    try:
        holder = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _holder(path: Path) -> dict[str, Any] | None:
    """Return who holds a lock file, None where nobody does."""
    try:
        file = FileIO(path, "a+")
    except OSError:
        return None
    with file:
        return None if _try_lock(file) else _read(path)


def _is_named(file: FileIO, path: Path) -> bool:
    """Return whether an open file still is the one of that name."""
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(file.fileno()), named)


def _try_lock(file: FileIO) -> bool:
    """Lock a file, without waiting; return whether it could be had."""
    try:
        import fcntl
    except ImportError:
        return _try_lock_windows(file)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            raise
        _LOGGER.warning("%s: this file system has no locks; see that one run at a time works in the folder", file.name)
    return True


def _try_lock_windows(file: FileIO) -> bool:
    """Lock the file's first byte."""
    import msvcrt

    file.seek(1 << 20)  # far behind the text, which others may then read
    try:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
    except OSError:
        return False
    finally:
        file.seek(0)
    return True
