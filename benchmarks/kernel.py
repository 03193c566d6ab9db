"""The kernel alone on one core, as multiples of what sorting the same samples takes.

The yardstick is ``numpy.sort(x.T.copy(), axis=-1)`` on the samples ``x`` of shape (frame, pixel), in the same run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.backends import numpy_backend
from zemosaic_stack_core.kernel import CriticalValues, stack_chunk
from zemosaic_stack_core.kernel.rules import most_sums
from zemosaic_stack_core.kernel.samples import Samples
from zemosaic_stack_core.options import REJECTIONS, StackOptions
from zemosaic_stack_core.stacking.chunk_plan import Footprint, plan_chunks
from zemosaic_stack_core.stacking.critical_values import gesd_critical_values

_Rows = npt.NDArray[np.float32]
_ALL_FRAMES = (8, 32, 100, 400)


@dataclass(frozen=True, kw_only=True)
class KernelRow:
    """What one case took.

    Parameters
    ----------
    frames : int
        Number of frames.
    case : str
        Rule, or combination, and what is missing.
    ns : float
        Nanoseconds of processor time per sample.
    yardstick : float
        As a multiple of sorting the same number of samples.
    compiling : float
        Seconds of processor time until the first pixel was stacked: next to nothing where another case needed the same
        program.
    """

    frames: int
    case: str
    ns: float
    yardstick: float
    compiling: float


def measure_kernel(*, pixels: int = 1 << 20, repeat: int = 3) -> list[KernelRow]:
    """Measure rules, combinations and missing samples, with the rule that is the default for several numbers of frames.

    Parameters
    ----------
    pixels : int
        Pixels at 32 frames; as many samples with other numbers of frames.
    repeat : int
        The best of so many counts.
    """
    rows: list[KernelRow] = []
    for frames in _ALL_FRAMES:
        size = max(1, pixels * 32 // frames)
        samples = make_samples(frames, size)
        yard = _best(lambda x=samples: np.sort(x.T.copy(), axis=-1), repeat)
        cases: dict[str, tuple[StackOptions, _Rows]] = {"kappa_sigma": (StackOptions(), samples)}
        if frames == 32:
            cases |= {rule: (options_of(rule), samples) for rule in REJECTIONS}
            cases["median"] = (StackOptions(rejection="none", combine="median"), samples)
            cases["kappa_sigma, NaN borders"] = (StackOptions(), with_borders(samples))
            cases["kappa_sigma, 3 % scattered NaN"] = (StackOptions(), _with_holes(samples))
        for case, (options, values) in cases.items():
            compiling = _best(lambda v=values[:, :1], o=options: _stack(v, o), 1)
            seconds = _best(lambda v=values, o=options: _stack(v, o), repeat)
            ns, yards = seconds / values.size * 1e9, seconds / yard
            rows.append(KernelRow(frames=frames, case=case, ns=ns, yardstick=yards, compiling=compiling))
    return rows


def options_of(rule: str) -> StackOptions:
    """Return a rule with its defaults, and what it can't do without."""
    return StackOptions(rejection=rule, **({"gain": 1.0, "read_noise": 10.0} if rule == "noise_clip" else {}))


def make_samples(frames: int, pixels: int) -> _Rows:
    """Make sky and noise, and a bright sample here and there."""
    random = np.random.default_rng(frames)
    values = random.standard_normal((frames, pixels), dtype=np.float32) * np.float32(20.0) + np.float32(1000.0)
    values.reshape(-1)[random.integers(0, values.size, max(1, values.size // 2000))] += np.float32(3000.0)
    return values


def with_borders(values: _Rows) -> _Rows:
    """Give each frame dithered NaN borders: up to 16 rows and columns of a square image."""
    values = values.copy()
    side = int(values.shape[1] ** 0.5)
    random = np.random.default_rng(1)
    for frame in values:
        image = frame[: side * side].reshape(side, side)
        top, left = random.integers(0, min(16, side), 2)
        image[:top] = image[:, :left] = np.nan
    return values


def _with_holes(values: _Rows) -> _Rows:
    """Make 3 % of the samples NaN."""
    random = np.random.default_rng(2)
    values = values.copy()
    values.reshape(-1)[random.random(values.size) < 0.03] = np.nan
    return values


def _stack(values: _Rows, options: StackOptions) -> None:
    """Stack all pixels, chunk by chunk as the runner does, with image and counts."""
    frames, pixels = values.shape
    backend = numpy_backend()
    working_bytes, most = backend.working_bytes(frames, most_sums(options.rejection))
    work = Footprint(
        frames=frames,
        rows=1,
        columns=pixels,
        channels=1,
        sample_bytes=4 * frames,
        working_bytes=working_bytes,
        most_working_bytes=most,
    )
    critical = critical_values(frames, options)
    for chunk in plan_chunks(work, budget=None):
        samples = Samples(values=[frame[chunk.first : chunk.last] for frame in values])
        stack_chunk(backend, samples, options, critical_values=critical)


def critical_values(frames: int, options: StackOptions) -> CriticalValues | None:
    """Return the table that the studentized rule needs."""
    return gesd_critical_values(frames, options) if options.rejection == "gesd" else None


def _best(call: Callable[[], object], repeat: int) -> float:
    """Return the least processor time of a call, seconds."""
    best = float("inf")
    for _ in range(repeat):
        began = time.process_time()
        call()
        best = min(best, time.process_time() - began)
    return best
