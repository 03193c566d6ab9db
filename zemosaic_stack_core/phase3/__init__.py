"""A Phase 3 run: groups of frames to master tiles, with faults, resume, reports and many machines.

`run_night` makes the tiles of a plan (`read_run_plan`) in one folder; `create_master_tile` makes one. What became of a
tile is a `TileOutcome`, all that is known of it a `TileRecord`.
"""

from __future__ import annotations

from zemosaic_stack_core.phase3.cluster import ClusterChoice
from zemosaic_stack_core.phase3.night import Night, RunProgress, RunReport
from zemosaic_stack_core.phase3.run import run_night
from zemosaic_stack_core.phase3.run_plan import Shard, TileSpec, parse_shard, read_run_plan
from zemosaic_stack_core.phase3.tile import (
    AfterStack,
    StackedTile,
    StackSettings,
    create_master_tile,
)
from zemosaic_stack_core.phase3.tile_record import DroppedFrame, FrameUse, TileOutcome, TileRecord
from zemosaic_stack_core.zemosaic.master_tile import _stack_master_tile_auto, _stack_master_tile_cpu

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
