"""Weights: per frame and channel from its noise, star width or exposure, or given; and per pixel from its radius."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.fits.observing import observing_facts
from zemosaic_stack_core.frames.group import FrameSource

_Floats = npt.NDArray[np.float64]


def inverse_variance_weights(noise: _Floats) -> _Floats:
    """Return ``1 / noise**2``, the largest of each channel scaled to 1.

    Parameters
    ----------
    noise : array of shape (frame, channel), float64
        Standard deviation of each frame's background after normalization.

    Returns
    -------
    array of shape (frame, channel), float64
        A frame whose noise is not known (NaN or zero) has the median weight of the others, 1 where there is none.

    Notes
    -----
    The weighted mean of independent samples then has the least variance possible, ``1 / sum(1/noise**2)``.
    """
    known = np.isfinite(noise) & (noise > 0.0)
    least = np.min(np.where(known, noise, np.inf), axis=0, initial=np.inf)
    ratio = np.divide(least, noise, out=np.full(noise.shape, np.nan), where=known)
    return _with_median_weight(ratio**2)


def star_width_weights(fwhm: _Floats) -> _Floats:
    """Return ``F_min / F``, per channel.

    Parameters
    ----------
    fwhm : array of shape (frame, channel), float64
        Median star width of each frame, pixels; NaN where no star could be measured.

    Returns
    -------
    array of shape (frame, channel), float64
        A frame without measured stars has the median weight of the others, 1 where there is none.
    """
    known = np.isfinite(fwhm) & (fwhm > 0.0)
    least = np.min(np.where(known, fwhm, np.inf), axis=0, initial=np.inf)
    return _with_median_weight(np.divide(least, fwhm, out=np.full(fwhm.shape, np.nan), where=known))


def exposure_weights(exposures: _Floats) -> _Floats:
    """Return exposure times over the longest.

    Parameters
    ----------
    exposures : array of shape (frame,), float64
        Seconds, finite, not negative, not all zero.
    """
    longest = float(exposures.max())
    return exposures / longest


def _with_median_weight(weights: _Floats) -> _Floats:
    """Give the median weight of the known ones to frames whose weight is NaN, channel by channel."""
    filled = weights.copy()
    for channel in range(weights.shape[1]):
        known = np.isfinite(weights[:, channel])
        filled[~known, channel] = np.median(weights[known, channel]) if known.any() else 1.0
    return filled


def frame_exposures(sources: Sequence[FrameSource], exposures: Sequence[float] | None = None) -> _Floats:
    """Return the exposure time of each frame, seconds.

    Parameters
    ----------
    sources : sequence of FrameSource
        The frames.
    exposures : sequence of float, optional
        One per frame. Default: EXPTIME, else EXPOSURE, of the files' headers.

    Raises
    ------
    InvalidInputError
        A frame has no exposure time, or one is negative or not finite, or all are zero.
    """
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
    if source.path is None:
        raise InvalidInputError(f"{source.name} is an array without a header; expected exposures=, seconds per frame")
    seconds = observing_facts(source.path).exposure
    if seconds is None:
        raise InvalidInputError(
            f"{source.name}: no usable EXPTIME or EXPOSURE in the header; expected seconds, there or as exposures="
        )
    return seconds


def check_manual_weights(weights: object, frames: int, channels: int) -> _Floats:
    """Return the caller's weights as an array of shape (frame, channel), float64.

    Parameters
    ----------
    weights : array of shape (frame,), (frame, 1) or (frame, channel)
        Finite, not negative, one of each channel positive.
    frames, channels : int
        Of the stack.

    Raises
    ------
    InvalidInputError
        The shape or a value is not as described.
    """
    try:
        array = np.asarray(weights, np.float64)
    except (TypeError, ValueError):
        raise InvalidInputError(f"weights are {type(weights).__name__}; expected one number per frame") from None
    if array.shape not in ((frames,), (frames, 1), (frames, channels)):
        raise InvalidInputError(f"weights have shape {array.shape}; expected ({frames},) or ({frames}, {channels})")
    array = np.broadcast_to(array.reshape(frames, -1), (frames, channels))
    bad = ~(np.isfinite(array) & (array >= 0.0)).all(axis=1)
    if bad.any():
        frame = int(np.argmax(bad))
        raise InvalidInputError(f"weight of frame {frame} is {array[frame].tolist()}; expected finite numbers >= 0")
    if not (array > 0.0).any(axis=0).all():
        raise InvalidInputError("weights of a channel are all 0; expected at least one frame of positive weight")
    return array


def read_weights_csv(path: str | os.PathLike[str], names: Sequence[str]) -> _Floats:
    """Read one weight per frame from a table with the columns ``file`` and ``weight``.

    Parameters
    ----------
    path : str or Path
        A comma-separated file in UTF-8 whose first line names the columns; further columns are not looked at.
    names : sequence of str
        The frames, by path. A row belongs to the frame with the same file name; where frames in different
        folders share one, the row must give as much of the path as tells them apart.

    Returns
    -------
    array of shape (frame,), float64
        Finite, not negative, not all zero. Rows for files that aren't frames are not looked at.

    Raises
    ------
    InvalidInputError
        The table can't be read, a frame has no row or more than one, a row could belong to several frames, or a weight
        is not a finite number of at least 0.
    """
    table, table_name = Path(path), os.fspath(path)
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = [(column or "").strip().lower() for column in reader.fieldnames or ()]
            if "file" not in columns or "weight" not in columns:
                found = ", ".join(columns) or "nothing"
                raise InvalidInputError(f"{table_name}: columns are {found}; expected file and weight")
            reader.fieldnames = columns
            rows = [(reader.line_num, row["file"] or "", row["weight"] or "") for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InvalidInputError(
            f"{table_name}: {reason}; expected a readable table with columns file, weight"
        ) from None
    frames = [_parts(name) for name in names]
    line_of: dict[int, int] = {}
    weights = np.zeros(len(names))
    for line, file_name, text in rows:
        wanted = _parts(file_name.strip())
        matches = [k for k, parts in enumerate(frames) if wanted and parts[-len(wanted) :] == wanted]
        exact = [k for k in matches if frames[k] == wanted]
        matches = exact or matches
        if not matches:
            continue
        if len(matches) > 1:
            raise InvalidInputError(
                f"{table_name}, line {line}: {file_name} is {len(matches)} frames, such as {names[matches[0]]} and "
                f"{names[matches[1]]}; expected a path that tells them apart"
            )
        frame = matches[0]
        if frame in line_of:
            raise InvalidInputError(
                f"{table_name}, lines {line_of[frame]} and {line}: both for {names[frame]}; expected one row per frame"
            )
        line_of[frame] = line
        weights[frame] = _weight(text, f"{table_name}, line {line}")
    missing = [name for frame, name in enumerate(names) if frame not in line_of]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InvalidInputError(f"{table_name}: no row for {missing[0]}{more}; expected one row per frame")
    if not weights.any():
        raise InvalidInputError(f"{table_name}: all weights are 0; expected at least one above 0")
    return weights


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


def radial_weights(
    rows: int, columns: int, feather: float, power: float, floor: float, start: int, stop: int
) -> npt.NDArray[np.float32]:
    """Return the radial weight of the pixels in a band of rows.

    Parameters
    ----------
    rows, columns : int
        Shape of the image.
    feather : float
        Fraction of the largest radius at which the weight reaches its floor, above 0.
    power : float
        Exponent, above 0.
    floor : float
        Least weight, 0 to 1. With 0, pixels beyond ``feather * r_max`` are missing in every frame.
    start, stop : int
        The band, ``0 <= start < stop <= rows``.

    Returns
    -------
    array of shape (stop - start, columns), float32
        Computed in float64 and rounded once: any band gives the same bits.

    Raises
    ------
    InvalidInputError
        A parameter is out of its range.

    Notes
    -----
    ``w(r) = max(floor, cos(pi/2 * min(1, r / (feather * r_max)))**power)``, with r the distance to the image's center
    ``((rows - 1)/2, (columns - 1)/2)`` in pixels and r_max that of a corner pixel.
    """
    for name, value in (("feather", feather), ("power", power)):
        if not (np.isfinite(value) and value > 0.0):
            raise InvalidInputError(f"radial weight: {name} is {value!r}; expected a finite number > 0")
    if not 0.0 <= floor <= 1.0:
        raise InvalidInputError(f"radial weight: floor is {floor!r}; expected a number from 0 to 1")
    if not 0 <= start < stop <= rows:
        raise InvalidInputError(f"radial weight: rows {start} to {stop}; expected a range within 0 to {rows}")
    row = np.arange(start, stop, dtype=np.float64)[:, None] - (rows - 1) / 2
    column = np.arange(columns, dtype=np.float64)[None, :] - (columns - 1) / 2
    largest = max(((rows - 1) ** 2 + (columns - 1) ** 2) ** 0.5 / 2, np.finfo(np.float64).tiny)
    # Squares and a square root, not hypot: those are rounded the same everywhere.
    radius = np.sqrt(row * row + column * column) / (feather * largest)
    # Beyond the feather radius the cosine is 0 by definition, where cos(pi/2) leaves 6e-17.
    falling = np.where(radius < 1.0, np.cos(np.pi / 2 * np.minimum(radius, 1.0)), 0.0)
    return np.maximum(floor, falling**power).astype(np.float32)
