"""Mode C: a tile on the GPU where it is sane, once more after a failure, and else whole on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from zemosaic_stack_core.backends import Backend, numpy_backend
from zemosaic_stack_core.backends.faults import walk_chain
from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.frames.group import FrameGroup, open_frames
from zemosaic_stack_core.gpu.phase3_gpu import NOT_PLANNED, Phase3Gpu
from zemosaic_stack_core.options import StackOptions, check_maps
from zemosaic_stack_core.per_frame.numbers import FrameNumbers
from zemosaic_stack_core.stacking.chunk_plan import ChunkPlan
from zemosaic_stack_core.stacking.job import StackJob, StackRequest, make_job, plan_job
from zemosaic_stack_core.stacking.limits import Limits, read_limits
from zemosaic_stack_core.stacking.result import StackResult, find_invalid
from zemosaic_stack_core.stacking.run import run_job
from zemosaic_stack_core.stacking.telemetry import QUIET, PcbTile, Progress, Telemetry
from zemosaic_stack_core.stacking.workers import settle_limits

GPU_SUMMARY = "phase3_gpu_chunk_summary"
CPU_SUMMARY = "phase3_cpu_chunk_summary"


def stack_auto(
    frames: Sequence[object] | FrameGroup,
    *,
    gpu: Phase3Gpu | None,
    options: StackOptions | None = None,
    weights: object | None = None,
    masks: Sequence[object] | None = None,
    variances: object | None = None,
    exposures: Sequence[float] | None = None,
    scales: object | None = None,
    offsets: object | None = None,
    maps: Sequence[str] | str = ("coverage",),
    plan: object = None,
    workers: int | None = None,
    memory_limit: int | None = None,
    tile_id: int | None = None,
    pcb_tile: PcbTile | None = None,
    progress: Progress | None = None,
) -> tuple[StackResult, bool]:
    """Stack a tile on the GPU where the run's state allows it, else on the CPU.

    Parameters
    ----------
    frames : sequence of arrays or paths, or FrameGroup
        As for `stack`, or frames that are open already.
    gpu : Phase3Gpu or None
        State of the run, shared by its tiles and threads; None for the CPU.
    options, weights, masks, variances, exposures, scales, offsets, maps
        As for `stack`.
    plan : ParallelPlan, mapping, object or None
        Caps for both backends; ``use_gpu=False`` keeps this tile on the CPU.
    workers : int, optional
        Threads of the CPU; by default as many as pay, at most the plan's ``cpu_workers``.
    memory_limit : int, optional
        Bytes for the CPU's working set; by default the plan's, or a quarter of what is free.
    tile_id : int, optional
        Number of the tile, for telemetry.
    pcb_tile : callable, optional
        Called once, after the tile, as ``pcb_tile("phase3_gpu_chunk_summary", prog=None, lvl="INFO_DETAIL", ...)``, or
        with ``"phase3_cpu_chunk_summary"``. The kernel rejects and combines in one go: ``reject_ms`` is the time of
        both, ``combine_ms`` is 0.
    progress : callable, optional
        Called as ``progress(done_rows, total_rows)``; starts again with each attempt.

    Returns
    -------
    result : StackResult
        The same bits from either backend; its ``facts`` say which one, after how many attempts, and why.
    used_gpu : bool
        True only if every chunk of the tile came from the GPU.

    Raises
    ------
    InvalidInputError, FrameReadError, ScratchError
        As `stack`; the GPU is not blamed. So does whatever `progress` or `pcb_tile` raises.
    BackendUnavailableError, GPUStackingError
        The GPU is required (see `Phase3Gpu`) and can't be used or failed.
    """
    limits = read_limits(plan, workers=workers, memory_limit=memory_limit)
    request = StackRequest(
        options=StackOptions() if options is None else options,
        maps=check_maps(maps),
        weights=weights,
        variances=variances,
        exposures=exposures,
        scales=scales,
        offsets=offsets,
    )
    if isinstance(frames, FrameGroup):
        if masks is not None:
            raise InvalidInputError(
                "masks with frames that are open already; expected them where the frames were opened"
            )
        group = frames
    else:
        group = open_frames(frames, masks)
    telemetry = Telemetry(progress=progress, pcb_tile=pcb_tile, tile_id=tile_id)
    result = stack_tile(group, request, gpu, limits, telemetry)
    return result, result.facts.used_gpu


def stack_tile(
    group: FrameGroup,
    request: StackRequest,
    gpu: Phase3Gpu | None,
    limits: Limits,
    telemetry: Telemetry = QUIET,
) -> StackResult:
    """Stack frames that are open already; see `stack_auto`."""
    if gpu is not None and gpu.is_required:
        gpu.may_try(limits)  # says why it can't be used before all frames are read for their statistics
    host = numpy_backend()
    job, numbers = make_job(group, request, host, settle_limits(limits, group, host))
    result: StackResult | None = None
    attempts, reason = 0, ""
    if gpu is not None and gpu.may_try(limits):
        tile = _GpuTile(job, numbers, request, limits, telemetry.progress)
        outcome = gpu.stack(tile.attempt, tile.find_invalid, tile.is_callers)
        made, attempts, reason = outcome
        if made is not None:
            result = made if "coverage" in request.maps else replace(made, coverage=None)
    used_gpu = result is not None
    if result is None:
        result = run_job(job, numbers, host, progress=telemetry.progress)
        if gpu is not None:
            gpu.count_cpu_tile()
            reason = reason or gpu.reason or NOT_PLANNED
    device = "CPU" if gpu is None or not used_gpu else gpu.device
    facts = replace(result.facts, used_gpu=used_gpu, gpu_attempts=attempts, fallback_reason=reason, device=device)
    result = replace(result, facts=facts)
    if telemetry.pcb_tile is not None:
        telemetry.pcb_tile(
            GPU_SUMMARY if used_gpu else CPU_SUMMARY,
            prog=None,
            lvl="INFO_DETAIL",
            tile_id=telemetry.tile_id,
            attempt=attempts + (not used_gpu),
            backend=result.backend,
            **tile_figures(result, group.rows),
        )
    return result


@dataclass
class _Watched:
    """A caller's progress callback that remembers what it raised."""

    progress: Progress
    raised: list[BaseException]

    def __call__(self, done: int, total: int) -> None:
        """Report; an exception passes through."""
        try:
            self.progress(done, total)
        except BaseException as error:
            self.raised.append(error)
            raise


class _GpuTile:
    """A tile's attempts on the GPU: the second one's chunk is half of the first's where memory ran out."""

    def __init__(
        self,
        job: StackJob,
        numbers: FrameNumbers,
        request: StackRequest,
        limits: Limits,
        progress: Progress | None,
    ) -> None:
        maps = request.maps | {"coverage"}  # the check of the result needs it
        self._job = replace(job, maps=maps, workers=1)
        self._request = replace(request, maps=maps)
        self._numbers = numbers
        self._limits = limits.on_gpu()
        self._progress = None if progress is None else _Watched(progress, [])
        self._planned: ChunkPlan | None = None

    def attempt(self, backend: Backend, smaller: bool) -> StackResult:
        """Stack the whole tile on the GPU."""
        job, limits = self._job, self._limits
        if smaller and self._planned is not None:
            limits = replace(limits, memory_limit=max(self._planned.chunk_bytes // 2, 1))
        self._planned = plan_job(job.group, self._request, backend, limits, planes=job.planes)
        return run_job(replace(job, chunk_plan=self._planned), self._numbers, backend, progress=self._progress)

    def find_invalid(self, result: StackResult) -> str:
        """Return what can't be right about the tile, empty where nothing is found."""
        return find_invalid(result, self._job.group.shape, len(self._job.group.sources))

    def is_callers(self, error: BaseException) -> bool:
        """Return whether the caller's own callback raised this, or something that led to it."""
        raised = [] if self._progress is None else self._progress.raised
        return any(link is mine for link in walk_chain(error) for mine in raised)


def tile_figures(result: StackResult, total_rows: int) -> dict[str, Any]:
    """Return the figures of a tile for ZeMosaic's telemetry, under its names."""
    facts = result.facts
    return {
        "rows_per_chunk": facts.rows_per_chunk,
        "total_rows": total_rows,
        "n_frames": len(result.frames),
        "duration_s": facts.seconds,
        "upload_ms": facts.upload_ms,
        "reject_ms": facts.compute_ms or facts.seconds * 1e3,  # several threads keep no clock
        "combine_ms": 0.0,
        "download_ms": facts.download_ms,
        "algo": result.options.rejection,
    }
