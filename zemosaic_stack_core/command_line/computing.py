"""From arguments to a stack, on the backend that was asked for."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from zemosaic_stack_core.command_line.arguments import CARD, CommandOptions, check_backend
from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.gpu.auto import stack_tile
from zemosaic_stack_core.gpu.phase3_gpu import Phase3Gpu
from zemosaic_stack_core.options import check_maps
from zemosaic_stack_core.per_frame.choice import Choice, choose_options
from zemosaic_stack_core.per_frame.weighting import read_weights_csv
from zemosaic_stack_core.stacking.job import StackRequest
from zemosaic_stack_core.stacking.limits import Limits, read_limits
from zemosaic_stack_core.stacking.pictures import DRAWN_MAPS
from zemosaic_stack_core.stacking.telemetry import Telemetry
from zemosaic_stack_core.stacking.workers import choose_workers
from zemosaic_stack_core.system.memory import usable_cores
from zemosaic_stack_core.zemosaic.parallel_plan import (
    ParallelPlan,
    auto_tune_parallel_plan,
    detect_parallel_capabilities,
)

if TYPE_CHECKING:
    from zemosaic_stack_core.frames.group import FrameGroup
    from zemosaic_stack_core.stacking.result import StackResult


def read_compute_limits(
    arguments: argparse.Namespace, wanted: CommandOptions, group: FrameGroup | None = None
) -> Limits:
    """Return the limits of arguments and configuration; what the arguments say comes first.

    Without a group, for stacks of any size, the configuration says nothing of rows. Raises `InvalidInputError` where
    the arguments require the GPU and the configuration forbids it.
    """
    check_backend(arguments, wanted)
    use_gpu = arguments.backend != "cpu" and wanted.use_gpu
    rows = arguments.rows_per_chunk
    plan: ParallelPlan | None = None
    if wanted.parallel:
        plan = auto_tune_parallel_plan(
            "stack_master_tiles",
            None if group is None else (group.rows, group.columns),
            1 if group is None else len(group.sources),
            4 if group is None else 4 * group.channels,
            wanted.parallel,
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


def choose(arguments: argparse.Namespace, wanted: CommandOptions, group: FrameGroup, kind: str) -> Choice:
    """Return the options with those chosen that were left to the frames; `kind` is that of calibration frames."""
    workers = choose_workers(group, read_compute_limits(arguments, wanted, group), is_host=True)
    return choose_options(group, wanted.options, wanted.auto, kind=kind, workers=workers)


def computed_maps(arguments: argparse.Namespace) -> frozenset[str]:
    """Return the maps that are computed: those to be written, and those that the report draws."""
    return check_maps(arguments.maps) | (frozenset() if arguments.report is None else frozenset(DRAWN_MAPS))


def read_weights(given: str, names: list[str]) -> object:
    """Return the weights of a table for these frames, or the name of the card that has them."""
    return given.removeprefix(CARD) if given.startswith(CARD) else read_weights_csv(given, names)


def compute_stack(
    arguments: argparse.Namespace,
    wanted: CommandOptions,
    group: FrameGroup,
    names: list[str],
    choice: Choice,
    progress: Callable[[int, int], None],
) -> StackResult:
    """Stack frames as chosen; `names` are theirs in the table of weights, as the user knows them."""
    limits = read_compute_limits(arguments, wanted, group)
    weights = None if arguments.weights is None else read_weights(arguments.weights, names)
    request = StackRequest(
        options=choice.options, maps=computed_maps(arguments), weights=weights, statistics=choice.statistics
    )
    gpu = Phase3Gpu(limits, is_required=arguments.backend == "gpu") if limits.use_gpu else None
    try:
        result = stack_tile(group, request, gpu, limits, Telemetry(progress=progress))
    finally:
        if gpu is not None:
            gpu.close()
    if not np.isfinite(result.image).any():
        raise InvalidInputError(
            f"no pixel has a value: all samples of {group.sources[0].name} and the other frames are missing, masked or "
            "out of range; expected frames with some that count"
        )
    return result
