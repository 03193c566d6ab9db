"""How often the host waits for a device while the kernel stacks one chunk, and where: ``python -m benchmarks.waits``.

Counted on NumPy, so that it needs no device. Four things make a host wait: reading a number out of an array,
``nonzero`` (its answer has as many entries as it finds), indexing with a boolean mask, and ``clip``, which
array-api-compat makes of such masks. A *call* is one function or
operator on arrays: on a device a launch, or a few.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import array_api_compat.numpy as plain
import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.kernel import stack_chunk
from zemosaic_stack_core.kernel.samples import Samples
from zemosaic_stack_core.options import REJECTIONS, StackOptions

from .kernel import _critical_values, _options, _samples, _with_borders

_WAITING = ("nonzero", "clip")
_PACKAGE = str(Path(sys.modules[stack_chunk.__module__].__file__ or "").parent)


class Counts:
    """Waits and calls so far, by call site."""

    def __init__(self) -> None:
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


def count_waits(values: npt.NDArray[np.float32], options: StackOptions) -> Counts:
    """Stack one chunk as on a device, in one strip, and count.

    Parameters
    ----------
    values : array of shape (frame, pixel), float32
        The samples.
    options : StackOptions
        Rule and combination.

    Returns
    -------
    Counts
        What was counted.
    """
    counts = Counts()
    xp = _Namespace(counts)
    has_missing = [bool(np.isnan(frame).any()) for frame in values]
    critical = _critical_values(len(values), options)
    samples = Samples(values=[frame.view(xp.kind) for frame in values], has_missing=has_missing)
    stack_chunk(xp, samples, options, critical_values=None if critical is None else critical.view(xp.kind))  # type: ignore[arg-type]
    return counts


def _main(arguments: list[str]) -> None:
    """Print a row per rule; with the name of a rule, where its waits come from."""
    pixels = 1 << 16
    borders: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]] = _with_borders
    print("| rule | frames | waits | calls | with missing borders: waits | calls |\n|---|---|---|---|---|---|")
    for rule in arguments or REJECTIONS:
        for frames in (12, 32, 100):
            values = _samples(frames, pixels)
            whole, cut = count_waits(values, _options(rule)), count_waits(borders(values), _options(rule))
            row = [counter.total() for counts in (whole, cut) for counter in (counts.waits, counts.calls)]
            print(f"| `{rule}` | {frames} | {' | '.join(str(number) for number in row)} |")
            for site, number in whole.waits.most_common() if arguments else ():
                print(f"    {number:5d} waits  {site}")
            for site, number in whole.calls.most_common(12) if arguments else ():
                print(f"    {number:5d} calls  {site}")


if __name__ == "__main__":
    _main(sys.argv[1:])
