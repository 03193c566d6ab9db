"""Frames as the telescope wrote them: calibrate, debayer, register, resample; then the stacker takes over.

Needs the extra ``prepare``. The stacking library knows nothing of this package.
"""

from __future__ import annotations

from .options import PrepareOptions
from .pipeline import prepare_frames
from .records import PreparedFrame, PreparedGroup

__all__ = ["PrepareOptions", "PreparedFrame", "PreparedGroup", "prepare_frames"]
