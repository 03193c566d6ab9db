"""Stack aligned astronomical frames: one array API kernel, the same bits on CPU and GPU."""

from __future__ import annotations

from .errors import (
    BackendUnavailableError,
    FrameReadError,
    GPUStackingError,
    InvalidInputError,
    OutOfMemoryError,
    ZemosaicError,
)
from .options import StackOptions
from .result import FrameRecord, StackResult
from .runner import stack

__all__ = [
    "BackendUnavailableError",
    "FrameReadError",
    "FrameRecord",
    "GPUStackingError",
    "InvalidInputError",
    "OutOfMemoryError",
    "StackOptions",
    "StackResult",
    "ZemosaicError",
    "__version__",
    "stack",
]

__version__ = "0.1.0"
