"""How preparing a raw night grows with the number of its frames: small frames, headers of a real telescope."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from zemosaic_stack_core.synthetic.raw_night import RawNight

from .measure import measure

# The cards that a Seestar writes besides those of a synthetic frame.
_CARDS = {
    "CREATOR": "ZWO Seestar S50",
    "PRODUCER": "ZWO",
    "XORGSUBF": 0,
    "YORGSUBF": 0,
    "FOCALLEN": 250,
    "APERTURE": 5.0,
    "EQMODE": 1,
    "PROGRAM": "4.70",
    "XBINNING": 1,
    "YBINNING": 1,
    "CCDXBIN": 1,
    "CCDYBIN": 1,
    "XPIXSZ": 2.90000009536743,
    "YPIXSZ": 2.90000009536743,
    "RA": 315.57084,
    "DEC": 68.282778,
    "FILTER": "IRCUT",
    "INSTRUME": "Seestar S50",
    "GAIN": 80,
    "FOCUSPOS": 1670,
    "TELESCOP": "S50_0753de24",
    "OBJECT": "NGC 7023",
    "TOTALEXP": 30.0,
}
# Run in a process of its own.
_PREPARE = """
import sys, tempfile
from pathlib import Path
from zemosaic_stack_core.prepare import prepare_frames
folder, workers = Path(sys.argv[1]), int(sys.argv[2])
with tempfile.TemporaryDirectory(dir=folder.parent) as cache:
    prepare_frames(sorted(folder.iterdir()), cache_folder=cache, workers=workers)
"""


@dataclass(frozen=True, kw_only=True)
class NightRow:
    """One night prepared: seconds, and peak memory in bytes."""

    frames: int
    rows: int
    columns: int
    workers: int
    wall: float
    cpu: float
    peak: int


def measure_long_nights(folder: Path, *, is_tiny: bool = False, workers: int = 2) -> list[NightRow]:
    """Prepare ever longer parts of a night, each spread over all of it."""
    counts, shape = ((4, 6), (90, 120)) if is_tiny else ((24, 100, 300, 1000, 3000), (270, 480))
    night = RawNight(n_frames=counts[-1], shape=shape, n_stars=120, pattern="GRBG", shift=6.0, turn=1.0)
    lights = write_night(night, folder / "night")
    rows = []
    for count in counts:
        part = folder / "part"
        part.mkdir()
        for index in range(count):
            light = lights[index * len(lights) // count]
            (part / light.name).hardlink_to(light)
        taken = measure([sys.executable, "-c", _PREPARE, str(part), str(workers)])
        shutil.rmtree(part)
        rows.append(
            NightRow(
                frames=count,
                rows=shape[0],
                columns=shape[1],
                workers=workers,
                wall=taken.wall,
                cpu=taken.cpu,
                peak=taken.peak,
            )
        )
    return rows


def write_night(night: RawNight, folder: Path) -> list[Path]:
    """Write a night's lights with the cards of a Seestar."""
    from astropy.io import fits

    lights = night.write(folder)
    for index, path in enumerate(lights):
        with fits.open(path, mode="update") as file:
            file[0].header.update(_CARDS)
            file[0].header["CCD-TEMP"] = 31.0 + 0.0625 * (index % 9)
    return lights
