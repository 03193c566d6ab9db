"""How much of the image is read and computed at once: integers in, integers out, no arrays.

A *chunk* is a band of rows, or, where one row is too much, a part of a row. No number of the result depends on it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from zemosaic_stack_core.errors import OutOfMemoryError
from zemosaic_stack_core.frames.chunk import Chunk
from zemosaic_stack_core.stacking.limits import Limits
from zemosaic_stack_core.system.memory import available_memory

# Without a limit from the caller: this part of the free memory, and at most so much for each worker.
FREE_SHARE = 4
WORKER_BYTES = 1 << 30
# Of a device's free memory, the part that a stack plans with; the rest is for what the runtime takes.
DEVICE_SHARE = 0.7


def chunk_budget(limits: Limits, device_bytes: int | None) -> int:
    """Return the bytes that the working set of one worker's chunk may take.

    `device_bytes` is the free memory of the device, None on the host.
    """
    if device_bytes is not None:
        free = int(device_bytes * DEVICE_SHARE)
        return free if limits.memory_limit is None else min(free, limits.memory_limit)
    workers = limits.workers or 1
    if limits.memory_limit is not None:
        return limits.memory_limit // workers
    return min(available_memory()[1] // FREE_SHARE // workers, WORKER_BYTES)


# A chunk of this many samples is enough for every cost per chunk to vanish, as long as a frame's part of it is not too
# little to read at a time; and few enough to stay in memory's caches between reading and stacking.
CHUNK_SAMPLES = 1 << 22
CHUNK_PIXELS = (1 << 15, 1 << 17)
# Bytes per pixel and channel of a chunk that the kernel's answer takes; more for each map.
PIXEL_BYTES = 32
MAP_BYTES = 8
# Bytes per pixel of the window in which the clusters of rejected samples of one frame are looked for: flags of eight
# frames, those of one, labels, the clusters, and what they grow to.
GROWTH_BYTES = 16
# On a device. To queue a chunk takes the host 0.4 ms and 0.013 ms for each frame; a bus (PCI Express 4.0) takes 1.3 ms
# for so many bytes, so no upload waits for the host. The upload of the first chunk and the download of the last overlap
# with nothing, so there are so many chunks or more. With fewer pixels threads of a large card have nothing to do, and
# with more than the second number nothing is gained.
DEVICE_CHUNK_BYTES = 1 << 25
DEVICE_CHUNKS = 8
DEVICE_CHUNK_PIXELS = (1 << 18, 1 << 21)
# A chunk's samples wait in pinned memory of the host, twice, which nothing else can use: at most so much each time, and
# this part of what is free.
PINNED_BYTES = 1 << 29
PINNED_SHARE = 16


def pinned_budget() -> int:
    """Return the bytes that the samples of one chunk may take of the host's pinned memory."""
    return min(PINNED_BYTES, available_memory()[1] // PINNED_SHARE)


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What a stack takes of the memory: the cube's shape, and bytes."""

    frames: int
    rows: int
    columns: int
    channels: int
    # What the samples of all frames at one pixel of one channel take as read, with masks, weights and variances.
    sample_bytes: int
    # How many chunks' samples and answers are in the backend's memory at once: 2 where one is uploaded while another
    # is computed.
    buffers: int = 1
    # What a program takes beside them: for each pixel, and at most.
    working_bytes: int = 0
    most_working_bytes: float = math.inf
    # Maps that are computed besides image and counts.
    maps: int = 0
    # What the samples of one chunk may take of the host's pinned memory, on a device.
    pinned_bytes: int = PINNED_BYTES
    # How far beyond a chunk the growth of rejected clusters looks, pixels.
    reach: int = 0


@dataclass(frozen=True, kw_only=True)
class ChunkPlan:
    """Chunks of one stack.

    Parameters
    ----------
    footprint : Footprint
        What is stacked.
    rows_per_chunk, columns_per_chunk : int
        Size of a chunk; fewer columns than the image has only with one row.
    chunk_bytes : int
        Predicted working set of one chunk, bytes.
    """

    footprint: Footprint
    rows_per_chunk: int
    columns_per_chunk: int
    chunk_bytes: int

    def __len__(self) -> int:
        per_row = -(-self.footprint.columns // self.columns_per_chunk)
        return per_row * -(-self.footprint.rows // self.rows_per_chunk)

    def __iter__(self) -> Iterator[Chunk]:
        rows, columns = self.footprint.rows, self.footprint.columns
        for start in range(0, rows, self.rows_per_chunk):
            stop = min(start + self.rows_per_chunk, rows)
            for first in range(0, columns, self.columns_per_chunk):
                yield Chunk(start, stop, first, min(first + self.columns_per_chunk, columns))


def plan_chunks(
    footprint: Footprint,
    *,
    budget: int | None,
    rows_cap: int | None = None,
    is_host: bool = True,
    shares: int = 1,
) -> ChunkPlan:
    """Return the largest chunks that fit `budget`, bytes (None for no limit), of at most `rows_cap` rows.

    `shares` workers should each get a few. Raises `OutOfMemoryError`, which says what would do, where not even one
    pixel fits.
    """
    wanted = _host_pixels(footprint) if is_host else _device_pixels(footprint)
    pixels = min(wanted, footprint.rows * footprint.columns)
    if budget is not None:
        pixels = min(pixels, _pixels_within(footprint, budget))
        if pixels < 1:
            need = _chunk_bytes(footprint, 1)
            raise OutOfMemoryError(
                f"one pixel of {footprint.frames} frames takes {need:,} bytes; the memory budget is {budget:,} bytes; "
                "expected a larger one"
            )
    rows = pixels // footprint.columns
    if rows >= 1:
        rows = min(rows, footprint.rows, rows_cap or footprint.rows)
        if shares > 1:  # some four chunks a worker, so that none waits long for the last
            rows = max(1, min(rows, -(-footprint.rows // (4 * shares))))
        columns = footprint.columns
    else:
        rows, columns = 1, pixels
    return ChunkPlan(
        footprint=footprint,
        rows_per_chunk=rows,
        columns_per_chunk=columns,
        chunk_bytes=_chunk_bytes(footprint, rows * columns),
    )


def _host_pixels(footprint: Footprint) -> int:
    """Return the pixels of a chunk on the host where memory is no matter."""
    least, most = CHUNK_PIXELS
    return max(least, min(most, CHUNK_SAMPLES // footprint.frames))


def _device_pixels(footprint: Footprint) -> int:
    """Return the pixels of a device's chunk where memory is no matter."""
    least, most = DEVICE_CHUNK_PIXELS
    pixel_bytes = max(footprint.sample_bytes * footprint.channels, 1)
    part = -(-footprint.rows * footprint.columns // DEVICE_CHUNKS)
    wanted = max(least, DEVICE_CHUNK_BYTES // pixel_bytes, part)
    return max(min(wanted, most, footprint.pinned_bytes // pixel_bytes), 1)


def _chunk_bytes(footprint: Footprint, pixels: int) -> int:
    """Predict what a chunk of so many pixels takes."""
    read = footprint.buffers * footprint.sample_bytes * footprint.channels * pixels
    answers = footprint.buffers * (PIXEL_BYTES + MAP_BYTES * footprint.maps) * footprint.channels * pixels
    working = min(footprint.working_bytes * pixels, footprint.most_working_bytes)
    return read + answers + int(working) + _growth_bytes(footprint, pixels)


def _growth_bytes(footprint: Footprint, pixels: int) -> int:
    """Predict what the growth of rejected clusters takes for a chunk of so many pixels."""
    if footprint.reach == 0:
        return 0
    rows = min(-(-pixels // footprint.columns) + 2 * footprint.reach, footprint.rows)
    columns = min(min(pixels, footprint.columns) + 2 * footprint.reach, footprint.columns)
    return GROWTH_BYTES * rows * columns + rows * footprint.columns


def _pixels_within(footprint: Footprint, budget: int) -> int:
    """Return the most pixels whose chunk fits the budget, by bisection."""
    low, high = 0, footprint.rows * footprint.columns
    while low < high:
        middle = (low + high + 1) // 2
        if _chunk_bytes(footprint, middle) <= budget:
            low = middle
        else:
            high = middle - 1
    return low
