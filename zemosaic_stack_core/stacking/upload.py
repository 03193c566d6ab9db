"""Bring the chunks of a stack to the backend: samples, masks, and what goes with every sample."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.backends import Backend, Slot, Transfer
from zemosaic_stack_core.frames.bands import BandReader, BandReaders
from zemosaic_stack_core.frames.chunk import Chunk
from zemosaic_stack_core.stacking.clusters import RejectedFlags
from zemosaic_stack_core.system.memory import usable_cores

if TYPE_CHECKING:
    from zemosaic_stack_core.stacking.job import StackJob

# Threads that fill a chunk for a device. One copies 5 to 10 GB/s, a bus takes 12 to 50.
MOST_READERS = 4


@dataclass(frozen=True)
class UploadedChunk:
    """A chunk on its way: the slot its arrays are in, and what the host knows about them.

    The arrays are the samples of every frame, the masks of the frames `masked`, and where the job has them the
    weights and the variances of every frame; then the codes of the frames `coded`. `codes`, of shape (frame, channel,
    pixel), say which samples clusters take along, None in a stack's first pass.
    """

    chunk: Chunk
    slot: Slot
    masked: list[int]
    codes: npt.NDArray[np.uint8] | None
    coded: list[int]


@contextmanager
def upload_chunks(
    job: StackJob,
    backend: Backend,
    reader: BandReader,
    transfer: Transfer,
    chunks: Iterable[Chunk],
    flags: RejectedFlags | None,
) -> Iterator[Iterator[tuple[Chunk, UploadedChunk | None]]]:
    """Yield the chunks as they arrive: read in place by `reader` on the host, ahead by threads elsewhere.

    None stands for a chunk in which the second pass, which reads `flags`, has nothing to do.
    """
    if backend.is_host:
        yield ((chunk, _upload(job, reader, transfer, chunk, flags)) for chunk in chunks)
        return
    threads = min(MOST_READERS, usable_cores(), len(job.group.sources))
    with (
        BandReaders(job.group, threads) as readers,
        ThreadPoolExecutor(max_workers=1, thread_name_prefix="zemosaic-read") as pool,
    ):

        def ahead() -> Iterator[tuple[Chunk, UploadedChunk | None]]:
            pending: tuple[Chunk, Future[UploadedChunk | None]] | None = None
            for chunk in chunks:
                following = chunk, pool.submit(_upload, job, readers, transfer, chunk, flags)
                if pending is not None:
                    yield pending[0], pending[1].result()
                pending = following
            if pending is not None:
                yield pending[0], pending[1].result()

        try:
            yield ahead()
        finally:
            transfer.close()  # wakes a reading thread that waits for a slot


def _upload(
    job: StackJob, reader: BandReader | BandReaders, transfer: Transfer, chunk: Chunk, flags: RejectedFlags | None
) -> UploadedChunk | None:
    """Read a chunk into a slot and send it to the backend."""
    group, options = job.group, job.options
    codes = None
    if flags is not None:
        codes = flags.find_grown(chunk, options.grow_radius, options.grow_min_size)
        if codes is None:
            return None
    slot = transfer.acquire()
    rows = chunk.stop - chunk.start
    buffers = slot.host_arrays(reader.shapes(rows), [frame.dtype for frame in group.sources])
    band = reader.read(chunk.start, chunk.stop, buffers)
    samples = [_flat(planes, chunk) for planes in band.samples]
    masks = {frame: _flat(mask, chunk) for frame, mask in enumerate(band.masks) if mask is not None}
    weights: list[npt.NDArray[np.float32]] = []
    variances: list[npt.NDArray[np.float32]] = []
    if job.sample_weights is not None or job.variances is not None:
        weights, variances = _planes_of(job, reader, chunk, samples, masks)
    coded = [] if codes is None else [frame for frame, planes in enumerate(codes) if planes.any()]
    arrays: list[npt.NDArray[Any]] = [*samples, *masks.values(), *weights, *variances]
    if codes is not None:
        arrays += [codes[frame] for frame in coded]
    transfer.upload(slot, arrays)
    return UploadedChunk(chunk, slot, list(masks), codes, coded)


def _flat(planes: npt.NDArray[Any], chunk: Chunk) -> npt.NDArray[Any]:
    """Return the chunk's columns of (channel, row, column) as (channel, pixel), without a copy where possible."""
    if planes.shape[2] != chunk.last - chunk.first:
        planes = planes[:, :, chunk.first : chunk.last]
    return planes.reshape(planes.shape[0], -1)


def _planes_of(
    job: StackJob,
    reader: BandReader | BandReaders,
    chunk: Chunk,
    samples: list[npt.NDArray[Any]],
    masks: dict[int, npt.NDArray[np.bool_]],
) -> tuple[list[npt.NDArray[np.float32]], list[npt.NDArray[np.float32]]]:
    """Return every frame's weights and variances, none where the kernel needs none; mask samples of no usable variance.

    Shape (channel, pixel) each.
    """
    weights, variances = [], []
    for frame, values in enumerate(samples):
        variance = None
        if job.variances is not None:
            variance = job.variances.read_variances(frame, chunk, values, reader.files)
            if not job.variances.is_checked and not ((variance >= 0.0) & (variance < np.inf)).all():
                is_bad = ~((variance >= 0.0) & (variance < np.inf))
                masks[frame] = is_bad | masks[frame] if frame in masks else is_bad
            if job.propagates:
                variances.append(variance)
        if job.weighs_samples:
            weights.append(job.weights_of(frame, chunk, variance))
    return weights, variances
