"""What a function written against the array API does to each pixel, recorded once.

`trace` calls a function with symbols in place of arrays. Every operation becomes a line of a `Program`, equal lines
once; nothing is computed. A compiler makes machine code of the program for wherever the arrays are: see `llvm` and
`cuda_source`; `plain` runs the same function on arrays as they stand.

A function has the form ``function(xp, column, task)``. `xp` has the elementwise part of the array API (here
`TracingNamespace`). `column` is one pixel with a sample of each frame: what was read of each frame, a column of
samples that can be sorted, and loops over frames and ranks. What it can do is `TracedColumn`'s methods; `plain.Column`
has the same. `task` is whatever the function needs to know before it is compiled; it must be hashable.

The number of frames, the number of pixels and the parameters are known when a program runs, not when it is traced.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from zemosaic_stack_core.backends.inputs import STORED_TYPES, Layout

F32, F64, I32, BOOL = "f32", "f64", "i32", "bool"
FLOATS = (F32, F64)
# Types of samples as they are read; each is converted to float32 by one rounding at most.
READ_TYPES = ("u8", "i16", "u16", I32, F32, F64, *STORED_TYPES)

# Most entries of a row that are read at once, and how many from an index on may be read to no use.
WINDOW, WINDOW_ROOM = 8, 24

# Types that an operation takes; others would mean something else to each compiler, as u16 that is compared as i16.
_NUMBERS = (F32, F64, I32)
_TAKEN = {
    **dict.fromkeys(("add", "sub", "mul", "neg", "min", "max", "lt", "le", "gt", "ge"), _NUMBERS),
    **dict.fromkeys(("eq", "ne"), (*_NUMBERS, BOOL)),
    **dict.fromkeys(("div", "sqrt", "abs", "round", "floor"), FLOATS),
    **dict.fromkeys(("and", "or", "not"), (BOOL,)),
    "half": (I32,),
}
_CASTS = {(F32, F64), (F64, F32), (I32, F64), (I32, F32), (F64, I32), (BOOL, I32), (BOOL, F64), (BOOL, F32)}


class Line(NamedTuple):
    """An operation on earlier values, named by their numbers; `number` is its own, -1 where it has no value."""

    number: int
    operation: str
    dtype: str
    operands: tuple[Any, ...]


class Loop(NamedTuple):
    """A loop: `carried` are the numbers of what it carries, within it and after it; `body` ends with new values `last`.

    `kind` is ``frames``, ``above`` (ranks from the middle one up), ``below`` (from the one below the middle down) or
    ``while``: as long as `live`, one of the carried, is true for any pixel, and at most `limit` times.
    """

    kind: str
    counter: int
    carried: tuple[int, ...]
    first: tuple[int, ...]
    body: list[Line | Loop]
    last: tuple[int, ...]
    limit: int = -1
    live: int = -1


@dataclass
class Program:
    """All lines, in order, and what they result in: pairs of a name and the number of a value."""

    layout: Layout
    lines: list[Line | Loop] = field(default_factory=list)
    types: list[str] = field(default_factory=list)
    results: list[tuple[str, int]] = field(default_factory=list)
    # Results of each frame: name and type.
    given: list[tuple[str, str]] = field(default_factory=list)
    tallies: list[str] = field(default_factory=list)
    columns: int = 0


class Symbol:
    """A value of the program that every pixel has; arithmetic on it is recorded."""

    __slots__ = ("dtype", "number", "recorder")
    __hash__ = None  # type: ignore[assignment]  # == is recorded

    def __init__(self, recorder: Recorder, number: int, dtype: str) -> None:
        self.recorder, self.number, self.dtype = recorder, number, dtype

    def __bool__(self) -> bool:
        raise TypeError("a condition on a traced value; expected xp.where, or a loop of the column's")

    def _with(self, operation: str, other: Any, *, swapped: bool = False, dtype: str | None = None) -> Symbol:
        other = self.recorder.symbol_of(other, self.dtype)
        if other.dtype != self.dtype:
            raise TypeError(f"{operation} of {self.dtype} and {other.dtype}; expected equal types: see astype")
        first, second = (other, self) if swapped else (self, other)
        return self.recorder.record(operation, dtype or self.dtype, first, second)

    def __add__(self, other: Any) -> Symbol:
        return self._with("add", other)

    def __radd__(self, other: Any) -> Symbol:
        return self._with("add", other, swapped=True)

    def __sub__(self, other: Any) -> Symbol:
        return self._with("sub", other)

    def __rsub__(self, other: Any) -> Symbol:
        return self._with("sub", other, swapped=True)

    def __mul__(self, other: Any) -> Symbol:
        return self._with("mul", other)

    def __rmul__(self, other: Any) -> Symbol:
        return self._with("mul", other, swapped=True)

    def __truediv__(self, other: Any) -> Symbol:
        if self.dtype not in FLOATS:
            raise TypeError(f"/ of {self.dtype}; expected floats")
        return self._with("div", other)

    def __rtruediv__(self, other: Any) -> Symbol:
        return self.recorder.symbol_of(other, self.dtype) / self

    def __floordiv__(self, other: Any) -> Symbol:
        if self.dtype != I32 or other != 2:
            raise TypeError(f"// of {self.dtype} by {other!r}; expected int32 by 2")
        return self.recorder.record("half", I32, self)

    def __neg__(self) -> Symbol:
        return self.recorder.record("neg", self.dtype, self)

    def __invert__(self) -> Symbol:
        return self.recorder.record("not", BOOL, self)

    def __and__(self, other: Any) -> Symbol:
        return self._with("and", other)

    def __or__(self, other: Any) -> Symbol:
        return self._with("or", other)

    def __lt__(self, other: Any) -> Symbol:
        return self._with("lt", other, dtype=BOOL)

    def __le__(self, other: Any) -> Symbol:
        return self._with("le", other, dtype=BOOL)

    def __gt__(self, other: Any) -> Symbol:
        return self._with("gt", other, dtype=BOOL)

    def __ge__(self, other: Any) -> Symbol:
        return self._with("ge", other, dtype=BOOL)

    def __eq__(self, other: Any) -> Symbol:  # type: ignore[override]
        return self._with("eq", other, dtype=BOOL)

    def __ne__(self, other: Any) -> Symbol:  # type: ignore[override]
        return self._with("ne", other, dtype=BOOL)


class Recorder:
    """Writes the lines of a program; those that are known already, in this loop or around it, are not written again."""

    def __init__(self, layout: Layout) -> None:
        self.program = Program(layout)
        self._open: list[tuple[list[Line | Loop], dict[tuple[Any, ...], int]]] = [(self.program.lines, {})]

    def new(self, dtype: str) -> int:
        """Return the number of a new value."""
        self.program.types.append(dtype)
        return len(self.program.types) - 1

    def record(self, operation: str, dtype: str, *operands: Any) -> Symbol:
        """Return the value of an operation, which depends on nothing but its operands."""
        _check_types(operation, dtype, operands)
        key = (operation, dtype, *(operand.number if isinstance(operand, Symbol) else operand for operand in operands))
        for _, known in self._open:
            if key in known:
                return Symbol(self, known[key], dtype)
        lines, known = self._open[-1]
        number = known[key] = self.new(dtype)
        lines.append(Line(number, operation, dtype, key[2:]))
        return Symbol(self, number, dtype)

    def state(self, operation: str, *operands: Any, dtype: str = "") -> Symbol:
        """Record an operation that reads or writes what is kept beside the values: it stands where it was recorded."""
        number = self.new(dtype) if dtype else -1
        numbers = tuple(operand.number if isinstance(operand, Symbol) else operand for operand in operands)
        self._open[-1][0].append(Line(number, operation, dtype, numbers))
        return Symbol(self, number, dtype)

    def symbol_of(self, value: Any, dtype: str) -> Symbol:
        """Return a value as a symbol: a number as a constant of that type."""
        if isinstance(value, Symbol):
            return value
        if dtype not in FLOATS and value % 1:
            raise TypeError(f"{value!r} for {dtype}; expected a whole number")
        # The sign tells the two zeros apart, which are equal.
        number = float(value) if dtype in FLOATS else int(value)
        return self.record("constant", dtype, number, math.copysign(1.0, number))

    @contextmanager
    def block(self) -> Iterator[list[Line | Loop]]:
        """Record into a block of its own: the body of a loop."""
        lines: list[Line | Loop] = []
        self._open.append((lines, {}))
        try:
            yield lines
        finally:
            self._open.pop()

    def loop(
        self,
        kind: str,
        first: Sequence[Symbol],
        step: Callable[[Symbol, list[Symbol]], Sequence[Symbol]],
        limit: Symbol | None = None,
    ) -> list[Symbol]:
        """Record a loop; of a ``while`` loop the last of what it carries says where it goes on."""
        counter = Symbol(self, self.new(I32), I32)
        carried = [Symbol(self, self.new(symbol.dtype), symbol.dtype) for symbol in first]
        with self.block() as body:
            last = list(step(counter, carried))
        if [symbol.dtype for symbol in last] != [symbol.dtype for symbol in first]:
            raise TypeError(f"a loop carries {[s.dtype for s in first]} and ends with {[s.dtype for s in last]}")
        numbers = [tuple(symbol.number for symbol in symbols) for symbols in (carried, first, last)]
        self._open[-1][0].append(
            Loop(
                kind,
                counter.number,
                numbers[0],
                numbers[1],
                body,
                numbers[2],
                limit=-1 if limit is None else limit.number,
                live=numbers[0][-1] if kind == "while" else -1,
            )
        )
        return carried


def _check_types(operation: str, dtype: str, operands: Sequence[Any]) -> None:
    """Raise where an operation does not take such operands."""
    of = operands[0].dtype if operands and isinstance(operands[0], Symbol) else ""
    if operation in _TAKEN and of not in _TAKEN[operation]:
        raise TypeError(f"{operation} of {of}; expected {' or '.join(_TAKEN[operation])}: see astype")
    if operation == "cast" and (of, dtype) not in _CASTS and not (of in READ_TYPES and dtype == F32):
        raise TypeError(f"{of} as {dtype}; expected what is read as f32 first, or numbers among each other")


class TracingNamespace:
    """The elementwise part of the array API, on symbols. What is not here is not elementwise, or no rule needs it."""

    float32, float64, int32, bool = F32, F64, I32, BOOL

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"xp.{name} can't be traced; expected an elementwise operation of TracingNamespace")

    @staticmethod
    def minimum(first: Symbol, second: Any) -> Symbol:
        """Return the smaller; the first where they are equal. NaN must not reach it."""
        return first._with("min", second)

    @staticmethod
    def maximum(first: Symbol, second: Any) -> Symbol:
        """Return the larger; the first where they are equal. NaN must not reach it."""
        return first._with("max", second)

    @staticmethod
    def where(mask: Symbol, first: Any, second: Any) -> Symbol:
        """Return the first where the mask is true, else the second."""
        dtype = first.dtype if isinstance(first, Symbol) else second.dtype
        recorder = mask.recorder
        pair = recorder.symbol_of(first, dtype), recorder.symbol_of(second, dtype)
        if pair[0].dtype != pair[1].dtype:
            raise TypeError(f"where of {pair[0].dtype} and {pair[1].dtype}; expected equal types: see astype")
        return recorder.record("select", dtype, mask, *pair)

    @staticmethod
    def sqrt(value: Symbol) -> Symbol:
        """Return the square root, rounded once."""
        return value.recorder.record("sqrt", value.dtype, value)

    @staticmethod
    def abs(value: Symbol) -> Symbol:
        """Return the value without its sign."""
        return value.recorder.record("abs", value.dtype, value)

    @staticmethod
    def round(value: Symbol) -> Symbol:
        """Return the nearest whole number, halves to even."""
        return value.recorder.record("round", value.dtype, value)

    @staticmethod
    def floor(value: Symbol) -> Symbol:
        """Return the next whole number below."""
        return value.recorder.record("floor", value.dtype, value)

    @staticmethod
    def isfinite(value: Symbol) -> Symbol:
        """Return whether the value is neither NaN nor infinite; whole numbers always are."""
        return value.recorder.record("isfinite", BOOL, value)

    @staticmethod
    def astype(value: Symbol, dtype: str) -> Symbol:
        """Return the value as another type; a float that becomes int32 must be whole and in range."""
        return value if value.dtype == dtype else value.recorder.record("cast", dtype, value)

    @staticmethod
    def full_like(value: Symbol, number: float, dtype: str | None = None) -> Symbol:
        """Return a constant of the value's type, or another."""
        return value.recorder.symbol_of(number, dtype or value.dtype)

    @classmethod
    def zeros_like(cls, value: Symbol, dtype: str | None = None) -> Symbol:
        """Return zero of the value's type, or another."""
        return cls.full_like(value, 0, dtype)

    @classmethod
    def ones_like(cls, value: Symbol, dtype: str | None = None) -> Symbol:
        """Return one of the value's type, or another."""
        return cls.full_like(value, 1, dtype)

    @staticmethod
    def take(table: Table, index: Symbol) -> Symbol:
        """Return the entry of a table at an index (int32) that each pixel has its own of; it must be in range."""
        return index.recorder.record("take", F64, table.place, index)


class Table(NamedTuple):
    """A table that is handed to the program; `place` is its place among them."""

    place: int


class TracedColumn:
    """One pixel: what was read of each frame, a column with a sample for each, and loops over frames and ranks."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._layout = recorder.program.layout

    @property
    def frames(self) -> Symbol:
        """The number of frames, int32."""
        return self._recorder.record("frames", I32)

    def parameter(self, name: str) -> Symbol:
        """Return a parameter, float64."""
        return self._recorder.record("parameter", F64, self._layout.parameters.index(name))

    def count(self, name: str) -> Symbol:
        """Return a parameter that is a whole number, int32."""
        return TracingNamespace.astype(self.parameter(name), I32)

    def table(self, name: str) -> Table:
        """Return a table for `take`."""
        return Table(self._layout.tables.index(name))

    def whole(self, name: str) -> Symbol:
        """Return the pixel's value of a row that all frames share."""
        names = [known for known, _ in self._layout.whole]
        place = names.index(name)
        return self._recorder.record("whole", self._layout.whole[place][1], place)

    def window(self, name: str, index: Symbol, count: int, offset: int = 0) -> list[Symbol]:
        """Return `count` entries, float32, one after the other of a row that all frames share; see `TracedFrame`'s."""
        names = [known for known, _ in self._layout.whole]
        return _window(index, count, offset, self._layout.whole[names.index(name)][1], (names.index(name), None))

    def full(self, value: float, dtype: str) -> Symbol:
        """Return a constant."""
        return self._recorder.symbol_of(value, dtype)

    def visit(
        self, first: Sequence[Symbol], step: Callable[[TracedFrame, list[Symbol]], Sequence[Symbol]]
    ) -> list[Symbol]:
        """Carry values through ``step(frame, carried) -> carried``, frame after frame."""
        return self._recorder.loop("frames", first, lambda counter, carry: step(TracedFrame(self, counter), carry))

    def load(
        self, first: Sequence[Symbol], step: Callable[[TracedFrame, list[Symbol]], tuple[Symbol, Sequence[Symbol]]]
    ) -> list[Symbol]:
        """Fill the column: as `visit`, but the step gives the frame's sample (float32) beside what is carried."""

        def filling(counter: Symbol, carry: list[Symbol]) -> Sequence[Symbol]:
            sample, last = step(TracedFrame(self, counter), carry)
            self._recorder.state("store", 0, counter, 0, sample)
            return last

        return self._recorder.loop("frames", first, filling)

    def sort(self) -> None:
        """Sort the column's samples ascending; there is no NaN among them."""
        self._recorder.state("sort")

    def at(self, rank: Symbol) -> Symbol:
        """Return the column's sample at a rank (int32) that each pixel has its own of; it must be in range."""
        return self._recorder.state("gather", 0, rank, dtype=F32)

    def fold(
        self,
        order: str,
        first: Sequence[Symbol],
        step: Callable[[Symbol, Symbol, list[Symbol]], Sequence[Symbol]],
    ) -> list[Symbol]:
        """Carry values through ``step(rank, sample, carried)``, ``above`` from the middle rank up or ``below`` it down.

        The middle rank is ``frames // 2``.
        """

        def folding(counter: Symbol, carry: list[Symbol]) -> Sequence[Symbol]:
            return step(counter, self._recorder.state("fetch", 0, counter, dtype=F32), carry)

        return self._recorder.loop(order, first, folding)

    def running(
        self,
        first: Sequence[Symbol],
        above: Callable[[Symbol, Symbol, list[Symbol]], Sequence[Symbol]],
        below: Callable[[Symbol, Symbol, list[Symbol]], Sequence[Symbol]],
    ) -> Callable[[int, Symbol], Symbol]:
        """Fold both ways and keep what was carried, float64, at each of the ``frames + 1`` places between ranks.

        Returns ``look_up(which, place)``, `place` being int32: 0 before the first rank, ``frames // 2`` where the folds
        begin, ``frames`` after the last.
        """
        recorder = self._recorder
        tables = [recorder.program.columns + 1 + place for place in range(len(first))]
        recorder.program.columns += len(first)
        for table, symbol in zip(tables, first, strict=True):
            recorder.state("store", table, "middle", 0, symbol)

        def keeping(
            step: Callable[[Symbol, Symbol, list[Symbol]], Sequence[Symbol]], further: int
        ) -> Callable[[Symbol, Symbol, list[Symbol]], Sequence[Symbol]]:
            def kept(rank: Symbol, sample: Symbol, carry: list[Symbol]) -> Sequence[Symbol]:
                last = step(rank, sample, carry)
                for table, symbol in zip(tables, last, strict=True):
                    recorder.state("store", table, rank, further, symbol)
                return last

            return kept

        self.fold("above", first, keeping(above, 1))
        self.fold("below", first, keeping(below, 0))
        return lambda which, place: recorder.state("gather", tables[which], place, dtype=F64)

    def repeat(
        self,
        limit: Symbol | int,
        first: Sequence[Symbol],
        live: Symbol,
        step: Callable[[list[Symbol]], tuple[Sequence[Symbol], Symbol]],
    ) -> list[Symbol]:
        """Carry values through ``step(carried) -> (carried, live)``, at most `limit` times.

        A pixel that is no longer live keeps what it has; the loop ends when no pixel is live.
        """
        recorder = self._recorder

        def stepping(_: Symbol, carry: list[Symbol]) -> Sequence[Symbol]:
            *old, is_live = carry
            new, goes_on = step(list(old))
            kept = [recorder.record("select", b.dtype, is_live, a, b) for a, b in zip(new, old, strict=True)]
            return [*kept, recorder.record("and", BOOL, is_live, goes_on)]

        return recorder.loop("while", [*first, live], stepping, recorder.symbol_of(limit, I32))[:-1]

    def when(self, live: Symbol, step: Callable[[], None]) -> None:
        """Make the loops and counts of `step` where any pixel is live: it must heed itself which ones are."""

        def once(carry: list[Symbol]) -> tuple[Sequence[Symbol], Symbol]:
            step()
            return carry, live

        self.repeat(1, [], live, once)


class TracedFrame:
    """What a step of a loop over frames sees of one frame."""

    def __init__(self, column: TracedColumn, counter: Symbol) -> None:
        self._recorder = counter.recorder
        self._layout = column._layout
        self._counter = counter

    def has(self, name: str) -> bool:
        """Return whether the frames have such a row or number."""
        return name in self._layout.numbers or any(name == known for known, _ in self._layout.rows)

    def number(self, name: str) -> Symbol:
        """Return a number of the frame, float32."""
        return self._recorder.record("number", F32, self._layout.numbers.index(name), self._counter)

    def row(self, name: str) -> Symbol:
        """Return the pixel's value in one of the frame's rows, as it was read."""
        place = [known for known, _ in self._layout.rows].index(name)
        return self._recorder.record("row", self._layout.rows[place][1], place, self._counter)

    def window(self, name: str, index: Symbol, count: int, offset: int = 0) -> list[Symbol]:
        """Return `count` entries, float32, one after the other of one of the frame's rows.

        Each pixel's begin at its own index (int32) plus an offset that is known when this is traced. The row must have
        `WINDOW_ROOM` entries from there on.
        """
        place = [known for known, _ in self._layout.rows].index(name)
        return _window(index, count, offset, self._layout.rows[place][1], (place, self._counter))

    def give(self, name: str, value: Symbol) -> None:
        """Make a value a result of the frame: of that name there is one a frame, shape (frame, pixel)."""
        given = self._recorder.program.given
        if (name, value.dtype) not in given:
            given.append((name, value.dtype))
        self._recorder.state("give", given.index((name, value.dtype)), self._counter, value)

    def tally(self, name: str, mask: Symbol) -> None:
        """Count the pixels where a mask is true: a number of the frame's, over all pixels."""
        tallies = self._recorder.program.tallies
        if name not in tallies:
            tallies.append(name)
        self._recorder.state("tally", tallies.index(name), self._counter, mask)


def _window(index: Symbol, count: int, offset: int, dtype: str, row: tuple[Any, ...]) -> list[Symbol]:
    """Record entries of a row that lie one after the other."""
    if dtype != F32:
        raise TypeError(f"a window of {dtype}; expected {F32}")
    if not 0 < count <= WINDOW or index.dtype != I32:
        raise TypeError(f"a window of {count} entries at {index.dtype}; expected 1 to {WINDOW} at int32")
    window = index.recorder.record("window", F32, index, offset, count, *row)
    return [index.recorder.record("part", F32, window, place) for place in range(count)]


def trace(function: Callable[..., dict[str, Symbol]], task: Any, layout: Layout) -> Program:
    """Return the program of ``function(xp, column, task)``, which gives its results by name.

    Raises
    ------
    AttributeError
        The function calls something that is not elementwise.
    TypeError
        Types differ that the array API would promote, or a condition is asked of a value.
    """
    recorder = Recorder(layout)
    results = function(TracingNamespace(), TracedColumn(recorder), task)
    recorder.program.results = [(name, symbol.number) for name, symbol in results.items()]
    return recorder.program
