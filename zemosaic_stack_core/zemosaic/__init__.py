"""How the existing ZeMosaic program calls this library: its names, its settings, its plan."""

from __future__ import annotations
