"""Find the pixels of a ``.npy`` file: header only, nothing is ever unpickled."""

from __future__ import annotations

import io
import tokenize
import warnings

import numpy as np

from zemosaic_stack_core.errors import FrameReadError
from zemosaic_stack_core.frames.pixel_rows import PixelLayout

# numpy evaluates the header as a Python literal, and tokenizes it again in case Python 2 wrote it.
_HEADER_ERRORS = (ValueError, TypeError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError)


def find_npy_image(start: bytes, size: int, name: str) -> tuple[PixelLayout, bool, bool]:
    """Return where the image of a ``.npy`` file is, whether it is a color image, whether it is in Fortran order.

    `start` is the beginning of the file, longer than numpy's own limit on a header, 10,000 bytes; `size` is in bytes.
    A third axis is the channels. It is the last one, ``(row, column, channel)``, unless the last is longer than 4 and
    the first is not: then it is ``(channel, row, column)``. ``(row, column, 1)`` keeps its axis,
    ``(1, row, column)`` is mono.
    """
    head = io.BytesIO(start)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    try:
        version = np.lib.format.read_magic(head)
        if version not in read_header:
            raise FrameReadError(f"{name}: .npy version {version[0]}.{version[1]}; expected 1.0 or 2.0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a header written by Python 2 is as good
            shape, fortran_order, dtype = read_header[version](head)
    except _HEADER_ERRORS as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FrameReadError(f"{name}: damaged .npy header ({reason}); expected a .npy file") from None
    if dtype.hasobject:
        raise FrameReadError(f"{name}: holds pickled Python objects, which are never loaded; expected numbers")
    if dtype.kind not in "buif":
        raise FrameReadError(f"{name}: values of type {dtype}; expected integers or real numbers")
    if len(shape) not in (2, 3) or not all(length > 0 for length in shape):
        raise FrameReadError(
            f"{name}: array of shape {shape}; expected (row, column) or (row, column, channel), none 0"
        )
    planes_first = len(shape) == 3 and shape[2] > 4 and shape[0] <= 4
    rows, columns = shape[1:] if planes_first else shape[:2]
    channels = 1 if len(shape) == 2 else shape[0 if planes_first else 2]
    layout = PixelLayout(
        offset=head.tell(),
        stored=dtype,
        rows=rows,
        columns=columns,
        channels=channels,
        interleaved=len(shape) == 3 and not planes_first and channels > 1,
    )
    if layout.offset + layout.data_bytes > size:
        found = f"{size - layout.offset} bytes of pixels"
        raise FrameReadError(f"{name}: {found}; expected {layout.data_bytes} for shape {shape} (is the file cut off?)")
    is_color = len(shape) == 3 and not (planes_first and channels == 1)
    return layout, is_color, fortran_order
