"""Stack a folder of simple FITS files with a peer's library, or only read it.

``python peer.py NAME OPERATION FOLDER OUT``

In favor of the peers: files are read into the cube with one call each, and the result is written as a bare array.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_BLOCK = 2880


def open_pixels(path: Path) -> npt.NDArray[Any]:
    """Map the pixels of a FITS file, as its bytes are."""
    with path.open("rb") as file:
        cards: dict[str, str] = {}
        blocks = 0
        while "END" not in cards:
            block = file.read(_BLOCK).decode("ascii")
            blocks += 1
            for start in range(0, _BLOCK, 80):
                card = block[start : start + 80]
                cards[card[:8].strip()] = card[10:].partition("/")[0].strip()
        shape = tuple(int(cards[f"NAXIS{axis}"]) for axis in range(int(cards["NAXIS"]), 0, -1))
        file.seek(blocks * _BLOCK)
        dtype = {"-32": ">f4", "16": ">i2"}[cards["BITPIX"]]
        return np.fromfile(file, dtype, int(np.prod(shape))).reshape(shape)


def read_cube(folder: Path) -> npt.NDArray[np.float32]:
    """Read all frames into float32 in this machine's byte order."""
    paths = sorted(folder.glob("*.fits"))
    first = open_pixels(paths[0])
    cube = np.empty((len(paths), *first.shape), np.float32)
    for index, path in enumerate(paths):
        cube[index] = open_pixels(path)
    return cube


def read_only(folder: Path) -> npt.NDArray[np.float32]:
    """Read all frames into one buffer, one after the other: the floor of any stacker on one core."""
    paths = sorted(folder.glob("*.fits"))
    buffer = np.empty(open_pixels(paths[0]).shape, np.float32)
    for path in paths:
        buffer[...] = open_pixels(path)
    return buffer


def stack_with(name: str, operation: str, cube: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    """Combine a cube of shape (frame, row, column)."""
    if name == "reducers":
        import reducers

        if operation in ("mean", "median"):
            return np.asarray(getattr(reducers, operation)(cube, axis=0))
        spread = "mad" if operation == "MAD clip" else "std"
        return np.asarray(reducers.sigclip_combine(cube, combine="mean", sigma=3.0, maxiters=5, stdfunc=spread))
    if name == "bottleneck":
        import bottleneck

        return np.asarray(bottleneck.median(cube, axis=0))
    if operation in ("mean", "median"):
        return np.asarray(getattr(np, operation)(cube, axis=0))
    from astropy.stats import sigma_clip

    spread = "mad_std" if operation == "MAD clip" else "std"
    clipped = sigma_clip(
        cube, sigma=3.0, maxiters=5, cenfunc="median", stdfunc=spread, axis=0, masked=False, copy=False
    )
    return np.asarray(np.nanmean(clipped, axis=0))


def main() -> None:
    """Read, stack, write."""
    name, operation, folder, output = sys.argv[1:]
    if name == "floor":
        result: npt.NDArray[Any] = read_only(Path(folder))
    else:
        result = stack_with(name, operation, read_cube(Path(folder)))
    np.save(output, result)


if __name__ == "__main__":
    main()
