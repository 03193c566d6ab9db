"""Compute a stack's chunks in several threads: reading and compiled programs hold no lock of the interpreter's."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

from zemosaic_stack_core.backends import Backend
from zemosaic_stack_core.frames.bands import BandReader
from zemosaic_stack_core.frames.chunk import Chunk
from zemosaic_stack_core.frames.group import FrameGroup
from zemosaic_stack_core.stacking.compute import FrameCounts, compute_chunks
from zemosaic_stack_core.stacking.job import StackJob
from zemosaic_stack_core.stacking.limits import Limits
from zemosaic_stack_core.stacking.result_planes import ResultPlanes
from zemosaic_stack_core.system.memory import usable_cores
from zemosaic_stack_core.system.open_files import default_open_files

# Below this many samples a thread costs more than it saves: starting one takes 0.1 ms, a core does 2**28 a second.
WORTH_A_THREAD = 1 << 19
# Seconds after which a wait for the threads is begun again.
WAIT_S = 0.2


def settle_limits(limits: Limits, group: FrameGroup, backend: Backend) -> Limits:
    """Return the limits of a stack of these frames on this backend, the number of workers chosen."""
    return limits.shared_by(choose_workers(group, limits, is_host=backend.is_host))


def choose_workers(group: FrameGroup, limits: Limits, *, is_host: bool) -> int:
    """Return the number of threads for a stack: 1 on a device, and in a process that is one of several at work."""
    if not is_host:
        return 1
    if limits.workers is not None:
        return limits.workers
    if multiprocessing.current_process().daemon:
        return 1
    samples = len(group.sources) * group.rows * group.columns * group.channels
    paying = max(1, min(usable_cores(), samples // WORTH_A_THREAD))
    return min(paying, limits.most_workers or paying)


def compute_in_threads(
    job: StackJob, backend: Backend, threads: int, planes: ResultPlanes, done: Callable[[Chunk], None]
) -> FrameCounts:
    """Compute all chunks of a job in `threads` threads; call `done` after each, one thread at a time.

    Whatever a thread or `done` raised first is raised here; the others end after the chunk they are at.
    """
    lock, failed = threading.Lock(), threading.Event()
    all_started = threading.Event()  # Ctrl-C while a thread is started would make the pool forget that thread
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
        all_started.wait()
        try:
            with BandReader(job.group, max_open_files=default_open_files() // threads) as reader:
                return compute_chunks(job, backend, reader, chunks(), planes, report).counts
        except BaseException:
            failed.set()
            raise

    counts = FrameCounts.zeros(len(job.group.sources), job.group.channels)
    with ThreadPoolExecutor(max_workers=threads, thread_name_prefix="zemosaic-stack") as pool:
        try:
            futures = {pool.submit(work) for _ in range(threads)}
            all_started.set()
            while futures:  # with a time-out: on Windows Ctrl-C does not end a wait
                ended, futures = wait(futures, timeout=WAIT_S, return_when=FIRST_EXCEPTION)
                for future in ended:
                    counts.add(future.result())
        except BaseException:  # Ctrl-C comes here, while this thread waits
            failed.set()
            all_started.set()
            raise
    return counts
