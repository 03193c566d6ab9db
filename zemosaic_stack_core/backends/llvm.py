"""A traced program as machine code of this processor, by LLVM: vectors of pixels, the samples of each in the cache.

One instruction an operation and no fast-math flags: LLVM may neither contract ``a*b + c`` nor reorder sums, so the bits
are those of the same operations on any other machine. A call releases the interpreter's lock.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from zemosaic_stack_core.backends.inputs import STORED_TYPES
from zemosaic_stack_core.backends.network import GROUP, comparators_of_group
from zemosaic_stack_core.backends.tracing import BOOL, F32, F64, FLOATS, I32, Line, Loop, Program

# Pixels side by side. 16 float32 are one register of AVX-512 or two of AVX2; 8 and 32 were a tenth slower at 32 frames.
LANES = 16
# How many vectors ahead rows are fetched: 32 frames took 1.0 ns a sample with 4, 1.2 without; 400 frames 1.75 and 2.07.
AHEAD = 4
# Everything that the program keeps of a pixel's samples begins at a cache line.
ALIGNMENT = 64

_TYPES = {F32: "float", F64: "double", I32: "i32", BOOL: "i1", "u8": "i8", "i16": "i16", "u16": "i16"}
_TYPES |= {"f32be": "i32", "i16be": "i16", "u16flip": "i16"}
_IN_MEMORY = _TYPES | {BOOL: "i8"}
_CASTS = {
    (F32, F64): "fpext",
    (F64, F32): "fptrunc",
    (I32, F64): "sitofp",
    (I32, F32): "sitofp",
    (F64, I32): "fptosi",
    (BOOL, I32): "zext",
    (BOOL, F64): "uitofp",
    (BOOL, F32): "uitofp",
    ("u8", F32): "uitofp",
    ("u16", F32): "uitofp",
    ("i16", F32): "sitofp",
    ("f32be", F32): "bitcast",
    ("i16be", F32): "sitofp",
    ("u16flip", F32): "uitofp",
}
_CALLS = {"sqrt": "sqrt", "round": "rint", "floor": "floor", "abs": "fabs"}
_INFINITY = "0x7FF0000000000000"


def scratch_bytes(frames: int, columns: int, lanes: int = LANES) -> int:
    """Return the bytes that a program keeps of `lanes` pixels: their samples, and `columns` more of running sums."""
    samples = -(-frames * lanes * 4 // ALIGNMENT) * ALIGNMENT
    return samples + columns * (frames + 1) * lanes * 8


class _Writer:
    """Writes a program as a function in LLVM's language."""

    def __init__(self, program: Program) -> None:
        self.program, self.text, self.label = program, ["  br label %vectors", "vectors:"], "vectors"
        self._names: dict[int, str] = {}
        self._scalars: dict[int, str] = {}
        self._windows: dict[int, list[str]] = {}
        # The lanes of an index, by its number and the block that they were taken out in.
        self._lanes: dict[tuple[int, str], list[str]] = {}
        # Of an index whose lanes lie behind each other: which do so from the first on, where that is, and the last's.
        self._runs: dict[int, tuple[str, str, str]] = {}
        self._count = 0

    def fresh(self) -> str:
        """Return a name that nothing has."""
        self._count += 1
        return f"%t{self._count}"

    def add(self, line: str) -> None:
        """Write a line."""
        self.text.append("  " + line)

    def named(self, right: str) -> str:
        """Write an instruction and return its name."""
        name = self.fresh()
        self.add(f"{name} = {right}")
        return name

    def vector(self, number: int) -> str:
        """Return the type of a value, a lane a pixel."""
        return _vector(self.program.types[number])

    def constant(self, value: float, dtype: str) -> str:
        """Return a constant, the same in every lane."""
        if dtype in FLOATS:
            exact = np.float64(np.float32(value)) if dtype == F32 else np.float64(value)
            word = f"0x{exact.view(np.uint64):016X}"
        else:
            word = str(int(value))
        return "<" + ", ".join([f"{_TYPES[dtype]} {word}"] * LANES) + ">"

    def spread(self, scalar: str, dtype: str) -> str:
        """Return a scalar in every lane."""
        kind, vector = _TYPES[dtype], _vector(dtype)
        one = self.named(f"insertelement {vector} poison, {kind} {scalar}, i32 0")
        return self.named(f"shufflevector {vector} {one}, {vector} poison, <{LANES} x i32> zeroinitializer")

    # --- memory

    def column(self, table: int) -> tuple[str, str]:
        """Return where a column begins, and the type of its entries."""
        return (f"%column{table}", "float") if table == 0 else (f"%column{table}", "double")

    def entry(self, table: int, index: str) -> tuple[str, str]:
        """Return the address of all lanes at a place that they share, and their type."""
        base, kind = self.column(table)
        first = self.named(f"mul i64 {index}, {LANES}")
        return self.named(f"getelementptr {kind}, ptr {base}, i64 {first}"), f"<{LANES} x {kind}>"

    def gathered(self, base: str, kind: str, index: str, *, by_lane: bool) -> str:
        """Load, in each lane, the entry at its own index: a load a lane is not slower here than the processor's own."""
        held = "poison"
        for lane in range(LANES):
            place = self.named(f"extractelement <{LANES} x i32> {index}, i32 {lane}")
            place = self.named(f"sext i32 {place} to i64")
            if by_lane:
                place = self.named(f"mul i64 {place}, {LANES}")
                place = self.named(f"add i64 {place}, {lane}")
            address = self.named(f"getelementptr {kind}, ptr {base}, i64 {place}")
            value = self.named(f"load {kind}, ptr {address}")
            held = self.named(f"insertelement <{LANES} x {kind}> {held}, {kind} {value}, i32 {lane}")
        return held

    def pixels_of(self, row: str, dtype: str) -> str:
        """Load this vector's pixels of a row."""
        kind = _IN_MEMORY[dtype]
        address = self.named(f"getelementptr {kind}, ptr {row}, i64 %i")
        # More rows are read side by side than the processor follows by itself.
        ahead = self.named(f"getelementptr <{LANES} x {kind}>, ptr {address}, i64 {AHEAD}")
        self.add(f"call void @llvm.prefetch.p0(ptr {ahead}, i32 0, i32 3, i32 1)")
        held = self.named(f"load <{LANES} x {kind}>, ptr {address}, align 1")
        return self.named(f"icmp ne <{LANES} x i8> {held}, zeroinitializer") if dtype == BOOL else held

    def row(self, place: int, counter: int | None) -> str:
        """Load the address of a row: of a frame's, or (no counter) of one that all share."""
        begin = place if counter is not None else len(self.program.layout.rows)
        at = self.named(f"mul i64 %frames, {begin}")
        at = self.named(f"add i64 {at}, {place if counter is None else self._scalars[counter]}")
        return self.named(f"load ptr, ptr {self.named(f'getelementptr ptr, ptr %rows, i64 {at}')}")

    def window(self, line: Line) -> None:
        """Load, for each lane, entries that lie one after the other; `part` finds them."""
        index, offset, count, place, counter = line.operands
        width = next(wide for wide in (1, 2, 4, 8) if wide >= count)
        start = self.row(place, counter)
        start = self.named(f"getelementptr float, ptr {start}, i64 {offset}")
        if index in self._runs:
            self._windows[line.number] = [self.in_runs(start, index, place) for place in range(count)]
            return
        loaded = []
        for lane in self.lanes(index):
            address = self.named(f"getelementptr float, ptr {start}, i64 {lane}")
            loaded.append(self.named(f"load <{width} x float>, ptr {address}, align 4"))
        self._windows[line.number] = self.transposed(loaded, width)

    def part(self, line: Line) -> str:
        """Return one of the vectors of a window."""
        window, place = line.operands
        vector: str = self._windows[window][place]
        return vector

    def in_runs(self, start: str, index: int, place: int) -> str:
        """Load all lanes' entries at a place behind an index whose lanes lie behind each other, but for one break."""
        mask, *runs = self._runs[index]
        vector, held = _vector(F32), []
        for run in runs:
            address = self.named(f"getelementptr float, ptr {start}, i64 {run}")
            address = self.named(f"getelementptr float, ptr {address}, i64 {place}")
            held.append(self.named(f"load {vector}, ptr {address}, align 4"))
        return self.named(f"select <{LANES} x i1> {mask}, {vector} {held[0]}, {vector} {held[1]}")

    def find_runs(self, index: int, lowest: int) -> tuple[str, tuple[str, str, str]]:
        """Return whether the lanes of an index lie behind each other, but for one break, and in which runs.

        `lowest` is the least offset that is added to them: no run may begin before the row.
        """
        vector = _vector(I32)
        lanes = "<" + ", ".join(f"i32 {lane}" for lane in range(LANES)) + ">"
        starts, masks = [], []
        for lane in (0, LANES - 1):
            taken = self.named(f"extractelement {vector} {self._names[index]}, i32 {lane}")
            starts.append(self.named(f"sub i32 {taken}, {lane}"))
            run = self.named(f"add {vector} {self.spread(starts[-1], I32)}, {lanes}")
            masks.append(self.named(f"icmp eq {vector} {self._names[index]}, {run}"))
        either = self.named(f"or <{LANES} x i1> {masks[0]}, {masks[1]}")
        bits = self.named(f"bitcast <{LANES} x i1> {either} to i{LANES}")
        is_near = self.named(f"icmp eq i{LANES} {bits}, -1")
        is_inside = self.named(f"icmp sge i32 {starts[1]}, {-lowest}")  # the first lane's run begins with a lane
        places = [self.named(f"sext i32 {start} to i64") for start in starts]
        return self.named(f"and i1 {is_near}, {is_inside}"), (masks[0], places[0], places[1])

    def lanes(self, index: int) -> list[str]:
        """Return the lanes of an index, taken out once a block."""
        key = index, self.label
        if key not in self._lanes:
            vector = f"<{LANES} x i32> {self._names[index]}"
            taken = [self.named(f"extractelement {vector}, i32 {lane}") for lane in range(LANES)]
            self._lanes[key] = [self.named(f"sext i32 {lane} to i64") for lane in taken]
        return self._lanes[key]

    def transposed(self, loaded: list[str], width: int) -> list[str]:
        """Return vectors with all lanes' first entries, their second ones and so on."""
        vectors = []
        for first in range(width):
            parts, size = loaded[first::width], width
            while len(parts) > 1:
                pairs = zip(parts[::2], parts[1::2], strict=True)
                parts = [self.shuffled(*pair, size, range(2 * size)) for pair in pairs]
                size *= 2
            vectors += parts
        # Lane and vector are numbers of as many bits: each round exchanges one bit of both.
        bit = 1
        while bit < width:
            orders = [[lane & ~bit | side | (LANES if lane & bit else 0) for lane in range(LANES)] for side in (0, bit)]
            for low in (place for place in range(width) if not place & bit):
                pair = vectors[low], vectors[low | bit]
                vectors[low], vectors[low | bit] = (self.shuffled(*pair, LANES, order) for order in orders)
            bit *= 2
        return vectors

    def shuffled(self, first: str, second: str, size: int, places: Sequence[int]) -> str:
        """Return entries of two vectors of a size, counted through both."""
        order = ", ".join(f"i32 {place}" for place in places)
        kind = f"<{size} x float>"
        return self.named(f"shufflevector {kind} {first}, {kind} {second}, <{len(places)} x i32> <{order}>")

    # --- lines

    def write(self, lines: list[Line | Loop]) -> None:
        """Write a block."""
        for line in lines:
            if isinstance(line, Loop):
                self.loop(line)
            elif line.operation in _WRITERS:
                name = _WRITERS[line.operation](self, line)
                if name is not None:
                    self._names[line.number] = name
            else:
                self._names[line.number] = self.elementwise(line)

    def elementwise(self, line: Line) -> str:
        """Write an operation that depends on nothing but its operands."""
        operation, dtype, operands = line.operation, line.dtype, line.operands
        given = [self._names[operand] for operand in operands]
        source = self.program.types[operands[0]]
        vector, of, is_float = _vector(dtype), _vector(source), source in FLOATS
        if operation in ("add", "sub", "mul", "div"):
            return self.named(f"{'f' if is_float else ''}{operation} {of} {given[0]}, {given[1]}")
        if operation in ("lt", "le", "gt", "ge", "eq", "ne"):
            return self.named(f"{_comparison(operation, is_float=is_float)} {of} {given[0]}, {given[1]}")
        if operation in ("min", "max"):
            # The second where it is smaller (larger), so the first where they are equal.
            comparison = _comparison("lt" if operation == "min" else "gt", is_float=is_float)
            other = self.named(f"{comparison} {of} {given[1]}, {given[0]}")
            return self.named(f"select <{LANES} x i1> {other}, {of} {given[1]}, {of} {given[0]}")
        if operation in ("and", "or"):
            return self.named(f"{operation} {of} {given[0]}, {given[1]}")
        if operation == "not":
            return self.named(f"xor {of} {given[0]}, {self.constant(1, BOOL)}")
        if operation == "neg":
            return self.named(f"fneg {of} {given[0]}" if is_float else f"sub {of} zeroinitializer, {given[0]}")
        if operation == "select":
            return self.named(f"select <{LANES} x i1> {given[0]}, {vector} {given[1]}, {vector} {given[2]}")
        if operation == "half":
            return self.named(f"ashr {of} {given[0]}, {self.constant(1, I32)}")
        if operation == "isfinite":
            if not is_float:
                return self.constant(1, BOOL)
            size = self.named(f"call {of} @llvm.fabs.v{LANES}{source}({of} {given[0]})")
            end = "<" + ", ".join([f"{_TYPES[source]} {_INFINITY}"] * LANES) + ">"
            return self.named(f"fcmp olt {of} {size}, {end}")
        if operation in _CALLS and is_float:
            return self.named(f"call {of} @llvm.{_CALLS[operation]}.v{LANES}{source}({of} {given[0]})")
        if operation == "cast":
            value = self.swapped(given[0], source) if source in STORED_TYPES else given[0]
            return self.named(f"{_CASTS[source, dtype]} {of} {value} to {vector}")
        raise NotImplementedError(f"{operation} of {source}")

    def swapped(self, words: str, source: str) -> str:
        """Write the words of a file in the processor's order of bytes."""
        of = _vector(source)
        words = self.named(f"call {of} @llvm.bswap.v{LANES}{_TYPES[source]}({of} {words})")
        if source != "u16flip":
            return words
        return self.named(f"xor {of} {words}, <" + ", ".join(["i16 -32768"] * LANES) + ">")

    def given(self, line: Line) -> str | None:
        """Write a value that is not computed: a constant, or something that was handed in."""
        place: Any = line.operands[0] if line.operands else None
        if line.operation == "constant":
            return self.constant(place, line.dtype)
        if line.operation == "frames":
            return "%frames.all"
        if line.operation == "parameter":
            address = self.named(f"getelementptr double, ptr %parameters, i64 {place}")
            return self.spread(self.named(f"load double, ptr {address}"), F64)
        if line.operation == "whole":
            return self.pixels_of(self.row(place, None), line.dtype)
        if line.operation == "row":
            return self.pixels_of(self.row(place, line.operands[1]), line.dtype)
        if line.operation == "number":
            at = self.named(f"mul i64 %frames, {place}")
            at = self.named(f"add i64 {at}, {self._scalars[line.operands[1]]}")
            address = self.named(f"getelementptr float, ptr %numbers, i64 {at}")
            return self.spread(self.named(f"load float, ptr {address}"), F32)
        address = self.named(f"getelementptr ptr, ptr %tables, i64 {place}")
        table = self.named(f"load ptr, ptr {address}")
        return self.gathered(table, "double", self._names[line.operands[1]], by_lane=False)

    def store(self, line: Line) -> None:
        """Write lanes at a place of a column that they share."""
        table, index, further, value = line.operands
        scalar = "%middle" if index == "middle" else self._scalars[index]
        if further:
            scalar = self.named(f"add i64 {scalar}, {further}")
        address, vector = self.entry(table, scalar)
        self.add(f"store {vector} {self._names[value]}, ptr {address}, align {ALIGNMENT}")

    def fetch(self, line: Line) -> str:
        """Load lanes from a place of a column that they share."""
        address, vector = self.entry(line.operands[0], self._scalars[line.operands[1]])
        return self.named(f"load {vector}, ptr {address}, align {ALIGNMENT}")

    def gather(self, line: Line) -> str:
        """Load, in each lane, what its column has at its own place."""
        base, kind = self.column(line.operands[0])
        return self.gathered(base, kind, self._names[line.operands[1]], by_lane=True)

    def tally(self, line: Line) -> None:
        """Add the number of true lanes to a frame's count; lanes that were counted before don't count again."""
        place, counter, mask = line.operands
        fresh = self.named(f"and <{LANES} x i1> {self._names[mask]}, %fresh")
        bits = self.named(f"bitcast <{LANES} x i1> {fresh} to i{LANES}")
        number = self.named(f"call i{LANES} @llvm.ctpop.i{LANES}(i{LANES} {bits})")
        number = self.named(f"zext i{LANES} {number} to i64")
        at = self.named(f"mul i64 %frames, {place}")
        at = self.named(f"add i64 {at}, {self._scalars[counter]}")
        address = self.named(f"getelementptr i64, ptr %tallies, i64 {at}")
        before = self.named(f"load i64, ptr {address}")
        self.add(f"store i64 {self.named(f'add i64 {before}, {number}')}, ptr {address}")

    def sort(self, _: Line) -> None:
        """Write the sort: whole groups in registers, then comparators from a table."""
        self.counted("%groups", self._sort_group)
        self.counted("%comparators", self._compare_and_exchange)

    def _sort_group(self, group: str) -> None:
        """Sort a group of samples that lie one after the other."""
        first = self.named(f"mul i64 {group}, {GROUP}")
        entries = [self.entry(0, self.named(f"add i64 {first}, {row}")) for row in range(GROUP)]
        values = [self.named(f"load {vector}, ptr {at}, align {ALIGNMENT}") for at, vector in entries]
        for low, high in comparators_of_group():
            values[low], values[high] = self.in_order(values[low], values[high])
        for value, (at, vector) in zip(values, entries, strict=True):
            self.add(f"store {vector} {value}, ptr {at}, align {ALIGNMENT}")

    def _compare_and_exchange(self, pair: str) -> None:
        """Put two samples in order; their places are a pair of the table."""
        first = self.named(f"shl i64 {pair}, 1")
        entries, values = [], []
        for side in (0, 1):
            at = self.named(f"getelementptr i32, ptr %network, i64 {self.named(f'or i64 {first}, {side}')}")
            place = self.named(f"zext i32 {self.named(f'load i32, ptr {at}')} to i64")
            entries.append(self.entry(0, place))
            held = self.named(f"load {entries[-1][1]}, ptr {entries[-1][0]}, align {ALIGNMENT}")
            # Storing what was loaded, or not, would become a masked store, which is four times as slow.
            values.append(self.named(f"freeze {entries[-1][1]} {held}"))
        for value, (at, vector) in zip(self.in_order(*values), entries, strict=True):
            self.add(f"store {vector} {value}, ptr {at}, align {ALIGNMENT}")

    def in_order(self, first: str, second: str) -> tuple[str, str]:
        """Return the smaller and the larger of two vectors of samples."""
        vector = _vector(F32)
        other = self.named(f"fcmp olt {vector} {second}, {first}")
        smaller = self.named(f"select <{LANES} x i1> {other}, {vector} {second}, {vector} {first}")
        return smaller, self.named(f"select <{LANES} x i1> {other}, {vector} {first}, {vector} {second}")

    def counted(self, number: str, body: Callable[[str], None]) -> None:
        """Write a loop that carries nothing, `number` times."""
        loop = self.fresh()[1:]
        self.add(f"br label %{loop}")
        self.text.append(f"{loop}:")
        self.add(f"%{loop}.k = phi i64 [0, %{self.label}], [%{loop}.next, %{loop}.body]")
        self.add(f"%{loop}.more = icmp slt i64 %{loop}.k, {number}")
        self.add(f"br i1 %{loop}.more, label %{loop}.body, label %{loop}.end")
        self.text.append(f"{loop}.body:")
        body(f"%{loop}.k")
        self.add(f"%{loop}.next = add i64 %{loop}.k, 1")
        self.add(f"br label %{loop}")
        self.text.append(f"{loop}.end:")
        self.label = f"{loop}.end"

    def loop(self, loop: Loop) -> None:
        """Write a loop; one that looks through windows twice: for lanes that lie behind each other, and for others."""
        lines = [line for line in loop.body if isinstance(line, Line) and line.operation == "window"]
        indices = {line.operands[0] for line in lines if line.operands[0] in self._names} - self._runs.keys()
        if loop.kind != "frames" or len(indices) != 1:
            self.one_loop(loop)
            return
        index = indices.pop()
        is_near, runs = self.find_runs(index, min(line.operands[1] for line in lines))
        tag = self.fresh()[1:]
        self.add(f"br i1 {is_near}, label %{tag}.near, label %{tag}.far")
        ends = []
        for way in ("near", "far"):
            self.text.append(f"{tag}.{way}:")
            self.label = f"{tag}.{way}"
            if way == "near":
                self._runs[index] = runs
            self.one_loop(loop)
            self._runs.pop(index, None)
            ends.append((self.label, [self._names[number] for number in loop.carried]))
            self.add(f"br label %{tag}.both")
        self.text.append(f"{tag}.both:")
        self.label = f"{tag}.both"
        (near, first), (far, second) = ends
        for number, a, b in zip(loop.carried, first, second, strict=True):
            self._names[number] = self.named(f"phi {self.vector(number)} [{a}, %{near}], [{b}, %{far}]")

    def one_loop(self, loop: Loop) -> None:
        """Write a loop: a test at its head, so that it may run not at all."""
        tag = self.fresh()[1:]
        entry = self.label
        self.add(f"br label %{tag}")
        self.text.append(f"{tag}:")
        place = len(self.text)  # of the phi instructions, which name what is not written yet
        self.label = tag
        counter = f"%{tag}.k"
        for number in loop.carried:
            self._names[number] = self.fresh()
        first, step, test = {
            "frames": ("0", 1, f"icmp slt i64 {counter}, %frames"),
            "above": ("%middle", 1, f"icmp slt i64 {counter}, %frames"),
            "below": ("%highest.below", -1, f"icmp sge i64 {counter}, 0"),
            "while": ("0", 1, ""),
        }[loop.kind]
        if loop.kind == "while":
            limit = self.named(f"extractelement <{LANES} x i32> {self._names[loop.limit]}, i32 0")
            limit = self.named(f"sext i32 {limit} to i64")
            bits = self.named(f"bitcast <{LANES} x i1> {self._names[loop.live]} to i{LANES}")
            is_live = self.named(f"icmp ne i{LANES} {bits}, 0")
            test = f"and i1 {is_live}, {self.named(f'icmp slt i64 {counter}, {limit}')}"
        self.add(f"br i1 {self.named(test)}, label %{tag}.body, label %{tag}.end")
        self.text.append(f"{tag}.body:")
        self.label = f"{tag}.body"
        self._scalars[loop.counter] = counter
        self._names[loop.counter] = self.spread(self.named(f"trunc i64 {counter} to i32"), I32)
        self.write(loop.body)
        self.add(f"{counter}.next = add i64 {counter}, {step}")
        self.add(f"br label %{tag}")
        phis = [f"  {counter} = phi i64 [{first}, %{entry}], [{counter}.next, %{self.label}]"]
        for number, begin, last in zip(loop.carried, loop.first, loop.last, strict=True):
            incoming = f"[{self._names[begin]}, %{entry}], [{self._names[last]}, %{self.label}]"
            phis.append(f"  {self._names[number]} = phi {self.vector(number)} {incoming}")
        self.text[place:place] = phis
        self.text.append(f"{tag}.end:")
        self.label = f"{tag}.end"

    def results(self) -> None:
        """Write what the program results in."""
        for place, (_, number) in enumerate(self.program.results):
            self.result(len(self.program.given) + place, number, "%i")

    def give(self, line: Line) -> None:
        """Write a result of a frame."""
        place, counter, number = line.operands
        first = self.named(f"mul i64 %stride, {self._scalars[counter]}")
        self.result(place, number, self.named(f"add i64 {first}, %i"))

    def result(self, place: int, number: int, at: str) -> None:
        """Write lanes into one of the results."""
        dtype, value = self.program.types[number], self._names[number]
        kind = _IN_MEMORY[dtype]
        if dtype == BOOL:
            value = self.named(f"zext <{LANES} x i1> {value} to <{LANES} x i8>")
        address = self.named(f"getelementptr ptr, ptr %results, i64 {place}")
        row = self.named(f"load ptr, ptr {address}")
        address = self.named(f"getelementptr {kind}, ptr {row}, i64 {at}")
        self.add(f"store <{LANES} x {kind}> {value}, ptr {address}, align 1")


_WRITERS: dict[str, Any] = {
    "give": _Writer.give,
    "window": _Writer.window,
    "part": _Writer.part,
    "store": _Writer.store,
    "fetch": _Writer.fetch,
    "gather": _Writer.gather,
    "tally": _Writer.tally,
    "sort": _Writer.sort,
    **dict.fromkeys(("constant", "frames", "parameter", "whole", "row", "number", "take"), _Writer.given),
}


def _vector(dtype: str) -> str:
    """Return the type of a value, a lane a pixel."""
    return f"<{LANES} x {_TYPES[dtype]}>"


def _comparison(operation: str, *, is_float: bool) -> str:
    """Return the instruction of a comparison; with NaN all but ``ne`` are false."""
    if is_float:
        return "fcmp une" if operation == "ne" else f"fcmp o{operation}"
    return f"icmp {operation}" if operation in ("eq", "ne") else f"icmp s{operation}"


_HEAD = """define void @f(ptr noalias %rows, ptr noalias %numbers, ptr noalias %parameters, ptr noalias %tables,
    ptr noalias %results, ptr noalias %tallies, i64 %pixels, i64 %frames, ptr noalias %network, i64 %comparators,
    ptr noalias %column0) {
entry:
  %middle = ashr i64 %frames, 1
  %highest.below = sub i64 %middle, 1
  %groups = sdiv i64 %frames, GROUP
  %last = sub i64 %pixels, LANES
  %stride = call i64 @llvm.smax.i64(i64 %pixels, i64 LANES)
  %frames.32 = trunc i64 %frames to i32
  %frames.one = insertelement <LANES x i32> poison, i32 %frames.32, i32 0
  %frames.all = shufflevector <LANES x i32> %frames.one, <LANES x i32> poison, <LANES x i32> zeroinitializer
"""
_LANE_NUMBERS = "<" + ", ".join(f"i64 {lane}" for lane in range(LANES)) + ">"
# The last vector of pixels overlaps the one before, so that none is cut: `fresh` are its lanes that are new.
_PIXELS = f"""  %start = phi i64 [0, %entry], [%start.next, %LABEL]
  %cut = call i64 @llvm.smin.i64(i64 %start, i64 %last)
  %i = call i64 @llvm.smax.i64(i64 %cut, i64 0)
  %done = sub i64 %start, %i
  %done.one = insertelement <LANES x i64> poison, i64 %done, i32 0
  %done.all = shufflevector <LANES x i64> %done.one, <LANES x i64> poison, <LANES x i32> zeroinitializer
  %room = sub i64 %pixels, %i
  %room.one = insertelement <LANES x i64> poison, i64 %room, i32 0
  %room.all = shufflevector <LANES x i64> %room.one, <LANES x i64> poison, <LANES x i32> zeroinitializer
  %is.new = icmp sge <LANES x i64> {_LANE_NUMBERS}, %done.all
  %is.there = icmp slt <LANES x i64> {_LANE_NUMBERS}, %room.all
  %fresh = and <LANES x i1> %is.new, %is.there
"""
_TAIL = """  %start.next = add i64 %start, LANES
  %is.done = icmp sge i64 %start.next, %pixels
  br i1 %is.done, label %out, label %vectors
out:
  ret void
}
declare void @llvm.prefetch.p0(ptr, i32, i32, i32)
declare i64 @llvm.smin.i64(i64, i64)
declare i64 @llvm.smax.i64(i64, i64)
declare iLANES @llvm.ctpop.iLANES(iLANES)
declare <LANES x i16> @llvm.bswap.vLANESi16(<LANES x i16>)
declare <LANES x i32> @llvm.bswap.vLANESi32(<LANES x i32>)
"""


def llvm_source(program: Program) -> str:
    """Return a program in LLVM's language: ``f`` of at least as many pixels as there are lanes."""
    writer = _Writer(program)
    writer.write(program.lines)
    writer.results()
    columns = []
    size = f"mul i64 %frames, {LANES * 4}"
    columns = [f"  %size.0 = {size}", f"  %size.1 = add i64 %size.0, {ALIGNMENT - 1}"]
    columns += [f"  %size.2 = and i64 %size.1, -{ALIGNMENT}", "  %entries = add i64 %frames, 1"]
    columns += [f"  %size = mul i64 %entries, {LANES * 8}"]
    for table in range(program.columns):
        columns += [f"  %skip.{table} = mul i64 %size, {table}", f"  %at.{table} = add i64 %size.2, %skip.{table}"]
        columns += [f"  %column{table + 1} = getelementptr i8, ptr %column0, i64 %at.{table}"]
    declared = [
        f"declare {_vector(dtype)} @llvm.{name}.v{LANES}{dtype}({_vector(dtype)})"
        for dtype in FLOATS
        for name in _CALLS.values()
    ]
    begun = writer.text[:2]
    head = [_HEAD, *columns, *begun, _PIXELS.replace("LABEL", writer.label)]
    return (
        "\n".join([*head, *writer.text[2:], _TAIL, *declared]).replace("LANES", str(LANES)).replace("GROUP", str(GROUP))
    )


class LlvmProgram:
    """A program compiled for this processor."""

    def __init__(self, program: Program) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        module = llvm.parse_assembly(llvm_source(program))
        module.verify()
        machine = llvm.Target.from_default_triple().create_target_machine(
            opt=2, cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten()
        )
        self.program = program
        self._kept = llvm.create_mcjit_compiler(module, machine), machine
        self._kept[0].finalize_object()
        pointer, number = ctypes.c_void_p, ctypes.c_int64
        kind = ctypes.CFUNCTYPE(None, *[pointer] * 6, number, number, pointer, number, pointer)
        self.call = kind(self._kept[0].get_function_address("f"))
