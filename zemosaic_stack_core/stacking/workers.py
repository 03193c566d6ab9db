"""Compute a stack's chunks in several processes.

Each worker opens the files itself, reads its own rows and writes its results into the shared planes: no pixel travels
through a pipe, only numbers of chunks and counts. Processes and not threads, because with the interpreter's lock two
threads are no faster than one on rows of this size.

A worker that dies loses nothing: its chunks are computed again here. A worker whose parent dies sees its pipe close
and ends.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

from zemosaic_stack_core.backends import Backend, numpy_backend
from zemosaic_stack_core.errors import ZemosaicError
from zemosaic_stack_core.frames.bands import BandReader
from zemosaic_stack_core.frames.chunk import Chunk
from zemosaic_stack_core.frames.file_frames import FileFrame
from zemosaic_stack_core.frames.group import FrameGroup
from zemosaic_stack_core.stacking.compute import FrameCounts, compute_chunks
from zemosaic_stack_core.stacking.job import StackJob
from zemosaic_stack_core.stacking.limits import Limits
from zemosaic_stack_core.stacking.output_planes import OutputPlanes
from zemosaic_stack_core.stacking.threads import threads_run_at_once
from zemosaic_stack_core.system.memory import keep_freed_memory, usable_cores
from zemosaic_stack_core.system.shared_file import map_file

if TYPE_CHECKING:  # Windows has no fork
    from multiprocessing.context import ForkContext, SpawnContext


_LOGGER = logging.getLogger(__name__)

#: Below this many samples the processes cost more than they save: starting one takes some 10 ms (fork) to 300 ms
#: (spawn), and a core does about 2**27 samples a second.
WORTH_FORKING = 1 << 23
WORTH_SPAWNING = 1 << 27
#: Chunks under way per worker: one computed, one waiting, so that none waits for the parent.
AHEAD = 2


def settle_limits(limits: Limits, group: FrameGroup, backend: Backend) -> Limits:
    """Return the limits of a stack of these frames on this backend, the number of workers chosen."""
    return limits.shared_by(choose_workers(group, limits, is_host=backend.is_host))


def choose_workers(group: FrameGroup, limits: Limits, *, is_host: bool) -> int:
    """Return the number of processes, or threads where they run at once, for a stack.

    It is 1 where the frames are in memory and can't be inherited, where the job is small, on a device, and in a process
    that may have no children, as a worker of a cluster. Threads, where they run at once, need none of that.
    """
    if not is_host or limits.workers == 1 or multiprocessing.current_process().daemon:
        return 1
    at_once = threads_run_at_once()
    can_travel = at_once or (all(isinstance(source, FileFrame) for source in group.sources) and not any(group.masks))
    if not (_can_fork() or can_travel):
        return 1
    if limits.workers is not None:
        return limits.workers
    samples = len(group.sources) * group.rows * group.columns * group.channels
    if samples < (WORTH_FORKING if at_once or _can_fork() else WORTH_SPAWNING):
        return 1
    # A spawned child runs the caller's main module again: only a program that is made for it asks for that.
    paying = usable_cores() if at_once or _can_fork() or limits.most_workers is not None else 1
    return min(paying, limits.most_workers or paying)


def _can_fork() -> bool:
    """Whether a child may safely be a copy of this process: on Linux, with no other thread running."""
    return sys.platform == "linux" and threading.active_count() == 1


@dataclass
class _Worker:
    """One process, its pipe, and the chunks it was given."""

    process: BaseProcess
    pipe: Connection
    given: dict[int, Chunk]


def compute_in_processes(
    job: StackJob, workers: int, path: Path, outputs: OutputPlanes, done: Callable[[Chunk], None]
) -> FrameCounts:
    """Compute all chunks of a job in `workers` processes.

    Parameters
    ----------
    job : StackJob
        What to compute.
    workers : int
        Number of processes.
    path : Path
        The shared file behind `outputs`.
    outputs : OutputPlanes
        Where the results appear.
    done : callable
        Called after each chunk, in this process.

    Raises
    ------
    Exception
        Whatever a worker raised, and whatever `done` raises; the workers are ended first.
    """
    counts = FrameCounts.zeros(len(job.group.sources), job.group.channels)
    waiting = list(enumerate(job.chunk_plan))[::-1]
    lost: list[Chunk] = []
    with _started(job, workers, path) as crew:
        for worker in crew:
            _feed(worker, waiting)
        while busy := [worker for worker in crew if worker.given]:
            for pipe in wait([worker.pipe for worker in busy]):
                worker = next(worker for worker in busy if worker.pipe is pipe)
                try:
                    answer = worker.pipe.recv()
                except (EOFError, ConnectionError):
                    lost += _bury(worker)
                    continue
                if isinstance(answer, BaseException):
                    raise answer
                index, of_chunk = answer
                counts.add(of_chunk)
                done(worker.given.pop(index))
                _feed(worker, waiting)
    lost += [chunk for _, chunk in reversed(waiting)]
    if lost:
        with BandReader(job.group) as reader:
            counts.add(compute_chunks(job, numpy_backend(), reader, lost, outputs, done))
    return counts


def _feed(worker: _Worker, waiting: list[tuple[int, Chunk]]) -> None:
    """Hand a worker chunks until it has enough."""
    while waiting and len(worker.given) < AHEAD:
        index, chunk = waiting.pop()
        worker.given[index] = chunk
        try:
            worker.pipe.send((index, chunk))
        except (BrokenPipeError, ConnectionError):
            return  # it died: its chunks are found when its pipe is read


def _bury(worker: _Worker) -> list[Chunk]:
    """Give the chunks that a dead worker leaves."""
    worker.process.join()
    left = list(worker.given.values())
    worker.given.clear()
    _LOGGER.warning(
        "worker process %s ended with exit code %s; its %d chunks are computed again",
        worker.process.pid,
        worker.process.exitcode,
        len(left),
    )
    return left


@contextmanager
def _started(job: StackJob, workers: int, path: Path) -> Iterator[list[_Worker]]:
    """Start the workers; end them on the way out, whatever happened."""
    context: ForkContext | SpawnContext
    context = multiprocessing.get_context("fork") if _can_fork() else multiprocessing.get_context("spawn")
    crew: list[_Worker] = []
    try:
        for _ in range(workers):
            here, there = context.Pipe()
            inherited = [worker.pipe for worker in crew] + [here] if context.get_start_method() == "fork" else []
            process = context.Process(target=_work, args=(job, path, there, inherited), daemon=True)
            with warnings.catch_warnings():
                # Python 3.12+ warns of forking with threads; those of the BLAS library are not running anything.
                warnings.simplefilter("ignore", DeprecationWarning)
                process.start()
            there.close()
            crew.append(_Worker(process, here, {}))
        yield crew
    finally:
        for worker in crew:
            worker.pipe.close()
            if worker.given:
                worker.process.terminate()
        for worker in crew:
            worker.process.join()


def _work(job: StackJob, path: Path, pipe: Connection, inherited: list[Connection]) -> None:
    """Compute chunks until the pipe closes: the body of a worker process."""
    for other in inherited:
        other.close()  # a copy here would keep a dead parent's pipe open
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted too, and ends its workers
    keep_freed_memory()
    group = job.group
    outputs = OutputPlanes.over(job.maps, (group.channels, group.rows, group.columns), map_file(path))
    backend = numpy_backend()
    with BandReader(group) as reader:
        while True:
            try:
                index, chunk = pipe.recv()
            except (EOFError, ConnectionError):
                break
            try:
                answer: object = (index, compute_chunks(job, backend, reader, [chunk], outputs))
            except ZemosaicError as error:
                answer = error  # anything else ends this process, and happens again where the parent takes over
            try:
                pipe.send(answer)
            except (BrokenPipeError, ConnectionError):
                break
    os._exit(0)  # the planes are written through the mapping; nothing inherited is to be cleaned up twice
