"""Numbers for people: sizes, durations, parts of a whole, counts."""

from __future__ import annotations


def size_text(size: float) -> str:
    """Return a number of bytes in decimal units: ``1.34 GB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000.0
    return f"{size:.3g} TB"


def time_text(seconds: float) -> str:
    """Return a duration: ``0.42 s``, ``37 s``, ``2 min 5 s``, ``3 h 07 min``."""
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def percent_of(part: float, whole: float) -> float:
    """Return a part of a whole in percent; 0 of nothing."""
    return 100.0 * part / whole if whole else 0.0


def percent_text(percent: float, digits: str = ".2f") -> str:
    """Return a number of percent: ``12.50 %``."""
    return f"{percent:{digits}} %"


def count_text(count: int, noun: str) -> str:
    """Return a number of things: ``1 frame``, ``2 frames``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
