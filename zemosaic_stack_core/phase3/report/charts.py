"""Charts of a run as SVG text: bars over the tiles, several series on top of each other."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

_WIDTH, _HEIGHT = 620, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 6, 10, 26
_TICKS = 4


@dataclass(frozen=True)
class Series:
    """One value per tile.

    Parameters
    ----------
    label : str
        What the legend calls it.
    color : str
        CSS color.
    values : sequence of float
        At least 0.
    """

    label: str
    color: str
    values: Sequence[float]


def bar_chart(title: str, unit: str, labels: Sequence[str], series: Sequence[Series]) -> str:
    """Return a figure with stacked bars.

    Parameters
    ----------
    title, unit : str
        Of the chart and of its vertical axis.
    labels : sequence of str
        One per tile.
    series : sequence of Series
        The lowest first. The page's script shows a tile's values under the pointer.
    """
    count = len(labels)
    totals = [sum(one.values[index] for one in series) for index in range(count)]
    top = _nice_above(max(totals, default=0.0))
    inner_width, inner_height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    step = inner_width / max(count, 1)
    gap = min(0.25 * step, 4.0) if step > 3 else 0.0
    width = min(step - gap, 48.0)
    floor = [0.0] * count
    paths = []
    for one in series:
        bars = []
        for index, value in enumerate(one.values):
            if value > 0.0:
                x = _LEFT + step * index + (step - width) / 2
                y = _TOP + inner_height * (1.0 - floor[index] / top)
                bars.append(f"M{x:.1f} {y:.1f}h{width:.2f}v{-inner_height * value / top:.2f}h{-width:.2f}z")
                floor[index] += value
        paths.append(f'<path fill="{one.color}" d="{"".join(bars)}"/>')
    grid = "".join(_tick(top * number / _TICKS, top, inner_height) for number in range(_TICKS + 1))
    legend = "".join(
        f'<span><i style="background:{one.color}"></i>{html.escape(one.label)}</span>' for one in series if one.label
    )
    names = "".join(_name(index, labels, step) for index in _named(count))
    shape = f'x="{_LEFT}" y="{_TOP}" width="{inner_width}" height="{inner_height}"'
    return (
        f'<figure class="chart" data-unit="{html.escape(unit)}"><figcaption><b>{html.escape(title)}</b>'
        f"<em>{html.escape(unit)}</em>{legend}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(title)}">'
        f"{grid}{''.join(paths)}{names}"
        f'<rect class="mark" y="{_TOP}" height="{inner_height}" width="{max(step, 2):.2f}"/>'
        f'<rect class="field" {shape} data-count="{count}"/></svg></figure>'
    )


def _nice_above(value: float) -> float:
    """Return a round number that is at least the value and above 0."""
    if value <= 0.0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(
        power * factor for factor in (1.0, 1.2, 1.6, 2.0, 2.4, 3.2, 4.0, 6.0, 8.0, 10.0) if power * factor >= value
    )


def _tick(value: float, top: float, inner_height: float) -> str:
    """Return a horizontal line with its number."""
    y = _TOP + inner_height * (1.0 - value / top)
    return (
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>'
    )


def _named(count: int) -> range:
    """Return the tiles whose label there is room for."""
    return range(0, count, max(1, -(-count // 16)))


def _name(index: int, labels: Sequence[str], step: float) -> str:
    """Return the label of a tile below its bar."""
    x = _LEFT + step * (index + 0.5)
    return f'<text x="{x:.1f}" y="{_HEIGHT - 8}" text-anchor="middle">{html.escape(labels[index])}</text>'
