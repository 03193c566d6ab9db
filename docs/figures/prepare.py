"""Make the picture of docs/prepare.md from our own raw night: ``python docs/figures/prepare.py``.

Writes ``docs/images/prepare.jpg``: a raw frame, the master of all, and how many frames each pixel of it has.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from zemosaic_stack_core import StackOptions, stack
from zemosaic_stack_core.master.panels import Panel, save_panels
from zemosaic_stack_core.prepare import PrepareOptions, prepare_frames
from zemosaic_stack_core.prepare.headers.inventory import read_pixels
from zemosaic_stack_core.synthetic.raw_night import RawNight

TARGET = Path(__file__).parents[1] / "images" / "prepare.jpg"
NIGHT = RawNight(
    n_frames=16, shape=(360, 480), n_stars=1500, pattern="GRBG", turn=24.0, shift=14.0, hot_fraction=0.003, trails=(5,),
    brightest=250000.0,
)  # fmt: skip


def main() -> None:
    """Prepare and stack the night, and draw it."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        paths = NIGHT.write(folder / "raw", darks=5, biases=5, flats=5)
        # The sky of this night has a gradient that turns with the field: a plane per frame.
        group = prepare_frames(paths, PrepareOptions(levels="plane"), cache_folder=folder / "cache")
        options = StackOptions(rejection="winsorized_sigma_clip")
        master = stack(group.paths, options=options, maps=("coverage",))
        if master.coverage is None:
            raise AssertionError("the coverage was asked for")
        panels = [
            Panel(title="A raw frame", subtitle="Bayer mosaic, hot pixels, a satellite", image=read_pixels(paths[5])),
            Panel(
                title="The master",
                subtitle="16 frames over 24 degrees, --levels plane",
                image=master.image,
            ),
            Panel(
                title="Coverage",
                subtitle="frames at each pixel of the canvas",
                image=master.coverage.min(axis=2).astype(np.int32),
                kind="map",
                unit="frames",
            ),
        ]
        drawn = save_panels(folder / "prepare.png", panels, width=1680)
        with Image.open(drawn) as picture:
            picture.convert("RGB").save(TARGET, quality=84, optimize=True, progressive=True)


if __name__ == "__main__":
    main()
