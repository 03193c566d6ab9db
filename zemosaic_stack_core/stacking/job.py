"""One stack, ready to be computed: from a request and its frames to a `StackJob` with a chunk plan.

A job holds no open file and no array of a backend: it is made once, for all threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.backends import N_SLOTS, Backend
from zemosaic_stack_core.backends.inputs import TYPES
from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.frames.array_frames import ArrayFrame
from zemosaic_stack_core.frames.chunk import Chunk
from zemosaic_stack_core.frames.file_frames import FileFrame
from zemosaic_stack_core.frames.group import FrameGroup
from zemosaic_stack_core.frames.masks import ArrayMask
from zemosaic_stack_core.frames.planes import NO_PLANES, PlanesGiven, PlaneStack
from zemosaic_stack_core.frames.variances import VarianceSource
from zemosaic_stack_core.kernel.rules import most_sums
from zemosaic_stack_core.options import WEIGHTED_COMBINATIONS, StackOptions
from zemosaic_stack_core.per_frame.given_numbers import GivenNumbers, given_levels
from zemosaic_stack_core.per_frame.normalization import FrameStatistics
from zemosaic_stack_core.per_frame.numbers import FrameNumbers, estimate_frame_numbers
from zemosaic_stack_core.stacking.chunk_plan import (
    PINNED_BYTES,
    ChunkPlan,
    Footprint,
    chunk_budget,
    pinned_budget,
    plan_chunks,
)
from zemosaic_stack_core.stacking.clusters import RejectedFlags, growth_reach
from zemosaic_stack_core.stacking.given_planes import split_weights, variance_source, with_radial_weight
from zemosaic_stack_core.stacking.limits import Limits


@dataclass(frozen=True, kw_only=True, eq=False)
class StackRequest:
    """What to make of a group of frames: options, maps, and what the caller gives besides; see `stack`."""

    options: StackOptions
    maps: frozenset[str] = frozenset({"coverage"})
    weights: object | None = None
    variances: object | None = None
    exposures: Sequence[float] | None = None
    scales: object | None = None
    offsets: object | None = None
    # Of all frames, where they were looked at before: see `choose_options`.
    statistics: Sequence[FrameStatistics] = ()


@dataclass(frozen=True, kw_only=True)
class StackJob:
    """Everything that decides the numbers of one stack, and its chunk plan, on which none depends."""

    group: FrameGroup
    options: StackOptions
    maps: frozenset[str]
    # Shape (frame, channel), float32. A frame of zero weight takes part in nothing. Without normalization scale and
    # offset are None.
    weight: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32] | None
    offset: npt.NDArray[np.float32] | None
    # Weights and variances of single samples.
    sample_weights: PlaneStack | None
    variances: VarianceSource | None
    chunk_plan: ChunkPlan
    # Processes or threads that compute it, at most.
    workers: int = 1
    given: PlanesGiven = NO_PLANES
    # Where the rejected samples are noted, of a stack whose clusters grow.
    flags: RejectedFlags | None = None
    # Let the clusters in `flags` grow, and combine again the pixels that lose a sample.
    is_second_pass: bool = False
    # What the words are that its frames hand out as files have them, for programs; empty where they hand out numbers.
    stored: str = ""

    @property
    def weighs_by_variance(self) -> bool:
        """Whether samples weigh as much as their variance says."""
        return self.options.weighting == "inverse_variance"

    @property
    def weighs_samples(self) -> bool:
        """Whether the samples of one frame have different weights."""
        return self.sample_weights is not None or self.weighs_by_variance

    @property
    def propagates(self) -> bool:
        """Whether the variance of the result is made of those of the samples."""
        return self.variances is not None and "variance" in self.maps

    @property
    def is_weighted(self) -> bool:
        """Whether the samples that take part have different weights."""
        return self.weighs_samples or bool(((self.weight != 1.0) & (self.weight != 0.0)).any())

    def with_words(self) -> StackJob:
        """Return the job with rows as files have them, where nothing but the kernel looks at them and it knows them."""
        looks = self.options.grow_radius > 0.0 or self.variances is not None
        stored = "" if looks else self.group.stored_type
        return replace(self, group=self.group.words, stored=stored) if stored else self

    @property
    def planes(self) -> int:
        """How many float32 numbers go with every sample to the kernel."""
        has_weights, has_variances = self.sample_weights is not None, self.variances is not None
        return count_planes(self.options, self.maps, has_weights=has_weights, has_variances=has_variances)

    def weights_of(self, frame: int, chunk: Chunk, variance: npt.NDArray[np.float32] | None) -> npt.NDArray[np.float32]:
        """Return the weights of a frame's samples, shape (channel, pixel), rounded to float32 once.

        `variance`, of that shape, is of the samples as read, where the job weighs by it; a weight that is not finite is
        then 0, which is missing.
        """
        if self.sample_weights is None:
            exact = np.broadcast_to(self.weight[frame].astype(np.float64)[:, None], (self.group.channels, chunk.pixels))
        else:
            exact = self.sample_weights.read_exact(frame, chunk, self.weight[frame])
        if variance is None or not self.weighs_by_variance:
            return exact.astype(np.float32)
        spread = variance.astype(np.float64)
        if self.scale is not None:
            scale = self.scale[frame].astype(np.float64)[:, None]
            spread *= scale * scale
        with np.errstate(all="ignore"):
            weight = (exact / spread).astype(np.float32)
        weight[~np.isfinite(weight)] = 0.0
        return weight


def make_job(
    group: FrameGroup, request: StackRequest, backend: Backend, limits: Limits
) -> tuple[StackJob, FrameNumbers]:
    """Check everything, estimate the frames' numbers and plan the chunks: all that comes before the first chunk.

    `limits` are those of this backend: see `settle_limits`.
    """
    options, maps = request.options, request.maps
    group = group.within(options.reject_below, options.reject_above)
    if options.combine not in WEIGHTED_COMBINATIONS and request.weights is not None:
        raise InvalidInputError(
            f"weights with combine {options.combine!r}; expected combine 'mean' or 'sum', or no weights"
        )
    measured = group.cut(options.statistics_section)
    levels = given_levels(request.scales, request.offsets, measured, options)
    per_frame, per_sample = split_weights(request.weights, group, measured)
    arrays = {"weights": per_sample is not None, "variances": request.variances is not None}
    extensions = {source.extension for source in group.sources if isinstance(source, FileFrame)}
    arrays["images of different extensions"] = len(extensions) > 1
    if group.variances is not None and any(isinstance(plane, ArrayFrame) for plane in group.variances.planes):
        arrays["variances"] = True
    arrays["masks"] = any(isinstance(mask, ArrayMask) for masks in group.masks for mask in masks)
    if options.radial_feather_fraction is not None:
        per_sample = with_radial_weight(per_sample, group, options)
    variances = variance_source(request.variances, group, options)
    planes = count_planes(options, maps, has_weights=per_sample is not None, has_variances=variances is not None)
    chunk_plan = plan_job(group, request, backend, limits, planes=planes)
    workers = limits.workers or 1
    given = GivenNumbers(weight=per_frame, levels=levels, exposures=request.exposures, statistics=request.statistics)
    numbers = estimate_frame_numbers(measured, options, given, workers=workers)
    if not (numbers.weight > 0.0).any(axis=0).all():
        raise InvalidInputError("no frame of positive weight is left; expected at least one")
    job = StackJob(
        group=group,
        options=options,
        maps=maps,
        weight=numbers.weight,
        scale=numbers.scale,
        offset=numbers.offset,
        sample_weights=per_sample,
        variances=variances,
        chunk_plan=chunk_plan,
        workers=workers,
        given=replace(group.given, arrays=tuple(sorted(name for name, is_given in arrays.items() if is_given))),
    )
    return job, numbers


def count_planes(options: StackOptions, maps: frozenset[str], *, has_weights: bool, has_variances: bool) -> int:
    """Count the float32 numbers that go with every sample to the kernel.

    `has_weights`: weights per sample, `has_variances`: variances, of whatever source.
    """
    return (has_weights or options.weighting == "inverse_variance") + (has_variances and "variance" in maps)


def plan_job(group: FrameGroup, request: StackRequest, backend: Backend, limits: Limits, *, planes: int) -> ChunkPlan:
    """Plan the chunks of a stack on a backend, whose `limits` are; `planes` are those of `count_planes`."""
    options, maps = request.options, request.maps
    frames = len(group.sources)
    working_bytes, most_working_bytes = backend.working_bytes(frames, most_sums(options.rejection))
    footprint = Footprint(
        frames=frames,
        rows=group.rows,
        columns=group.columns,
        channels=group.channels,
        sample_bytes=_sample_bytes(group, options, planes),
        buffers=1 if backend.is_host else N_SLOTS,
        working_bytes=working_bytes,
        most_working_bytes=most_working_bytes,
        pinned_bytes=PINNED_BYTES if backend.is_host else pinned_budget(),
        reach=growth_reach(options.grow_radius, options.grow_min_size),
        maps=_maps_computed(options, maps, frames),
    )
    return plan_chunks(
        footprint,
        budget=chunk_budget(limits, backend.free_memory()),
        rows_cap=limits.rows_per_chunk,
        is_host=backend.is_host,
        shares=limits.workers or 1,
    )


def _maps_computed(options: StackOptions, maps: frozenset[str], frames: int) -> int:
    """Count the float32 maps that the kernel computes besides image and counts."""
    wanted = len(maps & {"weight_map", "variance", "low", "high"})
    if options.grow_radius > 0.0 or "rejected" in maps:  # two bounds, and the bits of all frames twice while stacked
        wanted += 2 + frames // 8
    return wanted


def _sample_bytes(group: FrameGroup, options: StackOptions, planes: int) -> int:
    """Return the bytes that one pixel of one channel of all frames takes, with what goes with its samples."""
    frames = len(group.sources)
    size = sum(source.dtype.itemsize for source in group.sources) + 4 * planes * frames
    kinds = {source.dtype.name for source in group.sources}
    if len(kinds) > 1 or not kinds <= set(TYPES):  # programs get float32 made of them
        size += 4 * frames
    # A sample without a usable variance is masked.
    size += frames if group.variances is not None else sum(bool(masks) for masks in group.masks)
    if options.reject_below is not None or options.reject_above is not None:
        size += 8  # of one frame: its samples again, and what lies out of the range
    if options.grow_radius > 0.0:  # codes, and the masks made of them
        size += 2 * frames
    return size
