"""How far the work is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from zemosaic_stack_core.command_line.messages import say, time_text

_BAR_SECONDS = 0.1
"""The bar is drawn at most this often."""
_LINE_SECONDS = 5.0
"""Elsewhere a line is written at most this often: a log is read afterwards."""

Progress = Callable[[int, int], None]


@contextmanager
def progress_display(label: str, unit: str = "rows", *, is_quiet: bool = False) -> Iterator[Progress]:
    """Show progress on standard error.

    No thread is started: a stack may divide its work among copies of this process only while it has a single thread.

    Parameters
    ----------
    label : str
        What is being done.
    unit : str
        What is counted.
    is_quiet : bool
        Show nothing.

    Yields
    ------
    callable
        To be called as ``progress(done, total)``.
    """
    if is_quiet:
        yield lambda _done, _total: None
    elif sys.stderr.isatty():
        with _bar(label, unit) as progress:
            yield progress
    else:
        yield _lines(label, unit)


@contextmanager
def _bar(label: str, unit: str) -> Iterator[Progress]:
    """Show a bar that is gone when the work is done."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
    )
    bars = RichProgress(*columns, console=Console(stderr=True), auto_refresh=False, transient=True, expand=True)
    task = bars.add_task(label, total=None)
    drawn = 0.0

    def progress(done: int, total: int) -> None:
        nonlocal drawn
        bars.update(task, completed=done, total=total)
        now = time.monotonic()
        if now - drawn >= _BAR_SECONDS or done == total:
            drawn = now
            bars.refresh()

    with bars:
        yield progress


def _lines(label: str, unit: str) -> Progress:
    """Write a line every few seconds; a short job writes none."""
    began = written = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal written
        now = time.monotonic()
        if now - written < _LINE_SECONDS or not 0 < done < total:
            return
        written = now
        left = (now - began) * (total - done) / done
        say(f"{label}: {done} of {total} {unit} ({100 * done // total} %), about {time_text(left)} left")

    return progress
