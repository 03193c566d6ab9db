"""What other libraries warn of while a command runs: counted, and said once in a line."""

from __future__ import annotations

import logging
import os
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_LOGGER = logging.getLogger(__name__)
# Letters of a warning that are said.
_LONGEST = 160


@contextmanager
def counted_warnings() -> Iterator[None]:
    """Keep warnings off the screen while a command runs, and log at its end how many there were and the first."""
    notes = _Notes()
    before = warnings.showwarning
    warnings.showwarning = notes.note
    try:
        yield
    finally:
        warnings.showwarning = before
        for line in notes.lines():
            _LOGGER.warning("%s", line)


class _Notes:
    """Warnings of this process and of those that it forks, which share the file in memory."""

    def __init__(self) -> None:
        self._memory = _shared_file()
        self._here: list[str] = []

    def note(self, message: Warning | str, category: type[Warning], filename: str, *_: Any, **__: Any) -> None:
        """Note a warning; the arguments are those of `warnings.showwarning`."""
        text = " ".join(str(message).split())[:_LONGEST]
        line = f"{_library(filename)}\t{category.__name__}\t{text}"
        if self._memory < 0:
            self._here.append(line)
        else:
            with suppress(OSError):
                os.write(self._memory, (line + "\n").encode("utf-8", "backslashreplace"))

    def lines(self) -> list[str]:
        """Return a line for each library and kind of warning, and forget them."""
        noted = self._here
        if self._memory >= 0:
            size = os.lseek(self._memory, 0, os.SEEK_END)
            noted = os.pread(self._memory, size, 0).decode("utf-8").splitlines()
            os.close(self._memory)
        split = [line.split("\t", 2) for line in noted]
        counts = Counter((library, kind) for library, kind, _ in split)
        first = {(library, kind): text for library, kind, text in reversed(split)}
        return [
            f"{library} warned{'' if count == 1 else f' {count} times, first'}: {first[library, kind]} ({kind})"
            for (library, kind), count in counts.items()
        ]


def _shared_file() -> int:
    """Return a file in memory that processes append to without losing each other's lines; -1 where there is none."""
    if not hasattr(os, "memfd_create"):
        return -1
    import fcntl

    number = os.memfd_create("warnings")
    fcntl.fcntl(number, fcntl.F_SETFL, os.O_APPEND)  # the place of a write is otherwise not locked
    return number


def _library(filename: str) -> str:
    """Return the name of the library that a file of Python belongs to."""
    parts = Path(filename).parts
    if "site-packages" in parts[:-1]:
        return parts[parts.index("site-packages") + 1].removesuffix(".py")
    return "zemosaic" if "zemosaic_stack_core" in parts else Path(filename).stem
