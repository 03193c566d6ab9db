"""Programs on the host: compiled by LLVM where llvmlite is installed, else run by NumPy as they stand."""

from __future__ import annotations

import ctypes
import importlib.util
import math
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.backends.inputs import Inputs, Layout, layout_of, readable
from zemosaic_stack_core.backends.network import comparators
from zemosaic_stack_core.backends.plain import PLAIN_BYTES, run_plainly
from zemosaic_stack_core.backends.tracing import trace

if TYPE_CHECKING:
    from zemosaic_stack_core.backends.llvm import LlvmProgram

Outputs = tuple[dict[str, Any], dict[str, Any]]

# Threads that need a program at the same time let one of them compile it.
_COMPILING = threading.Lock()
ARRAYS = {"f32": np.float32, "f64": np.float64, "i32": np.int32, "bool": np.bool_}


def has_compiler() -> bool:
    """Return whether llvmlite is installed."""
    return importlib.util.find_spec("llvmlite") is not None


def host_program(function: Callable[..., Any], task: Any) -> Callable[[Inputs], Outputs]:
    """Return what runs ``function(xp, column, task)`` on NumPy's arrays: a callable of `Inputs`."""
    return partial(_run, function, task) if has_compiler() else partial(run_plainly, np, function, task)


def host_bytes(frames: int, sums: int) -> tuple[int, float]:
    """Return the bytes that a program which keeps so many running sums takes: for each pixel, and at most."""
    if not has_compiler():
        return PLAIN_BYTES * frames, math.inf
    from zemosaic_stack_core.backends.llvm import LANES, scratch_bytes

    kept = scratch_bytes(frames, sums)
    return kept // LANES, kept


@lru_cache(maxsize=256)
def _compiled(function: Callable[..., Any], task: Any, layout: Layout) -> LlvmProgram:
    """Return the function compiled for inputs of that layout."""
    from zemosaic_stack_core.backends.llvm import LlvmProgram

    return LlvmProgram(trace(function, task, layout))


def _run(function: Callable[..., Any], task: Any, inputs: Inputs) -> Outputs:
    """Compile the function, unless that was done, and run it; the interpreter's lock is free meanwhile."""
    from zemosaic_stack_core.backends.llvm import ALIGNMENT, LANES, scratch_bytes

    inputs = readable(np, inputs)
    with _COMPILING:
        compiled = _compiled(function, task, layout_of(inputs))
    program, frames, pixels = compiled.program, inputs.frames, inputs.pixels
    room = max(pixels, LANES)
    given = [row for rows in inputs.rows.values() for row in rows] + list(inputs.whole.values())
    rows = [_padded(row, room) for row in given]
    numbers = np.array([inputs.numbers[name] for name in program.layout.numbers], np.float32)
    parameters = np.array([inputs.parameters[name] for name in program.layout.parameters], np.float64)
    tables = [np.ascontiguousarray(inputs.tables[name]) for name in program.layout.tables]
    results: dict[str, npt.NDArray[Any]] = {}
    for name, dtype in program.given:
        results[name] = np.empty((frames, room), ARRAYS[dtype])
    for name, number in program.results:
        results[name] = np.empty(room, ARRAYS[program.types[number]])
    tallies = np.zeros((len(program.tallies), frames), np.int64)
    scratch = np.empty(scratch_bytes(frames, program.columns) + ALIGNMENT, np.uint8)
    network = comparators(frames)
    compiled.call(
        _pointers(rows),
        numbers.ctypes.data,
        parameters.ctypes.data,
        _pointers(tables),
        _pointers(list(results.values())),
        tallies.ctypes.data,
        pixels,
        frames,
        network.buffer_info()[0],
        len(network) // 2,
        -(-scratch.ctypes.data // ALIGNMENT) * ALIGNMENT,
    )
    found = {name: row[..., :pixels] for name, row in results.items()}
    return found, dict(zip(program.tallies, tallies, strict=True))


def _padded(row: npt.NDArray[Any], room: int) -> npt.NDArray[Any]:
    """Return a contiguous row of at least a vector's pixels; those that are not there repeat the last."""
    if row.size < room:
        row = np.concatenate([row, np.repeat(row[-1:], room - row.size)])
    return row if row.flags.c_contiguous else row.copy()


def _pointers(arrays: Sequence[npt.NDArray[Any]]) -> Any:
    """Return the addresses of arrays."""
    return (ctypes.c_void_p * max(len(arrays), 1))(*(array.ctypes.data for array in arrays))
