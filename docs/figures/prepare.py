"""Make the picture of docs/prepare.md from our own raw night: ``python docs/figures/prepare.py``.

Writes ``docs/images/prepare.jpg``: a raw frame, the master of all, and how many frames each pixel of it has. Needs the
extra ``docs``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from side_by_side import Panel, draw

from zemosaic_stack_core import StackOptions, stack
from zemosaic_stack_core.frames.pixel_rows import FilePool
from zemosaic_stack_core.prepare import PrepareOptions, prepare_frames
from zemosaic_stack_core.prepare.headers.raw_frame import inspect_frame
from zemosaic_stack_core.stacking.pictures import color_map, stretch
from zemosaic_stack_core.synthetic.raw_night import RawNight

TARGET = Path(__file__).parents[1] / "images" / "prepare.jpg"
NIGHT = RawNight(
    n_frames=16,
    shape=(360, 480),
    n_stars=1500,
    pattern="GRBG",
    turn=24.0,
    shift=14.0,
    hot_fraction=0.003,
    trails=(5,),
    brightest=250000.0,
)


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
        most = int(master.coverage.max())
        coverage = color_map(np.where(master.coverage > 0, master.coverage, np.nan).min(axis=2), 0, most)
        with FilePool() as files:
            raw = inspect_frame(paths[5]).read_pixels(files)
        draw(
            TARGET,
            [
                Panel("A raw frame", "Bayer mosaic, hot pixels, a satellite", stretch(raw)),
                Panel("The master", "16 frames over 24 degrees, --levels plane", stretch(master.image)),
                Panel("Coverage", f"frames at each pixel of the canvas, up to {most}", coverage),
            ],
        )


if __name__ == "__main__":
    main()
