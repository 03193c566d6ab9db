"""Whom a stack tells how it comes along."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Progress = Callable[[int, int], None]
PcbTile = Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class Telemetry:
    """The caller's callbacks for one tile. What they raise ends the stack and passes through."""

    # Called as `progress(done_rows, total_rows)`.
    progress: Progress | None = None
    # Called once, after the tile, with its figures by name; see `stack_auto`.
    pcb_tile: PcbTile | None = None
    # Goes with the figures.
    tile_id: int | None = None


QUIET = Telemetry()
