"""`stack`: frames in, a result out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.backends import Backend, resolve_backend
from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.frames.array_frames import ArrayFrame
from zemosaic_stack_core.frames.bands import BandReader
from zemosaic_stack_core.frames.chunk import Chunk
from zemosaic_stack_core.frames.file_frames import FileFrame
from zemosaic_stack_core.frames.group import FrameGroup, open_frames
from zemosaic_stack_core.frames.planes import PlanesGiven
from zemosaic_stack_core.options import StackOptions, check_maps
from zemosaic_stack_core.per_frame.numbers import FrameNumbers
from zemosaic_stack_core.stacking.clusters import RejectedFlags
from zemosaic_stack_core.stacking.compute import FrameCounts, StepTimes, compute_chunks
from zemosaic_stack_core.stacking.job import StackJob, StackRequest, make_job
from zemosaic_stack_core.stacking.limits import Limits
from zemosaic_stack_core.stacking.result import FrameRecord, FrameRecords, RunFacts, StackResult
from zemosaic_stack_core.stacking.result_planes import ResultPlanes
from zemosaic_stack_core.stacking.telemetry import Progress
from zemosaic_stack_core.stacking.workers import compute_in_threads, settle_limits


def stack(
    frames: Sequence[object],
    *,
    options: StackOptions | None = None,
    weights: object | None = None,
    masks: Sequence[object] | None = None,
    variances: object | None = None,
    image_extension: str | None = None,
    mask_extension: str | None = None,
    dq_bits: int | None = None,
    variance_extension: str | None = None,
    exposures: Sequence[float] | None = None,
    scales: object | None = None,
    offsets: object | None = None,
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
        FITS and ``.npy`` files; or a mix. All of one shape, on one grid, in one unit. None is written to. Masked
        arrays, astropy's ``CCDData``, ``NDData``, HDUs and quantities, and xarray's ``DataArray``: with masks and
        uncertainties; units, and BUNIT of files, are converted to that of the first. A dask array is computed once, to
        a temporary file. Any other object with ``shape``, ``dtype`` and ``[start:stop, ...]`` is asked for its rows, by
        one thread at a time. A file's name may end in its extension, ``"x.fits[SCI,2]"``, and be a URL, read once by
        fsspec to a temporary file. One name of a folder, a pattern or a ``@list`` stands for the frames in it.
    options : StackOptions, optional
        Normalization, weighting, rejection, combination.
    weights : array, str or callable, optional
        Finite and not negative: shape (frame,), (frame, channel), or broadcastable to (frame, row, column[, channel]).
        Multiplied with those of ``options.weighting``. A sample of zero weight is missing. A name is that of a card in
        the header of each frame; a function is called as for `scales`.
    masks : sequence of (bool array or None), optional
        One per frame, of its shape or (row, column); True marks a missing sample.
    variances : array, optional
        Variances of the samples as read, input units squared, broadcastable to (frame, row, column[, channel]).
    image_extension : str, optional
        Name of the FITS extension with the image of each file, with its ``EXTVER`` (``"SCI,2"``) where there are
        several, or its number. By default the image is that of the primary HDU, else the only SCI, else the only one.
    mask_extension : str, optional
        Name of the FITS extension with the mask of each file, e.g. ``"MASK"`` or ``"DQ"``: a nonzero value is missing.
        By default MASK and UNCERT count, where a file has them (astropy's ``CCDData`` writes them); ``""`` for none.
    dq_bits : int, optional
        Only these bits of the mask extension count; by default all.
    variance_extension : str, optional
        Name of the FITS extension with the variances of each file's samples, e.g. ``"VARIANCE"``. One whose card UTYPE
        or whose name says so (``UNCERT``, ``ERR``, ``IVAR``, ...) holds standard deviations or inverse variances. A
        sample whose variance is negative or not finite is missing.
    exposures : sequence of float, optional
        Exposure times, seconds, for ``weighting="exposure"``; by default those in the files' headers.
    scales, offsets : array, str or callable, optional
        Each sample becomes ``sample * scale + offset`` before anything else, in place of a normalization: shape
        (frame,) or (frame, channel); or the name of a card in the header of each frame; or a function of a frame. That
        is called with the pixels of ``options.statistics_section``, shape (row, column[, channel]), float32, NaN where
        missing, one frame after the other, and returns a number or one per channel.
    maps : sequence of str, or "all"
        Which of ``coverage``, ``weight_map``, ``rejected_low``, ``rejected_high``, ``variance``, ``low``, ``high`` to
        return; ``rejected``, which is not among all, is a bit for every sample.
    backend : str or Backend
        ``"numpy"``, ``"cupy"`` or what `zemosaic_stack_core.backends` gives.
    rows_per_chunk : int, optional
        Most rows computed at once: a cap, never a floor. No number depends on it.
    workers : int, optional
        Threads; by default the cores where that pays. No number depends on it.
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
    limits = Limits(workers=workers, memory_limit=memory_limit, rows_per_chunk=rows_per_chunk)
    request = StackRequest(
        options=chosen,
        maps=check_maps(maps),
        weights=weights,
        variances=variances,
        exposures=exposures,
        scales=scales,
        offsets=offsets,
    )
    given = PlanesGiven(
        image_extension=image_extension,
        mask_extension=mask_extension,
        dq_bits=dq_bits,
        variance_extension=variance_extension,
    )
    group = open_frames(frames, masks, given)
    return stack_group(group, request, resolved, limits, progress=progress)


def stack_group(
    group: FrameGroup, request: StackRequest, backend: Backend, limits: Limits, *, progress: Progress | None = None
) -> StackResult:
    """Combine frames that are open already; see `stack`."""
    job, numbers = make_job(group, request, backend, settle_limits(limits, group, backend))
    return run_job(job, numbers, backend, progress=progress)


def run_job(job: StackJob, numbers: FrameNumbers, backend: Backend, *, progress: Progress | None = None) -> StackResult:
    """Compute a job whose chunk plan is made for this backend, and put its result together."""
    began = time.perf_counter()
    if backend.reads_words:
        job = job.with_words()
    group = job.group
    grows = job.options.grow_radius > 0.0
    report = _Rows(group.rows, progress, passes=1 + grows)
    times: list[StepTimes] = []
    shape = (group.channels, group.rows, group.columns)
    count = min(job.workers, len(job.chunk_plan))
    planes = ResultPlanes.new(job.maps, shape, len(group.sources))

    def run_pass(job: StackJob) -> FrameCounts:
        if count > 1:
            return compute_in_threads(job, backend, count, planes, report.done)
        with BandReader(group) as reader:
            computed = compute_chunks(job, backend, reader, job.chunk_plan, planes, report.done)
        times.append(computed.times)
        return computed.counts

    with RejectedFlags(len(group.sources), *shape) if grows else nullcontext() as flags:
        job = replace(job, flags=flags)
        counts = run_pass(job)
        if grows:
            counts.add(run_pass(replace(job, is_second_pass=True)))
    facts = RunFacts(
        chunks=len(job.chunk_plan),
        rows_per_chunk=job.chunk_plan.rows_per_chunk,
        columns_per_chunk=job.chunk_plan.columns_per_chunk,
        workers=count,
        seconds=time.perf_counter() - began,
        upload_ms=sum(one.upload_ms for one in times),
        compute_ms=sum(one.compute_ms for one in times),
        download_ms=sum(one.download_ms for one in times),
    )
    return _result(job, numbers, counts, planes, backend.name, facts)


class _Rows:
    """Rows done, of finished chunks; a second pass counts the rows again."""

    def __init__(self, rows: int, progress: Progress | None, passes: int) -> None:
        self._total = rows * passes
        self._progress = progress
        self._rows = 0

    def done(self, chunk: Chunk) -> None:
        """Count a chunk and report."""
        if self._progress is None:
            return
        self._rows += (chunk.stop - chunk.start) if chunk.first == 0 else 0
        self._progress(min(self._rows, self._total), self._total)


def _result(
    job: StackJob,
    numbers: FrameNumbers,
    counts: FrameCounts,
    planes: ResultPlanes,
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
            path=None if isinstance(source, FileFrame) and source.is_copy else source.path,
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
            observing=source.observing,
            header=source.header if isinstance(source, ArrayFrame) else None,
            wcs=source.wcs if isinstance(source, ArrayFrame) else None,
        )
        for frame, source in enumerate(group.sources)
    )
    maps = {name: np.moveaxis(plane, 0, -1) if group.is_color else plane[0] for name, plane in planes.by_name.items()}
    rejected = planes.rejected
    if rejected is not None:
        rejected = np.moveaxis(rejected, 1, -1) if group.is_color else rejected[:, 0]
    return StackResult(
        **maps,
        rejected=rejected,
        frames=FrameRecords(records),
        backend=backend,
        options=job.options,
        unit=group.unit,
        reference=numbers.reference,
        given=job.given,
        facts=facts,
    )
