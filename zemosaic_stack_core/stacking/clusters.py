"""Growth of rejected clusters: a satellite's trail takes its faint edges with it.

A cluster is a set of rejected samples of one frame and one channel that touch each other at sides or corners. Around
those of at least ``grow_min_size`` samples, every sample of that frame and channel at most ``grow_radius`` pixels away
(between the pixels' centers) is rejected too.

A stack that grows makes two passes. The first notes which samples were rejected, one bit each, in a file; the second
finds the clusters around each chunk and combines those pixels again that lose a sample. Whether a cluster is large
enough shows within ``grow_min_size - 1`` pixels of each of its samples, however large it is: so a chunk needs to look
no further beyond its edges than that and the radius, and any chunk gives the same answer.
"""

from __future__ import annotations

import math
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from typing import Self

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import ScratchError
from zemosaic_stack_core.frames.chunk import Chunk
from zemosaic_stack_core.kernel.regrow import GROWN, REJECTED

_Bools = npt.NDArray[np.bool_]
_Bytes = npt.NDArray[np.uint8]


def growth_reach(radius: float, min_size: int) -> int:
    """Return how far beyond a chunk its growth looks, pixels; 0 without growth."""
    return 0 if radius <= 0.0 else math.floor(radius) + min_size - 1


class RejectedFlags:
    """Where the rejected samples of a stack are noted: a temporary file with a bit per sample, for several threads.

    For each channel, and each eight frames, it has a byte per pixel. Use as a context manager: the file goes with it.
    """

    def __init__(self, frames: int, channels: int, rows: int, columns: int) -> None:
        self.frames, self.channels, self.rows, self.columns = frames, channels, rows, columns
        self._bytes = -(-frames // 8)
        self._lock = threading.Lock()
        with _room_wanted():
            self._file = tempfile.TemporaryFile(prefix="zemosaic-", buffering=0)  # noqa: SIM115 - closed by __exit__
            self._file.truncate(self._bytes * channels * rows * columns)  # a sparse file: what is not written is zero

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, chunk: Chunk, channel: int, packed: _Bytes) -> None:
        """Note the rejected samples of a chunk: shape (frame // 8, pixel), uint8, frame ``8*b + k`` is bit k of byte b.

        Raises `ScratchError` where the disk is full.
        """
        with _room_wanted(), self._lock:
            for index, plane in enumerate(packed):
                if not plane.any():
                    continue
                for row, values in enumerate(plane.reshape(chunk.stop - chunk.start, -1), start=chunk.start):
                    self._file.seek(self._place(channel, index, row, chunk.first))
                    _write_all(self._file, values.tobytes())

    def _place(self, channel: int, index: int, row: int, column: int) -> int:
        """Return where a byte is in the file."""
        return ((channel * self._bytes + index) * self.rows + row) * self.columns + column

    def _read(self, channel: int, index: int, window: Chunk) -> _Bytes:
        """Return the bytes of eight frames in a window, shape (row, column)."""
        rows = window.stop - window.start
        data = np.empty((rows, self.columns), np.uint8)
        with self._lock:
            self._file.seek(self._place(channel, index, window.start, 0))
            view = data.reshape(-1).data
            while view:
                view = view[self._file.readinto(view) :]
        return data[:, window.first : window.last]

    def find_grown(self, chunk: Chunk, radius: float, min_size: int) -> _Bytes | None:
        """Find the samples of a chunk that clusters of at least `min_size` samples take along within `radius` pixels.

        Returns
        -------
        array of shape (frame, channel, pixel), uint8, or None
            0, `REJECTED` or `GROWN`; None where no sample is `GROWN`. A sample that is missing may be.
        """
        flags, reach = self, growth_reach(radius, min_size)
        window = Chunk(
            max(0, chunk.start - reach),
            min(flags.rows, chunk.stop + reach),
            max(0, chunk.first - reach),
            min(flags.columns, chunk.last + reach),
        )
        inside = (
            slice(chunk.start - window.start, chunk.stop - window.start),
            slice(chunk.first - window.first, chunk.last - window.first),
        )
        codes = np.zeros((flags.frames, flags.channels, chunk.pixels), np.uint8)
        has_grown = False
        for channel in range(flags.channels):
            for index in range(self._bytes):
                packed = self._read(channel, index, window)
                seen = int(np.bitwise_or.reduce(packed, axis=None))
                for frame in range(8 * index, min(8 * index + 8, flags.frames)):
                    bit = 1 << frame % 8
                    if not seen & bit:
                        continue
                    rejected = (packed & np.uint8(bit)) != 0
                    of_frame = codes[frame, channel]
                    of_frame[rejected[inside].reshape(-1)] = REJECTED
                    core = large_clusters(rejected, min_size)
                    if core is None:
                        continue
                    grown = dilated(core, radius)[inside] & ~rejected[inside]
                    of_frame[grown.reshape(-1)] = GROWN
                    has_grown = has_grown or bool(grown.any())
        return codes if has_grown else None


@contextmanager
def _room_wanted() -> Iterator[None]:
    """Turn a disk that is full into one line that says what to do."""
    try:
        yield
    except OSError as error:
        raise ScratchError(
            f"{tempfile.gettempdir()}: {error.strerror or error}; expected room there for a bit per sample (TMPDIR "
            "names another folder)"
        ) from error


def _write_all(file: FileIO, data: bytes) -> None:
    """Write all of some bytes where a file stands."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def large_clusters(rejected: _Bools, min_size: int) -> _Bools | None:
    """Return the samples that are in clusters of at least so many, shape (row, column); None where there is none.

    `rejected` are the rejected samples of one frame; those that touch at sides or corners are of one cluster.
    """
    if min_size == 1:
        return rejected
    if np.count_nonzero(rejected) < min_size:
        return None
    from scipy import ndimage  # 40 ms that other stacks do not need

    labels, _ = ndimage.label(rejected, np.ones((3, 3), np.bool_), output=np.int32)
    is_large = np.bincount(labels[rejected]) >= min_size
    is_large[0] = False
    return is_large[labels] if is_large.any() else None


def dilated(core: _Bools, radius: float) -> _Bools:
    """Return where a true value of `core`, shape (row, column), is at most `radius` pixels away, center to center."""
    grown, wide, width = core.copy(), core.copy(), 0
    for down in range(math.floor(radius), -1, -1):  # the disk's rows, the narrowest first
        half = math.isqrt(math.floor(radius * radius - down * down))
        while width < half:
            width += 1
            wide[:, width:] |= core[:, :-width]
            wide[:, :-width] |= core[:, width:]
        if down < len(core):
            grown[down:] |= wide[: len(core) - down]
            grown[: len(core) - down] |= wide[down:]
    return grown
