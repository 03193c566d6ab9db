"""Stacks in several threads: the same bits, and whatever ends one of them ends all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from samples import assert_same_bits, make_frames

from zemosaic_stack_core import FrameReadError, StackOptions, stack
from zemosaic_stack_core.backends import plain_numpy_backend
from zemosaic_stack_core.options import REJECTIONS
from zemosaic_stack_core.stacking import workers

ROWS = 120


@pytest.fixture
def paths(tmp_path):
    rng = np.random.default_rng(3)
    names = []
    for index in range(9):
        frame = rng.normal(100.0, 5.0, (ROWS, 50)).astype(np.float32)
        frame[: index % 4] = np.nan
        frame[60, index] += 500.0
        names.append(tmp_path / f"f{index}.fits")
        fits.PrimaryHDU(frame).writeto(names[-1])
    return names


def working_threads():
    """Return the threads of a stack that are alive."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("zemosaic-stack")]


@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_the_same_bits_as_one_thread(paths, count):
    options = StackOptions(kappa_low=2.0, kappa_high=2.0, normalization="additive")
    one = stack(paths, options=options, maps="all", workers=1)
    several = stack(paths, options=options, maps="all", workers=count, rows_per_chunk=7)
    assert several.facts.workers == count
    assert_same_bits(one, several)


@pytest.mark.parametrize("kind", ["growth", "variances", "weights", "masks", "color", "float64"])
def test_whatever_goes_with_the_samples_is_read_by_every_thread(kind):
    frames, masks = make_frames(4, 20, shape=(60, 40, 3) if kind == "color" else (60, 40), pattern="scattered")
    rng = np.random.default_rng(1)
    options = StackOptions(kappa_low=2.0, kappa_high=2.0, grow_radius=1.5 if kind == "growth" else 0.0)
    given = {
        "variances": {"variances": rng.uniform(1.0, 2.0, (20, 60, 40))},
        "weights": {"weights": rng.uniform(0.1, 1.0, (20, 60, 40))},
        "masks": {"masks": [rng.random((60, 40)) < 0.1 if index % 2 else None for index in range(20)]},
    }.get(kind, {"masks": masks})
    if kind == "float64":
        frames = [frame.astype(np.float64) if index % 2 else frame for index, frame in enumerate(frames)]
    many = stack(frames, options=options, maps="all", workers=4, rows_per_chunk=1, **given)
    assert many.facts.workers == 4
    assert_same_bits(stack(frames, options=options, maps="all", workers=1, **given), many)


@pytest.mark.parametrize("rejection", REJECTIONS)
def test_every_rule_in_threads(rejection):
    """What a rule keeps beside the samples is each thread's own."""
    frames, masks = make_frames(8, 12, shape=(40, 30), pattern="masks")
    options = StackOptions(rejection=rejection, kappa_low=1.5, kappa_high=1.5)
    one = stack(frames, options=options, masks=masks, maps="all", workers=1)
    assert_same_bits(stack(frames, options=options, masks=masks, maps="all", workers=3, rows_per_chunk=2), one)


def test_without_a_compiler_threads_do_the_same(paths):
    plain = plain_numpy_backend()
    found = stack(paths, maps="all", workers=3, rows_per_chunk=9, backend=plain)
    assert found.facts.workers == 3
    assert_same_bits(found, stack(paths, maps="all", workers=1))


def test_progress_counts_every_row_once(paths):
    told, names = [], set()

    def progress(done, total):
        told.append((done, total))
        names.add(threading.current_thread().name)

    stack(paths, workers=2, rows_per_chunk=7, progress=progress)
    assert told[-1] == (ROWS, ROWS)
    assert [done for done, _ in told] == sorted({done for done, _ in told})
    assert all(name.startswith("zemosaic-stack") for name in names)
    assert not working_threads()


@pytest.mark.parametrize("error", [RuntimeError("enough"), KeyboardInterrupt("enough"), SystemExit("enough")])
def test_an_error_of_progress_ends_all_threads(paths, error):
    calls = []

    def progress(done, total):
        calls.append(done)
        raise error

    with pytest.raises(type(error), match="enough"):
        stack(paths, workers=3, rows_per_chunk=1, progress=progress)
    assert len(calls) <= 3  # each thread at most ends the chunk it is at
    assert not working_threads()


def test_a_file_that_shrinks_meanwhile_is_one_clear_error(paths):
    calls = []

    def truncate(done, total):
        calls.append(done)
        with Path(paths[4]).open("r+b") as file:
            file.truncate(2880)

    with pytest.raises(FrameReadError, match=r"f4\.fits"):
        stack(paths, workers=2, rows_per_chunk=2, progress=truncate)
    assert len(calls) < ROWS / 4
    assert not working_threads()


@pytest.mark.skipif(os.name != "posix", reason="a POSIX signal is sent to the main thread")
def test_ctrl_c_ends_all_threads_after_the_chunk_they_are_at(paths):
    """It comes while the main thread waits for the others."""
    is_heard, calls = threading.Event(), []

    def handler(*_):
        is_heard.set()
        raise KeyboardInterrupt

    def interrupt(done, total):
        calls.append(done)
        if len(calls) == ROWS // 3:  # all threads have long been started
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            assert is_heard.wait(60.0)

    before = signal.signal(signal.SIGINT, handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            stack(paths, workers=3, rows_per_chunk=1, progress=interrupt)
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(calls) < ROWS * 3 / 4
    assert not working_threads()


def test_as_many_threads_as_pay(monkeypatch):
    frames = make_frames(4, 20, shape=(60, 40))[0]
    monkeypatch.setattr(workers, "usable_cores", lambda: 6)
    monkeypatch.setattr(workers, "WORTH_A_THREAD", 1000)
    assert stack(frames, rows_per_chunk=1).facts.workers == 6
    monkeypatch.setattr(workers, "WORTH_A_THREAD", 100)
    assert stack([frame[:2] for frame in frames]).facts.workers == 2  # no more than chunks
    monkeypatch.setattr(workers, "WORTH_A_THREAD", 48_001)
    assert stack(frames, rows_per_chunk=1).facts.workers == 1


LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
from pathlib import Path
from zemosaic_stack_core import stack
most = 0

def look(done, total):
    global most
    most = max(most, len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0)

before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
paths = sorted(Path(sys.argv[1]).iterdir())
result = stack(paths, maps=(), workers=4, rows_per_chunk=1, progress=look)
print(result.facts.workers, most - before, int(result.image.sum()))
"""


def test_threads_share_what_descriptors_there_are(tmp_path):
    pytest.importorskip("resource", reason="no limits on descriptors on this system")
    for index in range(150):
        np.save(tmp_path / f"{index:03}.npy", np.full((12, 5), index % 3, np.uint8))
    run = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
    )
    assert (run.returncode, run.stderr) == (0, "")
    count, opened, total = map(int, run.stdout.split())
    assert (count, total) == (4, 60)
    assert opened <= 36  # half of them for frames, and a few of the interpreter's own
