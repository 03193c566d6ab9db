"""What a rule's program does to a sample: operations in float64, memory it reads and writes; without any card.

``python -m benchmarks.operations`` prints a table. A traced program is run line by line on NumPy's arrays, and counted
as a GPU would run it: a warp of 32 pixels does an iteration of a loop where any of its pixels does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.backends import NamespaceBackend
from zemosaic_stack_core.backends.host import Outputs
from zemosaic_stack_core.backends.inputs import Inputs, layout_of
from zemosaic_stack_core.backends.network import GROUP, comparators
from zemosaic_stack_core.backends.tracing import F32, F64, I32, Line, Loop, Program, trace
from zemosaic_stack_core.kernel import stack_chunk
from zemosaic_stack_core.kernel.samples import Samples
from zemosaic_stack_core.options import REJECTIONS, StackOptions

from .kernel import critical_values, make_samples, options_of

_WARP = 32
_PIXELS = 512
_TYPES = {F32: np.float32, F64: np.float64, I32: np.int32, "bool": np.bool_}
_Row = npt.NDArray[Any]

_ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
    "and": np.logical_and,
    "or": np.logical_or,
    "not": np.logical_not,
    "neg": np.negative,
    "half": lambda value: value >> 1,
    "abs": np.abs,
    "sqrt": np.sqrt,
    "round": np.rint,
    "floor": np.floor,
    "isfinite": np.isfinite,
    "select": np.where,
    "min": lambda first, second: np.where(second < first, second, first),
    "max": lambda first, second: np.where(second > first, second, first),
}
# What is no arithmetic: a GPU moves the bits, or changes a sign on the way.
_FREE = frozenset({"select", "neg", "abs"})
# A division or a square root in float64 is some ten multiplications and additions.
_LONG = frozenset({"div", "sqrt"})


class Operations(NamedTuple):
    """A sample's share: float64 operations (divisions and square roots as ten), and bytes of scratch memory."""

    float64: float
    divisions: float
    scratch: float


class _Run:
    """One run of a program over a few pixels."""

    def __init__(self, program: Program, inputs: Inputs) -> None:
        self.program, self.inputs, self.counts = program, inputs, Counter[str]()
        self._values: dict[int, Any] = {}
        frames, pixels = inputs.frames, inputs.pixels
        self._columns = [np.zeros((frames, pixels), np.float32)]
        self._columns += [np.zeros((frames + 1, pixels)) for _ in range(program.columns)]
        self._lane = np.arange(pixels)
        # Pixels whose warps are at it.
        self._busy = np.ones(pixels, bool)

    def count(self, what: str, number: float = 1.0) -> None:
        """Count something that every busy pixel does."""
        self.counts[what] += int(self._busy.sum()) * number  # type: ignore[assignment]

    def block(self, lines: list[Line | Loop]) -> None:
        """Run lines."""
        for line in lines:
            if isinstance(line, Loop):
                self.loop(line)
            elif line.number < 0:
                self.statement(line)
            else:
                self._values[line.number] = self.value(line)

    def value(self, line: Line) -> Any:
        """Return a line's value."""
        operation, operands, layout = line.operation, line.operands, self.program.layout
        kind = _TYPES.get(line.dtype)
        if operation == "constant":
            return np.asarray(operands[0], kind)
        if operation == "frames":
            return np.int32(self.inputs.frames)
        if operation == "parameter":
            return np.float64(self.inputs.parameters[layout.parameters[operands[0]]])
        if operation == "row":
            return self.inputs.rows[layout.rows[operands[0]][0]][int(self._values[operands[1]])]
        if operation == "number":
            return np.float32(self.inputs.numbers[layout.numbers[operands[0]]][int(self._values[operands[1]])])
        if operation == "take":
            return self.inputs.tables[layout.tables[operands[0]]][self._values[operands[1]]]
        if operation in ("fetch", "gather"):
            column = self._columns[operands[0]]
            self.count("scratch", column.itemsize)
            return column[self._values[operands[1]], self._lane]
        given = [self._values[operand] for operand in operands]
        types = {self.program.types[operand] for operand in operands} | {line.dtype}
        if F64 in types and operation not in _FREE:
            self.count("divisions" if operation in _LONG else "float64")
        with np.errstate(all="ignore"):
            return given[0].astype(kind) if operation == "cast" else _ELEMENTWISE[operation](*given)

    def statement(self, line: Line) -> None:
        """Run what has no value."""
        if line.operation == "store":
            table, index, further, number = line.operands
            place = self.inputs.frames // 2 if index == "middle" else int(self._values[index])
            column = self._columns[table]
            self.count("scratch", column.itemsize)
            column[place + further] = self._values[number]
        elif line.operation == "sort":
            frames = self.inputs.frames
            grouped, compared = frames - frames % GROUP, len(comparators(frames)) // 2
            self.count("scratch", 8 * grouped + 16 * compared)
            self._columns[0].sort(axis=0)

    def loop(self, loop: Loop) -> None:
        """Run a loop."""
        frames = self.inputs.frames
        for number, first in zip(loop.carried, loop.first, strict=True):
            self._values[number] = self._values[first]
        busy = self._busy
        if loop.kind == "while":
            limit = int(self._values[loop.limit])
            steps = range(limit)
        else:
            middle = frames // 2
            steps = {"frames": range(frames), "above": range(middle, frames), "below": range(middle - 1, -1, -1)}[
                loop.kind
            ]
        for step in steps:
            if loop.kind == "while":
                live = np.broadcast_to(self._values[loop.live], busy.shape) & busy
                if not live.any():
                    break
                self._busy = np.repeat(live.reshape(-1, _WARP).any(axis=1), _WARP)
            self._values[loop.counter] = np.int32(step)
            self.block(loop.body)
            new = [self._values[last] for last in loop.last]
            self._values.update(zip(loop.carried, new, strict=True))
        self._busy = busy

    def results(self) -> dict[str, _Row]:
        """Run the program and return what it results in."""
        self.block(self.program.lines)
        pixels = self.inputs.pixels
        return {name: np.broadcast_to(self._values[number], (pixels,)) for name, number in self.program.results}


class _CountingBackend(NamespaceBackend):
    """NumPy, with every program run line by line."""

    def __init__(self) -> None:
        super().__init__(name="numpy", xp=np, is_host=True)
        self.counts: Counter[str] = Counter()

    def compiled(self, function: Callable[..., Any], task: Any) -> Callable[[Inputs], Outputs]:
        """Return what traces a function and runs it line by line; no frame's samples are counted."""

        def run(inputs: Inputs) -> Outputs:
            counted = _Run(trace(function, task, layout_of(inputs)), inputs)
            results = counted.results()
            self.counts += counted.counts
            return results, {name: np.zeros(inputs.frames, np.int64) for name in counted.program.tallies}

        return run


def count_operations(frames: int, options: StackOptions) -> Operations:
    """Count what a rule does to sky, noise and a bright sample here and there: a sample's share."""
    return counted_stack(make_samples(frames, _PIXELS), options)[0]


def counted_stack(values: npt.NDArray[np.float32], options: StackOptions) -> tuple[Operations, Any]:
    """Stack samples of shape (frame, pixel), a multiple of 32 pixels; return a sample's share, and the result."""
    backend = _CountingBackend()
    critical = critical_values(len(values), options)
    result = stack_chunk(backend, Samples(list(values)), options, critical_values=critical)
    counts = backend.counts
    divisions = counts["divisions"] / values.size
    return Operations(
        counts["float64"] / values.size + 10 * divisions, divisions, counts["scratch"] / values.size
    ), result


def _main() -> None:
    """Print a row per rule."""
    print("| rule | frames | float64 operations a sample | bytes of scratch memory a sample |\n|---|---|---|---|")
    for rule in REJECTIONS:
        for frames in (8, 32, 100, 400):
            found = count_operations(frames, options_of(rule))
            print(f"| `{rule}` | {frames} | {found.float64:.1f} | {found.scratch:.0f} |")


if __name__ == "__main__":
    _main()
