"""How much of the machine a stack may use: capabilities, and a plan made of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.stacking.limits import read_limits, setting, size_or_none
from zemosaic_stack_core.system.memory import available_memory, usable_cores

# `auto_tune_parallel_plan` asks for at least this much per chunk: below it the calls cost more than the work.
MIN_CHUNK_BYTES = 32 * 1024**2
# Part of the free memory that a plan leaves alone, whatever the configuration asks for.
RESERVED_MEMORY_FRACTION = 0.05
# ZeMosaic's settings that allow or forbid the GPU for stacking: the first that is there decides.
GPU_SWITCHES = ("stack_use_gpu", "use_gpu_stack", "use_gpu", "use_gpu_phase5")


@dataclass
class ParallelPlan:
    """What of the machine a stack may use. Every size is a cap, never a floor. ZeMosaic sets attributes of it.

    Parameters
    ----------
    cpu_workers : int or None
        Threads; None for as many as pay.
    use_memmap : bool
        Frames are worth leaving in files: together they exceed the memory budget.
    max_chunk_bytes : int or None
        Largest working set of one worker.
    rows_per_chunk : int or None
        Most rows of one chunk on the CPU.
    tiles_per_chunk : int or None
        Kept for programs that set it; no number of this library depends on it.
    use_gpu : bool
        False forbids the GPU; True allows it where its health check passes.
    gpu_rows_per_chunk : int or None
        Most rows of one chunk on the GPU.
    gpu_max_chunk_bytes : int or None
        Largest working set of one chunk on the GPU.
    """

    cpu_workers: int | None = None
    use_memmap: bool = False
    max_chunk_bytes: int | None = None
    rows_per_chunk: int | None = None
    tiles_per_chunk: int | None = None
    use_gpu: bool = True
    gpu_rows_per_chunk: int | None = None
    gpu_max_chunk_bytes: int | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("use_memmap", "use_gpu"):
            value = bool(value)
        elif name in self.__dataclass_fields__:
            value = size_or_none(name, value)
        super().__setattr__(name, value)


@dataclass(frozen=True)
class ParallelCapabilities:
    """What the machine has.

    Parameters
    ----------
    cpu_cores, cpu_logical_cores : int
        Physical cores, and logical ones that this process may run on.
    ram_total_bytes, ram_available_bytes : int
        Memory of the machine or of the container, and what of it can be had without swapping.
    gpu_available : bool
        The GPU passed its health check.
    gpu_name : str or None
        Name of the device.
    gpu_vram_total_bytes, gpu_vram_free_bytes : int or None
        Device memory, None without a GPU.
    """

    cpu_cores: int
    cpu_logical_cores: int
    ram_total_bytes: int
    ram_available_bytes: int
    gpu_available: bool = False
    gpu_name: str | None = None
    gpu_vram_total_bytes: int | None = None
    gpu_vram_free_bytes: int | None = None


def detect_parallel_capabilities(*, probe_gpu: bool = True) -> ParallelCapabilities:
    """Return what the machine has; the GPU's part comes from the health check, which is made once.

    Parameters
    ----------
    probe_gpu : bool
        False leaves the GPU alone and reports none.
    """
    import psutil

    logical = usable_cores()
    total, available = available_memory()
    name = vram_total = vram_free = None
    usable = False
    if probe_gpu:
        from zemosaic_stack_core.gpu.health import gpu_health

        health = gpu_health()
        usable = health.usable
        if health.memory is not None:
            name, vram_total, vram_free = health.memory.name, health.memory.total, health.memory.free
    return ParallelCapabilities(
        cpu_cores=min(psutil.cpu_count(logical=False) or max(logical // 2, 1), logical),
        cpu_logical_cores=logical,
        ram_total_bytes=total,
        ram_available_bytes=available,
        gpu_available=usable,
        gpu_name=name,
        gpu_vram_total_bytes=vram_total,
        gpu_vram_free_bytes=vram_free,
    )


def _setting(config: object, name: str, default: Any) -> Any:
    """Return a setting of a mapping or an object, the default where it is absent or None."""
    value = setting(config, name)
    return default if value is None else value


def allows_gpu(config: object) -> bool:
    """Return whether ZeMosaic's settings allow the GPU: what the first of `GPU_SWITCHES` says, True without any."""
    return next((bool(value) for name in GPU_SWITCHES if (value := setting(config, name)) is not None), True)


def _fraction(config: object, name: str, default: float) -> float:
    """Return a setting between 0.05 and 1."""
    value = _setting(config, name, default)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if math.isnan(number):
        raise InvalidInputError(f"{name} is {value!r}; expected a number from 0 to 1")
    return min(max(number, 0.05), 1.0)


def auto_tune_parallel_plan(
    kind: str,
    frame_shape: tuple[int, ...] | None,
    n_frames: int,
    bytes_per_pixel: int,
    config: object = None,
    caps: ParallelCapabilities | None = None,
) -> ParallelPlan:
    """Make a plan for a stack on this machine.

    Parameters
    ----------
    kind : str
        Phase of the program the plan is for, such as ``"stack_master_tiles"``; every kind is planned alike.
    frame_shape : tuple of int or None
        ``(row, column, ...)`` of the output; None or ``(0, 0)`` where it is not known yet: then no rows are planned.
    n_frames : int
        Frames of one stack.
    bytes_per_pixel : int
        Bytes of all channels of one pixel of one frame.
    config : mapping or object, optional
        ZeMosaic's settings: ``parallel_autotune_enabled`` (True; False keeps the GPU off),
        ``parallel_target_cpu_load`` (0.95), ``parallel_target_ram_fraction`` (0.9),
        ``parallel_gpu_vram_fraction`` (0.8), ``parallel_max_cpu_workers``
        (0: no cap), and ``gpu_rows_per_chunk``, ``gpu_max_chunk_bytes``, ``rows_per_chunk``, ``max_chunk_bytes``,
        which go into the plan as caps; and ``stack_use_gpu``, ``use_gpu_stack``, ``use_gpu``, ``use_gpu_phase5``, of
        which the first that is there allows or forbids the GPU.
    caps : ParallelCapabilities, optional
        What the machine has; looked up where not given.

    Returns
    -------
    ParallelPlan
        Sizes are caps: the stack still takes no more than what is free when it runs.

    Raises
    ------
    InvalidInputError
        A setting is not a number.
    """
    del kind
    caps = caps if caps is not None else detect_parallel_capabilities()
    given = read_limits(config)
    workers = _workers(config, caps)
    n_frames = max(int(n_frames), 1)
    if frame_shape is not None and min(frame_shape[:2], default=0) <= 0:
        frame_shape = None
    row_bytes = max(frame_shape[1] * int(bytes_per_pixel) * n_frames, 1) if frame_shape else None
    height = frame_shape[0] if frame_shape else 0
    free = caps.ram_available_bytes * (1 - RESERVED_MEMORY_FRACTION)
    ram_budget = int(min(caps.ram_total_bytes * _fraction(config, "parallel_target_ram_fraction", 0.9), free))
    chunk_bytes = _smaller(max(ram_budget // workers, MIN_CHUNK_BYTES), given.chunk_bytes)
    use_gpu = caps.gpu_available and allows_gpu(config) and bool(_setting(config, "parallel_autotune_enabled", True))
    gpu_chunk_bytes = _smaller(_gpu_bytes(config, caps), given.gpu_chunk_bytes) if use_gpu else None
    return ParallelPlan(
        cpu_workers=workers,
        use_memmap=row_bytes is not None and row_bytes * height > ram_budget,
        max_chunk_bytes=chunk_bytes,
        rows_per_chunk=_rows(chunk_bytes, row_bytes, height, given.rows_per_chunk),
        use_gpu=use_gpu,
        gpu_rows_per_chunk=_rows(gpu_chunk_bytes, row_bytes, height, given.gpu_rows_per_chunk) if use_gpu else None,
        gpu_max_chunk_bytes=gpu_chunk_bytes,
    )


def _workers(config: object, caps: ParallelCapabilities) -> int:
    """Return the number of workers that settings and cores allow, at least 1."""
    cap = size_or_none("parallel_max_cpu_workers", _setting(config, "parallel_max_cpu_workers", 0))
    workers = caps.cpu_logical_cores
    if _setting(config, "parallel_autotune_enabled", True):
        workers = round(workers * _fraction(config, "parallel_target_cpu_load", 0.95))
    return max(_smaller(workers, cap), 1)


def _gpu_bytes(config: object, caps: ParallelCapabilities) -> int:
    """Return the bytes of the device that a chunk may take, at least `MIN_CHUNK_BYTES`."""
    vram = int((caps.gpu_vram_total_bytes or 0) * _fraction(config, "parallel_gpu_vram_fraction", 0.8))
    if caps.gpu_vram_free_bytes is not None:
        vram = min(vram, int(caps.gpu_vram_free_bytes * (1 - RESERVED_MEMORY_FRACTION)))
    return max(vram, MIN_CHUNK_BYTES)


def _smaller(size: int, cap: int | None) -> int:
    """Return the size, or the cap where that is smaller."""
    return size if cap is None else min(size, cap)


def _rows(chunk_bytes: int | None, row_bytes: int | None, height: int, cap: int | None) -> int | None:
    """Return how many rows of all frames fit the chunk: at least one, at most the image and the cap."""
    if chunk_bytes is None or row_bytes is None:
        return cap
    return _smaller(max(min(chunk_bytes // row_bytes, height), 1), cap)
