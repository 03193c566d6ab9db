"""What other libraries warn of reaches the user once, counted."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from zemosaic_stack_core.command_line import main
from zemosaic_stack_core.command_line import stack as stack_command
from zemosaic_stack_core.command_line.foreign_warnings import counted_warnings

USER, RUNTIME = "UserWarning", "RuntimeWarning"
NUMPY = str(Path(np.__file__).parent / "lib" / "x.py")


def warn(times: int, category: type[Warning] = UserWarning, filename: str = NUMPY) -> None:
    for index in range(times):
        warnings.warn_explicit(f"odd\nthing {index}", category, filename, index)


@pytest.fixture(autouse=True)
def as_in_a_terminal() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        yield


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (lambda: warn(1), ["numpy warned: odd thing 0 (UserWarning)"]),
        (lambda: warn(300), ["numpy warned 300 times, first: odd thing 0 (UserWarning)"]),
        (lambda: warn(3, RuntimeWarning), ["numpy warned 3 times, first: odd thing 0 (RuntimeWarning)"]),
        (lambda: warn(2, filename="/lib/gzip.py"), ["gzip warned 2 times, first: odd thing 0 (UserWarning)"]),
        (
            lambda: [warn(2), warn(2, RuntimeWarning), warn(1)],
            [f"numpy warned {count} times, first: odd thing 0 ({kind})" for count, kind in ((3, USER), (2, RUNTIME))],
        ),
        (lambda: None, []),
    ],
)
def test_warnings_are_counted(
    work: Callable[[], object], expected: list[str], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with counted_warnings():
        work()
    assert [record.getMessage() for record in caplog.records] == expected
    assert capfd.readouterr() == ("", "")


# In a process of its own: a thread that another test has left would have processes started in another way.
IN_PROCESSES = f"""
import logging, warnings
from zemosaic_stack_core.command_line.foreign_warnings import counted_warnings
from zemosaic_stack_core.system.pool import map_in_processes

def warn(times, _):
    for index in range(times):
        warnings.warn_explicit(f"odd thing {{index}}", UserWarning, {NUMPY!r}, index)
    return times

warnings.simplefilter("default")
logging.basicConfig(format="%(message)s")
with counted_warnings():
    assert map_in_processes(warn, [500, 600, 700], None, pixels=1, workers=3) == [500, 600, 700]
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only forked processes count together")
def test_those_of_processes_too() -> None:
    done = subprocess.run([sys.executable, "-c", IN_PROCESSES], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert done.stderr == "numpy warned 1800 times, first: odd thing 0 (UserWarning)\n"


@pytest.mark.parametrize("quiet", [False, True])
def test_a_command_says_them_in_a_line(
    tmp_path: Path, quiet: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "a.npy", np.ones((8, 9), np.float32))
    monkeypatch.setattr(stack_command, "_odd_frames", lambda *_: warn(200) or [])
    command = ["stack", str(tmp_path / "a.npy"), "-o", str(tmp_path / "m.fits"), "--no-picture"]
    assert main([*command, *["-q"] * quiet]) == 0
    said = capfd.readouterr().err
    assert said.count("numpy warned 200 times, first: odd thing 0") == (not quiet)
    assert len(said.splitlines()) < 12
