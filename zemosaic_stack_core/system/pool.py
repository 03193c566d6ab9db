"""The same function on many frames, in processes."""

from __future__ import annotations

import multiprocessing
import multiprocessing.context
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from zemosaic_stack_core.system.memory import usable_cores

_Task = TypeVar("_Task")
_Answer = TypeVar("_Answer")

_WORTH_A_PROCESS = 1 << 22  # pixels; below it a process costs more to start (half a second) than it saves


def map_frames(
    function: Callable[[_Task], _Answer], tasks: Sequence[_Task], *, pixels: int, workers: int | None,
    progress: Callable[[int, int], None] | None = None,
) -> list[_Answer]:  # fmt: skip
    """Return the function's answers, in the order of the tasks.

    Parameters
    ----------
    function : callable
        Of a module, so that a process can import it.
    tasks : sequence
        Picklable.
    pixels : int
        Per task: few are not worth a process.
    workers : int or None
        Processes; None for as many as cores, where that pays.
    progress : callable, optional
        ``progress(done, total)``.

    Notes
    -----
    A process that dies (memory) costs its frames' work only: what has no answer is computed here, one by one.
    """
    count = _workers(len(tasks), pixels, workers)
    answers: dict[int, _Answer] = {}
    if count > 1:
        try:
            with ProcessPoolExecutor(count, mp_context=_context(), initializer=_leave_signals) as pool:
                with warnings.catch_warnings():
                    # Python 3.12+ warns of forking with threads; those of the BLAS library are not running anything.
                    warnings.simplefilter("ignore", DeprecationWarning)
                    coming = pool.map(function, tasks)
                for index, answer in enumerate(coming):
                    answers[index] = answer
                    if progress is not None:
                        progress(len(answers), len(tasks))
        except BrokenProcessPool:
            pass
    for index, task in enumerate(tasks):
        if index not in answers:
            answers[index] = function(task)
            if progress is not None:
                progress(len(answers), len(tasks))
    return [answers[index] for index in range(len(tasks))]


def _context() -> multiprocessing.context.BaseContext:
    """Return how processes are started: as copies of this one where that is safe, because those have all imported."""
    is_alone = sys.platform == "linux" and threading.active_count() == 1
    return multiprocessing.get_context("fork" if is_alone else "spawn")


def _leave_signals() -> None:
    """Let the parent alone answer Ctrl-C: it ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _workers(tasks: int, pixels: int, workers: int | None) -> int:
    """Return how many processes to start."""
    if multiprocessing.current_process().daemon:  # a worker of a cluster may have no processes of its own
        return 1
    if workers is not None:
        return max(1, min(workers, tasks))
    if pixels * tasks < _WORTH_A_PROCESS:
        return 1
    return max(1, min(usable_cores(), tasks))
