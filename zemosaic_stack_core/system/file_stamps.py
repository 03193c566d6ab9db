"""Stamps and hashes of files: whether a file is the one that was read then."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from zemosaic_stack_core.system.memory import usable_cores

_PIECE = 1 << 20
_UNREADABLE = "unreadable"


@dataclass(frozen=True)
class FileStamp:
    """What the file system says of a file; equal stamps mean an unchanged file.

    Parameters
    ----------
    size : int
        Bytes.
    modified, changed : int
        Times of the last change of content and of anything, nanoseconds.
    number : int
        The file's number on its disk.
    """

    size: int
    modified: int
    changed: int
    number: int


@dataclass(frozen=True)
class HashedInput:
    """An input file with its stamp and SHA-256; no stamp and the word "unreadable" where it can't be read."""

    stamp: FileStamp | None
    sha256: str


def file_stamp(path: str | os.PathLike[str]) -> FileStamp | None:
    """Return the stamp of an ordinary file, None where there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116 - a Path costs as much as the call
    except (OSError, ValueError):
        return None
    if status.st_mode & 0o170000 != 0o100000:  # a folder, a pipe that would wait forever
        return None
    return FileStamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def hash_file(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file, hexadecimal; "unreadable" where it can't be read to its end."""
    digest = hashlib.sha256()
    buffer = bytearray(_PIECE)
    view = memoryview(buffer)
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            while count := file.readinto(buffer):
                digest.update(view[:count])
    except (OSError, ValueError):
        return _UNREADABLE
    return digest.hexdigest()


class InputHashes:
    """The hashes of inputs, each computed once.

    Parameters
    ----------
    known : mapping
        From an earlier report: path as given to `HashedInput`.
    """

    def __init__(self, known: Mapping[str, HashedInput] | None = None) -> None:
        self._known = dict(known or {})

    def look(self, paths: Sequence[Path]) -> list[HashedInput]:
        """Return the hash of each file; those that are not known yet are read, several at a time.

        No thread is left when this returns: the stack's workers are forked.
        """
        names = [os.fspath(path) for path in paths]
        stamps = [file_stamp(name) for name in names]
        unknown = list(
            dict.fromkeys(
                name
                for name, stamp in zip(names, stamps, strict=True)
                if stamp is not None and not (name in self._known and self._known[name].stamp == stamp)
            )
        )
        if len(unknown) > 1:
            with ThreadPoolExecutor(max_workers=min(usable_cores(), len(unknown))) as pool:
                hashes = dict(zip(unknown, pool.map(hash_file, unknown), strict=True))
        else:
            hashes = {name: hash_file(name) for name in unknown}
        found = []
        for name, stamp in zip(names, stamps, strict=True):
            if stamp is None:
                found.append(HashedInput(None, _UNREADABLE))
                continue
            if name in hashes:
                self._known[name] = HashedInput(stamp, hashes[name])
            found.append(self._known[name])
        return found
