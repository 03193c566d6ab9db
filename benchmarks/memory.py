"""The memory promise: the peak that ``--dry-run`` predicts, beside the peak that is measured."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from zemosaic_stack_core.options import REJECTIONS

from .measure import measure
from .programs import our_command
from .workloads import Workload, write_workload

_MONO = Workload(name="mono", frames=60, rows=1200, columns=1600)
_COLOR = Workload(name="color", frames=24, rows=800, columns=1000, channels=3)
_SMALL_FILES = Workload(name="16-bit", frames=60, rows=1200, columns=1600, dtype="uint16")
_TRAILS = Workload(name="trails", frames=60, rows=1200, columns=1600, has_trails=True)
_VARIANCES = Workload(name="variances", frames=40, rows=1200, columns=1600, has_variances=True)
_COMPRESSED = Workload(name="compressed", frames=60, rows=1200, columns=1600, dtype="uint16", is_compressed=True)
_TINY_COLOR = Workload(name="tiny-color", frames=5, rows=30, columns=40, channels=3)
_TINY_ALL = Workload(
    name="tiny-all", frames=5, rows=30, columns=40, has_trails=True, has_variances=True, is_compressed=True
)
_GROWTH = ["--grow-radius", "2"]
_WITH_VARIANCES = ["--variance-extension", "VARIANCE"]


@dataclass(frozen=True, kw_only=True)
class MemoryRow:
    """One stack."""

    # What is stacked and how.
    case: str
    # Bytes of the frames' pixels, of the prediction, of the measurement.
    input_bytes: int
    promised: int
    peak: int


def measure_memory(folder: Path, *, is_tiny: bool = False) -> list[MemoryRow]:
    """Measure every rule, growth, color, weights and variances of samples, maps, files, limits, and 1 to 4 workers."""
    if is_tiny:
        cases = [
            ("color, all maps", _TINY_COLOR, ["--maps", "all"]),
            ("growth, variances, compressed", _TINY_ALL, [*_GROWTH, *_WITH_VARIANCES, "--maps", "variance"]),
        ]
    else:
        cases = [(rule, _MONO, ["--rejection", rule, *_noise_of(rule)]) for rule in REJECTIONS]
        cases.append(("color, all maps", _COLOR, ["--maps", "all"]))
        cases += [(f"{workers} workers", _MONO, ["--workers", str(workers)]) for workers in (1, 2, 3, 4)]
        cases += [
            ("16 bit", _SMALL_FILES, []),
            ("all maps", _MONO, ["--maps", "all"]),
            ("normalized", _MONO, ["--normalization", "linear_fit", "--weighting", "noise_variance"]),
            ("color, normalized", _COLOR, ["--normalization", "linear_fit", "--maps", "all"]),
            ("weights per sample", _MONO, ["--radial-feather-fraction", "0.8"]),
            ("weights per sample, color, all maps", _COLOR, ["--radial-feather-fraction", "0.8", "--maps", "all"]),
            ("median", _MONO, ["--rejection", "none", "--combine", "median"]),
            ("--memory 150MB", _MONO, ["--memory", "150MB"]),
            ("--memory 60MB, 4 workers", _MONO, ["--memory", "60MB", "--workers", "4"]),
            ("growth, 1 worker", _TRAILS, [*_GROWTH, "--workers", "1"]),
            ("growth, 2 workers", _TRAILS, [*_GROWTH, "--workers", "2"]),
            ("growth, all maps, --memory 60MB", _TRAILS, [*_GROWTH, "--maps", "all", "--memory", "60MB"]),
            ("variance extensions", _VARIANCES, [*_WITH_VARIANCES, "--maps", "all"]),
            ("weights by variance", _VARIANCES, [*_WITH_VARIANCES, "--weighting", "inverse_variance"]),
            (".fits.fz", _COMPRESSED, []),
        ]
    return [_row(case, workload, options, folder) for case, workload, options in cases]


def _noise_of(rule: str) -> list[str]:
    """Return the arguments without which a rule does not know the noise."""
    return ["--gain", "1", "--read-noise", "10"] if rule == "noise_clip" else []


def _row(case: str, workload: Workload, options: list[str], folder: Path) -> MemoryRow:
    """Predict, run, and measure."""
    frames = write_workload(workload, folder)
    command = our_command(frames[0].parent, folder / "memory.fits", *options)
    said = subprocess.run([*command, "--dry-run", "--json"], check=True, capture_output=True, text=True)
    promised = int(json.loads(said.stdout)["predicted_peak_bytes"])
    peak = measure(command, repeat=0).peak
    return MemoryRow(case=case, input_bytes=workload.bytes, promised=promised, peak=peak)
