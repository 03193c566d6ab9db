"""Draw what each rule of rejection does with so many frames: ``python docs/figures/rejection.py``.

Writes ``docs/images/rejection.png`` and needs the extra ``docs``. The figures are the adviser's: the rules themselves,
run on simulated frames.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

mpl.use("agg")
import matplotlib.pyplot as plt

from zemosaic_stack_core import StackOptions
from zemosaic_stack_core.stacking.adviser import Advice, advise

TARGET = Path(__file__).parents[1] / "images" / "rejection.png"
FRAMES = (3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 24, 32, 48, 64, 100)
RULES = {
    "kappa_sigma": "#1f77b4",
    "winsorized_sigma_clip": "#d62728",
    "mad_clip": "#2ca02c",
    "linear_fit_clip": "#9467bd",
    "gesd": "#ff7f0e",
}


def main() -> None:
    """Ask the adviser, draw three panels."""
    advice: dict[str, list[Advice]] = {
        rule: [advise(n, StackOptions(rejection=rule), is_thorough=True) for n in FRAMES] for rule in RULES
    }
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained")
    for rule, color in RULES.items():
        found = advice[rule]
        line = "o--" if rule == "mad_clip" else "o-"  # it often lies on winsorized_sigma_clip
        loss = [100 * (one.clean_loss or 0.0) for one in found]
        left.plot(FRAMES, [max(percent, 1e-2) for percent in loss], line, color=color, markersize=3, label=rule)
        most = [100 * one.most_outliers / one.n_frames for one in found]
        middle.plot(FRAMES, most, line, color=color, markersize=3)
        seen = [(one.n_frames, one.least_amplitude) for one in found if one.least_amplitude is not None]
        right.plot(*zip(*seen, strict=True), line, color=color, markersize=3)
    left.set(title="Clean data rejected", ylabel="% of samples (0.01: less)", yscale="log")
    left.legend(frameon=False, fontsize="small")
    middle.set(title="Bright outliers on one pixel, all rejected", ylabel="% of the frames, at most")
    right.set(title="Faintest single outlier rejected, 9 times in 10", ylabel="standard deviations", yscale="log")
    right.set_yticks([3, 5, 10, 20, 50, 100], ["3", "5", "10", "20", "50", "100"])
    for axes in (left, middle, right):
        axes.set_xscale("log")
        axes.set_xticks([3, 5, 8, 12, 20, 32, 64, 100], ["3", "5", "8", "12", "20", "32", "64", "100"])
        axes.minorticks_off()
        axes.set_xlabel("frames")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(TARGET, dpi=110)


if __name__ == "__main__":
    main()
