"""The functions that `tracing` traces, run on arrays as they stand: where there is no compiler, and to check those.

`Column` has the methods of `tracing.TracedColumn`, for all pixels of a chunk at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from zemosaic_stack_core.backends.inputs import Inputs

# Bytes a sample: the samples and what they are sorted with, running sums and their table, and rows in between.
PLAIN_BYTES = 64

_TYPES = {"f32": "float32", "f64": "float64", "i32": "int32", "bool": "bool"}

_Step = Callable[[Any, Any, list[Any]], Sequence[Any]]


class Frame:
    """What a step of a loop over frames sees of one frame."""

    def __init__(self, column: Column, index: int) -> None:
        self._column, self._index = column, index

    def has(self, name: str) -> bool:
        """Return whether the frames have such a row or number."""
        given = self._column.inputs
        return name in given.rows or name in given.numbers

    def number(self, name: str) -> Any:
        """Return a number of the frame, float32, shape ()."""
        column = self._column
        return column.xp.asarray(
            column.inputs.numbers[name][self._index], dtype=column.xp.float32, device=column.device
        )

    def row(self, name: str) -> Any:
        """Return one of the frame's rows, shape (pixel,)."""
        inputs = self._column.inputs
        row = inputs.rows[name][self._index]
        return row if name not in inputs.stored else _from_file(row, inputs.stored[name])

    def window(self, name: str, index: Any, count: int, offset: int = 0) -> list[Any]:
        """Return entries one after the other of one of the frame's rows."""
        return self._column.entries(self._column.inputs.rows[name][self._index], index, count, offset)

    def give(self, name: str, value: Any) -> None:
        """Make a row a result of the frame."""
        self._column.given.setdefault(name, []).append(value)

    def tally(self, name: str, mask: Any) -> None:
        """Count the pixels where a mask is true."""
        xp = self._column.xp
        counts = self._column.tallies.setdefault(name, [])
        # Loops that do not run leave no count: those of the frames before this one are then zero.
        counts += [xp.zeros((), dtype=xp.int64, device=self._column.device)] * (self._index - len(counts))
        counts.append(xp.asarray(xp.count_nonzero(mask), dtype=xp.int64))  # NumPy counts into a plain number


class Column:
    """All pixels of a chunk; see `tracing.TracedColumn`, which has the same methods."""

    def __init__(self, xp: Any, inputs: Inputs, device: Any) -> None:
        self.xp, self.inputs, self.device = xp, inputs, device
        self.tallies: dict[str, list[Any]] = {}
        self.given: dict[str, list[Any]] = {}
        self._samples: list[Any] = []
        self._flat: Any = None
        self._lane = xp.arange(inputs.pixels, dtype=xp.int64, device=device)

    @property
    def frames(self) -> Any:
        """The number of frames, int32, shape ()."""
        return self.xp.asarray(self.inputs.frames, dtype=self.xp.int32, device=self.device)

    def parameter(self, name: str) -> float:
        """Return a parameter."""
        return self.inputs.parameters[name]

    def count(self, name: str) -> int:
        """Return a parameter that is a whole number."""
        return int(self.inputs.parameters[name])

    def table(self, name: str) -> Any:
        """Return a table for `take`."""
        return self.inputs.tables[name]

    def whole(self, name: str) -> Any:
        """Return a row that all frames share."""
        return self.inputs.whole[name]

    def window(self, name: str, index: Any, count: int, offset: int = 0) -> list[Any]:
        """Return entries one after the other of a row that all frames share."""
        return self.entries(self.inputs.whole[name], index, count, offset)

    def entries(self, row: Any, index: Any, count: int, offset: int) -> list[Any]:
        """Return `count` entries of a row from each pixel's own index on."""
        first = self.xp.astype(index, self.xp.int64) + offset
        return [self.xp.take(row, first + place, axis=0) for place in range(count)]

    def full(self, value: float, dtype: str) -> Any:
        """Return a row of equal values."""
        return self.xp.full((self.inputs.pixels,), value, dtype=getattr(self.xp, _TYPES[dtype]), device=self.device)

    def visit(self, first: Sequence[Any], step: Callable[[Frame, list[Any]], Sequence[Any]]) -> list[Any]:
        """Carry rows through the frames."""
        carry = list(first)
        for index in range(self.inputs.frames):
            carry = list(step(Frame(self, index), carry))
        return carry

    def load(self, first: Sequence[Any], step: Callable[[Frame, list[Any]], tuple[Any, Sequence[Any]]]) -> list[Any]:
        """Fill the column, and carry rows."""
        carry, self._samples = list(first), []
        for index in range(self.inputs.frames):
            sample, last = step(Frame(self, index), carry)
            self._samples.append(sample)
            carry = list(last)
        self._flatten(self.xp.stack(self._samples))
        return carry

    def sort(self) -> None:
        """Sort over the frames; equal values have equal bits here, so stability buys nothing and costs much."""
        xp = self.xp
        by_pixel = xp.sort(xp.stack(self._samples, axis=-1), axis=-1, stable=False)
        by_rank = xp.asarray(xp.permute_dims(by_pixel, (1, 0)), copy=True)
        self._samples = [by_rank[rank, ...] for rank in range(self.inputs.frames)]
        self._flatten(by_rank)

    def at(self, rank: Any) -> Any:
        """Return each pixel's sample at its own rank."""
        return self._look_up(self._flat, rank)

    def fold(self, order: str, first: Sequence[Any], step: _Step) -> list[Any]:
        """Carry rows through the ranks, ``above`` or ``below`` the middle one."""
        carry = list(first)
        for rank in self._ranks(order):
            carry = list(step(self._number(rank), self._samples[rank], carry))
        return carry

    def running(self, first: Sequence[Any], above: _Step, below: _Step) -> Callable[[int, Any], Any]:
        """Fold both ways and keep what was carried at each place between ranks."""
        kept: list[list[Any]] = [[row] * (self.inputs.frames + 1) for row in first]
        for order, step, further in (("above", above, 1), ("below", below, 0)):
            carry = list(first)
            for rank in self._ranks(order):
                carry = list(step(self._number(rank), self._samples[rank], carry))
                for rows, row in zip(kept, carry, strict=True):
                    rows[rank + further] = row
        tables = [self.xp.reshape(self.xp.stack(rows), (-1,)) for rows in kept]
        return lambda which, place: self._look_up(tables[which], place)

    def repeat(
        self,
        limit: int,
        first: Sequence[Any],
        live: Any,
        step: Callable[[list[Any]], tuple[Sequence[Any], Any]],
    ) -> list[Any]:
        """Repeat where a pixel is live, at most `limit` times."""
        xp, carry = self.xp, list(first)
        for _ in range(int(limit)):
            if not xp.any(live):
                break
            new, goes_on = step(carry)
            carry = [xp.where(live, row, old) for row, old in zip(new, carry, strict=True)]
            live = live & goes_on
        return carry

    def when(self, live: Any, step: Callable[[], None]) -> None:
        """Make a step where any pixel is live."""
        if self.xp.any(live):
            step()

    def _ranks(self, order: str) -> range:
        """Return the ranks of a fold, in order."""
        middle = self.inputs.frames // 2
        return range(middle, self.inputs.frames) if order == "above" else range(middle - 1, -1, -1)

    def _number(self, rank: int) -> Any:
        """Return a rank as an array of shape ()."""
        return self.xp.asarray(rank, dtype=self.xp.int32, device=self.device)

    def _flatten(self, table: Any) -> None:
        """Keep the samples in one row, for ranks of each pixel's own."""
        self._flat = self.xp.reshape(table, (-1,))

    def _look_up(self, flat: Any, place: Any) -> Any:
        """Return each pixel's entry at its own place."""
        return self.xp.take(flat, self.xp.astype(place, self.xp.int64) * self.inputs.pixels + self._lane, axis=0)


def _from_file(words: Any, stored: str) -> Any:
    """Return the words of a file as numbers, on NumPy: no other library without a compiler is handed any."""
    if stored == "u16flip":
        return words.view(">u2") ^ 0x8000
    return words.view({"f32be": ">f4", "i16be": ">i2"}[stored])


def run_plainly(
    xp: Any, function: Callable[..., dict[str, Any]], task: Any, inputs: Inputs, device: Any = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the results of a function by name, and its counts of frames: shape (frame,), int64."""
    column = Column(xp, inputs, device)
    results = function(xp, column, task)
    results |= {name: xp.stack(rows) for name, rows in column.given.items()}
    zero = xp.zeros((), dtype=xp.int64, device=device)
    counts = {
        name: xp.stack([*found, *[zero] * (inputs.frames - len(found))]) for name, found in column.tallies.items()
    }
    return results, counts
