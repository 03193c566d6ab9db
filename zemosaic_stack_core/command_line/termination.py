"""Being told to end: `term_is_interrupt`."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# Seconds after which an interruption that was dropped comes again: the destructor is over by then.
AGAIN_SECONDS = 0.02


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
    hook = sys.unraisablehook

    def tell_again(dropped: sys.UnraisableHookArgs) -> None:
        # Python drops an interruption that hits a destructor (astropy's tables have one, with every tile).
        if issubclass(dropped.exc_type, KeyboardInterrupt):
            threading.Timer(AGAIN_SECONDS, signal.raise_signal, (signal.SIGTERM,)).start()
        else:
            hook(dropped)

    sys.unraisablehook = tell_again
    try:
        yield
    finally:
        sys.unraisablehook = hook
        signal.signal(signal.SIGTERM, before)
