"""Numbers from sums about a pivot."""

from __future__ import annotations

from zemosaic_stack_core._typing import Array, Namespace

__all__ = ["standard_deviation"]


def standard_deviation(xp: Namespace, first: Array, second: Array, count: Array, ddof: int) -> Array:
    """Give ``sqrt((sum d^2 - (sum d)^2/n) / (n - ddof))`` from sums about a pivot, float64; 0 where ``n <= ddof``."""
    residue = second - first * first / count
    divisor = xp.maximum(count - float(ddof), xp.ones_like(count))
    return xp.sqrt(xp.maximum(residue, xp.zeros_like(residue)) / divisor)
