"""Numbers of frames that the caller gives: as such, as a card of their headers, or as a function of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.fits.cards import parse_real
from zemosaic_stack_core.fits.observing import TextCards
from zemosaic_stack_core.frames.cut_frames import CutFrame
from zemosaic_stack_core.frames.file_frames import FileFrame
from zemosaic_stack_core.frames.group import FrameGroup, FrameSource
from zemosaic_stack_core.frames.heads import read_head
from zemosaic_stack_core.frames.masks import MaskSource
from zemosaic_stack_core.frames.pixel_rows import FilePool
from zemosaic_stack_core.options import StackOptions
from zemosaic_stack_core.per_frame.normalization import FrameStatistics

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GivenNumbers:
    """What the caller gives of whole frames; None where it is estimated, or nothing acts."""

    # Shape (frame, channel), float64.
    weight: _Floats | None = None
    # Scale and offset, of that shape.
    levels: tuple[_Floats, _Floats] | None = None
    # Shape (frame,), seconds.
    exposures: Any = None
    # Of all frames, where they were looked at before: see `choose_options`.
    statistics: Sequence[FrameStatistics] = ()


NOTHING_GIVEN = GivenNumbers()


def given_levels(scales: object, offsets: object, group: FrameGroup, options: StackOptions) -> Any:
    """Return scale and offset of every frame as given, shape (frame, channel) each; None where they change nothing.

    `group` is what functions see of the frames. Raise where the options ask for a normalization besides.
    """
    given = {name: one for name, one in (("scales", scales), ("offsets", offsets)) if one is not None}
    if not given:
        return None
    if options.normalization != "none":
        name = " and ".join(given)
        raise InvalidInputError(
            f"{name} with normalization {options.normalization!r}; expected normalization 'none' or no {name}"
        )
    shape = (len(group.sources), group.channels)
    scale = np.ones(shape) if scales is None else frame_values(scales, group, "scales")
    offset = np.zeros(shape) if offsets is None else frame_values(offsets, group, "offsets")
    with np.errstate(over="ignore"):
        usable = {"scale": np.isfinite(scale.astype(np.float32)) & (scale.astype(np.float32) != 0.0)}
        usable["offset"] = np.isfinite(offset.astype(np.float32))
    for (name, good), values in zip(usable.items(), (scale, offset), strict=True):
        if not good.all():
            frame = int(np.argmin(good.all(axis=1)))
            expected = "finite numbers" + (", not 0" if name == "scale" else "")
            raise InvalidInputError(
                f"{group.sources[frame].name}: {name} is {values[frame].tolist()}; expected {expected}"
            )
    return None if (scale == 1.0).all() and (offset == 0.0).all() else (scale, offset)


def frame_values(given: object, group: FrameGroup, name: str) -> _Floats:
    """Return numbers of frames, shape (frame, channel); messages call them `name`.

    They are given as an array of shape (frame,) or (frame, channel), as the keyword of a header card, or as a function
    of a frame: that gets its pixels, shape (row, column[, channel]), float32, NaN where missing, and returns a number
    or one a channel.
    """
    frames, channels = len(group.sources), group.channels
    if isinstance(given, str):
        values = np.array([_card(source, given, name) for source in group.sources])
    elif callable(given):
        values = _called(given, group, name)
    else:
        values = plain_numbers(given, name)
    if values.shape not in ((frames,), (frames, 1), (frames, channels)) or values.dtype.kind not in "fiub":
        raise InvalidInputError(
            f"{name} have shape {values.shape} and type {values.dtype}; expected numbers of shape ({frames},) or "
            f"({frames}, {channels})"
        )
    return np.broadcast_to(values.reshape(frames, -1), (frames, channels)).astype(np.float64)


def plain_numbers(values: object, name: str) -> npt.NDArray[Any]:
    """Return numbers as an array; raise where it would lose what they say besides: a mask, a unit."""
    for one in (values, *values) if isinstance(values, (list, tuple)) else (values,):
        if np.ma.is_masked(one) or hasattr(one, "unmasked"):
            raise InvalidInputError(f"{name} are masked; expected numbers for all samples, and the mask in masks=")
        unit = getattr(one, "unit", None)
        if unit is not None and str(unit):
            raise InvalidInputError(f"{name} have the unit {unit}; expected plain numbers")
    return np.asarray(values)


def _called(function: Callable[[Any], Any], group: FrameGroup, name: str) -> _Floats:
    """Return what a function makes of each frame, one after the other."""
    values = []
    for source, masks in zip(group.sources, group.masks, strict=True):
        pixels = _pixels(source, masks, is_color=group.is_color)
        value = plain_numbers(function(pixels), f"{name} of {source.name}")
        if value.shape not in ((), (1,), (group.channels,)) or value.dtype.kind not in "fiub":
            raise InvalidInputError(f"{name} of {source.name} are {value!r}; expected a number, or one per channel")
        values.append(np.broadcast_to(value, (group.channels,)))
    return np.array(values, np.float64)


def _pixels(source: FrameSource, masks: tuple[MaskSource, ...], *, is_color: bool) -> npt.NDArray[np.float32]:
    """Return a whole frame, NaN where masked or not finite."""
    planes = np.empty((source.channels, source.rows, source.columns), source.dtype)
    with FilePool(4) as files:
        source.read_rows(0, source.rows, planes, files)
        image = planes.astype(np.float32)
        for mask in masks:
            image[np.broadcast_to(mask.mask_rows(0, source.rows, files), image.shape)] = np.nan
    image[~np.isfinite(image)] = np.nan
    return np.moveaxis(image, 0, -1) if is_color else image[0]


def _card(source: FrameSource, keyword: str, name: str) -> float:
    """Return the number of a card of a frame's header."""
    while isinstance(source, CutFrame):
        source = source.whole
    if isinstance(source, FileFrame):
        text = read_head(source.path, extension=source.extension).get(keyword)
    else:
        text = TextCards(source.header or {}).get(keyword)
    value = parse_real(text or "")
    if not np.isfinite(value):
        found = "no such card in its header" if text is None else f"it is {text!r} there"
        raise InvalidInputError(f"{source.name}: {name} by {keyword!r}, but {found}; expected a number")
    return value
