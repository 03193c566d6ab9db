"""The samples of a chunk, and which of them are present."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from zemosaic_stack_core.kernel.typing import Array, Frame, Namespace
from zemosaic_stack_core.options import WEIGHTED_COMBINATIONS, StackOptions

# Weights of one frame: one number, or one number a sample.
Weight = float | Array
# Combinations whose variance samples tell: that of min and max takes their distribution.
_WITH_VARIANCE = ("mean", "median", "sum")


class Samples(NamedTuple):
    """The samples of one chunk and one channel, one entry per frame.

    `values` are arrays of shape (pixel,), any real dtype, input units; `masks` bool arrays of that shape, or None, true
    where a sample is missing; `scale` and `offset` float32 values, None without normalization; `weights` float32
    values or float32 arrays of shape (pixel,), None where all are equal; `variances` float32 arrays of shape (pixel,),
    those of the samples as read, input units squared. `stored` is empty, or says what the values are that are words as
    a file has them, see `backends.inputs`; only programs can read those.
    """

    values: Sequence[Array]
    masks: Sequence[Array | None] | None = None
    scale: Sequence[float] | None = None
    offset: Sequence[float] | None = None
    weights: Sequence[Weight] | None = None
    variances: Sequence[Array] | None = None
    stored: str = ""

    @property
    def weighs_samples(self) -> bool:
        """Whether the samples of one frame may have different weights."""
        return self.weights is not None and not all(isinstance(weight, float) for weight in self.weights)

    def part(self, xp: Namespace, pixels: Array) -> Samples:
        """Return the samples of some pixels: `pixels` are their indices, int64."""

        def of(rows: Sequence[Any] | None) -> Any:
            return None if rows is None else [None if row is None else xp.take(row, pixels, axis=0) for row in rows]

        return self._replace(
            values=of(self.values),
            masks=of(self.masks),
            weights=of(self.weights) if self.weighs_samples else self.weights,
            variances=of(self.variances),
        )

    def normalized(self, xp: Namespace, frame: int) -> Array:
        """Return a frame's normalized samples, float32."""
        if self.scale is None or self.offset is None:
            return normalize(xp, self.values[frame], None, None)
        return normalize(xp, self.values[frame], self.scale[frame], self.offset[frame])

    def present(self, xp: Namespace, frame: int, row: Array) -> Array:
        """Return which of a frame's samples are present; `row` are its normalized ones."""
        mask = None if self.masks is None else self.masks[frame]
        weight = None if self.weights is None else self.weights[frame]
        return is_present(xp, row, mask, None if isinstance(weight, float) else weight)


class Task(NamedTuple):
    """What a program does to each pixel: all that is known before it is compiled.

    `weights` is ``"frames"`` where each frame has one, ``"samples"`` where each sample has, else None. `propagates`:
    the variance is made of the samples' variances.
    """

    rule: str
    combine: str
    center: str
    is_normalized: bool
    has_masks: bool
    weights: str | None
    propagates: bool
    weight_map: bool
    variance: bool
    bounds: bool
    extremes: bool = False

    @property
    def accumulates(self) -> bool:
        """Whether the samples are added up in the order of the frames."""
        return self.weights is not None or self.propagates or not self.sorts

    @property
    def is_empirical(self) -> bool:
        """Whether the variance is that of the samples about their mean; min and max have none."""
        return self.variance and not self.propagates and self.combine in _WITH_VARIANCE

    @property
    def sorts(self) -> bool:
        """Whether anything needs the samples in order."""
        return self.rule != "none" or self.combine not in WEIGHTED_COMBINATIONS or self.is_empirical or self.extremes


def task_of(samples: Samples, options: StackOptions, maps: frozenset[str]) -> Task:
    """Return what has to be done."""
    weights = None if samples.weights is None else "samples" if samples.weighs_samples else "frames"
    return Task(
        rule=options.rejection,
        combine=options.combine,
        center=options.center,
        is_normalized=samples.scale is not None,
        has_masks=samples.masks is not None,
        weights=weights,
        propagates="variance" in maps and samples.variances is not None and options.combine in _WITH_VARIANCE,
        weight_map="weight_map" in maps,
        variance="variance" in maps,
        bounds="bounds" in maps,
        extremes=not maps.isdisjoint(("low", "high")),
    )


def normalize(xp: Namespace, values: Array, scale: Array | float | None, offset: Array | float | None) -> Array:
    """Return values as float32, times a scale, plus an offset: two rounded operations."""
    row: Array = xp.astype(values, xp.float32)
    return row if scale is None or offset is None else row * scale + offset


def is_present(xp: Namespace, row: Array, mask: Array | None, weight: Array | None) -> Array:
    """Return which normalized samples are finite, not masked and of a weight above zero."""
    found: Array = xp.isfinite(row)
    if mask is not None:
        found = found & ~mask
    return found if weight is None else found & (weight > 0.0)


def sample_of(xp: Namespace, frame: Frame, task: Task) -> tuple[Array, Array]:
    """Return a frame's normalized sample, float32, and whether it is present."""
    scale, offset = (frame.number("scale"), frame.number("offset")) if task.is_normalized else (None, None)
    row = normalize(xp, frame.row("value"), scale, offset)
    mask = frame.row("mask") if task.has_masks else None
    return row, is_present(xp, row, mask, frame.row("weight") if task.weights == "samples" else None)
