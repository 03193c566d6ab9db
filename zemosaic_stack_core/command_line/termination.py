"""Being told to end: `term_is_interrupt`."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["term_is_interrupt"]


@contextmanager
def term_is_interrupt() -> Iterator[None]:
    """Let SIGTERM, which batch systems send, end a command as Ctrl-C does: scratch files are removed."""
    owner = os.getpid()

    def interrupt(number: int, _frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a worker forked from this process: it has nothing to remove and nothing to say
            os._exit(128 + number)
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not the main thread: somebody else's signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
