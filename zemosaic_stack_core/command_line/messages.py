"""What a command says: the answer on standard output, everything else on standard error."""

from __future__ import annotations

import json
import math
import sys
from typing import Any

__all__ = ["answer", "answer_json", "one_line", "say", "size_text", "time_text"]


def answer(text: str = "") -> None:
    """Write a line of what was asked for to standard output."""
    sys.stdout.write(text + "\n")


def answer_json(value: dict[str, Any]) -> None:
    """Write a machine-readable answer to standard output; what is not finite becomes null."""
    sys.stdout.write(json.dumps(_json_value(value), indent=2, allow_nan=False) + "\n")


def say(text: str) -> None:
    """Write a line about the work to standard error."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def one_line(error: BaseException) -> str:
    """Return an error's message on one line; its class where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def size_text(size: float) -> str:
    """Return a number of bytes for people, decimal units: ``1.3 GB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} {unit}" if size >= 99.5 or unit == "B" else f"{size:.2g} {unit}"
        size /= 1000.0
    return f"{size:.3g} TB"


def time_text(seconds: float) -> str:
    """Return a duration for people: ``0.42 s``, ``37 s``, ``2 min 5 s``."""
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _json_value(value: Any) -> Any:
    """Return a value that JSON has."""
    if isinstance(value, dict):
        return {str(key): _json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_value(item) for item in value]
    if hasattr(value, "item"):  # a number of NumPy's
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int)) else str(value)
