"""Grid mode: its one call of stack_core, with lists."""

import numpy as np

try:
    from zemosaic_stack_core import apply_tile_photometric_scaling, compute_tile_photometric_scaling, stack_core
except Exception:
    stack_core = None


def stack_tile(images):
    weights = [np.ones(image.shape, np.float32) for image in images]
    config = {
        "normalize_method": "none",
        "rejection_algorithm": "kappa_sigma",
        "final_combine_method": "mean",
        "sigma_clip_low": 3.0,
        "sigma_clip_high": 3.0,
    }
    stacked, rejected, weight_sum = stack_core(images=images, weights=weights, stack_config=config, backend="cpu")
    gains, offsets = compute_tile_photometric_scaling(stacked, stacked)
    return apply_tile_photometric_scaling(stacked, gains, offsets), rejected, weight_sum
