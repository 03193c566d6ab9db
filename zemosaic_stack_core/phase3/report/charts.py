"""Where the bars, ticks and names of a chart of a run stand; the template draws them as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

# Steps of an axis, and labels under it, that there is room for.
_TICKS = 4
_NAMES = 16


@dataclass(frozen=True)
class Series:
    """One value of at least 0 per tile, a name for the legend, and a CSS color."""

    label: str
    color: str
    values: Sequence[float]


@dataclass(frozen=True)
class Chart:
    """Bars over the tiles, the series on top of each other, the first at the bottom; places are in SVG units."""

    title: str
    unit: str
    labels: Sequence[str]
    series: Sequence[Series]

    width: ClassVar[int] = 620
    height: ClassVar[int] = 190
    # Of the bars' field.
    left: ClassVar[int] = 52
    right: ClassVar[int] = 614
    top: ClassVar[int] = 10
    bottom: ClassVar[int] = 164

    @property
    def step(self) -> float:
        """Room of a tile along the axis."""
        return (self.right - self.left) / max(len(self.labels), 1)

    @cached_property
    def most(self) -> float:
        """Value at the top."""
        return _nice_above(
            max((sum(values) for values in zip(*(one.values for one in self.series), strict=True)), default=0.0)
        )

    def _y(self, value: float) -> float:
        """Return the height at which a value stands."""
        return round(self.bottom - (self.bottom - self.top) * value / self.most, 2)

    def bars(self) -> Iterator[tuple[Series, str]]:
        """Yield each series with the SVG path of its bars."""
        gap = min(0.25 * self.step, 4.0) if self.step > 3.0 else 0.0
        width = min(self.step - gap, 48.0)
        floor = [0.0] * len(self.labels)
        for one in self.series:
            path = []
            for index, value in enumerate(one.values):
                if value > 0.0:
                    x = self.left + self.step * index + (self.step - width) / 2
                    low, high = self._y(floor[index]), self._y(floor[index] + value)
                    path.append(f"M{x:.1f} {low}h{width:.2f}v{high - low:.2f}h{-width:.2f}z")
                    floor[index] += value
            yield one, "".join(path)

    def ticks(self) -> Iterator[tuple[float, str]]:
        """Yield height and text of the lines across the field."""
        for number in range(_TICKS + 1):
            value = self.most * number / _TICKS
            yield self._y(value), f"{value:.4g}"

    def names(self) -> Iterator[tuple[float, str]]:
        """Yield place and text of the tiles' labels, as many as there is room for."""
        for index in range(0, len(self.labels), max(1, -(-len(self.labels) // _NAMES))):
            yield round(self.left + self.step * (index + 0.5), 1), self.labels[index]


def _nice_above(value: float) -> float:
    """Return a round number that is at least the value and above 0."""
    if value <= 0.0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(
        power * factor for factor in (1.0, 1.2, 1.6, 2.0, 2.4, 3.2, 4.0, 6.0, 8.0, 10.0) if power * factor >= value
    )
