"""The memory promise: the peak that ``--dry-run`` predicts, beside the peak that is measured."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from zemosaic_stack_core.options import REJECTIONS

from .measure import measure
from .workloads import Workload, write_workload

__all__ = ["MemoryRow", "measure_memory"]

_MONO = Workload(name="mono", frames=60, rows=1200, columns=1600)
_COLOR = Workload(name="color", frames=24, rows=800, columns=1000, channels=3)
_SMALL_FILES = Workload(name="16-bit", frames=60, rows=1200, columns=1600, dtype="uint16")


@dataclass(frozen=True, kw_only=True)
class MemoryRow:
    """One stack.

    Parameters
    ----------
    case : str
        What is stacked and how.
    input_bytes, promised, peak : int
        Bytes of the frames' pixels, of the prediction, of the measurement.
    """

    case: str
    input_bytes: int
    promised: int
    peak: int


def measure_memory(folder: Path, *, is_tiny: bool = False) -> list[MemoryRow]:
    """Measure every rule, color, weights per sample, maps, a limit, and 1 to 4 workers."""
    mono, color, small = _MONO, _COLOR, _SMALL_FILES
    if is_tiny:
        mono, color = (Workload(name=w.name, frames=5, rows=30, columns=40, channels=w.channels) for w in (mono, color))
    cases: list[tuple[str, Workload, list[str]]] = []
    rules = ("kappa_sigma",) if is_tiny else REJECTIONS
    for rule in rules:
        cases.append(
            (rule, mono, ["--rejection", rule, *(["--gain", "1", "--read-noise", "10"] * (rule == "noise_clip"))])
        )
    cases.append(("color, all maps", color, ["--maps", "all"]))
    if not is_tiny:
        cases += [(f"{workers} workers", mono, ["--workers", str(workers)]) for workers in (1, 2, 3, 4)]
        cases += [
            ("16 bit", small, []),
            ("all maps", mono, ["--maps", "all"]),
            ("normalized", mono, ["--normalization", "linear_fit", "--weighting", "noise_variance"]),
            ("color, normalized", color, ["--normalization", "linear_fit", "--maps", "all"]),
            ("weights per sample", mono, ["--radial-feather-fraction", "0.8"]),
            ("weights per sample, color, all maps", color, ["--radial-feather-fraction", "0.8", "--maps", "all"]),
            ("median", mono, ["--rejection", "none", "--combine", "median"]),
            ("--memory 150MB", mono, ["--memory", "150MB"]),
            ("--memory 60MB, 4 workers", mono, ["--memory", "60MB", "--workers", "4"]),
        ]
    return [_row(case, workload, options, folder) for case, workload, options in cases]


def _row(case: str, workload: Workload, options: list[str], folder: Path) -> MemoryRow:
    """Predict, run, and measure."""
    frames = write_workload(workload, folder)
    command = [sys.executable, "-m", "zemosaic_worker", "stack", str(frames[0].parent), "-o",
               str(folder / "memory.fits"), "--overwrite", "--backend", "cpu", *options]  # fmt: skip
    said = subprocess.run([*command, "--dry-run", "--json"], check=True, capture_output=True, text=True)
    promised = int(json.loads(said.stdout)["predicted_peak_bytes"])
    peak = measure(command, repeat=0).peak
    return MemoryRow(case=case, input_bytes=workload.bytes, promised=promised, peak=peak)
