"""Files that appear whole or not at all: `atomic_output`."""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

from zemosaic_stack_core.errors import InvalidInputError, OutputError

_LOGGER = logging.getLogger(__name__)
# Of a file system that has no such thing, as some network ones; a full disk or a broken one says something else.
_NO_FLUSH = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
_PREFIX, _SUFFIX = ".zsc-", ".tmp"
_NO_FILE_FITS = {errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, getattr(errno, "EDQUOT", errno.ENOSPC)}


def check_output(path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Raise where `path` could not be written; call it before the work that the file is to hold.

    `InvalidInputError` means that it is a folder, or there already and not to be overwritten, `OutputError` that there
    is no folder to write it in, or no permission to.
    """
    _check_name(Path(path), overwrite=overwrite)
    folder = _folder_of(Path(path))
    try:  # permissions tell nothing to root, nor of a read-only or a full disk
        with TemporaryFile(dir=folder) as file:
            file.write(b"?")
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror} in {folder}; expected a folder that can be written") from None


def _check_name(target: Path, *, overwrite: bool) -> None:
    """Raise where a file of this name can't be, or must not be replaced."""
    if os.path.isdir(target):  # noqa: PTH112 - pathlib's raises where the name is too long
        raise InvalidInputError(f"{target}: a folder; expected the name of a file to write")
    folder = _folder_of(target)
    if not folder.is_dir():
        raise OutputError(f"{target}: {folder} is not a folder; expected one to write in")
    try:
        target.lstat()
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:  # a name that is too long, or has a zero byte
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{target}: {reason}; expected the name of a file to write") from None
    if not overwrite:
        raise InvalidInputError(f"{target}: the file exists; expected a new name, or --overwrite")


@contextmanager
def atomic_output(path: str | os.PathLike[str], *, overwrite: bool = False, flushes: bool = True) -> Iterator[BinaryIO]:
    """Open a file for writing that takes its name only when it is whole and on the disk.

    The bytes go to a temporary name in the same folder. At the end of the ``with`` block they are flushed to the disk
    and the file is renamed; after an exception the temporary file is removed and whatever had the name before is
    untouched. Only a killed process can leave a temporary file: see `remove_leftovers`. A symbolic link is followed.
    The file can be read as well, and is seekable. Raise as `check_output`, and `OutputError` where the disk is full.

    Nothing waits for the disk unless it `flushes`: that is for files that can be made again, and are looked at before
    they are believed, because where the power fails they may be cut off.
    """
    _check_name(Path(path), overwrite=overwrite)
    target = Path(os.path.realpath(path))
    folder = _folder_of(target)
    temporary = folder / f"{_PREFIX}{os.urandom(8).hex()}{_SUFFIX}"
    try:
        # O_EXCL by way of "x": never write into a file that somebody else put there.
        with temporary.open("x+b") as file:
            yield file
            file.flush()
            if flushes:
                _flush(file.fileno(), folder)
        _check_name(Path(path), overwrite=overwrite)  # somebody may have written it meanwhile
        temporary.replace(target)
        if flushes:
            _sync_folder(folder)
    except OSError as error:
        if isinstance(error, OutputError) or error.errno is None:
            raise
        message = f"{path}: {error.strerror} while writing; expected room and permission in {folder}"
        raise OutputError(message) from error
    finally:
        with suppress(OSError):  # renamed: it is gone; never made: there is nothing
            temporary.unlink()


def flush_files(paths: Iterable[Path]) -> None:
    """Return when files that were written without waiting for the disk are there, with their names."""
    folders = set()
    for path in paths:
        with path.open("r+b") as file:
            _flush(file.fileno(), path.parent)
        folders.add(path.parent)
    for folder in folders:
        _sync_folder(folder)


def _flush(descriptor: int, folder: Path) -> None:
    """Wait until a file is on the disk."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FLUSH:
            raise
        _say_unflushed(folder)


@cache
def _say_unflushed(folder: Path) -> None:
    """Say once of a folder that what is written there is not known to be on the disk."""
    _LOGGER.warning("%s: the file system can't flush; what is written may be lost where the power fails", folder)


def remove_leftovers(folder: str | os.PathLike[str], *, older_than_s: float = 0.0) -> list[Path]:
    """Remove the temporary files that killed runs left in a folder, and return their names.

    Where another run may be writing into the folder, only those are to go that nobody has touched for so many seconds.
    """
    leftovers = sorted(Path(folder).glob(f"{_PREFIX}*{_SUFFIX}"))
    if older_than_s:
        now = time.time()
        leftovers = [path for path in leftovers if now - _changed(path, now) > older_than_s]
    for leftover in leftovers:
        leftover.unlink(missing_ok=True)
    return leftovers


def _changed(path: Path, now: float) -> float:
    """Return when a file was changed; now, where it has gone."""
    try:
        return path.stat().st_mtime
    except OSError:
        return now


def disk_is_full(error: BaseException) -> bool:
    """Return whether an error of `atomic_output` means that no other file can be written either."""
    cause = error.__cause__
    return isinstance(error, OutputError) and isinstance(cause, OSError) and cause.errno in _NO_FILE_FITS


def _folder_of(target: Path) -> Path:
    """Return the folder that a file is to be in, links followed."""
    return Path(os.path.realpath(target)).parent


def _sync_folder(folder: Path) -> None:
    """Make the new name itself durable; where a system can't sync a folder (Windows), the rename has to do."""
    if os.name != "posix":
        return
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
