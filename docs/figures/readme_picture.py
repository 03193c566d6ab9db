"""Make the picture at the top of the README from the synthetic night: ``python docs/figures/readme_picture.py``.

Writes ``docs/images/demo.jpg`` and needs the extra ``docs``.
"""

from __future__ import annotations

from pathlib import Path

from side_by_side import Panel, draw

from zemosaic_stack_core import StackOptions, stack
from zemosaic_stack_core.stacking.pictures import bin_down, color_map, stretch
from zemosaic_stack_core.synthetic.night import SyntheticNight

TARGET = Path(__file__).parents[1] / "images" / "demo.jpg"


def main() -> None:
    """Stack the night and draw a single frame, the master and the coverage."""
    night = SyntheticNight()
    frames = [night.frame(index) for index in range(night.n_frames)]
    options = StackOptions(rejection="winsorized_sigma_clip", normalization="linear_fit", weighting="noise_variance")
    result = stack(frames, options=options, maps=("coverage",))
    if result.coverage is None:
        raise AssertionError("the coverage was asked for")
    index, most = night.satellite_frames[0], int(result.coverage.max())
    coverage = color_map(result.coverage.min(axis=2), 0, most)
    draw(
        TARGET,
        [
            Panel("A single frame", "dithered, with a satellite", stretch(bin_down(frames[index], 600))),
            Panel("The master", f"{night.n_frames} frames", stretch(bin_down(result.image, 600))),
            Panel("Coverage", f"samples combined at each pixel, up to {most}", coverage),
        ],
    )


if __name__ == "__main__":
    main()
