"""Names under which the existing ZeMosaic program calls a stacker; each a thin layer over this library.

New programs use `stack` and `stack_auto`. What differs from what these names did before:

* CPU and GPU give the same bits; every rule, weight and normalization works on both.
* An unknown name of a method is an error that lists the known ones, and no longer means "none".
* A missing sample stays missing: NaN comes out only where no frame has a sample, and never a zero.
* An image of zeros is an image.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.backends import cuda, cupy_backend, faults
from zemosaic_stack_core.backends.faults import walk_chain
from zemosaic_stack_core.errors import (
    BackendUnavailableError,
    FrameReadError,
    GPUStackingError,
    InvalidInputError,
    OutOfMemoryError,
)
from zemosaic_stack_core.gpu.auto import GPU_SUMMARY
from zemosaic_stack_core.gpu.health import gpu_health, gpu_is_usable
from zemosaic_stack_core.gpu.phase3_gpu import USING_GPU
from zemosaic_stack_core.stacking.chunk_plan import Footprint, plan_chunks
from zemosaic_stack_core.stacking.job import StackRequest
from zemosaic_stack_core.stacking.limits import read_limits
from zemosaic_stack_core.stacking.result import find_invalid
from zemosaic_stack_core.stacking.run import stack_group
from zemosaic_stack_core.stacking.telemetry import Telemetry
from zemosaic_stack_core.zemosaic import align_stack, core, master_tile, rgb
from zemosaic_stack_core.zemosaic.config import translate_stacking_params
from zemosaic_stack_core.zemosaic.given_frames import FramesGiven
from zemosaic_stack_core.zemosaic.master_tile import TileCall, stack_meta
from zemosaic_stack_core.zemosaic.rgb import equalize_rgb
from zemosaic_stack_core.zemosaic.run_state import DEVICE, RUNTIME_STATS, Heartbeat, note_gpu_stack

# Working set in bytes that `_resolve_rows_per_chunk` plans with where the plan has none.
DEFAULT_GPU_MAX_CHUNK_BYTES = 512 * 1024**2
# Rows that it plans with at most where the plan has neither rows nor bytes.
DEFAULT_GPU_ROWS_PER_CHUNK = 256

_LOGGER = logging.getLogger(__name__)

# Names that other rooms and modules have, and ZeMosaic looks for here.
_gpu_is_usable = gpu_is_usable
free_cupy_memory_pools = cuda.free_cupy_memory_pools
is_oom_error = faults.is_oom_error
stack_aligned_images = align_stack.stack_aligned_images
stack_kappa_sigma_clip = align_stack.stack_kappa_sigma_clip
stack_linear_fit_clip = align_stack.stack_linear_fit_clip
stack_winsorized_sigma_clip = align_stack.stack_winsorized_sigma_clip
_stack_master_tile_auto = master_tile._stack_master_tile_auto
_stack_master_tile_cpu = master_tile._stack_master_tile_cpu
_poststack_rgb_equalization = rgb._poststack_rgb_equalization
equalize_rgb_medians_inplace = rgb.equalize_rgb_medians_inplace
GPU_AVAILABLE = core.GPU_AVAILABLE
apply_tile_photometric_scaling = core.apply_tile_photometric_scaling
compute_tile_photometric_scaling = core.compute_tile_photometric_scaling
get_backend_module = core.get_backend_module
stack_core = core.stack_core


def reset_phase3_gpu_runtime_stats() -> None:
    """Forget the figures of the last GPU stack."""
    RUNTIME_STATS.replace({})


def get_phase3_gpu_runtime_stats() -> dict[str, Any]:
    """Return the figures of the last GPU stack, by names that begin with ``p3_gpu_last_``; empty before the first."""
    return RUNTIME_STATS.copy()


def _is_cupy_runtime_unavailable_error(exc: BaseException) -> bool:
    """Return whether an exception says that CuPy or CUDA's runtime can't be had, rather than that a stack failed."""
    words = ("insufficient", "no cuda-capable device", "nodevice", "nvrtc", "dynamiclibnotfound", "cuda headers")
    text = " ".join(f"{type(link).__name__} {link}".lower() for link in walk_chain(exc))
    is_missing = any(isinstance(link, (ImportError, BackendUnavailableError)) for link in walk_chain(exc))
    return is_missing or any(word in text for word in words)


def _resolve_rows_per_chunk(height: int, width: int, channels: int, n_frames: int, plan: object) -> int:
    """Return how many rows a chunk on the GPU may have under a plan: at least 1 (the stack itself takes part of a row).

    The plan's ``gpu_rows_per_chunk`` and ``gpu_max_chunk_bytes`` are caps; the stack also looks at what is free.
    """
    limits = read_limits(plan).on_gpu()
    rows = limits.rows_per_chunk
    if rows is None and limits.memory_limit is None:
        rows = DEFAULT_GPU_ROWS_PER_CHUNK
    footprint = Footprint(
        frames=max(n_frames, 1), rows=height, columns=width, channels=channels, sample_bytes=4 * max(n_frames, 1)
    )
    budget = limits.memory_limit or DEFAULT_GPU_MAX_CHUNK_BYTES
    try:
        return plan_chunks(footprint, budget=budget, rows_cap=rows, is_host=False).rows_per_chunk
    except OutOfMemoryError:
        return 1


def gpu_stack_from_arrays(
    aligned_images: Sequence[object],
    stacking_params: Mapping[str, Any] | None,
    *,
    parallel_plan: object = None,
    logger: logging.Logger | None = None,
    pcb_tile: Callable[..., Any] | None = None,
    tile_id: int | None = None,
    zconfig: object = None,
    rows_per_chunk_override: int | None = None,
) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
    """Stack aligned frames on the GPU, in one attempt.

    Parameters
    ----------
    aligned_images : sequence of arrays
        Shape (row, column) or (row, column, channel). The first is the reference, whose level the tile has. None, and
        with one WARN those of another shape than the reference's, are left out.
    stacking_params : mapping or None
        ``stack_norm_method``, ``stack_weight_method``, ``stack_reject_algo``, ``stack_kappa_low``,
        ``stack_kappa_high``, ``parsed_winsor_limits``, ``stack_final_combine``, ``apply_radial_weight``,
        ``radial_feather_fraction``, ``radial_shape_power``, ``poststack_equalize_rgb``; without ``stack_reject_algo``
        nothing is rejected.
    parallel_plan : ParallelPlan, mapping, object or None
        ``gpu_rows_per_chunk`` and ``gpu_max_chunk_bytes`` are caps.
    logger : logging.Logger, optional
        Gets what is left out, and why the GPU can't be used.
    pcb_tile : callable, optional
        Gets ``"phase3_stack_progress"`` now and then, so that a watchdog sees a sign of life, and
        ``"phase3_gpu_chunk_summary"`` after the tile. What it raises ends the stack and passes through.
    tile_id : int, optional
        Number of the tile.
    zconfig : mapping or object, optional
        The program's configuration.
    rows_per_chunk_override : int, optional
        Most rows of a chunk, in place of the plan's.

    Returns
    -------
    image : array of shape (row, column) or (row, column, channel), float32
        NaN where no frame has a sample.
    meta : dict
        ``weight_method``, ``weight_stats``, ``rgb_equalization``, and how it was made, as from
        `_stack_master_tile_auto`.

    Raises
    ------
    GPUStackingError
        The GPU can't be used or failed; `is_oom_error` tells whether memory ran out.
    InvalidInputError, FrameReadError
        Of the input: the CPU would raise them too.
    """
    return gpu_stack_from_paths(
        aligned_images,
        stacking_params,
        parallel_plan=parallel_plan,
        logger=logger,
        pcb_tile=pcb_tile,
        tile_id=tile_id,
        zconfig=zconfig,
        rows_per_chunk_override=rows_per_chunk_override,
    )


def gpu_stack_from_paths(
    image_descriptors: Sequence[object],
    stacking_params: Mapping[str, Any] | None,
    *,
    array_loader: Callable[[Any], npt.NDArray[Any]] | None = None,
    parallel_plan: object = None,
    logger: logging.Logger | None = None,
    pcb_tile: Callable[..., Any] | None = None,
    tile_id: int | None = None,
    zconfig: object = None,
    rows_per_chunk_override: int | None = None,
) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
    """Stack frames that are described, on the GPU, in one attempt; files are read chunk by chunk.

    Parameters
    ----------
    image_descriptors : sequence
        Arrays; paths of ``.npy`` or FITS files; mappings with an array under ``data`` or ``array``, or else a path
        under ``path_preprocessed_cache`` or ``path``.
    array_loader : callable, optional
        Makes an array of a descriptor; with it all frames are in memory at once.
    stacking_params, parallel_plan, logger, pcb_tile, tile_id, zconfig, rows_per_chunk_override
        See `gpu_stack_from_arrays`, as for what is returned and raised.
    """
    limits = read_limits(parallel_plan).on_gpu()
    if rows_per_chunk_override:
        limits = replace(limits, rows_per_chunk=rows_per_chunk_override)
    call = TileCall(
        translated=translate_stacking_params(stacking_params, zconfig),
        limits=limits,
        telemetry=Telemetry(pcb_tile=pcb_tile, tile_id=tile_id),
        logger=logger or _LOGGER,
    )
    return _stack_on_gpu(FramesGiven(frames=image_descriptors, array_loader=array_loader), call)


def _stack_on_gpu(given: FramesGiven, call: TileCall) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
    """Make one attempt on the GPU; see `gpu_stack_from_arrays`."""
    translated, telemetry, logger = call.translated, call.telemetry, call.logger
    for note in translated.notes:
        logger.warning("[P3][GPU] %s", note)
    group, reference, _ = given.open(logger)
    if not gpu_is_usable(logger):
        raise GPUStackingError(f"the GPU can't be used: {gpu_health().reason}")
    request = StackRequest(options=replace(translated.options, reference=reference))
    heartbeat = None if telemetry.pcb_tile is None else Heartbeat(telemetry.pcb_tile, telemetry.tile_id)
    began = time.perf_counter()
    try:
        with DEVICE:  # tiles come on several threads, and each plans with the device's free memory
            backend = cupy_backend()
            result = stack_group(group, request, backend, call.limits, progress=heartbeat)
            backend.release()  # the program's other phases use the GPU in their own way
    except (InvalidInputError, FrameReadError):
        raise
    except (RuntimeError, MemoryError, ImportError) as error:  # CUDA errors, no memory, libraries that are missing
        if heartbeat is not None and any(link is heartbeat.raised for link in walk_chain(error)):
            raise  # the program's own, as where it aborts the tile
        for link in walk_chain(error):  # their frames hold the arrays that fill the device
            traceback.clear_frames(link.__traceback__)
        raise GPUStackingError(f"the GPU failed: {type(error).__name__}: {error}") from error
    invalid = find_invalid(result, group.shape, len(group.sources))
    if invalid:
        raise GPUStackingError(f"the GPU's tile is invalid: {invalid}")
    memory = gpu_health().memory
    facts = replace(result.facts, used_gpu=True, gpu_attempts=1, device="" if memory is None else memory.name)
    result = replace(result, facts=facts)
    duration_s = time.perf_counter() - began
    if not RUNTIME_STATS.copy():
        logger.info(USING_GPU)
    summary = note_gpu_stack(result, group.rows, duration_s)
    if telemetry.pcb_tile is not None:
        where = {"tile_id": telemetry.tile_id, "attempt": 1, "backend": result.backend}
        telemetry.pcb_tile(GPU_SUMMARY, prog=None, lvl="INFO_DETAIL", **where, **summary)
    equalization = equalize_rgb(result.image, enabled=translated.equalize_rgb)
    return result.image, stack_meta(result, duration_s, equalization)
