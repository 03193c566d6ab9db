"""How much of the image is read and computed at once: integers in, integers out, no arrays.

A *chunk* is a band of rows, or, where one row is too much, a part of a row. No number of the result depends on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from zemosaic_stack_core.errors import OutOfMemoryError
from zemosaic_stack_core.frames.chunk import Chunk
from zemosaic_stack_core.kernel.columns import windows_of
from zemosaic_stack_core.kernel.rules import RULES
from zemosaic_stack_core.stacking.limits import Limits
from zemosaic_stack_core.system.memory import available_memory

#: Without a limit from the caller: this part of the free memory, and at most so much for each worker.
FREE_SHARE = 4
WORKER_BYTES = 1 << 30
#: Of a device's free memory, the part that a stack plans with; the rest is for what the runtime takes.
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


#: Pixels of a strip: below the first a strip's calls cost more than its work, above the second a float64 row no longer
#: fits the cache.
STRIP_PIXELS = (4096, 16384)
#: Samples of a strip: where all are gathered for a rule, they and what is made of them stay near the cache; where the
#: ends of the sorted samples are enough, or nothing is sorted, calls on long rows gain more. A rule that takes little
#: time has shorter strips: its memory can be told less well beforehand.
STRIP_SAMPLES = 1 << 20
ENDS_STRIP_SAMPLES = 1 << 22
PLAIN_RULE_STRIP_SAMPLES = 1 << 19
#: A chunk of this many samples is enough for every cost per chunk to vanish, as long as a frame's part of it is not
#: too little to read at a time; and few enough to stay in memory's caches between reading and stacking.
CHUNK_SAMPLES = 1 << 22
CHUNK_PIXELS = (1 << 15, 1 << 17)
#: What a frame costs in every strip (some fifteen calls) and in every chunk (a file opened and read), whatever their
#: size, in microseconds: where memory is short, it goes to the one that saves more.
STRIP_COST, CHUNK_COST = 20.0, 30.0
#: Bytes of the kernel's working set per sample and per pixel of a strip, measured with NumPy's allocator for 9 to 1000
#: frames, clean, with samples missing, and with something to reject everywhere: nothing sorted; sorted; with the ends
#: of the sorted samples gathered; with all of them gathered, for rules without sums and with.
PLAIN_BYTES = (5, 100)
SORTED_BYTES = (14, 150)
ENDS_BYTES = (12, 400)
GATHERED_BYTES_WITHOUT_SUMS = (18, 300)
GATHERED_BYTES = (29, 400)
#: More of them where samples are not float32 or are normalized.
CONVERTED_BYTES = 4
#: More of them where samples have weights or variances of their own.
PLANE_BYTES = 16
#: Bytes per pixel of a chunk that the kernel's answer takes, twice where strips are put together; more for each map.
PIXEL_BYTES = 48
MAP_BYTES = 40
#: Bytes per pixel of the window in which the clusters of rejected samples of one frame are looked for: flags of eight
#: frames, those of one, labels, the clusters, and what they grow to.
GROWTH_BYTES = 16
#: On a device: from the first number of pixels on, a call's work outweighs its launch, so an image is cut into four or
#: more for uploads and the kernel to overlap; at the second nothing is gained by more. A chunk's samples wait in pinned
#: memory of the host, twice, and pinned memory is dear.
DEVICE_CHUNK_PIXELS = (1 << 18, 1 << 21)
PINNED_BYTES = 1 << 29
#: Bytes per pixel and channel of answers that are on their way back from a device, of two chunks.
ANSWER_BYTES = 48
#: Bytes of the kernel's working set on a device, where a chunk is one strip: per pixel, and per sample by rule. They
#: hold at worst, where every pixel has something to reject and samples have masks, weights and variances of their own.
#: Measured with CuPy's allocator for 9 to 150 frames (peaks of 44, 30 and 40), rounded up: a library's sort takes some
#: memory that this does not see.
DEVICE_PIXEL_BYTES = 400
DEVICE_BYTES = {
    "winsorized_quantile": 46,
    "mad_clip": 34,
    "percentile_clip": 34,
    "minmax": 34,
    "noise_clip": 34,
}
DEVICE_BYTES_OF_OTHERS = 42
DEVICE_PLAIN_BYTES = 12


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What has to be stacked, as far as memory is concerned.

    Parameters
    ----------
    frames, rows, columns, channels : int
        Shape of the cube.
    sample_bytes : int
        Bytes that the samples of all frames at one pixel of one channel take as read, with their masks, weights and
        variances.
    buffers : int
        How many chunks' samples are in the backend's memory at once: 2 where one is uploaded while another is computed.
    working_bytes, pixel_bytes : int
        Bytes of the kernel's working set per sample and per pixel of a strip.
    strip_samples : int
        Samples of a strip where memory is no matter.
    maps : int
        Maps that are computed besides image and counts.
    reach : int
        How far beyond a chunk the growth of rejected clusters looks, pixels.
    """

    frames: int
    rows: int
    columns: int
    channels: int
    sample_bytes: int
    buffers: int = 1
    working_bytes: int = GATHERED_BYTES[0]
    pixel_bytes: int = GATHERED_BYTES[1]
    strip_samples: int = STRIP_SAMPLES
    maps: int = 0
    reach: int = 0


@dataclass(frozen=True, kw_only=True)
class ChunkPlan:
    """Chunks of one stack.

    Parameters
    ----------
    workload : Workload
        What is stacked.
    rows_per_chunk, columns_per_chunk : int
        Size of a chunk; fewer columns than the image has only with one row.
    strip_pixels : int or None
        Pixels of a strip inside the kernel; None for a whole chunk.
    chunk_bytes : int
        Predicted working set of one chunk, bytes.
    """

    workload: Workload
    rows_per_chunk: int
    columns_per_chunk: int
    strip_pixels: int | None
    chunk_bytes: int

    def __len__(self) -> int:
        per_row = -(-self.workload.columns // self.columns_per_chunk)
        return per_row * -(-self.workload.rows // self.rows_per_chunk)

    def __iter__(self) -> Iterator[Chunk]:
        rows, columns = self.workload.rows, self.workload.columns
        for start in range(0, rows, self.rows_per_chunk):
            stop = min(start + self.rows_per_chunk, rows)
            for first in range(0, columns, self.columns_per_chunk):
                yield Chunk(start, stop, first, min(first + self.columns_per_chunk, columns))


class StripNeed(NamedTuple):
    """What a strip of the kernel's takes and wants: fields of a `Workload`."""

    working_bytes: int
    pixel_bytes: int
    strip_samples: int


def host_strip(rejection: str, *, frames: int, sorts: bool, planes: int = 0, converts: bool = False) -> StripNeed:
    """Say what a strip on the host takes.

    `planes` go with the samples; `converts`: they are not float32, or normalized.
    """
    rule = RULES.get(rejection)
    windows = None if rule is None else windows_of(frames, rule.tail)
    if not sorts:
        need, wanted = PLAIN_BYTES, ENDS_STRIP_SAMPLES
    elif windows is not None:
        need, wanted = ENDS_BYTES, ENDS_STRIP_SAMPLES
    elif rule is None:
        need, wanted = SORTED_BYTES, PLAIN_RULE_STRIP_SAMPLES
    elif rule.uses_sums or rule.tail is None:
        need, wanted = GATHERED_BYTES, STRIP_SAMPLES
    else:
        need, wanted = GATHERED_BYTES_WITHOUT_SUMS, PLAIN_RULE_STRIP_SAMPLES
    own, pixel = need
    return StripNeed(own + PLANE_BYTES * planes + CONVERTED_BYTES * converts, pixel, wanted)


def device_working_bytes(rejection: str, *, sorts: bool) -> int:
    """Give the bytes of the kernel's working set per sample on a device."""
    return DEVICE_BYTES.get(rejection, DEVICE_BYTES_OF_OTHERS) if sorts else DEVICE_PLAIN_BYTES


def plan_chunks(
    workload: Workload,
    *,
    budget: int | None,
    rows_cap: int | None = None,
    in_strips: bool = True,
    shares: int = 1,
) -> ChunkPlan:
    """Choose the largest chunk that fits.

    Parameters
    ----------
    workload : Workload
        What is stacked.
    budget : int or None
        Bytes that one chunk may take; None for no limit.
    rows_cap : int, optional
        Most rows of a chunk: a cap, never a floor.
    in_strips : bool
        Whether the kernel goes strip by strip (a processor with a cache) or takes the chunk at once (a GPU).
    shares : int
        Workers that should each get a few chunks.

    Raises
    ------
    OutOfMemoryError
        Not even one pixel fits; the message says what would.
    """
    strip = _strip_pixels(workload) if in_strips else None
    wanted = _host_pixels(workload) if in_strips else _device_pixels(workload)
    pixels = min(wanted, workload.rows * workload.columns)
    if budget is not None:
        pixels, strip = _within_budget(workload, budget, pixels, strip)
        if pixels < 1:
            need = _chunk_bytes(workload, 1, strip and 1)
            raise OutOfMemoryError(
                f"one pixel of {workload.frames} frames takes {need:,} bytes; the memory budget is {budget:,} bytes"
            )
    rows = pixels // workload.columns
    if rows >= 1:
        rows = min(rows, workload.rows, rows_cap or workload.rows)
        if shares > 1:  # some four chunks a worker, so that none waits long for the last
            rows = max(1, min(rows, -(-workload.rows // (4 * shares))))
        columns = workload.columns
    else:
        rows, columns = 1, pixels
    if strip is not None:
        strip = min(strip, rows * columns)
    return ChunkPlan(
        workload=workload,
        rows_per_chunk=rows,
        columns_per_chunk=columns,
        strip_pixels=strip,
        chunk_bytes=_chunk_bytes(workload, rows * columns, strip),
    )


def _host_pixels(workload: Workload) -> int:
    """Give the pixels of a chunk on the host where memory is no matter."""
    least, most = CHUNK_PIXELS
    return max(least, min(most, CHUNK_SAMPLES // workload.frames))


def _device_pixels(workload: Workload) -> int:
    """Give the pixels of a device's chunk where memory is no matter."""
    least, most = DEVICE_CHUNK_PIXELS
    quarter = -(-workload.rows * workload.columns // 4)
    pinned = PINNED_BYTES // max(workload.sample_bytes * workload.channels, 1)
    return max(min(max(least, quarter), most, pinned), 1)


def _strip_pixels(workload: Workload) -> int:
    """Give the pixels of a strip where memory is no matter: few enough for the cache, enough for the calls."""
    low, high = STRIP_PIXELS
    return max(low, min(high, workload.strip_samples // workload.frames))


def _within_budget(workload: Workload, budget: int, pixels: int, strip: int | None) -> tuple[int, int | None]:
    """Give the pixels of a chunk, at most `pixels`, and of a strip, that fit the budget and cost least; 0 for none.

    The working set is a strip's, and what is read a chunk's, so a smaller strip leaves room for a larger chunk.
    """
    if strip is None:
        return min(pixels, _pixels_within(workload, budget, None)), None
    best, least = (0, strip), float("inf")
    while strip >= 1:
        chunk = min(pixels, _pixels_within(workload, budget, strip))
        if chunk >= 1:
            cost = STRIP_COST / min(strip, chunk) + CHUNK_COST / chunk
            if cost < least:
                best, least = (chunk, strip), cost
        strip //= 2
    return best


def _chunk_bytes(workload: Workload, pixels: int, strip: int | None) -> int:
    """Predict the working set of a chunk of so many pixels."""
    at_once = pixels if strip is None else min(pixels, strip)
    read = workload.buffers * workload.sample_bytes * workload.channels * pixels
    working = workload.working_bytes * workload.frames * at_once
    per_pixel = PIXEL_BYTES + MAP_BYTES * workload.maps
    if strip is None:
        per_pixel = DEVICE_PIXEL_BYTES + ANSWER_BYTES * workload.channels
    else:
        working += workload.pixel_bytes * at_once
    return read + working + per_pixel * pixels + _growth_bytes(workload, pixels)


def _growth_bytes(workload: Workload, pixels: int) -> int:
    """Predict what the growth of rejected clusters takes for a chunk of so many pixels."""
    if workload.reach == 0:
        return 0
    rows = min(-(-pixels // workload.columns) + 2 * workload.reach, workload.rows)
    columns = min(min(pixels, workload.columns) + 2 * workload.reach, workload.columns)
    return GROWTH_BYTES * rows * columns + rows * workload.columns


def _pixels_within(workload: Workload, budget: int, strip: int | None) -> int:
    """Give the most pixels whose working set fits the budget, by bisection."""
    low, high = 0, workload.rows * workload.columns
    while low < high:
        middle = (low + high + 1) // 2
        if _chunk_bytes(workload, middle, strip) <= budget:
            low = middle
        else:
            high = middle - 1
    return low
