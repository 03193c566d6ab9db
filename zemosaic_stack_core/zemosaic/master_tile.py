"""The two functions that ZeMosaic's worker stacks a master tile with, on Mode C and one kernel."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.gpu.auto import stack_tile
from zemosaic_stack_core.stacking.job import StackRequest
from zemosaic_stack_core.stacking.limits import Limits, read_limits, setting
from zemosaic_stack_core.stacking.result import StackResult
from zemosaic_stack_core.stacking.telemetry import QUIET, Telemetry
from zemosaic_stack_core.zemosaic.config import TranslatedConfig, translate_stacking_params
from zemosaic_stack_core.zemosaic.given_frames import FramesGiven
from zemosaic_stack_core.zemosaic.rgb import equalize_rgb
from zemosaic_stack_core.zemosaic.run_state import RUN_GPU, Heartbeat, note_gpu_stack

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TileCall:
    """What ZeMosaic asks of one stack."""

    translated: TranslatedConfig
    limits: Limits
    telemetry: Telemetry = QUIET
    logger: logging.Logger = _LOGGER
    # One number per frame given, or one per sample: shape (frame,) or (frame, row, column[, channel]).
    weights: npt.NDArray[Any] | None = None


def make_stack(given: FramesGiven, call: TileCall) -> tuple[StackResult, dict[str, Any]]:
    """Stack on the GPU where run, plan and settings allow it, else on the CPU, and equalize; return result and meta."""
    began = time.perf_counter()
    translated, logger = call.translated, call.logger
    for note in translated.notes:
        logger.warning("[P3] %s", note)
    group, reference, kept = given.open(logger)
    weights = None if call.weights is None else call.weights[kept]
    request = StackRequest(options=replace(translated.options, reference=reference), weights=weights)
    gpu = RUN_GPU.of_run(logger) if call.limits.use_gpu else None
    result = stack_tile(group, request, gpu, call.limits, call.telemetry)
    duration_s = time.perf_counter() - began
    if result.facts.used_gpu:
        note_gpu_stack(result, group.rows, duration_s)
    return result, stack_meta(result, duration_s, equalize_rgb(result.image, enabled=translated.equalize_rgb))


def rejected_percent(result: StackResult) -> float:
    """Return how many of the samples that are present were rejected, of 100."""
    rejected = sum(sum(record.rejected_low) + sum(record.rejected_high) for record in result.frames)
    combined = 0 if result.coverage is None else int(result.coverage.sum(dtype=np.int64))
    return 100.0 * rejected / (rejected + combined) if rejected else 0.0


def stack_meta(result: StackResult, duration_s: float, equalization: dict[str, Any]) -> dict[str, Any]:
    """Return what ZeMosaic keeps about a stack."""
    weights = np.array([record.weight for record in result.frames], dtype=np.float64)
    facts = result.facts
    return {
        "weight_method": result.options.weighting,
        "weight_stats": {"min": float(weights.min()), "max": float(weights.max()), "mean": float(weights.mean())},
        "rgb_equalization": equalization,
        "backend": result.backend,
        "device": facts.device,
        "used_gpu": facts.used_gpu,
        "gpu_attempts": facts.gpu_attempts,
        "fallback_reason": facts.fallback_reason,
        "normalize_method": result.options.normalization,
        "reject_algo": result.options.rejection,
        "final_combine": result.options.combine,
        "reference": result.reference,
        "frames_used": len(result.frames),
        "notes": [(frame.name, frame.note) for frame in result.frames if frame.note],
        "rows_per_chunk": facts.rows_per_chunk,
        "duration_s": duration_s,
        "details": asdict(facts),
    }


def _stack_master_tile_auto(
    image_descriptors: Sequence[object],
    footprints: Sequence[object] | None = None,
    reference_index: int | None = 0,
    *,
    stack_norm_method: str,
    stack_weight_method: str,
    stack_reject_algo: str,
    stack_kappa_low: float,
    stack_kappa_high: float,
    parsed_winsor_limits: tuple[float, float],
    stack_final_combine: str,
    poststack_equalize_rgb: bool | None = None,
    apply_radial_weight: bool,
    radial_feather_fraction: float,
    radial_shape_power: float,
    winsor_pool_workers: int | None = None,
    winsor_max_frames_per_pass: int | None = None,
    progress_callback: Callable[..., Any] | None = None,
    zconfig: object = None,
    parallel_plan: object = None,
    pcb_tile: Callable[..., Any] | None = None,
    func_id_log_base: str = "",
    tile_id: int | None = None,
    logger: logging.Logger | None = None,
) -> tuple[npt.NDArray[np.float32], dict[str, Any], bool]:
    """Stack a tile on the GPU where it is sane, once more after a failure, and else whole on the CPU.

    Parameters
    ----------
    image_descriptors : sequence
        Aligned frames: arrays, paths, mappings as for `gpu_stack_from_paths`. None, and with one WARN those of another
        shape than the reference's, are left out.
    footprints : sequence of (bool array of shape (row, column) or None), optional
        Where each frame has light; it is missing elsewhere.
    reference_index : int or None
        The frame whose level the tile has.
    stack_norm_method, stack_weight_method, stack_reject_algo, stack_kappa_low, stack_kappa_high, parsed_winsor_limits
        ZeMosaic's settings.
    stack_final_combine, apply_radial_weight, radial_feather_fraction, radial_shape_power
        ZeMosaic's settings.
    poststack_equalize_rgb : bool or None
        See `equalize_rgb_medians_inplace`; where `zconfig` has it, that counts.
    winsor_pool_workers, winsor_max_frames_per_pass, func_id_log_base
        Not used: all frames are one stack, however many; threads come from the plan.
    progress_callback, pcb_tile : callable, optional
        Get ``"phase3_stack_progress"`` now and then, so that a watchdog sees a sign of life: `pcb_tile` where it is
        given. That gets the chunk summary too. What they raise ends the stack and is not the GPU's failure.
    zconfig : mapping or object, optional
        The program's configuration: its switches of the GPU, ``wsc_impl``, ``parallel_plan`` where none is given.
    parallel_plan : ParallelPlan, mapping, object or None
        Caps; ``use_gpu=False`` keeps this tile on the CPU.
    tile_id : int, optional
        Goes with the telemetry.
    logger : logging.Logger, optional
        Gets the lines about the GPU.

    Returns
    -------
    image : array of shape (row, column) or (row, column, channel), float32
        NaN where no frame has a sample. The same bits from GPU and CPU.
    meta : dict
        ``weight_method``, ``weight_stats``, ``rgb_equalization``, and how it was made.
    used_gpu : bool
        Every chunk came from the GPU.

    Raises
    ------
    InvalidInputError, FrameReadError
        Of the settings or the frames; the GPU is not blamed.
    """
    del winsor_pool_workers, winsor_max_frames_per_pass, func_id_log_base
    params = {
        "stack_norm_method": stack_norm_method,
        "stack_weight_method": stack_weight_method,
        "stack_reject_algo": stack_reject_algo,
        "stack_kappa_low": stack_kappa_low,
        "stack_kappa_high": stack_kappa_high,
        "parsed_winsor_limits": parsed_winsor_limits,
        "stack_final_combine": stack_final_combine,
        "poststack_equalize_rgb": poststack_equalize_rgb,
        "apply_radial_weight": apply_radial_weight,
        "radial_feather_fraction": radial_feather_fraction,
        "radial_shape_power": radial_shape_power,
    }
    translated = translate_stacking_params(params, zconfig)
    limits = read_limits(parallel_plan or setting(zconfig, "parallel_plan"))
    call = TileCall(
        translated=translated,
        limits=replace(limits, use_gpu=limits.use_gpu and translated.use_gpu),
        telemetry=tile_telemetry(pcb_tile, progress_callback, tile_id),
        logger=logger or _LOGGER,
    )
    given = FramesGiven(frames=image_descriptors, footprints=footprints, reference=reference_index or 0)
    result, meta = make_stack(given, call)
    return result.image, meta, result.facts.used_gpu


def tile_telemetry(
    pcb_tile: Callable[..., Any] | None, progress_callback: Callable[..., Any] | None, tile_id: int | None
) -> Telemetry:
    """Return ZeMosaic's callbacks as telemetry."""
    pcb = pcb_tile if callable(pcb_tile) else progress_callback
    progress = Heartbeat(pcb, tile_id) if callable(pcb) else None
    return Telemetry(progress=progress, pcb_tile=pcb_tile if callable(pcb_tile) else None, tile_id=tile_id)


def _stack_master_tile_cpu(
    aligned_images_for_stack: Sequence[object],
    footprints: Sequence[object] | None = None,
    reference_index: int | None = 0,
    *,
    stack_norm_method: str,
    stack_weight_method: str,
    stack_reject_algo: str,
    stack_kappa_low: float,
    stack_kappa_high: float,
    parsed_winsor_limits: tuple[float, float],
    stack_final_combine: str,
    apply_radial_weight: bool,
    radial_feather_fraction: float,
    radial_shape_power: float,
    winsor_pool_workers: int | None = None,
    winsor_max_frames_per_pass: int | None = None,
    progress_callback: Callable[..., Any] | None = None,
    zconfig: object = None,
    parallel_plan: object = None,
    pcb_tile: Callable[..., Any] | None = None,
    func_id_log_base: str = "",
    tile_id: int | None = None,
) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
    """Stack a tile on the CPU; see `_stack_master_tile_auto`."""
    image, meta, _ = _stack_master_tile_auto(
        aligned_images_for_stack,
        footprints,
        reference_index,
        stack_norm_method=stack_norm_method,
        stack_weight_method=stack_weight_method,
        stack_reject_algo=stack_reject_algo,
        stack_kappa_low=stack_kappa_low,
        stack_kappa_high=stack_kappa_high,
        parsed_winsor_limits=parsed_winsor_limits,
        stack_final_combine=stack_final_combine,
        apply_radial_weight=apply_radial_weight,
        radial_feather_fraction=radial_feather_fraction,
        radial_shape_power=radial_shape_power,
        winsor_pool_workers=winsor_pool_workers,
        winsor_max_frames_per_pass=winsor_max_frames_per_pass,
        progress_callback=progress_callback,
        zconfig=zconfig,
        parallel_plan=replace(read_limits(parallel_plan or setting(zconfig, "parallel_plan")), use_gpu=False),
        pcb_tile=pcb_tile,
        func_id_log_base=func_id_log_base,
        tile_id=tile_id,
    )
    return image, meta
