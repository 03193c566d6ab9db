"""`stack`: frames in, master out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.backends import N_SLOTS, Backend, resolve_backend
from zemosaic_stack_core.errors import InvalidInputError, ScratchError
from zemosaic_stack_core.frames.bands import BandReader
from zemosaic_stack_core.frames.chunk import Chunk
from zemosaic_stack_core.frames.group import FrameGroup, open_frames
from zemosaic_stack_core.frames.masks import ArrayMask
from zemosaic_stack_core.options import MAPS, StackOptions, check_choice, is_whole
from zemosaic_stack_core.per_frame.numbers import FrameNumbers, estimate_frame_numbers
from zemosaic_stack_core.stacking.chunk_plan import (
    ChunkPlan,
    Workload,
    chunk_budget,
    device_working_bytes,
    host_strip,
    plan_chunks,
)
from zemosaic_stack_core.stacking.clusters import RejectedFlags, growth_reach
from zemosaic_stack_core.stacking.compute import FrameCounts, StepTimes, compute_chunks
from zemosaic_stack_core.stacking.given_planes import count_planes, split_weights, variance_source, with_radial_weight
from zemosaic_stack_core.stacking.job import StackJob
from zemosaic_stack_core.stacking.output_planes import OutputPlanes, output_bytes
from zemosaic_stack_core.stacking.result import FrameRecord, RunFacts, StackResult
from zemosaic_stack_core.stacking.threads import compute_in_threads, threads_run_at_once
from zemosaic_stack_core.stacking.workers import choose_workers, compute_in_processes
from zemosaic_stack_core.system.shared_file import SharedFile

_LOGGER = logging.getLogger(__name__)

Progress = Callable[[int, int], None]


def stack(
    frames: Sequence[object],
    *,
    options: StackOptions | None = None,
    weights: object | None = None,
    masks: Sequence[object] | None = None,
    variances: object | None = None,
    mask_extension: str | None = None,
    dq_bits: int | None = None,
    variance_extension: str | None = None,
    exposures: Sequence[float] | None = None,
    maps: Sequence[str] | str = ("coverage",),
    backend: str | Backend = "numpy",
    rows_per_chunk: int | None = None,
    workers: int | None = None,
    memory_limit: int | None = None,
    progress: Progress | None = None,
) -> StackResult:
    """Combine aligned frames, pixel by pixel, rejecting what does not belong.

    Parameters
    ----------
    frames : sequence of arrays or paths
        Arrays of shape (row, column) or (row, column, channel), of NumPy or any array API library, in any real type;
        FITS and ``.npy`` files; or a mix. All of one shape, on one grid, in one unit. None is written to.
    options : StackOptions, optional
        Normalization, weighting, rejection, combination.
    weights : array, optional
        Finite and not negative: shape (frame,), (frame, channel), or broadcastable to (frame, row, column[, channel]).
        Multiplied with those of ``options.weighting``. A sample of zero weight is missing.
    masks : sequence of (bool array or None), optional
        One per frame, of its shape or (row, column); True marks a missing sample.
    variances : array, optional
        Variances of the samples as read, input units squared, broadcastable to (frame, row, column[, channel]).
    mask_extension : str, optional
        Name of the FITS extension with the mask of each file, e.g. ``"MASK"`` or ``"DQ"``: a nonzero value is missing.
    dq_bits : int, optional
        Only these bits of the mask extension count; by default all.
    variance_extension : str, optional
        Name of the FITS extension with the variances of each file's samples, e.g. ``"VARIANCE"``. One whose card UTYPE
        or whose name says so (``UNCERT``, ``ERR``, ``IVAR``, ...) holds standard deviations or inverse variances. A
        sample whose variance is negative or not finite is missing.
    exposures : sequence of float, optional
        Exposure times, seconds, for ``weighting="exposure"``; by default those in the files' headers.
    maps : sequence of str, or "all"
        Which of ``coverage``, ``weight_map``, ``rejected_low``, ``rejected_high``, ``variance`` to return.
    backend : str or Backend
        ``"numpy"``, ``"cupy"`` or what `zemosaic_stack_core.backends` gives.
    rows_per_chunk : int, optional
        Most rows computed at once: a cap, never a floor. No number depends on it.
    workers : int, optional
        Worker processes; by default the cores where that pays. No number depends on it.
    memory_limit : int, optional
        Bytes that the working set of all workers may take; by default a quarter of the memory that is free.
    progress : callable, optional
        Called as ``progress(done_rows, total_rows)``. An exception raised there ends the stack and passes through.

    Returns
    -------
    StackResult
        Image, maps and one record per frame.

    Raises
    ------
    InvalidInputError
        An option, a shape, a weight or a mask does not fit; found before any work is done.
    FrameReadError
        A file can't be read as a frame.
    OutOfMemoryError
        Not even one pixel of all frames fits the memory limit.
    BackendUnavailableError
        The backend can't be had on this machine.

    Notes
    -----
    The numbers are defined in "What a stack is" in the documentation. They are the same bits for any chunk, number of
    workers and backend.

    Examples
    --------
    >>> import numpy as np
    >>> from zemosaic_stack_core import StackOptions, stack
    >>> frames = [np.full((2, 3), value, np.float32) for value in (10, 11, 12, 99)]
    >>> result = stack(frames, options=StackOptions(rejection="minmax"))
    >>> result.image[0]
    array([11.5, 11.5, 11.5], dtype=float32)
    """
    chosen = StackOptions() if options is None else options
    if not isinstance(chosen, StackOptions):
        raise InvalidInputError(f"options is {type(chosen).__name__}; expected StackOptions")
    resolved = resolve_backend(backend)
    group = open_frames(
        frames, masks, mask_extension=mask_extension, dq_bits=dq_bits, variance_extension=variance_extension
    )
    return stack_group(
        group,
        options=chosen,
        weights=weights,
        variances=variances,
        exposures=exposures,
        maps=maps,
        backend=resolved,
        rows_per_chunk=rows_per_chunk,
        workers=workers,
        memory_limit=memory_limit,
        progress=progress,
    )


def stack_group(
    group: FrameGroup,
    *,
    options: StackOptions,
    backend: Backend,
    weights: object | None = None,
    variances: object | None = None,
    exposures: Sequence[float] | None = None,
    maps: Sequence[str] | str = ("coverage",),
    rows_per_chunk: int | None = None,
    workers: int | None = None,
    memory_limit: int | None = None,
    progress: Progress | None = None,
) -> StackResult:
    """Combine frames that are open already; see `stack`."""
    count = choose_workers(group, workers, is_host=backend.is_host)
    job, numbers = prepare_job(
        group,
        options=options,
        backend=backend,
        weights=weights,
        variances=variances,
        exposures=exposures,
        maps=check_maps(maps),
        rows_per_chunk=rows_per_chunk,
        workers=count,
        memory_limit=memory_limit,
    )
    return run_job(job, numbers, backend, workers=count, progress=progress)


def run_job(
    job: StackJob, numbers: FrameNumbers, backend: Backend, *, workers: int = 1, progress: Progress | None = None
) -> StackResult:
    """Compute a job that is prepared, and put its result together.

    Parameters
    ----------
    job : StackJob
        With a plan for this backend.
    numbers : FrameNumbers
        Of the job's frames.
    backend : Backend
        Where to compute.
    workers : int
        Processes, at most; 1 off the host.
    progress : callable, optional
        As in `stack`.

    Returns
    -------
    StackResult
        Its `facts` say how it was computed.
    """
    began = time.perf_counter()
    group = job.group
    grows = job.options.grow_radius > 0.0
    report = _Rows(group.rows, progress, passes=1 + grows)
    times = StepTimes()
    shape = (group.channels, group.rows, group.columns)
    count = min(workers, len(job.plan))
    with ExitStack() as stack:
        in_threads = count > 1 and threads_run_at_once()
        shared = None
        if count > 1 and not in_threads:
            try:
                shared = stack.enter_context(SharedFile(output_bytes(job.maps, shape)))
            except ScratchError as error:
                _LOGGER.warning("%s; one process goes on alone", error)
                count = 1
        outputs = OutputPlanes.over(job.maps, shape, None if shared is None else shared.memory)

        def run_pass(job: StackJob) -> FrameCounts:
            if shared is not None:
                return compute_in_processes(job, count, shared.path, outputs, report.done)
            if in_threads:
                return compute_in_threads(job, count, outputs, report.done)
            with BandReader(group) as reader:
                return compute_chunks(job, backend, reader, job.plan, outputs, report.done, times)

        if grows:
            flags = stack.enter_context(RejectedFlags.made(len(group.sources), *shape))
            job = replace(job, flags=flags)
        counts = run_pass(job)
        if grows:
            counts.add(run_pass(replace(job, is_second_pass=True)))
    facts = RunFacts(
        chunks=len(job.plan),
        rows_per_chunk=job.plan.rows_per_chunk,
        columns_per_chunk=job.plan.columns_per_chunk,
        workers=count,
        seconds=time.perf_counter() - began,
        **asdict(times),
    )
    return _result(job, numbers, counts, outputs, backend.name, facts)


def prepare_job(
    group: FrameGroup,
    *,
    options: StackOptions,
    backend: Backend,
    weights: object | None = None,
    variances: object | None = None,
    exposures: Sequence[float] | None = None,
    maps: frozenset[str] = frozenset({"coverage"}),
    rows_per_chunk: int | None = None,
    workers: int = 1,
    memory_limit: int | None = None,
) -> tuple[StackJob, FrameNumbers]:
    """Check everything, estimate the frames' numbers and plan the chunks: all that comes before the first chunk."""
    if options.combine != "mean" and weights is not None:
        raise InvalidInputError(f"weights with combine {options.combine!r}; expected combine 'mean' or no weights")
    per_frame, per_sample = split_weights(weights, group)
    arrays = {"weights": per_sample is not None, "variances": variances is not None}
    arrays["masks"] = any(isinstance(mask, ArrayMask) for masks in group.masks for mask in masks)
    if options.radial_feather_fraction is not None:
        per_sample = with_radial_weight(per_sample, group, options, options.radial_feather_fraction)
    spread = variance_source(variances, group, options)
    plan = plan_job(
        group,
        options,
        backend,
        planes=count_planes(options, maps, has_weights=per_sample is not None, has_variances=spread is not None),
        rows_per_chunk=rows_per_chunk,
        workers=workers,
        memory_limit=memory_limit,
        maps=maps,
    )
    numbers = estimate_frame_numbers(group, options, manual_weights=per_frame, exposures=exposures, workers=workers)
    weight = numbers.weight.copy()
    weight[list(numbers.excluded)] = 0.0
    if not (weight > 0.0).any(axis=0).all():
        raise InvalidInputError("no frame of positive weight is left; expected at least one")
    job = StackJob(
        group=group,
        options=options,
        maps=maps,
        weight=weight,
        scale=numbers.scale,
        offset=numbers.offset,
        sample_weights=per_sample,
        variances=spread,
        plan=plan,
        given=replace(group.given, arrays=tuple(sorted(name for name, is_given in arrays.items() if is_given))),
    )
    return job, numbers


def plan_job(
    group: FrameGroup,
    options: StackOptions,
    backend: Backend,
    *,
    planes: int,
    rows_per_chunk: int | None,
    workers: int,
    memory_limit: int | None,
    maps: frozenset[str],
) -> ChunkPlan:
    """Plan the chunks of a stack; `planes` counts the float32 planes that go with every sample."""
    if rows_per_chunk is not None and not is_whole(rows_per_chunk, 1):
        raise InvalidInputError(f"rows_per_chunk is {rows_per_chunk!r}; expected a whole number of at least 1")
    sample_bytes = sum(source.dtype.itemsize for source in group.sources) + 4 * planes * len(group.sources)
    if group.variances is not None:  # a sample without a usable variance is masked
        sample_bytes += len(group.sources)
    else:
        sample_bytes += sum(bool(masks) for masks in group.masks)
    if options.grow_radius > 0.0:  # codes, and the masks made of them
        sample_bytes += 2 * len(group.sources)
    sorts = options.rejection != "none" or options.combine != "mean" or "variance" in maps
    frames = len(group.sources)
    if backend.is_host:
        is_float32 = all(source.dtype == np.float32 for source in group.sources)
        converts = options.normalization != "none" or not is_float32
        need = host_strip(options.rejection, frames=frames, sorts=sorts, planes=planes, converts=converts)._asdict()
    else:
        need = {"working_bytes": device_working_bytes(options.rejection, sorts=sorts)}
    workload = Workload(
        frames=frames,
        rows=group.rows,
        columns=group.columns,
        channels=group.channels,
        sample_bytes=sample_bytes,
        buffers=1 if backend.is_host else N_SLOTS,
        reach=growth_reach(options.grow_radius, options.grow_min_size),
        maps=len(maps & {"weight_map", "variance"}) + 2 * (options.grow_radius > 0.0),  # growth notes two bounds
        **need,
    )
    return plan_chunks(
        workload,
        budget=chunk_budget(memory_limit, workers, backend.free_memory()),
        rows_cap=rows_per_chunk,
        in_strips=backend.is_host,
        shares=workers,
    )


def check_maps(maps: Sequence[str] | str) -> frozenset[str]:
    """Give the maps asked for as a set; ``"all"`` is all of them."""
    if maps == "all":
        return frozenset(MAPS)
    names = (maps,) if isinstance(maps, str) else tuple(maps)
    for name in names:
        check_choice("maps", name, MAPS)
    return frozenset(names)


class _Rows:
    """Turns finished chunks into rows done; a second pass counts the rows again."""

    def __init__(self, rows: int, progress: Progress | None, passes: int) -> None:
        self._total = rows * passes
        self._progress = progress
        self._pixels = 0.0

    def done(self, chunk: Chunk, columns: int | None = None) -> None:
        """Count a chunk and report."""
        del columns
        if self._progress is None:
            return
        self._pixels += (chunk.stop - chunk.start) if chunk.first == 0 else 0
        self._progress(min(int(self._pixels), self._total), self._total)


def _result(
    job: StackJob,
    numbers: FrameNumbers,
    counts: FrameCounts,
    outputs: OutputPlanes,
    backend: str,
    facts: RunFacts,
) -> StackResult:
    """Put the result together."""
    group = job.group
    ones = np.ones(group.channels, np.float32)
    zeros = np.zeros(group.channels, np.float32)

    def values(row: npt.NDArray[Any] | None) -> tuple[float, ...] | None:
        return None if row is None else tuple(float(value) for value in row)

    records = tuple(
        FrameRecord(
            name=source.name,
            path=source.path,
            weight=values(job.weight[frame]) or (),
            scale=values(ones if job.scale is None else job.scale[frame]) or (),
            offset=values(zeros if job.offset is None else job.offset[frame]) or (),
            rejected_low=tuple(map(int, counts.rejected_low[frame])),
            rejected_high=tuple(map(int, counts.rejected_high[frame])),
            missing=tuple(map(int, counts.missing[frame])),
            sky=values(None if numbers.sky is None else numbers.sky[frame]),
            noise=values(None if numbers.noise is None else numbers.noise[frame]),
            fwhm=values(None if numbers.fwhm is None else numbers.fwhm[frame]),
            note=numbers.notes[frame],
        )
        for frame, source in enumerate(group.sources)
    )
    planes = {name: np.moveaxis(plane, 0, -1) if group.is_color else plane[0] for name, plane in outputs.planes.items()}
    return StackResult(
        **planes,
        frames=records,
        backend=backend,
        options=job.options,
        reference=numbers.reference,
        given=job.given,
        facts=facts,
    )
