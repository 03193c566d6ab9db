"""Frames to measure with: a gradient of sky, noise, and bright pixels that only one frame has."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io import fits


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A group of frames."""

    name: str
    # Its shape; one channel is mono.
    frames: int
    rows: int
    columns: int
    channels: int = 1
    # "float32" or "uint16".
    dtype: str = "float32"
    # Every third frame has a satellite's trail.
    has_trails: bool = False
    # Each file has an extension VARIANCE too.
    has_variances: bool = False
    # The images are tile-compressed, ``.fits.fz``.
    is_compressed: bool = False

    @property
    def samples(self) -> int:
        """Samples of all frames."""
        return self.frames * self.rows * self.columns * self.channels

    @property
    def bytes(self) -> int:
        """Bytes of all frames' pixels."""
        return self.samples * (np.dtype(self.dtype).itemsize + 4 * self.has_variances)


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
    suffix = ".fits.fz" if workload.is_compressed else ".fits"
    paths = [target / f"frame_{index:05d}{suffix}" for index in range(1, workload.frames + 1)]
    missing = [index for index, path in enumerate(paths) if not path.exists()]
    for index, frame in zip(missing, _frames(workload, missing), strict=True):
        _write(workload, frame, paths[index])
    return paths


def _write(workload: Workload, frame: npt.NDArray[np.generic], path: Path) -> None:
    """Write one file, under its name only when it is whole."""
    hdus: list[Any] = [fits.PrimaryHDU(None if workload.is_compressed else frame)]
    if workload.is_compressed:
        hdus.append(fits.CompImageHDU(frame))
    if workload.has_variances:
        hdus.append(fits.ImageHDU(np.full(frame.shape, 400.0, np.float32), name="VARIANCE"))
    partial = path.with_name(path.name + ".partial")
    fits.HDUList(hdus).writeto(partial, overwrite=True)
    partial.rename(path)


def _frames(workload: Workload, indices: list[int]) -> Iterator[npt.NDArray[np.generic]]:
    """Make frames of shape ([channel,] row, column)."""
    shape = (workload.channels, workload.rows, workload.columns)
    sky = 1000.0 + 100.0 * np.linspace(0.0, 1.0, workload.columns, dtype=np.float32)
    for index in indices:
        random = np.random.default_rng(index)
        frame = random.standard_normal(shape, dtype=np.float32) * np.float32(20.0) + sky
        hits = random.integers(0, frame.size, max(1, frame.size // 2000))
        frame.reshape(-1)[hits] += np.float32(3000.0)
        if workload.has_trails and index % 3 == 0:
            rows = np.arange(workload.rows)
            for offset in range(5):  # a trail is some pixels wide
                frame[:, rows, (rows // 2 + 37 * index + offset) % workload.columns] += np.float32(900.0)
        pixels = frame if workload.channels > 1 else frame[0]
        yield pixels.astype(workload.dtype)
