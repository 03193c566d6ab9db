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
from .kernel import measure_kernel
from .memory import measure_memory
from .programs import installed_programs
from .scaling import measure_scaling
from .tables import comparison_table, kernel_table, memory_table, scaling_table
from .workloads import FULL, TINY

PARTS = ("compare", "kernel", "memory", "scaling")


def main(arguments: list[str] | None = None) -> int:
    """Measure what is asked for; write one JSON and one Markdown file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"some of {', '.join(PARTS)} (default: all)")
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmark_results"), help="folder for the tables")
    parser.add_argument("--data", type=Path, help="folder for frames, 2 GB (default: a temporary one)")
    parser.add_argument("--only", metavar="NAME", help="one workload of the comparison: W1, W2 or W4")
    parser.add_argument("--repeat", type=int, default=2, help="the best of so many times counts")
    parser.add_argument("--tiny", action="store_true", help="a few small frames: does it run at all?")
    given = parser.parse_args(arguments)
    unknown = sorted(set(given.parts) - set(PARTS))
    if unknown:
        parser.error(f"{unknown[0]}: no such part; expected some of {', '.join(PARTS)}")
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
    if "scaling" in parts:
        scaling = measure_scaling(folder, is_tiny=arguments.tiny)
        found["scaling"] = [asdict(row) for row in scaling]
        texts.append(scaling_table(scaling))
    arguments.output.mkdir(parents=True, exist_ok=True)
    text = "\n".join(texts)
    (arguments.output / "results.json").write_text(json.dumps(found, indent=1) + "\n")
    (arguments.output / "results.md").write_text(text)
    print(text)
    return 0


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
