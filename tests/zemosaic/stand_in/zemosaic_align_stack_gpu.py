"""A GPU stacker that never works."""


class GPUStackingError(RuntimeError):
    pass


def _gpu_is_usable(logger=None):
    return False


def gpu_stack_from_paths(image_descriptors, stacking_params, **kwargs):
    raise GPUStackingError("no GPU here")


def gpu_stack_from_arrays(aligned_images, stacking_params, **kwargs):
    raise GPUStackingError("no GPU here")


def get_phase3_gpu_runtime_stats():
    return {}


def reset_phase3_gpu_runtime_stats():
    return None
