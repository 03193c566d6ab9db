"""Masters read back: `read_master`, `read_signature`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import FrameReadError
from zemosaic_stack_core.fits.astropy_reads import open_fits
from zemosaic_stack_core.fits.cards import read_first_header
from zemosaic_stack_core.master.frames_table import read_frames_table
from zemosaic_stack_core.master.option_cards import read_options, read_planes_given
from zemosaic_stack_core.master.tile import MAP_EXTENSIONS, MasterTile
from zemosaic_stack_core.stacking.result import FrameRecords, StackResult

if TYPE_CHECKING:
    from astropy.io import fits


def read_master(path: str | os.PathLike[str]) -> MasterTile:
    """Read a master back: the image as ``(row, column[, channel])``, every map, the options and the frames.

    Parameters
    ----------
    path : path
        A file that `write_master` wrote. Its checksums are not verified: see `find_damage`.

    Raises
    ------
    FrameReadError
        Not a file that astropy can read, or not a master of this program.
    """
    source = Path(path)
    with open_fits(source, str(source), "a master tile written by zemosaic-stack-core", memmap=True) as hdus:
        return _read_hdus(hdus, source)


def read_signature(path: str | os.PathLike[str]) -> str:
    """Return the signature that a master was written with; empty without one, or without such a file."""
    return read_first_header(path).get("ZSC_SIGN") or ""


def _read_hdus(hdus: fits.HDUList, source: Path) -> MasterTile:
    """Return what an open master holds."""
    header = hdus[0].header.copy()
    options = read_options(header, str(source))
    by_name = {hdu.name: hdu for hdu in hdus[1:]}
    if "FRAMES" not in by_name or hdus[0].data is None:
        raise FrameReadError(f"{source}: HDUs {sorted(by_name)}; expected an image and a table FRAMES")
    rows = read_frames_table(by_name["FRAMES"].data, Path(os.path.realpath(source)).parent)
    maps: dict[str, Any] = {
        field: _from_planes(by_name[name].data) for name, field, _ in MAP_EXTENSIONS if name in by_name
    }
    result = StackResult(
        image=_from_planes(hdus[0].data),
        frames=FrameRecords(row.record for row in rows),
        backend=str(header.get("ZSC_BACK", "")),
        options=options,
        unit=str(header.get("BUNIT", "")).strip(),
        reference=header.get("ZSC_REFI"),
        given=read_planes_given(header),
        **maps,
    )
    alpha = np.array(by_name["ALPHA"].data, dtype=np.uint8) if "ALPHA" in by_name else None
    return MasterTile(result=result, rows=rows, header=header, alpha=alpha)


def _from_planes(planes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return ``(row, column[, channel])``, float32 or int32, in native byte order, not tied to the file."""
    dtype = np.float32 if planes.dtype.kind == "f" else np.int32
    stacked = planes[np.newaxis] if planes.ndim == 2 else planes
    image = np.empty((*stacked.shape[1:], stacked.shape[0]), dtype=dtype)
    for channel, plane in enumerate(stacked):
        image[..., channel] = plane
    return image[..., 0] if planes.ndim == 2 else image
