"""The same function on many tasks, in processes."""

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

# Pixels of all tasks, below which a process costs more to start (half a second) than it saves.
_WORTH_A_PROCESS = 1 << 22


def map_in_processes(
    function: Callable[[_Task], _Answer],
    tasks: Sequence[_Task],
    *,
    pixels: int,
    workers: int | None,
    progress: Callable[[int, int], None] | None = None,
) -> list[_Answer]:
    """Return a module's function's answers, in the order of the tasks, which are pickled.

    `workers` is the number of processes; None for as many as cores, where so many pixels a task are worth it. A process
    that dies (memory) costs its own tasks' work only: what has no answer is computed here, one by one.
    """
    count = _choose_workers(len(tasks), pixels, workers)
    answers: list[_Answer] = []

    def add(answer: _Answer) -> None:
        answers.append(answer)
        if progress is not None:
            progress(len(answers), len(tasks))

    if count > 1:
        try:
            with ProcessPoolExecutor(count, mp_context=_context(), initializer=_leave_signals) as pool:
                with warnings.catch_warnings():
                    # Python 3.12+ warns of forking with threads; those of the BLAS library are not running anything.
                    warnings.simplefilter("ignore", DeprecationWarning)
                    coming = pool.map(function, tasks)
                for answer in coming:
                    add(answer)
        except BrokenProcessPool:
            pass
    for task in tasks[len(answers) :]:
        add(function(task))
    return answers


def _context() -> multiprocessing.context.BaseContext:
    """Return how processes are started: as copies of this one where that is safe, because those have all imported."""
    is_alone = sys.platform == "linux" and threading.active_count() == 1
    return multiprocessing.get_context("fork" if is_alone else "spawn")


def _leave_signals() -> None:
    """Let the parent alone answer Ctrl-C: it ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _choose_workers(tasks: int, pixels: int, workers: int | None) -> int:
    """Return how many processes to start."""
    if multiprocessing.current_process().daemon:  # a worker of a cluster may have no processes of its own
        return 1
    if workers is not None:
        return max(1, min(workers, tasks))
    if pixels * tasks < _WORTH_A_PROCESS:
        return 1
    return max(1, min(usable_cores(), tasks))
