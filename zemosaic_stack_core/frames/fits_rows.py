"""Where the pixels of a FITS image are, and what they mean; no size is believed that the file does not bear out.

References
----------
Pence et al. 2010, A&A 524, A42, "Definition of the FITS standard, version 3.0", sections 4.4 and 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from zemosaic_stack_core.errors import FrameReadError
from zemosaic_stack_core.fits.cards import FitsHeader, axis_lengths, card_integer, card_real, data_bytes
from zemosaic_stack_core.frames.heads import FileHead, has_name, is_compressed
from zemosaic_stack_core.frames.pixel_rows import PixelLayout

_STORED = {8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}


@dataclass(frozen=True, slots=True)
class CompressedImage:
    """A tile-compressed image: it must be decoded before rows can be read by position."""

    # Number of the HDU, 0 for the primary.
    hdu: int
    # Of the decoded image; its offset is 0.
    layout: PixelLayout
    # Size of the compressed data.
    stored_bytes: int


def find_fits_image(head: FileHead) -> PixelLayout | CompressedImage:
    """Return where the image of a FITS file is: in the last HDU of its head.

    An image has 2 axes, or 3 with the channels as planes; further axes of length 1 are dropped. With ``NAXIS1`` of 3
    or 4 and a third axis that is longer than 4, the channels are taken to be the fastest axis. Raise `FrameReadError`
    where there is no image (of the name that was looked for), it is cut off, or its header contradicts itself.
    """
    if not head.has_image:
        raise _no_image(head)
    name, header, size = head.name, head.headers[-1], head.size or 0
    if not is_compressed(header):
        return _image(header, axis_lengths(header, name), size, name)
    layout = _layout(header, axis_lengths(header, name, "ZNAXIS"), 0, name, compressed=True)
    stored = data_bytes(header, name)
    if header.data_offset + stored > size:
        raise _cut_off(name, size - header.data_offset, stored)
    return CompressedImage(len(head.headers) - 1, layout, stored)


def _no_image(head: FileHead) -> FrameReadError:
    """Return the error of a file without the image that was looked for."""
    name, extension = head.name, head.extension
    for header in reversed(head.headers):
        axes = axis_lengths(header, name)
        if axes and has_name(header, extension) and header.get("XTENSION") in (None, "IMAGE"):
            return FrameReadError(f"{name}: NAXIS1.. = {axes}; expected at least one pixel along each axis")
    looked_for = "an image" if extension is None else f"an image extension named {extension}"
    found = f"{len(head.headers)} HDU without {looked_for}"
    return FrameReadError(f"{name}: {found}; expected {looked_for} with 2 or 3 axes")


def _image(header: FitsHeader, axes: list[int], size: int, name: str) -> PixelLayout:
    """Return the layout of a plain image whose pixels all lie within the file."""
    offset = header.data_offset
    layout = _layout(header, axes, offset, name)
    if offset + layout.data_bytes > size:
        raise _cut_off(name, size - offset, layout.data_bytes, axes)
    return layout


def _cut_off(name: str, found: int, expected: int, axes: list[int] | None = None) -> FrameReadError:
    """Return the error of a file that is shorter than its header claims."""
    shape = "" if axes is None else f" for {' x '.join(map(str, axes))} pixels"
    return FrameReadError(f"{name}: {max(0, found)} bytes of pixels; expected {expected}{shape} (is the file cut off?)")


def _layout(header: FitsHeader, axes: list[int], offset: int, name: str, *, compressed: bool = False) -> PixelLayout:
    """Return the layout that a header describes; `axes` has NAXIS1 first, no zero."""
    bitpix = card_integer(header, "ZBITPIX" if compressed else "BITPIX", name)
    if bitpix not in _STORED:
        raise FrameReadError(f"{name}: BITPIX is {bitpix}; expected 8, 16, 32, 64, -32 or -64")
    while len(axes) > 2 and axes[-1] == 1:
        axes = axes[:-1]
    if len(axes) not in (2, 3) or not all(axes):
        shape = " x ".join(map(str, axes)) or "none"
        raise FrameReadError(
            f"{name}: image with {len(axes)} axes ({shape}); expected 2 or 3 (planes last), none of length 0"
        )
    columns, rows, channels = axes[0], axes[1], axes[2] if len(axes) == 3 else 1
    interleaved = channels > 4 and columns in (3, 4)
    if interleaved:
        channels, columns, rows = axes
    stored: np.dtype[Any] = np.dtype(_STORED[bitpix])
    scale, zero = card_real(header, "BSCALE", name, 1.0), card_real(header, "BZERO", name, 0.0)
    if scale == 0.0:
        raise FrameReadError(f"{name}: BSCALE is 0; expected any other number")
    blank = None
    if bitpix > 0 and ("BLANK" in header or "ZBLANK" in header):
        blank = card_integer(header, "BLANK" if "BLANK" in header else "ZBLANK", name)
        limits = np.iinfo(stored)
        blank = blank if limits.min <= blank <= limits.max else None  # no pixel can have that value
    flipped = -128.0 if bitpix == 8 else 2.0 ** (bitpix - 1)
    unsigned = bitpix > 0 and scale == 1.0 and zero == flipped
    return PixelLayout(
        offset=offset,
        stored=stored,
        rows=rows,
        columns=columns,
        channels=channels,
        interleaved=interleaved,
        unsigned=unsigned,
        scale=scale,
        zero=0.0 if unsigned else zero,
        blank=blank,
    )
