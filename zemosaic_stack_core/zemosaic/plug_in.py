"""Put our names in place of ZeMosaic's in its modules: `install`, as they are imported; `plug_files`, in its folder.

Every module of ZeMosaic's keeps its own code; what `PLUGS` names is set afterwards.
"""

from __future__ import annotations

import functools
import importlib.machinery
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import zemosaic_stack_core
from zemosaic_stack_core.errors import GPUStackingError, InvalidInputError
from zemosaic_stack_core.stacking.limits import read_limits, setting
from zemosaic_stack_core.zemosaic import drop_in, parallel_plan
from zemosaic_stack_core.zemosaic.run_state import RUN_GPU, begin_run

_PLANNING = ("ParallelPlan", "ParallelCapabilities", "auto_tune_parallel_plan", "detect_parallel_capabilities")
# A module of ZeMosaic's, and what is ours in it.
PLUGS: dict[str, dict[str, Any]] = {
    "parallel_utils": {name: getattr(parallel_plan, name) for name in _PLANNING},
    "zemosaic_align_stack": {
        "stack_winsorized_sigma_clip": drop_in.stack_winsorized_sigma_clip,
        "stack_kappa_sigma_clip": drop_in.stack_kappa_sigma_clip,
        "stack_linear_fit_clip": drop_in.stack_linear_fit_clip,
        "stack_aligned_images": drop_in.stack_aligned_images,
    },
    "zemosaic_align_stack_gpu": {
        "GPUStackingError": GPUStackingError,
        "gpu_stack_from_paths": drop_in.gpu_stack_from_paths,
        "gpu_stack_from_arrays": drop_in.gpu_stack_from_arrays,
        "_gpu_is_usable": drop_in._gpu_is_usable,
        "_is_cupy_runtime_unavailable_error": drop_in._is_cupy_runtime_unavailable_error,
        "_resolve_rows_per_chunk": drop_in._resolve_rows_per_chunk,
        "get_phase3_gpu_runtime_stats": drop_in.get_phase3_gpu_runtime_stats,
        "reset_phase3_gpu_runtime_stats": drop_in.reset_phase3_gpu_runtime_stats,
    },
    "zemosaic_stack_core": {
        "GPU_AVAILABLE": drop_in.GPU_AVAILABLE,
        "apply_tile_photometric_scaling": drop_in.apply_tile_photometric_scaling,
        "compute_tile_photometric_scaling": drop_in.compute_tile_photometric_scaling,
        "get_backend_module": drop_in.get_backend_module,
        "stack_core": drop_in.stack_core,
    },
    "zemosaic_worker": {
        "_stack_master_tile_auto": drop_in._stack_master_tile_auto,
        "_stack_master_tile_cpu": drop_in._stack_master_tile_cpu,
    },
}
WORKER = "zemosaic_worker"
# The function of ZeMosaic's worker that is one run, by which its folder is known.
RUN = "run_hierarchical_mosaic"
# What of it we take the place of, and its state of the GPU, whose "allowed" is the program's to say.
_AUTO, _STATE = "_stack_master_tile_auto", "_P3_GPU_STATE"


def plug(name: str, namespace: MutableMapping[str, Any]) -> None:
    """Set our names in a module of ZeMosaic's, whose code has run."""
    stem = name.rpartition(".")[2]
    for ours, value in PLUGS[stem].items():
        namespace[ours] = value
    if stem == WORKER and callable(run := namespace.get(RUN)):
        namespace[RUN] = _begins_a_run(run)
    if stem == WORKER and isinstance(state := namespace.get(_STATE), dict):
        namespace[_AUTO] = _where_allowed(namespace[_AUTO], state)


def _where_allowed(stacker: Callable[..., Any], state: Mapping[str, Any]) -> Callable[..., Any]:
    """Return our stacker, kept off the GPU where ZeMosaic's own state says that it is not allowed."""

    @functools.wraps(stacker)
    def wrapped(*args: Any, **given: Any) -> Any:
        if not state.get("allowed", True):
            plan = given.get("parallel_plan") or setting(given.get("zconfig"), "parallel_plan")
            given["parallel_plan"] = replace(read_limits(plan), use_gpu=False)
        return stacker(*args, **given)

    return wrapped


def _begins_a_run(run: Callable[..., Any]) -> Callable[..., Any]:
    """Return ZeMosaic's function with a state of the GPU of its own; it may call itself."""
    depth: list[None] = []

    @functools.wraps(run)
    def wrapped(*args: Any, **given: Any) -> Any:
        if not depth:
            begin_run()
        depth.append(None)
        try:
            return run(*args, **given)
        finally:
            depth.pop()
            if not depth:
                RUN_GPU.begin()

    return wrapped


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads a module of ZeMosaic's, then sets our names in it."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's own code first."""
        super().exec_module(module)
        plug(module.__name__, vars(module))


class _Finder:
    """Finds ZeMosaic's modules before Python does."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return a module's spec with our loader; None for whatever is not ZeMosaic's."""
        del target
        stem = name.rpartition(".")[2]
        if stem not in PLUGS or name not in (stem, f"zemosaic.{stem}"):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if (
            spec is not None
            and spec.origin is not None
            and isinstance(spec.loader, importlib.machinery.SourceFileLoader)
        ):
            spec.loader = _Loader(name, spec.origin)
        return spec


def install() -> None:
    """Put our names into ZeMosaic's modules as they are imported, without touching files.

    Call it before ZeMosaic's worker is imported, from a program that finds this package: one outside ZeMosaic's folder,
    or ``python -P``, since that folder has a module ``zemosaic_stack_core`` of its own. Twice is once.

    Raises
    ------
    InvalidInputError
        ZeMosaic's worker is imported already.
    """
    for name in (WORKER, f"zemosaic.{WORKER}"):
        module = sys.modules.get(name)
        if (
            hasattr(module, RUN)
            and getattr(module, "_stack_master_tile_auto", None) is not drop_in._stack_master_tile_auto
        ):
            raise InvalidInputError(f"{name} is imported already; expected plug_in.install() before it")
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)
    for stem in PLUGS:
        for name in (stem, f"zemosaic.{stem}"):
            module = sys.modules.get(name)
            if module not in (None, zemosaic_stack_core) and stem != WORKER:
                plug(name, vars(module))
