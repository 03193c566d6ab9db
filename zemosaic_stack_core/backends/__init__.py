"""Where arrays live: NumPy, CuPy, or another array namespace. Only ``gpu.py`` in this package names CuPy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .base import (
    N_SLOTS,
    Array,
    Backend,
    HostTransfer,
    NamespaceBackend,
    Slot,
    Transfer,
    TransferClosed,
    TransferTimes,
    namespace_backend,
    numpy_backend,
)
from .faults import FaultClass, classify_fault, is_device_lost, is_oom_error
from .gpu import CupyBackend, GpuMemory, cupy_backend, free_cupy_memory_pools, gpu_memory
from .resolve import BACKENDS, resolve_backend

if TYPE_CHECKING:
    from zemosaic_stack_core.gpu.health import gpu_is_usable, reset_gpu_health

__all__ = [
    "BACKENDS",
    "N_SLOTS",
    "Array",
    "Backend",
    "CupyBackend",
    "FaultClass",
    "GpuMemory",
    "HostTransfer",
    "NamespaceBackend",
    "Slot",
    "Transfer",
    "TransferClosed",
    "TransferTimes",
    "classify_fault",
    "cupy_backend",
    "free_cupy_memory_pools",
    "gpu_is_usable",
    "gpu_memory",
    "is_device_lost",
    "is_oom_error",
    "namespace_backend",
    "numpy_backend",
    "reset_gpu_health",
    "resolve_backend",
]


def __getattr__(name: str) -> Any:
    """Find the health check, which runs the kernel and so stands above this package, when it is asked for."""
    if name in ("gpu_is_usable", "reset_gpu_health"):
        from zemosaic_stack_core.gpu import health as gpu_health

        return getattr(gpu_health, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
