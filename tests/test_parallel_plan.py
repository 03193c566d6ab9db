"""Plans: read from whatever a program has, made from whatever a machine has."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from zemosaic_stack_core.backends.cuda import GpuMemory
from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.gpu import health
from zemosaic_stack_core.stacking.limits import Limits, read_limits
from zemosaic_stack_core.system import memory as system_memory
from zemosaic_stack_core.system.memory import available_memory, usable_cores
from zemosaic_stack_core.zemosaic.parallel_plan import (
    ParallelCapabilities,
    ParallelPlan,
    allows_gpu,
    auto_tune_parallel_plan,
    detect_parallel_capabilities,
)

GIB = 1024**3
CPU_ONLY = ParallelCapabilities(
    cpu_cores=4, cpu_logical_cores=8, ram_total_bytes=32 * GIB, ram_available_bytes=20 * GIB
)
WITH_GPU = ParallelCapabilities(
    cpu_cores=4,
    cpu_logical_cores=8,
    ram_total_bytes=32 * GIB,
    ram_available_bytes=20 * GIB,
    gpu_available=True,
    gpu_name="a card",
    gpu_vram_total_bytes=8 * GIB,
    gpu_vram_free_bytes=3 * GIB,
)


@pytest.mark.parametrize("make", [dict, SimpleNamespace, ParallelPlan])
def test_a_plan_is_read_the_same_way_whatever_it_comes_as(make):
    plan = make(use_gpu=False, gpu_rows_per_chunk=7, gpu_max_chunk_bytes=1 << 20, rows_per_chunk=None)
    assert read_limits(plan) == Limits(use_gpu=False, gpu_rows_per_chunk=7, gpu_chunk_bytes=1 << 20)


def test_no_plan_forbids_nothing():
    assert read_limits(None) == read_limits({}) == read_limits(ParallelPlan()) == Limits()
    assert read_limits(None).use_gpu


def test_what_is_no_field_of_a_plan_is_ignored():
    assert read_limits({"colour": "red", "cpu_workers": 3}) == Limits(most_workers=3)


@pytest.mark.parametrize("value", [0, -5])
def test_zero_means_no_limit(value):
    assert ParallelPlan(gpu_rows_per_chunk=value).gpu_rows_per_chunk is None
    assert read_limits({"gpu_rows_per_chunk": value}).gpu_rows_per_chunk is None


@pytest.mark.parametrize("value", ["many", 2.5, float("nan"), [1]])
def test_a_size_that_is_no_whole_number_is_refused(value):
    with pytest.raises(InvalidInputError, match=r"gpu_rows_per_chunk .* is .*; expected a whole number"):
        read_limits({"gpu_rows_per_chunk": value})


def test_a_size_may_be_text_or_a_whole_float():
    assert read_limits({"gpu_rows_per_chunk": "12", "rows_per_chunk": 5.0}) == Limits(
        gpu_rows_per_chunk=12, rows_per_chunk=5
    )


def test_what_the_caller_says_comes_before_the_plan():
    plan = ParallelPlan(cpu_workers=4, max_chunk_bytes=100, rows_per_chunk=7, gpu_max_chunk_bytes=50)
    limits = read_limits(plan)
    assert limits.shared_by(3) == Limits(workers=3, memory_limit=300, rows_per_chunk=7)
    assert limits.on_gpu() == Limits(workers=1, memory_limit=50)
    asked = read_limits(plan, workers=2, memory_limit=1000)
    assert (asked.workers, asked.shared_by(2).memory_limit, asked.on_gpu()) == (2, 1000, limits.on_gpu())
    assert read_limits(limits) == limits


@pytest.mark.parametrize(
    ("name", "expected"),
    [("workers", "a whole number of at least 1"), ("memory_limit", "a whole number of bytes above 0")],
)
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "2"])
def test_a_limit_that_is_no_whole_number_is_refused(name, expected, value):
    with pytest.raises(InvalidInputError, match=rf"{name} is .*; expected {expected}"):
        Limits(**{name: value})


def test_a_plan_without_a_gpu():
    plan = auto_tune_parallel_plan("stack_master_tiles", (1000, 1500), 40, 12, caps=CPU_ONLY)
    assert not plan.use_gpu
    assert plan.gpu_max_chunk_bytes is None
    assert plan.gpu_rows_per_chunk is None
    assert plan.cpu_workers == 8
    assert plan.cpu_workers * plan.max_chunk_bytes <= 0.95 * CPU_ONLY.ram_available_bytes
    assert plan.rows_per_chunk * 1500 * 12 * 40 <= plan.max_chunk_bytes
    assert not plan.use_memmap


def test_a_plan_with_a_gpu_stays_within_what_is_free():
    plan = auto_tune_parallel_plan("stack_master_tiles", (6000, 9000), 200, 12, caps=WITH_GPU)
    assert plan.use_gpu
    assert plan.gpu_max_chunk_bytes <= 0.95 * WITH_GPU.gpu_vram_free_bytes
    assert plan.gpu_rows_per_chunk >= 1
    assert plan.gpu_rows_per_chunk * 9000 * 12 * 200 <= plan.gpu_max_chunk_bytes
    assert plan.use_memmap


def test_a_row_that_does_not_fit_is_still_one_row():
    plan = auto_tune_parallel_plan("stack_master_tiles", (10, 10**6), 10**5, 4, caps=WITH_GPU)
    assert plan.rows_per_chunk == plan.gpu_rows_per_chunk == 1


def test_no_more_rows_than_the_image_has():
    assert auto_tune_parallel_plan("global", (11, 13), 3, 4, caps=WITH_GPU).gpu_rows_per_chunk == 11


def test_without_a_shape_no_rows_are_planned():
    plan = auto_tune_parallel_plan("global", None, 3, 4, caps=WITH_GPU)
    assert plan.rows_per_chunk is plan.gpu_rows_per_chunk is None
    assert plan.gpu_max_chunk_bytes


@pytest.mark.parametrize("wrap", [dict, lambda settings: SimpleNamespace(**settings)])
def test_settings_are_caps(wrap):
    config = wrap(
        {
            "parallel_max_cpu_workers": 3,
            "parallel_target_ram_fraction": 0.1,
            "gpu_rows_per_chunk": 5,
            "gpu_max_chunk_bytes": 64 << 20,
        }
    )
    plan = auto_tune_parallel_plan("stack_master_tiles", (1000, 1500), 40, 12, config, WITH_GPU)
    assert plan.cpu_workers == 3
    assert 3 * plan.max_chunk_bytes <= 0.1 * WITH_GPU.ram_total_bytes
    assert plan.gpu_rows_per_chunk == 5
    assert plan.gpu_max_chunk_bytes == 64 << 20


def test_autotuning_off_takes_every_core():
    config = {"parallel_autotune_enabled": False, "parallel_target_cpu_load": 0.5}
    assert auto_tune_parallel_plan("global", None, 3, 4, config, CPU_ONLY).cpu_workers == 8
    config["parallel_autotune_enabled"] = True
    assert auto_tune_parallel_plan("global", None, 3, 4, config, CPU_ONLY).cpu_workers == 4


def test_a_setting_that_is_no_number_is_named():
    with pytest.raises(InvalidInputError, match="parallel_target_cpu_load is 'much'; expected a number from 0 to 1"):
        auto_tune_parallel_plan("global", None, 3, 4, {"parallel_target_cpu_load": "much"}, CPU_ONLY)


@pytest.mark.parametrize(
    ("config", "allowed"),
    [
        (None, True),
        ({"use_gpu_phase5": False}, False),
        ({"use_gpu_phase5": False, "stack_use_gpu": True}, True),
        ({"use_gpu_phase5": True, "use_gpu_stack": False}, False),
        ({"use_gpu": False}, False),
    ],
)
def test_the_more_special_switch_decides(config, allowed):
    assert allows_gpu(config) is allowed
    assert auto_tune_parallel_plan("global", None, 3, 4, config, WITH_GPU).use_gpu is allowed


def test_this_machine():
    caps = detect_parallel_capabilities(probe_gpu=False)
    assert 1 <= caps.cpu_cores <= caps.cpu_logical_cores == usable_cores()
    assert 0 < caps.ram_available_bytes <= caps.ram_total_bytes
    assert not caps.gpu_available
    total, available = available_memory()
    assert total == caps.ram_total_bytes
    assert 0 < available <= total


@pytest.mark.parametrize("version", [2, 1])
def test_a_containers_memory(tmp_path, monkeypatch, version):
    """What its files say; frames that the system keeps in its cache are not in the way."""
    _, limit, used, cached = system_memory._CGROUP_FILES[2 - version]
    folders = [(tmp_path / "absent", *system_memory._CGROUP_FILES[0][1:]), (tmp_path, limit, used, cached)]
    monkeypatch.setattr(system_memory, "_CGROUP_FILES", folders)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=64 << 30, available=50 << 30))
    (tmp_path / limit).write_text(f"{4 << 30}\n")
    (tmp_path / used).write_text(f"{4 << 30}\n")
    (tmp_path / "memory.stat").write_text(f"anon 1000\n{cached} {3 << 30}\nhierarchical_memory_limit 5 6\n")
    assert available_memory() == (4 << 30, 3 << 30)
    (tmp_path / "memory.stat").write_text("")
    assert available_memory() == (4 << 30, 0)
    for nothing in ("max", str(2**63 - 4096)):
        (tmp_path / limit).write_text(nothing)
        assert available_memory() == (64 << 30, 50 << 30)


def test_the_gpu_of_the_machine(monkeypatch):
    memory = GpuMemory(name="a card", total=800, free=600, pool_free=0, pool_used=0, allocatable=600, float64_ratio=32)
    monkeypatch.setattr(health, "gpu_health", lambda: health.GpuHealth(usable=True, memory=memory))
    caps = detect_parallel_capabilities()
    assert (caps.gpu_available, caps.gpu_name, caps.gpu_vram_total_bytes, caps.gpu_vram_free_bytes) == (
        True,
        "a card",
        800,
        600,
    )
    assert not detect_parallel_capabilities(probe_gpu=False).gpu_available


def test_a_plan_that_is_a_dict_with_its_own_keys():
    limits = read_limits({"cpu_rows_per_chunk": 64, "gpu_rows_per_chunk": 32, "max_chunk_mb": 1.5})
    assert (limits.rows_per_chunk, limits.gpu_rows_per_chunk) == (64, 32)
    assert (limits.chunk_bytes, limits.gpu_chunk_bytes) == (3 << 19, 3 << 19)
    own = read_limits({"rows_per_chunk": 8, "cpu_rows_per_chunk": 64, "gpu_max_chunk_bytes": 10, "max_chunk_mb": 0})
    assert (own.rows_per_chunk, own.chunk_bytes, own.gpu_chunk_bytes) == (8, None, 10)
    with pytest.raises(InvalidInputError, match="max_chunk_mb of the parallel plan is 'much'; expected a number"):
        read_limits({"max_chunk_mb": "much"})
