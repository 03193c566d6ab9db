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

import importlib
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import ScratchError
from zemosaic_stack_core.frames.chunk import Chunk
from zemosaic_stack_core.kernel.regrow import GROWN, REJECTED
from zemosaic_stack_core.system.shared_file import SharedFile

_Bools = npt.NDArray[np.bool_]
_Bytes = npt.NDArray[np.uint8]


def growth_reach(radius: float, min_size: int) -> int:
    """Return how far beyond a chunk its growth looks, pixels; 0 without growth."""
    return 0 if radius <= 0.0 else math.floor(radius) + min_size - 1


@dataclass(frozen=True)
class RejectedFlags:
    """Where the rejected samples of a stack are noted: a file with a bit per sample, which worker processes share.

    Parameters
    ----------
    path : Path
        The file: for each channel, and each eight frames, a byte per pixel.
    frames, channels, rows, columns : int
        Shape of the stack.
    """

    path: Path
    frames: int
    channels: int
    rows: int
    columns: int

    @classmethod
    @contextmanager
    def made(
        cls, frames: int, channels: int, rows: int, columns: int, *, is_sparse: bool = False
    ) -> Iterator[RejectedFlags]:
        """Make the file, all zero; it goes with the context. See `SharedFile` for `is_sparse`."""
        importlib.import_module("scipy.ndimage")  # 17 MB, which workers that are forked after this share
        size = -(-frames // 8) * channels * rows * columns
        with SharedFile(size, is_sparse=is_sparse) as shared:
            yield cls(shared.path, frames, channels, rows, columns)

    @contextmanager
    def opened(self) -> Iterator[FlagFile]:
        """Open the file; one thread at a time uses what this gives."""
        with FlagFile(self) as file:
            yield file


class FlagFile:
    """The file of `RejectedFlags`, open; use as a context manager."""

    def __init__(self, flags: RejectedFlags) -> None:
        self._flags = flags
        self._bytes = -(-flags.frames // 8)
        self._file = flags.path.open("r+b")

    def __enter__(self) -> FlagFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, chunk: Chunk, channel: int, packed: _Bytes) -> None:
        """Note the rejected samples of a chunk.

        Parameters
        ----------
        chunk : Chunk
            Which pixels.
        channel : int
            Which channel.
        packed : array of shape (frame // 8, pixel), uint8
            Bit ``k`` of byte ``b`` is that of frame ``8*b + k``.

        Raises
        ------
        ScratchError
            The disk is full.
        """
        try:
            for index, plane in enumerate(packed):
                if not plane.any():  # the file is sparse
                    continue
                for row, values in enumerate(plane.reshape(chunk.stop - chunk.start, -1), start=chunk.start):
                    self._file.seek(self._place(channel, index, row, chunk.first))
                    self._file.write(values.tobytes())
            self._file.flush()
        except OSError as error:
            raise ScratchError(
                f"{tempfile.gettempdir()}: {error.strerror or error}; expected room there for a bit per sample (TMPDIR "
                "names another folder)"
            ) from error

    def _place(self, channel: int, index: int, row: int, column: int) -> int:
        """Return where a byte is in the file."""
        flags = self._flags
        return ((channel * self._bytes + index) * flags.rows + row) * flags.columns + column

    def _read(self, channel: int, index: int, window: Chunk) -> _Bytes:
        """Return the bytes of eight frames in a window, shape (row, column)."""
        flags = self._flags
        self._file.seek(self._place(channel, index, window.start, 0))
        rows = window.stop - window.start
        data = np.frombuffer(self._file.read(rows * flags.columns), np.uint8).reshape(rows, flags.columns)
        return data[:, window.first : window.last]

    def find_grown(self, chunk: Chunk, radius: float, min_size: int) -> _Bytes | None:
        """Find the samples of a chunk that clusters of at least `min_size` samples take along within `radius` pixels.

        Returns
        -------
        array of shape (frame, channel, pixel), uint8, or None
            0, `REJECTED` or `GROWN`; None where no sample is `GROWN`. A sample that is missing may be.
        """
        flags, reach = self._flags, growth_reach(radius, min_size)
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
