"""Stack aligned astronomical frames: one array API kernel, the same bits on CPU and GPU."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from zemosaic_stack_core.errors import (
    BackendUnavailableError,
    FrameReadError,
    GPUStackingError,
    InvalidInputError,
    OutOfMemoryError,
    ZemosaicError,
)
from zemosaic_stack_core.options import StackOptions

if TYPE_CHECKING:
    from zemosaic_stack_core.gpu.auto import stack_auto
    from zemosaic_stack_core.gpu.doctor import diagnose_gpu
    from zemosaic_stack_core.gpu.health import gpu_is_usable
    from zemosaic_stack_core.gpu.phase3_gpu import Phase3Gpu
    from zemosaic_stack_core.master.read import read_master
    from zemosaic_stack_core.master.write import write_master
    from zemosaic_stack_core.stacking.result import FrameRecord, StackResult
    from zemosaic_stack_core.stacking.run import stack
    from zemosaic_stack_core.zemosaic.core import (
        GPU_AVAILABLE,
        apply_tile_photometric_scaling,
        compute_tile_photometric_scaling,
        get_backend_module,
        stack_core,
    )
    from zemosaic_stack_core.zemosaic.parallel_plan import (
        ParallelCapabilities,
        ParallelPlan,
        auto_tune_parallel_plan,
        detect_parallel_capabilities,
    )

__all__ = [
    "GPU_AVAILABLE",
    "BackendUnavailableError",
    "FrameReadError",
    "FrameRecord",
    "GPUStackingError",
    "InvalidInputError",
    "OutOfMemoryError",
    "ParallelCapabilities",
    "ParallelPlan",
    "Phase3Gpu",
    "StackOptions",
    "StackResult",
    "ZemosaicError",
    "__version__",
    "apply_tile_photometric_scaling",
    "auto_tune_parallel_plan",
    "compute_tile_photometric_scaling",
    "detect_parallel_capabilities",
    "diagnose_gpu",
    "get_backend_module",
    "gpu_is_usable",
    "read_master",
    "stack",
    "stack_auto",
    "stack_core",
    "write_master",
]

__version__ = "0.1.0"

# Where each name is that is imported when it is first asked for: the command line's ``--help`` needs no array library.
_ON_DEMAND = {
    "GPU_AVAILABLE": "zemosaic.core",
    "FrameRecord": "stacking.result",
    "ParallelCapabilities": "zemosaic.parallel_plan",
    "ParallelPlan": "zemosaic.parallel_plan",
    "Phase3Gpu": "gpu.phase3_gpu",
    "StackResult": "stacking.result",
    "apply_tile_photometric_scaling": "zemosaic.core",
    "auto_tune_parallel_plan": "zemosaic.parallel_plan",
    "compute_tile_photometric_scaling": "zemosaic.core",
    "detect_parallel_capabilities": "zemosaic.parallel_plan",
    "diagnose_gpu": "gpu.doctor",
    "get_backend_module": "zemosaic.core",
    "gpu_is_usable": "gpu.health",
    "read_master": "master.read",
    "stack": "stacking.run",
    "stack_auto": "gpu.auto",
    "stack_core": "zemosaic.core",
    "write_master": "master.write",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for."""
    if name not in _ON_DEMAND:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_ON_DEMAND[name]}", __name__), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
