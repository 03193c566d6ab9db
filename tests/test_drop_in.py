"""The names that the existing program calls: what goes in, what comes out, and what is an error."""

from __future__ import annotations

import gc
import sys
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

from conftest import cupy_unusable
from zemosaic_stack_core.backends.cuda import free_cupy_memory_pools, gpu_memory
from zemosaic_stack_core.backends.faults import is_oom_error
from zemosaic_stack_core.errors import FrameReadError, GPUStackingError, InvalidInputError
from zemosaic_stack_core.gpu import health
from zemosaic_stack_core.options import StackOptions
from zemosaic_stack_core.stacking.run import stack
from zemosaic_stack_core.zemosaic import drop_in
from zemosaic_stack_core.zemosaic.drop_in import (
    DEFAULT_GPU_ROWS_PER_CHUNK,
    apply_tile_photometric_scaling,
    compute_tile_photometric_scaling,
    get_backend_module,
    get_phase3_gpu_runtime_stats,
    gpu_stack_from_arrays,
    gpu_stack_from_paths,
    reset_phase3_gpu_runtime_stats,
    stack_core,
)

pytestmark = pytest.mark.gpu

PARAMS = {"stack_reject_algo": "kappa_sigma", "stack_kappa_low": 2.0, "stack_kappa_high": 2.0}


def make_frames(shape=(6, 5), n_frames=7):
    """Return frames with outliers, a missing border and a pixel that nothing covers."""
    generator = np.random.default_rng(3)
    cube = generator.normal(500.0, 10.0, (n_frames, *shape)).astype(np.float32)
    cube[2, 1, 1] = 5000.0
    cube[0, :2] = np.nan
    cube[:, 3, 4] = np.nan
    return list(cube)


@pytest.fixture
def gpu(monkeypatch):
    """Need CuPy, whose health check has its own tests; leave nothing for the next test."""
    if cupy_unusable():
        pytest.skip(cupy_unusable())
    monkeypatch.setattr(health, "check_gpu", lambda: health.GpuHealth(usable=True))
    health.reset_gpu_health()
    reset_phase3_gpu_runtime_stats()
    yield
    reset_phase3_gpu_runtime_stats()
    health.reset_gpu_health()


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 3)], ids=["mono", "color"])
def test_arrays_on_the_gpu(gpu, shape):
    frames = make_frames(shape)
    said = []
    image, meta = gpu_stack_from_arrays(
        [frames[0], None, *frames[1:]],
        PARAMS,
        tile_id=4,
        pcb_tile=lambda key, **fields: said.append((key, fields)),
        parallel_plan={"gpu_rows_per_chunk": 4},
        rows_per_chunk_override=2,
    )
    options = StackOptions(rejection="kappa_sigma", kappa_low=2.0, kappa_high=2.0)
    np.testing.assert_array_equal(image, stack(frames, options=options).image, strict=True)
    assert (meta["backend"], meta["reject_algo"], meta["weight_method"]) == ("cupy", "kappa_sigma", "none")
    assert meta["weight_stats"] == {"min": 1.0, "max": 1.0, "mean": 1.0}
    assert meta["rows_per_chunk"] == 2
    assert [key for key, _ in said] == ["phase3_stack_progress", "phase3_gpu_chunk_summary"]
    assert said[0][1] == {"prog": None, "lvl": "DEBUG_DETAIL", "tile_id": 4, "done_rows": 2, "total_rows": 6}
    fields = said[1][1]
    assert (fields["tile_id"], fields["attempt"], fields["backend"], fields["n_frames"]) == (4, 1, "cupy", 7)
    figures = get_phase3_gpu_runtime_stats()
    assert figures["p3_gpu_last_used"] is True
    assert (figures["p3_gpu_last_rows_per_chunk"], figures["p3_gpu_last_algo"]) == (2, "kappa_sigma")
    assert figures["p3_gpu_last_duration_s"] == fields["duration_s"]
    reset_phase3_gpu_runtime_stats()
    assert get_phase3_gpu_runtime_stats() == {}


def test_paths_on_the_gpu(gpu, tmp_path):
    frames = make_frames()
    path = tmp_path / "cached.npy"
    np.save(path, frames[3])
    descriptors = [
        frames[0],
        {"data": frames[1]},
        {"data": None, "array": frames[2]},
        {"path": "gone.fits", "path_preprocessed_cache": str(path)},
        {"path": str(path)},
        path,
        str(path).encode(),
    ]
    image, _ = gpu_stack_from_paths(descriptors, PARAMS)
    expected, _ = gpu_stack_from_arrays([*frames[:3], *[frames[3]] * 4], PARAMS)
    np.testing.assert_array_equal(image, expected)
    loaded, _ = gpu_stack_from_paths(["0", "1", "2"], PARAMS, array_loader=lambda name: frames[int(name)])
    np.testing.assert_array_equal(loaded, gpu_stack_from_arrays(frames[:3], PARAMS)[0])


def test_a_gpu_that_runs_out_of_memory(gpu, monkeypatch):
    def full(*_, **__):
        raise MemoryError("full")

    monkeypatch.setattr(drop_in, "stack_group", full)
    with pytest.raises(GPUStackingError, match="the GPU failed: MemoryError: full") as caught:
        gpu_stack_from_arrays(make_frames(), PARAMS)
    assert is_oom_error(caught.value)


def test_a_library_that_is_missing_is_the_gpus_failure(gpu, monkeypatch):
    def missing(*_, **__):
        raise ImportError('Failure finding "libcublasLt.so"')

    monkeypatch.setattr(drop_in, "stack_group", missing)
    with pytest.raises(GPUStackingError, match="the GPU failed: ImportError: Failure finding"):
        gpu_stack_from_arrays(make_frames(), PARAMS)


def test_the_gpus_memory_is_given_back(gpu):
    gpu_stack_from_arrays(make_frames(), PARAMS)
    gc.collect()
    free_cupy_memory_pools()
    before = gpu_memory()
    gpu_stack_from_arrays(make_frames(), PARAMS)
    assert gpu_memory().pool_free == before.pool_free


def test_an_invalid_tile_is_an_error(gpu, monkeypatch):
    monkeypatch.setattr(drop_in, "find_invalid", lambda *_: "a hole")
    with pytest.raises(GPUStackingError, match="the GPU's tile is invalid: a hole"):
        gpu_stack_from_arrays(make_frames(), PARAMS)
    assert get_phase3_gpu_runtime_stats() == {}


def test_without_a_gpu_the_reason_is_given():
    if not cupy_unusable():
        pytest.skip("CuPy runs here")
    with pytest.raises(GPUStackingError, match="the GPU can't be used: "):
        gpu_stack_from_arrays(make_frames(), PARAMS)


def test_what_is_wrong_with_the_input_is_no_gpu_error(tmp_path):
    frames = make_frames()
    with pytest.raises(InvalidInputError, match="stack_reject_algo is 'kapa'"):
        gpu_stack_from_arrays(frames, {"stack_reject_algo": "kapa"})
    with pytest.raises(InvalidInputError, match="no frames"):
        gpu_stack_from_arrays([None], PARAMS)
    with pytest.raises(FrameReadError, match=r"none\.npy"):
        gpu_stack_from_paths([tmp_path / "none.npy"], PARAMS)
    with pytest.raises(InvalidInputError, match="image descriptor has the keys name; expected data, array"):
        gpu_stack_from_paths([{"name": "x"}], PARAMS)


@pytest.mark.parametrize(
    ("height", "width", "n_frames", "plan", "rows"),
    [
        (1000, 100, 10, None, DEFAULT_GPU_ROWS_PER_CHUNK),
        (100, 100, 10, None, 100),
        (1000, 100, 10, {"gpu_rows_per_chunk": 7}, 7),
        (1000, 100, 10, SimpleNamespace(gpu_rows_per_chunk=5000, gpu_max_chunk_bytes=None), 1000),
        (1000, 10**6, 1000, {"gpu_rows_per_chunk": 500}, 1),
        (1000, 100, 10**9, None, 1),
    ],
)
def test_rows_per_chunk(height, width, n_frames, plan, rows):
    assert drop_in._resolve_rows_per_chunk(height, width, 3, n_frames, plan) == rows


def test_fewer_bytes_fewer_rows():
    rows = [
        drop_in._resolve_rows_per_chunk(10000, 1000, 3, 50, {"gpu_max_chunk_bytes": size << 20})
        for size in (64, 128, 256)
    ]
    assert 1 <= rows[0] < rows[1] < rows[2] < 10000


@pytest.mark.parametrize("wrap", [dict, lambda config: SimpleNamespace(**config)], ids=["mapping", "object"])
def test_stack_core(wrap):
    frames = make_frames()
    config = wrap(
        {
            "normalize_method": "none",
            "rejection_algorithm": "kappa_sigma",
            "final_combine_method": "mean",
            "sigma_clip_low": 2.0,
            "sigma_clip_high": 2.0,
        }
    )
    weights = np.linspace(1, 2, 7)
    percent = []
    image, rejected, weight_sum = stack_core(
        frames, weights, config, progress_callback=lambda key, done, level: percent.append(done)
    )
    options = StackOptions(rejection="kappa_sigma", kappa_low=2.0, kappa_high=2.0)
    expected = stack(frames, options=options, weights=weights, maps="all")
    np.testing.assert_array_equal(image, expected.image, strict=True)
    np.testing.assert_array_equal(weight_sum, expected.weight_map, strict=True)
    n_rejected = expected.rejected_low.sum() + expected.rejected_high.sum()
    assert n_rejected > 0
    assert rejected == pytest.approx(100.0 * n_rejected / np.isfinite(frames).sum())
    assert percent[-1] == 100.0


def test_stack_core_by_default_is_a_mean():
    frames = [np.full((2, 3), value, dtype=np.float32) for value in (1.0, 2.0, 9.0)]
    image, rejected, weight_sum = stack_core(frames)
    np.testing.assert_array_equal(image, 4.0)
    np.testing.assert_array_equal(weight_sum, 3.0)
    assert rejected == 0.0


def test_stack_core_where_nothing_is_present():
    image, rejected, weight_sum = stack_core([np.full((2, 3), np.nan, dtype=np.float32)])
    assert np.isnan(image).all()
    assert (rejected, weight_sum.max()) == (0.0, 0.0)


@pytest.mark.parametrize("method", ["median", "linear_fit"])
def test_normalization_keeps_the_sky(method):
    """A gradient that all frames share must survive: the median at each pixel would erase it."""
    generator = np.random.default_rng(1)
    sky = np.linspace(100.0, 400.0, 40 * 50).reshape(40, 50)
    frames = [(sky + level + generator.normal(0, 1, sky.shape)).astype(np.float32) for level in (0.0, 30.0, -20.0)]
    image, _, _ = stack_core(frames, stack_config={"normalize_method": method})
    slope = np.polyfit(sky.ravel(), image.ravel(), 1)[0]
    assert slope == pytest.approx(1.0, abs=0.02)
    spread = np.std(image - sky - np.median(image - sky))
    assert spread < 2.0


def test_a_median_leaves_out_what_has_no_weight_and_tells_the_weights_given():
    frames = make_frames()
    image, _, weight_sum = stack_core(frames, np.arange(7), {"final_combine_method": "median"})
    present = np.isfinite(frames[1:])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a pixel that nothing covers
        np.testing.assert_array_equal(image, np.nanmedian(frames[1:], axis=0))
    np.testing.assert_array_equal(weight_sum, np.tensordot(np.arange(1.0, 7.0), present, 1))


@pytest.mark.parametrize("combine", ["mean", "median"])
def test_lists_of_device_arrays_are_images_and_weights(combine):
    """Grid mode's only call: a patch is 0 with weight 0 outside a frame's footprint."""
    import array_api_strict as xp

    frames = [np.full((2, 3, 3), value, np.float32) for value in (0.0, 500.0, 510.0)]
    weights = [np.full((2, 3, 3), value, np.float32) for value in (0.0, 2.0, 2.0)]

    def put(arrays):
        return [xp.asarray(array, device=xp.Device("device1")) for array in arrays]

    config = {"normalize_method": "none", "final_combine_method": combine}
    image, _, weight_sum = stack_core(put(frames), put(weights), config)
    np.testing.assert_array_equal(image, 505.0)
    np.testing.assert_array_equal(weight_sum, 4.0)
    with pytest.raises(InvalidInputError, match="2 weights for 3 frames; expected one per frame"):
        stack_core(put(frames), put(weights[1:]), config)


@pytest.mark.parametrize(
    ("config", "backend", "message"),
    [
        ({"normalize_method": "sky_mean"}, "cpu", "normalize_method is 'sky_mean'; expected one of"),
        ({"rejection_algorithm": "kapa"}, "cpu", "is 'kapa'; expected one of"),
        ({"final_combine_method": "mode"}, "cpu", "final_combine_method is 'mode'; expected one of"),
        ({}, "cuda", "backend is 'cuda'; expected one of: cpu, gpu"),
    ],
)
def test_stack_core_refuses_what_it_does_not_know(config, backend, message):
    with pytest.raises(InvalidInputError, match=message):
        stack_core(make_frames(), stack_config=config, backend=backend)


def test_stack_core_on_the_gpu(gpu):
    frames = make_frames()
    config = {"rejection_algorithm": "winsorized_sigma_clip"}
    on_cpu, on_gpu = (stack_core(frames, None, config, backend) for backend in ("cpu", "gpu"))
    np.testing.assert_array_equal(on_gpu[0], on_cpu[0], strict=True)
    assert on_gpu[1] == on_cpu[1]
    np.testing.assert_array_equal(on_gpu[2], on_cpu[2], strict=True)
    import cupy

    given = [cupy.asarray(frame) for frame in frames]
    np.testing.assert_array_equal(stack_core(given, None, config, "gpu")[0], on_cpu[0])
    weights = [np.full(frame.shape, 1.0 + index, np.float32) for index, frame in enumerate(frames)]
    weights[3][:2] = 0.0
    for combine in ("mean", "median"):
        config = {"rejection_algorithm": "kappa_sigma", "final_combine_method": combine}
        on_cpu = stack_core(frames, weights, config)
        on_gpu = stack_core(given, [cupy.asarray(weight) for weight in weights], config, "gpu")
        np.testing.assert_array_equal(on_gpu[0], on_cpu[0], strict=True)
        np.testing.assert_array_equal(on_gpu[2], on_cpu[2], strict=True)
    assert get_backend_module("gpu") is sys.modules["cupy"]


def test_backend_modules():
    assert get_backend_module("cpu") is np
    with pytest.raises(InvalidInputError, match="backend is 'tpu'; expected one of: cpu, gpu"):
        get_backend_module("tpu")


def test_scaling_brings_a_tile_to_the_level_of_another():
    reference = np.random.default_rng(0).uniform(100, 200, (8, 9, 3)).astype(np.float32)
    target = reference / np.array([2.0, 0.5, 4.0], dtype=np.float32)
    target[0, 0, 0] = np.nan
    reference[1, 1, 1] = np.nan
    gains, offsets = compute_tile_photometric_scaling(reference, target)
    np.testing.assert_allclose(gains, [2.0, 0.5, 4.0], rtol=0.05)
    np.testing.assert_array_equal(offsets, 0.0)
    both = np.isfinite(reference[..., 0]) & np.isfinite(target[..., 0])
    expected = np.median(reference[..., 0][both]) / np.median(target[..., 0][both])
    assert gains[0] == np.float32(expected)
    before = target.copy()
    scaled = apply_tile_photometric_scaling(target, gains, offsets)
    np.testing.assert_array_equal(target, before)
    np.testing.assert_array_equal(scaled, before * gains + offsets, strict=True)
    assert np.isnan(scaled[0, 0, 0])


def test_scaling_of_mono_tiles_and_channels_first():
    reference = np.full((6, 7), 30.0, dtype=np.float32)
    gains, offsets = compute_tile_photometric_scaling(reference, reference / 3)
    assert gains.tolist() == [3.0]
    assert apply_tile_photometric_scaling(reference / 3, gains, offsets).shape == (6, 7)
    stacked = np.stack([reference, reference, reference])
    gains, _ = compute_tile_photometric_scaling(stacked, np.moveaxis(stacked, 0, 2) / 2)
    assert gains.tolist() == [2.0, 2.0, 2.0]


@pytest.mark.parametrize(
    ("target", "mask"),
    [
        (np.full((4, 5), np.nan), None),
        (np.zeros((4, 5)), None),
        (np.full((4, 5), 3.0), np.zeros((4, 5), dtype=bool)),
        (np.full((4, 5), 1e-44), None),
    ],
    ids=["nothing finite", "zero", "masked", "too faint"],
)
def test_a_channel_without_a_level_is_left_alone(target, mask):
    gains, offsets = compute_tile_photometric_scaling(np.full((4, 5), 6.0), target, mask=mask)
    assert (gains.tolist(), offsets.tolist()) == ([1.0], [0.0])


def test_the_mask_says_which_pixels_count():
    reference = np.full((4, 6), 10.0)
    target = np.full((4, 6), 5.0)
    target[:, :4] = 1.0
    mask = np.zeros((4, 6), dtype=bool)
    mask[:, 4:] = True
    assert compute_tile_photometric_scaling(reference, target, mask=mask)[0].tolist() == [2.0]
    assert compute_tile_photometric_scaling(reference, target, mask=mask[:, :, None])[0].tolist() == [2.0]


def test_scaling_refuses_what_does_not_fit():
    tile = np.ones((4, 6, 3))
    with pytest.raises(InvalidInputError, match=r"shape \(4, 5, 3\); expected that of the reference, \(4, 6, 3\)"):
        compute_tile_photometric_scaling(tile, np.ones((4, 5, 3)))
    with pytest.raises(InvalidInputError, match=r"the mask has the shape \(5, 6\); expected \(4, 6\)"):
        compute_tile_photometric_scaling(tile, tile, mask=np.ones((5, 6)))
    with pytest.raises(InvalidInputError, match=r"a tile has the shape \(4,\)"):
        compute_tile_photometric_scaling(np.ones(4), np.ones(4))
    with pytest.raises(InvalidInputError, match="2 gains and 3 offsets; expected 3, one per channel"):
        apply_tile_photometric_scaling(tile, np.ones(2), np.ones(3))


def test_the_names_that_the_program_takes_from_the_package():
    import zemosaic_stack_core as package

    scaling = ("compute_tile_photometric_scaling", "apply_tile_photometric_scaling")
    for name in ("stack_core", "get_backend_module", *scaling):
        assert getattr(package, name) is getattr(drop_in, name)
        assert name in dir(package)
    with pytest.raises(AttributeError, match="no attribute 'stack_everything'"):
        _ = package.stack_everything
