"""Frames as the telescope wrote them: calibrate, debayer, register, resample; then the stacker takes over.

Needs the extra ``prepare``. The stacking library knows nothing of this package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zemosaic_stack_core.prepare.options import PrepareOptions

if TYPE_CHECKING:
    from zemosaic_stack_core.prepare.pipeline import prepare_frames
    from zemosaic_stack_core.prepare.raw_policy import RawPolicy
    from zemosaic_stack_core.prepare.records import PreparedFrame, PreparedGroup

__all__ = ["PrepareOptions", "PreparedFrame", "PreparedGroup", "RawPolicy", "prepare_frames"]

# The modules of what is imported when it is asked for: whoever stacks aligned frames does not pay for it.
_LATER = {
    "PreparedFrame": "records",
    "PreparedGroup": "records",
    "RawPolicy": "raw_policy",
    "prepare_frames": "pipeline",
}


def __getattr__(name: str) -> Any:
    """Import what is not here yet."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_LATER[name]}", __name__), name)
