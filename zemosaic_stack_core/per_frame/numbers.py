"""Per-frame numbers, before any chunk: scale, offset and weight of every frame, and what they were estimated from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.frames.group import FrameGroup
from zemosaic_stack_core.options import StackOptions
from zemosaic_stack_core.per_frame.normalization import (
    FrameStatistics,
    Normalization,
    choose_reference,
    frame_statistics,
    match_frame,
)
from zemosaic_stack_core.per_frame.sample_grid import SampleGrid, read_grid_samples, sample_grid
from zemosaic_stack_core.per_frame.star_width import require_star_library, star_width
from zemosaic_stack_core.per_frame.weighting import (
    check_manual_weights,
    exposure_weights,
    frame_exposures,
    inverse_variance_weights,
    star_width_weights,
)

_Floats = npt.NDArray[np.float64]
_Singles = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameNumbers:
    """The numbers of the frames of a stack.

    Parameters
    ----------
    scale, offset : array of shape (frame, channel), float32, or None
        None where no normalization was asked for: samples are then not even multiplied by one.
    weight : array of shape (frame, channel), float32
        Finite, not negative: those of the weighting times the manual ones. Zero for excluded frames.
    reference : int or None
        The frame that the others are normalized to; None without normalization, or where no frame can serve.
    sky : array of shape (frame, channel), float64, or None
        Median of each frame as read, input units; NaN without finite samples. None where it was not measured.
    noise : array of shape (frame, channel), float64, or None
        Standard deviation of each frame after normalization and a 3-sigma, 5-iteration clip.
    fwhm : array of shape (frame, channel), float64, or None
        Median star width, pixels; NaN where no star could be measured. None where it was not asked for.
    notes : tuple of str
        For each frame why it was not normalized or weighted as asked; empty where all went as asked.
    excluded : tuple of int
        Frames to leave out, ascending.
    """

    scale: _Singles | None
    offset: _Singles | None
    weight: _Singles
    reference: int | None
    sky: _Floats | None
    noise: _Floats | None
    fwhm: _Floats | None
    notes: tuple[str, ...]
    excluded: tuple[int, ...]


def estimate_frame_numbers(
    group: FrameGroup,
    options: StackOptions,
    *,
    manual_weights: object | None = None,
    exposures: Sequence[float] | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> FrameNumbers:
    """Estimate scale, offset and weight of every frame of a stack.

    Parameters
    ----------
    group : FrameGroup
        The frames and their masks.
    options : StackOptions
        ``normalization``, ``reference``, ``on_unnormalizable`` and ``weighting`` are what counts.
    manual_weights : array of shape (frame,) or (frame, channel), optional
        Finite, not negative, not all zero; multiplied with the weighting's.
    exposures : sequence of float, optional
        Seconds, one per frame, for weighting ``exposure``. Default: from the files' headers.
    workers : int
        Threads that read frames and take their statistics. No number depends on it.
    progress : callable, optional
        Called as ``progress(frames done, frames)``. What it raises ends the estimate and passes through.

    Returns
    -------
    FrameNumbers
        Estimated from each frame's own samples and the reference's.

    Raises
    ------
    InvalidInputError
        The reference is not a frame, weights or exposures are not what they must be, the library that measures stars is
        missing; a frame can't be normalized and ``on_unnormalizable`` is ``"error"``, or is ``"exclude"`` and no frame
        is left.
    FrameReadError
        A file became unreadable or shorter since it was opened.

    Notes
    -----
    Every frame is read once, on the grid of `sample_grid`; nothing is read where neither the normalization nor
    the weighting needs it. Weighting ``noise_fwhm`` reads, besides, the rows of the part that is searched for stars.
    The noise of the normalized frame is abs(scale) times that of the frame as read: a clip at multiples of the standard
    deviation keeps the same samples of both.

    The noise of frames that were interpolated onto the grid is correlated between neighbors and smaller per sample than
    that of the exposure; weights by it compare frames that were resampled the same way.
    """
    count, channels = len(group.sources), group.channels
    manual = None if manual_weights is None else check_manual_weights(manual_weights, count, channels)
    if manual is not None and options.combine != "mean":
        raise InvalidInputError(f"weights with combine {options.combine!r}; expected combine 'mean' or no weights")
    if options.reference != "auto" and options.normalization != "none" and options.reference >= count:
        raise InvalidInputError(f"reference is {options.reference}; expected a frame from 0 to {count - 1}")
    if options.weighting == "noise_fwhm":
        require_star_library()
    seconds = frame_exposures(group.sources, exposures) if options.weighting == "exposure" else None
    is_normalized = options.normalization != "none"
    notes: list[list[str]] = [[] for _ in range(count)]
    excluded: tuple[int, ...] = ()
    measured: list[_Measured] = []
    matched: list[Normalization] = []
    reference: int | None = None
    if is_normalized or options.weighting in ("noise_variance", "noise_fwhm"):
        measured = _measure(group, options.weighting == "noise_fwhm", workers, progress)
    if is_normalized:
        statistics = [one.statistics for one in measured]
        reference = choose_reference(statistics) if options.reference == "auto" else options.reference
        matched = _match(options.normalization, statistics, reference)
        excluded = _act_on_problems(group, options.on_unnormalizable, matched, notes)
    scale = np.array([one.scale for one in matched]) if matched else None
    offset = np.array([one.offset for one in matched]) if matched else None
    noise = np.array([one.statistics.noise for one in measured]) if measured else None
    if noise is not None and scale is not None:
        noise = noise * np.abs(scale)
    fwhm = np.array([one.fwhm for one in measured]) if options.weighting == "noise_fwhm" else None
    included = np.setdiff1d(np.arange(count), excluded)
    weight = np.ones((count, channels))
    if options.weighting == "noise_variance" and noise is not None:
        weight[included] = inverse_variance_weights(noise[included])
        _note_unknown(notes, ~(np.isfinite(noise) & (noise > 0.0)), "noise_variance: no noise to be had")
    elif fwhm is not None:
        weight[included] = star_width_weights(fwhm[included])
        _note_unknown(notes, ~np.isfinite(fwhm), "noise_fwhm: no star that can be measured")
    elif seconds is not None:
        weight[:] = exposure_weights(seconds)[:, None]
    if manual is not None:
        weight *= manual
    weight[list(excluded)] = 0.0
    return FrameNumbers(
        scale=None if scale is None else scale.astype(np.float32),
        offset=None if offset is None else offset.astype(np.float32),
        weight=_rounded_weights(weight),
        reference=reference,
        sky=np.array([one.statistics.median for one in measured]) if measured else None,
        noise=noise,
        fwhm=fwhm,
        notes=tuple("; ".join(note) for note in notes),
        excluded=excluded,
    )


@dataclass(frozen=True, slots=True)
class _Measured:
    """What one reading of a frame gives."""

    statistics: FrameStatistics
    fwhm: _Floats | None


def _measure(
    group: FrameGroup, with_stars: bool, workers: int, progress: Callable[[int, int], None] | None
) -> list[_Measured]:
    """Read every frame once and take its statistics, in `workers` threads."""
    grid = sample_grid(group.rows, group.columns)
    count = len(group.sources)
    results: list[_Measured] = []
    with ThreadPoolExecutor(max(1, min(workers, count)), thread_name_prefix="statistics") as pool:
        try:
            for one in pool.map(lambda frame: _measure_frame(group, frame, grid, with_stars), range(count)):
                results.append(one)
                if progress is not None:
                    progress(len(results), count)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # or the frames that wait are read before it passes on
            raise
    return results


def _measure_frame(group: FrameGroup, frame: int, grid: SampleGrid, with_stars: bool) -> _Measured:
    """Take the statistics of one frame."""
    source, masks = group.sources[frame], group.masks[frame]
    samples = read_grid_samples(source, masks, grid=grid)
    statistics = frame_statistics(samples.values)
    return _Measured(statistics, star_width(source, masks, samples.center()) if with_stars else None)


def _match(normalization: str, frames: Sequence[FrameStatistics], reference: int | None) -> list[Normalization]:
    """Normalize every frame to the reference; none where there is no reference."""
    if reference is None:
        channels = len(frames[0].median)
        problem = f"{normalization}: no frame has finite samples in every channel"
        return [Normalization(np.ones(channels), np.zeros(channels), problem) for _ in frames]
    return [match_frame(normalization, frame, frames[reference]) for frame in frames]


def _act_on_problems(
    group: FrameGroup, action: str, matched: Sequence[Normalization], notes: list[list[str]]
) -> tuple[int, ...]:
    """Keep, exclude or refuse the frames that can't be normalized; return the excluded ones."""
    unmatched = tuple(frame for frame, one in enumerate(matched) if one.problem)
    if action == "error" and unmatched:
        raise InvalidInputError(f"{group.sources[unmatched[0]].name}: {matched[unmatched[0]].problem}")
    if action == "exclude" and len(unmatched) == len(matched):
        raise InvalidInputError(f"no frame can be normalized, {group.sources[0].name}: {matched[0].problem}")
    for frame in unmatched:
        fate = "excluded" if action == "exclude" else "used as it is"
        notes[frame].append(f"{fate}, not normalized: {matched[frame].problem}")
    return unmatched if action == "exclude" else ()


def _note_unknown(notes: list[list[str]], unknown: npt.NDArray[np.bool_], reason: str) -> None:
    """Note the frames of which a channel, or all, has the median weight."""
    for frame in np.flatnonzero(unknown.any(axis=1)):
        notes[frame].append(f"median weight, {reason}")


def _rounded_weights(weight: _Floats) -> _Singles:
    """Round weights to float32 once; none may overflow."""
    with np.errstate(over="ignore"):
        rounded = weight.astype(np.float32)
    if not np.isfinite(rounded).all():
        raise InvalidInputError(f"weight {weight.max():g} is beyond float32; expected weights below 3.4e38")
    return rounded
