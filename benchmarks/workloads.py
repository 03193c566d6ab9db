"""Frames to measure with: a gradient of sky, noise, and bright pixels that only one frame has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from astropy.io import fits

__all__ = ["FULL", "TINY", "Workload", "write_workload"]


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A group of frames.

    Parameters
    ----------
    name : str
        Its name in tables.
    frames, rows, columns, channels : int
        Its shape; one channel is mono.
    dtype : str
        "float32" or "uint16".
    """

    name: str
    frames: int
    rows: int
    columns: int
    channels: int = 1
    dtype: str = "float32"

    @property
    def samples(self) -> int:
        """Samples of all frames."""
        return self.frames * self.rows * self.columns * self.channels

    @property
    def bytes(self) -> int:
        """Bytes of all frames' pixels."""
        return self.samples * np.dtype(self.dtype).itemsize


FULL = (
    Workload(name="W1", frames=32, rows=2048, columns=2048),
    Workload(name="W2", frames=100, rows=1080, columns=1920),
    Workload(name="W4", frames=400, rows=1024, columns=1024),
)
TINY = (Workload(name="tiny", frames=7, rows=40, columns=60),)


def write_workload(workload: Workload, folder: Path) -> list[Path]:
    """Write the frames of a workload as FITS files ``frame_00001.fits``, ...; those that are there stay."""
    target = folder / f"{workload.name}_{workload.frames}x{workload.rows}x{workload.columns}"
    target.mkdir(parents=True, exist_ok=True)
    paths = [target / f"frame_{index:05d}.fits" for index in range(1, workload.frames + 1)]
    missing = [index for index, path in enumerate(paths) if not path.exists()]
    for index, frame in zip(missing, _frames(workload, missing), strict=True):
        fits.PrimaryHDU(frame).writeto(paths[index])
    return paths


def _frames(workload: Workload, indices: list[int]) -> Iterator[npt.NDArray[np.generic]]:
    """Make frames of shape ([channel,] row, column)."""
    shape = (workload.channels, workload.rows, workload.columns)
    sky = 1000.0 + 100.0 * np.linspace(0.0, 1.0, workload.columns, dtype=np.float32)
    for index in indices:
        random = np.random.default_rng(index)
        frame = random.standard_normal(shape, dtype=np.float32) * np.float32(20.0) + sky
        hits = random.integers(0, frame.size, max(1, frame.size // 2000))
        frame.reshape(-1)[hits] += np.float32(3000.0)
        pixels = frame if workload.channels > 1 else frame[0]
        yield pixels.astype(workload.dtype)
