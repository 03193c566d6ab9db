"""Weights: per frame and channel from its noise, star width or exposure, or given; and per pixel from its radius."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.frames.group import FrameSource
from zemosaic_stack_core.options import StackOptions

_Floats = npt.NDArray[np.float64]


def inverse_variance_weights(noise: _Floats) -> _Floats:
    """Return ``1 / noise**2``, shape (frame, channel), the largest of each channel scaled to 1.

    `noise` is the standard deviation of each frame's background after normalization. A frame whose noise is not known
    (NaN or zero) has the median weight of the others, 1 where there is none.

    Notes
    -----
    The weighted mean of independent samples then has the least variance possible, ``1 / sum(1/noise**2)``.
    """
    return _with_median_weight(_smallest_over(noise) ** 2)


def star_width_weights(fwhm: _Floats) -> _Floats:
    """Return ``F_min / F`` of star widths in pixels, shape (frame, channel), per channel.

    A frame without measured stars (NaN) has the median weight of the others, 1 where there is none.
    """
    return _with_median_weight(_smallest_over(fwhm))


def _smallest_over(measure: _Floats) -> _Floats:
    """Return the smallest number of each channel over each, NaN where it is not known (NaN or zero)."""
    known = np.isfinite(measure) & (measure > 0.0)
    least = np.min(np.where(known, measure, np.inf), axis=0, initial=np.inf)
    ratio: _Floats = np.divide(least, measure, out=np.full(measure.shape, np.nan), where=known)
    return ratio


def exposure_weights(exposures: _Floats) -> _Floats:
    """Return exposure times, shape (frame,), seconds, over the longest."""
    return exposures / float(exposures.max())


def _with_median_weight(weights: _Floats) -> _Floats:
    """Return weights with the median of the known ones in place of NaN, channel by channel."""
    filled = weights.copy()
    for channel in range(weights.shape[1]):
        known = np.isfinite(weights[:, channel])
        filled[~known, channel] = np.median(weights[known, channel]) if known.any() else 1.0
    return filled


def frame_exposures(sources: Sequence[FrameSource], exposures: Sequence[float] | None = None) -> _Floats:
    """Return the exposure time of each frame, seconds: those given, else EXPTIME or EXPOSURE of the files' headers."""
    if exposures is None:
        exposures = [_header_exposure(source) for source in sources]
    try:
        seconds = np.asarray(exposures, np.float64)
    except (TypeError, ValueError):
        raise InvalidInputError(f"exposures are {exposures!r}; expected one number of seconds per frame") from None
    if seconds.shape != (len(sources),):
        raise InvalidInputError(f"exposures have shape {seconds.shape}; expected ({len(sources)},), one per frame")
    for source, value in zip(sources, seconds, strict=True):
        if not (np.isfinite(value) and value >= 0.0):
            raise InvalidInputError(f"{source.name}: exposure is {value:g}; expected a finite number of seconds >= 0")
    if not seconds.any():
        raise InvalidInputError(f"all {len(seconds)} exposures are 0; expected at least one above 0")
    return seconds


def _header_exposure(source: FrameSource) -> float:
    """Return the exposure time in a frame's header."""
    if source.observing is None:
        raise InvalidInputError(f"{source.name} is an array without a header; expected exposures=, seconds per frame")
    seconds = source.observing.exposure
    if seconds is None:
        raise InvalidInputError(
            f"{source.name}: no usable EXPTIME or EXPOSURE in the header; expected seconds, there or as exposures="
        )
    return seconds


def check_frame_weights(weights: object, frames: int, channels: int) -> _Floats:
    """Return the caller's weights of frames, shape (frame,) or (frame, channel), as (frame, channel), float64."""
    array = np.asarray(weights)
    if array.dtype.kind not in "fiub":
        raise InvalidInputError(f"weights have the type {array.dtype}; expected real numbers, one per frame")
    if array.shape not in ((frames,), (frames, 1), (frames, channels)):
        raise InvalidInputError(f"weights have shape {array.shape}; expected ({frames},) or ({frames}, {channels})")
    array = np.broadcast_to(array.astype(np.float64).reshape(frames, -1), (frames, channels))
    bad = ~(np.isfinite(array) & (array >= 0.0)).all(axis=1)
    if bad.any():
        frame = int(np.argmax(bad))
        raise InvalidInputError(f"weight of frame {frame} is {array[frame].tolist()}; expected finite numbers >= 0")
    if not (array > 0.0).any(axis=0).all():
        raise InvalidInputError("weights of a channel are all zero; expected at least one frame of positive weight")
    return array


def read_weights_csv(path: str | os.PathLike[str], names: Sequence[str]) -> _Floats:
    """Read one weight per frame, shape (frame,), from a comma-separated table with the columns ``file`` and ``weight``.

    A row belongs to the frame of `names` with the same file name; where frames in different folders share one, the row
    must give as much of the path as tells them apart. Other columns and rows are not looked at.
    """
    table = os.fspath(path)
    line_of: dict[int, int] = {}
    weights = np.zeros(len(names))
    for line, file_name, text in read_weight_rows(table):
        frame = _frame_named(file_name, names, f"{table}, line {line}")
        if frame is None:
            continue
        if frame in line_of:
            raise InvalidInputError(
                f"{table}, lines {line_of[frame]} and {line}: both for {names[frame]}; expected one row per frame"
            )
        line_of[frame] = line
        weights[frame] = _weight(text, f"{table}, line {line}")
    missing = [name for frame, name in enumerate(names) if frame not in line_of]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InvalidInputError(f"{table}: no row for {missing[0]}{more}; expected one row per frame")
    if not weights.any():
        raise InvalidInputError(f"{table}: all weights are 0; expected at least one above 0")
    return weights


def read_weight_rows(table: str) -> list[tuple[int, str, str]]:
    """Return line, file and weight of each row of a table in UTF-8 whose first line names the columns."""
    try:
        with Path(table).open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = [(column or "").strip().lower() for column in reader.fieldnames or ()]
            if "file" not in columns or "weight" not in columns:
                found = " ".join(", ".join(columns).split()) or "nothing"
                raise InvalidInputError(f"{table}: columns are {found}; expected file and weight")
            reader.fieldnames = columns
            return [(reader.line_num, row["file"] or "", row["weight"] or "") for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidInputError(f"{table}: {reason}; expected a readable table with columns file, weight") from None


def _frame_named(file_name: str, names: Sequence[str], where: str) -> int | None:
    """Return the index of the one frame that a row's file name is the name, or the end of the path, of."""
    wanted = _parts(file_name.strip())
    frames = [_parts(name) for name in names]
    matches = [k for k, parts in enumerate(frames) if wanted and parts[-len(wanted) :] == wanted]
    matches = [k for k in matches if frames[k] == wanted] or matches
    if len(matches) > 1:
        raise InvalidInputError(
            f"{where}: {file_name} is {len(matches)} frames, such as {names[matches[0]]} and {names[matches[1]]}; "
            "expected a path that tells them apart"
        )
    return matches[0] if matches else None


def _parts(name: str) -> tuple[str, ...]:
    """Return the folders and the name of a path, of either system's separators."""
    return tuple(part for part in name.replace("\\", "/").split("/") if part not in ("", "."))


def _weight(text: str, where: str) -> float:
    """Return a weight of a table."""
    try:
        weight = float(text)
    except ValueError:
        weight = np.nan
    if not (np.isfinite(weight) and weight >= 0.0):
        raise InvalidInputError(f"{where}: weight is {text!r}; expected a finite number >= 0")
    return weight


def radial_weights(shape: tuple[int, int], start: int, stop: int, options: StackOptions) -> npt.NDArray[np.float32]:
    """Return the radial weight of the pixels in some rows of an image, shape (stop - start, column), float32.

    Computed in float64 and rounded once: any band gives the same bits.

    Notes
    -----
    ``w(r) = max(floor, cos(pi/2 * min(1, r / (feather * r_max)))**power)``, with r the distance to the image's center
    ``((rows - 1)/2, (columns - 1)/2)`` in pixels and r_max that of a corner pixel. With a floor of 0 pixels beyond
    ``feather * r_max`` are missing in every frame.
    """
    rows, columns = shape
    feather = options.radial_feather_fraction or math.inf
    row = np.arange(start, stop, dtype=np.float64)[:, None] - (rows - 1) / 2
    column = np.arange(columns, dtype=np.float64)[None, :] - (columns - 1) / 2
    largest = max(((rows - 1) ** 2 + (columns - 1) ** 2) ** 0.5 / 2, np.finfo(np.float64).tiny)
    # Squares and a square root, not hypot: those are rounded the same everywhere.
    radius = np.sqrt(row * row + column * column) / (feather * largest)
    # Beyond the feather radius the cosine is 0 by definition, where cos(pi/2) leaves 6e-17.
    falling = np.where(radius < 1.0, np.cos(np.pi / 2 * np.minimum(radius, 1.0)), 0.0)
    return np.maximum(options.radial_floor, falling**options.radial_shape_power).astype(np.float32)
