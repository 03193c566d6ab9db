"""How far a command's work is: bars on a terminal, a line now and then elsewhere, nothing where it is quiet.

No thread is started: a stack may divide its work among copies of this process only while it has a single thread.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from zemosaic_stack_core.command_line.messages import say
from zemosaic_stack_core.system.quantities import percent_text, time_text

if TYPE_CHECKING:
    from zemosaic_stack_core.phase3.run_plan import TileSpec
    from zemosaic_stack_core.phase3.tile_record import TileRecord

# Bars are drawn at most this often.
_DRAW_SECONDS = 0.1
# Elsewhere a line is written at most this often: a log is read afterwards. A run writes one for each tile as well.
_LINE_SECONDS = 5.0
_RUN_LINE_SECONDS = 30.0
# Letters of a step's label beside its bar.
_LABEL_LENGTH = 40

Progress = Callable[[int, int], None]
Clock = Callable[[], float]


class Display:
    """Show nothing; the base of the displays that show something. A context manager.

    The work is a sequence of steps; beginning one ends the one before.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self.clock = clock
        # Time left for a whole run, s, by the part of the present step that is done; None outside of a run.
        self.left_of_run: Callable[[float], float | None] | None = None
        self._label, self._unit = "", "rows"
        self._began = self._shown = clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def step(self, label: str, unit: str = "rows") -> Progress:
        """Begin a step, counted in `unit`, and return what is to be called as ``progress(done, total)``."""
        self._label, self._unit = label, unit
        self._began = self._shown = self.clock()
        return self.show

    def show_frames(self, label: str, done: int, total: int) -> None:
        """Show how many frames of a step are done; begin the step where its label is another one than before."""
        if label != self._label:
            self.step(label, "frames")
        self.show(done, total)

    def show(self, done: int, total: int) -> None:
        """Show how much of the step is done."""

    def show_tiles(self, done: int, total: int) -> None:
        """Show how many tiles of a run are done."""

    def close(self) -> None:
        """Remove what is not to stay."""

    def _left(self, done: int, total: int) -> float | None:
        """Return the time left for the run or else for the step, s; None where nothing is known."""
        if self.left_of_run is not None:
            return self.left_of_run(done / max(total, 1))
        return (self.clock() - self._began) * (total - done) / done if done else None


class LineDisplay(Display):
    """A line now and then; a short step writes none."""

    def __init__(self, tell: Callable[[str], None], seconds: float, clock: Clock = time.monotonic) -> None:
        super().__init__(clock)
        self._tell, self._seconds = tell, seconds

    def show(self, done: int, total: int) -> None:
        """Write a line where the last one is a while ago."""
        now = self.clock()
        if now - self._shown < self._seconds or not 0 < done < total:
            return
        self._shown = now
        left = self._left(done, total)
        about = "" if left is None else f", about {time_text(left)} left"
        whose = " for the run" if about and self.left_of_run is not None else ""
        self._tell(f"{self._label}: {done} of {total} {self._unit} ({100 * done // total} %){about}{whose}")


class BarDisplay(Display):
    """Bars on the terminal, gone when the work is done: the tiles of a run, and the present step."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bars

        super().__init__(clock)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}", markup=False),
        )
        # While the bars are there, what is written to standard error goes above them.
        self._bars = Bars(
            *columns,
            console=Console(stderr=True),
            auto_refresh=False,
            redirect_stdout=False,
            transient=True,
            expand=True,
        )
        self._tiles = self._bars.add_task("tiles", total=None, text="", visible=False)
        self._step = self._bars.add_task("", total=None, text="", visible=False)

    def step(self, label: str, unit: str = "rows") -> Progress:
        """Draw an empty bar for the step."""
        self._bars.start()
        self._bars.reset(self._step, total=None, visible=True, description=label[:_LABEL_LENGTH], text=unit)
        self._bars.refresh()
        return super().step(label, unit)

    def show(self, done: int, total: int) -> None:
        """Draw the bars, unless that was done a moment ago."""
        now = self.clock()
        if now - self._shown < _DRAW_SECONDS and done < total:
            return
        self._shown = now
        left = self._left(done, total)
        text = "" if left is None else f"{time_text(left)} left"
        if self.left_of_run is not None:
            self._bars.update(self._tiles, text=text)
            text = ""
        self._bars.update(self._step, completed=done, total=total, text=f"{self._unit} {text}")
        self._bars.refresh()

    def show_tiles(self, done: int, total: int) -> None:
        """Draw the bar of the tiles."""
        self._bars.start()
        left = None if self.left_of_run is None else self.left_of_run(0.0)
        text = "" if left is None else f"{time_text(left)} left"
        self._bars.update(self._tiles, completed=done, total=total, visible=True, text=text)
        self._bars.refresh()

    def close(self) -> None:
        """Take the bars away."""
        self._bars.stop()


def open_display(
    tell: Callable[[str], None] = say,
    *,
    seconds: float = _LINE_SECONDS,
    is_quiet: bool = False,
    clock: Clock = time.monotonic,
) -> Display:
    """Return the display that fits: none, bars, or lines that `tell` gets at most every so many seconds."""
    if is_quiet:
        return Display(clock)
    return BarDisplay(clock) if sys.stderr.isatty() else LineDisplay(tell, seconds, clock)


class RunDisplay:
    """Show a run: a line for each tile, and on a display how far the tiles and the present one are."""

    def __init__(self, tell: Callable[[str], None], *, is_quiet: bool = False, clock: Clock = time.monotonic) -> None:
        self._tell = tell
        self._display = open_display(tell, seconds=_RUN_LINE_SECONDS, is_quiet=is_quiet, clock=clock)
        self._display.left_of_run = self.seconds_left
        self._clock = clock
        self._total = self._finished = 0
        # Tiles that were made, and the time they took: reused and failed ones take next to none.
        self._made, self._making_s = 0, 0.0
        self._since = clock()
        # What is the same for many tiles is said once.
        self._said: set[str] = set()

    def begin(self, tiles: int) -> None:
        """See `RunProgress`."""
        self._total = tiles
        self._since = self._clock()
        self._display.show_tiles(0, tiles)

    def tile(self, spec: TileSpec) -> None:
        """See `RunProgress`."""
        self._display.step(f"tile {spec.tile_id} ({spec.name})")

    def rows(self, done: int, total: int) -> None:
        """See `RunProgress`."""
        self._display.show(done, total)

    def done(self, record: TileRecord) -> None:
        """See `RunProgress`."""
        now = self._clock()
        self._finished += 1
        if record.outcome.is_new:
            self._made += 1
            self._making_s += now - self._since
        self._since = now
        self._tell(tile_line(record, self._finished, self._total))
        lines = said_lines(record) if record.outcome.is_new else []  # of a tile that is reused it was said before
        for line in lines:
            if line not in self._said:
                self._tell(f"  {line}")
                self._said.add(line)
        self._display.show_tiles(self._finished, self._total)

    def end(self) -> None:
        """See `RunProgress`."""
        self._display.close()

    def seconds_left(self, part: float = 0.0) -> float | None:
        """Return the time left by the tiles made and the part of the present one that is; None where nothing is."""
        made = self._made + part
        if made <= 0.0:
            return None
        spent = self._making_s + (self._clock() - self._since if part else 0.0)
        return spent / made * (self._total - self._finished - part)


def said_lines(record: TileRecord) -> list[str]:
    """Return what was chosen for a tile's frames and why, what the rule can do with so many, what is odd of them."""
    details = record.details
    advice = [f"advice: {details['advice']}"] if "advice" in details else []
    odd = (details.get("zero_borders"), (details.get("prepared") or {}).get("light_lost"))
    return [*details.get("chosen", ()), *advice, *filter(None, odd)]


def tile_line(record: TileRecord, place: int, total: int) -> str:
    """Return the line that says what became of a tile."""
    outcome = record.outcome
    text = f"[{place}/{total}] tile {record.tile_id} ({record.name}): {outcome.text}"
    if outcome.is_made:
        text += f", {record.frames_used} of {record.frames_given} frames"
        prepared = record.details.get("prepared")
        if prepared and prepared["alignment"] != "none":
            text += f" registered by {prepared['alignment']}"
    if outcome.is_new:
        text += f", rejected {percent_text(record.rejected_low + record.rejected_high)}"
    if record.reason and outcome != "failed":  # that is said as an error
        text += f" ({record.reason})"
    return f"{text}, {record.seconds:.1f} s"
