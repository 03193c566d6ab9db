"""Measure this program, beside the peers that are installed: ``python -m benchmarks --help``."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from .comparing import compare
from .gpu import measure_gpu
from .gpu_cases import FULL as FULL_CARD
from .gpu_cases import QUICK as QUICK_CARD
from .gpu_cases import TINY as TINY_CARD
from .gpu_cases import GpuRow
from .kernel import measure_kernel
from .long_nights import measure_long_nights
from .memory import measure_memory
from .nddata import measure_nddata
from .programs import installed_programs
from .scaling import measure_scaling
from .tables import comparison_table, gpu_table, kernel_table, memory_table, nddata_table, nights_table, scaling_table
from .workloads import FULL, TINY

PARTS = ("compare", "kernel", "memory", "nddata", "nights", "scaling")
# Proves and times a card; only by its name.
GPU = "gpu"


def main(arguments: list[str] | None = None) -> int:
    """Measure what is asked for; write one JSON and one Markdown file. Return 1 where a check of a card failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"some of {', '.join(PARTS)} (default: all), or {GPU}")
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmark_results"), help="folder for the tables")
    parser.add_argument("--data", type=Path, help="folder for frames, 2 GB (default: a temporary one)")
    parser.add_argument("--only", metavar="NAME", help="one workload of the comparison: W1, W2 or W4")
    parser.add_argument("--repeat", type=int, default=2, help="the best of so many times counts")
    parser.add_argument("--quick", action="store_true", help=f"{GPU}: less of everything, in two minutes")
    parser.add_argument("--tiny", action="store_true", help="a few small frames: does it run at all?")
    given = parser.parse_args(arguments)
    unknown = sorted({*given.parts} - {*PARTS, GPU})
    if unknown:
        parser.error(f"{unknown[0]}: no such part; expected some of {', '.join((*PARTS, GPU))}")
    if given.data is not None:
        return _measure(given, given.data)
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        return _measure(given, Path(folder))


def _measure(arguments: argparse.Namespace, folder: Path) -> int:
    """Measure with frames in `folder`."""
    parts = arguments.parts or list(PARTS)
    found: dict[str, Any] = {"machine": _machine()}
    texts: list[str] = [", ".join(f"{name} {value}" for name, value in found["machine"].items()) + "\n"]
    if "compare" in parts:
        if arguments.tiny:
            rows = compare(TINY, installed_programs()[:3], folder, operations=("kappa-sigma",), repeat=1)
        else:
            workloads = [workload for workload in FULL if arguments.only in (None, workload.name)]
            rows = compare(workloads, installed_programs(), folder, repeat=arguments.repeat)
        found["compare"] = [asdict(row) for row in rows]
        texts.append(comparison_table(rows))
    if "kernel" in parts:
        kernel = measure_kernel(pixels=256 if arguments.tiny else 1 << 20, repeat=arguments.repeat)
        found["kernel"] = [asdict(row) for row in kernel]
        texts.append(kernel_table(kernel))
    if "memory" in parts:
        memory = measure_memory(folder, is_tiny=arguments.tiny)
        found["memory"] = [asdict(row) for row in memory]
        texts.append(memory_table(memory))
    if "nddata" in parts:
        nddata = measure_nddata(folder, repeat=arguments.repeat, is_tiny=arguments.tiny)
        found["nddata"] = [asdict(row) for row in nddata]
        texts.append(nddata_table(nddata))
    if "nights" in parts:
        nights = measure_long_nights(folder, is_tiny=arguments.tiny)
        found["nights"] = [asdict(row) for row in nights]
        texts.append(nights_table(nights))
    if "scaling" in parts:
        scaling = measure_scaling(folder, is_tiny=arguments.tiny)
        found["scaling"] = [asdict(row) for row in scaling]
        texts.append(scaling_table(scaling))
    card: list[GpuRow] = []
    if GPU in parts:
        folder.mkdir(parents=True, exist_ok=True)

        def note(row: GpuRow) -> None:
            """Write what there is: a driver that crashes takes the rest along, and nothing of this."""
            card.append(row)
            found[GPU] = [asdict(row) for row in card]
            _write(arguments.output, found, [*texts, gpu_table(card)])
            print(f"{row.part}, {row.what}: {row.problem or 'done'}", file=sys.stderr, flush=True)

        size = TINY_CARD if arguments.tiny else QUICK_CARD if arguments.quick else FULL_CARD
        texts.append(gpu_table(measure_gpu(size, folder, note)))
    print(_write(arguments.output, found, texts))
    return int(any(row.problem for row in card))


def _write(folder: Path, found: dict[str, Any], texts: list[str]) -> str:
    """Write both files and return the text of the one for people."""
    folder.mkdir(parents=True, exist_ok=True)
    text = "\n".join(texts)
    (folder / "results.json").write_text(json.dumps(found, indent=1, default=str) + "\n")
    (folder / "results.md").write_text(text, encoding="utf-8")
    return text


def _machine() -> dict[str, object]:
    """Return where this was measured."""
    return {
        "cores": len(psutil.Process().cpu_affinity())
        if hasattr(psutil.Process, "cpu_affinity")
        else psutil.cpu_count(),
        "load": round(psutil.getloadavg()[0], 1),
        "machine": platform.machine(),
        "Python": platform.python_version(),
        "NumPy": np.__version__,
    }


if __name__ == "__main__":
    sys.exit(main())
