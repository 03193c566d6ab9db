"""How many threads a stack gets: as many as pay, at most what a plan or the caller says."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.frames.group import open_frames
from zemosaic_stack_core.gpu.auto import stack_auto
from zemosaic_stack_core.options import StackOptions
from zemosaic_stack_core.phase3 import StackSettings, create_master_tile
from zemosaic_stack_core.stacking import workers as module
from zemosaic_stack_core.stacking.limits import Limits, read_limits
from zemosaic_stack_core.stacking.run import stack
from zemosaic_stack_core.stacking.workers import choose_workers


@pytest.fixture
def paths(tmp_path):
    """Three frames in files, 4 x 5 pixels: 60 samples."""
    paths = [tmp_path / f"{index}.npy" for index in range(3)]
    for path in paths:
        np.save(path, np.ones((4, 5), np.float32))
    return paths


@pytest.fixture
def machine(monkeypatch):
    """Make a machine of 6 cores on which so many samples are worth a thread."""

    def make(*, worth=1):
        monkeypatch.setattr(module, "usable_cores", lambda: 6)
        monkeypatch.setattr(module, "WORTH_A_THREAD", worth)

    return make


@pytest.mark.parametrize(
    ("worth", "workers", "at_most", "count"),
    [
        (1, None, None, 6),
        (20, None, None, 3),
        (31, None, None, 1),
        (61, None, None, 1),
        (1, None, 4, 4),
        (1, None, 9, 6),
        (61, None, 4, 1),
        (61, 3, 2, 3),  # what the caller asks for is what it gets
        (1, 1, None, 1),
    ],
)
@pytest.mark.parametrize("where", ["files", "memory"])
def test_as_many_as_pay(machine, paths, where, worth, workers, at_most, count):
    machine(worth=worth)
    group = open_frames(paths if where == "files" else [np.load(path) for path in paths])
    assert choose_workers(group, Limits(workers=workers, most_workers=at_most), is_host=True) == count


def test_a_gpu_is_driven_by_one_thread(machine, paths):
    machine()
    assert choose_workers(open_frames(paths), Limits(workers=4, most_workers=4), is_host=False) == 1


@pytest.mark.parametrize("workers", [0, -1, 1.5, True, "2"])
def test_what_is_no_number_of_threads(paths, workers):
    with pytest.raises(InvalidInputError, match=r"workers is .*; expected a whole number of at least 1"):
        stack(paths, workers=workers)


@pytest.mark.parametrize(("plan", "count"), [(None, 4), ({"cpu_workers": 1}, 1), (SimpleNamespace(cpu_workers=1), 1)])
def test_a_plan_is_a_cap(machine, paths, plan, count, tmp_path):
    machine()
    caps = {"rows_per_chunk": 1} if plan is None else plan
    result, _ = stack_auto(open_frames(paths), gpu=None, plan=caps)
    assert result.facts.workers == count
    _, meta = create_master_tile(
        paths,
        tmp_path / "tile.fits",
        tile_id=1,
        settings=StackSettings(options=StackOptions(), limits=read_limits(caps)),
    )
    assert meta["details"]["workers"] == count


def test_one_in_a_process_that_is_one_of_several(machine, paths, monkeypatch):
    machine()
    group = open_frames(paths)
    monkeypatch.setattr("multiprocessing.current_process", lambda: SimpleNamespace(daemon=True))
    assert choose_workers(group, Limits(), is_host=True) == 1
    assert choose_workers(group, Limits(workers=3), is_host=True) == 3
