"""A pixel's samples in order, and what rules of rejection ask of them: medians, sums over intervals, searches.

Where samples are missing, half of them (within one) stand as the lowest numbers there are and half as the highest, so
that the middle rank is the pixel's own middle sample. Sums are taken from there outwards: a wild sample at an end, once
outside the interval, leaves no rounding behind, and a sum has the same terms in the same order whatever is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from zemosaic_stack_core.kernel.combination import standard_deviation
from zemosaic_stack_core.kernel.typing import Array, Column, Namespace

# Largest float32: stands where a sample is missing. Its square is finite in float64, and a sample that really has this
# value is told from a missing one by the counts.
LARGEST = 3.4028234663852886e38


class Interval(NamedTuple):
    """Kept ranks ``start <= r < stop`` of each pixel, int32."""

    start: Array
    stop: Array


class Bounds(NamedTuple):
    """Values between which samples are kept, float64; a sample equal to one of them is kept."""

    low: Array
    high: Array


class Ranks:
    """The sorted present samples of a pixel: those of the ranks `present`.

    `clamp` are values (float32) that samples are moved to where they lie outside them, None for none.
    """

    def __init__(
        self, xp: Namespace, column: Column, present: Interval, clamp: tuple[Array, Array] | None = None
    ) -> None:
        self.xp, self.column, self.present, self._clamp = xp, column, present, clamp
        self.top = column.frames - 1
        self.bottom = xp.zeros_like(self.top)
        self.pivot = self.value(self._lower_middle(present))
        self._look_up: Callable[[int, Array], Array] | None = None
        self._of_sums = 0

    def clamped(self, low: Array, high: Array) -> Ranks:
        """Return the same ranks with the samples moved between two values."""
        return Ranks(self.xp, self.column, self.present, (low, high))

    def sample(self, rank: Array) -> Array:
        """Return the sample of a rank, float32; of a rank that is none, that of the nearest."""
        xp = self.xp
        return self._moved(self.column.at(xp.minimum(xp.maximum(rank, self.bottom), self.top)))

    def value(self, rank: Array) -> Array:
        """Return the sample of a rank, float64."""
        return self.xp.astype(self.sample(rank), self.xp.float64)

    def median(self, kept: Interval) -> Array:
        """Return the median, float64; the midpoint of two samples where they are even in number."""
        return (self.value(self._lower_middle(kept)) + self.value((kept.start + kept.stop) // 2)) * 0.5

    def add_up(self, *, squares: bool, sums_of_sums: bool = False) -> None:
        """Sum ``d = value - pivot`` (and ``d*d``, and those sums) from the middle rank outwards, for `sums`.

        Below the middle the sums are negative, so that a sum over an interval is the difference of two entries.
        """
        xp, first = self.xp, [self.column.full(0.0, "f64")] * (1 + squares + sums_of_sums)

        def terms(rank: Array, sample: Array) -> Array:
            d = xp.astype(self._moved(sample), xp.float64) - self.pivot
            return xp.where(self.holds(rank), d, xp.zeros_like(d))

        def above(rank: Array, sample: Array, carry: Sequence[Array]) -> list[Array]:
            d = terms(rank, sample)
            more = [carry[1] + d * d] if squares else []
            return [carry[0] + d, *more, *([carry[-1] + carry[0]] if sums_of_sums else [])]

        def below(rank: Array, sample: Array, carry: Sequence[Array]) -> list[Array]:
            d = terms(rank, sample)
            total = carry[0] - d
            more = [carry[1] - d * d] if squares else []
            return [total, *more, *([carry[-1] - total] if sums_of_sums else [])]

        self._look_up, self._of_sums = self.column.running(first, above, below), 1 + squares

    def sum_up_to(self, place: Array, which: int = 0) -> Array:
        """Return an entry of the running sums of ``d`` (or, 1, of ``d*d``) at a place between ranks."""
        assert self._look_up is not None  # noqa: S101 - the catalogue says which rules need sums
        return self._look_up(which, place)

    def sum_of_sums_up_to(self, place: Array) -> Array:
        """Return an entry of the running sums of the running sums of `d` at a place between ranks."""
        assert self._look_up is not None  # noqa: S101 - the catalogue says which rules need sums
        return self._look_up(self._of_sums, place)

    def sums(self, kept: Interval) -> tuple[Array, Array]:
        """Return the sums of ``d`` and ``d*d`` over an interval, float64."""
        return tuple(self.sum_up_to(kept.stop, which) - self.sum_up_to(kept.start, which) for which in (0, 1))  # type: ignore[return-value]

    def total(self, kept: Interval) -> Array:
        """Return the sum of ``d`` over an interval, float64."""
        return self.sum_up_to(kept.stop) - self.sum_up_to(kept.start)

    def deviation(self, kept: Interval, ddof: int) -> Array:
        """Return the standard deviation of an interval's samples, float64."""
        return standard_deviation(self.xp, *self.sums(kept), self.number(kept), ddof)

    def number(self, kept: Interval) -> Array:
        """Return the number of samples of an interval, float64."""
        return self.xp.astype(kept.stop - kept.start, self.xp.float64)

    def holds(self, rank: Array) -> Array:
        """Return whether a rank holds a present sample."""
        return (self.present.start <= rank) & (self.present.stop > rank)

    def within(self, bounds: Bounds, kept: Interval | None = None) -> Interval:
        """Return the ranks of an interval (all present samples) whose values lie within bounds."""
        start, stop = self.present if kept is None else kept
        number = stop - start
        below, above = self.runs(
            (number, lambda step: self.value(start + step) < bounds.low),
            (number, lambda step: self.value(stop - 1 - step) > bounds.high),
        )
        return Interval(start + below, stop - above)

    def runs(self, *searches: tuple[Array, Callable[[Array], Array]], leaps: bool = True) -> list[Array]:
        """Return for how many of the steps 0, 1, ... ``number - 1`` a condition is true that, once false, stays so.

        There is a pair of a number and a condition for each search; all are made in one loop. First come steps twice
        as long each time (`leaps`), as most runs are short, then halves of what is left.
        """
        xp = self.xp
        zero = xp.zeros_like(searches[0][0])

        def look(carry: Sequence[Array]) -> tuple[list[Array], Array]:
            rows, goes_on = [], None
            for place, (_, is_out) in enumerate(searches):
                low, high, stride = carry[3 * place : 3 * place + 3]
                probed = xp.where(stride > 0, xp.minimum(low + stride, high) - 1, (low + high) // 2)
                is_open, out = low < high, is_out(probed)
                low, high = xp.where(is_open & out, probed + 1, low), xp.where(is_open & ~out, probed, high)
                rows += [low, high, xp.where(out, stride + stride, zero)]
                goes_on = low < high if goes_on is None else goes_on | (low < high)
            assert goes_on is not None  # noqa: S101 - there is a search
            return rows, goes_on

        first: list[Array] = []
        live = zero > zero
        for number, _ in searches:
            first += [zero, number, zero + int(leaps)]
            live = live | (zero < number)
        return self.column.repeat(self.column.frames + self.column.frames, first, live, look)[::3]

    def shrink(
        self,
        step: Callable[[Interval], tuple[Interval, Interval]],
        *,
        limit: Array | int,
        needed: int = 1,
        left: int = 1,
    ) -> tuple[Interval, Interval]:
        """Replace the kept interval by ``step(kept)`` until nothing more is rejected; return the last step made.

        A step returns what it keeps, and all ranks within its bounds, those that were rejected before included. One
        that would leave fewer than `left` samples is not applied; one needs `needed` of them.
        """
        xp, present = self.xp, self.present

        def iterate(carry: Sequence[Array]) -> tuple[list[Array], Array]:
            before = Interval(carry[0], carry[1])
            kept, within = step(before)
            number = kept.stop - kept.start
            is_applied = number >= left
            rows = [xp.where(is_applied, new, old) for new, old in zip((*kept, *within), carry, strict=True)]
            return rows, is_applied & (number < before.stop - before.start) & (number >= needed)

        start = [*present, *present]
        rows = self.column.repeat(limit, start, present.stop - present.start >= needed, iterate)
        return Interval(rows[0], rows[1]), Interval(rows[2], rows[3])

    def clip(self, bounds: Bounds, kept: Interval) -> tuple[Interval, Interval]:
        """Return an interval less what is outside the bounds, and all present ranks within them."""
        xp = self.xp
        within = self.within(bounds)
        return Interval(xp.maximum(within.start, kept.start), xp.minimum(within.stop, kept.stop)), within

    def with_ties(self, kept: Interval) -> Interval:
        """Take back the samples that equal the smallest or the largest kept one: equal samples share their fate."""
        xp, present = self.xp, self.present
        low, high = self.sample(kept.start), self.sample(kept.stop - 1)
        is_tied = (self.sample(kept.start - 1) >= low) & (kept.start > present.start)
        is_tied = is_tied | ((self.sample(kept.stop) <= high) & (kept.stop < present.stop))
        zero = xp.zeros_like(kept.start)

        def back(carry: Sequence[Array]) -> tuple[list[Array], Array]:
            del carry
            runs = self.runs(
                (kept.start - present.start, lambda step: self.sample(kept.start - 1 - step) >= low),
                (present.stop - kept.stop, lambda step: self.sample(kept.stop + step) <= high),
            )
            return runs, is_tied

        below, above = self.column.repeat(1, [zero, zero], is_tied, back)
        return Interval(kept.start - below, kept.stop + above)

    def _moved(self, sample: Array) -> Array:
        """Return a sample moved between the clamp's values."""
        if self._clamp is None:
            return sample
        low, high = self._clamp
        return self.xp.minimum(self.xp.maximum(sample, low), high)

    def _lower_middle(self, kept: Interval) -> Array:
        """Return the rank of the lower of the two middle samples."""
        return (kept.start + kept.stop - 1) // 2
