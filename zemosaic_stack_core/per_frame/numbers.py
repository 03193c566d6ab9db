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
from zemosaic_stack_core.per_frame.given_numbers import NOTHING_GIVEN, GivenNumbers
from zemosaic_stack_core.per_frame.normalization import (
    FrameStatistics,
    Normalization,
    choose_reference,
    frame_statistics,
    match_frame,
)
from zemosaic_stack_core.per_frame.sample_grid import SampleGrid, read_grid_samples, sample_grid
from zemosaic_stack_core.per_frame.star_width import star_width
from zemosaic_stack_core.per_frame.weighting import (
    exposure_weights,
    frame_exposures,
    inverse_variance_weights,
    star_width_weights,
)

_Floats = npt.NDArray[np.float64]
_Singles = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameNumbers:
    """The numbers of the frames of a stack."""

    # Shape (frame, channel), float32; None without normalization: samples are not even multiplied by one.
    scale: _Singles | None
    offset: _Singles | None
    # Shape (frame, channel), float32, finite, not negative: those of the weighting times the caller's; zero for
    # excluded frames.
    weight: _Singles
    # The frame that the others are normalized to; None without normalization, or where no frame can serve.
    reference: int | None
    # Shape (frame, channel), float64; None where it was not measured, NaN where there was nothing to measure: median as
    # read, standard deviation after normalization and a 3-sigma, 5-iteration clip, median star width in pixels.
    sky: _Floats | None
    noise: _Floats | None
    fwhm: _Floats | None
    # For each frame why it was not normalized or weighted as asked; empty where all went as asked.
    notes: tuple[str, ...]
    # Frames to leave out, ascending.
    excluded: tuple[int, ...]


def estimate_frame_numbers(
    group: FrameGroup,
    options: StackOptions,
    given: GivenNumbers = NOTHING_GIVEN,
    *,
    workers: int = 1,
) -> FrameNumbers:
    """Estimate scale, offset and weight of every frame of a stack, in `workers` threads.

    Weights that are given are multiplied with the weighting's; levels that are given stand; statistics that are given
    are not measured again.

    Notes
    -----
    Every frame is read once, on the grid of `sample_grid`; nothing is read where neither the normalization nor
    the weighting needs it. Weighting ``noise_fwhm`` reads, besides, the rows of the part that is searched for stars.
    The noise of the normalized frame is abs(scale) times that of the frame as read: a clip at multiples of the standard
    deviation keeps the same samples of both.

    The noise of frames that were interpolated onto the grid is correlated between neighbors and smaller per sample than
    that of the exposure; weights by it compare frames that were resampled the same way.
    """
    _check_options(options, len(group.sources))
    seconds = frame_exposures(group.sources, given.exposures) if options.weighting == "exposure" else None
    measured = _needed(group, options, given, workers)
    notes: list[list[str]] = [[] for _ in group.sources]
    reference, matched = _match(options, [one.statistics for one in measured])
    excluded = _act_on_problems(group, options.on_unnormalizable, matched, notes) if matched else ()
    scale, offset = given.levels or (_rows([one.scale for one in matched]), _rows([one.offset for one in matched]))
    noise = _rows([one.statistics.noise for one in measured])
    if noise is not None and scale is not None:
        noise = noise * np.abs(scale)
    fwhm = _rows([one.fwhm for one in measured if one.fwhm is not None])
    weight = np.ones((len(group.sources), group.channels))
    if seconds is not None:
        weight[:] = exposure_weights(seconds)[:, None]
    elif options.weighting == "noise_variance" and noise is not None:
        known = _weigh(weight, noise, excluded, inverse_variance_weights)
        _note_unknown(notes, known, "noise_variance: no noise to be had")
    elif fwhm is not None:
        known = _weigh(weight, fwhm, excluded, star_width_weights)
        _note_unknown(notes, known, "noise_fwhm: no star that can be measured")
    if given.weight is not None:
        weight *= given.weight
    weight[list(excluded)] = 0.0
    return FrameNumbers(
        scale=None if scale is None else scale.astype(np.float32),
        offset=None if offset is None else offset.astype(np.float32),
        weight=_rounded_weights(weight),
        reference=reference,
        sky=_rows([one.statistics.median for one in measured]),
        noise=noise,
        fwhm=fwhm,
        notes=tuple("; ".join(note) for note in notes),
        excluded=excluded,
    )


def _needed(group: FrameGroup, options: StackOptions, given: GivenNumbers, workers: int) -> list[_Measured]:
    """Return what normalization and weighting need of every frame; nothing where they need nothing."""
    if options.normalization == "none" and options.weighting not in ("noise_variance", "noise_fwhm"):
        return []
    with_stars = options.weighting == "noise_fwhm"
    if len(given.statistics) == len(group.sources) and not with_stars:
        return [_Measured(one, None) for one in given.statistics]
    return _measure(group, with_stars, workers)


def _check_options(options: StackOptions, frames: int) -> None:
    """Raise unless the reference that was asked for is a frame, and the library that measures stars is there."""
    if options.normalization != "none" and options.reference != "auto" and options.reference >= frames:
        raise InvalidInputError(f"reference is {options.reference}; expected a frame from 0 to {frames - 1}")


def _rows(values: Sequence[_Floats]) -> _Floats | None:
    """Return one array of shape (frame, channel), None without frames."""
    return np.array(values) if values else None


@dataclass(frozen=True, slots=True)
class _Measured:
    """What one reading of a frame gives."""

    statistics: FrameStatistics
    fwhm: _Floats | None


def _measure(group: FrameGroup, with_stars: bool, workers: int) -> list[_Measured]:
    """Read every frame once and take its statistics, in `workers` threads."""
    grid = sample_grid(group.rows, group.columns)
    count = len(group.sources)
    with ThreadPoolExecutor(max(1, min(workers, count)), thread_name_prefix="statistics") as pool:
        try:
            return list(pool.map(lambda frame: _measure_frame(group, frame, grid, with_stars), range(count)))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # or the frames that wait are read before it passes on
            raise


def _measure_frame(group: FrameGroup, frame: int, grid: SampleGrid, with_stars: bool) -> _Measured:
    """Take the statistics of one frame."""
    source, masks = group.sources[frame], group.masks[frame]
    samples = read_grid_samples(source, masks, grid=grid)
    statistics = frame_statistics(samples.values)
    return _Measured(statistics, star_width(source, masks, samples.center()) if with_stars else None)


def _match(options: StackOptions, frames: Sequence[FrameStatistics]) -> tuple[int | None, list[Normalization]]:
    """Return the reference and every frame's normalization to it; no normalizations where none was asked for."""
    if options.normalization == "none":
        return None, []
    reference = choose_reference(frames) if options.reference == "auto" else options.reference
    if reference is None:
        channels = len(frames[0].median)
        problem = f"{options.normalization}: no frame has finite samples in every channel"
        return None, [Normalization(np.ones(channels), np.zeros(channels), problem) for _ in frames]
    return reference, [match_frame(options.normalization, frame, frames[reference]) for frame in frames]


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


def _weigh(
    weight: _Floats, measure: _Floats, excluded: Sequence[int], weigh: Callable[[_Floats], _Floats]
) -> npt.NDArray[np.bool_]:
    """Write the weights by a measure, such as noise, into `weight`, but of excluded frames; return where it is known.

    All are of shape (frame, channel).
    """
    included = np.setdiff1d(np.arange(len(weight)), excluded)
    weight[included] = weigh(measure[included])
    return np.isfinite(measure) & (measure > 0.0)


def _note_unknown(notes: list[list[str]], known: npt.NDArray[np.bool_], reason: str) -> None:
    """Note the frames of which a channel, or all, has the median weight."""
    for frame in np.flatnonzero(~known.all(axis=1)):
        notes[frame].append(f"median weight, {reason}")


def _rounded_weights(weight: _Floats) -> _Singles:
    """Round weights to float32 once; none may overflow."""
    with np.errstate(over="ignore"):
        rounded = weight.astype(np.float32)
    if not np.isfinite(rounded).all():
        raise InvalidInputError(f"weight {weight.max():g} is beyond float32; expected weights below 3.4e38")
    return rounded
