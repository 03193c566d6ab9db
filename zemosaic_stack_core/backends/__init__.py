"""Where arrays live: NumPy, CuPy, or another array namespace. Only ``gpu.py`` in this package names CuPy."""

from __future__ import annotations

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
from .gpu import cupy_backend
from .resolve import BACKENDS, resolve_backend

__all__ = [
    "BACKENDS",
    "N_SLOTS",
    "Array",
    "Backend",
    "HostTransfer",
    "NamespaceBackend",
    "Slot",
    "Transfer",
    "TransferClosed",
    "TransferTimes",
    "cupy_backend",
    "namespace_backend",
    "numpy_backend",
    "resolve_backend",
]
