"""Phase 3 of this program: groups of cached frames to tiles, on threads."""

import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np

import zemosaic_align_stack
from parallel_utils import ParallelPlan, auto_tune_parallel_plan

try:
    from zemosaic_align_stack_gpu import (
        GPUStackingError as _P3GPUStackingError,
        _gpu_is_usable as _p3_gpu_is_usable,
        gpu_stack_from_paths as _p3_gpu_stack_from_paths,
        reset_phase3_gpu_runtime_stats as _reset_p3_stats,
    )
except Exception:
    _p3_gpu_stack_from_paths = None

logger = logging.getLogger("ZeMosaicWorker")
_P3_GPU_STATE = {"allowed": True, "hard_disabled": False}


def _stack_master_tile_cpu(
    aligned_images_for_stack,
    *,
    stack_norm_method,
    stack_weight_method,
    stack_reject_algo,
    stack_kappa_low,
    stack_kappa_high,
    parsed_winsor_limits,
    stack_final_combine,
    apply_radial_weight,
    radial_feather_fraction,
    radial_shape_power,
    winsor_pool_workers,
    winsor_max_frames_per_pass,
    progress_callback,
    zconfig,
    parallel_plan,
    pcb_tile,
    func_id_log_base,
    tile_id,
):
    stacked, _ = zemosaic_align_stack.stack_winsorized_sigma_clip(
        aligned_images_for_stack,
        weight_method=stack_weight_method,
        zconfig=zconfig,
        kappa=stack_kappa_low,
        winsor_limits=parsed_winsor_limits,
        apply_rewinsor=True,
        winsor_max_frames_per_pass=winsor_max_frames_per_pass,
        winsor_max_workers=winsor_pool_workers,
        progress_callback=progress_callback,
        parallel_plan=parallel_plan,
    )
    return stacked, {"by": "its own"}


def _stack_master_tile_auto(image_descriptors, *, poststack_equalize_rgb, logger, **settings):
    if _p3_gpu_stack_from_paths is not None and _p3_gpu_is_usable(logger):
        try:
            image, meta = _p3_gpu_stack_from_paths(
                image_descriptors,
                {"poststack_equalize_rgb": poststack_equalize_rgb},
                parallel_plan=settings["parallel_plan"],
                logger=logger,
                pcb_tile=settings["pcb_tile"],
                zconfig=settings["zconfig"],
            )
            return image, meta, True
        except _P3GPUStackingError:
            _P3_GPU_STATE["hard_disabled"] = True
    image, meta = _stack_master_tile_cpu(image_descriptors, **settings)
    return image, meta, False


# What became of each tile, by number: metadata, and whether the GPU made it.
MADE = {}


def create_master_tile(
    *, seestar_stack_group_info, tile_id, output_temp_dir, progress_callback, parallel_plan, zconfig=None, **settings
):
    frames = [np.load(info["path_preprocessed_cache"]) for info in seestar_stack_group_info]
    frames = zemosaic_align_stack.align_images_in_group(frames)

    def pcb_tile(key, prog=None, lvl="INFO", **fields):
        progress_callback(key, prog, lvl, **fields)

    if parallel_plan is not None:
        parallel_plan = replace(parallel_plan, rows_per_chunk=None)
        parallel_plan.gpu_max_chunk_bytes = 128 * 2**20
    master_tile_stacked_HWC, stack_metadata, used_gpu = _stack_master_tile_auto(
        frames,
        stack_norm_method=settings["stack_norm_method"],
        stack_weight_method=settings["stack_weight_method"],
        stack_reject_algo=settings["stack_reject_algo"],
        stack_kappa_low=settings["stack_kappa_low"],
        stack_kappa_high=settings["stack_kappa_high"],
        parsed_winsor_limits=settings["parsed_winsor_limits"],
        stack_final_combine=settings["stack_final_combine"],
        poststack_equalize_rgb=settings["poststack_equalize_rgb"],
        apply_radial_weight=settings["apply_radial_weight"],
        radial_feather_fraction=settings["radial_feather_fraction"],
        radial_shape_power=settings["radial_shape_power"],
        winsor_pool_workers=1,
        winsor_max_frames_per_pass=0,
        progress_callback=progress_callback,
        zconfig=zconfig,
        parallel_plan=parallel_plan,
        pcb_tile=pcb_tile,
        func_id_log_base="mastertile",
        tile_id=tile_id,
        logger=logger,
    )
    MADE[tile_id] = (stack_metadata, used_gpu)
    path = Path(output_temp_dir) / f"master_tile_{tile_id:03d}.npy"
    np.save(path, master_tile_stacked_HWC)
    return (str(path), seestar_stack_group_info[0].get("wcs")), []


def run_hierarchical_mosaic(groups, settings, output, progress_callback=lambda *args, **fields: None):
    plan = auto_tune_parallel_plan(
        kind="global", frame_shape=(0, 0), n_frames=len(groups[0]), bytes_per_pixel=12, config={}, caps=None
    )
    assert isinstance(plan, ParallelPlan)
    zconfig = SimpleNamespace(poststack_equalize_rgb=False)

    def make(tile_id):
        (path, _), retry_groups = create_master_tile(
            seestar_stack_group_info=[{"path_preprocessed_cache": path} for path in groups[tile_id]],
            tile_id=tile_id,
            output_temp_dir=output,
            progress_callback=progress_callback,
            zconfig=zconfig,
            parallel_plan=plan,
            **settings,
        )
        return path

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(make, range(len(groups))))


if __name__ == "__main__":
    sys.stdout.write(f"program, stacker of {_stack_master_tile_auto.__module__}\n")
