"""A call in isolation gives its answer or one line that says why not, and never takes longer than it may."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from zemosaic_stack_core.system.isolation import IsolatedCallError, call_in_process, call_in_thread


def echo(*values):
    """Return the arguments and the process, after some noise on standard output."""
    sys.stdout.write("a library says hello\n")
    return {"values": list(values), "process": os.getpid()}


def fail(text):
    """Raise."""
    raise RuntimeError(text)


def crash():
    """End the process at once, as a driver that crashes does."""
    os._exit(57)


def hang():
    """Wait for longer than any test."""
    time.sleep(300)


@pytest.fixture(params=[call_in_process, call_in_thread])
def call(request):
    """Both ways to call."""
    return request.param


def test_the_answer_comes_back(call):
    answer = call(f"{__name__}:echo", [1, "two", None], timeout_s=60)
    assert answer["values"] == [1, "two", None]
    assert (answer["process"] == os.getpid()) is (call is call_in_thread)


def test_an_error_is_a_reason(call):
    with pytest.raises(IsolatedCallError, match="RuntimeError: it does not work"):
        call(f"{__name__}:fail", ["it does not work"], timeout_s=60)


def test_nobody_waits_longer_than_the_time_out(call):
    with pytest.raises(IsolatedCallError, match=r"no answer within 0\.2 s"):
        call(f"{__name__}:hang", [], timeout_s=0.2)


def test_a_crash_is_a_reason():
    with pytest.raises(IsolatedCallError, match="exit code 57: it printed nothing"):
        call_in_process(f"{__name__}:crash", [], timeout_s=60)


def test_a_process_that_can_not_be_killed_is_left_behind(monkeypatch):
    """One that hangs in the driver never goes, and nobody is to wait for it."""
    wait = subprocess.Popen.wait

    def never_gone(process, timeout=None):
        if timeout is not None:
            raise subprocess.TimeoutExpired(process.args, timeout)
        return wait(process)

    monkeypatch.setattr(subprocess.Popen, "wait", never_gone)
    with pytest.raises(IsolatedCallError, match=r"no answer within 0\.2 s"):
        call_in_process(f"{__name__}:hang", [], timeout_s=0.2)
