"""Times of a card, by its own clock, beside plain copies; whole stacks beside the CPU; what the compiler made."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io import fits

from zemosaic_stack_core import StackOptions, StackResult, stack
from zemosaic_stack_core.backends import Backend, CupyBackend
from zemosaic_stack_core.backends.cuda import gpu_memory
from zemosaic_stack_core.backends.cuda_source import scratch_bytes
from zemosaic_stack_core.kernel import stack_chunk
from zemosaic_stack_core.kernel.samples import Samples
from zemosaic_stack_core.options import REJECTIONS
from zemosaic_stack_core.system.quantities import count_text

from .gpu_cases import Bench, Case, Found, WatchedBackend
from .gpu_checks import difference
from .kernel import critical_values, make_samples, options_of
from .operations import count_operations

_GB = 1e9
# The plain copies.
TO_DEVICE, TO_HOST, ON_DEVICE = "host to device, pinned", "device to host, pinned", "device to device"
# Numbers of frames that are timed.
_FRAMES = (8, 32, 100, 400)
# Names of properties of a device, as CUDA has them, and what they are here. Not every version has all.
_PROPERTIES = {
    "major": "compute capability, major",
    "minor": "compute capability, minor",
    "multiProcessorCount": "multiprocessors",
    "clockRate": "clock, kHz",
    "memoryClockRate": "memory clock, kHz",
    "memoryBusWidth": "memory bus, bits",
    "l2CacheSize": "L2 cache, bytes",
    "regsPerMultiprocessor": "registers of a multiprocessor",
    "maxThreadsPerMultiProcessor": "threads of a multiprocessor",
    "singleToDoublePrecisionPerfRatio": "float32 to float64",
}
_NVIDIA_SMI = ("driver_version", "pcie.link.gen.max", "pcie.link.width.max", "pstate", "power.limit")


def card(bench: Bench) -> list[Case]:
    """Say what the card is."""

    def facts(_: float) -> Found:
        runtime, memory = bench.cupy.cuda.runtime, gpu_memory()
        properties = runtime.getDeviceProperties(runtime.getDevice())
        figures: dict[str, Any] = asdict(memory)
        figures |= {text: properties[name] for name, text in _PROPERTIES.items() if name in properties}
        figures |= {"driver": runtime.driverGetVersion(), "runtime": runtime.runtimeGetVersion()}
        figures |= {"CuPy": bench.cupy.__version__} | _link()
        capability = f"{properties['major']}.{properties['minor']}"
        text = f"{memory.name}, compute capability {capability}, {memory.total / 2**30:.1f} GiB"
        beside = f"CuPy {figures['CuPy']}, CUDA {figures['runtime']}, driver for {figures['driver']}"
        return Found(text, beside, figures=figures)

    return [Case("facts", facts)]


def _link() -> dict[str, str]:
    """Return what nvidia-smi says of the card, nothing where it is not there."""
    query = [f"--query-gpu={','.join(_NVIDIA_SMI)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(["nvidia-smi", *query], capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(_NVIDIA_SMI, (word.strip() for word in done.stdout.splitlines()[0].split(",")), strict=False))


def copies(bench: Bench) -> list[Case]:
    """Measure plain copies, which everything else is a share of."""
    cuda, size = bench.cupy.cuda, min(bench.size.copied, max(gpu_memory().free // 8, 1 << 10))
    device, other = (bench.cupy.empty(size, np.uint8) for _ in range(2))
    pinned = bench.backend.allocate_pinned(size)[:size]
    pinned[:] = 1
    kinds = {
        TO_DEVICE: lambda stream: device.set(pinned, stream=stream),
        TO_HOST: lambda stream: device.get(stream=stream, out=pinned, blocking=False),
        ON_DEVICE: lambda stream: other.data.copy_from_device_async(device.data, size, stream),
    }

    def copy(name: str) -> Callable[[float], Found]:
        def run(_: float) -> Found:
            stream = cuda.Stream(non_blocking=True)
            best = min(_milliseconds(cuda, stream, lambda: kinds[name](stream)) for _ in range(bench.size.repeat + 1))
            rate = bench.rates[name] = size / max(best, 1e-6) * 1e3
            return Found(f"{rate / _GB:.1f} GB/s", f"{size / 2**20:.0f} MiB", figures={"bytes_per_s": rate})

        return run

    return [Case(name, copy(name)) for name in kinds]


def _milliseconds(cuda: Any, stream: Any, call: Callable[[], object]) -> float:
    """Return the milliseconds on the device of what a call queues on a stream."""
    begin, end = cuda.Event(), cuda.Event()
    begin.record(stream)
    call()
    end.record(stream)
    end.synchronize()
    return float(cuda.get_elapsed_time(begin, end))


def bands(bench: Bench) -> list[Case]:
    """Time one band on its way: upload, kernel, download, each alone."""
    cases = [
        Case(f"{frames} frames, {dtype}, kappa_sigma", _band(bench, frames, dtype, StackOptions()))
        for frames in _FRAMES
        for dtype in ("float32", "uint16")
    ]
    cases.append(Case("32 frames, float32 as in FITS, kappa_sigma", _band(bench, 32, "f32be", StackOptions())))
    plain = StackOptions(rejection="none")
    for name, options in (("mean", plain), ("median", StackOptions(rejection="none", combine="median"))):
        cases.append(Case(f"32 frames, float32, {name}", _band(bench, 32, "float32", options)))
    for rule in ("winsorized_sigma_clip", "linear_fit_clip", "mad_clip", "gesd"):
        cases.append(Case(f"32 frames, float32, {rule}", _band(bench, 32, "float32", options_of(rule))))
    for registers in (96, 80, 64):
        more = (f"--maxrregcount={registers}",)
        name = f"32 frames, float32, kappa_sigma, at most {registers} registers"
        cases.append(Case(name, _band(bench, 32, "float32", StackOptions(), more)))
    return cases


def _band(
    bench: Bench, frames: int, dtype: str, options: StackOptions, compiler_options: tuple[str, ...] = ()
) -> Callable[[float], Found]:
    """Return the case of a band of one kind of samples."""

    def run(deadline: float) -> Found:
        backend = WatchedBackend(compiler_options) if compiler_options else bench.backend
        pixels = max(min(bench.size.samples, gpu_memory().allocatable // 16) // frames, 1)
        rows = _rows(frames, pixels, dtype)
        best = [float("inf")] * 3
        for index in range(bench.size.repeat + 1):
            best = [min(pair) for pair in zip(best, _time_band(backend, rows, dtype, options), strict=True)]
            if index and time.perf_counter() > deadline:
                break
        if compiler_options:
            backend.release()
        bench.cupy.get_default_memory_pool().free_all_blocks()
        samples, read = frames * pixels, sum(row.nbytes for row in rows)
        answer = pixels * 16
        rates = [amount / max(ms, 1e-6) * 1e3 for amount, ms in zip((read, read, answer), best, strict=True)]
        kinds = (TO_DEVICE, ON_DEVICE, TO_HOST)
        shares = [
            rate / bench.rates[kind] if kind in bench.rates else 0.0 for rate, kind in zip(rates, kinds, strict=True)
        ]
        steps = ("upload", "kernel", "download")
        figures: dict[str, Any] = {"samples": samples}
        for step, ms, rate, share in zip(steps, best, rates, shares, strict=True):
            figures |= {f"{step}_ns": ms * 1e6 / samples, f"{step}_bytes_per_s": rate, f"{step}_share": share}
        text = ", ".join(
            f"{step} {figures[f'{step}_ns']:.3f} ns ({rate / _GB:.0f} GB/s)"
            for step, rate in zip(steps, rates, strict=True)
        )
        beside = ", ".join(f"{share:.0%}" for share in shares) + " of plain copies"
        return Found(f"a sample: {text}", beside, figures=figures)

    return run


def _rows(frames: int, pixels: int, dtype: str) -> list[npt.NDArray[Any]]:
    """Return the samples of some frames: those of a few, shifted, for it takes long to make many."""
    base = make_samples(8, pixels)
    rows = [np.roll(base[index % 8], 977 * index) for index in range(frames)]
    if dtype == "f32be":
        return [row.astype(">f4").view(np.uint32) for row in rows]
    return rows if dtype == "float32" else [np.rint(row).astype(dtype) for row in rows]


def _time_band(
    backend: CupyBackend, rows: list[npt.NDArray[Any]], dtype: str, options: StackOptions
) -> tuple[float, float, float]:
    """Bring a band to the card, stack it, fetch the results; return the milliseconds of the three by its clock."""
    pixels = rows[0].size
    stored = dtype if dtype == "f32be" else ""
    names = ("image", "coverage", "rejected_low", "rejected_high")
    with backend.open_transfer() as transfer:
        critical = critical_values(len(rows), options)
        slot = transfer.acquire()
        arrays = slot.host_arrays([row.shape for row in rows], [row.dtype for row in rows])
        for array, row in zip(arrays, rows, strict=True):
            array[...] = row
        transfer.upload(slot, arrays)
        with transfer.computing():
            if critical is not None:
                critical = critical._replace(values=backend.upload(critical.values))
            samples = Samples(transfer.arrive(slot), stored=stored)
            result = stack_chunk(backend, samples, options, critical_values=critical)
            answers = [getattr(result, name) for name in names]
            transfer.download([(array, np.empty(pixels, str(array.dtype))) for array in answers])
            transfer.release(slot)
        transfer.finish()
        return transfer.upload_ms, transfer.compute_ms, transfer.download_ms


def stacks(bench: Bench) -> list[Case]:
    """Time whole stacks beside the CPU with all its cores."""
    cases = []
    for dtype in ("float32", "uint16"):
        for rule in ("kappa_sigma", "winsorized_sigma_clip"):
            cases.append(Case(f"{dtype} in memory, {rule}", _whole(bench, dtype, rule, in_files=False)))
        cases.append(Case(f"{dtype} in FITS files, kappa_sigma", _whole(bench, dtype, "kappa_sigma", in_files=True)))
    return cases


def _whole(bench: Bench, dtype: str, rule: str, *, in_files: bool) -> Callable[[float], Found]:
    """Return the case of a whole stack on the card and on the CPU."""

    def run(deadline: float) -> Found:
        number, rows, columns = bench.size.stack
        frames: list[Any] = [row.reshape(rows, columns) for row in _rows(number, rows * columns, dtype)]
        if in_files:
            frames = [_write(bench.folder / f"stack_{dtype}_{index}.fits", frame) for index, frame in enumerate(frames)]
        options = options_of(rule)
        # Turn about, so that a machine that becomes slower does so for both.
        found = expected = None
        gpu_s = cpu_s = float("inf")
        for index in range(bench.size.repeat + 1):
            seconds, found = _timed(frames, options, bench.backend)
            gpu_s = min(gpu_s, seconds)
            seconds, expected = _timed(frames, options, "numpy")
            cpu_s = min(cpu_s, seconds)
            if index and time.perf_counter() > deadline:
                break
        assert found is not None  # noqa: S101 - there is at least one round
        assert expected is not None  # noqa: S101
        samples = number * rows * columns
        facts = found.facts
        steps = f"upload {facts.upload_ms:.0f}, kernel {facts.compute_ms:.0f}, download {facts.download_ms:.0f} ms"
        bus_s = samples * np.dtype(dtype).itemsize / bench.rates.get(TO_DEVICE, float("inf"))
        text = f"{gpu_s:.3f} s, {gpu_s / samples * 1e9:.3f} ns a sample, {count_text(facts.chunks, 'chunk')} ({steps})"
        cpu = f"CPU with {count_text(expected.facts.workers, 'thread')} {cpu_s:.3f} s: {cpu_s / gpu_s:.1f} times"
        beside = f"{cpu}; a plain copy of the samples to the device {bus_s:.3f} s"
        figures = {"gpu_s": gpu_s, "cpu_s": cpu_s, "bus_s": bus_s, "samples": samples, "chunks": facts.chunks}
        return Found(text, beside, difference(found, expected), figures)

    return run


def _write(path: Path, frame: npt.NDArray[Any]) -> Path:
    """Write a frame as a FITS file, unless it is there."""
    if not path.exists():
        fits.PrimaryHDU(frame).writeto(path)
    return path


def _timed(frames: list[Any], options: StackOptions, backend: str | Backend) -> tuple[float, StackResult]:
    """Stack, and return the seconds and the result."""
    began = time.perf_counter()
    result = stack(frames, options=options, backend=backend)
    return time.perf_counter() - began, result


def programs(bench: Bench) -> list[Case]:
    """Say what the compiler made of each rule: registers, spills, how many threads run at a time."""
    return [Case(rule, _program(rule)) for rule in bench.size.rules or REJECTIONS]


def _program(rule: str) -> Callable[[float], Found]:
    """Return the case of one rule's program."""

    def run(_: float) -> Found:
        frames, options = 32, options_of(rule)
        backend = WatchedBackend()
        rows = [backend.upload(row) for row in make_samples(frames, 64)]
        critical = critical_values(frames, options)
        if critical is not None:
            critical = critical._replace(values=backend.upload(critical.values))
        began = time.perf_counter()
        stack_chunk(backend, Samples(rows), options, critical_values=critical)
        backend.synchronize()
        seconds = time.perf_counter() - began
        program = backend.programs[-1]
        counted = count_operations(frames, options)
        occupancy = program.resident / program.most_resident
        figures = {
            "registers": program.registers,
            "spilled_bytes": program.spilled_bytes,
            "block": program.block,
            "resident_threads": program.resident,
            "occupancy": occupancy,
            "scratch_bytes": scratch_bytes(frames, program.program.columns),
            "first_s": seconds,
            **counted._asdict(),
        }
        text = f"{program.registers} registers, {program.spilled_bytes} bytes spilled, blocks of {program.block}"
        text += f", first results after {seconds:.2f} s"
        sample = f"a sample: {counted.float64:.1f} float64 operations, {counted.scratch:.0f} bytes of scratch memory"
        beside = f"occupancy {occupancy:.0%}; {sample}"
        return Found(text, beside, figures=figures)

    return run
