"""A module of the same name as the package under test."""

import numpy as np

GPU_AVAILABLE = False


def stack_core(images, weights=None, stack_config=None, backend="cpu", progress_callback=None):
    return np.mean(images, axis=0), 0.0, np.full(images[0].shape, len(images))


def compute_tile_photometric_scaling(reference_tile, target_tile, mask=None):
    return np.ones(3), np.zeros(3)


def apply_tile_photometric_scaling(tile, gains, offsets):
    return tile


def get_backend_module(backend):
    return np
