"""What a command says while it works: bars on a terminal, lines elsewhere, and how much time is left."""

from __future__ import annotations

import io
import re
import sys
import threading

import pytest

from zemosaic_stack_core.command_line.messages import answer, say
from zemosaic_stack_core.command_line.progress import BarDisplay, LineDisplay, RunDisplay, open_display
from zemosaic_stack_core.phase3.run_plan import TileSpec
from zemosaic_stack_core.phase3.tile_record import TileOutcome, TileRecord


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A terminal that keeps what was written to it."""

    def isatty(self) -> bool:
        return True

    def text(self) -> str:
        """Return what was written, without colors and movements."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.getvalue())


def open_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Put a terminal in the place of standard error: within a test, pytest exchanges it before."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    return terminal


def spec(number: int) -> TileSpec:
    return TileSpec(tile_id=number, name=f"pointing {number}", frames=())


def record(number: int, outcome: TileOutcome = TileOutcome.DONE_CPU, **fields: object) -> TileRecord:
    return TileRecord(tile_id=number, name=f"pointing {number}", outcome=outcome, **fields)  # type: ignore[arg-type]


def test_elsewhere_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with open_display(clock=clock) as display:
        progress = display.step("stacking")
        for clock.now, done in ((1.0, 10), (6.0, 20), (7.0, 30), (12.0, 60), (30.0, 100)):
            progress(done, 100)
    assert capsys.readouterr().err == (
        "stacking: 20 of 100 rows (20 %), about 24 s left\nstacking: 60 of 100 rows (60 %), about 8 s left\n"
    )


def test_each_step_of_a_preparation_is_timed_by_itself() -> None:
    said: list[str] = []
    clock = Clock()
    display = LineDisplay(said.append, 5.0, clock)
    for clock.now, label, done in ((1.0, "stars", 1), (8.0, "stars", 2), (9.0, "align", 1), (17.0, "align", 4)):
        display.show_frames(label, done, 5)
    assert said == ["stars: 2 of 5 frames (40 %), about 10 s left", "align: 4 of 5 frames (80 %), about 2 s left"]


def test_a_bar_on_a_terminal_starts_no_thread(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = open_terminal(monkeypatch)
    before = threading.active_count()
    clock = Clock()
    with open_display(clock=clock) as display:
        progress = display.step("stacking")
        clock.now = 3.0
        progress(3, 4)
        assert threading.active_count() == before  # a second thread would keep a stack from forking
        answer("the answer")
        say("a warning")
        progress(4, 4)
    said = terminal.text()
    assert "3/4 rows 1 s left" in said
    assert "4/4" in said
    assert "a warning" in said
    assert capsys.readouterr().out == "the answer\n"


def test_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    with open_display(is_quiet=True) as display:
        display.step("stacking")(1, 2)
        display.show_tiles(1, 2)
    assert capsys.readouterr() == ("", "")


def test_the_time_left_is_judged_by_tiles_that_were_made() -> None:
    clock = Clock()
    progress = RunDisplay(lambda _: None, is_quiet=True, clock=clock)
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


def test_lines_come_with_each_tile_and_now_and_then_within_one() -> None:
    said: list[str] = []
    clock = Clock()
    progress = RunDisplay(said.append, clock=clock)
    progress.begin(2)
    progress.tile(spec(1))
    for second in range(0, 100, 10):
        clock.now = float(second)
        progress.rows(second, 100)
    progress.rows(100, 100)
    assert said == [
        "tile 1 (pointing 1): 30 of 100 rows (30 %), about 2 min 50 s left for the run",
        "tile 1 (pointing 1): 60 of 100 rows (60 %), about 2 min 20 s left for the run",
        "tile 1 (pointing 1): 90 of 100 rows (90 %), about 1 min 50 s left for the run",
    ]
    progress.done(record(1, frames_used=7, frames_given=8, rejected_low=0.25, rejected_high=1.0, seconds=2.0))
    assert said[-1] == "[1/2] tile 1 (pointing 1): made on the CPU, 7 of 8 frames, rejected 1.25 %, 2.0 s"


def test_what_was_chosen_is_said_of_tiles_that_are_made_and_not_again() -> None:
    said: list[str] = []
    progress = RunDisplay(said.append, clock=Clock())
    details = {"chosen": ["rejection mad_clip: 3 frames"], "prepared": {"alignment": "stars", "light_lost": "clouds"}}
    progress.done(record(1, TileOutcome.REUSED, details=details))
    assert len(said) == 1
    progress.done(record(2, details=details))
    progress.done(record(3, details=details))
    assert said[2:4] == ["  rejection mad_clip: 3 frames", "  clouds"]
    assert len(said) == 5


@pytest.mark.parametrize("has_rows", [True, False], ids=["here", "on a cluster"])
def test_bars_of_a_run(monkeypatch: pytest.MonkeyPatch, has_rows: bool) -> None:
    terminal = open_terminal(monkeypatch)
    said: list[str] = []
    clock = Clock()
    progress = RunDisplay(said.append, clock=clock)
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
    assert said == ["[1/3] tile 1 (pointing 1): made on the CPU, 0 of 0 frames, rejected 0.00 %, 0.0 s"]
    shown = terminal.text()
    assert "1/3" in shown
    assert "14 s left" in shown
    assert ("rows" in shown) == has_rows


def test_bars_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    assert isinstance(open_display(), BarDisplay)
    monkeypatch.setattr(terminal, "isatty", lambda: False)
    assert isinstance(open_display(), LineDisplay)


def test_every_outcome_has_words_of_its_own() -> None:
    assert len({outcome.text for outcome in TileOutcome}) == len(TileOutcome)
    assert [outcome for outcome in TileOutcome if outcome.is_new] == [
        TileOutcome.DONE_GPU,
        TileOutcome.DONE_CPU,
        TileOutcome.DONE_CPU_AFTER_GPU_FAILURE,
    ]
