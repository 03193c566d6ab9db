"""What a stack would take, before it is made: ``--dry-run``."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zemosaic_stack_core.backends import Backend, cupy_backend, numpy_backend
from zemosaic_stack_core.command_line.computing import computed_maps, read_compute_limits
from zemosaic_stack_core.gpu.health import gpu_health
from zemosaic_stack_core.options import StackOptions, check_maps
from zemosaic_stack_core.stacking.adviser import advise, rule_text
from zemosaic_stack_core.stacking.chunk_plan import ChunkPlan
from zemosaic_stack_core.stacking.job import StackRequest, count_planes, plan_job
from zemosaic_stack_core.stacking.result_planes import result_bytes
from zemosaic_stack_core.stacking.workers import settle_limits
from zemosaic_stack_core.system.quantities import count_text, size_text

if TYPE_CHECKING:
    from zemosaic_stack_core.command_line.arguments import CommandOptions
    from zemosaic_stack_core.frames.group import FrameGroup


# Resident memory of the program itself: Python, NumPy, astropy, and LLVM with a program that it compiled (80 MB).
PROCESS_BYTES = 155_000_000
# What SciPy's functions for connected samples take.
LABEL_BYTES = 40_000_000
# What a thread has of its own besides its chunk: buffers that rows are read through, gaps of its heap.
WORKER_BYTES = 4_000_000
# What is left of estimating the frames' statistics.
ESTIMATES_BYTES = 16_000_000


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a stack would take; its fields are those that ``--dry-run --json`` prints."""

    n_frames: int
    shape: tuple[int, ...]
    input_bytes: int
    backend: str
    device: str
    workers: int
    # How often each frame is read.
    passes: int
    # The frames' statistics are estimated before.
    estimates: bool
    chunks: int
    rows_per_chunk: int
    columns_per_chunk: int
    chunk_bytes: int
    predicted_peak_bytes: int
    maps: tuple[str, ...]
    rule: str
    options: StackOptions
    advice: tuple[str, ...]


def forecast_stack(arguments: argparse.Namespace, wanted: CommandOptions, group: FrameGroup) -> Forecast:
    """Return what a stack would take; raise `OutOfMemoryError` where not even one pixel fits the memory limit."""
    options = wanted.options
    group = group.within(options.reject_below, options.reject_above)
    limits = read_compute_limits(arguments, wanted, group)
    backend, device = _choose_backend(use_gpu=limits.use_gpu, is_required=arguments.backend == "gpu")
    limits = settle_limits(limits, group, backend) if backend.is_host else limits.on_gpu()
    request = StackRequest(options=options, maps=computed_maps(arguments))
    planes = count_planes(
        options,
        request.maps,
        has_weights=options.radial_feather_fraction is not None,
        has_variances=group.variances is not None or options.errors == "detector",
    )
    chunks = plan_job(group, request, backend, limits, planes=planes)
    estimates = (
        bool(wanted.auto) or options.normalization != "none" or options.weighting in ("noise_variance", "noise_fwhm")
    )
    workers = min(limits.workers or 1, len(chunks))
    sample_bytes = sum(source.dtype.itemsize for source in group.sources)
    return Forecast(
        n_frames=len(group.sources),
        shape=group.shape,
        input_bytes=sample_bytes * group.rows * group.columns * group.channels,
        backend=backend.name,
        device=device,
        workers=workers,
        passes=1 + estimates + (options.grow_radius > 0.0),
        estimates=estimates,
        chunks=len(chunks),
        rows_per_chunk=chunks.rows_per_chunk,
        columns_per_chunk=chunks.columns_per_chunk,
        chunk_bytes=chunks.chunk_bytes,
        predicted_peak_bytes=_predict_peak(chunks, workers, request, estimates=estimates),
        maps=tuple(sorted(check_maps(arguments.maps))),
        rule=rule_text(options),
        options=options,
        advice=tuple(advise(len(group.sources), options, is_thorough=True).lines),
    )


def _predict_peak(chunks: ChunkPlan, workers: int, request: StackRequest, *, estimates: bool) -> int:
    """Return the bytes that the program and its workers take at most."""
    load = chunks.footprint
    planes = result_bytes(request.maps, (load.channels, load.rows, load.columns), load.frames)
    if request.options.radial_feather_fraction is not None:
        planes += 4 * load.rows * load.columns
    program = PROCESS_BYTES + LABEL_BYTES * (load.reach > 0) + ESTIMATES_BYTES * estimates
    return program + planes + workers * (chunks.chunk_bytes + (WORKER_BYTES if workers > 1 else 0))


def _choose_backend(*, use_gpu: bool, is_required: bool) -> tuple[Backend, str]:
    """Return the backend that the stack would start on, and what it is in words."""
    if not use_gpu:
        return numpy_backend(), "CPU"
    health = gpu_health()
    if health.usable or is_required:  # required and not usable: this says why
        return cupy_backend(), "GPU" if health.memory is None else health.memory.name
    return numpy_backend(), f"CPU (GPU: {health.reason})"


def describe_forecast(forecast: Forecast) -> list[str]:
    """Return a forecast in a few lines for people."""
    options = forecast.options
    shape = " x ".join(map(str, forecast.shape))
    part = f"{forecast.rows_per_chunk} rows"
    if forecast.columns_per_chunk < forecast.shape[1]:
        part = f"{forecast.columns_per_chunk} pixels of a row"
    threads = count_text(forecast.workers, "thread")
    steps = ["for each frame's statistics"] if forecast.estimates else []
    steps += ["to stack"] + (["where rejected clusters grow"] if options.grow_radius > 0.0 else [])
    passes = "read once" if len(steps) == 1 else f"read {len(steps)} times: {', '.join(steps)}"
    return [
        f"frames       {forecast.n_frames} of {shape}, {size_text(forecast.input_bytes)}, {passes}",
        f"rule         {forecast.rule}, {options.combine}; normalization {options.normalization}, "
        f"weighting {options.weighting}",
        f"backend      {forecast.backend} on {forecast.device}, {threads}",
        f"chunks       {forecast.chunks} of {part}, {size_text(forecast.chunk_bytes)} each",
        f"maps         {', '.join(forecast.maps) or 'none'}",
        f"peak memory  {size_text(forecast.predicted_peak_bytes)} at most",
        *forecast.advice,
    ]
