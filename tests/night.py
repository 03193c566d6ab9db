"""Small nights for the tests of a run: plans on disk, the command line in this process, tiles compared."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io import fits

from zemosaic_stack_core.command_line import main


def make_frame(seed: int, index: int, shape: tuple[int, ...] = (24, 32)) -> npt.NDArray[np.float32]:
    """Make a frame of noise on a sky of 100, NaN at two borders, an outlier."""
    rng = np.random.default_rng([seed, index])
    frame = rng.normal(100.0, 3.0, shape).astype(np.float32)
    rows, columns = rng.integers(0, 3, 2)
    frame[:rows] = np.nan
    frame[:, shape[1] - columns :] = np.nan
    frame[tuple(rng.integers(4, 20, 2))] += np.float32(500.0)
    return frame


def write_frame(path: Path, frame: npt.NDArray[Any]) -> Path:
    """Write a frame as FITS (planes of channels first) or .npy."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, frame)
        return path
    hdu = fits.PrimaryHDU(frame if frame.ndim == 2 else np.moveaxis(frame, 2, 0))
    hdu.header["EXPTIME"] = 10.0
    hdu.header["CTYPE1"], hdu.header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    hdu.header["CRVAL1"], hdu.header["CRVAL2"] = 10.0, 20.0
    hdu.header["CRPIX1"], hdu.header["CRPIX2"] = 16.0, 12.0
    hdu.header["CDELT1"], hdu.header["CDELT2"] = -0.001, 0.001
    hdu.writeto(path, overwrite=True)
    return path


def write_night(
    folder: Path, tiles: int = 3, frames: int = 6, shape: tuple[int, ...] = (24, 32), suffix: str = ".fits"
) -> Path:
    """Write a folder of tiles and return it."""
    for tile in range(1, tiles + 1):
        for index in range(frames):
            write_frame(folder / f"tile_{tile}" / f"light_{index + 1}{suffix}", make_frame(tile, index, shape))
    return folder


def write_long_plan(folder: Path, tiles: int = 400) -> Path:
    """Write a plan that takes its time: the same few frames for every tile."""
    write_night(folder / "night", tiles=1, frames=4)
    entries = [{"frames": ["night/tile_1"]} for _ in range(tiles)]
    plan = folder / "plan.json"
    plan.write_text(json.dumps({"tiles": entries}), encoding="utf-8")
    return plan


def run(plan: Path, output: Path, *arguments: str) -> int:
    """Run the command in this process; on the CPU unless the arguments say otherwise."""
    backend = () if "--backend" in arguments else ("--backend", "cpu")
    return main(["run", str(plan), "-o", str(output), *backend, *arguments])


def start(plan: Path, output: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start the command in a process of its own, on the CPU unless the arguments say otherwise."""
    backend = [] if "--backend" in arguments else ["--backend", "cpu"]
    command = ["run", str(plan), "-o", str(output), *backend, *arguments]
    code = (
        "import signal, sys; from zemosaic_stack_core.command_line import main; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); "  # a shell's background jobs ignore it
        f"sys.exit(main({command!r}))"
    )
    root = Path(__file__).parents[1]
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, cwd=root)


def tiles_of(output: Path) -> dict[str, str]:
    """Return the SHA-256 of each tile's file."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(output.glob("*.fits"))}


def report_of(output: Path, name: str = "report") -> dict[str, Any]:
    """Return the JSON report."""
    return json.loads((output / f"{name}.json").read_text(encoding="utf-8"))


def outcomes(output: Path) -> list[str]:
    """Return the outcome of each tile in the plan's order."""
    return [tile["outcome"] for tile in report_of(output)["tiles"]]


def leftovers(output: Path, expected: Sequence[str] = ("report.json", "report.html")) -> list[str]:
    """Return the names in the output folder that are neither tiles nor expected."""
    return sorted(
        path.name
        for path in output.iterdir()
        if path.name not in expected and not (path.name.startswith("master_tile_") and path.suffix == ".fits")
    )


def pixels_of(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Return every image of a tile by name."""
    with fits.open(path) as hdus:
        return {hdu.name: np.array(hdu.data) for hdu in hdus if hdu.is_image}
