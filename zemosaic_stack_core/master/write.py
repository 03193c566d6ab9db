"""Masters written: `write_master`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.fits.stream import bands_of_planes, write_hdu
from zemosaic_stack_core.master.frames_table import TABLE_UNITS, frames_table, table_header
from zemosaic_stack_core.master.option_cards import add_provenance
from zemosaic_stack_core.master.tile import MAP_EXTENSIONS, NO_EXTRAS, MasterExtras
from zemosaic_stack_core.master.tile_cards import add_tile
from zemosaic_stack_core.stacking.combined_header import (
    add_exposure,
    complete_matrix,
    copy_cards,
    observing_header,
    reference_header,
)
from zemosaic_stack_core.stacking.result import StackResult
from zemosaic_stack_core.system.atomic import atomic_output, check_output

if TYPE_CHECKING:
    from astropy.io import fits


_Image = npt.NDArray[Any]
_Hdu = tuple["fits.Header", Iterable[bytes | memoryview]]

_WCS_STEMS = (
    *("WCSAXES", "WCSNAME", "CTYPE", "CRVAL", "CRPIX", "CDELT", "CUNIT", "CROTA", "LONPOLE", "LATPOLE", "RADESYS"),
    *("CD1_", "CD2_", "CD3_", "PC1_", "PC2_", "PC3_", "PV1_", "PV2_", "A_", "B_", "AP_", "BP_", "RADECSYS", "EQUINOX"),
)
_BITPIX = {">u1": 8, ">i2": 16, ">i4": 32, ">f4": -32}


def write_master(
    path: str | os.PathLike[str], result: StackResult, extras: MasterExtras = NO_EXTRAS, *, overwrite: bool = False
) -> Path:
    """Write a stack as a master, whole or not at all.

    Parameters
    ----------
    path : path
        The file to write.
    result : StackResult
        The stack. Every map that it has is written.
    extras : MasterExtras
        What the file is to hold beside it.
    overwrite : bool
        An existing file may be replaced.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InvalidInputError
        The file exists and `overwrite` is false, or a map or the alpha does not have the image's shape.
    FrameReadError
        `extras.reference` is a file whose header can't be read.
    OutputError
        The file can't be written; an older one of that name is untouched.
    """
    target = Path(path)
    check_output(target, overwrite=overwrite)
    _check_shapes(target, result, extras.alpha)
    table = frames_table(result, extras, Path(os.path.realpath(target)).parent)
    units = TABLE_UNITS | {name: unit for name, (unit, _) in extras.columns.items() if unit}
    header = _primary_header(result, extras)
    hdus: list[_Hdu] = [
        (header, bands_of_planes(result.image, ">f4")),
        *_planes(result, extras, _wcs_cards(header)),
        (table_header(table, "FRAMES", units), [table.tobytes()]),
    ]
    header["ZSC_NHDU"] = (len(hdus), "HDUs in this file")
    with atomic_output(target, overwrite=overwrite) as file:
        for hdu in hdus:
            write_hdu(file, *hdu)
    return target


def _check_shapes(target: Path, result: StackResult, alpha: _Image | None) -> None:
    """Raise where an array does not have the image's shape."""
    shape = result.image.shape
    named = [(field, getattr(result, field), shape) for _, field, _ in MAP_EXTENSIONS]
    for name, array, expected in [*named, ("alpha", alpha, shape[:2])]:
        if array is not None and array.shape != expected:
            raise InvalidInputError(f"{target}: {name} has shape {array.shape}; expected {expected}")


def _primary_header(result: StackResult, extras: MasterExtras) -> fits.Header:
    """Return the primary header, but for the number of HDUs."""
    source = extras.reference
    if source is None:
        source = observing_header(result)
    elif isinstance(source, (str, os.PathLike)):
        source = reference_header(Path(source))
    header = _image_header(result.image.shape, ">f4", None, "")
    skipped = 0 if source is None else copy_cards(header, source, channels=result.channels)
    complete_matrix(header)
    add_exposure(header, result)
    add_provenance(header, result)
    if skipped:
        header["ZSC_SKIP"] = (skipped, "unusable cards of the reference left out")
    if extras.tile is not None:
        add_tile(header, result, extras.tile)
    if extras.has_alpha:
        header["ALPHAEXT"] = ("ALPHA", "extension with the alpha plane")
    for keyword, value, comment in extras.cards:
        header[keyword] = (value, comment)
    for line in extras.history:
        header.add_history(line)
    if extras.signature:
        header["ZSC_SIGN"] = extras.signature
    return header


def _planes(result: StackResult, extras: MasterExtras, wcs: fits.Header) -> Iterator[_Hdu]:
    """Yield the extensions with alpha and maps."""
    if extras.has_alpha:
        header = _image_header(result.image.shape[:2], ">u1", "ALPHA", "255 where valid, 0 elsewhere")
        copy_cards(header, wcs, channels=1)
        yield header, _alpha_bands(result.image) if extras.alpha is None else bands_of_planes(extras.alpha, ">u1")
    for name, field, comment in MAP_EXTENSIONS:
        array = getattr(result, field)
        if array is not None:
            stored = ">f4" if array.dtype.kind == "f" else _integer_type(len(result.frames))
            header = _image_header(array.shape, stored, name, comment)
            copy_cards(header, wcs, channels=result.channels)
            if name == "VARIANCE":
                header["UTYPE"] = ("VarianceUncertainty", "what astropy's CCDData takes it for")
            yield header, bands_of_planes(array, stored)


def _image_header(shape: tuple[int, ...], stored: str, name: str | None, comment: str) -> fits.Header:
    """Return the structural cards of an image, primary where it has no name."""
    from astropy.io import fits

    lengths = [shape[1], shape[0], *shape[2:]]
    header = fits.Header()
    if name:
        header["XTENSION"] = ("IMAGE", "image extension")
    else:
        header["SIMPLE"] = (True, "conforms to FITS standard")
    header["BITPIX"] = (_BITPIX[stored], "array data type")
    header["NAXIS"] = (len(lengths), "number of array dimensions")
    for axis, length in enumerate(lengths, start=1):
        header[f"NAXIS{axis}"] = length
    if name:
        header["PCOUNT"] = (0, "number of parameters")
        header["GCOUNT"] = (1, "number of groups")
        header["EXTNAME"] = (name, comment)
    else:
        header["EXTEND"] = (True, "extensions may be present")
    return header


def _wcs_cards(header: fits.Header) -> fits.Header:
    """Return the WCS cards of the primary header, for the maps: any viewer then shows them in their place."""
    from astropy.io import fits

    return fits.Header([card for card in header.cards if card.keyword.startswith(_WCS_STEMS)])


def _integer_type(frames: int) -> str:
    """Return the smallest type that can count so many frames."""
    return ">u1" if frames <= 0xFF else ">i2" if frames <= 0x7FFF else ">i4"


def _alpha_bands(image: _Image) -> Iterator[bytes]:
    """Yield 255 where every channel has a value (coverage above 0), 0 elsewhere."""
    rows = max(1, 4 * 1024 * 1024 // max(1, image[:1].nbytes))
    for start in range(0, image.shape[0], rows):
        band = image[start : start + rows]
        valid = np.isfinite(band if band.ndim == 3 else band[..., np.newaxis]).all(axis=2)
        yield (valid.astype(np.uint8) * np.uint8(255)).tobytes()
