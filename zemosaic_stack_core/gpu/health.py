"""Is the GPU usable? Asked before the first tile, answered by the kernel itself, where nothing can hang the worker."""

from __future__ import annotations

import functools
import importlib.util
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.backends import Backend, cupy_backend, numpy_backend
from zemosaic_stack_core.backends.cuda import GpuMemory, cupy_in_use, gpu_memory
from zemosaic_stack_core.errors import BackendUnavailableError
from zemosaic_stack_core.gpu.driver import install_command, missing_driver
from zemosaic_stack_core.kernel import stack_chunk
from zemosaic_stack_core.kernel.samples import Samples
from zemosaic_stack_core.options import StackOptions
from zemosaic_stack_core.system.isolation import IsolatedCallError, call_in_process, call_in_thread

# Seconds for the check. It takes about one; the first time CuPy compiles about a hundred kernels, 0.1 s each.
HEALTH_TIMEOUT_S = 120.0
# Rules of the check's cubes: between them they use every kind of operation of the kernel.
_RULES = ("kappa_sigma", "winsorized_sigma_clip", "linear_fit_clip")
# Frames of the check's cubes: few and many are sorted differently.
_FRAMES = (9, 150)


@dataclass(frozen=True, kw_only=True)
class GpuHealth:
    """Outcome of the health check.

    Parameters
    ----------
    usable : bool
        The device answered and the kernel gave NumPy's bits.
    reason : str
        Why it is not usable; empty where it is.
    advice : str
        What to do about it, in plain words; empty where nothing is to be done.
    memory : GpuMemory or None
        The device's name and memory, None where no device answered.
    """

    usable: bool
    reason: str = ""
    advice: str = ""
    memory: GpuMemory | None = None


def _advice(reason: str) -> str:
    """Return what a user can do about a failed check."""
    words = reason.lower()
    if "cuda headers" in words or "nvrtc" in words or "dynamiclibnotfound" in words or "cublas" in words:
        return f"CUDA's headers and libraries are missing: {install_command()} brings them"
    if "insufficientdriver" in words or "insufficient driver" in words or "no nvidia driver" in words:
        return "install NVIDIA's driver, or a newer one; without an NVIDIA card the CPU does all the work"
    if "nodevice" in words or "lists none" in words or "no cuda-capable device" in words:
        return "no NVIDIA card is visible: check the card, its driver and CUDA_VISIBLE_DEVICES"
    if "can't be imported" in words or "not installed" in words:
        return f"{install_command()}; without an NVIDIA card the CPU does all the work"
    if "differs from the cpu" in words:
        return "this GPU computes other numbers than the CPU: report its name and the versions of CuPy and the driver"
    if "no answer within" in words:
        return "the driver hangs: restart the machine, then update NVIDIA's driver"
    return "restart the machine and update NVIDIA's driver; zemosaic-worker doctor says more"


def _tiny_samples(backend: Backend, n_frames: int) -> Samples:
    """Return weighted samples of shape (frame, 96) with gaps and outliers, on the backend."""
    generator = np.random.default_rng(2024)
    cube = generator.normal(1000.0, 20.0, (n_frames, 96)).astype(np.float32)
    cube[generator.integers(0, n_frames, 24), generator.integers(0, 96, 24)] = np.float32(4000.0)
    cube[0, :40] = np.nan
    cube[:, 7] = np.nan
    weights = [1.0 + (frame % 3) / 4 for frame in range(n_frames)]
    return Samples([backend.upload(row) for row in cube], weights=weights)


def _kernel_answers(backend: Backend, n_frames: int, rule: str) -> list[npt.NDArray[Any]]:
    """Return the arrays that the kernel makes of a tiny cube, on the host."""
    samples = _tiny_samples(backend, n_frames)
    options = StackOptions(rejection=rule)
    chunk = stack_chunk(backend, samples, options, maps=("weight_map", "variance"))
    answers = []
    for array in chunk:
        if array is None:
            continue
        on_host = np.empty(tuple(array.shape), dtype=str(array.dtype).rpartition(".")[2])
        backend.download(array, on_host)
        answers.append(on_host)
    return answers


def _find_difference(expected: Sequence[npt.NDArray[Any]], found: Sequence[npt.NDArray[Any]]) -> str:
    """Return what differs, empty where all bits agree (NaN for NaN)."""
    for index, (left, right) in enumerate(zip(expected, found, strict=True)):
        if not np.array_equal(left, right, equal_nan=left.dtype.kind == "f"):
            return f"array {index} of the kernel's answer differs from the CPU's"
    return ""


def check_gpu_here() -> dict[str, Any]:
    """Check the GPU in this process and return the fields of a `GpuHealth`; see `check_gpu` for the safe way."""
    try:
        backend = cupy_backend()
        memory = asdict(gpu_memory())
    except BackendUnavailableError as error:
        return {"usable": False, "reason": str(error), "memory": None}
    host = numpy_backend()
    for n_frames in _FRAMES:
        for rule in _RULES:
            expected = _kernel_answers(host, n_frames, rule)
            difference = _find_difference(expected, _kernel_answers(backend, n_frames, rule))
            if difference:
                reason = f"{n_frames} frames, {rule}: {difference}"
                return {"usable": False, "reason": reason, "memory": memory}
    backend.synchronize()
    return {"usable": True, "memory": asdict(gpu_memory())}


def check_gpu(timeout_s: float = HEALTH_TIMEOUT_S) -> GpuHealth:
    """Check the GPU now; any failure is a reason in the answer, never an exception.

    The device must answer and report its free memory, and the kernel must give NumPy's bits on small cubes. It happens
    in a process of its own, which a hung driver can only stall until the time-out, and which takes a crash or a dead
    device with it; where there is no driver at all, none is started. Where this process uses CuPy already, it is
    checked here, on a thread with the same time-out: what counts then is whether CuPy works *here*.

    Parameters
    ----------
    timeout_s : float
        Seconds to wait for the answer.
    """
    if importlib.util.find_spec("cupy") is None:
        return _unusable("CuPy is not installed")
    if not cupy_in_use() and (reason := missing_driver()):
        return _unusable(reason)
    call = call_in_thread if cupy_in_use() or getattr(sys, "frozen", False) else call_in_process
    try:
        answer = call(f"{__name__}:check_gpu_here", [], timeout_s=timeout_s)
    except IsolatedCallError as error:
        return _unusable(str(error))
    memory = None if answer["memory"] is None else GpuMemory(**answer["memory"])
    return GpuHealth(usable=True, memory=memory) if answer["usable"] else _unusable(answer["reason"], memory)


def _unusable(reason: str, memory: GpuMemory | None = None) -> GpuHealth:
    """Return the outcome of a check that failed."""
    return GpuHealth(usable=False, reason=reason, advice=_advice(reason), memory=memory)


@functools.cache
def gpu_health() -> GpuHealth:
    """Return the outcome of the health check, made at the first call of the process or after `reset_gpu_health`."""
    return check_gpu()


def reset_gpu_health() -> None:
    """Forget the outcome: the next `gpu_health` or `gpu_is_usable` checks again."""
    gpu_health.cache_clear()


def gpu_is_usable(logger: logging.Logger | None = None) -> bool:
    """Return whether the GPU passed its health check; the answer is kept until `reset_gpu_health`. Never raises.

    Parameters
    ----------
    logger : logging.Logger, optional
        Gets one INFO line with the reason where the GPU is not usable.
    """
    health = gpu_health()
    if logger is not None and not health.usable:
        logger.info("[P3][GPU] GPU not usable: %s", health.reason)
    return health.usable
