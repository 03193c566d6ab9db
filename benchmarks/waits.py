"""How often the kernel keeps a device waiting for the host while it stacks one chunk: ``python -m benchmarks.waits``.

Counted on NumPy, so that it needs no device. A *program* is one launch. A *call* is one function or operator on arrays
outside of programs: on a device a launch, or a few. A *wait* is whatever makes the host wait for the device: reading a
number out of an array, ``nonzero`` (its answer has as many entries as it finds), indexing with a boolean mask, and
``clip``, which array-api-compat makes of such masks.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import array_api_compat.numpy as plain
import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.backends import NamespaceBackend
from zemosaic_stack_core.backends.host import Outputs, host_program
from zemosaic_stack_core.backends.inputs import Inputs
from zemosaic_stack_core.kernel import stack_chunk
from zemosaic_stack_core.kernel.regrow import GROWN, REJECTED, pack_rejected, stack_grown
from zemosaic_stack_core.kernel.samples import Samples
from zemosaic_stack_core.options import REJECTIONS, StackOptions

from .kernel import critical_values, make_samples, options_of, with_borders

_WAITING = ("nonzero", "clip")
_PACKAGE = str(Path(sys.modules[stack_chunk.__module__].__file__ or "").parent)


class Counts:
    """Programs run so far; waits and calls by call site."""

    def __init__(self) -> None:
        self.programs = 0
        self.waits: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.is_inside = False

    def note(self, counter: Counter[str]) -> None:
        """Count one, at the innermost line of the package that is being run."""
        frame = sys._getframe(1)
        while frame.f_back is not None and not frame.f_code.co_filename.startswith(_PACKAGE):
            frame = frame.f_back
        counter[f"{Path(frame.f_code.co_filename).name}:{frame.f_code.co_name}:{frame.f_lineno}"] += 1


def _watched(counts: Counts) -> type[npt.NDArray[Any]]:
    """Return a class of arrays that counts what is asked of them."""

    class Watched(np.ndarray):  # type: ignore[type-arg]
        def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **more: Any) -> Any:
            if not counts.is_inside:
                counts.note(counts.calls)
            bare = [value.view(np.ndarray) if isinstance(value, Watched) else value for value in inputs]
            if out is not None:
                more["out"] = tuple(value.view(np.ndarray) for value in out)
            answer = getattr(ufunc, method)(*bare, **more)
            return out[0] if out is not None else np.asarray(answer).view(Watched)

        def _waits(self) -> npt.NDArray[Any]:
            if not counts.is_inside:
                counts.note(counts.waits)
            return self.view(np.ndarray)

        def __bool__(self) -> bool:
            return bool(self._waits())

        def __int__(self) -> int:
            return int(self._waits())

        def __float__(self) -> float:
            return float(self._waits())

        def __index__(self) -> int:
            return int(self._waits())

        def __getitem__(self, key: Any) -> Any:
            if isinstance(key, np.ndarray) and key.dtype == np.bool_:
                self._waits()
            return np.asarray(super().__getitem__(key)).view(Watched)

        def __setitem__(self, key: Any, value: Any) -> None:
            if isinstance(key, np.ndarray) and key.dtype == np.bool_:
                self._waits()
            elif not counts.is_inside:
                counts.note(counts.calls)
            super().__setitem__(key, value)

    return Watched


class _Namespace:
    """The NumPy namespace, on watched arrays."""

    def __init__(self, counts: Counts) -> None:
        self.counts, self.kind = counts, _watched(counts)

    def __getattr__(self, name: str) -> Any:
        function = getattr(plain, name)
        if isinstance(function, type) or not callable(function):
            return function

        def watched(*arguments: Any, **more: Any) -> Any:
            self.counts.note(self.counts.waits if name in _WAITING else self.counts.calls)
            self.counts.is_inside = True
            try:
                answer = function(*arguments, **more)
            finally:
                self.counts.is_inside = False
            if isinstance(answer, tuple):
                return tuple(part.view(self.kind) for part in answer)
            is_array = isinstance(answer, np.ndarray | np.generic)
            return np.asarray(answer).view(self.kind) if is_array else answer

        return watched


class _Backend(NamespaceBackend):
    """NumPy that counts, and whose programs are one launch each."""

    def __init__(self, counts: Counts) -> None:
        super().__init__(name="watched", xp=_Namespace(counts), is_host=False)
        self.counts = counts

    def watched(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return an array whose use is counted."""
        kind: type[npt.NDArray[Any]] = self.xp.kind
        return array.view(kind)

    def compiled(self, function: Callable[..., Any], task: Any) -> Callable[[Inputs], Outputs]:
        """Return what counts one launch and runs the function beside the counters."""

        def run(inputs: Inputs) -> Outputs:
            self.counts.programs += 1
            rows = {name: [row.view(np.ndarray) for row in rows] for name, rows in inputs.rows.items()}
            tables = {name: table.view(np.ndarray) for name, table in inputs.tables.items()}
            whole = {name: row.view(np.ndarray) for name, row in inputs.whole.items()}
            answers = host_program(function, task)(inputs._replace(rows=rows, tables=tables, whole=whole))
            results, tallies = ({name: self.watched(array) for name, array in found.items()} for found in answers)
            return results, tallies

        return run


def count_waits(values: npt.NDArray[np.float32], options: StackOptions) -> Counts:
    """Stack one chunk of samples, shape (frame, pixel), as on a device, and count.

    Where clusters of rejected samples grow, every fourth rejected sample takes its right neighbor along: both passes
    of such a stack are counted.
    """
    counts = Counts()
    backend = _Backend(counts)
    critical = critical_values(len(values), options)
    if critical is not None:
        critical = critical._replace(values=backend.watched(critical.values))
    samples = Samples(values=[backend.watched(frame) for frame in values])
    rule = replace(options, grow_radius=0.0)
    grows = options.grow_radius > 0.0
    result = stack_chunk(backend, samples, rule, maps=("bounds",) if grows else (), critical_values=critical)
    if grows:
        packed = pack_rejected(backend.xp, samples, result, range(len(values)), len(values))
        rejected = np.unpackbits(packed.view(np.ndarray), axis=0, bitorder="little")[: len(values)]
        codes = [backend.watched(code) for code in _codes(rejected)]
        stack_grown(backend, samples, codes, options, ())
    return counts


def _codes(rejected: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the codes of samples, shape (frame, pixel), of which some take their right neighbors along."""
    codes = rejected * np.uint8(REJECTED)
    frames, pixels = np.nonzero(rejected[:, :-1])
    codes[frames[::4], pixels[::4] + 1] = GROWN
    return codes


def _main(arguments: list[str]) -> None:
    """Print a row per rule; with the name of a rule, where its waits and calls come from."""
    pixels = 1 << 12
    print("| rule | frames | programs | calls | waits |\n|---|---|---|---|---|")
    for rule in arguments or (*REJECTIONS, "kappa_sigma, growing"):
        name, _, grows = rule.partition(",")
        options = options_of(name)
        if grows:
            options = replace(options, grow_radius=2.0)
        for frames in (12, 100):
            found = count_waits(with_borders(make_samples(frames, pixels)), options)
            print(f"| `{rule}` | {frames} | {found.programs} | {found.calls.total()} | {found.waits.total()} |")
            for kind in ("waits", "calls") if arguments else ():
                for site, number in getattr(found, kind).most_common(12):
                    print(f"    {number:5d} {kind}  {site}")


if __name__ == "__main__":
    _main(sys.argv[1:])
