"""A small night on every backend: the same bits, joined without hole or seam."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from night import report_of

from benchmarks import night as benchmark
from conftest import cupy_unusable
from zemosaic_stack_core.backends import Backend, cupy_backend, namespace_backend


def _strict() -> Backend:
    """Return array-api-strict on a device of its own, in the part of a GPU."""
    xp: Any = pytest.importorskip("array_api_strict", reason="array-api-strict is not installed (extra test)")
    return namespace_backend(xp, device=xp.Device("device1"))


def _cupy() -> Backend:
    """Return CuPy, real or emulated."""
    if reason := cupy_unusable():
        pytest.skip(reason)
    return cupy_backend()


@pytest.mark.slow
@pytest.mark.parametrize(
    "open_backend",
    [pytest.param(_strict, id="array-api-strict"), pytest.param(_cupy, marks=pytest.mark.gpu, id="cupy")],
)
def test_every_backend_and_a_failing_one_make_the_same_night(tmp_path: Path, open_backend: Any) -> None:
    open_backend()
    night = benchmark.write_pointings(tmp_path / "frames", 3, 5)
    reports = benchmark.make_three_times(night, tmp_path, open_backend, fail_at=2)
    outcomes = {name: [record.outcome.value for record in report.records] for name, report in reports.items()}
    assert outcomes == {
        "cpu": ["done_cpu"] * 3,
        "gpu": ["done_gpu"] * 3,
        "gpu that fails": ["done_gpu", "done_cpu_after_gpu_failure", "done_cpu"],
    }
    failed = reports["gpu that fails"]
    assert failed.records[1].gpu_attempts == 2
    assert "injected" in failed.records[1].reason
    assert failed.gpu.hard_disabled
    assert failed.gpu.attempts == 3
    for name in ("gpu", "gpu that fails"):
        assert benchmark.different_planes(tmp_path / "cpu", tmp_path / name) == []
    tiles = report_of(tmp_path / "gpu that fails")["tiles"]
    assert [tile["backend"] for tile in tiles][1:] == ["numpy", "numpy"]


@pytest.mark.slow
def test_the_joined_tiles_have_neither_hole_nor_seam(tmp_path: Path) -> None:
    pytest.importorskip("reproject", reason="reproject is not installed (extra test)")
    night = benchmark.write_pointings(tmp_path / "frames", 4, 16)
    benchmark.run_night(
        benchmark.Night(tiles=night.tiles, output=tmp_path / "cpu", settings=benchmark.settings(), backend="cpu")
    )
    facts = benchmark.measure_mosaic(*benchmark.join(tmp_path / "cpu", night), night)
    assert 0.9 * facts["pixels"] < facts["pixels_seen"] < facts["pixels"]
    assert facts["holes"] == 0
    assert facts["finite_where_nobody_looked"] == 0
    assert facts["coverage_where_nobody_looked"] == 0
    assert facts["borders"] == 6
    assert facts["largest_step_over_noise"] < 1.0


@pytest.mark.slow
def test_many_tiny_tiles(tmp_path: Path) -> None:
    facts = benchmark.measure_tiny_tiles(tmp_path, 6, {"alone": None, "again": None})
    assert facts["alone_counts"] == facts["again_counts"] == {"done_cpu": 6}
    assert facts["alone_reused_counts"] == facts["again_reused_counts"] == {"reused": 6}
    assert facts["different"] == {"again": 0}
