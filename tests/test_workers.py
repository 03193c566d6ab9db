"""Stacks in several processes: the same bits, whatever happens to one of them."""

import logging
import os
import signal
import sys
from multiprocessing import resource_tracker
from pathlib import Path

import numpy as np
import psutil
import pytest
from astropy.io import fits
from samples import assert_same_bits

from zemosaic_stack_core import FrameReadError, StackOptions, stack
from zemosaic_stack_core.stacking import workers

forks = pytest.mark.skipif(sys.platform != "linux", reason="processes are copies of this one on Linux only")


@pytest.fixture
def paths(tmp_path):
    rng = np.random.default_rng(3)
    names = []
    for index in range(9):
        frame = rng.normal(100.0, 5.0, (120, 50)).astype(np.float32)
        frame[: index % 4] = np.nan
        frame[60, index] += 500.0
        names.append(tmp_path / f"f{index}.fits")
        fits.PrimaryHDU(frame).writeto(names[-1])
    return names


@pytest.fixture
def children():
    """Return a function that lists the processes started in this test, but for Python's own resource tracker."""
    before = {child.pid for child in psutil.Process().children()}

    def list_children():
        known = {*before, resource_tracker._resource_tracker._pid}
        return [child for child in psutil.Process().children() if child.pid not in known]

    return list_children


@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_same_bits_as_one_process(paths, count):
    options = StackOptions(kappa_low=2.0, kappa_high=2.0, normalization="additive")
    one = stack(paths, options=options, maps="all", workers=1)
    several = stack(paths, options=options, maps="all", workers=count, rows_per_chunk=7)
    assert several.facts.workers == count
    assert_same_bits(one, several)
    assert [record.rejected_high for record in one.frames] == [record.rejected_high for record in several.frames]


def test_progress_counts_every_row_once(paths):
    told = []
    stack(paths, workers=2, rows_per_chunk=7, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (120, 120)
    assert [done for done, _ in told] == sorted({done for done, _ in told})


@forks
def test_chunks_of_a_killed_worker_are_computed_again(paths, caplog, children):
    killed = []

    def kill_one(done, total):
        if not killed:
            killed.append(children()[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    with caplog.at_level(logging.WARNING):
        survived = stack(paths, maps="all", workers=2, rows_per_chunk=2, progress=kill_one)
    assert killed
    assert_same_bits(stack(paths, maps="all", workers=1), survived)
    assert f"worker process {killed[0]} ended with exit code -9" in caplog.text
    assert not children()


@forks
def test_all_workers_killed_still_gives_the_image(paths, children):
    def kill_all(done, total):
        for child in children():
            child.kill()

    assert_same_bits(
        stack(paths, maps="all", workers=1), stack(paths, maps="all", workers=3, rows_per_chunk=2, progress=kill_all)
    )


@forks
def test_an_interruption_ends_the_workers(paths, children):
    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stack(paths, workers=2, rows_per_chunk=2, progress=interrupt)
    assert not children()


@forks
def test_a_file_that_shrinks_meanwhile_is_one_clear_error(paths, children):
    def truncate(done, total):
        with Path(paths[4]).open("r+b") as file:
            file.truncate(2880)

    with pytest.raises(FrameReadError, match=r"f4\.fits"):
        stack(paths, workers=2, rows_per_chunk=2, progress=truncate)
    assert not children()


def test_the_same_bits_where_processes_can_not_be_forked(paths, monkeypatch):
    """As on Windows and macOS: each child imports the package anew, and gets the job by pickling."""
    monkeypatch.setattr(workers, "_can_fork", lambda: False)
    spawned = stack(paths, maps="all", workers=2, rows_per_chunk=40)
    assert spawned.facts.workers == 2
    assert_same_bits(stack(paths, maps="all", workers=1), spawned)


@forks
def test_nothing_is_left_in_the_temporary_folder(paths, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "t"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "t"))
    (tmp_path / "t").mkdir()
    stack(paths, workers=2, rows_per_chunk=10)
    assert list((tmp_path / "t").iterdir()) == []
