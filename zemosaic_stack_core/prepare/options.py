"""What a user may ask of the preparation: `PrepareOptions`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.options import check_choice

ALIGNMENTS = ("auto", "stars", "wcs", "none")
CFA_MODES = ("debayer", "drizzle")
BAYER_PATTERNS = ("RGGB", "BGGR", "GRBG", "GBRG")
HOT_PIXEL_MODES = ("auto", "interpolate", "missing", "off")
KERNELS = ("lanczos3", "lanczos2", "lanczos4", "bilinear")
LEVEL_MODES = ("auto", "none", "offset", "plane", "feather")
# Options that name files of a kind.
NAMED_KINDS = {"lights": "light", "darks": "dark", "flats": "flat", "biases": "bias", "dark_flats": "dark flat"}
_RANGES = (
    ("drizzle_pixel_fraction", 0.1, 2.0),
    ("keep_best", 0.01, 1.0),
    ("max_fwhm", 0.1, 1000.0),
    ("min_stars", 4, 1000),
    ("max_residual", 0.01, 10.0),
)


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """How frames are calibrated, registered and resampled.

    Parameters
    ----------
    align : {"auto", "stars", "wcs", "none"}
        What frames are registered on. "auto" takes the WCS where every frame has one that the stars confirm to a pixel,
        otherwise the stars, and says which and why. "none": the frames are aligned already.
    reference : path, optional
        The frame that gives the output grid. Default: the one with the most and sharpest stars.
    cfa : {"debayer", "drizzle"}
        Frames behind a Bayer filter: interpolate the colors, or drop each sample on the grid of its own color only.
    bayer_pattern : {"RGGB", "BGGR", "GRBG", "GBRG", "none"}, optional
        Colors of the first two pixels of the first two rows in the file, in place of what the headers say. "none": the
        frames are mono whatever they say.
    lights, darks, flats, biases, dark_flats : tuple of path
        Frames that are of this kind whatever their headers and names say, besides those that are known by ``IMAGETYP``.
    filter : str, optional
        Take the lights of this filter only, where there are several.
    trust_calibration : bool
        Use calibration frames even where their headers contradict what they calibrate, or don't say it.
    scale_darks : bool
        Scale a dark of another exposure time by the ratio of the times (needs biases).
    hot_pixels : {"auto", "interpolate", "missing", "off"}
        What becomes of hot pixels: interpolated from neighbors of their color, missing samples, or left alone. "auto"
        is "missing" where the frames are dithered by two pixels or more and not debayered, otherwise "interpolate".
    kernel : {"lanczos3", "lanczos2", "lanczos4", "bilinear"}
        Of resampling.
    drizzle_pixel_fraction : float
        Side of the drop that a Bayer sample becomes, in its pixels, 0.1 to 2.
    levels : {"auto", "none", "offset", "plane", "feather"}
        Match backgrounds (and, on stars, flux scales) of frames over their overlaps before stacking: a constant or a
        plane per frame and channel; "feather" fades what then is left between frames over their borders. "auto": where
        frames see different parts of the sky, an offset, a plane where it agrees clearly better, and "feather" where
        steps would remain; otherwise none, because the stacker's normalization then does it.
    keep_best : float, optional
        Keep this fraction of the registered frames, 0 to 1, those of the best point-source signal to noise.
    max_fwhm : float, optional
        Drop frames whose stars are wider, pixels.
    min_stars : int
        Least number of matched stars, at least 4.
    max_residual : float
        Largest root mean square distance of matched stars, pixels.
    zeros_missing : bool
        Samples of lights that are exactly zero are missing: borders of frames that another program moved.
    cache_limit : int, optional
        Most bytes that the aligned frames may take. Default: nine tenths of the free disk space.
    """

    align: str = "auto"
    reference: str | Path | None = None
    cfa: str = "debayer"
    bayer_pattern: str | None = None
    lights: tuple[str | Path, ...] = ()
    darks: tuple[str | Path, ...] = ()
    flats: tuple[str | Path, ...] = ()
    biases: tuple[str | Path, ...] = ()
    dark_flats: tuple[str | Path, ...] = ()
    filter: str | None = None
    trust_calibration: bool = False
    scale_darks: bool = False
    hot_pixels: str = "auto"
    kernel: str = "lanczos3"
    drizzle_pixel_fraction: float = 1.0
    levels: str = "auto"
    keep_best: float | None = None
    max_fwhm: float | None = None
    min_stars: int = 6
    max_residual: float = 1.0
    zeros_missing: bool = False
    cache_limit: int | None = None

    def __post_init__(self) -> None:
        check_choice("align", self.align, ALIGNMENTS)
        check_choice("cfa", self.cfa, CFA_MODES)
        check_choice("hot_pixels", self.hot_pixels, HOT_PIXEL_MODES)
        check_choice("kernel", self.kernel, KERNELS)
        check_choice("levels", self.levels, LEVEL_MODES)
        if self.bayer_pattern is not None:
            check_choice("bayer_pattern", self.bayer_pattern, (*BAYER_PATTERNS, "none"))
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and low <= value <= high):
                raise InvalidInputError(f"{name} is {value}; expected {low:g} to {high:g}")
        if self.cache_limit is not None and self.cache_limit < 1:
            raise InvalidInputError(f"cache_limit is {self.cache_limit}; expected at least 1 byte")
        for name in NAMED_KINDS:
            if isinstance(getattr(self, name), (str, Path)):
                raise InvalidInputError(f"{name} is {getattr(self, name)!r}; expected a tuple of paths")
