"""Prove and time a card: bits, failures, leaks, thousands of frames; times beside plain copies and beside the CPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from zemosaic_stack_core.backends import cupy_backend
from zemosaic_stack_core.gpu.doctor import diagnose_gpu

from .gpu_cases import Bench, GpuRow, Part, Size, carry_out
from .gpu_checks import bits, failures, leaks, thousands
from .gpu_times import bands, card, copies, programs, stacks

# With the seconds that each may take: together less than eight minutes.
PARTS = (
    Part("card", card, 5),
    Part("copies", copies, 10),
    Part("times", bands, 70),
    Part("programs", programs, 20),
    Part("bits", bits, 150),
    Part("failures", failures, 20),
    Part("leaks", leaks, 15),
    Part("stacks", stacks, 50),
    Part("thousands", thousands, 60),
)


def measure_gpu(size: Size, folder: Path, note: Callable[[GpuRow], None]) -> list[GpuRow]:
    """Run all parts on the current CUDA device; `note` gets each row as it is made.

    Without a device there is one row, which says why and what to do.
    """
    began = time.perf_counter()
    diagnosis = diagnose_gpu(size.doctor)  # in a process of its own: a driver may hang
    doctor = GpuRow(
        part="card",
        what="doctor",
        found=" ".join(diagnosis.lines),
        beside="",
        problem="" if diagnosis.usable else diagnosis.health.reason or "CPU and GPU differ",
        seconds=time.perf_counter() - began,
        figures={},
    )
    note(doctor)
    if diagnosis.health.memory is None:
        return [doctor]
    return [doctor, *carry_out(PARTS, Bench(backend=cupy_backend(), size=size, folder=folder), note)]
