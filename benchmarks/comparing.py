"""Our program beside others: the same frames, one program after the other, in one run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .measure import Measurement, ProgramFailedError, measure
from .programs import OPERATIONS, READING, Program
from .workloads import Workload, write_workload


@dataclass(frozen=True, kw_only=True)
class ComparisonRow:
    """One program, one operation, one workload; see `Measurement` for `wall`, `cpu` and `peak`."""

    workload: str
    operation: str
    program: str
    samples: int
    input_bytes: int
    wall: float
    cpu: float
    peak: int
    problem: str = ""


def compare(
    workloads: Sequence[Workload],
    programs: Sequence[Program],
    folder: Path,
    *,
    operations: Sequence[str] = tuple(OPERATIONS),
    repeat: int = 2,
    report: bool = True,
) -> list[ComparisonRow]:
    """Stack every workload with every program that can do an operation, the programs in turn.

    The frames are written, read once so that they are in the system's cache, and removed. The best of `repeat` counts.
    """
    rows: list[ComparisonRow] = []
    for workload in workloads:
        frames = write_workload(workload, folder)
        if hasattr(os, "sync"):
            os.sync()  # what is still being written to the disk would slow the first programs down
        for path in frames:
            path.read_bytes()
        for operation in (READING, *operations):
            for program in programs:
                is_too_large = program.most_samples is not None and workload.samples > program.most_samples
                if operation in program.operations and not is_too_large:
                    rows.append(_row(workload, operation, program, frames, folder, repeat))
                    if report:
                        print(_line(rows[-1]), flush=True)
        for path in frames:
            path.unlink()
    return rows


def _row(
    workload: Workload, operation: str, program: Program, frames: list[Path], folder: Path, repeat: int
) -> ComparisonRow:
    """Measure one; what fails is a row that says why."""
    output = folder / "result.fits"
    for old in folder.glob("result.*"):
        old.unlink()
    problem, taken = "", Measurement(wall=float("nan"), cpu=float("nan"), peak=0)
    try:
        taken = measure(program.command(operation, frames, output), repeat=repeat)
        if not any(folder.glob("result*.[fn]*")):
            problem = "it wrote nothing"
    except ProgramFailedError as error:
        problem = str(error)
    return ComparisonRow(
        workload=workload.name,
        operation=operation,
        program=program.name,
        samples=workload.samples,
        input_bytes=workload.bytes,
        wall=taken.wall,
        cpu=taken.cpu,
        peak=taken.peak,
        problem=problem,
    )


def _line(row: ComparisonRow) -> str:
    """Return a row in one line."""
    where = f"{row.workload:5} {row.operation:18} {row.program:16}"
    return f"{where} {row.wall:7.2f} s wall {row.cpu:7.2f} s CPU {row.peak / 1e6:7.0f} MB {row.problem}"
