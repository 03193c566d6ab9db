"""What a run says while it works: bars on a terminal, lines elsewhere, and how much time is left."""

from __future__ import annotations

import io
import re
import sys

import pytest

from zemosaic_stack_core.command_line import run_progress as live
from zemosaic_stack_core.phase3.outcome import TileOutcome, TileRecord
from zemosaic_stack_core.phase3.plan import TileSpec


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A terminal that keeps what was written to it."""

    def isatty(self) -> bool:
        return True

    def text(self) -> str:
        """Return what was written, without colors and movements."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.getvalue())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Give the clock that the progress looks at."""
    clock = Clock()
    monkeypatch.setattr(live, "time", clock)
    return clock


def spec(number: int) -> TileSpec:
    return TileSpec(tile_id=number, name=f"pointing {number}", frames=())


def record(number: int, outcome: TileOutcome = TileOutcome.DONE_CPU, **fields: object) -> TileRecord:
    return TileRecord(tile_id=number, name=f"pointing {number}", outcome=outcome, **fields)  # type: ignore[arg-type]


def test_the_time_left_is_judged_by_tiles_that_were_made(clock: Clock) -> None:
    progress = live.SilentProgress()
    progress.begin(10)
    assert progress.seconds_left() is None
    clock.now = 1.0
    progress.done(record(1, TileOutcome.REUSED))
    assert progress.seconds_left() is None
    clock.now = 5.0
    assert progress.seconds_left(0.5) == pytest.approx(4.0 / 0.5 * 8.5)
    clock.now = 11.0
    progress.done(record(2))
    assert progress.seconds_left() == pytest.approx(10.0 * 8)
    progress.done(record(3, TileOutcome.FAILED))
    assert progress.seconds_left() == pytest.approx(10.0 * 7)


def test_lines_come_with_each_tile_and_now_and_then_within_one(clock: Clock) -> None:
    said: list[str] = []
    progress = live.LineProgress(said.append)
    progress.begin(2)
    progress.tile(spec(1))
    for second in range(0, 100, 10):
        clock.now = float(second)
        progress.rows(second, 100)
    progress.rows(100, 100)
    assert said == [
        "tile 1: 30 of 100 rows, about 3 min left for the run",
        "tile 1: 60 of 100 rows, about 2 min left for the run",
        "tile 1: 90 of 100 rows, about 2 min left for the run",
    ]
    progress.done(record(1, frames_used=7, frames_given=8, rejected_low=0.25, rejected_high=1.0, seconds=2.0))
    assert said[-1] == "[1/2] tile 1 (pointing 1): made on the CPU, 7 of 8 frames, rejected 1.25 %, 2.0 s"


@pytest.mark.parametrize("has_rows", [True, False], ids=["here", "on a cluster"])
def test_bars_on_a_terminal(clock: Clock, monkeypatch: pytest.MonkeyPatch, has_rows: bool) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    progress = live.run_progress(print, is_quiet=False)
    assert isinstance(progress, live.BarProgress)
    progress.begin(3)
    if has_rows:
        progress.tile(spec(1))
        clock.now = 2.0
        progress.rows(50, 200)
        assert "50/200 rows" in terminal.text()
        assert "22 s left" in terminal.text()
    clock.now = 7.0
    progress.done(record(1))
    progress.end()
    said = terminal.text()
    assert "[1/3] tile 1 (pointing 1): made on the CPU" in said
    assert "1/3" in said
    assert "14 s left" in said
    assert ("rows" in said) == has_rows


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (61.0, "1 min"), (110.0, "2 min"), (3600.0, "1 h 00 min"), (9000.0, "2 h 30 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert live._duration(seconds) == text


def test_quiet_is_silent_and_every_outcome_has_words(capsys: pytest.CaptureFixture[str]) -> None:
    progress = live.run_progress(print, is_quiet=True)
    progress.begin(1)
    progress.done(record(1))
    assert capsys.readouterr() == ("", "")
    assert set(live.OUTCOME_TEXT) == set(TileOutcome)
