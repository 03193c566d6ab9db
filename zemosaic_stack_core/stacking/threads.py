"""Compute a stack's chunks in several threads, where the interpreter has no lock that they would share.

There a thread does what a process does elsewhere (see `zemosaic_stack_core.stacking.workers`), and starts at once.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from zemosaic_stack_core.backends import numpy_backend
from zemosaic_stack_core.frames.bands import BandReader
from zemosaic_stack_core.frames.chunk import Chunk
from zemosaic_stack_core.stacking.compute import FrameCounts, compute_chunks
from zemosaic_stack_core.stacking.job import StackJob
from zemosaic_stack_core.stacking.output_planes import OutputPlanes


def threads_run_at_once() -> bool:
    """Say whether this is a free-threaded interpreter (PEP 703) that runs without its lock."""
    is_enabled: Callable[[], bool] | None = getattr(sys, "_is_gil_enabled", None)  # Python 3.13 and later
    return is_enabled is not None and not is_enabled()


def compute_in_threads(
    job: StackJob, threads: int, outputs: OutputPlanes, done: Callable[[Chunk], None]
) -> FrameCounts:
    """Compute all chunks of a job in `threads` threads.

    Parameters
    ----------
    job : StackJob
        What to compute.
    threads : int
        Number of threads.
    outputs : OutputPlanes
        Where the results appear.
    done : callable
        Called after each chunk, by one thread at a time.

    Raises
    ------
    Exception
        Whatever a thread or `done` raised first; the others end after the chunk they are at.
    """
    lock, failed = threading.Lock(), threading.Event()
    waiting = iter(job.chunk_plan)

    def chunks() -> Iterator[Chunk]:
        while not failed.is_set():
            with lock:
                chunk = next(waiting, None)
            if chunk is None:
                return
            yield chunk

    def report(chunk: Chunk) -> None:
        with lock:
            done(chunk)

    def work() -> FrameCounts:
        try:
            with BandReader(job.group) as reader:
                return compute_chunks(job, numpy_backend(), reader, chunks(), outputs, report)
        except BaseException:
            failed.set()
            raise

    counts = FrameCounts.zeros(len(job.group.sources), job.group.channels)
    with ThreadPoolExecutor(max_workers=threads, thread_name_prefix="zemosaic-stack") as pool:
        for future in [pool.submit(work) for _ in range(threads)]:
            counts.add(future.result())
    return counts
