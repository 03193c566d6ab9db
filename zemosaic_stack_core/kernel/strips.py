"""Stack a strip of pixels with nothing rejected, and find the pixels that the rule must look at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from zemosaic_stack_core.kernel.columns import CoreSums, Windows, gather_windows, windows_of
from zemosaic_stack_core.kernel.combination import Accumulated, Answer, Chosen, accumulate, combine
from zemosaic_stack_core.kernel.overview import look_at
from zemosaic_stack_core.kernel.rules import Rule
from zemosaic_stack_core.kernel.samples import Present, Samples, find_present
from zemosaic_stack_core.kernel.sorting import sort_frames
from zemosaic_stack_core.kernel.typing import Array, Namespace
from zemosaic_stack_core.options import StackOptions

#: Where windows are not enough, a strip is cut into so many.
CAREFUL_SHARE = 4


class Task(NamedTuple):
    """What has to be done, from the options and the maps.

    `bounds`: tell the values of the last samples kept. `in_strips`: go strip by strip, `step` pixels each.
    `is_careful`: look for missing samples, gather everything.
    """

    options: StackOptions
    rule: Rule | None
    weight_map: bool
    variance: bool
    accumulates: bool
    propagates: bool
    critical_values: Array | None
    step: int
    bounds: bool = False
    in_strips: bool = False
    is_careful: bool = False

    @property
    def sorts(self) -> bool:
        """Whether anything needs the samples in order."""
        return self.rule is not None or self.options.combine != "mean" or (self.variance and not self.propagates)

    @property
    def squares(self) -> bool:
        """Whether anything needs the sum of squares of all present samples."""
        is_empirical = self.variance and not self.propagates
        return is_empirical or (self.rule is not None and self.rule.uses_squares)

    def windows(self, frames: int) -> Windows | None:
        """Give the windows that are enough for the rule, None where full tables are gathered."""
        return None if self.rule is None or self.is_careful else windows_of(frames, self.rule.tail)

    def carefully(self, frames: int) -> Task:
        """Give the same task, with everything looked at; full tables take the memory of windows four times."""
        is_cut = self.in_strips and self.windows(frames) is not None
        step = max(1, self.step // CAREFUL_SHARE) if is_cut else self.step
        return self._replace(is_careful=True, step=step)

    def accumulate(self, xp: Namespace, samples: Samples, present: Present) -> Accumulated:
        """Sum the samples that `present` tells of."""
        return accumulate(xp, present.rows, present.masks, samples.weights, samples.variances, samples.scale)

    def combine(self, xp: Namespace, coverage: Array, chosen: Chosen | None, accumulated: Accumulated | None) -> Answer:
        """Combine samples from their order statistics, moments and sums."""
        return combine(
            xp, self.options.combine, coverage, chosen, accumulated, weight_map=self.weight_map, variance=self.variance
        )


class Strip(NamedTuple):
    """A strip with nothing rejected, and what the rule must look at: which pixels, their sorted samples and pivots.

    `candidates` is None for all pixels, else `places` are their indices; `incomplete` tells the pixels to be stacked
    again, None for none.
    """

    answer: Answer
    missing: Array
    incomplete: Array | None = None
    candidates: Array | None = None
    table: Array | None = None
    counts: Array | None = None
    pivot: Array | None = None
    core: CoreSums | None = None
    places: Array | None = None

    @property
    def gathered(self) -> int:
        """Number of pixels that the rule must look at."""
        return 0 if self.table is None else self.table.shape[1]


def stack_strip(xp: Namespace, samples: Samples, task: Task) -> Strip | None:
    """Combine all present samples of a strip, and find the pixels that the rule must look at.

    None where windows would be enough, but too many samples are missing: such a strip needs to be looked at carefully.
    """
    windows = task.windows(len(samples.values))
    present, missing = find_present(xp, samples, is_careful=task.is_careful)
    if windows is not None and present.counts is not None:
        return None
    first_row = present.rows[0]
    frames = len(present.rows)
    counts = xp.full_like(first_row, frames, dtype=xp.int32) if present.counts is None else present.counts
    if not task.sorts:
        sums = task.accumulate(xp, samples, present)
        incomplete = ~xp.isfinite(sums.value) if present.may_miss else None
        return Strip(task.combine(xp, counts, None, sums), missing, incomplete)
    rows = sort_frames(xp, present.rows)
    look = look_at(xp, rows, present, squares=task.squares, window=None if windows is None else windows.size)
    chosen = look.chosen
    incomplete = ~xp.isfinite(chosen.first) if present.may_miss else None
    accumulated = task.accumulate(xp, samples, present) if task.accumulates else None
    answer = task.combine(xp, counts, chosen, accumulated)
    if task.rule is None:
        return Strip(answer, missing, incomplete)
    candidates = None if incomplete is None else ~incomplete
    if task.rule.may_reject is not None:
        candidates = task.rule.may_reject(xp, look, task.options) & (counts > 0)
        if incomplete is not None:
            candidates = candidates & ~incomplete
    if candidates is None:
        return Strip(answer, missing, None, None, xp.stack(rows), present.counts, chosen.pivot)
    lane = xp.nonzero(candidates)[0]
    if windows is None:
        table = xp.stack([xp.take(row, lane, axis=0) for row in rows])
    else:
        table = gather_windows(xp, rows, windows, lane)
    return Strip(
        answer,
        missing,
        incomplete,
        candidates,
        table,
        None if present.counts is None else xp.take(present.counts, lane, axis=0),
        xp.take(chosen.pivot, lane, axis=0),
        None if look.core is None else CoreSums(*(xp.take(sums, lane, axis=0) for sums in look.core)),
        lane,
    )


def joined(xp: Namespace, parts: Sequence[Array | None]) -> Array:
    """Put the strips' parts end to end; None where there are none."""
    present = [part for part in parts if part is not None]
    if len(present) < 2:
        return present[0] if present else None  # type: ignore[return-value]
    joined: Array = xp.concat(present, axis=-1)
    return joined
