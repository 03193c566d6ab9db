"""THE kernel: samples of one chunk and channel in, combined values and counts out.

There is one, for every backend: `pixel.stack_pixel` says what happens to a pixel, operation by operation; the backend
compiles that for wherever its arrays are, or runs it on them as it stands. What makes the answer the same to the last
bit everywhere is what it is made of: element by element ``+ - * / sqrt``, comparisons, minimum, maximum, selections,
sorting, look-ups and exact counts, each rounded once, over the frames and ranks in a fixed order.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any, NamedTuple

from zemosaic_stack_core.backends.inputs import Inputs
from zemosaic_stack_core.kernel.pixel import stack_pixel
from zemosaic_stack_core.kernel.samples import Samples, Task, task_of
from zemosaic_stack_core.kernel.typing import Array
from zemosaic_stack_core.options import StackOptions

# Counts above this are as good as this: twice it is an int32.
MOST = 1 << 29

__all__ = ["ChunkResult", "CriticalValues", "Samples", "stack_chunk"]


class ChunkResult(NamedTuple):
    """What a chunk gives: arrays of shape (pixel,), and counts of shape (frame,), int64.

    `image` float32, NaN where `coverage` is 0; `coverage`, `rejected_low`, `rejected_high` int32; `weight_map`,
    `variance`, `low` and `high` (the smallest and the largest kept sample) float32, None unless asked for; so
    `kept_low` and `kept_high`: present samples below the one or above the other were rejected, and no others (infinite
    where none was).
    """

    image: Array
    coverage: Array
    rejected_low: Array
    rejected_high: Array
    weight_map: Array | None
    variance: Array | None
    low: Array | None
    high: Array | None
    kept_low: Array | None
    kept_high: Array | None
    frame_rejected_low: Array
    frame_rejected_high: Array
    frame_missing: Array


class CriticalValues(NamedTuple):
    """Critical values of ``gesd``, flat float64: that of the ``i``-th outlier among ``n`` at ``n * (most + 1) + i``."""

    values: Any
    most: int


def stack_chunk(
    backend: Any,
    samples: Samples,
    options: StackOptions,
    *,
    maps: Collection[str] = (),
    critical_values: CriticalValues | None = None,
) -> ChunkResult:
    """Reject and combine the samples of one chunk of one channel.

    Parameters
    ----------
    backend : Backend
        Where the samples are.
    samples : Samples
        At least one frame; none is written to.
    options : StackOptions
        Rule and combination; normalization and weighting have become numbers in `samples` by now.
    maps : collection of str
        ``"weight_map"``, ``"variance"``, ``"low"``, ``"high"`` and ``"bounds"`` (`kept_low`, `kept_high`) where they
        are wanted; the other maps come with every answer.
    critical_values : CriticalValues, or None
        Those of ``gesd``.

    Returns
    -------
    ChunkResult
        The same bits whatever the size of the chunk and whichever the backend.
    """
    task = task_of(samples, options, frozenset(maps))
    results, counts = backend.compiled(stack_pixel, task)(_inputs(backend, samples, options, task, critical_values))
    zeros = backend.xp.zeros((len(samples.values),), dtype=backend.xp.int64, device=backend.device)
    return ChunkResult(
        image=results["image"],
        coverage=results["coverage"],
        rejected_low=results["rejected_low"],
        rejected_high=results["rejected_high"],
        weight_map=results.get("weight_map"),
        variance=results.get("variance"),
        low=results.get("low"),
        high=results.get("high"),
        kept_low=results.get("kept_low"),
        kept_high=results.get("kept_high"),
        frame_rejected_low=counts.get("rejected_low", zeros),
        frame_rejected_high=counts.get("rejected_high", zeros),
        frame_missing=counts["missing"],
    )


def _inputs(
    backend: Any, samples: Samples, options: StackOptions, task: Task, critical_values: CriticalValues | None
) -> Inputs:
    """Return what the program is handed."""
    frames, pixels = len(samples.values), samples.values[0].shape[0]
    rows: dict[str, Any] = {"value": samples.values}
    numbers: dict[str, Any] = {}
    if samples.masks is not None:
        nothing = backend.xp.zeros((pixels,), dtype=backend.xp.bool, device=backend.device)
        rows["mask"] = [nothing if mask is None else mask for mask in samples.masks]
    if samples.scale is not None:
        numbers |= {"scale": samples.scale, "offset": samples.offset}
    if task.weights == "frames":
        numbers["weight"] = samples.weights
    elif samples.weights is not None:
        rows["weight"] = samples.weights
    if task.propagates:
        rows["variance"] = samples.variances
    tables = {} if critical_values is None else {"critical_values": critical_values.values}
    most = 0 if critical_values is None else critical_values.most
    stored = {"value": samples.stored} if samples.stored else {}
    return Inputs(frames, pixels, rows, numbers, _parameters(options) | {"most": most}, tables, stored=stored)


def _parameters(options: StackOptions) -> dict[str, float]:
    """Return the numbers that rules look up.

    No bound is one times infinity: of a spread of 0 that is NaN, which no sample is below or above.
    """
    numbers = ("kappa_low", "kappa_high", "p_low", "p_high", "gain", "read_noise", "sensitivity", "outlier_fraction")
    counts = ("max_iterations", "n_low", "n_high")
    return {
        **{name: _or_none(getattr(options, name), math.inf) for name in numbers},
        **{name: min(_or_none(getattr(options, name), MOST), MOST) for name in counts},
        "winsor_low": options.winsor_limits[0],
        "winsor_high": options.winsor_limits[1],
    }


def _or_none(value: float | None, none: float) -> float:
    """Return a number, or what stands for none."""
    return none if value is None else float(value)
