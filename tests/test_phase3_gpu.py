"""One attempt, a clean-up, one retry, then off for the run; and what is not the GPU's failure is not counted."""

from __future__ import annotations

import gc
import logging
import threading
import weakref

import numpy as np
import pytest

from zemosaic_stack_core.backends import numpy_backend
from zemosaic_stack_core.errors import (
    BackendUnavailableError,
    FrameReadError,
    GPUStackingError,
    InvalidInputError,
    ScratchError,
)
from zemosaic_stack_core.gpu import health
from zemosaic_stack_core.gpu.health import GpuHealth
from zemosaic_stack_core.gpu.phase3_gpu import Phase3Gpu
from zemosaic_stack_core.options import StackOptions
from zemosaic_stack_core.stacking.result import StackResult, find_invalid

pytestmark = pytest.mark.gpu

HEALTHY = GpuHealth(usable=True)


class Device:
    """Stands in for a GPU's backend; counts what is asked of it."""

    def __init__(self, release_error=None):
        self.released = 0
        self._release_error = release_error

    def release(self):
        self.released += 1
        if self._release_error is not None:
            raise self._release_error


class CUDARuntimeError(RuntimeError):
    """Looks like CuPy's error of that name."""

    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


def lost():
    """Return a sticky device error."""
    return CUDARuntimeError(700, "cudaErrorIllegalAddress: an illegal memory access was encountered")


def make_gpu(device=None, **settings):
    """Return the state of a run with a healthy GPU."""
    device = Device() if device is None else device
    settings.setdefault("check_health", lambda: HEALTHY)
    return Phase3Gpu(open_backend=lambda: device, **settings)


def attempts_that(*outcomes):
    """Return an attempt that raises or returns each outcome in turn, and the list of its `smaller` arguments."""
    waiting = list(outcomes)
    asked = []

    def attempt(backend, smaller):
        asked.append(smaller)
        outcome = waiting.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return attempt, asked


def is_valid(answer):
    """Take every answer but the text "bad"."""
    return "it is bad" if answer == "bad" else ""


def messages(caplog, level="INFO"):
    """Return the log's lines of a level and above."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.getLevelName(level)]


def test_the_first_success_is_said_once(caplog):
    gpu = make_gpu()
    attempt, asked = attempts_that("one", "two")
    with caplog.at_level("INFO"):
        assert gpu.may_try()
        assert gpu.stack(attempt, is_valid)[:2] == ("one", 1)
        assert gpu.stack(attempt, is_valid)[:2] == ("two", 1)
    assert messages(caplog) == ["[P3][GPU] Using GPU stacker for Phase 3 (mode=auto)"]
    assert asked == [False, False]
    assert (gpu.attempts, gpu.gpu_tiles, gpu.hard_disabled, gpu.reason) == (2, 2, False, "")


@pytest.mark.parametrize(
    ("failure", "smaller", "line"),
    [
        (
            MemoryError("5 bytes"),
            True,
            "[P3][GPU] Unexpected GPU error: OutOfMemory: MemoryError: 5 bytes -- retrying once on GPU",
        ),
        (
            GPUStackingError("no tile"),
            False,
            "[P3][GPU] Stack failed (GPUStackingError): Error: GPUStackingError: no tile -- retrying once on GPU",
        ),
        ("bad", False, "[P3][GPU] Stack failed (GPUStackingError): InvalidResult: it is bad -- retrying once on GPU"),
        (
            ValueError("two\nlines"),
            False,
            "[P3][GPU] Unexpected GPU error: Error: ValueError: two lines -- retrying once on GPU",
        ),
    ],
    ids=["memory", "stacking", "invalid", "other"],
)
def test_one_retry_that_works(caplog, failure, smaller, line):
    device = Device()
    gpu = make_gpu(device)
    attempt, asked = attempts_that(failure, "good")
    with caplog.at_level("INFO"):
        assert gpu.stack(attempt, is_valid)[:2] == ("good", 2)
    assert asked == [False, smaller]
    assert device.released == 1
    assert messages(caplog, "WARNING") == [line]
    assert not gpu.hard_disabled


def test_a_second_failure_disables_for_the_run(caplog):
    gpu = make_gpu()
    attempt, asked = attempts_that(MemoryError("first"), ValueError("second"), "never asked")
    with caplog.at_level("INFO"):
        assert gpu.stack(attempt, is_valid)[:2] == (None, 2)
        assert gpu.stack(attempt, is_valid)[:2] == (None, 0)
    assert asked == [False, True]
    assert gpu.hard_disabled
    assert not gpu.may_try()
    assert messages(caplog, "ERROR") == [
        "[P3][GPU] Second GPU attempt failed; disabling Phase 3 GPU for this run: Error: ValueError: second"
    ]
    assert gpu.reason == "Error: ValueError: second"


def test_a_lost_device_is_not_touched_again(caplog):
    device = Device()
    gpu = make_gpu(device)
    attempt, asked = attempts_that(lost())
    assert gpu.stack(attempt, is_valid)[:2] == (None, 1)
    gpu.close()
    assert asked == [False]
    assert device.released == 0
    assert gpu.hard_disabled
    assert len(messages(caplog, "WARNING")) == 1
    assert "disabling Phase 3 GPU for this run: DeviceLost: CUDARuntimeError" in messages(caplog, "ERROR")[0]


@pytest.mark.parametrize("error", [RuntimeError("stuck"), MemoryError(), AttributeError("no pool"), OSError("gone")])
def test_a_clean_up_that_fails_does_not_hide_what_came_first(caplog, error):
    gpu = make_gpu(Device(release_error=error))
    attempt, asked = attempts_that(MemoryError("first"), "good")
    assert gpu.stack(attempt, is_valid)[:2] == ("good", 2)
    assert asked == [False, True]
    gpu.close()
    assert "could not be given back" in messages(caplog, "WARNING")[-1]


def test_a_device_that_dies_in_the_clean_up_is_lost():
    device = Device(release_error=lost())
    gpu = make_gpu(device)
    attempt, asked = attempts_that(MemoryError("first"))
    assert gpu.stack(attempt, is_valid)[:2] == (None, 1)
    assert asked == [False]
    assert gpu.reason.startswith("DeviceLost")


@pytest.mark.parametrize(
    "error",
    [
        InvalidInputError("bad option"),
        FrameReadError("a.fits: cut off"),
        ScratchError("the temporary folder: No space left on device"),
        KeyboardInterrupt(),
    ],
)
def test_what_is_not_the_gpus_failure_passes(caplog, error):
    gpu = make_gpu()
    attempt, asked = attempts_that(error)
    with pytest.raises(type(error)) as caught:
        gpu.stack(attempt, is_valid)
    assert caught.value is error
    assert asked == [False]
    assert not gpu.hard_disabled
    assert messages(caplog, "WARNING") == []
    attempt, _ = attempts_that("good")
    assert gpu.stack(attempt, is_valid)[:2] == ("good", 1)


def test_a_full_disk_of_the_host_is_not_the_gpus_failure(caplog):
    """As where CuPy has no room for a compiled kernel: no second attempt, and the next tile may try again."""
    device = Device()
    gpu = make_gpu(device)
    attempt, asked = attempts_that(OSError(28, "No space left on device"), "good")
    answer, n_attempts, reason = gpu.stack(attempt, is_valid)
    assert (answer, n_attempts, asked, device.released) == (None, 1, [False], 1)
    assert reason == "HostFiles: OSError: [Errno 28] No space left on device"
    assert messages(caplog, "WARNING") == [
        f"[P3][GPU] The host's files failed, not the GPU; this tile is made on the CPU: {reason}"
    ]
    assert messages(caplog, "ERROR") == []
    assert (gpu.hard_disabled, gpu.reason) == (False, "")
    assert gpu.stack(attempt, is_valid) == ("good", 1, "")
    gpu = make_gpu(is_required=True)
    with pytest.raises(GPUStackingError, match="the GPU is required and the host's files failed: HostFiles: OSError"):
        gpu.stack(attempts_that(OSError(28, "No space left on device"))[0], is_valid)


def test_a_disk_that_fills_up_before_the_second_attempt():
    gpu = make_gpu()
    attempt, asked = attempts_that(MemoryError("full"), OSError(28, "No space left on device"))
    assert gpu.stack(attempt, is_valid)[:2] == (None, 2)
    assert asked == [False, True]
    assert not gpu.hard_disabled


def test_an_error_of_the_callers_callback_passes():
    error = RuntimeError("the user cancels")
    gpu = make_gpu()
    attempt, _ = attempts_that(error)
    with pytest.raises(RuntimeError, match="the user cancels"):
        gpu.stack(attempt, is_valid, lambda raised: raised is error)
    assert not gpu.hard_disabled


def test_a_failed_attempt_leaves_nothing_behind(caplog):
    """Even while the log keeps its records, the arrays of the failed attempt are gone before the retry."""
    kept = []
    alive = []

    class Big:
        """Stands in for an array on the device."""

    def attempt(backend, smaller):
        alive.append([ref for ref in kept if ref() is not None])
        big = Big()
        kept.append(weakref.ref(big))
        raise RuntimeError("the stack failed") from MemoryError("full")

    gpu = make_gpu()
    with caplog.at_level("DEBUG"):
        gpu.stack(attempt, is_valid)
    assert alive == [[], []]
    gc.collect()
    assert all(ref() is None for ref in kept)


def test_the_plan_forbids(caplog):
    checked = []
    gpu = make_gpu(plan={"use_gpu": False}, check_health=lambda: checked.append(1))
    assert not gpu.allowed
    assert not gpu.may_try()
    assert checked == []
    gpu = make_gpu()
    assert not gpu.may_try({"use_gpu": False})
    assert gpu.may_try({"use_gpu": True})
    assert gpu.may_try(None)


def test_an_unhealthy_gpu_is_said_once_and_never_tried(caplog):
    checks = []

    def check():
        checks.append(1)
        return GpuHealth(usable=False, reason="no card")

    gpu = make_gpu(check_health=check)
    with caplog.at_level("INFO"):
        assert not gpu.may_try()
        assert not gpu.may_try()
    assert messages(caplog) == ["[P3][GPU] GPU not usable, Phase 3 runs on the CPU: no card"]
    assert (checks, gpu.attempts, gpu.reason) == ([1], 0, "no card")


def test_each_run_looks_at_an_unhealthy_gpu_again(monkeypatch):
    """Within a run the answer is kept, whoever asks; a second run in the same process checks anew."""
    answers = [GpuHealth(usable=False, reason="full"), HEALTHY]
    monkeypatch.setattr(health, "check_gpu", lambda: answers.pop(0))
    health.reset_gpu_health()
    first, second = Phase3Gpu(), Phase3Gpu()
    assert not health.gpu_is_usable()
    assert not first.may_try()
    assert len(answers) == 1
    first.close()
    assert second.may_try()
    second.close()
    assert health.gpu_is_usable()
    health.reset_gpu_health()


def test_a_required_gpu_is_an_error_and_no_fallback():
    gpu = make_gpu(is_required=True, check_health=lambda: GpuHealth(usable=False, reason="no card"))
    with pytest.raises(BackendUnavailableError, match="the GPU is required and can't be used: no card"):
        gpu.may_try()
    gpu = make_gpu(is_required=True)
    attempt, _ = attempts_that(MemoryError("first"), MemoryError("second"))
    with pytest.raises(GPUStackingError, match="the GPU is required and failed: OutOfMemory: MemoryError: second"):
        gpu.stack(attempt, is_valid)


def test_two_runs_do_not_share_their_state():
    gpu = make_gpu()
    attempt, _ = attempts_that(ValueError("1"), ValueError("2"))
    gpu.stack(attempt, is_valid)
    assert gpu.hard_disabled
    assert not make_gpu().hard_disabled


def test_one_tile_at_a_time_and_one_failure_for_all(caplog):
    gpu = make_gpu()
    running = []
    most = []
    start = threading.Barrier(4)

    def attempt(backend, smaller):
        running.append(1)
        most.append(len(running))
        running.pop()
        raise ValueError("always")

    answers = []

    def tile():
        start.wait(10)
        answers.append(gpu.stack(attempt, is_valid)[:2])

    threads = [threading.Thread(target=tile) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(answers, key=str) == [(None, 0)] * 3 + [(None, 2)]
    assert max(most) == 1
    assert gpu.attempts == 2
    assert len(messages(caplog, "ERROR")) == 1


def test_closing_gives_the_memory_back():
    device = Device()
    gpu = make_gpu(device)
    gpu.close()
    assert device.released == 0
    gpu.stack(attempts_that("good")[0], is_valid)
    gpu.close()
    gpu.close()
    assert device.released == 1


def test_a_device_that_dies_after_the_last_tile_costs_nothing(caplog):
    gpu = make_gpu(Device(release_error=lost()))
    gpu.stack(attempts_that("good")[0], is_valid)
    gpu.close()
    assert "could not be given back: cudaErrorIllegalAddress" in messages(caplog, "WARNING")[0]


def make_result(image, coverage):
    """Return a result with that image and coverage."""
    return StackResult(image=image, coverage=coverage, frames=(), backend="cupy", options=StackOptions())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda image, coverage: None, ""),
        (lambda image, coverage: image.__setitem__(..., np.where(coverage > 0, 0.0, np.nan)), ""),
        (lambda image, coverage: image.__setitem__((1, 1), np.nan), "1 pixels with samples are not finite, 0 without"),
        (lambda image, coverage: image.__setitem__((1, 1), np.inf), "1 pixels with samples are not finite"),
        (lambda image, coverage: image.__setitem__((0, 0), 5.0), "1 without samples are finite"),
        (lambda image, coverage: coverage.__setitem__((2, 2), 6), "the coverage runs from 0 to 6; expected 0 to 5"),
        (lambda image, coverage: coverage.__setitem__((2, 2), -1), "the coverage runs from -1 to 5"),
    ],
)
def test_invalid_tiles(change, words):
    image = np.full((3, 4), 100.0, dtype=np.float32)
    coverage = np.full((3, 4), 5, dtype=np.int32)
    image[0, 0], coverage[0, 0] = np.nan, 0
    change(image, coverage)
    found = find_invalid(make_result(image, coverage), (3, 4), 5)
    assert (words in found) if words else found == ""


def test_invalid_shapes():
    image, coverage = np.zeros((3, 4), dtype=np.float32), np.ones((3, 4), dtype=np.int32)
    assert "shape (3, 4); expected (4, 3)" in find_invalid(make_result(image, coverage), (4, 3), 1)
    assert "coverage has the shape None" in find_invalid(make_result(image, None), (3, 4), 1)
    assert "coverage has the shape (2, 4)" in find_invalid(make_result(image, coverage[:2]), (3, 4), 1)
    assert find_invalid(make_result(numpy_backend().xp.zeros((0, 4)), np.zeros((0, 4), int)), (0, 4), 1) == ""
