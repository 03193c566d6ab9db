"""Threads in place of processes, as on a free-threaded interpreter: the same bits, and errors that end all of them."""

import sys
import threading

import numpy as np
import pytest
from samples import assert_same_bits, make_frames

from zemosaic_stack_core import StackOptions, stack
from zemosaic_stack_core.stacking import run as runner
from zemosaic_stack_core.stacking import workers
from zemosaic_stack_core.stacking.threads import threads_run_at_once


@pytest.fixture
def free_threaded(monkeypatch):
    for module in (runner, workers):
        monkeypatch.setattr(module, "threads_run_at_once", lambda: True)


@pytest.fixture
def frames():
    return make_frames(4, 20, shape=(60, 40), pattern="scattered")[0]


def test_the_interpreter_is_asked(monkeypatch):
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    assert threads_run_at_once()
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: True, raising=False)
    assert not threads_run_at_once()
    monkeypatch.delattr(sys, "_is_gil_enabled")
    assert not threads_run_at_once()


@pytest.mark.parametrize("grow_radius", [0.0, 1.5])
def test_the_same_bits_as_one_thread(frames, free_threaded, grow_radius):
    options = StackOptions(kappa_low=2.0, kappa_high=2.0, grow_radius=grow_radius)
    seen = set()
    told = []

    def progress(done, total):
        seen.add(threading.current_thread().name)
        told.append(done)

    many = stack(frames, options=options, maps="all", workers=4, rows_per_chunk=1, progress=progress)
    assert many.facts.workers == 4
    assert all(name.startswith("zemosaic-stack") for name in seen)
    assert told == sorted(told)
    assert_same_bits(stack(frames, options=options, maps="all", workers=1), many)


def test_an_error_in_one_thread_ends_all(frames, free_threaded):
    calls = []

    def progress(done, total):
        calls.append(done)
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        stack(frames, workers=3, rows_per_chunk=1, progress=progress)
    assert len(calls) <= 3  # each thread at most ends the chunk it is at
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("zemosaic-stack")]


def test_arrays_in_memory_use_all_cores_where_it_pays(frames, free_threaded, monkeypatch):
    monkeypatch.setattr(workers, "usable_cores", lambda: 6)
    monkeypatch.setattr(workers, "WORTH_FORKING", 1000)
    assert stack(frames, rows_per_chunk=1).facts.workers == 6
    monkeypatch.setattr(workers, "WORTH_FORKING", np.inf)
    assert stack(frames, rows_per_chunk=1).facts.workers == 1
