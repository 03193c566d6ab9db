"""What a stack may take: workers, rows of a chunk, memory."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zemosaic_stack_core.errors import InvalidInputError


@dataclass(frozen=True)
class ParallelPlan:
    """What of the machine a stack may use. Every size is a cap, never a floor.

    Parameters
    ----------
    cpu_workers : int or None
        Worker processes; None for as many as pay.
    use_memmap : bool
        Frames are worth leaving in files: together they exceed the memory budget.
    max_chunk_bytes : int or None
        Largest working set of one worker.
    rows_per_chunk : int or None
        Most rows of one band on the CPU.
    tiles_per_chunk : int or None
        Kept for programs that set it; no number of this library depends on it.
    use_gpu : bool
        False forbids the GPU; True allows it where its health check passes.
    gpu_rows_per_chunk : int or None
        Most rows of one band on the GPU.
    gpu_max_chunk_bytes : int or None
        Largest working set of one band on the GPU.
    """

    cpu_workers: int | None = None
    use_memmap: bool = False
    max_chunk_bytes: int | None = None
    rows_per_chunk: int | None = None
    tiles_per_chunk: int | None = None
    use_gpu: bool = True
    gpu_rows_per_chunk: int | None = None
    gpu_max_chunk_bytes: int | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in ("use_memmap", "use_gpu"):
                checked: Any = bool(value)
            else:
                checked = _size_or_none(field.name, value)
            object.__setattr__(self, field.name, checked)


def _size_or_none(name: str, value: Any) -> int | None:
    """Return a positive integer; None for None and for 0 and less, which existing programs use for "no limit"."""
    if value is None:
        return None
    try:
        size = float(value)
        is_whole = math.isfinite(size) and size == math.floor(size)
    except (TypeError, ValueError):
        is_whole = False
    if not is_whole:
        raise InvalidInputError(f"{name} of the parallel plan is {value!r}; expected a whole number or None")
    return int(size) if size > 0 else None


def read_plan(plan: object) -> ParallelPlan:
    """Return a plan in this library's own form.

    Parameters
    ----------
    plan : ParallelPlan, mapping, object with attributes, or None
        What is not there has its default; what is not a field of `ParallelPlan` is ignored.

    Returns
    -------
    ParallelPlan
        With all caps validated.

    Raises
    ------
    InvalidInputError
        A size is not a whole number.
    """
    if plan is None:
        return ParallelPlan()
    if isinstance(plan, ParallelPlan):
        return plan
    names = [field.name for field in dataclasses.fields(ParallelPlan)]
    if isinstance(plan, Mapping):
        found = {name: plan[name] for name in names if plan.get(name) is not None}
    else:
        found = {name: getattr(plan, name) for name in names if getattr(plan, name, None) is not None}
    return ParallelPlan(**found)
