"""Where arrays live: NumPy, CuPy, or another array namespace. Only ``gpu.py`` in this package names CuPy."""

from __future__ import annotations

from zemosaic_stack_core.backends.base import (
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
    plain_numpy_backend,
)
from zemosaic_stack_core.backends.cuda import CupyBackend, GpuMemory, cupy_backend, free_cupy_memory_pools, gpu_memory
from zemosaic_stack_core.backends.faults import FaultClass, classify_fault, is_device_lost, is_oom_error
from zemosaic_stack_core.backends.resolve import BACKENDS, resolve_backend

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
    "gpu_memory",
    "is_device_lost",
    "is_oom_error",
    "namespace_backend",
    "numpy_backend",
    "plain_numpy_backend",
    "resolve_backend",
]
