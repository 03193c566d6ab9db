"""Measurements as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .comparing import ComparisonRow
from .gpu_cases import GpuRow
from .kernel import KernelRow
from .long_nights import NightRow
from .memory import MemoryRow
from .nddata import NddataRow
from .programs import OURS
from .scaling import ScalingRow

FLOOR = "floor"


def comparison_table(rows: Sequence[ComparisonRow]) -> str:
    """Return, for each workload and operation, ours beside the best peer and the floor; then every row."""
    floors = {row.workload: row for row in rows if row.program == FLOOR}
    lines = []
    for own in (row for row in rows if row.program == OURS):
        peers = [row for row in rows if (row.workload, row.operation) == (own.workload, own.operation)]
        peers = [row for row in peers if row.program not in (OURS, FLOOR) and not row.problem]
        best = min(peers, key=lambda row: row.wall, default=None)
        floor = floors[own.workload]
        lines.append(
            (
                own.workload,
                own.operation,
                f"{own.wall:.2f}",
                f"{own.cpu:.2f}",
                f"{own.samples / own.wall / 1e6:.0f}",
                f"{own.wall / floor.wall:.1f}",
                f"{own.peak / own.input_bytes:.2f}",
                "none" if best is None else f"{best.program} {best.wall:.2f}",
                "" if best is None else f"{best.wall / own.wall:.1f}",
                "" if best is None else f"{best.peak / best.input_bytes:.2f}",
            )
        )
    head = (
        "frames",
        "operation",
        "wall s",
        "CPU s",
        "Msamples/s",
        "x floor",
        "peak / input",
        "best peer, wall s",
        "times as fast",
        "its peak / input",
    )
    every = [
        (
            row.workload,
            row.operation,
            row.program,
            f"{row.wall:.2f}",
            f"{row.cpu:.2f}",
            f"{row.peak / 1e6:.0f}",
            row.problem,
        )
        for row in rows
    ]
    detail = _table(("frames", "operation", "program", "wall s", "CPU s", "peak MB", "problem"), every)
    return f"{_table(head, lines)}\n{detail}"


def kernel_table(rows: Iterable[KernelRow]) -> str:
    """Return the kernel's cost per sample."""
    lines = [
        (row.frames, row.case, f"{row.ns:.1f}", f"{row.yardstick:.2f}", f"{row.compiling * 1e3:.0f}") for row in rows
    ]
    return _table(("frames", "case", "ns per sample", "x sort", "compiled in ms"), lines)


def memory_table(rows: Iterable[MemoryRow]) -> str:
    """Return promises and peaks."""
    lines = [
        (
            row.case,
            f"{row.input_bytes / 1e6:.0f}",
            f"{row.promised / 1e6:.0f}",
            f"{row.peak / 1e6:.0f}",
            f"{row.promised / row.peak:.2f}",
        )
        for row in rows
    ]
    return _table(("case", "input MB", "promised MB", "measured MB", "promise / measured"), lines)


def scaling_table(rows: Iterable[ScalingRow]) -> str:
    """Return how time grows."""
    lines = [
        (
            row.varied,
            row.frames,
            f"{row.rows} x {row.columns}",
            row.workers,
            f"{row.wall:.2f}",
            f"{row.cpu_ns:.1f}",
            f"{row.peak / 1e6:.0f}",
        )
        for row in rows
    ]
    return _table(("varied", "frames", "pixels", "workers", "wall s", "CPU ns per sample", "peak MB"), lines)


def nddata_table(rows: Sequence[NddataRow]) -> str:
    """Return each combination's time and memory beside ccdproc's."""
    lines = []
    for row in rows:
        peers = (one for one in rows if (one.case, one.method, one.clip) == (row.case, row.method, row.clip))
        theirs = next((one for one in peers if one.program == "ccdproc"), None)
        beside = (
            ("", "") if theirs is None else (f"{row.cpu / theirs.cpu:.3f}", f"{row.peak / max(theirs.peak, 1):.2f}")
        )
        lines.append(
            (
                *(row.case, row.method, row.clip, row.program, f"{row.cpu:.3f}", beside[0]),
                *(f"{row.peak / 1e6:.0f}", beside[1], f"{row.result / 1e6:.0f}", f"{row.first_cpu:.2f}"),
            )
        )
    titles = (
        "case",
        "method",
        "clip",
        "program",
        "CPU s",
        "x ccdproc",
        "peak MB",
        "x ccdproc",
        "result MB",
        "first CPU s",
    )
    return _table(titles, lines)


def nights_table(rows: Iterable[NightRow]) -> str:
    """Return how preparing a raw night grows; a frame's share is what each takes more than in the row before."""
    lines, before = [], NightRow(frames=0, rows=0, columns=0, workers=0, wall=0, cpu=0, peak=0)
    for row in rows:
        more = row.frames - before.frames
        size = f"{row.rows} x {row.columns}"
        shares = f"{1e3 * (row.cpu - before.cpu) / more:.1f}", f"{(row.peak - before.peak) / more / 1e3:.0f}"
        lines.append(
            (row.frames, size, row.workers, f"{row.wall:.1f}", f"{row.cpu:.1f}", f"{row.peak / 1e6:.0f}", *shares)
        )
        before = row
    return _table(("frames", "pixels", "workers", "wall s", "CPU s", "peak MB", "CPU ms a frame", "kB a frame"), lines)


def gpu_table(rows: Sequence[GpuRow]) -> str:
    """Tell what was found of a card, and how many checks failed."""
    lines = [
        (row.part, row.what, row.found, row.beside, f"FAILED: {row.problem}" if row.problem else "") for row in rows
    ]
    failed = sum(bool(row.problem) for row in rows)
    verdict = f"{failed} of {len(rows)} rows FAILED" if failed else f"{len(rows)} rows, nothing failed"
    seconds = sum(row.seconds for row in rows)
    return f"{_table(('part', 'what', 'found', 'beside', ''), lines)}\n{verdict}, {seconds:.0f} s.\n"


def _table(head: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    rows = [head, ["---"] * len(head), *lines]
    return "".join("| " + " | ".join(map(str, row)) + " |\n" for row in rows)
