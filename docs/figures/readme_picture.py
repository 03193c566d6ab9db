"""Make the picture at the top of the README from the synthetic night: ``python docs/figures/readme_picture.py``.

Writes ``docs/images/demo.jpg``, the same bytes for the same versions of this program and of Pillow.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from PIL import Image

from zemosaic_stack_core import StackOptions, stack
from zemosaic_stack_core.master.panels import Panel, save_panels
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
    index = night.satellite_frames[0]
    panels = [
        Panel(title="A single frame", subtitle="dithered, with a satellite", image=frames[index]),
        Panel(title="The master", subtitle=f"{night.n_frames} frames", image=result.image),
        Panel(
            title="Coverage",
            subtitle="samples combined at each pixel",
            image=result.coverage.min(axis=2),
            kind="map",
            unit="frames",
        ),
    ]
    with tempfile.TemporaryDirectory() as folder:
        drawn = save_panels(Path(folder) / "demo.png", panels, width=1680)
        with Image.open(drawn) as picture:
            TARGET.parent.mkdir(parents=True, exist_ok=True)
            picture.convert("RGB").save(TARGET, quality=84, optimize=True, progressive=True)


if __name__ == "__main__":
    main()
