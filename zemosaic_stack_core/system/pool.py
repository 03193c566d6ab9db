"""The same function on many tasks, in processes."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import multiprocessing.context
import os
import platform
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any, TypeVar

from zemosaic_stack_core.system.memory import usable_cores

_Task = TypeVar("_Task")
_Shared = TypeVar("_Shared")
_Answer = TypeVar("_Answer")

# Pixels of all tasks, below which a process costs more to start (half a second) than it saves.
_WORTH_A_PROCESS = 1 << 22
# glibc's M_TRIM_THRESHOLD and M_MMAP_THRESHOLD, and their largest values, bytes.
_MALLOC = ((-1, 1 << 30), (-3, 1 << 25))
# Seconds between a worker's looks at whether its parent is still there.
_LOOK_S = 1.0


def map_in_processes(
    function: Callable[[_Task, _Shared], _Answer],
    tasks: Sequence[_Task],
    shared: _Shared,
    *,
    pixels: int,
    workers: int | None,
    progress: Callable[[int, int], None] | None = None,
) -> list[_Answer]:
    """Return ``function(task, shared)`` for each task, in their order.

    The function is a module's, and tasks are pickled. Processes that are copies of this one inherit `shared` as it is,
    open files included; others get what pickling makes of it. `workers` is the number of processes; None for as many as
    cores, where so many pixels a task are worth it. A process that dies (memory) costs its own tasks' work only: what
    has no answer is computed here, one by one.
    """
    count = _choose_workers(len(tasks), pixels, workers)
    answers: list[_Answer] = []

    def add(answer: _Answer) -> None:
        answers.append(answer)
        if progress is not None:
            progress(len(answers), len(tasks))

    if count > 1:
        _call_glibc("malloc_trim", 0)  # what is free here must not be copied to each of them
        try:
            with ProcessPoolExecutor(count, _context(), _start, (shared,)) as pool:
                with warnings.catch_warnings():
                    # Python 3.12+ warns of forking with threads; those of the BLAS library are not running anything.
                    warnings.simplefilter("ignore", DeprecationWarning)
                    coming = pool.map(partial(_call, function), tasks)
                for answer in coming:
                    add(answer)
        except BrokenProcessPool:
            pass
    for task in tasks[len(answers) :]:
        add(function(task, shared))
    return answers


def is_forking() -> bool:
    """Return whether processes start as copies of this one: where that is safe, because those have all imported."""
    return sys.platform == "linux" and threading.active_count() == 1


def _context() -> multiprocessing.context.BaseContext:
    """Return how processes are started."""
    return multiprocessing.get_context("fork" if is_forking() else "spawn")


def _start(shared: Any) -> None:
    """Begin a worker process: keep what its calls share, and let the parent alone answer Ctrl-C."""
    global _shared
    _shared = shared
    gc.freeze()  # a collection that looked at what this process inherited would have it copied
    _keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _keep_freed_memory() -> None:
    """Let this process keep freed arrays for the next frame; glibc would map each large one anew, page by page."""
    for parameter, value in _MALLOC:
        _call_glibc("mallopt", parameter, value)


def _call_glibc(name: str, *arguments: int) -> None:
    """Call a function of glibc's allocator; nothing on other C libraries."""
    if platform.libc_ver()[0] == "glibc":
        getattr(ctypes.CDLL(None), name)(*arguments)


def _end_with_parent() -> None:
    """End this worker process when its parent has gone: one that was killed tells nobody."""
    parent, number = multiprocessing.parent_process(), os.getppid()
    # A forked worker's pipe may outlive its parent, where younger siblings have copies: its number does not.
    while parent is not None and parent.is_alive() and os.getppid() == number:
        parent.join(_LOOK_S)
    os._exit(1)


# In a worker process: what its calls share.
_shared: Any = None


def _call(function: Callable[[_Task, Any], _Answer], task: _Task) -> _Answer:
    """Call the function in a worker process."""
    return function(task, _shared)


def _choose_workers(tasks: int, pixels: int, workers: int | None) -> int:
    """Return how many processes to start."""
    if multiprocessing.current_process().daemon:  # a worker of a cluster may have no processes of its own
        return 1
    if workers is not None:
        return max(1, min(workers, tasks))
    if pixels * tasks < _WORTH_A_PROCESS:
        return 1
    return max(1, min(usable_cores(), tasks))
