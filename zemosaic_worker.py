"""The worker: Phase 3 for ZeMosaic, and the command line ``zemosaic-worker`` (also ``python -m zemosaic_worker``).

`create_master_tile`, `_stack_master_tile_cpu` and `_stack_master_tile_auto` live in `zemosaic_stack_core.phase3` and
can be imported from here. They are loaded when they are first asked for, so that ``zemosaic-worker --help`` needs none
of what they need. This file stays in the repository: installed, it would hide ZeMosaic's own module of this name.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from zemosaic_stack_core.command_line import main

if TYPE_CHECKING:
    from zemosaic_stack_core.phase3 import _stack_master_tile_auto, _stack_master_tile_cpu, create_master_tile

__all__ = ["_stack_master_tile_auto", "_stack_master_tile_cpu", "create_master_tile", "main"]


def __getattr__(name: str) -> Any:
    """Load a function of Phase 3 when it is first asked for."""
    if name in __all__:
        return getattr(importlib.import_module("zemosaic_stack_core.phase3"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if __name__ == "__main__":
    raise SystemExit(main())
