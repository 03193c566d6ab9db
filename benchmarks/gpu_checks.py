"""Checks of a card: bits beside the CPU's, injected failures, leaks, thousands of frames."""

from __future__ import annotations

import gc
import json
import logging
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
from astropy.io import fits

from zemosaic_stack_core import StackOptions, StackResult, stack
from zemosaic_stack_core.backends import CupyBackend
from zemosaic_stack_core.backends.host import Outputs
from zemosaic_stack_core.backends.inputs import Inputs
from zemosaic_stack_core.gpu.auto import stack_auto
from zemosaic_stack_core.gpu.health import GpuHealth
from zemosaic_stack_core.gpu.phase3_gpu import Phase3Gpu
from zemosaic_stack_core.options import REJECTIONS
from zemosaic_stack_core.system.quantities import count_text

from .gpu_cases import Bench, Case, Found, number_text, one_after_the_other
from .kernel import options_of

_Frames = list[npt.NDArray[Any]]
_ARRAYS = ("image", "coverage", "weight_map", "rejected_low", "rejected_high", "variance")
_COUNTS = ("weight", "scale", "offset", "rejected_low", "rejected_high", "missing")
# Rows and columns of a tile that fails.
_TILE = (64, 96)
# Tiles until each rule and number of frames was met.
_WARM_TILES = 12
_QUIET = logging.getLogger("benchmarks.gpu")
_QUIET.disabled = True


def difference(found: StackResult, expected: StackResult) -> str:
    """Return what differs, empty where all bits agree (NaN for NaN)."""
    for name in _ARRAYS:
        left, right = getattr(found, name), getattr(expected, name)
        if (left is None) != (right is None):
            return f"{name} is not there"
        if left is None or np.array_equal(left, right, equal_nan=left.dtype.kind == "f"):
            continue
        same = (left == right) | ((left != left) & (right != right))
        return f"{name} differs in {np.count_nonzero(~same)} of {left.size} pixels"
    for one, other in zip(found.frames, expected.frames, strict=True):
        for name in _COUNTS:
            if getattr(one, name) != getattr(other, name):
                return f"{name} of a frame differs"
    return ""


def make_frames(bench: Bench, number: int, *, channels: int = 0, dtype: str = "float32", seed: int = 0) -> _Frames:
    """Make frames of sky, noise, outliers and, of floats, dithered NaN borders and scattered NaN."""
    rows, columns = bench.size.rows, bench.size.columns
    return sky_frames(number, (rows, columns, channels) if channels else (rows, columns), dtype, seed)


def sky_frames(number: int, shape: tuple[int, ...], dtype: str = "float32", seed: int = 0) -> _Frames:
    """Make frames of a shape; see `make_frames`."""
    random = np.random.default_rng(seed)
    frames = []
    for index in range(number):
        values = random.standard_normal(shape, dtype=np.float32) * np.float32(7.0) + np.float32(100.0 + index % 5)
        flat = values.reshape(-1)
        flat[random.integers(0, flat.size, max(1, flat.size // 200))] += np.float32(90.0)
        if dtype.startswith("float"):
            top, left = random.integers(0, 1 + min(shape[0], 16) // 3, 2)
            values[:top] = values[:, :left] = np.nan
            flat[random.integers(0, flat.size, max(1, flat.size // 50))] = np.nan
            frames.append(values.astype(dtype))
        else:
            frames.append(np.clip(np.rint(values), 0, 250).astype(dtype))
    return frames


def bits(bench: Bench) -> list[Case]:
    """Every rule on every kind of input, each beside the CPU."""
    return [Case(rule, _bits_of(bench, rule)) for rule in bench.size.rules or REJECTIONS]


def _bits_of(bench: Bench, rule: str) -> Callable[[float], Found]:
    """Return the case of one rule."""

    def run(deadline: float) -> Found:
        named = _variations(bench, options_of(rule))
        done, problem = one_after_the_other(named, deadline)
        text = number_text(done, len(named), "stacks")
        return Found(text, "the CPU's bits", problem, {"stacks": done, "wanted": len(named)})

    return run


def _variations(bench: Bench, options: StackOptions) -> list[tuple[str, Callable[[], str]]]:
    """Return stacks under one rule, what matters most first."""
    found: list[tuple[str, Callable[[], str]]] = []

    def add(
        name: str, make: Callable[[], Sequence[object]], *, changed: dict[str, Any] | None = None, **more: Any
    ) -> None:
        chosen = replace(options, **(changed or {}))
        given = {"options": chosen, "maps": "all"} | more

        def compare() -> str:
            frames = make()
            rows = given.pop("rows_per_chunk", None)
            expected = stack(frames, **given)
            return difference(stack(frames, **given, rows_per_chunk=rows, backend=bench.backend), expected)

        found.append((name, compare))

    def frames_of(number: int = 8, **more: Any) -> Callable[[], _Frames]:
        return lambda: make_frames(bench, number, **more)

    for dtype in ("float32", "uint16", "int16", "uint8", "float64"):
        add(dtype, frames_of(dtype=dtype))
    for stored in ("float32", "int16", "uint16"):
        add(f"FITS {stored}", lambda stored=stored: _files(bench, stored))
    for number in bench.size.frames:
        add(f"{number} frames", frames_of(number))
    for rows in (1, 7):
        add(f"{rows} rows a chunk", frames_of(), rows_per_chunk=rows)
    add("no maps", frames_of(), maps=())
    for name in _ARRAYS[1:]:
        add(f"{name} alone", frames_of(), maps=(name,))
    shape = (8, bench.size.rows, bench.size.columns, 3)
    random = np.random.default_rng(3)
    masks = list(random.random(shape[:3]) < 0.1)
    weights = random.uniform(0.0, 2.0, shape).astype(np.float32)
    add("RGB, masks", frames_of(channels=3), masks=masks)
    for name, given in (("frame", weights[:, 0, 0, 0]), ("channel", weights[:, 0, 0]), ("sample", weights)):
        add(f"RGB, a weight a {name}", frames_of(channels=3), weights=given)
    add("variances", frames_of(channels=3), variances=weights + np.float32(0.5))
    add(
        "inverse variances",
        frames_of(channels=3, dtype="uint16"),
        variances=weights,
        changed={"weighting": "inverse_variance"},
    )
    for combine in ("median", "min", "max"):
        add(combine, frames_of(), changed={"combine": combine})
    add("normalized", frames_of(), changed={"normalization": "additive_scaling"})
    if options.rejection != "none":
        add("growth", frames_of(), changed={"grow_radius": 1.5})
    return found


def _files(bench: Bench, dtype: str) -> list[Path]:
    """Write eight FITS files of a type, unless they are there, and return their paths."""
    paths = [bench.folder / f"{dtype}_{index}.fits" for index in range(8)]
    for path, frame in zip(paths, make_frames(bench, 8, dtype=dtype), strict=True):
        if not path.exists():
            fits.PrimaryHDU(frame).writeto(path)
    return paths


class _Failing(CupyBackend):
    """A card whose programs raise from the n-th launch on, so many times."""

    def __init__(self, plain: CupyBackend, first: int, times: float) -> None:
        super().__init__(cupy=plain.cupy, xp=plain.xp, device_id=plain.device.id)
        self._left, self._times = first, times

    def compiled(self, function: Callable[..., Any], task: Any) -> Callable[[Inputs], Outputs]:
        """Return what raises, or runs the program."""
        run = super().compiled(function, task)

        def failing(inputs: Inputs) -> Outputs:
            self._left -= 1
            if self._left < 0 < self._times:
                self._times -= 1
                raise RuntimeError("a failure injected into a launch")
            return run(inputs)

        return failing


class _Optimist(CupyBackend):
    """A card that knows of no limit of its pool: allocations fail that were planned."""

    def __init__(self, plain: CupyBackend) -> None:
        super().__init__(cupy=plain.cupy, xp=plain.xp, device_id=plain.device.id)

    def free_memory(self) -> int:
        """Return what the device has."""
        return int(self.cupy.cuda.runtime.memGetInfo()[0])


class _CancelledError(Exception):
    """What a caller's progress raises."""


def failures(bench: Bench) -> list[Case]:
    """Failures on the way, and the tile's bits after each: see "Mode C" in docs/gpu.md."""
    frames = sky_frames(20, _TILE, seed=5)
    expected = stack(frames, maps="all")
    plan = {"gpu_rows_per_chunk": 1 + len(frames[0]) // 4}
    pool = bench.cupy.get_default_memory_pool()

    def held() -> int:
        """Return the bytes that a tile needs."""
        bench.backend.release()
        before = pool.total_bytes()
        stack_auto(frames, gpu=_phase3(bench.backend), maps="all", plan=plan)
        needed = pool.total_bytes() - before
        bench.backend.release()
        return int(needed)

    def tiles(gpu: Phase3Gpu, wanted: tuple[bool, int]) -> str:
        """Stack two tiles; the first comes from the GPU or not, after so many attempts."""
        result, used_gpu = stack_auto(frames, gpu=gpu, maps="all", plan=plan)
        if (used_gpu, result.facts.gpu_attempts) != wanted:
            return f"from the GPU: {used_gpu}, attempts: {result.facts.gpu_attempts}; expected {wanted}: {gpu.reason}"
        after, used_gpu = stack_auto(frames, gpu=gpu, maps="all")
        if used_gpu == gpu.hard_disabled:
            return f"the next tile came from the GPU: {used_gpu}"
        return difference(result, expected) or difference(after, expected)

    def limited(
        backend: Callable[[], CupyBackend], room: Callable[[], int], wanted: tuple[bool, int]
    ) -> Callable[[float], Found]:
        def run(_: float) -> Found:
            size = room()
            bench.backend.release()
            pool.set_limit(size=pool.used_bytes() + size)
            try:
                gpu = _phase3(backend())
                problem = tiles(gpu, wanted)
            finally:
                pool.set_limit(size=0)
            return _after(gpu, problem)

        return run

    def failing(first: int, times: float, wanted: tuple[bool, int]) -> Callable[[float], Found]:
        def run(_: float) -> Found:
            gpu = _phase3(_Failing(bench.backend, first, times))
            return _after(gpu, tiles(gpu, wanted))

        return run

    def cancelled(_: float) -> Found:
        gpu = _phase3(bench.backend)

        def progress(done: int, total: int) -> None:
            raise _CancelledError(f"{done} of {total}")

        try:
            stack_auto(frames, gpu=gpu, progress=progress)
        except _CancelledError:
            return _after(gpu, tiles(gpu, (True, 1)))
        return Found("", problem="the cancellation was lost")

    cases = [
        Case("memory for one pixel is not there", limited(lambda: bench.backend, lambda: 4096, (False, 2))),
        Case("memory runs out, once", limited(lambda: _Optimist(bench.backend), lambda: held() * 3 // 4, (True, 2))),
        Case("memory runs out, twice", limited(lambda: _Optimist(bench.backend), lambda: held() // 8, (False, 2))),
    ]
    for first in bench.size.launches:
        cases.append(Case(f"exception in launch {first}, once", failing(first, 1, (True, 2 if first < 4 else 1))))
        wanted = (False, 2) if first < 4 else (True, 1)
        cases.append(Case(f"exception from launch {first} on", failing(first, float("inf"), wanted)))
    cases.append(Case("cancelled by progress", cancelled))
    return [*cases, Case("the device is lost, in a process of its own", _lost)] if bench.size.has_processes else cases


def _lost(_: float) -> Found:
    """Run `gpu_lost`, whose process is of no use afterwards."""
    command = [sys.executable, "-m", "benchmarks.gpu_lost"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        return Found(
            "", problem=f"exit code {done.returncode}: {(done.stderr.splitlines() or ['it said nothing'])[-1]}"
        )
    return Found(*json.loads(lines[-1]))


def lose_device(backend: CupyBackend, strike: Callable[[], None]) -> Found:
    """Stack two tiles on a device that is struck before the second launch: the CPU makes both."""

    class Struck(CupyBackend):
        """A card that is struck."""

        launches = 0

        def compiled(self, function: Callable[..., Any], task: Any) -> Callable[[Inputs], Outputs]:
            """Return what strikes, and runs the program."""
            Struck.launches += 1
            if Struck.launches == 2:
                strike()
            return super().compiled(function, task)

    frames = sky_frames(20, _TILE, seed=5)
    expected = stack(frames, maps="all")
    gpu = _phase3(Struck(cupy=backend.cupy, xp=backend.xp, device_id=backend.device.id))
    results = [stack_auto(frames, gpu=gpu, maps="all", plan={"gpu_rows_per_chunk": 16})[0] for _ in range(2)]
    problem = next(filter(None, (difference(result, expected) for result in results)), "")
    if not problem and (gpu.attempts, gpu.gpu_tiles, "DeviceLost" in gpu.reason) != (1, 0, True):
        problem = f"{gpu.attempts} attempts, {gpu.gpu_tiles} tiles by the GPU: {gpu.reason}"
    return Found(f"1 attempt, 2 tiles by the CPU: {gpu.reason}", "the CPU's bits", problem)


def _phase3(backend: CupyBackend) -> Phase3Gpu:
    """Return the state of a run on a backend that is taken for healthy."""
    return Phase3Gpu(logger=_QUIET, check_health=lambda: GpuHealth(usable=True), open_backend=lambda: backend)


def _after(gpu: Phase3Gpu, problem: str) -> Found:
    """Close a run and say what it did."""
    text = f"{count_text(gpu.attempts, 'attempt')}, tiles by the GPU {gpu.gpu_tiles}, by the CPU {gpu.cpu_tiles}"
    gpu.close()
    return Found(text, "the CPU's bits", problem)


def leaks(bench: Bench) -> list[Case]:
    """Memory of the device and the host before and after many tiles."""

    def run(_: float) -> Found:
        pool = bench.cupy.get_default_memory_pool()
        gpu = _phase3(bench.backend)
        bench.backend.release()
        gc.collect()
        before = pool.used_bytes()
        frames, warm, resident = make_frames(bench, 20), (0, 0), 0
        for index in range(bench.size.tiles + _WARM_TILES):
            options = options_of(("kappa_sigma", "none", "winsorized_sigma_clip")[index % 3])
            stack_auto(frames[: 20 - index % 4], gpu=gpu, options=options)
            if index == _WARM_TILES - 1:
                warm, resident = (pool.used_bytes(), pool.total_bytes()), psutil.Process().memory_info().rss
        after = (pool.used_bytes(), pool.total_bytes())
        grown = psutil.Process().memory_info().rss - resident
        gpu.close()
        gc.collect()
        closed = (
            pool.used_bytes() - before,
            pool.n_free_blocks(),
            bench.cupy.get_default_pinned_memory_pool().n_free_blocks(),
        )
        problems = [f"{gpu.cpu_tiles} tiles came from the CPU: {gpu.reason}"] if gpu.cpu_tiles else []
        if after != warm:
            problems.append(f"the pool grew from {warm} to {after} bytes (used, held)")
        if any(closed):
            problems.append(f"after the run {closed} bytes, free blocks, pinned blocks are left")
        if grown > 1 << 26:
            problems.append(f"the process grew by {grown} bytes")
        text = f"{bench.size.tiles} tiles: {after[0]} bytes in use and {after[1]} held before and after"
        figures = {"used": after[0], "held": after[1], "process_grew": grown}
        return Found(text, "nothing more; none after the run", "; ".join(problems), figures)

    return [Case("memory of tiles", run)]


def thousands(bench: Bench) -> list[Case]:
    """Make a run of many tiles, each of hundreds of frames made on the fly: all on the GPU, no gap."""
    tiles, number, side = bench.size.night
    gpu = _phase3(bench.backend)

    def tile(index: int) -> Callable[[float], Found]:
        def run(_: float) -> Found:
            frames = sky_frames(number, (side, side), seed=1000 + index)
            result, used_gpu = stack_auto(frames, gpu=gpu, maps="all", tile_id=index)
            expected = stack(frames, maps="all")
            problem = "" if used_gpu else f"it came from the CPU: {gpu.reason}"
            assert result.coverage is not None  # noqa: S101 - all maps were asked for
            gaps = int(np.count_nonzero(~np.isfinite(result.image)))
            problem = problem or difference(result, expected)
            if gaps and not problem and np.isfinite(expected.image).all():
                problem = f"{gaps} pixels are missing"
            text = f"{number} frames of {side} x {side}: {result.facts.seconds:.2f} s, {gaps} pixels without a value"
            figures = {"gpu_s": result.facts.seconds, "cpu_s": expected.facts.seconds, "gaps": gaps}
            return Found(text, f"CPU {expected.facts.seconds:.2f} s, the same bits", problem, figures)

        return run

    def whole(_: float) -> Found:
        problem = "" if gpu.gpu_tiles == tiles and not gpu.hard_disabled else f"the GPU was switched off: {gpu.reason}"
        gpu.close()
        text = f"{gpu.gpu_tiles} of {tiles} tiles, {tiles * number} frames, {gpu.attempts} attempts"
        return Found(text, "all tiles on the GPU", problem)

    return [*(Case(f"tile {index + 1}", tile(index)) for index in range(tiles)), Case("all tiles", whole)]
