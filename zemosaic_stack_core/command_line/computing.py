"""From settings to a stack, on the backend that was asked for: what commands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from zemosaic_stack_core.command_line.arguments import Settings
from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.gpu.auto import stack_auto
from zemosaic_stack_core.gpu.phase3_gpu import Phase3Gpu
from zemosaic_stack_core.per_frame.weighting import read_weights_csv
from zemosaic_stack_core.stacking.limits import ParallelPlan
from zemosaic_stack_core.system.memory import usable_cores
from zemosaic_stack_core.zemosaic.parallel_plan import auto_tune_parallel_plan, detect_parallel_capabilities

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


def parallel_plan(arguments: argparse.Namespace, settings: Settings, group: FrameGroup) -> ParallelPlan:
    """Return the caps of arguments and configuration."""
    rows = arguments.rows_per_chunk
    use_gpu = wants_gpu(arguments, settings)
    if not settings.parallel:
        return ParallelPlan(cpu_workers=usable_cores(), rows_per_chunk=rows, gpu_rows_per_chunk=rows, use_gpu=use_gpu)
    tuned = auto_tune_parallel_plan(
        "stack_master_tiles",
        (group.rows, group.columns),
        len(group.sources),
        4 * group.channels,
        settings.parallel,
        detect_parallel_capabilities(probe_gpu=use_gpu),
    )
    return ParallelPlan(
        cpu_workers=tuned.cpu_workers,
        max_chunk_bytes=tuned.max_chunk_bytes,
        rows_per_chunk=rows if rows is not None else tuned.rows_per_chunk,
        use_gpu=use_gpu,
        gpu_rows_per_chunk=rows if rows is not None else tuned.gpu_rows_per_chunk,
        gpu_max_chunk_bytes=tuned.gpu_max_chunk_bytes,
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
    plan = parallel_plan(arguments, settings, group)
    gpu = Phase3Gpu(plan, is_required=arguments.backend == "gpu") if plan.use_gpu else None
    try:
        result, _ = stack_auto(
            group,
            gpu=gpu,
            options=settings.options,
            weights=table_weights(arguments, group, names),
            maps=maps,
            plan=plan,
            workers=arguments.workers,
            memory_limit=arguments.memory,
            progress=progress,
        )
    finally:
        if gpu is not None:
            gpu.close()
    return result
