"""Pictures beside each other in one picture, for the scripts beside this one: needs the extra ``docs``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl

mpl.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt

PAPER, BRIGHT, DIM = "#101218", "#eceff4", "#98a0b0"
# Pixels: of the picture, between and above its panels.
WIDTH, GAP, HEADING = 1680, 28, 76
DPI = 120


@dataclass(frozen=True)
class Panel:
    """A picture (row, column, 3) as `zemosaic_stack_core.stacking.pictures` makes it, and two lines above it."""

    title: str
    line: str
    picture: npt.NDArray[np.uint8]


def draw(target: Path, panels: list[Panel]) -> None:
    """Write panels of one height as a JPEG, row 0 of each at the bottom."""
    aspects = [panel.picture.shape[1] / panel.picture.shape[0] for panel in panels]
    height = (WIDTH - (len(panels) + 1) * GAP) / sum(aspects)
    whole = height + HEADING + GAP
    figure = plt.figure(figsize=(WIDTH / DPI, whole / DPI), facecolor=PAPER)
    left = float(GAP)
    for panel, aspect in zip(panels, aspects, strict=True):
        width = height * aspect
        axes = figure.add_axes((left / WIDTH, GAP / whole, width / WIDTH, height / whole))
        axes.imshow(panel.picture, origin="lower", aspect="auto", interpolation="antialiased")
        axes.axis("off")
        top = (GAP + height) / whole
        figure.text(left / WIDTH, top + 36 / whole, panel.title, color=BRIGHT, fontsize=13)
        figure.text(left / WIDTH, top + 12 / whole, panel.line, color=DIM, fontsize=9)
        left += width + GAP
    figure.savefig(target, dpi=DPI, pil_kwargs={"quality": 84, "optimize": True, "progressive": True})
