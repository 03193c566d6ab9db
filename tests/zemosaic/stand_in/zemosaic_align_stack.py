"""Stackers of this program's own: plain means, so that a test can tell which one acted."""

import numpy as np


def equalize_rgb_medians_inplace(img):
    return (1.0, 1.0, 1.0, float("nan"))


def align_images_in_group(images):
    return list(images)


def stack_winsorized_sigma_clip(frames, weights=None, weight_method="none", zconfig=None, **kwargs):
    return np.mean(frames, axis=0), 0.0


def stack_kappa_sigma_clip(frames, weight_method="none", zconfig=None, **kwargs):
    return np.mean(frames, axis=0), 0.0


def stack_linear_fit_clip(frames, weight_method="none", zconfig=None, **kwargs):
    return np.mean(frames, axis=0), 0.0


def stack_aligned_images(aligned_image_data_list, **kwargs):
    return np.mean(aligned_image_data_list, axis=0)
