"""Mode C end to end: whatever the GPU does, the tile has the CPU's bits, and the run goes on."""

from __future__ import annotations

import itertools
import logging
import os
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits
from samples import UnreadableFrame

import zemosaic_worker
from conftest import cupy_unusable
from zemosaic_stack_core.backends import cupy_backend, namespace_backend
from zemosaic_stack_core.backends.cuda import free_cupy_memory_pools, gpu_memory
from zemosaic_stack_core.errors import (
    BackendUnavailableError,
    FrameReadError,
    GPUStackingError,
    InvalidInputError,
    ScratchError,
)
from zemosaic_stack_core.frames.group import group_frames, open_frames
from zemosaic_stack_core.gpu.auto import stack_auto
from zemosaic_stack_core.gpu.health import GpuHealth, reset_gpu_health
from zemosaic_stack_core.gpu.phase3_gpu import Phase3Gpu
from zemosaic_stack_core.options import MAPS, StackOptions
from zemosaic_stack_core.phase3 import StackSettings
from zemosaic_stack_core.stacking.clusters import RejectedFlags
from zemosaic_stack_core.stacking.job import StackRequest, plan_job
from zemosaic_stack_core.stacking.limits import Limits
from zemosaic_stack_core.stacking.run import stack
from zemosaic_stack_core.zemosaic.parallel_plan import ParallelPlan

pytestmark = pytest.mark.gpu

USING = "[P3][GPU] Using GPU stacker for Phase 3 (mode=auto)"
RULE = StackOptions(rejection="kappa_sigma", kappa_low=2.0, kappa_high=2.0)


def make_tile(seed, n_frames=6, shape=(7, 9)):
    """Return frames with outliers, a missing border and a pixel that nothing covers."""
    generator = np.random.default_rng(seed)
    cube = generator.normal(500.0, 10.0, (n_frames, *shape)).astype(np.float32)
    cube[generator.integers(0, n_frames, 8), generator.integers(0, shape[0], 8)] = 900.0
    cube[0, :2] = np.nan
    cube[:, 3, 4] = np.nan
    return list(cube)


def assert_same(result, expected):
    """Compare everything but how it was made."""
    for name in ("image", "coverage", "rejected_low", "rejected_high", "weight_map", "variance"):
        left, right = getattr(result, name), getattr(expected, name)
        assert (left is None) == (right is None), name
        if left is not None:
            np.testing.assert_array_equal(left, right, strict=True)
    assert result.frames == expected.frames
    assert result.reference == expected.reference


def messages(caplog, level="INFO"):
    """Return the lines of a level and above."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.getLevelName(level)]


class Shaky:
    """A namespace off the host whose uploads fail as told, as a backend's do; remembers the size of each band."""

    def __init__(self, xp, failures=()):
        inner = namespace_backend(xp, xp.Device("device1"))
        self.name, self.xp, self.is_host, self.device = "cupy", inner.xp, False, inner.device
        self.reads_words = False
        self.failures = list(failures)
        self.bands = []
        self.dtypes = []
        self.released = 0
        self._inner = inner

    def upload(self, array):
        """Fail as told, once per attempt, at its first upload."""
        return self._inner.upload(array)

    def download(self, array, out):
        """Copy."""
        self._inner.download(array, out)

    def synchronize(self):
        """Nothing to do."""

    def free_memory(self):
        """Pretend to have a small card."""
        return 1 << 20

    def release(self):
        """Count."""
        self.released += 1

    def compiled(self, function, task):
        """Run programs as they stand."""
        return self._inner.compiled(function, task)

    def working_bytes(self, frames, sums):
        """Return what programs take."""
        return self._inner.working_bytes(frames, sums)

    def open_transfer(self):
        """Fail as told, or note the bands that pass."""
        bands = []
        self.bands.append(bands)
        failure = self.failures.pop(0) if self.failures else None
        transfer = self._inner.open_transfer()
        upload = transfer.upload

        def watched(slot, arrays):
            bands.append(arrays[0].shape[-1])
            self.dtypes.append([array.dtype.name for array in arrays])
            if failure is not None:
                raise failure
            upload(slot, arrays)

        transfer.upload = watched
        return transfer


@pytest.fixture
def shaky():
    """Make a run's state over a stand-in device that fails as told, in turn, at each attempt."""
    xp = pytest.importorskip("array_api_strict", reason="array-api-strict is not installed (extra test)")

    def make(*failures, **settings):
        device = Shaky(xp, failures)
        gpu = Phase3Gpu(check_health=lambda: GpuHealth(usable=True), open_backend=lambda: device, **settings)
        return gpu, device

    return make


def test_the_gpu_makes_the_tile(shaky, caplog):
    frames = make_tile(1)
    gpu, _ = shaky()
    with caplog.at_level("INFO"):
        result, used_gpu = stack_auto(frames, gpu=gpu, options=RULE, maps="all")
    assert used_gpu
    assert_same(result, stack(frames, options=RULE, maps="all"))
    assert result.backend == "cupy"
    assert (result.facts.used_gpu, result.facts.gpu_attempts) == (True, 1)
    assert result.facts.fallback_reason == ""
    assert messages(caplog) == [USING]


def test_only_the_maps_that_were_asked_for(shaky):
    result, used_gpu = stack_auto(make_tile(1), gpu=shaky()[0], maps=("variance",))
    assert used_gpu
    assert result.coverage is None
    assert result.variance is not None


def test_without_a_state_the_cpu_does_it():
    result, used_gpu = stack_auto(make_tile(1), gpu=None)
    assert not used_gpu
    assert result.facts.fallback_reason == ""
    assert result.facts.device == "CPU"


@pytest.mark.parametrize(
    "plan",
    [None, {}, {"gpu_rows_per_chunk": 5}, {"gpu_rows_per_chunk": 1}, ParallelPlan(gpu_max_chunk_bytes=20000)],
    ids=["none", "empty", "five rows", "one row", "bytes"],
)
@pytest.mark.parametrize("wrap", [lambda plan: plan, lambda plan: plan and SimpleNamespace(**vars(plan))])
def test_after_out_of_memory_the_band_is_really_smaller(shaky, plan, wrap):
    frames = make_tile(2)
    gpu, device = shaky(MemoryError("full"))
    plan = wrap(plan) if isinstance(plan, ParallelPlan) else plan
    result, used_gpu = stack_auto(frames, gpu=gpu, options=RULE, plan=plan)
    assert used_gpu
    assert result.facts.gpu_attempts == 2
    first, second = device.bands
    assert max(second) <= first[0] / 2
    assert sum(second) == 7 * 9
    if plan == {"gpu_rows_per_chunk": 1}:
        assert result.facts.columns_per_chunk <= 4
    assert_same(result, stack(frames, options=RULE))
    assert not gpu.hard_disabled


def test_after_another_failure_the_band_is_the_same(shaky, caplog):
    gpu, device = shaky(RuntimeError("odd"))
    _, used_gpu = stack_auto(make_tile(2), gpu=gpu, plan={"gpu_rows_per_chunk": 5})
    assert used_gpu
    assert device.bands[0][0] == device.bands[1][0] == 5 * 9
    assert messages(caplog, "WARNING") == [
        "[P3][GPU] Unexpected GPU error: Error: RuntimeError: odd -- retrying once on GPU"
    ]


def test_two_failures_and_the_cpu_does_it_and_all_that_follow(shaky, caplog):
    tiles = [make_tile(seed) for seed in range(5)]
    gpu, device = shaky(MemoryError("full"), MemoryError("full again"))
    with caplog.at_level("INFO"):
        made = [stack_auto(frames, gpu=gpu, options=RULE, tile_id=tile) for tile, frames in enumerate(tiles)]
    for frames, (result, used_gpu) in zip(tiles, made, strict=True):
        assert not used_gpu
        assert_same(result, stack(frames, options=RULE))
        assert result.facts.fallback_reason == "OutOfMemory: MemoryError: full again"
    assert [result.facts.gpu_attempts for result, _ in made] == [2, 0, 0, 0, 0]
    assert len(device.bands) == 2
    assert (gpu.attempts, gpu.gpu_tiles, gpu.cpu_tiles) == (2, 0, 5)
    assert messages(caplog) == [
        "[P3][GPU] Unexpected GPU error: OutOfMemory: MemoryError: full -- retrying once on GPU",
        "[P3][GPU] Second GPU attempt failed; disabling Phase 3 GPU for this run: OutOfMemory: MemoryError: full again",
    ]


def test_an_invalid_tile_is_never_handed_out(shaky, monkeypatch, caplog):
    frames = make_tile(3)
    gpu, device = shaky()
    download = device._inner.download

    def spoil(array, out):
        download(array, out)
        if out.dtype == np.float32:
            out[0] = np.nan

    monkeypatch.setattr(device._inner, "download", spoil)
    result, used_gpu = stack_auto(frames, gpu=gpu)
    assert not used_gpu
    assert_same(result, stack(frames))
    assert "InvalidResult: " in messages(caplog, "ERROR")[0]
    assert "Stack failed (GPUStackingError)" in messages(caplog, "WARNING")[0]


def test_samples_of_16_bits_go_up_as_16_bits(shaky):
    frames = [np.full((7, 9), value, dtype) for value, dtype in ((1, "u2"), (5, "i2"), (6, "f4"), (7, "u1"))]
    gpu, device = shaky()
    assert stack_auto(frames, gpu=gpu)[1]
    assert device.dtypes == [["uint16", "int16", "float32", "uint8"]]


@pytest.mark.parametrize("plan", [{"use_gpu": False}, ParallelPlan(use_gpu=False), SimpleNamespace(use_gpu=False)])
def test_the_plan_keeps_the_tile_on_the_cpu(shaky, plan):
    gpu, device = shaky()
    result, used_gpu = stack_auto(make_tile(1), gpu=gpu, plan=plan)
    assert not used_gpu
    assert device.bands == []
    assert result.facts.fallback_reason == "the plan says use_gpu=False"
    assert stack_auto(make_tile(1), gpu=gpu)[1]


def test_what_is_wrong_with_the_input_is_found_before_the_gpu(shaky, tmp_path):
    gpu, device = shaky()
    frames = make_tile(1)
    with pytest.raises(InvalidInputError, match="expected"):
        stack_auto([frames[0], frames[1][:3]], gpu=gpu)
    with pytest.raises(FrameReadError, match=r"none\.fits"):
        stack_auto([tmp_path / "none.fits"], gpu=gpu)
    with pytest.raises(InvalidInputError, match="maps"):
        stack_auto(frames, gpu=gpu, maps=("noise",))
    with pytest.raises(InvalidInputError, match="masks with frames that are open already"):
        stack_auto(open_frames(frames), gpu=gpu, masks=[None] * 6)
    assert device.bands == []
    assert gpu.attempts == 0


def test_a_frame_that_breaks_under_way_does_not_blame_the_gpu(shaky, tmp_path):
    paths = []
    for index, frame in enumerate(make_tile(4)):
        paths.append(tmp_path / f"frame_{index}.npy")
        np.save(paths[-1], frame)
    group = open_frames(paths)
    paths[2].write_bytes(paths[2].read_bytes()[:200])
    gpu, _ = shaky()
    with pytest.raises(FrameReadError, match=r"frame_2\.npy"):
        stack_auto(group, gpu=gpu)
    assert not gpu.hard_disabled


GROWS = replace(RULE, grow_radius=1.5, grow_min_size=1)


@pytest.fixture
def no_room(monkeypatch):
    """Leave no room for temporary files."""

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(total=1, used=1, free=0))


def test_no_room_to_note_what_grows_does_not_blame_the_gpu(shaky, no_room, caplog):
    gpu, device = shaky()
    with pytest.raises(ScratchError, match=r"No space left on device; expected room there for .*TMPDIR names another"):
        stack_auto(make_tile(4), gpu=gpu, options=GROWS)
    assert (gpu.hard_disabled, gpu.attempts, device.bands) == (False, 1, [])
    assert messages(caplog, "WARNING") == []
    assert stack_auto(make_tile(4), gpu=gpu, options=RULE)[1]


def test_no_room_to_decode_a_frame_does_not_blame_the_gpu(shaky, no_room, caplog, tmp_path):
    gpu, device = shaky()
    fits.writeto(tmp_path / "frame.fits.gz", make_tile(4)[1])
    with pytest.raises(ScratchError, match=r"frame\.fits\.gz: can't be decoded into .*No space left on device"):
        stack_auto([tmp_path / "frame.fits.gz"], gpu=gpu)
    assert (gpu.hard_disabled, gpu.attempts, device.bands) == (False, 0, [])
    assert messages(caplog, "WARNING") == []


def test_a_disk_that_fills_up_in_the_second_pass_does_not_blame_the_gpu(shaky, monkeypatch, caplog):
    gpu, _ = shaky()

    def fail(*_):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(RejectedFlags, "find_grown", fail)
        with pytest.raises(OSError, match="Input/output error"):  # the CPU comes by it as well
            stack_auto(make_tile(4), gpu=gpu, options=GROWS)
    assert (gpu.hard_disabled, gpu.attempts) == (False, 1)
    assert messages(caplog, "ERROR") == []
    assert stack_auto(make_tile(4), gpu=gpu, options=GROWS)[1]


def test_a_full_disk_under_cupys_kernels_costs_the_tile_and_not_the_gpu(shaky, caplog):
    frames = make_tile(4)
    gpu, _ = shaky(OSError(28, "No space left on device"))
    made = [stack_auto(frames, gpu=gpu, options=RULE) for _ in range(2)]
    assert [used_gpu for _, used_gpu in made] == [False, True]
    for result, _ in made:
        assert_same(result, stack(frames, options=RULE))
    assert made[0][0].facts.fallback_reason == "HostFiles: OSError: [Errno 28] No space left on device"
    assert (made[0][0].facts.gpu_attempts, gpu.gpu_tiles, gpu.cpu_tiles) == (1, 1, 1)
    assert messages(caplog, "ERROR") == []
    assert len(messages(caplog, "WARNING")) == 1


class Canceled(Exception):  # noqa: N818 - what a program raises to cancel
    """The user pressed the button."""


def test_a_cancellation_passes_through_untouched(shaky, caplog):
    gpu, _ = shaky()
    error = Canceled("stop")

    def stop(*_, **__):
        raise error

    with pytest.raises(Canceled) as caught:
        stack_auto(make_tile(1), gpu=gpu, progress=stop)
    assert caught.value is error
    with pytest.raises(Canceled) as caught:
        stack_auto(make_tile(1), gpu=gpu, pcb_tile=stop)
    assert caught.value is error
    assert not gpu.hard_disabled
    assert gpu.attempts == 2
    assert messages(caplog, "WARNING") == []
    assert stack_auto(make_tile(1), gpu=gpu)[1]


def test_the_summary_of_a_tile(shaky):
    said = []

    def pcb_tile(key, **fields):
        said.append((key, fields))

    gpu, _ = shaky(None, RuntimeError("once"), None, RuntimeError("one"), RuntimeError("two"))
    for tile in (11, 12, 13):
        stack_auto(make_tile(1), gpu=gpu, tile_id=tile, pcb_tile=pcb_tile, plan={"gpu_rows_per_chunk": 3})
    keys = {"prog", "lvl", "rows_per_chunk", "total_rows", "tile_id", "duration_s", "upload_ms", "reject_ms"}
    keys |= {"combine_ms", "download_ms", "algo", "n_frames", "attempt", "backend"}
    assert all(set(fields) == keys for _, fields in said)
    assert [
        (key, fields["tile_id"], fields["attempt"], fields["backend"], fields["rows_per_chunk"]) for key, fields in said
    ] == [
        ("phase3_gpu_chunk_summary", 11, 1, "cupy", 3),
        ("phase3_gpu_chunk_summary", 12, 2, "cupy", 3),
        ("phase3_cpu_chunk_summary", 13, 3, "numpy", 7),
    ]
    for _, fields in said:
        assert (fields["prog"], fields["lvl"], fields["total_rows"]) == (None, "INFO_DETAIL", 7)
        assert (fields["algo"], fields["n_frames"]) == ("kappa_sigma", 6)
        assert fields["duration_s"] > 0.0


def write_frames(folder, seed=1):
    """Write a tile's frames and return their paths."""
    paths = []
    for index, frame in enumerate(make_tile(seed)):
        paths.append(folder / f"frame_{index}.fits")
        fits.writeto(paths[-1], frame)
    return paths


@pytest.mark.parametrize("failures", [(), (MemoryError("one"), RuntimeError("two"))], ids=["sane", "failing"])
def test_what_a_tiles_file_and_meta_say(shaky, tmp_path, failures):
    options = StackOptions(rejection="mad_clip", normalization="additive", weighting="noise_variance")
    gpu, _ = shaky(*failures)
    paths = write_frames(tmp_path)
    written, meta = zemosaic_worker.create_master_tile(
        paths, tmp_path / "tile.fits", tile_id=3, settings=StackSettings(options=options), gpu=gpu
    )
    reason = "Error: RuntimeError: two" if failures else ""
    acted = {"normalization": "additive", "weighting": "noise_variance", "rejection": "mad_clip", "combine": "mean"}
    made = {"backend": "numpy" if failures else "cupy", "used_gpu": not failures, "gpu_attempts": 2 if failures else 1}
    assert {**acted, **made, "fallback_reason": reason}.items() <= meta.items()
    header = fits.getheader(written)
    cards = {"ZMT_NORM": "additive", "ZMT_WGHT": "noise_variance", "ZMT_REJ": "mad_clip", "ZMT_COMB": "mean"}
    cards |= {"ZSC_BACK": made["backend"], "ZSC_GATT": made["gpu_attempts"]}
    assert {name: header.get(name) for name in cards} == cards
    assert header.get("ZSC_GWHY", "") == reason


def test_a_required_gpu_that_is_not_usable_is_said_before_the_frames_are_read():
    frame = UnreadableFrame(AssertionError("the frame was read for its statistics"))
    gpu = Phase3Gpu(is_required=True, check_health=lambda: GpuHealth(usable=False, reason="no card"))
    with pytest.raises(BackendUnavailableError, match="the GPU is required and can't be used: no card"):
        stack_auto(group_frames([frame] * 3), gpu=gpu, options=StackOptions(normalization="linear_fit"))


def test_a_required_gpu_that_fails_is_an_error(shaky):
    gpu, _ = shaky(RuntimeError("one"), RuntimeError("two"), is_required=True)
    with pytest.raises(GPUStackingError, match="the GPU is required and failed"):
        stack_auto(make_tile(1), gpu=gpu)


def run_in_four_threads(gpu, tiles):
    """Stack tiles, four at a time; return the results by tile."""
    results = {}
    waiting = list(range(len(tiles)))

    def work():
        while True:
            try:
                tile = waiting.pop()
            except IndexError:
                return
            results[tile] = stack_auto(tiles[tile], gpu=gpu, options=RULE, tile_id=tile)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(results) == list(range(len(tiles)))
    return results


def test_four_threads_share_one_failure(shaky, caplog):
    tiles = [make_tile(seed) for seed in range(8)]
    expected = [stack(frames, options=RULE) for frames in tiles]
    gpu, device = shaky(None, None, MemoryError("one"), MemoryError("two"))
    results = run_in_four_threads(gpu, tiles)
    for tile, (result, _) in results.items():
        assert_same(result, expected[tile])
    assert sum(used_gpu for _, used_gpu in results.values()) == gpu.gpu_tiles == 2
    assert gpu.cpu_tiles == 6
    assert len(device.bands) == gpu.attempts == 4
    assert len(messages(caplog, "ERROR")) == 1


@pytest.fixture
def cupy_run():
    """Make the state of a run on CuPy; the health check has its own tests."""
    if cupy_unusable():
        pytest.skip(cupy_unusable())
    runs = []

    def make(**settings):
        runs.append(Phase3Gpu(check_health=lambda: GpuHealth(usable=True), **settings))
        return runs[-1]

    yield make
    for run in runs:
        if not run.hard_disabled:
            run.close()


@pytest.fixture
def emulation():
    """The emulation's switches, put back afterwards."""
    if "cupyemu" not in sys.modules:
        pytest.skip("the emulation of CuPy is not loaded (-p cupyemu): a real card does not fail on request")
    import cupyemu

    yield cupyemu
    cupyemu.lib.cuemu_reset_errors()
    reset_gpu_health()


@pytest.mark.parametrize("rows", [1, 3, None])
@pytest.mark.parametrize("dtype", ["float32", "uint16"])
@pytest.mark.parametrize("shape", [(7, 9), (5, 6, 3)], ids=["mono", "color"])
def test_cupy_gives_the_cpus_bits(cupy_run, rows, dtype, shape):
    frames = make_tile(5, shape=shape)
    if dtype == "uint16":
        frames = [np.nan_to_num(frame, nan=7.0).astype(dtype) for frame in frames]
    weights = np.linspace(0.5, 2.0, len(frames))
    said = []
    result, used_gpu = stack_auto(
        frames,
        gpu=cupy_run(),
        options=RULE,
        maps="all",
        weights=weights,
        plan={"gpu_rows_per_chunk": rows},
        pcb_tile=lambda key, **fields: said.append(fields),
    )
    assert used_gpu
    assert_same(result, stack(frames, options=RULE, maps="all", weights=weights))
    [fields] = said
    assert min(fields[name] for name in ("upload_ms", "reject_ms", "download_ms", "duration_s")) > 0.0


@pytest.mark.parametrize("rule", ["winsorized_sigma_clip", "none", "gesd"])
def test_cupy_with_all_that_goes_with_a_sample(cupy_run, rule):
    shape = (6, 7, 3)
    frames = make_tile(6, n_frames=8, shape=shape)
    generator = np.random.default_rng(9)
    settings = {
        "options": StackOptions(rejection=rule, normalization="linear_fit", radial_feather_fraction=0.9),
        "weights": generator.uniform(0.0, 2.0, (8, *shape)),
        "variances": generator.uniform(1.0, 2.0, (8, *shape)),
        "masks": [generator.random(shape[:2]) < 0.1 if frame % 2 else None for frame in range(8)],
        "maps": "all",
    }
    result, used_gpu = stack_auto(frames, gpu=cupy_run(), plan={"gpu_rows_per_chunk": 4}, **settings)
    assert used_gpu
    assert_same(result, stack(frames, **settings))


@pytest.mark.parametrize(("rule", "n_frames"), [("minmax", 70), ("kappa_sigma", 9), ("winsorized_quantile", 40)])
def test_the_device_never_holds_more_than_was_planned(cupy_run, rule, n_frames):
    """At worst: every pixel has something to reject, and weights and variances of its own."""
    import cupy

    class Peak(cupy.cuda.memory_hook.MemoryHook):
        name = "the most that was handed out at once"

        def __init__(self):
            self.now = self.most = 0

        def malloc_postprocess(self, **call):
            self.now += call["mem_size"]
            self.most = max(self.most, self.now)

        def free_postprocess(self, **call):
            self.now -= call["mem_size"]

    shape = (16, 64)
    frames = make_tile(7, n_frames=n_frames, shape=shape)
    cube = np.stack(frames)
    rows, columns = np.indices(shape)
    cube[(rows + columns) % n_frames, rows, columns] = 9000.0
    ones = np.ones((n_frames, *shape), dtype=np.float32)
    gpu = cupy_run()
    tile_plan = {"gpu_rows_per_chunk": 8}
    options = StackOptions(rejection=rule)
    stack_auto(list(cube), gpu=gpu, options=options, weights=ones, variances=ones, maps="all", plan=tile_plan)
    gpu.close()
    request = StackRequest(options=options, maps=frozenset(MAPS))
    planned = plan_job(open_frames(list(cube)), request, cupy_backend(), Limits(workers=1, rows_per_chunk=8), planes=2)
    hook = Peak()
    with hook:
        _, used_gpu = stack_auto(
            list(cube), gpu=gpu, options=options, weights=ones, variances=ones, maps="all", plan=tile_plan
        )
    assert used_gpu
    # The hook sees what this thread allocates; the slots are filled by the reading thread.
    held = hook.most + planned.footprint.buffers * planned.footprint.sample_bytes * 8 * 64
    assert planned.chunk_bytes / 2 < held <= planned.chunk_bytes


def run_of_tiles(gpu, tiles):
    """Stack a run's tiles and say which came from the GPU."""
    made = [stack_auto(frames, gpu=gpu, options=RULE, tile_id=tile) for tile, frames in enumerate(tiles)]
    return [result for result, _ in made], [used_gpu for _, used_gpu in made]


@pytest.fixture(scope="module")
def tiles():
    """Five small tiles and what the CPU makes of them."""
    frames = [make_tile(seed, n_frames=4, shape=(5, 6)) for seed in range(5)]
    return frames, [stack(tile, options=RULE) for tile in frames]


def test_the_nth_allocation_fails(cupy_run, emulation, tiles, caplog):
    """From the n-th on every allocation fails: two attempts, then the CPU; until n is past the run's last one."""
    frames, expected = tiles
    outcomes = []
    for n in itertools.count():
        caplog.clear()
        gpu = cupy_run()
        emulation.lib.cuemu_fail_malloc_after(n)
        results, used = run_of_tiles(gpu, frames)
        emulation.lib.cuemu_reset_errors()
        for result, wanted in zip(results, expected, strict=True):
            assert_same(result, wanted)
        outcomes.append(all(used))
        if all(used):
            assert messages(caplog, "ERROR") == []
            break
        assert gpu.hard_disabled
        assert used == sorted(used, reverse=True)
        assert gpu.attempts == sum(used) + 2
        assert [line.partition(":")[0] for line in messages(caplog, "ERROR")] == [
            "[P3][GPU] Second GPU attempt failed; disabling Phase 3 GPU for this run"
        ]
        assert gpu.reason.startswith("OutOfMemory: ")
        free_cupy_memory_pools()
    assert outcomes[0] is False
    assert outcomes[-1] is True


def test_a_sticky_error_at_the_nth_launch(cupy_run, emulation, tiles, caplog):
    frames, expected = tiles
    gpu = cupy_run()
    before = emulation.count("launch")
    run_of_tiles(gpu, frames)
    launches = emulation.count("launch") - before
    gpu.close()
    for n in [0, 1, 2, 3, *range(7, launches, launches // 9), launches - 1]:
        caplog.clear()
        gpu = cupy_run()
        emulation.lib.cuemu_fail_launch_after(n)
        results, used = run_of_tiles(gpu, frames)
        calls = {name: emulation.count(name) for name in ("launch", "malloc", "h2d", "d2h", "sync")}
        stack_auto(frames[0], gpu=gpu)
        assert calls == {name: emulation.count(name) for name in calls}, "CuPy was called after the device was lost"
        emulation.lib.cuemu_reset_errors()
        for result, wanted in zip(results, expected, strict=True):
            assert_same(result, wanted)
        assert gpu.hard_disabled
        assert used == sorted(used, reverse=True)
        assert gpu.attempts == sum(used) + 1
        assert len(messages(caplog, "ERROR")) == 1
        assert "DeviceLost" in messages(caplog, "ERROR")[0]
        assert messages(caplog, "WARNING") == messages(caplog, "ERROR")
    results, used = run_of_tiles(cupy_run(), frames)
    assert all(used), "a second run in the same process tries the GPU again"


@pytest.mark.parametrize("how", ["memory", "device"])
def test_four_threads_on_a_gpu_that_fails(cupy_run, emulation, tiles, caplog, how):
    frames, expected = tiles
    gpu = cupy_run()
    before = emulation.count("launch")
    stack_auto(frames[0], gpu=gpu, options=RULE)
    if how == "memory":
        free_cupy_memory_pools()
        emulation.lib.cuemu_fail_malloc_after(3)
    else:
        emulation.lib.cuemu_fail_launch_after((emulation.count("launch") - before) * 5 // 2)
    results = run_in_four_threads(gpu, frames * 2)
    emulation.lib.cuemu_reset_errors()
    for tile, (result, _) in results.items():
        assert_same(result, expected[tile % 5])
    assert gpu.hard_disabled
    assert sum(used_gpu for _, used_gpu in results.values()) + 1 == gpu.gpu_tiles
    assert gpu.gpu_tiles + gpu.cpu_tiles == 11
    assert len(messages(caplog, "ERROR")) == 1


def test_one_failed_allocation_costs_one_retry(cupy_run, emulation, tiles, monkeypatch):
    import cupy

    frames, expected = tiles
    backend = cupy_backend()
    gpu = cupy_run(open_backend=lambda: backend)
    opened = []
    open_transfer = backend.open_transfer

    def first_is_full():
        opened.append(1)
        if len(opened) == 1:
            raise cupy.cuda.memory.OutOfMemoryError(5, 6, 7)
        return open_transfer()

    monkeypatch.setattr(backend, "open_transfer", first_is_full)
    results, used = run_of_tiles(gpu, frames)
    assert used == [True] * 5
    assert results[0].facts.gpu_attempts == 2
    assert_same(results[0], expected[0])


def test_nothing_of_a_failed_attempt_stays_on_the_device(cupy_run, emulation, tiles, caplog):
    frames, _ = tiles
    gpu = cupy_run()
    with caplog.at_level("DEBUG"):
        emulation.lib.cuemu_fail_malloc_after(3)
        run_of_tiles(gpu, frames)
        emulation.lib.cuemu_reset_errors()
    assert gpu.hard_disabled
    free_cupy_memory_pools()
    assert gpu_memory().pool_used == 0


SMALL_CARD = """
    import cupyemu
    import numpy as np
    from zemosaic_stack_core import StackOptions, stack
    from zemosaic_stack_core.gpu.auto import Phase3Gpu, stack_auto
    from zemosaic_stack_core.gpu.health import GpuHealth
    generator = np.random.default_rng(0)
    frames = list(generator.normal(500, 10, (200, 1, 4500)).astype(np.float32))
    for frame in frames:  # every pixel has something to reject: the largest working set there can be
        frame[:, generator.integers(0, 4500, 200)] = 9000.0
    frames[7][:, :50] = np.nan
    gpu = Phase3Gpu(check_health=lambda: GpuHealth(usable=True))
    options = StackOptions(rejection="winsorized_quantile")
    result, used_gpu = stack_auto(frames, gpu=gpu, options=options, maps="all")
    expected = stack(frames, options=options, maps="all", workers=1)
    assert np.array_equal(result.image, expected.image, equal_nan=True)
    assert np.array_equal(result.variance, expected.variance, equal_nan=True)
    assert result.frames == expected.frames
    print(used_gpu, gpu.attempts, 0.1 < result.facts.columns_per_chunk / 4500 < 1)
"""


def run_emulated(code, **settings):
    """Run code in a process of its own, with these settings of the emulation, and return the lines it prints."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **settings}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_card_of_24_mb_and_200_frames(emulation):
    """Not even a row fits: parts of one do, at the first attempt."""
    lines = run_emulated(SMALL_CARD, CUEMU_VRAM=str(24 << 20), CUEMU_ASYNC="defer")
    assert lines == ["True 1 True"]


def test_a_driver_without_a_device(emulation):
    lines = run_emulated(
        """
        import cupyemu
        from zemosaic_stack_core.gpu.health import check_gpu
        health = check_gpu()
        print(health.usable)
        print(health.reason)
        print(health.advice)
        """,
        CUEMU_DEVICES="0",
    )
    assert lines[0] == "False"
    assert lines[1].startswith("no CUDA device answers: cudaErrorNoDevice")
    assert lines[2] == "no NVIDIA card is visible: check the card, its driver and CUDA_VISIBLE_DEVICES"


RUN_WITHOUT = """
    import logging, sys
    import numpy as np
    {hide}
    from zemosaic_stack_core.gpu.auto import Phase3Gpu, stack_auto
    from zemosaic_stack_core.stacking.run import stack
    logging.basicConfig(level="INFO", stream=sys.stdout, format="%(message)s")
    frames = [np.full((3, 4), value, np.float32) for value in (1, 2, 3, 9)]
    gpu = Phase3Gpu()
    for _ in range(2):
        result, used_gpu = stack_auto(frames, gpu=gpu)
        assert not used_gpu
        assert (result.image == stack(frames).image).all()
    print(gpu.attempts, gpu.cpu_tiles, "cupy" in sys.modules)
"""
COMMANDS_WITHOUT = """
    import sys
    {hide}
    from zemosaic_stack_core.command_line import main
    plan, out, config = sys.argv[1:]
    code = main(["doctor"])
    for backend in ("cpu", "auto", "gpu"):
        made = main(["run", plan, "-o", out + backend, "--backend", backend, "--config", config])
        print(backend, made, "cupy" in sys.modules)
    print("doctor", code)
"""
HIDE = """
import importlib.metadata, importlib.util
found, version = importlib.util.find_spec, importlib.metadata.version
def hidden_version(name):
    if name.startswith("cupy"):
        raise importlib.metadata.PackageNotFoundError(name)
    return version(name)
importlib.util.find_spec = lambda name: None if name == "cupy" else found(name)
importlib.metadata.version = hidden_version
"""


@pytest.mark.parametrize("hide", [HIDE, ""], ids=["no CuPy", "no driver"])
def test_a_machine_without_a_gpu(hide):
    if not hide:
        pytest.importorskip("cupy", reason="CuPy is not installed")
        if not cupy_unusable() and "cupyemu" not in sys.modules:
            pytest.skip("this machine has a GPU")
    code = textwrap.dedent(RUN_WITHOUT).format(hide=hide)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("[P3][GPU] GPU not usable, Phase 3 runs on the CPU: ")
    assert ("CuPy is not installed" in lines[0]) == bool(hide)
    assert lines[1] == "0 2 False"


@pytest.mark.slow
@pytest.mark.parametrize("hide", [HIDE, ""], ids=["no CuPy", "no driver"])
def test_the_commands_on_a_machine_without_a_gpu(tmp_path, hide):
    if not hide:
        pytest.importorskip("cupy", reason="CuPy is not installed")
        if not cupy_unusable() and "cupyemu" not in sys.modules:
            pytest.skip("this machine has a GPU")
    (tmp_path / "night" / "tile").mkdir(parents=True)
    write_frames(tmp_path / "night" / "tile")
    config = tmp_path / "zemosaic_config.json"
    config.write_text('{"use_gpu_phase5": true, "gpu_rows_per_chunk": 3}', encoding="utf-8")
    code = textwrap.dedent(COMMANDS_WITHOUT).format(hide=hide)
    arguments = [str(tmp_path / "night"), str(tmp_path / "out_"), str(config)]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert ("CuPy is not installed." in lines) == bool(hide)
    assert any(line.startswith("The GPU is not usable: ") for line in lines)
    assert any(line.startswith("What to do: ") for line in lines)
    assert lines[-4:] == ["cpu 0 False", "auto 0 False", "gpu 1 False", "doctor 1"]
    assert "the GPU is required and can't be used: " in done.stderr
    assert "Traceback" not in done.stderr
    tiles = [(tmp_path / f"out_{backend}" / "master_tile_001.fits").read_bytes() for backend in ("cpu", "auto")]
    assert tiles[0] == tiles[1]
    assert not (tmp_path / "out_gpu" / "master_tile_001.fits").exists()
