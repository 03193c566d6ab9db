"""Is the GPU sane, and what became of it during a run. CuPy itself is named in ``backends`` only."""

from __future__ import annotations
