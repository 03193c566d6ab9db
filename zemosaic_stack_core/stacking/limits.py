"""What a stack may take of the machine: workers, rows of a chunk, memory, the GPU."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.options import is_whole_number


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What of the machine a stack may take. Every size is a cap, never a floor; no number of the result depends on it.

    Parameters
    ----------
    workers : int or None
        Threads; None for as many as pay.
    most_workers : int or None
        Cap on as many as pay.
    memory_limit : int or None
        Bytes that the working sets of all workers take together; None for `chunk_bytes` each, or a quarter of what is
        free.
    chunk_bytes : int or None
        Bytes that the working set of one worker takes, where `memory_limit` is None.
    rows_per_chunk : int or None
        Most rows of a chunk.
    use_gpu : bool
        False forbids the GPU; True allows it where its health check passes.
    gpu_chunk_bytes, gpu_rows_per_chunk : int or None
        Working set and most rows of a chunk on the GPU.

    Raises
    ------
    InvalidInputError
        A number is not a whole one above 0.
    """

    workers: int | None = None
    most_workers: int | None = None
    memory_limit: int | None = None
    chunk_bytes: int | None = None
    rows_per_chunk: int | None = None
    use_gpu: bool = True
    gpu_chunk_bytes: int | None = None
    gpu_rows_per_chunk: int | None = None

    def __post_init__(self) -> None:
        for name in ("workers", "most_workers", "rows_per_chunk", "gpu_rows_per_chunk"):
            if (value := getattr(self, name)) is not None and not is_whole_number(value, 1):
                raise InvalidInputError(f"{name} is {value!r}; expected a whole number of at least 1")
        for name in ("memory_limit", "chunk_bytes", "gpu_chunk_bytes"):
            if (value := getattr(self, name)) is not None and not is_whole_number(value, 1):
                raise InvalidInputError(f"{name} is {value!r}; expected a whole number of bytes above 0")

    def shared_by(self, workers: int) -> Limits:
        """Return the limits of a stack that so many workers compute."""
        memory = self.memory_limit
        if memory is None and self.chunk_bytes is not None:
            memory = self.chunk_bytes * workers
        return Limits(workers=workers, memory_limit=memory, rows_per_chunk=self.rows_per_chunk)

    def on_gpu(self) -> Limits:
        """Return the limits of a stack on the GPU."""
        return Limits(workers=1, memory_limit=self.gpu_chunk_bytes, rows_per_chunk=self.gpu_rows_per_chunk)


NO_LIMITS = Limits()
ONE_WORKER = Limits(workers=1)

# A field of ZeMosaic's parallel plan, and what it limits here.
_OF_PLAN = {
    "cpu_workers": "most_workers",
    "max_chunk_bytes": "chunk_bytes",
    "rows_per_chunk": "rows_per_chunk",
    "gpu_rows_per_chunk": "gpu_rows_per_chunk",
    "gpu_max_chunk_bytes": "gpu_chunk_bytes",
}
# What a plan that is a dict calls the rows of a chunk on the CPU, and the working set of a chunk on either, in MiB.
_CPU_ROWS, _MEGABYTES = "cpu_rows_per_chunk", "max_chunk_mb"


def read_limits(plan: object, *, workers: int | None = None, memory_limit: int | None = None) -> Limits:
    """Return the limits that a parallel plan of ZeMosaic's sets, and those of the caller.

    Parameters
    ----------
    plan : ParallelPlan, mapping, object with attributes, Limits, or None
        ``cpu_workers``, ``max_chunk_bytes``, ``rows_per_chunk``, ``use_gpu``, ``gpu_rows_per_chunk`` and
        ``gpu_max_chunk_bytes`` are read, and where these have none ``cpu_rows_per_chunk`` and ``max_chunk_mb``; what is
        absent or None, or a size of 0 and less, is no limit.
    workers, memory_limit : int, optional
        As of `Limits`.

    Returns
    -------
    Limits
        Validated.

    Raises
    ------
    InvalidInputError
        A size is not a whole number.
    """
    if isinstance(plan, Limits):
        limits = plan
    else:
        use_gpu = setting(plan, "use_gpu")
        sizes = {ours: size_or_none(theirs, setting(plan, theirs)) for theirs, ours in _OF_PLAN.items()}
        sizes["rows_per_chunk"] = sizes["rows_per_chunk"] or size_or_none(_CPU_ROWS, setting(plan, _CPU_ROWS))
        chunk_bytes = _bytes_of_megabytes(setting(plan, _MEGABYTES))
        for name in ("chunk_bytes", "gpu_chunk_bytes"):
            sizes[name] = sizes[name] or chunk_bytes
        limits = Limits(use_gpu=use_gpu is None or bool(use_gpu), **sizes)
    return replace(
        limits,
        workers=limits.workers if workers is None else workers,
        memory_limit=limits.memory_limit if memory_limit is None else memory_limit,
    )


def _bytes_of_megabytes(value: Any) -> int | None:
    """Return a size in MiB, whole or not, as bytes; None for None and for 0 and less."""
    try:
        size = None if value is None else float(value) * 2**20
        return None if size is None or size <= 0 else max(int(size), 1)
    except (TypeError, ValueError, OverflowError):
        raise InvalidInputError(f"{_MEGABYTES} of the parallel plan is {value!r}; expected a number or None") from None


def setting(settings: object, name: str) -> Any:
    """Return an item of a mapping or an attribute of an object, None where it is absent."""
    return settings.get(name) if isinstance(settings, Mapping) else getattr(settings, name, None)


def size_or_none(name: str, value: Any) -> int | None:
    """Return a positive integer; None for None and for 0 and less, which existing programs use for "no limit"."""
    if value is None:
        return None
    try:
        size = float(value)
        is_integer = math.isfinite(size) and size == math.floor(size)
    except (TypeError, ValueError):
        is_integer = False
    if not is_integer:
        raise InvalidInputError(f"{name} of the parallel plan is {value!r}; expected a whole number or None")
    return int(size) if size > 0 else None
