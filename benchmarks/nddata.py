"""Beside ccdproc, which is run where it is installed: `Combiner` and `combine`, and `stack` with the same answers."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits

from .measure import ProgramFailedError

PROGRAMS = ("ccdproc", "nddata", "stack")
METHODS = ("average", "median")
CLIPS = ("sigma clip", "none")


@dataclass(frozen=True, kw_only=True)
class NddataRow:
    """One combination by one program, in a process of its own that has done a small one before."""

    # "arrays": in memory; "files": on disk, with a limit of memory.
    case: str
    method: str
    clip: str
    program: str
    # Processor seconds, the best of the repetitions; and of the small one, with whatever is compiled or imported.
    cpu: float
    first_cpu: float
    # Bytes at most beyond those before, and those of the result.
    peak: int
    result: int


def measure_nddata(folder: Path, *, repeat: int = 2, is_tiny: bool = False) -> list[NddataRow]:
    """Combine 20 frames of 1024 x 1024 float32 in memory, and of 2048 x 2048 uint16 in files with 30 MB."""
    names = [name for name in PROGRAMS if name != "ccdproc" or importlib.util.find_spec(name) is not None]
    rows = []
    for case, side, dtype in (("arrays", 1024, "float32"), ("files", 2048, "uint16")):
        frames, side = (3, 32) if is_tiny else (20, side)
        paths = _write(folder / f"nddata_{case}", frames, side, dtype)
        cases = [(method, clip, program) for method in METHODS for clip in CLIPS for program in names]
        if is_tiny:
            cases = cases[: len(names)] if case == "arrays" else cases[-1:]
        rows += [_row(paths[0].parent, case, *one, repeat) for one in cases]
        for path in paths:
            path.unlink()
    return rows


def _write(folder: Path, frames: int, side: int, dtype: str) -> list[Path]:
    """Write frames of noise with an outlier in every thousandth sample."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    paths = [folder / f"{index:03d}.fits" for index in range(frames)]
    for path in paths:
        values = rng.normal(1000.0, 10.0, (side, side))
        values[rng.random(values.shape) < 1e-3] += 500.0
        fits.writeto(path, values.astype(dtype), overwrite=True)
    return paths


def _row(folder: Path, case: str, method: str, clip: str, program: str, repeat: int) -> NddataRow:
    """Measure one combination."""
    script = str(Path(__file__).with_name("nddata_run.py"))
    command = [sys.executable, "-W", "ignore", script, str(folder), case, method, clip, program, str(repeat)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise ProgramFailedError(f"{program}: exit code {done.returncode}: {done.stderr.strip().splitlines()[-1]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return NddataRow(case=case, method=method, clip=clip, program=program, **found)
