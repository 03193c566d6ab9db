"""One stack, ready to be computed: `StackJob`, and the loop that computes chunks of it on one backend.

A job holds no file and no array of a backend: it is made once, and travels to worker processes as it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .backends import Backend, Slot, Transfer, TransferTimes
from .chunks import Chunk, ChunkPlan
from .frames import FrameGroup
from .kernel import ChunkResult, stack_chunk
from .options import StackOptions
from .outputs import OutputPlanes
from .pixels.combination import Weight
from .pixels.critical_values import gesd_critical_values
from .pixels.samples import Samples
from .reading.bands import Band, BandReader, is_viewed
from .reading.planes import PlaneStack

__all__ = ["FrameCounts", "StackJob", "StepTimes", "compute_chunks"]

#: Normalized values beyond this may leave float32's range, and are looked at as if one could be missing.
SAFE_VALUE = 1e30


@dataclass(frozen=True, kw_only=True)
class StackJob:
    """Everything that decides the numbers of one stack.

    Parameters
    ----------
    group : FrameGroup
        The frames.
    options : StackOptions
        Rule and combination.
    maps : frozenset of str
        Maps that are wanted.
    weight : array of shape (frame, channel), float32
        A frame of zero weight takes part in nothing.
    scale, offset : array of shape (frame, channel), float32, or None
        Normalization.
    sample_weights, variances : PlaneStack or None
        Weights and variances of single samples.
    plan : ChunkPlan
        Chunks; no number depends on it.
    """

    group: FrameGroup
    options: StackOptions
    maps: frozenset[str]
    weight: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32] | None
    offset: npt.NDArray[np.float32] | None
    sample_weights: PlaneStack | None
    variances: PlaneStack | None
    plan: ChunkPlan

    @property
    def is_weighted(self) -> bool:
        """Whether the frames that take part have different weights."""
        return self.sample_weights is not None or bool(((self.weight != 1.0) & (self.weight != 0.0)).any())


@dataclass(frozen=True)
class FrameCounts:
    """Samples of each frame that were rejected low, rejected high and missing: shape (frame, channel), int64."""

    rejected_low: npt.NDArray[np.int64]
    rejected_high: npt.NDArray[np.int64]
    missing: npt.NDArray[np.int64]

    @classmethod
    def zeros(cls, frames: int, channels: int) -> FrameCounts:
        """Start at zero."""
        return cls(*(np.zeros((frames, channels), np.int64) for _ in range(3)))

    def add(self, other: FrameCounts) -> None:
        """Add another count to this one."""
        for total, part in (
            (self.rejected_low, other.rejected_low),
            (self.rejected_high, other.rejected_high),
            (self.missing, other.missing),
        ):
            total += part


@dataclass
class StepTimes:
    """Milliseconds that each step of a stack took, summed over its chunks.

    Off the host the device's own clock tells them, and they overlap. On the host nothing is copied, and what worker
    processes take is not counted.
    """

    upload_ms: float = 0.0
    compute_ms: float = 0.0
    download_ms: float = 0.0

    def add(self, other: TransferTimes) -> None:
        """Add what a transfer measured."""
        self.upload_ms += other.upload_ms
        self.compute_ms += other.compute_ms
        self.download_ms += other.download_ms


class _PartialCounts(NamedTuple):
    """Counts of some frames in one chunk and channel: shape (3, frame), of which the rows are as in `FrameCounts`."""

    frames: list[int]
    channel: int
    numbers: npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Loaded:
    """A chunk on its way: the slot its arrays are in, and what the host knows about them."""

    chunk: Chunk
    slot: Slot
    band: Band
    masked: list[int]


def compute_chunks(
    job: StackJob,
    backend: Backend,
    reader: BandReader,
    chunks: Iterable[Chunk],
    outputs: OutputPlanes,
    done: Callable[[Chunk], None] | None = None,
    times: StepTimes | None = None,
) -> FrameCounts:
    """Read, compute and store chunks, one after the other.

    Off the host, the next chunk is read and uploaded on a thread while this one is computed.

    Parameters
    ----------
    job : StackJob
        What to compute.
    backend : Backend
        Where.
    reader : BandReader
        Open over the job's group; used by one thread at a time.
    chunks : iterable of Chunk
        Which part.
    outputs : OutputPlanes
        Where the results go.
    done : callable, optional
        Called after each chunk.
    times : StepTimes, optional
        Gets the time of each step added.

    Returns
    -------
    FrameCounts
        Of these chunks.
    """
    counts = FrameCounts.zeros(len(job.group.sources), job.group.channels)
    parts: list[_PartialCounts] = []
    critical_values = None
    with ExitStack() as stack:
        transfer = stack.enter_context(backend.open_transfer())
        stack.enter_context(np.errstate(over="ignore", invalid="ignore"))
        if job.options.rejection == "gesd":
            with transfer.computing():  # in the order of the kernel's calls, which read it
                critical_values = backend.upload(gesd_critical_values(len(job.group.sources), job.options))
        for loaded in stack.enter_context(_loading(job, backend, reader, transfer, chunks)):
            began = time.perf_counter()
            with transfer.computing():
                parts += _compute(job, backend, transfer, loaded, outputs, critical_values, counts)
                transfer.release(loaded.slot)
            if times is not None and backend.is_host:
                times.compute_ms += (time.perf_counter() - began) * 1e3
            if done is not None:
                done(loaded.chunk)
        transfer.finish()
        if times is not None:
            times.add(transfer.times)
    for used, channel, numbers in parts:
        for total, row in zip((counts.rejected_low, counts.rejected_high, counts.missing), numbers, strict=True):
            total[used, channel] += row
    return counts


@contextmanager
def _loading(
    job: StackJob, backend: Backend, reader: BandReader, transfer: Transfer, chunks: Iterable[Chunk]
) -> Iterator[Iterator[_Loaded]]:
    """Give the chunks as they arrive: read in place on the host, ahead on a thread elsewhere."""
    if backend.is_host:
        yield (_load(job, reader, transfer, chunk) for chunk in chunks)
        return
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="zemosaic-read") as pool:

        def ahead() -> Iterator[_Loaded]:
            pending: Future[_Loaded] | None = None
            for chunk in chunks:
                following = pool.submit(_load, job, reader, transfer, chunk)
                if pending is not None:
                    yield pending.result()
                pending = following
            if pending is not None:
                yield pending.result()

        try:
            yield ahead()
        finally:
            transfer.close()  # wakes a reading thread that waits for a slot


def _load(job: StackJob, reader: BandReader, transfer: Transfer, chunk: Chunk) -> _Loaded:
    """Read a chunk into a slot and send it to the backend."""
    group = job.group
    slot = transfer.acquire()
    rows = chunk.stop - chunk.start
    shapes = [(group.channels, 0 if is_viewed(frame) else rows, group.columns) for frame in group.sources]
    band = reader.read(chunk.start, chunk.stop, slot.host_arrays(shapes, [frame.dtype for frame in group.sources]))
    masked = [frame for frame, mask in enumerate(band.masks) if mask is not None]
    arrays = [_flat(samples, chunk) for samples in band.samples]
    arrays += [_flat(mask, chunk) for mask in band.masks if mask is not None]
    if job.scale is not None:
        _flag_large(band)
    if job.sample_weights is not None:
        weights = [job.sample_weights.read(frame, chunk, job.weight[frame]) for frame in range(len(group.sources))]
        band.has_missing |= np.array([[not (plane > 0.0).all() for plane in planes] for planes in weights])
        arrays += weights
    if job.variances is not None:
        arrays += [job.variances.read(frame, chunk, None) for frame in range(len(group.sources))]
    transfer.upload(slot, arrays)
    return _Loaded(chunk, slot, band, masked)


def _flat(planes: npt.NDArray[Any], chunk: Chunk) -> npt.NDArray[Any]:
    """Give the chunk's columns of (channel, row, column) as (channel, pixel), without a copy where possible."""
    if planes.shape[2] != chunk.last - chunk.first:
        planes = planes[:, :, chunk.first : chunk.last]
    return planes.reshape(planes.shape[0], -1)


def _flag_large(band: Band) -> None:
    """Flag frames whose normalized values might overflow: the kernel then tells missing samples by looking."""
    for frame, samples in enumerate(band.samples):
        if samples.dtype == np.float32:
            for channel, plane in enumerate(samples):
                if not (plane.max() < SAFE_VALUE and plane.min() > -SAFE_VALUE):
                    band.has_missing[frame, channel] = True


def _compute(
    job: StackJob,
    backend: Backend,
    transfer: Transfer,
    loaded: _Loaded,
    outputs: OutputPlanes,
    critical_values: Any | None,
    counts: FrameCounts,
) -> list[_PartialCounts]:
    """Stack a chunk, channel by channel, and send the results home; the counts are complete when the transfer is."""
    parts: list[_PartialCounts] = []
    chunk, band = loaded.chunk, loaded.band
    arrays = iter(transfer.arrive(loaded.slot))
    n_frames = len(job.group.sources)
    values = [next(arrays) for _ in range(n_frames)]
    masks = {frame: next(arrays) for frame in loaded.masked}
    weights = None if job.sample_weights is None else [next(arrays) for _ in range(n_frames)]
    variances = None if job.variances is None else [next(arrays) for _ in range(n_frames)]
    for channel in range(job.group.channels):
        used = [frame for frame in range(n_frames) if job.weight[frame, channel] > 0.0]
        unused = np.array([frame for frame in range(n_frames) if frame not in set(used)], dtype=np.intp)
        counts.missing[unused, channel] += chunk.pixels

        def row(planes: Any, channel: int = channel) -> Any:
            return planes[min(channel, planes.shape[0] - 1), ...]

        given: list[Weight] | None = None
        if weights is not None:
            given = [row(weights[frame]) for frame in used]
        elif job.is_weighted:
            given = [float(job.weight[frame, channel]) for frame in used]
        samples = Samples(
            values=[row(values[frame]) for frame in used],
            masks=[row(masks[frame]) if frame in masks else None for frame in used] if masks else None,
            has_missing=[bool(band.has_missing[frame, channel]) for frame in used],
            scale=None if job.scale is None else [float(job.scale[frame, channel]) for frame in used],
            offset=None if job.offset is None else [float(job.offset[frame, channel]) for frame in used],
            weights=given,
            variances=None if variances is None else [row(variances[frame]) for frame in used],
        )
        result = stack_chunk(
            backend.xp,
            samples,
            job.options,
            maps=job.maps,
            critical_values=critical_values,
            strip_pixels=job.plan.strip_pixels,
        )
        partial = _PartialCounts(used, channel, np.empty((3, len(used)), np.int64))
        _store(backend, transfer, result, chunk, channel, outputs, partial.numbers)
        parts.append(partial)
    return parts


def _store(
    backend: Backend,
    transfer: Transfer,
    result: ChunkResult,
    chunk: Chunk,
    channel: int,
    outputs: OutputPlanes,
    numbers: npt.NDArray[np.int64],
) -> None:
    """Bring a chunk's results to their place in the image and the maps, and its counts to `numbers`."""
    pairs = []
    for name, plane in outputs.planes.items():
        place = plane[channel, chunk.start : chunk.stop, chunk.first : chunk.last]
        pairs.append((getattr(result, name), place.reshape(-1)))
    counted = [result.frame_rejected_low, result.frame_rejected_high, result.frame_missing]
    pairs.append((backend.xp.stack(counted), numbers))  # together: one copy, and nobody waits for it
    transfer.download(pairs)
