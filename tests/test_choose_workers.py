"""How many processes a stack gets: as many as pay, at most what a plan or the caller says."""

from __future__ import annotations

import multiprocessing
from types import SimpleNamespace

import numpy as np
import pytest

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.frames.group import open_frames
from zemosaic_stack_core.gpu.auto import stack_auto
from zemosaic_stack_core.phase3 import _stack_master_tile_cpu
from zemosaic_stack_core.stacking import workers as module
from zemosaic_stack_core.stacking.limits import Limits
from zemosaic_stack_core.stacking.run import stack
from zemosaic_stack_core.stacking.workers import choose_workers


@pytest.fixture
def group(tmp_path):
    """Three frames in files, 4 x 5 pixels: 60 samples."""
    paths = [tmp_path / f"{index}.npy" for index in range(3)]
    for path in paths:
        np.save(path, np.ones((4, 5), np.float32))
    return open_frames(paths)


@pytest.fixture
def machine(monkeypatch):
    """Make a machine of 6 cores that can fork, or not, and on which so many samples are worth it."""

    def make(*, can_fork, worth=1):
        monkeypatch.setattr(module, "usable_cores", lambda: 6)
        monkeypatch.setattr(module, "_can_fork", lambda: can_fork)
        monkeypatch.setattr(module, "WORTH_FORKING", worth)
        monkeypatch.setattr(module, "WORTH_SPAWNING", worth)

    return make


@pytest.mark.parametrize(
    ("can_fork", "worth", "workers", "at_most", "count"),
    [
        (True, 1, None, None, 6),
        (True, 61, None, None, 1),
        (True, 1, None, 4, 4),
        (True, 1, None, 9, 6),
        (True, 61, None, 4, 1),
        (True, 61, 3, 2, 3),  # what the caller asks for is what it gets
        (True, 1, 1, None, 1),
        (False, 1, None, None, 1),  # the caller's main module may not be made for being run again
        (False, 1, None, 4, 4),
        (False, 61, None, 4, 1),
        (False, 61, 3, None, 3),
    ],
)
def test_as_many_as_pay(machine, group, can_fork, worth, workers, at_most, count):
    machine(can_fork=can_fork, worth=worth)
    assert choose_workers(group, Limits(workers=workers, most_workers=at_most), is_host=True) == count


def test_a_gpu_is_driven_by_one_process(machine, group):
    machine(can_fork=True)
    assert choose_workers(group, Limits(workers=4, most_workers=4), is_host=False) == 1


def test_arrays_are_inherited_or_stay(machine):
    group = open_frames([np.ones((4, 5), np.float32)] * 3)
    machine(can_fork=True)
    assert choose_workers(group, Limits(workers=2), is_host=True) == 2
    machine(can_fork=False)
    assert choose_workers(group, Limits(workers=2), is_host=True) == 1


def test_a_process_that_may_have_no_children(machine, group, monkeypatch):
    """A worker of a cluster is a daemon: Python refuses to start a process in it."""
    machine(can_fork=False)
    monkeypatch.setattr(multiprocessing, "current_process", lambda: SimpleNamespace(daemon=True))
    assert choose_workers(group, Limits(workers=3, most_workers=3), is_host=True) == 1


@pytest.mark.parametrize("workers", [0, -1, 1.5, True, "2"])
def test_what_is_no_number_of_processes(group, workers):
    with pytest.raises(InvalidInputError, match=r"workers is .*; expected a whole number of at least 1"):
        stack([source.path for source in group.sources], workers=workers)


@pytest.mark.parametrize(("plan", "count"), [(None, 4), ({"cpu_workers": 1}, 1), (SimpleNamespace(cpu_workers=1), 1)])
def test_a_plan_is_a_cap(machine, group, plan, count):
    machine(can_fork=True)
    paths = [source.path for source in group.sources]
    caps = {"rows_per_chunk": 1} if plan is None else plan
    result, _ = stack_auto(group, gpu=None, plan=caps)
    assert result.facts.workers == count
    _, meta = _stack_master_tile_cpu(paths, plan=caps)
    assert meta["details"]["workers"] == count
