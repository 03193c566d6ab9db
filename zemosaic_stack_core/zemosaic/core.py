"""ZeMosaic's ``stack_core`` and its companions, which its grid mode and others import from the package's root."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.backends import cupy_backend, resolve_backend
from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.frames.group import open_frames
from zemosaic_stack_core.frames.host_arrays import shape_of
from zemosaic_stack_core.options import COMBINATIONS, WEIGHTED_COMBINATIONS, StackOptions, check_choice, check_maps
from zemosaic_stack_core.stacking.job import StackRequest
from zemosaic_stack_core.stacking.limits import NO_LIMITS, setting
from zemosaic_stack_core.stacking.run import stack_group
from zemosaic_stack_core.stacking.telemetry import Progress
from zemosaic_stack_core.zemosaic.align_stack import stack_on_host
from zemosaic_stack_core.zemosaic.config import translate_stacking_params
from zemosaic_stack_core.zemosaic.master_tile import rejected_percent
from zemosaic_stack_core.zemosaic.run_state import DEVICE

# "median" brings every frame's median to the reference's. The median over the frames at each pixel, which an older
# version subtracted, is the sky itself.
_NORMALIZATIONS = {"none": "none", "": "none", "median": "additive", "linear_fit": "linear_fit"}

# CuPy is installed; whether it works here is another question, which `get_backend_module` asks.
GPU_AVAILABLE = importlib.util.find_spec("cupy") is not None


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
    weights : array, or sequence of numbers or arrays, optional
        Shape (frame,), or broadcastable to (frame, row, column[, channel]); arrays of any library, on any device. A
        sample of zero weight is missing whatever the combination; a median has no other use for them.
    stack_config : mapping or object, optional
        ``normalize_method`` ("none", "median", "linear_fit": per frame, to frame 0), ``rejection_algorithm``
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
        Sum of the weights given of the combined samples; without weights their number.

    Raises
    ------
    InvalidInputError
        A name is unknown, a number out of range, or shapes differ.
    BackendUnavailableError
        The GPU was asked for and can't be had.
    """
    check_choice("backend", backend, ("cpu", "gpu"))
    options = _core_options(stack_config)
    given = stack_on_host(weights, images)
    resolved = resolve_backend(backend)
    progress = None if progress_callback is None else _in_percent(progress_callback)
    has_no_use = given is not None and options.combine not in WEIGHTED_COMBINATIONS
    masks = None if given is None or not has_no_use else _zero_weights(given, images)
    group = open_frames(images, masks)
    request = StackRequest(options=options, maps=check_maps(("coverage", "weight_map")), weights=given)
    with DEVICE if backend == "gpu" else nullcontext():
        plain = replace(request, weights=None) if has_no_use else request
        result = stack_group(group, plain, resolved, NO_LIMITS, progress=progress)
        weight_sum = result.weight_map
        if has_no_use:  # a mean, of which the same samples are rejected, tells the sum of their weights
            averaged = replace(request, options=replace(options, combine="mean"))
            weight_sum = stack_group(group, averaged, resolved, NO_LIMITS).weight_map
    if weight_sum is None:
        raise AssertionError("a stack has the maps that it is asked for")
    return result.image, rejected_percent(result), weight_sum


def _zero_weights(weights: npt.NDArray[Any], images: Sequence[object]) -> list[npt.NDArray[np.bool_]]:
    """Return a mask per image, True where its weight is 0."""
    shapes = [shape_of(image) for image in images]
    if weights.ndim == 1:
        weights = weights.reshape(-1, *[1] * len(shapes[0]))
    return [np.broadcast_to(weights[index] == 0, shape) for index, shape in enumerate(shapes)]


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
