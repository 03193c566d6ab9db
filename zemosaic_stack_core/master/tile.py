"""Master tiles on the disk: `write_master`, `read_master`.

A master tile is one FITS file: the image in the primary HDU, float32, planes of channels first, NaN where nothing was
combined; ``ALPHA`` for mosaic programs; the maps that were asked for as ``COVERAGE``, ``WEIGHT``, ``REJLO``, ``REJHI``,
``VARIANCE``; and the table ``FRAMES``. The same result gives the same bytes: no card tells the time of writing.
`option_cards` lists the cards, `frames_table` the columns.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import FrameReadError, InvalidInputError, ZemosaicError
from zemosaic_stack_core.fits.cards import read_first_cards
from zemosaic_stack_core.fits.observing import ObservingFacts, observing_facts
from zemosaic_stack_core.fits.stream import bands_of_planes, write_hdu
from zemosaic_stack_core.master.frames_table import TABLE_UNITS, FrameRow, frames_table, read_frames_table, table_header
from zemosaic_stack_core.master.master_header import TileFacts, add_exposure, add_tile, copy_cards, reference_header
from zemosaic_stack_core.master.option_cards import add_provenance, read_options, read_planes_given
from zemosaic_stack_core.stacking.result import StackResult
from zemosaic_stack_core.system.atomic import atomic_output, check_output

if TYPE_CHECKING:
    from astropy.io import fits


_Image = npt.NDArray[Any]

_MAPS = (
    ("COVERAGE", "coverage", "samples combined"),
    ("WEIGHT", "weight_map", "sum of the weights of the combined samples"),
    ("REJLO", "rejected_low", "samples rejected below"),
    ("REJHI", "rejected_high", "samples rejected above"),
    ("VARIANCE", "variance", "variance of the combined value"),
)
_WCS_STEMS = (
    *("WCSAXES", "WCSNAME", "CTYPE", "CRVAL", "CRPIX", "CDELT", "CUNIT", "CROTA", "LONPOLE", "LATPOLE", "RADESYS"),
    *("CD1_", "CD2_", "CD3_", "PC1_", "PC2_", "PC3_", "PV1_", "PV2_", "A_", "B_", "AP_", "BP_", "RADECSYS", "EQUINOX"),
)
_BITPIX = {">u1": 8, ">i2": 16, ">i4": 32, ">f4": -32}


@dataclass(frozen=True, kw_only=True)
class MasterTile:
    """A master tile read back.

    Parameters
    ----------
    result : StackResult
        Image, maps, options, backend and frames, equal to what was written; `facts` are not in the file.
    rows : tuple of FrameRow
        The FRAMES table: each frame's record with its file, size, SHA-256, exposure.
    header : astropy.io.fits.Header
        Of the primary HDU.
    alpha : array of shape (row, column), uint8, or None
        255 where the image is valid, 0 elsewhere.
    """

    result: StackResult
    rows: tuple[FrameRow, ...]
    header: fits.Header
    alpha: npt.NDArray[np.uint8] | None = None


def write_master(
    path: str | os.PathLike[str],
    result: StackResult,
    *,
    reference: fits.Header | str | os.PathLike[str] | None = None,
    facts: Sequence[ObservingFacts | None] | None = None,
    sha256: Sequence[str | None] = (),
    tile: TileFacts | None = None,
    alpha: npt.NDArray[np.uint8] | None = None,
    signature: str = "",
    cards: Sequence[tuple[str, str | int | float | bool, str]] = (),
    columns: Mapping[str, tuple[str, Sequence[Any]]] | None = None,
    history: Sequence[str] = (),
    overwrite: bool = False,
) -> Path:
    """Write a stack as a master tile, whole or not at all.

    Parameters
    ----------
    path : path
        The file to write.
    result : StackResult
        The stack. Every map that it has is written.
    reference : Header or path, optional
        Where the WCS and the observing cards come from. Default: the file of the reference frame, or of the first
        frame that has one; without any, or where astropy can't read it, there are none. An empty header asks for none.
    facts : sequence of ObservingFacts or None, optional
        Per frame. Default: read from the frames' files.
    sha256 : sequence of str or None
        Per frame, in hexadecimal, where it was computed.
    tile : TileFacts, optional
        Makes it a tile for a mosaic program: adds its cards and the ALPHA extension.
    alpha : array of shape (row, column), uint8, optional
        ALPHA itself, where a caller has a better one than "255 where every channel has coverage, else 0".
    signature : str
        Up to 68 characters that tell one set of inputs and options from another, for `read_signature`.
    cards : sequence of (keyword, value, comment)
        More cards for the primary header, in ASCII.
    columns : mapping of str to (unit, values), optional
        More columns for the table FRAMES.
    history : sequence of str
        Lines for the HISTORY of the primary header, in ASCII.
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
        `reference` is a file whose header can't be read.
    OutputError
        The file can't be written; an older one of that name is untouched.
    """
    target = Path(path)
    check_output(target, overwrite=overwrite)
    _check_shapes(target, result, alpha)
    if facts is None:
        facts = [None if frame.path is None else observing_facts(frame.path) for frame in result.frames]
    more = columns or {}
    units = TABLE_UNITS | {name: unit for name, (unit, _) in more.items() if unit}
    folder = Path(os.path.realpath(target)).parent
    table = frames_table(result, facts, sha256, folder, {name: values for name, (_, values) in more.items()})
    header = _primary_header(result, _resolve_reference(reference, result), facts, tile)
    has_alpha = tile is not None or alpha is not None
    maps = [(name, array, comment) for name, field, comment in _MAPS if (array := getattr(result, field)) is not None]
    if has_alpha:
        header["ALPHAEXT"] = ("ALPHA", "extension with the alpha plane")
    for keyword, value, comment in cards:
        header[keyword] = (value, comment)
    for line in history:
        header.add_history(line)
    if signature:
        header["ZSC_SIGN"] = signature
    header["ZSC_NHDU"] = (2 + has_alpha + len(maps), "HDUs in this file")
    wcs = _wcs_cards(header)
    with atomic_output(target, overwrite=overwrite) as file:
        write_hdu(file, header, bands_of_planes(result.image, ">f4"))
        if has_alpha:
            shape = result.image.shape[:2]
            bands = _alpha_bands(result.image) if alpha is None else bands_of_planes(alpha, ">u1")
            alpha_header = _image_header(shape, ">u1", "ALPHA", "255 where valid, 0 elsewhere")
            copy_cards(alpha_header, wcs, channels=1)
            write_hdu(file, alpha_header, bands)
        for name, array, comment in maps:
            stored = ">f4" if array.dtype.kind == "f" else _integer_type(len(result.frames))
            map_header = _image_header(array.shape, stored, name, comment)
            copy_cards(map_header, wcs, channels=_channels(result))
            write_hdu(file, map_header, bands_of_planes(array, stored))
        write_hdu(file, table_header(table, "FRAMES", units), [table.tobytes()])
    return target


def _check_shapes(target: Path, result: StackResult, alpha: _Image | None) -> None:
    """Raise where an array does not have the image's shape."""
    shape = result.image.shape
    named = [(field, getattr(result, field), shape) for _, field, _ in _MAPS]
    for name, array, expected in [*named, ("alpha", alpha, shape[:2])]:
        if array is not None and array.shape != expected:
            raise InvalidInputError(f"{target}: {name} has shape {array.shape}; expected {expected}")


def _channels(result: StackResult) -> int:
    """Return the number of channels."""
    return 1 if result.image.ndim == 2 else result.image.shape[2]


def _resolve_reference(
    reference: fits.Header | str | os.PathLike[str] | None, result: StackResult
) -> fits.Header | None:
    """Return the header that the observing cards come from.

    A file that the caller names must be readable; of the frames, the stack is worth more than their cards.
    """
    if reference is not None:
        return reference_header(Path(reference)) if isinstance(reference, (str, os.PathLike)) else reference
    preferred = [] if result.reference is None else [result.frames[result.reference]]
    path = next((frame.path for frame in [*preferred, *result.frames] if frame.path is not None), None)
    try:
        return None if path is None else reference_header(path)
    except FrameReadError:
        return None


def _primary_header(
    result: StackResult,
    source: fits.Header | None,
    facts: Sequence[ObservingFacts | None],
    tile: TileFacts | None,
) -> fits.Header:
    """Return the primary header, but for what depends on the other HDUs."""
    header = _image_header(result.image.shape, ">f4", None, "")
    skipped = 0 if source is None else copy_cards(header, source, channels=_channels(result))
    add_exposure(header, result, facts)
    add_provenance(header, result)
    if skipped:
        header["ZSC_SKIP"] = (skipped, "unusable cards of the reference left out")
    if tile is not None:
        add_tile(header, result, tile)
    return header


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


def read_master(path: str | os.PathLike[str]) -> MasterTile:
    """Read a master tile back: the image as ``(row, column[, channel])``, every map, the options and the frames.

    Parameters
    ----------
    path : path
        A file that `write_master` wrote. Its checksums are not verified: see `verify_checksum`.

    Raises
    ------
    FrameReadError
        Not a file that astropy can read, or not a master tile of this program.
    """
    from astropy.io import fits

    source = Path(path)
    try:
        with fits.open(source, memmap=True) as hdus:
            return _read_hdus(hdus, source)
    except ZemosaicError:
        raise
    except (OSError, TypeError, ValueError, KeyError, fits.VerifyError) as error:
        raise FrameReadError(f"{source}: {error}; expected a master tile written by zemosaic-stack-core") from error


def read_signature(path: str | os.PathLike[str]) -> str:
    """Return the signature that a master tile was written with; empty without one, or without such a file."""
    return read_first_cards(path).get("ZSC_SIGN", "")


def _read_hdus(hdus: fits.HDUList, source: Path) -> MasterTile:
    """Take an open master tile apart."""
    header = hdus[0].header.copy()
    options = read_options(header, str(source))
    by_name = {hdu.name: hdu for hdu in hdus[1:]}
    if "FRAMES" not in by_name or hdus[0].data is None:
        raise FrameReadError(f"{source}: HDUs {sorted(by_name)}; expected an image and a table FRAMES")
    rows = read_frames_table(by_name["FRAMES"].data, Path(os.path.realpath(source)).parent)
    maps: dict[str, Any] = {field: _from_planes(by_name[name].data) for name, field, _ in _MAPS if name in by_name}
    result = StackResult(
        image=_from_planes(hdus[0].data),
        frames=tuple(row.record for row in rows),
        backend=str(header.get("ZSC_BACK", "")),
        options=options,
        reference=header.get("ZSC_REFI"),
        given=read_planes_given(header),
        **maps,
    )
    alpha = np.array(by_name["ALPHA"].data, dtype=np.uint8) if "ALPHA" in by_name else None
    return MasterTile(result=result, rows=rows, header=header, alpha=alpha)


def _from_planes(planes: _Image) -> _Image:
    """Return ``(row, column[, channel])``, float32 or int32, in native byte order, not tied to the file."""
    dtype = np.float32 if planes.dtype.kind == "f" else np.int32
    stacked = planes[np.newaxis] if planes.ndim == 2 else planes
    image: _Image = np.empty((*stacked.shape[1:], stacked.shape[0]), dtype=dtype)
    for channel, plane in enumerate(stacked):
        image[..., channel] = plane
    return image[..., 0] if planes.ndim == 2 else image
