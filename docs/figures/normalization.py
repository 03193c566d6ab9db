"""Draw what each normalization leaves of a changing sky: ``python docs/figures/normalization.py``.

Writes ``docs/images/normalization.png`` and needs the extra ``docs``. Seven made-up frames of one sky differ in gain
(0.8 to 1.2) and offset (+-20); the first is the reference.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt

from zemosaic_stack_core import StackOptions
from zemosaic_stack_core.frames.group import open_frames
from zemosaic_stack_core.options import NORMALIZATIONS
from zemosaic_stack_core.per_frame.numbers import estimate_frame_numbers

TARGET = Path(__file__).parents[1] / "images" / "normalization.png"
GAINS = (1.0, 0.8, 0.9, 1.1, 1.2, 1.0, 1.0)
OFFSETS = (0.0, 20.0, -20.0, 20.0, -20.0, 20.0, -20.0)
NOISE = 20.0
COLORS = ("#7f7f7f", "#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e")

Image = npt.NDArray[np.float64]


def make_night() -> tuple[Image, list[npt.NDArray[np.float32]]]:
    """Return the true sky, with a nebula and a gradient, and the frames."""
    random = np.random.default_rng(8)
    y, x = np.linspace(0, 1, 480)[:, None], np.linspace(0, 1, 540)[None]
    truth = 1000 + 30 * x + 10 * y + 600 * np.exp(-((x - 0.5) ** 2 + (y - 0.4) ** 2) / 0.01)
    frames = [
        (gain * (truth + random.normal(0, NOISE, truth.shape)) + offset).astype(np.float32)
        for gain, offset in zip(GAINS, OFFSETS, strict=True)
    ]
    return truth, frames


def errors(truth: Image, frames: list[npt.NDArray[np.float32]], normalization: str) -> tuple[Image, Image]:
    """Return, for every frame, how far the dark sky is from the reference's, and the nebula's flux above it."""
    numbers = estimate_frame_numbers(open_frames(frames), StackOptions(normalization=normalization, reference=0))
    count = len(frames)
    scale = np.ones(count) if numbers.scale is None else numbers.scale[:, 0]
    offset = np.zeros(count) if numbers.offset is None else numbers.offset[:, 0]
    dark, bright = truth < np.percentile(truth, 50), truth > np.percentile(truth, 99)
    images = [frame * one + other for frame, one, other in zip(frames, scale, offset, strict=True)]
    level = np.array([np.mean(image[dark], dtype=np.float64) for image in images])
    flux = np.array([np.mean(image[bright], dtype=np.float64) for image in images]) - level
    return (level - level[0]) / NOISE, 100 * (flux / flux[0] - 1)


def main() -> None:
    """Draw two panels: the level of the sky, and the flux of what stands above it."""
    truth, frames = make_night()
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    place = np.arange(len(frames))
    for index, (normalization, color) in enumerate(zip(NORMALIZATIONS, COLORS, strict=True)):
        level, flux = errors(truth, frames, normalization)
        shifted = place + 0.12 * (index - 2.5)
        left.plot(shifted, level, "o", color=color, markersize=5, label=normalization)
        right.plot(shifted, flux, "o", color=color, markersize=5)
    labels = [f"x {gain:g}\n{offset:+g}" for gain, offset in zip(GAINS, OFFSETS, strict=True)]
    left.set(title="Dark sky, off the reference's level", ylabel="noise per pixel")
    left.set_yscale("symlog", linthresh=0.1)
    left.legend(frameon=False, fontsize="small", loc="lower left")
    right.set(title="Flux of the nebula above the sky, off the reference's", ylabel="%")
    for axes in (left, right):
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set_xticks(place, labels)
        axes.set_xlabel("frame: gain and offset")
        axes.grid(alpha=0.3, axis="y")
        axes.spines[["top", "right"]].set_visible(False)
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(TARGET, dpi=110)


if __name__ == "__main__":
    main()
