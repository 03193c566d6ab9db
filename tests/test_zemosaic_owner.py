"""The owner's tests 2 and 3 through ZeMosaic's calls: 3,000 frames in 12 tiles on the GPU, and one that fails there."""

from __future__ import annotations

import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from worker_settings import SETTINGS

from conftest import cupy_unusable
from zemosaic_stack_core.backends import cupy_backend
from zemosaic_stack_core.backends.cuda import free_cupy_memory_pools
from zemosaic_stack_core.gpu.health import GpuHealth
from zemosaic_stack_core.gpu.phase3_gpu import Phase3Gpu
from zemosaic_stack_core.zemosaic import drop_in, master_tile
from zemosaic_stack_core.zemosaic.run_state import RunGpu

pytestmark = pytest.mark.gpu

CALL = {
    **SETTINGS,
    "winsor_pool_workers": 1,
    "winsor_max_frames_per_pass": 0,
    "progress_callback": None,
    "zconfig": SimpleNamespace(),
    "func_id_log_base": "mastertile",
}
N_TILES, N_FRAMES, SHAPE = 12, 250, (24, 32, 3)


def make_tile(seed, n_frames=N_FRAMES, shape=SHAPE):
    """Return frames that drift over the field, with trails, and missing where they do not reach."""
    generator = np.random.default_rng(seed)
    drift = 1000 + generator.uniform(0, 40, (n_frames, 1, 1, 1))
    cube = (drift + generator.normal(0, 8, (n_frames, *shape))).astype(np.float32)
    cube[generator.integers(0, n_frames, 60), generator.integers(0, shape[0], 60)] += 900
    for index in range(0, n_frames, 3):
        cube[index, : index % 7] = np.nan
    return list(cube)


def stack_tile(frames, tile_id, *, use_gpu, said=None):
    """Stack a tile as ZeMosaic's worker calls it."""
    return drop_in._stack_master_tile_auto(
        frames,
        **CALL,
        parallel_plan={"use_gpu": use_gpu, "gpu_rows_per_chunk": 5},
        pcb_tile=lambda key, **fields: said.append((key, fields)) if said is not None else None,
        tile_id=tile_id,
        logger=logging.getLogger("ZeMosaicWorker"),
    )


@pytest.fixture
def run_gpu(monkeypatch):
    """Begin runs on CuPy, whose health check has tests of its own."""
    if cupy_unusable():
        pytest.skip(cupy_unusable())
    health = partial(GpuHealth, usable=True)
    run = RunGpu(partial(Phase3Gpu, check_health=health, open_backend=cupy_backend))
    monkeypatch.setattr(master_tile, "RUN_GPU", run)
    yield run
    run.begin()


def test_2_a_healthy_gpu_and_3000_frames(run_gpu, caplog):
    """Every tile on the GPU, in chunks, no gap or hole against the CPU: the same bits."""
    said: list = []
    with caplog.at_level("INFO"), ThreadPoolExecutor(4) as pool:
        make = partial(stack_tile, use_gpu=True, said=said)
        made = list(pool.map(lambda tile_id: make(make_tile(tile_id), tile_id), range(N_TILES)))
    assert [used_gpu for _, _, used_gpu in made] == [True] * N_TILES
    gpu = run_gpu.of_run(logging.getLogger())
    assert (gpu.gpu_tiles, gpu.cpu_tiles, gpu.attempts, gpu.hard_disabled) == (N_TILES, 0, N_TILES, False)
    summaries = {fields["tile_id"]: fields for key, fields in said if key == "phase3_gpu_chunk_summary"}
    assert sorted(summaries) == list(range(N_TILES))
    for fields in summaries.values():
        assert (fields["rows_per_chunk"], fields["total_rows"], fields["n_frames"]) == (5, SHAPE[0], N_FRAMES)
    assert {fields["tile_id"] for key, fields in said if key == "phase3_stack_progress"} == set(range(N_TILES))
    lines = [record.message for record in caplog.records]
    assert lines.count("[P3][GPU] Using GPU stacker for Phase 3 (mode=auto)") == 1
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    for tile_id, (image, _, _) in enumerate(made):
        expected, _, _ = stack_tile(make_tile(tile_id), tile_id, use_gpu=False)
        np.testing.assert_array_equal(image, expected, strict=True)
        assert np.isfinite(image).all()


def test_3_failures_at_every_allocation_of_one_tile(run_gpu, caplog):
    """From the first allocation on, then from the second, until none is left: a tile always has the CPU's bits."""
    emulation = sys.modules.get("cupyemu")
    if emulation is None:
        pytest.skip("the emulation of CuPy is not loaded (-p cupyemu): a real card does not fail on request")
    tiles = [make_tile(seed, n_frames=30) for seed in range(2)]
    expected = [stack_tile(frames, 0, use_gpu=False)[0] for frames in tiles]
    stack_tile(tiles[0], 0, use_gpu=True)
    failed = 0
    for passing in range(400):
        run_gpu.begin()
        caplog.clear()
        free_cupy_memory_pools()
        emulation.lib.cuemu_fail_malloc_after(passing)
        image, meta, used_gpu = stack_tile(tiles[0], 0, use_gpu=True)
        emulation.lib.cuemu_reset_errors()
        np.testing.assert_array_equal(image, expected[0], strict=True)
        # The next tile: on the CPU where the GPU was switched off, on the GPU where the retry went well.
        image, _, later = stack_tile(tiles[1], 1, use_gpu=True)
        np.testing.assert_array_equal(image, expected[1], strict=True)
        assert later == used_gpu
        n_errors = [record.levelname for record in caplog.records].count("ERROR")
        assert n_errors == (not used_gpu)
        failed += not used_gpu
        if used_gpu and meta["gpu_attempts"] == 1:
            break
    assert used_gpu
    assert failed >= 2  # it really ran out of memory at each of several steps
