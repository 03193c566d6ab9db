"""What is the matter with the GPU, in plain words, and does it give the CPU's bits on a cube of real size."""

from __future__ import annotations

import importlib.metadata
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from zemosaic_stack_core.backends import Backend, cupy_backend, numpy_backend
from zemosaic_stack_core.backends.cuda import cupy_in_use
from zemosaic_stack_core.gpu.driver import cuda_of_driver
from zemosaic_stack_core.gpu.health import GpuHealth, check_gpu
from zemosaic_stack_core.options import StackOptions
from zemosaic_stack_core.stacking.result import StackResult
from zemosaic_stack_core.stacking.run import stack
from zemosaic_stack_core.system.isolation import IsolatedCallError, call_in_process, call_in_thread

# Seconds for the comparison: it takes a few, but the kernels of more rules may have to be compiled first.
COMPARE_TIMEOUT_S = 600.0
# Frames, rows, columns of the cube of real size: 128 MiB of float32.
REAL_SIZE = (32, 1024, 1024)
# Seconds of the GPU that one rule of the comparison may take: on a very slow device the cube has fewer rows.
PATIENCE_S = 10.0
# Rows that the kernels are compiled on, and that show how fast the device is.
_TRIAL_ROWS = 8
_RULES = ("kappa_sigma", "winsorized_sigma_clip")
_DISTRIBUTIONS = ("cupy-cuda12x", "cupy-cuda13x", "cupy-cuda11x", "cupy")
# The extra that goes with a driver of CUDA 12, and of CUDA 13 and later.
_FITTING = ("the extra cuda12 fits", "the extra cuda13 fits, and for a card older than 2018 cuda12")
_MAPS = ("image", "coverage", "weight_map", "rejected_low", "rejected_high", "variance")


@dataclass(frozen=True, kw_only=True)
class GpuComparison:
    """CPU against GPU on one cube of float32."""

    frames: int
    rows: int
    columns: int
    # What differs; empty where every bit agrees.
    difference: str = ""
    # Seconds that a stack took in one thread of the CPU and on the GPU, kernels compiled.
    cpu_s: float
    gpu_s: float
    # Of the GPU's steps by the device's clock; they overlap.
    upload_ms: float
    compute_ms: float
    download_ms: float

    @property
    def samples(self) -> int:
        """Samples of the cube."""
        return self.frames * self.rows * self.columns


@dataclass(frozen=True, kw_only=True)
class GpuDiagnosis:
    """What the doctor found."""

    # Phase 3 will use the GPU: it passed the health check, and where a cube was compared, every bit agreed.
    usable: bool
    # The findings in plain words.
    lines: tuple[str, ...]
    health: GpuHealth
    # None where the GPU is not usable or the comparison gave no answer.
    comparison: GpuComparison | None = None


def diagnose_gpu(size: tuple[int, int, int] | None = REAL_SIZE) -> GpuDiagnosis:
    """Find out whether the GPU is usable, why not, and what to do.

    It raises nothing, whatever a driver may do: all that touches the GPU happens in a process of its own.

    Parameters
    ----------
    size : tuple of int or None
        Frames, rows and columns of the cube that CPU and GPU are compared on; None for no comparison.
    """
    version = _version_of(*_DISTRIBUTIONS)
    lines = [_compiler_line(), f"CuPy {version} is installed." if version else "CuPy is not installed."]
    if (cuda := cuda_of_driver())[0]:
        lines.append(f"NVIDIA's driver runs CUDA {cuda[0]}.{cuda[1]} and older: {_FITTING[cuda >= (13, 0)]}.")
    health = check_gpu()
    if health.memory is not None:
        memory = health.memory
        lines.append(f"GPU: {memory.name}, {_gib(memory.total)} of memory, {_gib(memory.free)} free.")
    if not health.usable:
        lines.append(f"The GPU is not usable: {health.reason}.")
        lines.append(f"What to do: {health.advice}.")
        lines.append("Stacks run on the CPU; the images are the same.")
        return GpuDiagnosis(usable=False, lines=tuple(lines), health=health)
    lines.append("The GPU is usable: its answers on small cubes are the CPU's, bit for bit.")
    if size is None:
        return GpuDiagnosis(usable=True, lines=tuple(lines), health=health)
    try:
        comparison = compare_gpu(size)
    except IsolatedCallError as error:
        lines.append(f"{_cube(*size)}: the GPU did not manage it: {error}.")
        lines.append("Phase 3 tries the GPU, and falls back to the CPU where it fails; the images are the same.")
        return GpuDiagnosis(usable=False, lines=tuple(lines), health=health)
    lines += _comparison_lines(comparison)
    return GpuDiagnosis(usable=not comparison.difference, lines=tuple(lines), health=health, comparison=comparison)


def compare_gpu(size: tuple[int, int, int] = REAL_SIZE, timeout_s: float = COMPARE_TIMEOUT_S) -> GpuComparison:
    """Stack a cube of `size` frames, rows and columns on the CPU and on the GPU, compare every bit, and time both.

    `IsolatedCallError` is raised where the GPU fails or gives no answer in time.
    """
    call = call_in_thread if cupy_in_use() or getattr(sys, "frozen", False) else call_in_process
    return GpuComparison(**call(f"{__name__}:compare_gpu_here", list(size), timeout_s=timeout_s))


def compare_gpu_here(n_frames: int, rows: int, columns: int) -> dict[str, Any]:
    """Compare in this process and return the fields of a `GpuComparison`; see `compare_gpu` for the safe way."""
    generator = np.random.default_rng(7)
    frames = []
    for _ in range(n_frames):
        frame = generator.standard_normal((rows, columns), dtype=np.float32)
        frame *= np.float32(20.0)
        frame += np.float32(1000.0)
        frame[generator.integers(0, rows, rows), generator.integers(0, columns, rows)] = np.float32(9000.0)
        frames.append(frame)
    frames[0][: _TRIAL_ROWS // 2] = np.nan
    cpu, gpu = numpy_backend(), cupy_backend()
    trial = [frame[:_TRIAL_ROWS] for frame in frames]
    for rule in _RULES:
        _timed(trial, StackOptions(rejection=rule), gpu)
    slowest = max(_timed(trial, StackOptions(rejection=rule), gpu)[0] for rule in _RULES)
    rows = min(rows, max(int(PATIENCE_S / slowest * _TRIAL_ROWS), _TRIAL_ROWS))
    frames = [frame[:rows] for frame in frames]
    difference = ""
    seconds = {"cpu_s": 0.0, "gpu_s": 0.0}
    result = None
    for rule in _RULES:
        options = StackOptions(rejection=rule)
        seconds["gpu_s"], result = _timed(frames, options, gpu)
        seconds["cpu_s"], expected = _timed(frames, options, cpu)
        difference = difference or _find_difference(rule, expected, result)
    if result is None:
        raise AssertionError("no rule was compared")
    times = {name: getattr(result.facts, name) for name in ("upload_ms", "compute_ms", "download_ms")}
    gpu.release()
    return {"frames": n_frames, "rows": rows, "columns": columns, "difference": difference, **seconds, **times}


def _timed(frames: list[Any], options: StackOptions, backend: Backend) -> tuple[float, StackResult]:
    """Stack with all maps; return the seconds and the result."""
    began = time.perf_counter()
    result = stack(frames, options=options, maps="all", backend=backend, workers=1)
    return time.perf_counter() - began, result


def _find_difference(rule: str, expected: StackResult, found: StackResult) -> str:
    """Return what differs between two results, empty where nothing does."""
    for name in _MAPS:
        left, right = getattr(expected, name), getattr(found, name)
        if not np.array_equal(left, right, equal_nan=left.dtype.kind == "f"):
            same = (left == right) | ((left != left) & (right != right))
            return f"{rule}: {name} differs in {np.count_nonzero(~same)} of {left.size} pixels"
    if expected.frames != found.frames:
        return f"{rule}: the counts of rejected samples differ"
    return ""


def _cube(n_frames: int, rows: int, columns: int) -> str:
    """Return the size of a cube in words."""
    return f"{n_frames} frames of {rows} x {columns} pixels"


def _comparison_lines(comparison: GpuComparison) -> list[str]:
    """Return what the comparison found, in words."""
    cube = _cube(comparison.frames, comparison.rows, comparison.columns)
    if comparison.difference:
        return [
            f"{cube}: the GPU's answer is NOT the CPU's: {comparison.difference}.",
            "Do not use this GPU; please report it with the lines above.",
        ]
    per_sample = 1e6 / comparison.samples  # from milliseconds to nanoseconds per sample
    speed = 4.0 * comparison.samples / max(comparison.upload_ms, 1e-6) / 1e6
    return [
        f"{cube}: CPU and GPU give the same bits.",
        f"CPU (one thread) {comparison.cpu_s:.2f} s, GPU {comparison.gpu_s:.2f} s; on the device, per sample: upload "
        f"{comparison.upload_ms * per_sample:.2f} ns ({speed:.1f} GB/s), kernel "
        f"{comparison.compute_ms * per_sample:.2f} ns, download {comparison.download_ms * per_sample:.3f} ns.",
    ]


def _version_of(*distributions: str) -> str:
    """Return the version of the first of these that is installed, without importing it; empty where none is."""
    for name in distributions:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return ""


def _compiler_line() -> str:
    """Say whether the CPU's programs are compiled."""
    version = _version_of("llvmlite")
    if version:
        return f"CPU: the kernel is compiled by llvmlite {version}."
    return (
        "CPU: llvmlite is not installed, so the kernel runs uncompiled: the same images, but many times slower. "
        "What to do: python -m pip install llvmlite."
    )


def _gib(n_bytes: int) -> str:
    """Return a number of bytes in words."""
    return f"{n_bytes / 2**30:.1f} GiB"
