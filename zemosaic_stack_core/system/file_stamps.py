"""Stamps and hashes of files: whether a file is the one that was read then."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from zemosaic_stack_core.system.memory import usable_cores

# Stands for the hash of a file that can't be read.
_UNREADABLE = "unreadable"


@dataclass(frozen=True)
class FileStamp:
    """What the file system says of a file; equal stamps mean an unchanged file."""

    # Bytes.
    size: int
    # Times of the last change of content and of anything, nanoseconds. No program can set the second on POSIX systems.
    modified: int
    changed: int
    # The file's number on its disk.
    number: int


@dataclass(frozen=True)
class HashedInput:
    """An input file with its stamp and SHA-256; no stamp and the word "unreadable" where it can't be read."""

    stamp: FileStamp | None
    sha256: str

    @property
    def is_readable(self) -> bool:
        """Whether the file could be read to its end."""
        return self.sha256 != _UNREADABLE


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
    """Return the SHA-256 of a file, hexadecimal; raise `OSError` where it can't be read."""
    with Path(path).open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_text(text: str) -> str:
    """Return the SHA-256 of a text, hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()


class InputHashes:
    """The hashes of inputs, each computed once; `known` are those of an earlier run, by path as given."""

    def __init__(self, known: Mapping[str, HashedInput] | None = None) -> None:
        self._known = dict(known or {})

    @property
    def known(self) -> Mapping[str, HashedInput]:
        """Those of the earlier run and of this one."""
        return self._known

    def look(self, paths: Sequence[Path]) -> list[HashedInput]:
        """Return the hash of each file; those that are not known yet are read, several at a time.

        No thread is left when this returns: the stack's workers are forked.
        """
        names = [os.fspath(path) for path in paths]
        stamps = {name: file_stamp(name) for name in names}
        known = self._known
        unknown = [
            name for name, stamp in stamps.items() if stamp and (name not in known or known[name].stamp != stamp)
        ]
        if len(unknown) > 1:
            with ThreadPoolExecutor(max_workers=min(usable_cores(), len(unknown))) as pool:
                hashes = list(pool.map(_hash_or_unreadable, unknown))
        else:
            hashes = [_hash_or_unreadable(name) for name in unknown]
        for name, sha256 in zip(unknown, hashes, strict=True):
            known[name] = HashedInput(stamps[name], sha256)
        return [known[name] if stamps[name] else HashedInput(None, _UNREADABLE) for name in names]


def _hash_or_unreadable(path: str) -> str:
    """Return the SHA-256 of a file, or the word for one that can't be read to its end."""
    try:
        return hash_file(path)
    except (OSError, ValueError):
        return _UNREADABLE


def hashes_to_json(names: Iterable[str | os.PathLike[str]], inputs: Iterable[HashedInput]) -> list[list[Any]]:
    """Return rows of name, SHA-256, size, times and number."""
    return [
        [os.fspath(name), item.sha256, *(astuple(item.stamp) if item.stamp else ())]
        for name, item in zip(names, inputs, strict=True)
    ]


def hashes_from_json(rows: Iterable[Sequence[Any]]) -> dict[str, HashedInput]:
    """Undo `hashes_to_json`; rows that are not understood are left out."""
    found = {}
    for row in rows:
        if len(row) == 6 and all(isinstance(value, int) for value in row[2:]):
            found[str(row[0])] = HashedInput(FileStamp(*row[2:]), str(row[1]))
    return found
