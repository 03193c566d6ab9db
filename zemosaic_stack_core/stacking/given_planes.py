"""Weights and variances as a caller gives them, sorted out before a stack: per frame, per sample, from which source."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.frames.group import FrameGroup
from zemosaic_stack_core.frames.planes import PlaneStack
from zemosaic_stack_core.frames.variances import DetectorVariances, VarianceSource
from zemosaic_stack_core.options import StackOptions
from zemosaic_stack_core.per_frame.given_numbers import frame_values, plain_numbers
from zemosaic_stack_core.per_frame.weighting import check_frame_weights, radial_weights

# Rows of the radial weight that are computed at once.
RADIAL_ROWS = 64


def plane_stack(values: object, group: FrameGroup, name: str) -> PlaneStack:
    """Return numbers given per sample, broadcastable to (frame, row, column[, channel]), laid out by channel.

    Raise `InvalidInputError`, which calls them `name`, where the shape does not fit or one is negative or not finite.
    """
    array = plain_numbers(values, name)
    shape = (len(group.sources), group.rows, group.columns)
    full = (*shape, group.channels) if group.is_color else shape
    if array.dtype.kind not in "fiub":
        raise InvalidInputError(f"{name} have the type {array.dtype}; expected real numbers")
    try:
        whole = np.broadcast_to(array, full)
    except ValueError:
        raise InvalidInputError(
            f"{name} have the shape {array.shape}; expected {full} or one that broadcasts to it"
        ) from None
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InvalidInputError(f"{name} hold a value that is not finite; expected finite numbers of at least 0")
    if array.dtype.kind in "fi" and array.size and array.min() < 0:
        raise InvalidInputError(f"{name} hold the value {array.min():g}; expected numbers of at least 0")
    if not group.is_color:
        return PlaneStack(whole[:, None, :, :])
    return PlaneStack(np.moveaxis(whole, 3, 1))


def split_weights(
    weights: object | None, group: FrameGroup, measured: FrameGroup
) -> tuple[npt.NDArray[np.float64] | None, PlaneStack | None]:
    """Return the caller's weights per frame, shape (frame, channel), or else those per sample.

    `measured` is what functions see of the frames.
    """
    if weights is None:
        return None, None
    if isinstance(weights, str) or callable(weights):
        weights = frame_values(weights, measured, "weights")
    array = plain_numbers(weights, "weights")
    frames, channels = len(group.sources), group.channels
    if array.shape in ((frames,), (frames, channels)):
        return check_frame_weights(array, frames, channels), None
    stack = plane_stack(weights, group, "weights")
    if not array.any():
        raise InvalidInputError("weights are all zero; expected at least one positive weight")
    return None, stack


def with_radial_weight(weights: PlaneStack | None, group: FrameGroup, options: StackOptions) -> PlaneStack:
    """Multiply the radial weight into the weights per sample."""
    rows, columns = group.rows, group.columns
    radial = np.empty((rows, columns), np.float32)
    for start in range(0, rows, RADIAL_ROWS):  # in bands: its float64 steps are several times as large
        stop = min(start + RADIAL_ROWS, rows)
        radial[start:stop] = radial_weights((rows, columns), start, stop, options)
    if weights is not None:
        return replace(weights, factor=radial)
    shape = (len(group.sources), group.channels, rows, columns)
    return PlaneStack(np.broadcast_to(np.float32(1.0), shape), radial)


def variance_source(variances: object | None, group: FrameGroup, options: StackOptions) -> VarianceSource | None:
    """Return where the variances of the samples come from; one source at most."""
    sources: list[tuple[str, VarianceSource]] = []
    if variances is not None:
        sources.append(("variances", plane_stack(variances, group, "variances")))
    if group.variances is not None:
        extension = group.given.variance_extension
        name = "uncertainties of frames" if extension is None else f"variance_extension {extension!r}"
        sources.append((name, group.variances))
    if options.errors == "detector":
        model = DetectorVariances(options.gain, options.read_noise, options.sensitivity)
        sources.append(("errors 'detector'", model))
    if len(sources) > 1:
        raise InvalidInputError(f"{sources[0][0]} and {sources[1][0]}; expected one source of variances")
    if not sources and options.weighting == "inverse_variance":
        raise InvalidInputError(
            "weighting 'inverse_variance' without variances; expected variances=, a variance extension, "
            "or errors 'detector'"
        )
    return sources[0][1] if sources else None
