"""What a stack would take, before it is made: ``--dry-run``."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from zemosaic_stack_core.backends import Backend, cupy_backend, numpy_backend
from zemosaic_stack_core.command_line.computing import read_compute_limits
from zemosaic_stack_core.gpu.health import gpu_health
from zemosaic_stack_core.options import check_maps
from zemosaic_stack_core.stacking.adviser import advise, rule_text
from zemosaic_stack_core.stacking.chunk_plan import ChunkPlan
from zemosaic_stack_core.stacking.job import StackRequest, count_planes, plan_job
from zemosaic_stack_core.stacking.output_planes import output_bytes
from zemosaic_stack_core.stacking.workers import settle_limits
from zemosaic_stack_core.system.quantities import size_text

if TYPE_CHECKING:
    from zemosaic_stack_core.command_line.arguments import Settings
    from zemosaic_stack_core.frames.group import FrameGroup


PROCESS_BYTES = 60_000_000
"""Resident memory of the program itself: Python, NumPy and astropy."""
LABEL_BYTES = 17_000_000
"""What SciPy's functions for connected samples take."""
WORKER_BYTES = 14_000_000
"""What a worker process has of its own besides its chunk: pages of the program that it wrote to, gaps of its heap."""
ESTIMATES_BYTES = 16_000_000
"""What is left of estimating the frames' statistics."""


def predict_peak(
    plan: ChunkPlan,
    workers: int,
    maps: frozenset[str],
    *,
    has_radial_weight: bool = False,
    estimates: bool = False,
) -> int:
    """Return the bytes that the program and its workers take at most.

    Parameters
    ----------
    plan : ChunkPlan
        With the predicted working set of a chunk.
    workers : int
        Processes that have a chunk each.
    maps : frozenset of str
        Maps that are kept besides the image.
    has_radial_weight : bool
        Whether a radial weight is kept, a plane of float32.
    estimates : bool
        Whether the frames' statistics are estimated before.
    """
    load = plan.workload
    planes = output_bytes(maps, (load.channels, load.rows, load.columns))
    planes += 4 * load.rows * load.columns * has_radial_weight
    program = PROCESS_BYTES + LABEL_BYTES * (load.reach > 0) + ESTIMATES_BYTES * estimates
    return program + planes + workers * (plan.chunk_bytes + (WORKER_BYTES if workers > 1 else 0))


def make_plan(arguments: argparse.Namespace, settings: Settings, group: FrameGroup) -> dict[str, Any]:
    """Return the plan of a stack: what ``--dry-run --json`` prints.

    Raises
    ------
    OutOfMemoryError
        Not even one pixel of all frames fits the memory limit.
    """
    options = settings.options
    limits = read_compute_limits(arguments, settings, group)
    backend, device = _choose_backend(use_gpu=limits.use_gpu, is_required=arguments.backend == "gpu")
    limits = settle_limits(limits, group, backend) if backend.is_host else limits.on_gpu()
    maps = check_maps(arguments.maps)
    planes = count_planes(
        options,
        maps,
        has_weights=options.radial_feather_fraction is not None,
        has_variances=group.variances is not None or options.errors == "detector",
    )
    plan = plan_job(group, StackRequest(options=options, maps=maps), backend, limits, planes=planes)
    estimates = options.normalization != "none" or options.weighting in ("noise_variance", "noise_fwhm")
    workers = min(limits.workers or 1, len(plan))
    advice = advise(len(group.sources), options, is_thorough=True)
    return {
        "n_frames": len(group.sources),
        "shape": list(group.shape),
        "input_bytes": sum(source.dtype.itemsize for source in group.sources)
        * (group.rows * group.columns * group.channels),
        "backend": backend.name,
        "device": device,
        "workers": workers,
        "passes": 1 + estimates + (options.grow_radius > 0.0),
        "estimates": estimates,
        "chunks": len(plan),
        "rows_per_chunk": plan.rows_per_chunk,
        "columns_per_chunk": plan.columns_per_chunk,
        "chunk_bytes": plan.chunk_bytes,
        "predicted_peak_bytes": predict_peak(
            plan,
            workers,
            maps,
            has_radial_weight=options.radial_feather_fraction is not None,
            estimates=estimates,
        ),
        "maps": sorted(maps),
        "rule": rule_text(options),
        "options": asdict(options),
        "advice": list(advice.lines),
    }


def _choose_backend(*, use_gpu: bool, is_required: bool) -> tuple[Backend, str]:
    """Return the backend that the stack would start on, and what it is in words."""
    if not use_gpu:
        return numpy_backend(), "CPU"
    health = gpu_health()
    if health.usable or is_required:  # required and not usable: this says why
        return cupy_backend(), "GPU" if health.memory is None else health.memory.name
    return numpy_backend(), f"CPU (GPU: {health.reason})"


def describe_plan(plan: dict[str, Any]) -> list[str]:
    """Return a plan in a few lines for people."""
    shape = " x ".join(map(str, plan["shape"]))
    part = f"{plan['rows_per_chunk']} rows"
    if plan["columns_per_chunk"] < plan["shape"][1]:
        part = f"{plan['columns_per_chunk']} pixels of a row"
    processes = "1 process" if plan["workers"] == 1 else f"{plan['workers']} processes"
    steps = ["for each frame's statistics"] if plan["estimates"] else []
    steps += ["to stack"] + (["where rejected clusters grow"] if plan["options"]["grow_radius"] > 0.0 else [])
    passes = "read once" if len(steps) == 1 else f"read {len(steps)} times: {', '.join(steps)}"
    return [
        f"frames       {plan['n_frames']} of {shape}, {size_text(plan['input_bytes'])}, {passes}",
        f"rule         {plan['rule']}, {plan['options']['combine']}; normalization {plan['options']['normalization']}, "
        f"weighting {plan['options']['weighting']}",
        f"backend      {plan['backend']} on {plan['device']}, {processes}",
        f"chunks       {plan['chunks']} of {part}, {size_text(plan['chunk_bytes'])} each",
        f"maps         {', '.join(plan['maps']) or 'none'}",
        f"peak memory  {size_text(plan['predicted_peak_bytes'])} at most",
        *plan["advice"],
    ]
