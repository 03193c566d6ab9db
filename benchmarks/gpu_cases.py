"""Cases of the benchmark of a card: each is tried, whatever became of the others, and each part has so many seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from zemosaic_stack_core.backends import CupyBackend, cupy_backend


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large everything is."""

    # Of the images whose bits are compared, and the numbers of frames besides 8.
    rows: int
    columns: int
    frames: tuple[int, ...]
    # Rules whose bits are compared; None for all.
    rules: tuple[str, ...] | None = None
    # Launches after which an exception is raised, and stacks of a tile for leaks.
    launches: tuple[int, ...] = (0, 1, 2, 5)
    tiles: int = 50
    # The run of thousands of frames: tiles, frames of each, and the side of their square images.
    night: tuple[int, int, int] = (12, 250, 512)
    # Samples of a timed band, bytes of a timed copy, and how often each is repeated.
    samples: int
    copied: int
    repeat: int = 5
    # Frames, rows and columns of whole stacks, and of the doctor's comparison.
    stack: tuple[int, int, int]
    doctor: tuple[int, int, int]
    # Multiple of the seconds that each part may take.
    patience: float = 1.0
    # Another process finds the device, too.
    has_processes: bool = True


FULL = Size(
    rows=61,
    columns=83,
    frames=(32, 100, 257, 400),
    samples=1 << 27,
    copied=1 << 28,
    stack=(32, 2048, 2048),
    doctor=(32, 1024, 1024),
)
QUICK = Size(
    rows=31,
    columns=53,
    frames=(32, 100),
    rules=("none", "kappa_sigma", "winsorized_sigma_clip", "linear_fit_clip"),
    launches=(0, 1),
    tiles=10,
    night=(3, 100, 512),
    samples=1 << 25,
    copied=1 << 27,
    repeat=3,
    stack=(32, 1024, 1024),
    doctor=(32, 512, 512),
    patience=0.3,
)
# Where CUDA is emulated, no time means anything.
TINY = Size(
    rows=9,
    columns=7,
    frames=(17,),
    rules=("none", "kappa_sigma"),
    launches=(0, 1),
    tiles=4,
    night=(2, 9, 12),
    samples=1 << 10,
    copied=1 << 10,
    repeat=1,
    stack=(8, 16, 16),
    doctor=(8, 16, 16),
    has_processes=False,
)


class Found(NamedTuple):
    """What came of a case: in words, beside what it was measured, what is wrong (empty for nothing), in numbers."""

    found: str
    beside: str = ""
    problem: str = ""
    figures: Mapping[str, Any] = {}


class Case(NamedTuple):
    """A case: what it is, and a call, which is given the time (of `time.perf_counter`) when it should end."""

    what: str
    run: Callable[[float], Found]


@dataclass(kw_only=True)
class Bench:
    """What all cases share; `rates` are bytes per second of plain copies, filled by the part that measures them."""

    backend: CupyBackend
    size: Size
    folder: Path
    rates: dict[str, float] = field(default_factory=dict)

    @property
    def cupy(self) -> Any:
        """CuPy."""
        return self.backend.module


@dataclass(frozen=True, kw_only=True)
class GpuRow:
    """One row of the table; `problem` is empty where nothing is wrong."""

    part: str
    what: str
    found: str
    beside: str
    problem: str
    seconds: float
    figures: Mapping[str, Any]


class Part(NamedTuple):
    """A part of the benchmark, and the seconds that it may take."""

    name: str
    cases: Callable[[Bench], Sequence[Case]]
    seconds: float


def carry_out(parts: Sequence[Part], bench: Bench, note: Callable[[GpuRow], None]) -> list[GpuRow]:
    """Run every case of every part; `note` gets each row as it is made. A case that raises is a row with a problem."""
    rows: list[GpuRow] = []
    for part in parts:
        left = part.seconds * bench.size.patience
        try:
            cases = part.cases(bench)
        except Exception as error:  # noqa: BLE001 - whatever a driver does, the other parts are run
            cases = [Case("preparation", _raising(error))]
        for index, case in enumerate(cases):
            began = time.perf_counter()
            try:
                found = case.run(began + max(left, 0.0) / (len(cases) - index))
            except Exception as error:  # noqa: BLE001 - whatever a driver does, the other cases are run
                found = Found("", problem=f"{type(error).__name__}: {' '.join(str(error).split())}")
            seconds = time.perf_counter() - began
            left -= seconds
            rows.append(GpuRow(part=part.name, what=case.what, seconds=seconds, **found._asdict()))
            note(rows[-1])
    return rows


def _raising(error: Exception) -> Callable[[float], Found]:
    """Return a call that raises an error that came earlier."""

    def run(_: float) -> Found:
        raise error

    return run


def one_after_the_other(named: Sequence[tuple[str, Callable[[], str]]], deadline: float) -> tuple[int, str]:
    """Run calls until the time is over, the first in any case; return how many, and what was wrong with which.

    Each call returns what is wrong, empty where nothing is.
    """
    problems, done = [], 0
    for name, call in named:
        if done and time.perf_counter() > deadline:
            break
        done += 1
        try:
            problem = call()
        except Exception as error:  # noqa: BLE001 - one that fails says nothing about the next
            problem = f"{type(error).__name__}: {' '.join(str(error).split())}"
        if problem:
            problems.append(f"{name}: {problem}")
    return done, "; ".join(problems)


def number_text(done: int, wanted: int, what: str) -> str:
    """Say how many were made, and how many were left out for want of time."""
    return f"{done} {what}" if done == wanted else f"{done} of {wanted} {what}, the others left out for want of time"


class WatchedBackend(CupyBackend):
    """The card's backend, with the programs that were needed noted."""

    def __init__(self, options: tuple[str, ...] = ()) -> None:
        plain = cupy_backend()
        super().__init__(cupy=plain.cupy, xp=plain.xp, device_id=plain.device.id, compiler_options=options)
        self.programs: list[Any] = []

    def program(self, *given: Any) -> Any:
        """Note and return a program."""
        self.programs.append(super().program(*given))
        return self.programs[-1]
