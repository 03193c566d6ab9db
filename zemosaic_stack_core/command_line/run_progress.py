"""Progress of a run for whoever watches: bars on a terminal, plain lines elsewhere.

No thread is started: a stack forks its workers only while the process has a single thread.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from zemosaic_stack_core.phase3.outcome import TileOutcome, TileRecord
from zemosaic_stack_core.phase3.plan import TileSpec

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID


OUTCOME_TEXT = {
    TileOutcome.DONE_GPU: "made on the GPU",
    TileOutcome.DONE_CPU: "made on the CPU",
    TileOutcome.DONE_CPU_AFTER_GPU_FAILURE: "made on the CPU after the GPU failed",
    TileOutcome.REUSED: "reused",
    TileOutcome.FAILED: "FAILED",
    TileOutcome.CANCELLED: "cancelled",
}
"""Outcomes as a run says them."""

_DRAW_SECONDS = 0.1
_LINE_SECONDS = 30.0


def tile_line(record: TileRecord, place: int, total: int) -> str:
    """Return the line that says what became of a tile."""
    text = f"[{place}/{total}] tile {record.tile_id} ({record.name}): {OUTCOME_TEXT[record.outcome]}"
    if record.outcome.is_made:
        text += f", {record.frames_used} of {record.frames_given} frames"
        prepared = record.details.get("prepared")
        if prepared and prepared["alignment"] != "none":
            text += f" registered by {prepared['alignment']}"
        if record.outcome is not TileOutcome.REUSED:
            text += f", rejected {record.rejected_low + record.rejected_high:.2f} %"
    if record.reason and record.outcome is not TileOutcome.FAILED:  # that is said as an error
        text += f" ({record.reason})"
    return f"{text}, {record.seconds:.1f} s"


class SilentProgress:
    """Say nothing; the base of those that do."""

    def __init__(self, say: Callable[[str], None] = lambda _: None) -> None:
        self._say = say
        self._total = 0
        self._finished = 0
        self._made = 0
        self._making_s = 0.0  # reused and failed tiles take next to no time: they say nothing of the others
        self._since = time.monotonic()

    def begin(self, tiles: int) -> None:
        """See `RunProgress`."""
        self._total = tiles
        self._since = time.monotonic()

    def tile(self, spec: TileSpec) -> None:
        """See `RunProgress`."""

    def rows(self, done: int, total: int) -> None:
        """See `RunProgress`."""

    def done(self, record: TileRecord) -> None:
        """See `RunProgress`."""
        now = time.monotonic()
        self._finished += 1
        if record.outcome not in (TileOutcome.REUSED, TileOutcome.FAILED):
            self._made += 1
            self._making_s += now - self._since
        self._since = now
        self._say(tile_line(record, self._finished, self._total))

    def end(self) -> None:
        """See `RunProgress`."""

    def seconds_left(self, part: float = 0.0) -> float | None:
        """Return the time left, judged by the tiles made and the part of the present one; None where nothing is."""
        made = self._made + part
        if made <= 0.0:
            return None
        spent = self._making_s + (time.monotonic() - self._since if part else 0.0)
        return spent / made * (self._total - self._finished - part)


class LineProgress(SilentProgress):
    """A line for each tile, and one now and then within a long one."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__(say)
        self._said = time.monotonic()
        self._spec: TileSpec | None = None

    def tile(self, spec: TileSpec) -> None:
        """See `RunProgress`."""
        self._spec = spec

    def rows(self, done: int, total: int) -> None:
        """See `RunProgress`."""
        now = time.monotonic()
        if self._spec is None or now - self._said < _LINE_SECONDS or done >= total:
            return
        self._said = now
        left = self.seconds_left(done / total)
        text = "" if left is None else f", about {_duration(left)} left for the run"
        self._say(f"tile {self._spec.tile_id}: {done} of {total} rows{text}")

    def done(self, record: TileRecord) -> None:
        """See `RunProgress`."""
        self._said = time.monotonic()
        super().done(record)


class BarProgress(SilentProgress):
    """Two bars on a terminal: tiles, and rows of the present tile (on a cluster there is no such)."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._console = Console(stderr=True)
        super().__init__(lambda text: self._console.print(text, highlight=False, markup=False))
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
        )
        self._bars: RichProgress = RichProgress(
            *columns, console=self._console, auto_refresh=False, transient=True, expand=True
        )
        self._tiles: TaskID = self._bars.add_task("tiles", total=None, unit="")
        self._rows: TaskID = self._bars.add_task("", total=None, unit="rows", visible=False)
        self._drawn = 0.0

    def begin(self, tiles: int) -> None:
        """See `RunProgress`."""
        super().begin(tiles)
        self._bars.update(self._tiles, total=tiles)
        self._bars.start()

    def tile(self, spec: TileSpec) -> None:
        """See `RunProgress`."""
        self._bars.reset(self._rows, total=1, visible=True, description=f"tile {spec.tile_id} {spec.name}"[:40])
        self._bars.refresh()

    def rows(self, done: int, total: int) -> None:
        """See `RunProgress`."""
        now = time.monotonic()
        if now - self._drawn < _DRAW_SECONDS and done < total:
            return
        self._drawn = now
        self._bars.update(self._rows, completed=done, total=total)
        left = self.seconds_left(done / max(total, 1))
        self._tell_left(left)
        self._bars.refresh()

    def done(self, record: TileRecord) -> None:
        """See `RunProgress`."""
        super().done(record)
        self._bars.update(self._tiles, completed=self._finished)
        self._tell_left(self.seconds_left())
        self._bars.refresh()

    def end(self) -> None:
        """See `RunProgress`."""
        self._bars.stop()

    def _tell_left(self, seconds: float | None) -> None:
        """Put the time left behind the tiles."""
        self._bars.update(self._tiles, unit="" if seconds is None else f"{_duration(seconds)} left")


def run_progress(say: Callable[[str], None], *, is_quiet: bool) -> SilentProgress:
    """Return the progress that fits: none, bars, or lines."""
    if is_quiet:
        return SilentProgress()
    return BarProgress() if sys.stderr.isatty() else LineProgress(say)


def _duration(seconds: float) -> str:
    """Return a duration as people read it."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
