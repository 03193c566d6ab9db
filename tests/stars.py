"""Lists of stars for the tests of registration."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.prepare.stars.detect import StarList


def list_stars(
    points: npt.NDArray[np.float64],
    flux: npt.NDArray[np.float64],
    error: float | npt.NDArray[np.float64],
    shape: tuple[int, int],
    noise: float = 5.0,
) -> StarList:
    """Return stars at `points`, shape (star, 2), on a frame of a shape, the brightest first."""
    order = np.argsort(-flux)
    return StarList(
        x=points[order, 0],
        y=points[order, 1],
        flux=flux[order],
        error=np.broadcast_to(error, flux.shape)[order],
        fwhm=3.0,
        roundness=0.9,
        sky=100.0,
        noise=noise,
        rows=shape[0],
        columns=shape[1],
    )
