"""Frames behind a URL: read once with fsspec, into a file of the scratch folder."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import FrameReadError, InvalidInputError
from zemosaic_stack_core.frames.scratch import ScratchFolder

_PIECE = 1 << 20


def split_url(name: str) -> tuple[str, str | None]:
    """Return the URL of a name, and the extension that it names, as in ``https://host/x.fits[SCI,2]``."""
    found = re.fullmatch(r"(.+)\[([^\[\]]+)\]", name)
    return (name, None) if found is None else (found[1], found[2])


def local_copy(url: str, scratch: ScratchFolder) -> Path:
    """Return a copy of what is behind a URL; raise where it can't be read."""
    try:
        import fsspec
    except ImportError:
        raise InvalidInputError(
            f"{url}: URLs are read with fsspec, which is not installed; expected: python -m pip install fsspec"
        ) from None

    def pieces() -> Iterator[npt.NDArray[Any]]:
        try:
            with fsspec.open(url, "rb") as file:
                while piece := file.read(_PIECE):
                    yield np.frombuffer(piece, np.uint8)
        except (OSError, ValueError, ImportError) as error:  # the last: a protocol whose package is not installed
            reason = "no such file" if isinstance(error, FileNotFoundError) else str(error) or type(error).__name__
            raise FrameReadError(f"{url}: {reason}; expected a file that fsspec can read") from error

    return scratch.store(pieces(), url)
