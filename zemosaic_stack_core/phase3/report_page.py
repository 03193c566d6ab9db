"""The page of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zemosaic_stack_core.atomic import atomic_output

from .previews import TilePictures

__all__ = ["write_page"]


def write_page(path: Path, values: Mapping[str, Any], pictures: Mapping[int, TilePictures]) -> Path:
    """Write the page of a run."""
    with atomic_output(path, overwrite=True) as file:
        file.write(f"<title>{len(values)} {len(pictures)}</title>".encode())
    return path
