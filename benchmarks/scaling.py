"""How time grows with the number of frames, with pixels, and with workers; and where it goes."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .measure import measure
from .programs import our_command
from .workloads import Workload, write_workload

# At most so many files are open at a time, whatever the number of frames.
_OPEN_FILES = 256


@dataclass(frozen=True, kw_only=True)
class ScalingRow:
    """One stack: how it was varied, seconds, nanoseconds of processor time per sample, and peak memory in bytes."""

    varied: str
    frames: int
    rows: int
    columns: int
    workers: int
    wall: float
    cpu: float
    cpu_ns: float
    peak: int


def measure_scaling(folder: Path, *, is_tiny: bool = False) -> list[ScalingRow]:
    """Vary the number of frames of 256 x 256 in 16 bits, with few open files and 300 MB; the pixels; the workers."""
    rows: list[ScalingRow] = []
    for frames in (5,) if is_tiny else (8, 32, 100, 400, 1000, 3000, 10_000):
        side = 16 if is_tiny else 256
        load = Workload(name="frames", frames=frames, rows=side, columns=side, dtype="uint16")
        rows.append(_row("frames", load, folder, ["--memory", "300MB"], 2))
    if is_tiny:
        return rows
    for side in (512, 1024, 2048, 4096):
        load = Workload(name="pixels", frames=32, rows=side, columns=side)
        rows.append(_row("pixels", load, folder, [], 2))
    for workers in (1, 2):
        load = Workload(name="workers", frames=32, rows=2048, columns=2048)
        rows.append(_row("workers", load, folder, [], workers))
    return rows


def _row(varied: str, load: Workload, folder: Path, options: Sequence[str], workers: int) -> ScalingRow:
    """Write the frames, stack them, remove them."""
    frames = write_workload(load, folder)
    fixed = ("--maps", "none", "--no-picture", "--workers", str(workers))
    stack = our_command(frames[0].parent, folder / "scaled.fits", *fixed, *options)
    limited = ["sh", "-c", f'ulimit -n {_OPEN_FILES}; exec "$@"', "sh", *stack] if shutil.which("sh") else stack
    taken = measure(limited)
    shutil.rmtree(frames[0].parent)
    return ScalingRow(
        varied=varied,
        frames=load.frames,
        rows=load.rows,
        columns=load.columns,
        workers=workers,
        wall=taken.wall,
        cpu=taken.cpu,
        cpu_ns=taken.cpu / load.samples * 1e9,
        peak=taken.peak,
    )
