"""From settings to a stack, on the backend that was asked for: what commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from zemosaic_stack_core.command_line.arguments import Settings
from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.gpu.auto import stack_tile
from zemosaic_stack_core.gpu.phase3_gpu import Phase3Gpu
from zemosaic_stack_core.options import check_maps
from zemosaic_stack_core.per_frame.weighting import read_weights_csv
from zemosaic_stack_core.stacking.job import StackRequest
from zemosaic_stack_core.stacking.limits import Limits, read_limits
from zemosaic_stack_core.stacking.telemetry import Telemetry
from zemosaic_stack_core.system.memory import usable_cores
from zemosaic_stack_core.zemosaic.parallel_plan import (
    ParallelPlan,
    auto_tune_parallel_plan,
    detect_parallel_capabilities,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from zemosaic_stack_core.frames.group import FrameGroup
    from zemosaic_stack_core.stacking.result import StackResult


def wants_gpu(arguments: argparse.Namespace, settings: Settings) -> bool:
    """Say whether the GPU is to be tried.

    Raises
    ------
    InvalidInputError
        The GPU is required by the arguments and forbidden by the configuration.
    """
    if arguments.backend == "gpu" and not settings.use_gpu:
        raise InvalidInputError(f"--backend gpu, but {arguments.config} forbids the GPU; expected one or the other")
    return arguments.backend != "cpu" and settings.use_gpu


def read_compute_limits(arguments: argparse.Namespace, settings: Settings, group: FrameGroup | None = None) -> Limits:
    """Return the limits of arguments and configuration; what the arguments say comes first.

    Without a group, for stacks of any size, the configuration says nothing of rows.
    """
    use_gpu = wants_gpu(arguments, settings)
    rows = arguments.rows_per_chunk
    plan: ParallelPlan | None = None
    if settings.parallel:
        plan = auto_tune_parallel_plan(
            "stack_master_tiles",
            None if group is None else (group.rows, group.columns),
            1 if group is None else len(group.sources),
            4 if group is None else 4 * group.channels,
            settings.parallel,
            detect_parallel_capabilities(probe_gpu=use_gpu),
        )
    limits = read_limits(plan, workers=arguments.workers, memory_limit=arguments.memory)
    return replace(
        limits,
        most_workers=limits.most_workers or usable_cores(),
        rows_per_chunk=rows or limits.rows_per_chunk,
        use_gpu=use_gpu,
        gpu_rows_per_chunk=rows or limits.gpu_rows_per_chunk,
    )


def table_weights(
    arguments: argparse.Namespace, group: FrameGroup, names: list[str] | None = None
) -> npt.NDArray[np.float64] | None:
    """Return the weights of the table that ``--weights`` names, None without one.

    `names` are those in the table where they are not the frames' own: raw frames are stacked under another name.
    """
    if arguments.weights is None:
        return None
    return read_weights_csv(arguments.weights, names or [source.name for source in group.sources])


def compute_stack(
    arguments: argparse.Namespace,
    settings: Settings,
    group: FrameGroup,
    *,
    maps: tuple[str, ...],
    progress: Callable[[int, int], None],
    names: list[str] | None = None,
) -> StackResult:
    """Stack on the backend that the arguments ask for.

    Raises
    ------
    ZemosaicError
        As `zemosaic_stack_core.gpu.auto.stack_auto`.
    """
    limits = read_compute_limits(arguments, settings, group)
    weights = table_weights(arguments, group, names)
    request = StackRequest(options=settings.options, maps=check_maps(maps), weights=weights)
    gpu = Phase3Gpu(limits, is_required=arguments.backend == "gpu") if limits.use_gpu else None
    try:
        return stack_tile(group, request, gpu, limits, Telemetry(progress=progress))
    finally:
        if gpu is not None:
            gpu.close()
