"""A Phase 3 run: groups of frames to master tiles, with faults, resume, reports and many machines.

`run_night` makes the tiles of a plan (`read_run_plan`) in one folder; `create_master_tile` makes one. What became of a
tile is a `TileOutcome`, all that is known of it a `TileRecord`.
"""

from __future__ import annotations

from .cluster import ClusterChoice
from .outcome import DroppedFrame, FrameUse, TileOutcome, TileRecord
from .plan import Shard, TileSpec, parse_shard, read_run_plan
from .run import Night, RunProgress, RunReport, run_night
from .tile import (
    AfterStack,
    StackedTile,
    StackSettings,
    _stack_master_tile_auto,
    _stack_master_tile_cpu,
    create_master_tile,
)

__all__ = [
    "AfterStack",
    "ClusterChoice",
    "DroppedFrame",
    "FrameUse",
    "Night",
    "RunProgress",
    "RunReport",
    "Shard",
    "StackSettings",
    "StackedTile",
    "TileOutcome",
    "TileRecord",
    "TileSpec",
    "_stack_master_tile_auto",
    "_stack_master_tile_cpu",
    "create_master_tile",
    "parse_shard",
    "read_run_plan",
    "run_night",
]
