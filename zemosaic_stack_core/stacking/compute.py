"""Compute chunks: rows in, results into the planes of the whole image."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.backends import Backend, Transfer
from zemosaic_stack_core.frames.bands import BandReader
from zemosaic_stack_core.frames.chunk import Chunk
from zemosaic_stack_core.kernel import CriticalValues, stack_chunk
from zemosaic_stack_core.kernel.regrow import GROWN, pack_flags, pack_rejected, stack_grown
from zemosaic_stack_core.kernel.samples import Samples, Weight
from zemosaic_stack_core.kernel.typing import Array
from zemosaic_stack_core.stacking.critical_values import gesd_critical_values
from zemosaic_stack_core.stacking.job import StackJob
from zemosaic_stack_core.stacking.result_planes import ResultPlanes
from zemosaic_stack_core.stacking.upload import UploadedChunk, upload_chunks

# Pixels of a chunk that are combined again at once, where clusters take samples along.
PIXELS_AGAIN = 1 << 14


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


class StepTimes(NamedTuple):
    """Milliseconds of each step, summed over chunks. On a device they are of its own clock, and overlap."""

    upload_ms: float = 0.0
    compute_ms: float = 0.0
    download_ms: float = 0.0


class Computed(NamedTuple):
    """What became of some chunks."""

    counts: FrameCounts
    times: StepTimes


class _PartialCounts(NamedTuple):
    """Counts of some frames in one chunk and channel: shape (3, frame), of which the rows are as in `FrameCounts`."""

    frames: list[int]
    channel: int
    numbers: npt.NDArray[np.int64]


def compute_chunks(
    job: StackJob,
    backend: Backend,
    reader: BandReader,
    chunks: Iterable[Chunk],
    planes: ResultPlanes,
    done: Callable[[Chunk], None] = lambda _: None,
) -> Computed:
    """Read, compute and store chunks, one after the other; call `done` after each.

    Off the host, the next chunk is read and uploaded on a thread while this one is computed. `reader` is open over the
    job's group, and used by one thread at a time.
    """
    counts = FrameCounts.zeros(len(job.group.sources), job.group.channels)
    parts: list[_PartialCounts] = []
    host_ms = 0.0
    with ExitStack() as stack:
        transfer = stack.enter_context(backend.open_transfer())
        stack.enter_context(np.errstate(over="ignore", invalid="ignore"))
        critical_values = None
        if job.options.rejection == "gesd":
            with transfer.computing():  # in the order of the kernel's calls, which read it
                values, most = gesd_critical_values(len(job.group.sources), job.options)
                critical_values = CriticalValues(backend.upload(values), most)
        work = _Work(job, backend, transfer, planes, critical_values)
        sought = job.flags if job.is_second_pass else None
        for chunk, uploaded in stack.enter_context(upload_chunks(job, backend, reader, transfer, chunks, sought)):
            if uploaded is not None:
                began = time.perf_counter()
                with transfer.computing():
                    parts += work.compute(uploaded, counts)
                    transfer.release(uploaded.slot)
                if backend.is_host:
                    host_ms += (time.perf_counter() - began) * 1e3
            done(chunk)
        transfer.finish()
        on_device = transfer.times
        times = StepTimes(on_device.upload_ms, on_device.compute_ms + host_ms, on_device.download_ms)
    for used, channel, numbers in parts:
        for total, row in zip((counts.rejected_low, counts.rejected_high, counts.missing), numbers, strict=True):
            total[used, channel] += row
    return Computed(counts, times)


@dataclass(frozen=True)
class _Work:
    """What every chunk needs to be computed."""

    job: StackJob
    backend: Backend
    transfer: Transfer
    planes: ResultPlanes
    critical_values: CriticalValues | None

    def compute(self, uploaded: UploadedChunk, counts: FrameCounts) -> list[_PartialCounts]:
        """Stack a chunk, channel by channel, and send the results home; the counts are complete when the transfer is.

        In the second pass the counts are of samples that grew, and only those pixels get new results.
        """
        job, chunk = self.job, uploaded.chunk
        arrays = iter(self.transfer.arrive(uploaded.slot))
        n_frames = len(job.group.sources)
        values = [next(arrays) for _ in range(n_frames)]
        masks = {frame: next(arrays) for frame in uploaded.masked}
        weights = [next(arrays) for _ in range(n_frames)] if job.weighs_samples else None
        variances = [next(arrays) for _ in range(n_frames)] if job.propagates else None
        codes = {frame: next(arrays) for frame in uploaded.coded}
        parts: list[_PartialCounts] = []
        for channel in range(job.group.channels):
            used = [frame for frame in range(n_frames) if job.weight[frame, channel] > 0.0]
            if not job.is_second_pass:
                counts.missing[job.weight[:, channel] <= 0.0, channel] += chunk.pixels

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
                scale=None if job.scale is None else [float(job.scale[frame, channel]) for frame in used],
                offset=None if job.offset is None else [float(job.offset[frame, channel]) for frame in used],
                weights=given,
                variances=None if variances is None else [row(variances[frame]) for frame in used],
                stored=job.stored,
            )
            partial = _PartialCounts(used, channel, np.empty((3, len(used)), np.int64))
            if uploaded.codes is None:
                self._stack(samples, chunk, partial)
            else:
                pixels = np.flatnonzero((uploaded.codes[:, channel] == GROWN).any(axis=0))
                of_used = [row(codes[frame]) if frame in codes else None for frame in used]
                partial.numbers[:] = 0
                # The samples of these pixels are copied: some at a time.
                for first in range(0, pixels.size, PIXELS_AGAIN):
                    self._stack_again(samples, of_used, pixels[first : first + PIXELS_AGAIN], chunk, partial)
            parts.append(partial)
        return parts

    def _stack(self, samples: Samples, chunk: Chunk, partial: _PartialCounts) -> None:
        """Stack one channel of a chunk; note what was rejected where clusters are to grow."""
        xp, job, rejected = self.backend.xp, self.job, self.planes.rejected
        notes = job.flags is not None or rejected is not None
        result = stack_chunk(
            self.backend,
            samples,
            job.options,
            maps=job.maps | {"bounds"} if notes else job.maps,
            critical_values=self.critical_values,
        )
        pairs = []
        for name, plane in self.planes.by_name.items():
            place = plane[partial.channel, chunk.start : chunk.stop, chunk.first : chunk.last]
            pairs.append((getattr(result, name), place.reshape(-1)))
        counted = [result.frame_rejected_low, result.frame_rejected_high, result.frame_missing]
        pairs.append((xp.stack(counted), partial.numbers))  # together: one copy, and nobody waits for it
        self.transfer.download(pairs)
        if not notes:
            return
        packed = pack_rejected(xp, samples, result, partial.frames, len(job.group.sources))
        noted = np.empty(packed.shape, np.uint8)
        self.transfer.download([(packed, noted)])
        self.transfer.finish()
        if job.flags is not None:
            job.flags.write(chunk, partial.channel, noted)
        if rejected is not None:
            place = rejected[:, partial.channel, chunk.start : chunk.stop, chunk.first : chunk.last]
            place[:] = noted.reshape(place.shape)

    def _stack_again(
        self,
        samples: Samples,
        codes: list[Array | None],
        pixels: npt.NDArray[np.intp],
        chunk: Chunk,
        partial: _PartialCounts,
    ) -> None:
        """Combine again the pixels of a channel where a cluster takes samples along."""
        backend, job = self.backend, self.job
        lane = backend.upload(pixels.astype(np.int64))
        xp = backend.xp
        of_pixels = [None if code is None else xp.take(code, lane, axis=0) for code in codes]
        grown = stack_grown(backend, samples.part(xp, lane), of_pixels, job.options, job.maps)
        has_changed = np.empty(pixels.shape, np.bool_)
        numbers = np.empty_like(partial.numbers)
        fields = {name: np.empty(pixels.shape, plane.dtype) for name, plane in self.planes.by_name.items()}
        pairs = [(getattr(grown.result, name), field) for name, field in fields.items()]
        counted = [grown.result.frame_rejected_low, grown.result.frame_rejected_high, grown.result.frame_missing]
        pairs += [(grown.has_changed, has_changed), (backend.xp.stack(counted), numbers)]
        self.transfer.download(pairs)
        self.transfer.finish()
        partial.numbers[:] += numbers
        taken = None
        if self.planes.rejected is not None:
            packed = pack_flags(xp, grown.taken, partial.frames, len(job.group.sources))
            taken = np.empty(packed.shape, np.uint8)
            self.transfer.download([(packed, taken)])
            self.transfer.finish()
        width = chunk.last - chunk.first
        rows, columns = chunk.start + pixels[has_changed] // width, chunk.first + pixels[has_changed] % width
        for name, plane in self.planes.by_name.items():
            place = plane[partial.channel]
            new = fields[name][has_changed]
            if name in ("rejected_low", "rejected_high"):  # beside those that the rule rejected
                new = new + place[rows, columns]
            place[rows, columns] = new
        if self.planes.rejected is not None and taken is not None:
            self.planes.rejected[:, partial.channel, rows, columns] |= taken[:, has_changed]
