from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from night import leftovers, outcomes, report_of, run, tiles_of, write_night

from zemosaic_stack_core import StackOptions
from zemosaic_stack_core.errors import BackendUnavailableError, InvalidInputError
from zemosaic_stack_core.phase3 import ClusterChoice, Night, StackSettings, TileRecord, TileSpec, run_night
from zemosaic_stack_core.phase3 import cluster as cluster_module
from zemosaic_stack_core.phase3.cluster import gpu_resource, interrupts_are_ours
from zemosaic_stack_core.phase3.run_plan import read_run_plan


class _Watcher:
    """Call something after the first tile that is done."""

    def __init__(self, first: Callable[[TileRecord], None]) -> None:
        self.first: Callable[[TileRecord], None] | None = first

    def begin(self, tiles: int) -> None: ...

    def tile(self, spec: TileSpec) -> None: ...

    def rows(self, done: int, total: int) -> None: ...

    def done(self, record: TileRecord) -> None:
        if self.first is not None:
            first, self.first = self.first, None
            first(record)

    def end(self) -> None: ...


@pytest.mark.slow
def test_two_workers_one_killed_give_the_same_bits(tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="dask.distributed is not installed (extra dask)")
    plan = write_night(tmp_path / "night", tiles=8)
    (plan / "tile_3" / "light_2.fits").write_bytes(b"<html>")
    for path in (plan / "tile_4").iterdir():
        path.write_bytes(b"")
    assert run(plan, tmp_path / "alone", "--rejection", "kappa_sigma", "--normalization", "none") == 1

    def kill(record: TileRecord) -> None:
        os.kill(int(record.worker.split()[1]), signal.SIGKILL)

    night = Night(
        tiles=read_run_plan(plan),
        output=tmp_path / "out",
        settings=StackSettings(options=StackOptions()),
        backend="cpu",
        cluster=ClusterChoice(local_workers=2),
    )
    report = run_night(night, progress=_Watcher(kill))
    assert report.exit_code == 1
    assert report.counts == {"done_cpu": 7, "failed": 1}
    assert tiles_of(tmp_path / "out") == tiles_of(tmp_path / "alone")
    assert leftovers(tmp_path / "out") == []
    assert outcomes(tmp_path / "out") == outcomes(tmp_path / "alone")
    here, there = (report_of(tmp_path / name)["tiles"] for name in ("alone", "out"))
    assert [tile["dropped"] for tile in here] == [tile["dropped"] for tile in there]
    assert str(os.getpid()) not in {tile["worker"].split()[1] for tile in there}
    assert (tmp_path / "out" / "report.html").read_text().count('"image": "data:image/') == 7


def test_without_dask_there_is_a_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = write_night(tmp_path / "night", tiles=1, frames=2)
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert run(plan, tmp_path / "out", "--local-cluster", "2") == 1
    said = capsys.readouterr().err
    assert "dask.distributed is not installed" in said
    assert "python -m pip install distributed" in said
    assert said.count("\n") == 1
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("address", ["nonsense", "tcp://127.0.0.1:9"])
def test_no_scheduler_is_a_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], address: str
) -> None:
    pytest.importorskip("distributed", reason="dask.distributed is not installed (extra dask)")
    monkeypatch.setattr(cluster_module, "ClusterChoice", partial(ClusterChoice, timeout_s=1.0))
    plan = write_night(tmp_path / "night", tiles=1, frames=2)
    assert run(plan, tmp_path / "out", "--scheduler", address) == 1
    said = capsys.readouterr().err.splitlines()
    assert f"{address}: no scheduler answers" in said[-1]


class _Client:
    def __init__(self, *workers: dict[str, Any]) -> None:
        self.workers = {str(number): worker for number, worker in enumerate(workers)}

    def scheduler_info(self, n_workers: int) -> dict[str, Any]:
        assert n_workers == -1
        return {"workers": self.workers}


@pytest.mark.parametrize(
    ("workers", "backend", "expected"),
    [
        ([{"resources": {"GPU": 1}}, {}], "auto", {"GPU": 1}),
        ([{"resources": {"GPU": 2}}], "gpu", {"GPU": 1}),
        ([{"resources": {"GPU": 1}}], "cpu", None),
        ([{"resources": {"memory": 1}}, {}], "auto", None),
        ([], "auto", None),
    ],
)
def test_a_tile_takes_a_gpu_where_workers_declare_one(
    workers: list[dict[str, Any]], backend: str, expected: dict[str, float] | None
) -> None:
    assert gpu_resource(_Client(*workers), backend) == expected


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="this system has no mask of blocked signals")
def test_an_interrupt_does_not_reach_what_is_started_for_the_cluster() -> None:
    seen: list[set[int]] = []
    with interrupts_are_ours():
        thread = Thread(target=lambda: seen.append(signal.pthread_sigmask(signal.SIG_BLOCK, ())))  # type: ignore[arg-type]
        thread.start()
        thread.join()
    assert signal.SIGINT in seen[0]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_choices_are_checked() -> None:
    with pytest.raises(InvalidInputError, match="either the address"):
        ClusterChoice()
    with pytest.raises(InvalidInputError, match="expected at least 1"):
        ClusterChoice(local_workers=0)
    assert str(ClusterChoice(local_workers=3)) == "3 local workers"
    assert issubclass(BackendUnavailableError, RuntimeError)
