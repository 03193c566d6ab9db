"""Bayer samples onto the output grid without interpolation: each drops on the grid of its own color only.

By the `drizzle` library of STScI. A frame then has holes (a quarter to half of the pixels of each color have a sample),
which are missing samples to the stacker; enough dithered frames fill them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.prepare.canvas.resample import AffineMap, PixelMap

_Image = npt.NDArray[np.float32]

# Part of a drop that must fall into an output pixel for it to count. Of the up to four pixels that a drop of one
# pixel's size meets, the one it meets most has at least a quarter of it: every sample counts somewhere, and none far
# from its place.
_LEAST_OVERLAP = 0.2


def drizzle_cfa(
    mosaic: _Image, pattern: str, mapping: PixelMap, rows: int, columns: int, pixel_fraction: float = 1.0
) -> _Image:
    """Return means of a mosaic's samples that drop on each output pixel, shape (row, column, 3), NaN where none does.

    Drops are `pixel_fraction` of the mosaic's pixels wide, missing samples NaN; `mapping` must be affine.
    """
    from drizzle.resample import Drizzle

    if not isinstance(mapping, AffineMap):
        raise TypeError("CFA drizzle needs an affine map")
    to_canvas = mapping.to_frame.inverse()
    out = np.empty((rows, columns, 3), np.float32)
    area = np.float32(abs(mapping.to_frame.determinant))
    for channel, color in enumerate("RGB"):
        drizzler = Drizzle(kernel="square", fillval="NAN", out_shape=(rows, columns), disable_ctx=True)
        drops = 0
        for index, own in enumerate(pattern):
            if own != color:
                continue
            top, left = index // 2, index % 2
            plane = np.ascontiguousarray(mosaic[top::2, left::2], np.float32)
            y, x = np.mgrid[top : mosaic.shape[0] : 2, left : mosaic.shape[1] : 2]
            places = to_canvas(np.column_stack([x.reshape(-1), y.reshape(-1)])).reshape(*plane.shape, 2)
            present = np.isfinite(plane)
            drops += int(present.sum())
            drizzler.add_image(
                np.where(present, plane, np.float32(0)),
                exptime=1.0,
                pixmap=places,
                weight_map=present.astype(np.float32),
                # The plane's pixels are two of the mosaic's wide: a drop of one is half of that.
                pixfrac=pixel_fraction / 2,
                in_units="cps",
            )
        weight = np.asarray(drizzler.out_wht)
        one_drop = float(weight.sum(dtype=np.float64)) / max(1, drops)
        enough = weight > _LEAST_OVERLAP * one_drop * min(1.0, pixel_fraction**-2)
        out[..., channel] = np.where(enough, drizzler.out_img * area, np.float32(np.nan))
    return out
