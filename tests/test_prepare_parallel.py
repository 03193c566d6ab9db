"""Frames in processes: the same answers in the same order, whatever becomes of the processes."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.system.pool import map_in_processes


def scaled(number: int, factor: int) -> int:
    return number * factor


def where(_number: int, _shared: None) -> int:
    return os.getpid()


def dies_elsewhere(parent: int, _shared: None) -> int:
    if os.getpid() != parent:
        os._exit(9)  # as a process that the system ends for its memory
    return parent


def refuses(number: int, _shared: None) -> int:
    raise InvalidInputError(f"frame {number}")


@pytest.mark.parametrize("workers", [1, 2, 9])
def test_answers_come_in_the_order_of_the_tasks(workers: int) -> None:
    told: list[tuple[int, int]] = []
    answers = map_in_processes(
        scaled, range(3), 10, pixels=1, workers=workers, progress=lambda *done: told.append(done)
    )
    assert answers == [0, 10, 20]
    assert told == [(count, 3) for count in range(1, 4)]


def test_small_frames_are_not_worth_a_process() -> None:
    assert set(map_in_processes(where, range(3), None, pixels=100, workers=None)) == {os.getpid()}
    assert os.getpid() not in map_in_processes(where, range(3), None, pixels=100, workers=2)


def test_what_a_dead_process_owes_is_computed_here() -> None:
    assert map_in_processes(dies_elsewhere, [os.getpid()] * 3, None, pixels=1, workers=2) == [os.getpid()] * 3


def test_an_error_passes_through() -> None:
    with pytest.raises(InvalidInputError, match="frame 0"):
        map_in_processes(refuses, range(3), None, pixels=1, workers=2)


def test_a_clusters_worker_starts_no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiprocessing, "current_process", lambda: SimpleNamespace(daemon=True))
    assert set(map_in_processes(where, range(3), None, pixels=1 << 30, workers=2)) == {os.getpid()}


def test_no_tasks_no_answers() -> None:
    assert map_in_processes(scaled, [], 1, pixels=1, workers=2) == []


def sleeps(seconds: float, _shared: None) -> None:
    os.write(1, b".")
    time.sleep(seconds)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_killed_program_leaves_no_worker_behind(method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} on this system")
    code = (
        "import sys, test_prepare_parallel as t, zemosaic_stack_core.system.pool as pool\n"
        f"pool.is_forking = lambda: {method == 'fork'}\n"
        "if __name__ == '__main__':\n"
        "    pool.map_in_processes(t.sleeps, [120.0] * 3, None, pixels=1, workers=3)\n"
    )
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    command, environment = [sys.executable, "-c", code], {**os.environ, "PYTHONPATH": path}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.read(3) == b"..."
        process.kill()
        # The pipe ends when nobody is left who could write to it.
        assert process.communicate(timeout=60) == (b"", None)
