"""What ZeMosaic calls, as it calls it: recorded calls (names, values, types) are data, in ``zemosaic/calls.json``."""

from __future__ import annotations

import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import zemosaic_stack_core
from conftest import cupy_unusable
from zemosaic_stack_core.backends import cupy_backend
from zemosaic_stack_core.errors import GPUStackingError, InvalidInputError
from zemosaic_stack_core.gpu.health import GpuHealth
from zemosaic_stack_core.gpu.phase3_gpu import Phase3Gpu
from zemosaic_stack_core.options import StackOptions
from zemosaic_stack_core.stacking.run import stack
from zemosaic_stack_core.zemosaic import drop_in, master_tile, parallel_plan
from zemosaic_stack_core.zemosaic.parallel_plan import ParallelCapabilities, ParallelPlan, auto_tune_parallel_plan
from zemosaic_stack_core.zemosaic.run_state import RunGpu

pytestmark = pytest.mark.slow

CALLS = json.loads((Path(__file__).parent / "zemosaic" / "calls.json").read_text(encoding="utf-8"))
AUTO, CPU = (call["kwargs"] for call in CALLS[:2])
OURS = {"zemosaic_stack_core": zemosaic_stack_core, "parallel_utils": parallel_plan}
ERRORS = "[P3][GPU] Second GPU attempt failed; disabling Phase 3 GPU for this run"
SHAPE = (24, 32, 3)


def make_frames(n=9, shape=SHAPE, drift=25.0, seed=0):
    """Return frames whose levels rise; the reference, index 0, is not the quietest: ZeMosaic takes the most central."""
    generator = np.random.default_rng(seed)
    row, column = np.mgrid[: shape[0], : shape[1]]
    sky = 300 * np.exp(-((row - 12) ** 2 + (column - 16) ** 2) / 40.0)[..., None]
    noise = [generator.normal(0, 20 if index == 0 else 8 + index, shape) for index in range(n)]
    return [(1000 + drift * index + sky + noise[index]).astype(np.float32) for index in range(n)]


def value_of(item, frames, said):
    """Return what a recorded value stands for."""
    if isinstance(item, list):
        return tuple(item)
    if not isinstance(item, str) or not item.startswith("$"):
        return item
    stand_ins = {
        "frames": frames,
        "weights": [np.ones(frame.shape, np.float32) for frame in frames],
        "footprints": [np.ones(frame.shape[:2], bool) for frame in frames],
        "callback": lambda key, prog=None, lvl="INFO", **fields: said.append((key, prog, lvl, fields)),
        "settings": SimpleNamespace(poststack_equalize_rgb=False, use_gpu=True),
        "plan": ParallelPlan(cpu_workers=2, use_memmap=False, max_chunk_bytes=2**28, use_gpu=True),
        "logger": logging.getLogger("ZeMosaicWorker"),
        "meta": {},
        "caps": ParallelCapabilities(8, 16, 32 * 2**30, 24 * 2**30, True, "card", 8 * 2**30, 7 * 2**30),
    }
    return stand_ins[item[1:]]


def arguments_of(call, frames, said):
    """Return the arguments of a recorded call."""
    given = {name: value_of(item, frames, said) for name, item in call["kwargs"].items()}
    return [value_of(item, frames, said) for item in call["args"]], given


def is_a(value, kind):
    """Return whether a value is of a recorded kind."""
    if kind == "image":
        return isinstance(value, np.ndarray) and value.dtype == np.float32 and value.shape == SHAPE
    kinds = {"meta": dict, "bool": bool, "number": float, "none": type(None), "plan": ParallelPlan}
    return isinstance(value, {**kinds, "module": ModuleType}[kind])


@pytest.mark.gpu
@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call['name']} {call['source'][18:25]}")
def test_a_recorded_call_gives_what_zemosaic_unpacks(call):
    if call["name"].startswith("gpu_stack") and cupy_unusable():
        pytest.skip(cupy_unusable())
    args, given = arguments_of(call, make_frames(), [])
    answer = getattr(OURS.get(call["module"], drop_in), call["name"])(*args, **given)
    kinds = call["returns"] if isinstance(call["returns"], list) else [call["returns"]]
    values = answer if isinstance(call["returns"], list) else (answer,)
    assert len(values) == len(kinds)
    assert all(is_a(value, kind) for value, kind in zip(values, kinds, strict=True))
    if "stack_metadata" in given:
        assert {"weight_method", "weight_stats", "rgb_equalization"} <= set(given["stack_metadata"])


def tile(frames, **changed):
    """Stack with ZeMosaic's 21 arguments, on the CPU unless a plan says otherwise."""
    call = {**AUTO, "parsed_winsor_limits": (0.05, 0.05), "zconfig": SimpleNamespace(), "parallel_plan": None}
    call |= {"logger": logging.getLogger("ZeMosaicWorker"), "pcb_tile": None, "progress_callback": None}
    return drop_in._stack_master_tile_auto(frames, **{**call, **changed})


@pytest.fixture
def run_gpu(monkeypatch):
    """Make a run's GPU of this backend."""

    def make(open_backend):
        health = partial(GpuHealth, usable=True)
        run = RunGpu(partial(Phase3Gpu, check_health=health, open_backend=open_backend))
        monkeypatch.setattr(master_tile, "RUN_GPU", run)
        return run

    return make


class Failing:
    """A backend whose memory runs out at given transfers; counts the tiles that it has at once."""

    def __init__(self, inner, failing=()):
        self._inner = inner
        self._failing = set(failing)
        self._lock = threading.Lock()
        self.opened = self.inside = self.most = 0

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def open_transfer(self):
        """Fail as told."""
        with self._lock:
            self.opened += 1
            self.inside += 1
            self.most = max(self.most, self.inside)
        time.sleep(0.01)
        with self._lock:
            self.inside -= 1
            if self.opened in self._failing:
                raise MemoryError("as told")
        return self._inner.open_transfer()


def device():
    """Return CuPy's backend where it runs, else a stand-in that is not the host."""
    if not cupy_unusable():
        return cupy_backend()
    xp = pytest.importorskip("array_api_strict", reason="array-api-strict is not installed (extra test)")
    from zemosaic_stack_core.backends import namespace_backend

    return namespace_backend(xp, device=xp.Device("device1"))


@pytest.mark.slow
@pytest.mark.gpu
@pytest.mark.parametrize("first", [1, 2, 3, 5, 99], ids="fails at {}".format)
def test_four_threads_with_failures_have_the_cpus_bits(run_gpu, caplog, first):
    """Two failures in a row: one ERROR line, the GPU off for the tiles that follow, every tile the CPU's bits."""
    groups = [make_frames(seed=seed) for seed in range(8)]
    expected = [tile(frames, parallel_plan={"use_gpu": False})[0] for frames in groups]
    failing = Failing(device(), {first, first + 1})
    run = run_gpu(lambda: failing)
    with caplog.at_level("INFO"), ThreadPoolExecutor(4) as pool:
        made = list(pool.map(tile, groups))
    for (image, meta, used_gpu), wanted in zip(made, expected, strict=True):
        np.testing.assert_array_equal(image, wanted, strict=True)
        assert meta["used_gpu"] == used_gpu
    n_errors = sum(record.levelname == "ERROR" for record in caplog.records)
    used = [used_gpu for _, _, used_gpu in made]
    assert failing.most == 1
    if first > 90:
        assert (all(used), n_errors) == (True, 0)
    else:
        assert (sum(used), n_errors) == (first - 1, 1)
        assert [record.message for record in caplog.records if ERRORS in record.message]
        run.begin()  # the next run tries again
        assert tile(groups[0])[2]


@pytest.mark.gpu
def test_one_failure_is_tried_again(run_gpu, caplog):
    frames = make_frames()
    run_gpu(lambda: failing)
    failing = Failing(device(), {1})
    image, meta, used_gpu = tile(frames)
    assert (used_gpu, meta["gpu_attempts"]) == (True, 2)
    np.testing.assert_array_equal(image, tile(frames, parallel_plan={"use_gpu": False})[0])
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@pytest.mark.gpu
def test_an_abort_is_not_the_gpus_failure(run_gpu):
    """ZeMosaic's watchdog aborts a tile by raising in its callback, a RuntimeError."""

    class AbortedError(RuntimeError):
        pass

    def pcb(key, **fields):
        raise AbortedError(key)

    run = run_gpu(device)
    with pytest.raises(AbortedError, match="phase3_stack_progress"):
        tile(make_frames(), pcb_tile=pcb)
    gpu = run.of_run(logging.getLogger())
    assert (gpu.attempts, gpu.hard_disabled) == (1, False)


@pytest.fixture
def one_attempt(monkeypatch):
    """Give `gpu_stack_from_paths` a device."""
    failing = Failing(device())
    failing.release = lambda: None
    monkeypatch.setattr(drop_in, "cupy_backend", lambda: failing)
    monkeypatch.setattr(drop_in, "gpu_is_usable", lambda logger=None: True)
    drop_in.reset_phase3_gpu_runtime_stats()
    yield failing
    drop_in.reset_phase3_gpu_runtime_stats()


PARAMS = {name: value for name, value in AUTO.items() if name.startswith(("stack_", "poststack_"))}


@pytest.mark.gpu
def test_the_names_of_one_attempt_let_one_tile_at_a_time_on_the_device(one_attempt, caplog):
    frames = make_frames()
    frames[4] = frames[4][:10]
    with caplog.at_level("INFO"), ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: drop_in.gpu_stack_from_paths(frames, PARAMS), range(4)))
    assert (one_attempt.opened, one_attempt.most) == (4, 1)
    expected, _, _ = tile(frames[:4] + frames[5:], parallel_plan={"use_gpu": False})
    for image, meta in made:
        np.testing.assert_array_equal(image, expected, strict=True)
        assert {"weight_method", "weight_stats", "rgb_equalization"} <= set(meta)
    lines = [record.message for record in caplog.records]
    assert sum(line.startswith("[P3] 1 of 9 frames are left out: frame 4") for line in lines) == 4
    assert "[P3][GPU] Using GPU stacker for Phase 3 (mode=auto)" in lines
    figures = drop_in.get_phase3_gpu_runtime_stats()
    assert figures["p3_gpu_last_frames"] == 8
    shares = [figures[f"p3_gpu_last_{step}_share_pct"] for step in ("upload", "compute", "download")]
    assert sum(shares) == pytest.approx(100)


@pytest.mark.gpu
def test_an_abort_passes_through_one_attempt(one_attempt):
    def pcb(key, **fields):
        raise RuntimeError(f"aborted at {key}")

    with pytest.raises(RuntimeError, match="aborted at phase3_stack_progress") as caught:
        drop_in.gpu_stack_from_paths(make_frames(), PARAMS, pcb_tile=pcb)
    assert not isinstance(caught.value, GPUStackingError)


@pytest.mark.gpu
@pytest.mark.parametrize(
    ("plan", "settings"),
    [({"use_gpu": False}, {}), (ParallelPlan(use_gpu=False), {}), (None, {"stack_use_gpu": False, "use_gpu": True})],
)
def test_what_keeps_a_tile_off_the_gpu(run_gpu, plan, settings):
    run_gpu(device)
    assert not tile(make_frames(), parallel_plan=plan, zconfig=SimpleNamespace(**settings))[2]


def test_the_level_is_that_of_the_reference():
    frames = make_frames(drift=100.0)
    options = StackOptions(normalization="linear_fit", weighting="noise_variance", rejection="winsorized_sigma_clip")
    image, meta, _ = tile(frames, parallel_plan={"use_gpu": False})
    assert meta["reference"] == 0
    np.testing.assert_array_equal(image, stack(frames, options=replace(options, reference=0)).image, strict=True)
    for index in (0, 5):
        level = np.nanmedian(tile(frames, reference_index=index, parallel_plan={"use_gpu": False})[0])
        assert level == pytest.approx(np.median(frames[index]), abs=15)


def test_frames_of_another_shape_and_none_are_left_out_with_one_line(caplog):
    frames = make_frames()
    image, _, _ = tile([None, *frames[:3], frames[3][:10], *frames[4:], frames[0][:, :9]], reference_index=1)
    np.testing.assert_array_equal(image, tile([*frames[:3], *frames[4:]])[0], strict=True)
    [line] = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert line.startswith("[P3] 2 of 10 frames are left out: frame 4 (10, 32, 3), frame 10 (24, 9, 3); expected")


def test_weights_follow_the_frames_that_are_left():
    frames = make_frames(5)
    weights = np.arange(1.0, 6.0)
    image, _ = drop_in.stack_winsorized_sigma_clip([frames[0], frames[1][:5], *frames[2:]], weights)
    expected, _ = drop_in.stack_winsorized_sigma_clip([frames[0], *frames[2:]], weights[[0, 2, 3, 4]])
    np.testing.assert_array_equal(image, expected)


def test_outside_a_footprint_a_frame_is_missing():
    frames = make_frames(4)
    footprints = [np.ones(SHAPE[:2], bool) for _ in frames]
    footprints[2][:7] = False
    cut = [frame.copy() for frame in frames]
    cut[2][:7] = np.nan
    np.testing.assert_array_equal(tile(frames, footprints=footprints)[0], tile(cut)[0])


def test_more_than_128_frames_are_one_stack():
    frames = make_frames(150, shape=(4, 6, 3))
    image, meta, _ = tile(frames, winsor_max_frames_per_pass=20)
    assert meta["frames_used"] == 150
    np.testing.assert_array_equal(image, tile(frames)[0])


def test_the_channels_of_a_tile_have_one_median():
    frames = [frame * np.array([1.0, 2.0, 0.5], np.float32) for frame in make_frames()]
    plain, meta, _ = tile(frames)
    assert meta["rgb_equalization"]["enabled"] is False
    image, meta, _ = tile(frames, poststack_equalize_rgb=True)
    medians = np.median(plain, axis=(0, 1))
    target = np.median(medians)
    gains = (target / medians).astype(np.float32)
    np.testing.assert_array_equal(image, plain * gains)
    info = meta["rgb_equalization"]
    assert (info["enabled"], info["applied"], info["target_median"]) == (True, True, pytest.approx(target))
    assert [info["gain_r"], info["gain_g"], info["gain_b"]] == list(map(float, gains))
    off = tile(frames, poststack_equalize_rgb=True, zconfig=SimpleNamespace(poststack_equalize_rgb="false"))
    np.testing.assert_array_equal(off[0], plain)


def test_what_can_not_be_equalized_stays():
    nothing = np.full((2, 2, 3), np.nan, np.float32)
    for image in (None, np.ones((2, 2), np.float32), nothing, -np.ones((2, 2, 3), np.float32)):
        assert drop_in.equalize_rgb_medians_inplace(image)[:3] == (1.0, 1.0, 1.0)
    half = np.array([[[4.0, 8.0, -1.0], [np.nan, 8.0, -1.0]]], np.float32)
    assert drop_in.equalize_rgb_medians_inplace(half) == (1.5, 0.75, 1.0, 6.0)
    np.testing.assert_array_equal(half, [[[6.0, 6.0, -1.0], [np.nan, 6.0, -1.0]]])
    noted: dict = {}
    assert drop_in._poststack_rgb_equalization(half, {"poststack_equalize_rgb": True}, noted)["applied"]
    assert noted["rgb_equalization"]["target_median"] == 6.0


@pytest.mark.parametrize(
    ("setting", "value", "option"),
    [
        ("stack_reject_algo", "kappa", {"rejection": "kappa_sigma"}),
        ("stack_reject_algo", "winsor", {"rejection": "winsorized_sigma_clip"}),
        ("stack_weight_method", "unity", {"weighting": "none"}),
    ],
)
def test_spellings(setting, value, option):
    frames = make_frames(5)
    base = StackOptions(
        normalization="linear_fit", weighting="noise_variance", rejection="winsorized_sigma_clip", reference=0
    )
    expected = stack(frames, options=replace(base, **option)).image
    np.testing.assert_array_equal(tile(frames, **{setting: value})[0], expected)


def test_what_a_stacker_does_not_know_is_said(caplog):
    frames = make_frames(4)
    drop_in.stack_kappa_sigma_clip(frames, sigma_low=2.0, sigma_high=2.0, combine="median")
    assert [record.message for record in caplog.records] == ["[P3] combine='median' is not used by this stacker"]
    with pytest.raises(InvalidInputError, match="minimum_signal_adu_target is 5; expected 0"):
        drop_in.stack_aligned_images(frames, minimum_signal_adu_target=5)


def test_the_stackers_are_one_kernel():
    frames = make_frames(6)
    for name, rule in (("winsorized_sigma_clip", {"kappa": 2.0}), ("linear_fit_clip", {"sigma": 2.0})):
        image, rejected = getattr(drop_in, f"stack_{name}")(frames, **rule)
        options = StackOptions(rejection=name, kappa_low=2.0, kappa_high=2.0)
        result = stack(frames, options=options, maps="all")
        np.testing.assert_array_equal(image, result.image, strict=True)
        n_rejected = int(result.rejected_low.sum()) + int(result.rejected_high.sum())
        assert rejected == pytest.approx(100.0 * n_rejected / np.size(frames))


def test_a_plan_takes_attributes_and_checks_them():
    plan = ParallelPlan(use_gpu=True, gpu_rows_per_chunk=4096, gpu_max_chunk_bytes=2**30)
    plan.use_gpu, plan.gpu_rows_per_chunk, plan.gpu_max_chunk_bytes = 0, 512.0, 0
    plan.note = "theirs"
    assert (plan.use_gpu, plan.gpu_rows_per_chunk, plan.gpu_max_chunk_bytes) == (False, 512, None)
    assert replace(plan, gpu_rows_per_chunk=7).gpu_rows_per_chunk == 7
    with pytest.raises(InvalidInputError, match="gpu_rows_per_chunk of the parallel plan is 'many'"):
        plan.gpu_rows_per_chunk = "many"


def test_a_shape_that_is_not_known_yet_plans_no_rows():
    caps = ParallelCapabilities(8, 16, 32 * 2**30, 24 * 2**30, True, "card", 8 * 2**30, 7 * 2**30)
    ask = partial(auto_tune_parallel_plan, kind="global", n_frames=30, bytes_per_pixel=4, caps=caps)
    assert ask(frame_shape=(0, 0), config={}) == ask(frame_shape=None, config={})
    assert ask(frame_shape=(0, 0), config={}).rows_per_chunk is None
    assert ask(frame_shape=(500, 500), config={}).use_gpu
    assert not ask(frame_shape=(500, 500), config={"parallel_autotune_enabled": False}).use_gpu


def test_errors_that_say_that_there_is_no_cupy():
    missing = ImportError("No module named 'cupy'")
    assert drop_in._is_cupy_runtime_unavailable_error(missing)
    text = "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version"
    assert drop_in._is_cupy_runtime_unavailable_error(RuntimeError(text))
    assert not drop_in._is_cupy_runtime_unavailable_error(MemoryError("full"))
