"""Run a program and measure it: wall clock, processor time, peak memory of it and all its children."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

SAMPLING_SECONDS = 0.01


class ProgramFailedError(RuntimeError):
    """A measured program ended with an error: its last line."""


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What one program took."""

    # Seconds; the best of the repetitions.
    wall: float
    cpu: float
    # Bytes: the largest sum, over the processes at one time, of their proportional share of memory (PSS). Pages that
    # two processes share count once, files in the system's cache not unless they are mapped.
    peak: int


def measure(command: Sequence[str], *, repeat: int = 1, with_peak: bool = True, cwd: Path | None = None) -> Measurement:
    """Run a command `repeat` times for the times, and once more, watched, for the memory.

    Raises
    ------
    ProgramFailedError
        It did not end with 0.
    """
    wall = cpu = float("inf")
    for _ in range(repeat):
        seconds, used, _ = _run(command, cwd, is_watched=False)
        wall, cpu = min(wall, seconds), min(cpu, used)
    peak = _run(command, cwd, is_watched=True)[2] if with_peak else 0
    return Measurement(wall=wall, cpu=cpu, peak=peak)


def _run(command: Sequence[str], cwd: Path | None, *, is_watched: bool) -> tuple[float, float, int]:
    """Run once; return wall and processor seconds, and the peak where it is watched."""
    peak = 0
    with tempfile.TemporaryFile() as said:
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        if is_watched:
            watched = psutil.Process(process.pid)
            while not _has_ended(process.pid):
                peak = max(peak, _memory(watched))
                time.sleep(SAMPLING_SECONDS)
        _, status, usage = os.wait4(process.pid, 0)  # with what its children used
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines() or ["it said nothing"]
            raise ProgramFailedError(f"{' '.join(command)}: exit code {process.returncode}: {lines[-1]}")
    return seconds, usage.ru_utime + usage.ru_stime, peak


def _has_ended(pid: int) -> bool:
    """Whether a child has ended; it stays to be waited for."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _memory(process: psutil.Process) -> int:
    """Return the memory of a process and all its descendants."""
    total = 0
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for member in family:
        try:
            total += int(member.memory_full_info().pss)
        except psutil.Error:  # it ended just now
            continue
    return total
