"""ZeMosaic's CPU stackers under its names: `make_stack` without the GPU, the same bits.

What these names did not use there (normalization, the upper kappa of a winsorized clip) `_stack_master_tile_cpu` uses.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.frames.host_arrays import to_host
from zemosaic_stack_core.stacking.limits import read_limits
from zemosaic_stack_core.stacking.result import StackResult
from zemosaic_stack_core.zemosaic.config import translate_stacking_params
from zemosaic_stack_core.zemosaic.given_frames import FramesGiven
from zemosaic_stack_core.zemosaic.master_tile import TileCall, make_stack, rejected_percent, tile_telemetry

_LOGGER = logging.getLogger(__name__)
_Image = npt.NDArray[np.float32]
# Arguments of ZeMosaic's stackers that decide nothing here: how its frames were split for lack of memory.
_WITHOUT_EFFECT = {"apply_rewinsor", "winsor_max_frames_per_pass", "winsor_max_workers", "parallel_plan"}


def stack_on_host(weights: object, values: Sequence[object]) -> npt.NDArray[Any] | None:
    """Return weights as one array: numbers, one array, or a list of arrays of any library; None for None."""
    if weights is None:
        return None
    if hasattr(weights, "shape"):
        return to_host(weights, "weights")
    listed = list(weights)  # type: ignore[call-overload]
    arrays = [
        to_host(item, f"weights {index}") if hasattr(item, "shape") else item for index, item in enumerate(listed)
    ]
    if len(arrays) != len(values):
        raise InvalidInputError(f"{len(arrays)} weights for {len(values)} frames; expected one per frame")
    return np.asarray(arrays)


def _stack(
    frames: Sequence[object],
    params: Mapping[str, Any],
    zconfig: object,
    stack_metadata: dict[str, Any] | None,
    others: dict[str, Any],
) -> StackResult:
    """Stack on the CPU; `others` are ZeMosaic's further arguments, of which one that nobody knows is warned of."""
    frames = list(frames)
    weights = stack_on_host(others.pop("weights", None), frames)
    progress, plan = others.pop("progress_callback", None), others.pop("parallel_plan", None)
    footprints, reference = others.pop("geometric_support", None), others.pop("reference_index", 0)
    for name in sorted(set(others) - _WITHOUT_EFFECT):
        _LOGGER.warning("[P3] %s=%r is not used by this stacker", name, others[name])
    call = TileCall(
        translated=translate_stacking_params({**params}, zconfig),
        limits=replace(read_limits(plan), use_gpu=False),
        telemetry=tile_telemetry(None, progress, None),
        weights=weights,
    )
    result, meta = make_stack(FramesGiven(frames=frames, footprints=footprints, reference=reference or 0), call)
    if stack_metadata is not None:
        stack_metadata.update(meta)
    return result


def stack_winsorized_sigma_clip(
    frames: Sequence[object],
    weights: object = None,
    weight_method: str = "none",
    zconfig: object = None,
    stack_metadata: dict[str, Any] | None = None,
    *,
    kappa: float = 3.0,
    winsor_limits: tuple[float, float] | None = None,
    **others: Any,
) -> tuple[_Image, float]:
    """Stack with a winsorized sigma clip; return the image and the percentage of rejected samples."""
    params = {
        "stack_reject_algo": "winsorized_sigma_clip",
        "stack_weight_method": "none" if weights is not None else weight_method,
        "stack_kappa_low": others.pop("sigma_low", kappa),
        "stack_kappa_high": others.pop("sigma_high", kappa),
        "parsed_winsor_limits": winsor_limits,
    }
    result = _stack(frames, params, zconfig, stack_metadata, {**others, "weights": weights})
    return result.image, rejected_percent(result)


def stack_kappa_sigma_clip(
    frames: Sequence[object],
    weight_method: str = "none",
    zconfig: object = None,
    stack_metadata: dict[str, Any] | None = None,
    *,
    sigma_low: float = 3.0,
    sigma_high: float = 3.0,
    **others: Any,
) -> tuple[_Image, float]:
    """Stack with a kappa-sigma clip; return the image and the percentage of rejected samples."""
    params = {
        "stack_reject_algo": "kappa_sigma",
        "stack_weight_method": weight_method,
        "stack_kappa_low": sigma_low,
        "stack_kappa_high": sigma_high,
    }
    result = _stack(frames, params, zconfig, stack_metadata, others)
    return result.image, rejected_percent(result)


def stack_linear_fit_clip(
    frames: Sequence[object],
    weight_method: str = "none",
    zconfig: object = None,
    stack_metadata: dict[str, Any] | None = None,
    *,
    sigma: float = 3.0,
    **others: Any,
) -> tuple[_Image, float]:
    """Stack with a linear-fit clip; return the image and the percentage of rejected samples."""
    params = {
        "stack_reject_algo": "linear_fit_clip",
        "stack_weight_method": weight_method,
        "stack_kappa_low": sigma,
        "stack_kappa_high": sigma,
    }
    result = _stack(frames, params, zconfig, stack_metadata, others)
    return result.image, rejected_percent(result)


def stack_aligned_images(
    aligned_image_data_list: Sequence[object],
    normalize_method: str = "none",
    weighting_method: str = "none",
    rejection_algorithm: str = "kappa_sigma",
    final_combine_method: str = "mean",
    sigma_clip_low: float = 3.0,
    sigma_clip_high: float = 3.0,
    winsor_limits: tuple[float, float] | None = None,
    minimum_signal_adu_target: float = 0.0,
    apply_radial_weight: bool = False,
    radial_feather_fraction: float = 0.8,
    radial_shape_power: float = 2.0,
    winsor_max_workers: int | None = 1,
    progress_callback: Callable[..., Any] | None = None,
    zconfig: object = None,
    stack_metadata: dict[str, Any] | None = None,
    parallel_plan: object = None,
    geometric_support: Sequence[object] | None = None,
    reference_index: int | None = 0,
) -> _Image:
    """Stack with any rule, normalization and weighting; return the image. No level is shifted."""
    del winsor_max_workers
    if minimum_signal_adu_target:
        raise InvalidInputError(
            f"minimum_signal_adu_target is {minimum_signal_adu_target!r}; expected 0: no tile's level is shifted"
        )
    params = {
        "stack_norm_method": normalize_method,
        "stack_weight_method": weighting_method,
        "stack_reject_algo": rejection_algorithm,
        "stack_final_combine": final_combine_method,
        "stack_kappa_low": sigma_clip_low,
        "stack_kappa_high": sigma_clip_high,
        "parsed_winsor_limits": winsor_limits,
        "apply_radial_weight": apply_radial_weight,
        "radial_feather_fraction": radial_feather_fraction,
        "radial_shape_power": radial_shape_power,
    }
    others = {
        "progress_callback": progress_callback,
        "parallel_plan": parallel_plan,
        "geometric_support": geometric_support,
        "reference_index": reference_index,
    }
    return _stack(aligned_image_data_list, params, zconfig, stack_metadata, others).image
