"""One pixel of a master, explained: every sample, what became of it and why: `explain_pixel`.

Nothing is decided here: the kernel stacks the one pixel again, from the files, with the numbers in the master's table.
When a sample was rejected is found by letting the kernel stop after one iteration, two, and so on.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.backends import numpy_backend
from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.frames.bands import BandReader
from zemosaic_stack_core.frames.chunk import Chunk
from zemosaic_stack_core.frames.group import FrameGroup, group_frames
from zemosaic_stack_core.frames.scratch import ScratchFolder
from zemosaic_stack_core.master.replay import OpenMaster, open_master
from zemosaic_stack_core.options import MAPS, REPEATED_RULES, StackOptions
from zemosaic_stack_core.stacking.clusters import RejectedFlags, growth_reach
from zemosaic_stack_core.stacking.compute import FrameCounts, compute_chunks
from zemosaic_stack_core.stacking.job import StackJob
from zemosaic_stack_core.stacking.result_planes import ResultPlanes

KEPT, LOW, HIGH, MISSING = "kept", "rejected low", "rejected high", "missing"
Fate = str


@dataclass(frozen=True, kw_only=True)
class SampleFate:
    """What became of one sample."""

    # Index of its frame, from 0, and the frame's name.
    frame: int
    name: str
    # As read, and normalized: the number that was compared and combined.
    raw: float
    value: float
    weight: float
    fate: Fate
    # Of a repeated rule, the iteration after which it stayed rejected; 0 where it was kept or there is only one.
    iteration: int = 0
    # It was not the rule that rejected it, but a cluster of rejected samples of its frame, near by.
    is_grown: bool = False


@dataclass(frozen=True, kw_only=True)
class LastLook:
    """The samples that a rule's last iteration looked at."""

    count: int
    median: float
    # Standard deviation of the population.
    deviation: float

    def distance(self, value: float) -> float:
        """Return how many standard deviations a value lies above the median; NaN where all samples are equal."""
        return (value - self.median) / self.deviation if self.deviation > 0.0 else math.nan


@dataclass(frozen=True, kw_only=True)
class PixelChannel:
    """One channel of a pixel."""

    # Each from 0.
    row: int
    column: int
    channel: int
    # In ascending order of their normalized values; missing ones last.
    samples: tuple[SampleFate, ...]
    # Of the master.
    options: StackOptions
    # None where there was no sample or no rule.
    last_look: LastLook | None
    # What the kernel makes of the samples now, and what the master says.
    value: float
    stored: float
    # Of the kept samples.
    weight_sum: float
    # Of the value: propagated where the samples have variances, else empirical.
    variance: float

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The smallest and the largest value that the rule kept; None where there was no sample or no rule."""
        values = [sample.value for sample in self.samples if sample.fate == KEPT or sample.is_grown]
        return None if self.last_look is None else (min(values), max(values))

    @property
    def kept(self) -> tuple[SampleFate, ...]:
        """The samples that were combined."""
        return tuple(sample for sample in self.samples if sample.fate == KEPT)

    @property
    def is_same(self) -> bool:
        """Whether the kernel gives the master's bits."""
        now, then = np.float32(self.value), np.float32(self.stored)
        return bool(now.view(np.uint32) == then.view(np.uint32) or (np.isnan(now) and np.isnan(then)))


@dataclass(frozen=True)
class _Outcome:
    """What the kernel made of the pixel: planes by name, shape (channel,), and the counts of every frame."""

    planes: dict[str, npt.NDArray[np.float64]]
    counts: FrameCounts
    # Of the samples that clusters took along, None without growth; they are in `counts` too.
    grown: FrameCounts | None = None

    def fates(self, channel: int) -> list[Fate]:
        """Return what became of each frame's sample."""
        counts = self.counts
        gone = ((counts.missing, MISSING), (counts.rejected_low, LOW), (counts.rejected_high, HIGH))
        return [
            next((fate for count, fate in gone if count[frame, channel]), KEPT) for frame in range(len(counts.missing))
        ]

    def is_grown(self, frame: int, channel: int) -> bool:
        """Return whether a cluster took a frame's sample along."""
        grown = self.grown
        return grown is not None and bool(grown.rejected_low[frame, channel] + grown.rejected_high[frame, channel])


def explain_pixel(path: str | os.PathLike[str], row: int, column: int) -> tuple[PixelChannel, ...]:
    """Explain one pixel of a master, channel by channel; its frames must still be there.

    Row and column are from 0, as in an array; row 0 is the first of the file, the bottom one in most viewers.
    Raises InvalidInputError where the pixel is not in the image, FrameReadError where the master or a frame can't be
    read, or a frame is not the one that the master was made of.
    """
    with ScratchFolder() as scratch:
        opened = open_master(path, scratch, maps=frozenset(MAPS), verifies_sha256=False)
        group = opened.job.group
        if not (0 <= row < group.rows and 0 <= column < group.columns):
            raise InvalidInputError(
                f"{os.fspath(path)}: row {row}, column {column}; expected a row of 0 to {group.rows - 1} and a column "
                f"of 0 to {group.columns - 1}"
            )
        return tuple(_explain_channels(opened, Chunk(row, row + 1, column, column + 1)))


def _explain_channels(opened: OpenMaster, pixel: Chunk) -> list[PixelChannel]:
    """Explain every channel."""
    job, group = opened.job, opened.job.group
    with BandReader(group) as reader:
        samples = reader.read(pixel.start, pixel.stop, reader.allocate(1)).samples
        raw = np.array([planes[:, 0, pixel.first].astype(np.float64) for planes in samples])
        final = _stack_pixel(job, reader, pixel)
        by_rule = replace(job, options=replace(job.options, grow_radius=0.0))
        counts_of_iterations: list[int | None] = [job.options.max_iterations]
        if job.options.rejection in REPEATED_RULES:
            # Every iteration but the last rejects a sample.
            most = len(group.sources) if job.options.max_iterations is None else job.options.max_iterations
            counts_of_iterations = list(range(1, min(most, len(group.sources)) + 1))
        history = [
            _stack_pixel(replace(by_rule, options=replace(by_rule.options, max_iterations=count)), reader, pixel)
            for count in counts_of_iterations
        ]
        values = np.array([_value_alone(job, pixel, frame) for frame in range(len(group.sources))])
        all_weights = _weights(job, reader, pixel, samples)
    channels = []
    for channel in range(group.channels):
        fates = [outcome.fates(channel) for outcome in history]
        final_fates = final.fates(channel)
        listed = [
            SampleFate(
                frame=frame,
                # The frame as the user knows it.
                name=opened.tile.rows[frame].raw or source.name,
                raw=float(raw[frame, channel]),
                value=float(values[frame, channel]),
                weight=float(all_weights[frame, channel]),
                fate=final_fates[frame],
                iteration=_iteration([of_all[frame] for of_all in fates]),
                is_grown=final.is_grown(frame, channel),
            )
            for frame, source in enumerate(group.sources)
        ]
        listed.sort(key=lambda sample: (sample.fate == MISSING, sample.value, sample.frame))
        image = opened.tile.result.image
        stored = image[pixel.start, pixel.first]
        channels.append(
            PixelChannel(
                row=pixel.start,
                column=pixel.first,
                channel=channel,
                samples=tuple(listed),
                options=job.options,
                last_look=_last_look(job.options, listed, fates[:-1]),
                value=float(final.planes["image"][channel]),
                stored=float(stored if image.ndim == 2 else stored[channel]),
                weight_sum=float(final.planes["weight_map"][channel]),
                variance=float(final.planes["variance"][channel]),
            )
        )
    return channels


def _stack_pixel(job: StackJob, reader: BandReader, pixel: Chunk) -> _Outcome:
    """Compute the one pixel with the kernel, and before it what its growth looks at around it."""
    group, options = job.group, job.options
    shape = (group.channels, group.rows, group.columns)
    # Of these planes, which are as large as the image, a few pixels are touched: they take no memory.
    whole = ResultPlanes.new(job.maps, shape, len(group.sources))

    def compute(job: StackJob, chunks: Sequence[Chunk]) -> FrameCounts:
        return compute_chunks(job, numpy_backend(), reader, chunks, whole).counts

    grown = None
    if options.grow_radius > 0.0:
        with RejectedFlags(len(group.sources), *shape) as flags:
            noting = replace(job, flags=flags)
            compute(noting, _around(pixel, group, growth_reach(options.grow_radius, options.grow_min_size)))
            counts = compute(noting, [pixel])
            grown = compute(replace(noting, is_second_pass=True), [pixel])
            counts.add(grown)
    else:
        counts = compute(job, [pixel])
    planes = {name: plane[:, pixel.start, pixel.first].astype(np.float64) for name, plane in whole.by_name.items()}
    return _Outcome(planes, counts, grown)


def _around(pixel: Chunk, group: FrameGroup, reach: int) -> list[Chunk]:
    """Return chunks of part of a row each that cover the surroundings of a pixel."""
    rows = range(max(0, pixel.start - reach), min(group.rows, pixel.stop + reach))
    first, last = max(0, pixel.first - reach), min(group.columns, pixel.last + reach)
    return [Chunk(row, row + 1, first, last) for row in rows]


def _value_alone(job: StackJob, pixel: Chunk, frame: int) -> npt.NDArray[np.float64]:
    """Return a frame's normalized sample per channel: what the kernel makes of it where there is no other frame."""
    one = slice(frame, frame + 1)
    group = group_frames([job.group.sources[frame]], [job.group.masks[frame]])
    alone = replace(
        job,
        group=group,
        options=replace(
            job.options,
            rejection="none",
            grow_radius=0.0,
            combine="min",
            weighting="none",
            radial_feather_fraction=None,
        ),
        weight=np.ones((1, group.channels), np.float32),
        scale=None if job.scale is None else job.scale[one],
        offset=None if job.offset is None else job.offset[one],
        sample_weights=None,
        variances=None,
        maps=frozenset(),
    )
    with BandReader(group) as reader:
        return _stack_pixel(alone, reader, pixel).planes["image"]


def _weights(
    job: StackJob, reader: BandReader, pixel: Chunk, samples: Sequence[npt.NDArray[Any]]
) -> npt.NDArray[np.float64]:
    """Return every sample's weight, shape (frame, channel); `samples` are those of the pixel's row."""
    if not job.weighs_samples:
        return job.weight.astype(np.float64)
    weights = np.empty(job.weight.shape)
    for frame, planes in enumerate(samples):
        variance = None
        if job.variances is not None:
            value = planes[:, :1, pixel.first].reshape(job.group.channels, 1)
            variance = job.variances.read_variances(frame, pixel, value, reader.files)
        weights[frame] = job.weights_of(frame, pixel, variance)[:, 0]
    return weights


def _iteration(fates: list[Fate]) -> int:
    """Return the iteration, from 1, after which a sample stayed rejected; 0 where that says nothing."""
    if len(fates) == 1 or fates[-1] in (KEPT, MISSING):
        return 0
    return 1 + max((count + 1 for count, fate in enumerate(fates) if fate != fates[-1]), default=0)


def _last_look(options: StackOptions, samples: list[SampleFate], earlier: list[list[Fate]]) -> LastLook | None:
    """Return what the last iteration looked at; `earlier` are each frame's fates after every iteration before it."""
    # Within the bounds of every earlier iteration: a sample that one of them rejected may come back after the last.
    before = [
        sample.value
        for sample in samples
        if sample.fate != MISSING and all(fates[sample.frame] == KEPT for fates in earlier)
    ]
    if options.rejection == "none" or not before:
        return None
    return LastLook(count=len(before), median=float(np.median(before)), deviation=float(np.std(before)))
