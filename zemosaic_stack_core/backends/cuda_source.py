"""A traced program as CUDA C: a thread a pixel, its samples in a column of scratch memory, all in one launch.

One operation a statement, compiled without contraction: the bits are those of `llvm`. Pointers and sizes are arguments,
so that CUDA's own cache of compiled programs finds the source of another run the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from zemosaic_stack_core.backends.network import GROUP, comparators_of_group
from zemosaic_stack_core.backends.tracing import BOOL, F32, F64, FLOATS, I32, Line, Loop, Program

_TYPES = {F32: "float", F64: "double", I32: "int", BOOL: "bool", "u8": "unsigned char", "i16": "short"}
_TYPES |= {"u16": "unsigned short", "f32be": "unsigned int", "i16be": "unsigned short", "u16flip": "unsigned short"}
_SIGNS = {"add": "+", "sub": "-", "mul": "*", "div": "/", "and": "&", "or": "|"}
_SIGNS |= {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
# Words of a file as numbers.
_FROM_FILE = {
    "f32be": "__int_as_float((int)({0} >> 24 | ({0} >> 8 & 0xff00u) | ({0} & 0xff00u) << 8 | {0} << 24))",
    "i16be": "(float)(short)({0} >> 8 | {0} << 8)",
    "u16flip": "(float)(unsigned short)(({0} >> 8 | {0} << 8) ^ 0x8000)",
}
_CALLS = {"sqrt": "sqrt", "round": "rint", "floor": "floor", "abs": "fabs"}

_HEAD = """extern "C" __global__ void f(const void* const* rows, const float* numbers, const double* parameters,
    const double* const* tables, void* const* results, unsigned long long* tallies, const long long pixels,
    const int frames, const int* network, const long long comparators, float* column0) {
  const long long threads = (long long)gridDim.x * blockDim.x;
  const long long me = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  const int middle = frames / 2;
"""


def scratch_bytes(frames: int, columns: int) -> int:
    """Return the bytes that a program keeps of each thread's pixel: its samples, and `columns` of running sums."""
    return 4 * (frames + frames % 2) + 8 * columns * (frames + 1)


class _Writer:
    """Writes a program as a function in CUDA C."""

    def __init__(self, program: Program) -> None:
        self.program, self.text, self.depth = program, list[str](), 2
        self._names: dict[int, str] = {}
        self._windows: dict[int, tuple[Any, ...]] = {}

    def add(self, line: str) -> None:
        """Write a line."""
        self.text.append("  " * self.depth + line)

    def write(self, lines: list[Line | Loop]) -> None:
        """Write a block."""
        for line in lines:
            if isinstance(line, Loop):
                self.loop(line)
            elif line.operation == "sort":
                self.sort()
            elif line.number < 0:
                self.statement(line)
            elif line.operation == "constant":
                self._names[line.number] = _constant(line.operands[0], line.dtype)
            elif line.operation == "window":
                self._windows[line.number] = line.operands
            elif line.operation == "frames":
                self._names[line.number] = "frames"
            else:
                self._names[line.number] = f"v{line.number}"
                self.add(f"const {_TYPES[line.dtype]} v{line.number} = {self.value(line)};")

    def value(self, line: Line) -> str:
        """Return the expression of a value."""
        operation, dtype, operands = line.operation, line.dtype, line.operands
        given = self._handed_in(operation, dtype, operands)
        if given is not None:
            return given
        names = [self._names[operand] for operand in operands]
        source = self.program.types[operands[0]]
        if operation in _SIGNS:
            return f"{names[0]} {_SIGNS[operation]} {names[1]}"
        if operation in ("min", "max"):
            return f"{names[1]} {'<' if operation == 'min' else '>'} {names[0]} ? {names[1]} : {names[0]}"
        if operation == "select":
            return f"{names[0]} ? {names[1]} : {names[2]}"
        if operation in ("not", "neg"):
            return f"{'!' if operation == 'not' else '-'}{names[0]}"
        if operation == "half":
            return f"{names[0]} >> 1"
        if operation == "isfinite":
            return f"isfinite({names[0]})" if source in FLOATS else "true"
        if operation in _CALLS and source in FLOATS:
            return f"{_CALLS[operation]}{'f' if source == F32 else ''}({names[0]})"
        if operation == "cast" and source in _FROM_FILE:
            return _FROM_FILE[source].format(names[0])
        if operation == "cast":
            return f"({_TYPES[dtype]})({names[0]})"
        raise NotImplementedError(f"{operation} of {source}")

    def _handed_in(self, operation: str, dtype: str, operands: tuple[Any, ...]) -> str | None:
        """Return the expression of a value that was handed in, or is kept; None for one that is computed."""
        kind = f"(const {_TYPES[dtype]}*)"
        if operation == "parameter":
            return f"parameters[{operands[0]}]"
        if operation == "whole":
            return f"({kind}{self._row(operands[0], None)})[i]"
        if operation == "row":
            return f"({kind}{self._row(*operands)})[i]"
        if operation == "part":
            index, offset, _, place, counter = self._windows[operands[0]]
            row = self._row(place, counter)
            return f"({kind}{row})[{self._names[index]} + {offset + operands[1]}]"
        if operation == "number":
            return f"numbers[{operands[0]} * frames + {self._names[operands[1]]}]"
        if operation == "take":
            return f"tables[{operands[0]}][{self._names[operands[1]]}]"
        if operation in ("fetch", "gather"):
            return self.entry(operands[0], self._names[operands[1]])
        return None

    def _row(self, place: int, counter: int | None) -> str:
        """Return the expression of a row's address: a frame's, or (no counter) one that all share."""
        if counter is None:
            return f"rows[{len(self.program.layout.rows)} * frames + {place}]"
        return f"rows[{place} * frames + {self._names[counter]}]"

    def entry(self, table: int, index: str) -> str:
        """Return the thread's entry of a column; neighbors' entries lie side by side."""
        return f"column{table}[(long long)({index}) * threads + me]"

    def statement(self, line: Line) -> None:
        """Write what has no value."""
        if line.operation == "store":
            table, index, further, value = line.operands
            place = "middle" if index == "middle" else self._names[index]
            self.add(f"{self.entry(table, f'{place} + {further}')} = {self._names[value]};")
        elif line.operation == "give":
            place, counter, number = line.operands
            self.result(place, number, f"{self._names[counter]} * pixels + i")
        else:
            place, counter, mask = line.operands
            at = f"{place} * frames + {self._names[counter]}"
            self.add(f"if ({self._names[mask]}) atomicAdd(&tallies[{at}], 1ull);")

    def result(self, place: int, number: int, at: str) -> None:
        """Write into one of the results."""
        self.add(f"(({_TYPES[self.program.types[number]]}*)results[{place}])[{at}] = {self._names[number]};")

    def sort(self) -> None:
        """Write the sort: whole groups in registers, then comparators from a table."""
        self.add(f"for (int g = 0; g < frames / {GROUP}; ++g) {{")
        rows = range(GROUP)
        entries = [self.entry(0, f"g * {GROUP} + {row}") for row in rows]
        self.add("  float " + ", ".join(f"s{row} = {entries[row]}" for row in rows) + ", t;")
        for low, high in comparators_of_group():
            self.add(f"  if (s{high} < s{low}) {{ t = s{low}; s{low} = s{high}; s{high} = t; }}")
        for row in rows:
            self.add(f"  {entries[row]} = s{row};")
        self.add("}")
        self.add("for (long long c = 0; c < comparators; ++c) {")
        self.add(f"  float* p = &{self.entry(0, 'network[2 * c]')};")
        self.add(f"  float* q = &{self.entry(0, 'network[2 * c + 1]')};")
        self.add("  const float x = *p, y = *q;")
        self.add("  if (y < x) { *p = y; *q = x; }")
        self.add("}")

    def loop(self, loop: Loop) -> None:
        """Write a loop."""
        for number, first in zip(loop.carried, loop.first, strict=True):
            self._names[number] = f"v{number}"
            self.add(f"{_TYPES[self.program.types[number]]} v{number} = {self._names[first]};")
        k = self._names[loop.counter] = f"k{loop.counter}"
        head = {
            "frames": f"int {k} = 0; {k} < frames; ++{k}",
            "above": f"int {k} = middle; {k} < frames; ++{k}",
            "below": f"int {k} = middle - 1; {k} >= 0; --{k}",
            "while": f"int {k} = 0; v{loop.live} && {k} < {self._names.get(loop.limit, '')}; ++{k}",
        }[loop.kind]
        self.add(f"for ({head}) {{")
        self.depth += 1
        self.write(loop.body)
        # All new values are taken before any is given: one may be another's old one.
        for number, last in zip(loop.carried, loop.last, strict=True):
            self.add(f"const {_TYPES[self.program.types[number]]} n{number} = {self._names[last]};")
        for number in loop.carried:
            self.add(f"v{number} = n{number};")
        self.depth -= 1
        self.add("}")


def _constant(value: float, dtype: str) -> str:
    """Return a constant, to the bit."""
    if dtype == F32:
        return f"__int_as_float(0x{np.float32(value).view(np.uint32):08x})"
    if dtype == F64:
        return f"__longlong_as_double(0x{np.float64(value).view(np.uint64):016x}ll)"
    return ("true" if value else "false") if dtype == BOOL else f"({int(value)})"


def cuda_source(program: Program) -> str:
    """Return a program as the kernel ``f``."""
    writer = _Writer(program)
    writer.write(program.lines)
    for place, (_, number) in enumerate(program.results, len(program.given)):
        writer.result(place, number, "i")
    columns = [
        f"  double* column{table + 1} = (double*)(column0 + (long long)(frames + frames % 2) * threads) + "
        f"{table}ll * (frames + 1) * threads;"
        for table in range(program.columns)
    ]
    loop = ["  for (long long i = me; i < pixels; i += threads) {", *writer.text, "  }", "}"]
    return "\n".join([_HEAD.rstrip(), *columns, *loop])
