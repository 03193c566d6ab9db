"""One median for the channels of a color tile: ZeMosaic's ``poststack_equalize_rgb``."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.stacking.limits import setting
from zemosaic_stack_core.zemosaic.config import is_on


def equalize_rgb_medians_inplace(img: npt.NDArray[Any] | None) -> tuple[float, float, float, float]:
    """Scale the three channels of an image to one median, in place.

    Parameters
    ----------
    img : array of shape (row, column, 3), float32, or None
        Written to. What is not finite counts for nothing and stays.

    Returns
    -------
    gain_r, gain_g, gain_b, target : float
        The target is the median of the channels' medians; a gain is the target over the channel's median. A channel
        whose median is not above 0 keeps its gain of 1. Anything but a color image has gains of 1 and no target: NaN.
    """
    gains = np.ones(3, np.float32)
    if img is None or np.ndim(img) != 3 or img.shape[2] != 3:
        return 1.0, 1.0, 1.0, math.nan
    medians = np.array([_median(img[..., channel]) for channel in range(3)], np.float32)
    usable = medians > 0  # not where it is NaN
    if not usable.any():
        return 1.0, 1.0, 1.0, math.nan
    target = np.float32(np.median(medians[usable]))
    gains[usable] = target / medians[usable]
    img *= gains
    return float(gains[0]), float(gains[1]), float(gains[2]), float(target)


def _median(plane: npt.NDArray[Any]) -> float:
    """Return the median of what is finite, NaN of nothing."""
    finite = plane[np.isfinite(plane)]
    return float(np.median(finite)) if finite.size else math.nan


def equalize_rgb(image: npt.NDArray[Any] | None, *, enabled: bool) -> dict[str, Any]:
    """Equalize an image in place where that is asked for; return what ZeMosaic keeps as ``rgb_equalization``."""
    gains = equalize_rgb_medians_inplace(image if enabled else None)
    return {
        "enabled": enabled,
        "applied": math.isfinite(gains[3]),
        "gain_r": gains[0],
        "gain_g": gains[1],
        "gain_b": gains[2],
        "target_median": gains[3],
    }


def _poststack_rgb_equalization(
    stacked: npt.NDArray[Any] | None, zconfig: object = None, stack_metadata: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Equalize a stack in place where the configuration asks for it, and note it in the metadata."""
    info = equalize_rgb(stacked, enabled=is_on(setting(zconfig, "poststack_equalize_rgb")))
    if stack_metadata is not None:
        stack_metadata["rgb_equalization"] = info
    return info
