"""Names under which the existing ZeMosaic program calls a stacker; each a thin layer over this library.

New programs use `stack` and `stack_auto`. What differs from what these names did before:

* CPU and GPU give the same bits; every rule, weight and normalization works on both.
* An unknown name of a method is an error that lists the known ones, and no longer means "none".
* A missing sample stays missing: NaN comes out only where no frame has a sample, and never a zero.
* An image of zeros is an image.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.backends import cupy_backend, resolve_backend
from zemosaic_stack_core.backends.faults import walk_chain
from zemosaic_stack_core.errors import FrameReadError, GPUStackingError, InvalidInputError, OutOfMemoryError
from zemosaic_stack_core.frames.group import open_frames
from zemosaic_stack_core.frames.host_arrays import to_host
from zemosaic_stack_core.gpu.auto import GPU_SUMMARY, tile_figures
from zemosaic_stack_core.gpu.health import gpu_health, gpu_is_usable
from zemosaic_stack_core.options import COMBINATIONS, StackOptions, check_choice
from zemosaic_stack_core.stacking.chunk_plan import Footprint, plan_chunks
from zemosaic_stack_core.stacking.job import StackRequest
from zemosaic_stack_core.stacking.limits import Limits, read_limits, setting
from zemosaic_stack_core.stacking.result import StackResult, find_invalid
from zemosaic_stack_core.stacking.run import stack, stack_group
from zemosaic_stack_core.stacking.telemetry import Progress, Telemetry
from zemosaic_stack_core.zemosaic.config import TranslatedConfig, translate_stacking_params

# Working set in bytes that `_resolve_rows_per_chunk` plans with where the plan has none.
DEFAULT_GPU_MAX_CHUNK_BYTES = 512 * 1024**2
# Rows that it plans with at most where the plan has neither rows nor bytes.
DEFAULT_GPU_ROWS_PER_CHUNK = 256
# `stack_core`: "median" brings every frame's median to the reference's. The median over the frames at each pixel, which
# an older version subtracted, is the sky itself.
_NORMALIZATIONS = {"none": "none", "": "none", "median": "additive", "linear_fit": "linear_fit"}

_LOGGER = logging.getLogger(__name__)

_gpu_is_usable = gpu_is_usable


class _RuntimeStats:
    """Figures of the last GPU stack; the existing program asks for them by function, so they outlive the call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._figures: dict[str, Any] = {}

    def replace(self, figures: Mapping[str, Any]) -> None:
        """Keep these figures in place of the last."""
        with self._lock:
            self._figures = dict(figures)

    def copy(self) -> dict[str, Any]:
        """Return a copy."""
        with self._lock:
            return dict(self._figures)


_RUNTIME_STATS = _RuntimeStats()


def reset_phase3_gpu_runtime_stats() -> None:
    """Forget the figures of the last GPU stack."""
    _RUNTIME_STATS.replace({})


def get_phase3_gpu_runtime_stats() -> dict[str, Any]:
    """Return the figures of the last GPU stack, by names that begin with ``p3_gpu_last_``; empty before the first."""
    return _RUNTIME_STATS.copy()


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
        Shape (row, column) or (row, column, channel); None entries are left out.
    stacking_params : mapping or None
        ``stack_norm_method``, ``stack_weight_method``, ``stack_reject_algo``, ``stack_kappa_low``,
        ``stack_kappa_high``, ``parsed_winsor_limits``, ``stack_final_combine``, ``apply_radial_weight``,
        ``radial_feather_fraction``, ``radial_shape_power``; without ``stack_reject_algo`` nothing is rejected.
    parallel_plan : ParallelPlan, mapping, object or None
        ``gpu_rows_per_chunk`` and ``gpu_max_chunk_bytes`` are caps.
    logger : logging.Logger, optional
        Gets what is left out, and why the GPU can't be used.
    pcb_tile : callable, optional
        Gets ``"phase3_gpu_chunk_summary"`` after the tile.
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
        How it was made: ``backend``, ``device``, ``normalize_method``, ``weight_method``, ``weight_stats``,
        ``reject_algo``, ``final_combine``, ``rows_per_chunk``, ``duration_s``.

    Raises
    ------
    GPUStackingError
        The GPU can't be used or failed; `is_oom_error` tells whether memory ran out.
    InvalidInputError, FrameReadError
        Of the input: the CPU would raise them too.
    """
    translated = translate_stacking_params(stacking_params, zconfig)
    limits = read_limits(parallel_plan).on_gpu()
    if rows_per_chunk_override:
        limits = replace(limits, rows_per_chunk=rows_per_chunk_override)
    telemetry = Telemetry(pcb_tile=pcb_tile, tile_id=tile_id)
    return _stack_on_gpu(aligned_images, translated, limits, telemetry, logger or _LOGGER)


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
    frames = [_frame_of(item) if array_loader is None else array_loader(item) for item in image_descriptors]
    return gpu_stack_from_arrays(
        frames,
        stacking_params,
        parallel_plan=parallel_plan,
        logger=logger,
        pcb_tile=pcb_tile,
        tile_id=tile_id,
        zconfig=zconfig,
        rows_per_chunk_override=rows_per_chunk_override,
    )


def _frame_of(descriptor: object) -> object:
    """Return the array or the path of a descriptor."""
    if not isinstance(descriptor, Mapping):
        return os.fsdecode(descriptor) if isinstance(descriptor, bytes) else descriptor
    for name in ("data", "array", "path_preprocessed_cache", "path"):
        found = descriptor.get(name)
        if found is not None:
            return os.fsdecode(found) if isinstance(found, bytes) else found
    raise InvalidInputError(
        f"image descriptor has the keys {', '.join(map(str, descriptor)) or '(none)'}; "
        "expected data, array, path_preprocessed_cache or path"
    )


def _stack_on_gpu(
    frames: Sequence[object], translated: TranslatedConfig, limits: Limits, telemetry: Telemetry, logger: logging.Logger
) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
    """Make one attempt on the GPU; see `gpu_stack_from_arrays`."""
    for note in translated.notes:
        logger.warning("[P3][GPU] %s", note)
    group = open_frames([frame for frame in frames if frame is not None])
    if not gpu_is_usable(logger):
        raise GPUStackingError(f"the GPU can't be used: {gpu_health().reason}")
    began = time.perf_counter()
    try:
        backend = cupy_backend()
        result = stack_group(group, StackRequest(options=translated.options), backend, limits)
        backend.release()  # the program's other phases use the GPU in their own way
    except (InvalidInputError, FrameReadError):
        raise
    except (RuntimeError, MemoryError, ImportError) as error:  # CUDA errors, no memory, libraries that are missing
        for link in walk_chain(error):  # their frames hold the arrays that fill the device
            traceback.clear_frames(link.__traceback__)
        raise GPUStackingError(f"the GPU failed: {type(error).__name__}: {error}") from error
    invalid = find_invalid(result, group.shape, len(group.sources))
    if invalid:
        raise GPUStackingError(f"the GPU's tile is invalid: {invalid}")
    duration_s = time.perf_counter() - began
    summary = {**tile_figures(result, group.rows), "duration_s": duration_s}
    _RUNTIME_STATS.replace({f"p3_gpu_last_{name}": value for name, value in {**summary, "used": True}.items()})
    if telemetry.pcb_tile is not None:
        where = {"tile_id": telemetry.tile_id, "attempt": 1, "backend": result.backend}
        telemetry.pcb_tile(GPU_SUMMARY, prog=None, lvl="INFO_DETAIL", **where, **summary)
    return result.image, _meta(result, duration_s)


def _meta(result: StackResult, duration_s: float) -> dict[str, Any]:
    """Return what the program keeps about a tile."""
    weights = np.array([record.weight for record in result.frames], dtype=np.float64)
    memory = gpu_health().memory
    return {
        "backend": result.backend,
        "device": "" if memory is None else memory.name,
        "normalize_method": result.options.normalization,
        "weight_method": result.options.weighting,
        "weight_stats": {"min": float(weights.min()), "max": float(weights.max()), "mean": float(weights.mean())},
        "reject_algo": result.options.rejection,
        "final_combine": result.options.combine,
        "rows_per_chunk": result.facts.rows_per_chunk,
        "duration_s": duration_s,
    }


def get_backend_module(backend: str) -> ModuleType:
    """Return NumPy for ``"cpu"`` and CuPy for ``"gpu"``.

    Raises
    ------
    InvalidInputError
        Another name.
    BackendUnavailableError
        CuPy can't be had.
    """
    check_choice("backend", backend, ("cpu", "gpu"))
    return np if backend == "cpu" else cupy_backend().module


def stack_core(
    images: Sequence[object],
    weights: object | None = None,
    stack_config: object = None,
    backend: str = "cpu",
    progress_callback: Callable[..., Any] | None = None,
) -> tuple[npt.NDArray[np.float32], float, npt.NDArray[np.float32]]:
    """Stack aligned frames.

    Parameters
    ----------
    images : sequence of arrays
        Shape (row, column) or (row, column, channel).
    weights : array, optional
        Shape (frame,), or broadcastable to (frame, row, column[, channel]). Left out, with a warning, where the
        combination has no use for them.
    stack_config : mapping or object, optional
        ``normalize_method`` ("none", "median", "linear_fit": per frame, to a reference frame), ``rejection_algorithm``
        ("none"), ``final_combine_method`` ("mean"), ``sigma_clip_low`` (3), ``sigma_clip_high`` (3).
    backend : str
        ``"cpu"`` or ``"gpu"``.
    progress_callback : callable, optional
        Called as ``progress_callback("stack_core_progress", percent, "DEBUG_DETAIL")``.

    Returns
    -------
    image : array of the images' shape, float32
        NaN where no frame has a sample.
    rejected_pct : float
        Of the samples that are present, the percentage that was rejected.
    weight_sum : array of the images' shape, float32
        Sum of the weights of the combined samples.

    Raises
    ------
    InvalidInputError
        A name is unknown, a number out of range, or shapes differ.
    BackendUnavailableError
        The GPU was asked for and can't be had.
    """
    check_choice("backend", backend, ("cpu", "gpu"))
    options = _core_options(stack_config)
    if weights is not None:
        weights = to_host(weights, "weights") if hasattr(weights, "shape") else np.asarray(weights)
        if options.combine != "mean":
            _LOGGER.warning("stack_core: a %s has no weights; they are left out", options.combine)
            weights = None
    progress = None if progress_callback is None else _in_percent(progress_callback)
    result = stack(
        images,
        options=options,
        weights=weights,
        maps=("coverage", "weight_map"),
        backend=resolve_backend(backend),
        progress=progress,
    )
    if result.coverage is None or result.weight_map is None:
        raise AssertionError("stack() returns the maps that it is asked for")
    rejected = sum(sum(record.rejected_low) + sum(record.rejected_high) for record in result.frames)
    present = rejected + int(result.coverage.sum(dtype=np.int64))
    return result.image, 100.0 * rejected / present if present else 0.0, result.weight_map


def _in_percent(callback: Callable[..., Any]) -> Progress:
    """Return a progress callback that reports in `stack_core`'s way."""
    return lambda done, total: callback("stack_core_progress", 100.0 * done / total, "DEBUG_DETAIL")


def _core_options(config: object) -> StackOptions:
    """Return the options of `stack_core`'s configuration."""
    method = setting(config, "normalize_method")
    method = "none" if method is None else str(method).strip().lower()
    check_choice("normalize_method", method, tuple(_NORMALIZATIONS))
    combine = setting(config, "final_combine_method")
    combine = "mean" if combine is None else combine
    check_choice("final_combine_method", combine, COMBINATIONS)
    params = {
        "stack_norm_method": _NORMALIZATIONS[method],
        "stack_reject_algo": setting(config, "rejection_algorithm"),
        "stack_final_combine": combine,
        "stack_kappa_low": setting(config, "sigma_clip_low"),
        "stack_kappa_high": setting(config, "sigma_clip_high"),
    }
    given = {name: value for name, value in params.items() if value is not None}
    return translate_stacking_params(given, config).options


def compute_tile_photometric_scaling(
    reference_tile: npt.ArrayLike, target_tile: npt.ArrayLike, *, mask: npt.ArrayLike | None = None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Find the gain of each channel that brings one tile to the level of another.

    Parameters
    ----------
    reference_tile, target_tile : array of shape (row, column) or (row, column, channel)
        On one grid. An array of shape (channel, row, column) with up to 4 channels is recognized.
    mask : bool array of shape (row, column) or the tile's, optional
        True where pixels may be used.

    Returns
    -------
    gains, offsets : array of shape (channel,), float32
        Gain = median of the reference over median of the target, over the pixels where both are finite; offset 0. Gain
        1 where there are none or the median of the target is 0.

    Raises
    ------
    InvalidInputError
        The shapes differ.
    """
    reference, target = _by_channel(reference_tile), _by_channel(target_tile)
    if reference.shape != target.shape:
        raise InvalidInputError(
            f"the target tile has the shape {np.shape(target_tile)}; expected that of the reference, "
            f"{np.shape(reference_tile)}"
        )
    usable = np.isfinite(reference) & np.isfinite(target)
    if mask is not None:
        allowed = np.asarray(mask, dtype=bool)
        if allowed.shape[:2] != reference.shape[:2]:
            raise InvalidInputError(f"the mask has the shape {allowed.shape}; expected {reference.shape[:2]}")
        usable &= allowed if allowed.ndim == 3 else allowed[:, :, None]
    channels = reference.shape[2]
    gains = np.ones(channels, dtype=np.float32)
    for channel in range(channels):
        chosen = usable[:, :, channel]
        if not chosen.any():
            continue
        level = float(np.median(target[:, :, channel][chosen]))
        wanted = float(np.median(reference[:, :, channel][chosen]))
        if level != 0.0 and abs(wanted / level) <= float(np.finfo(np.float32).max):
            gains[channel] = wanted / level
    return gains, np.zeros(channels, dtype=np.float32)


def apply_tile_photometric_scaling(
    tile: npt.ArrayLike, gains: npt.ArrayLike, offsets: npt.ArrayLike
) -> npt.NDArray[np.float32]:
    """Apply gains and offsets to a tile's channels.

    Parameters
    ----------
    tile : array of shape (row, column) or (row, column, channel)
        Not written to; what is not finite stays as it is.
    gains, offsets : array of shape (channel,)
        As from `compute_tile_photometric_scaling`.

    Returns
    -------
    array of the tile's shape, float32
        ``tile * gain + offset`` (channels last).

    Raises
    ------
    InvalidInputError
        There are not as many gains and offsets as channels.
    """
    scaled = _by_channel(tile)
    factors = [np.asarray(values, dtype=np.float32).reshape(-1) for values in (gains, offsets)]
    if any(values.size != scaled.shape[2] for values in factors):
        raise InvalidInputError(
            f"{factors[0].size} gains and {factors[1].size} offsets; expected {scaled.shape[2]}, one per channel"
        )
    scaled = scaled * factors[0] + factors[1]
    return scaled[:, :, 0] if np.ndim(tile) == 2 else scaled


def _by_channel(tile: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Return a tile as (row, column, channel), float32."""
    array = np.asarray(tile, dtype=np.float32)
    if array.ndim == 2:
        return array[:, :, None]
    if array.ndim != 3:
        raise InvalidInputError(f"a tile has the shape {array.shape}; expected (row, column[, channel])")
    is_channel_first = array.shape[2] > 4 >= array.shape[0]
    return np.moveaxis(array, 0, 2) if is_channel_first else array
