"""What a preparation gives back: `PreparedGroup`, and one `PreparedFrame` per light."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from zemosaic_stack_core.prepare.canvas.geometry import Canvas


@dataclass(frozen=True, kw_only=True)
class PreparedFrame:
    """What happened to one light; numbers that were not measured are NaN.

    Parameters
    ----------
    name, path : str, Path
        The path as given, and the raw file.
    aligned : Path or None
        The calibrated frame on the canvas: a float32 FITS file with planes first, NaN where the frame has nothing; None
        where the frame was dropped.
    stars, matched : int
        Stars found, and those with a partner in the frame it was registered on.
    shift : tuple of float
        How far the frame's center lies from its place on the reference, x and y, pixels.
    rotation, scale, is_mirrored : float, float, bool
        Degrees, positive from the x to the y axis; reference pixels per pixel; whether left and right changed places.
    residual : float
        Root mean square distance of matched stars, pixels; of a WCS checked by stars, their distance from it.
    fwhm, roundness : float
        Median width of the stars, pixels of the frame, and axis ratio (1 is round).
    sky, noise : float
        Sky level and its noise per pixel, data units of the calibrated frame.
    flux_ratio : float
        Star flux of the reference over this frame's.
    transparency : float
        Light of its stars per second of exposure, relative to the clearest frame of the set.
    sky_agreement : float
        Scatter of the frame's sky about that of the others on the canvas, in units of its noise per pixel.
    exposure, date : float, str
        Seconds, and DATE-OBS.
    dropped, note : str
        Why the frame is not used, empty where it is; other things worth knowing.
    is_spare : bool
        It is not used because fewer were asked for.
    """

    name: str
    path: Path
    aligned: Path | None = None
    stars: int = 0
    matched: int = 0
    shift: tuple[float, float] = (math.nan, math.nan)
    rotation: float = math.nan
    scale: float = math.nan
    is_mirrored: bool = False
    residual: float = math.nan
    fwhm: float = math.nan
    roundness: float = math.nan
    sky: float = math.nan
    noise: float = math.nan
    flux_ratio: float = math.nan
    transparency: float = math.nan
    sky_agreement: float = math.nan
    exposure: float = math.nan
    date: str = ""
    dropped: str = ""
    note: str = ""
    is_spare: bool = False

    @property
    def quality(self) -> float:
        """Signal to noise of a point source, in any unit: flux over width times noise; 0 where not measured."""
        # Frames placed by WCS that share no stars with the reference count as equally transparent.
        value = 1.0 / (self.flux_scale * self.fwhm * self.noise) if self.noise > 0 else 0.0
        return value if math.isfinite(value) else 0.0

    @property
    def flux_scale(self) -> float:
        """Flux ratio, 1 where it was not measured."""
        return self.flux_ratio if math.isfinite(self.flux_ratio) else 1.0


@dataclass(frozen=True, kw_only=True)
class PreparedGroup:
    """Aligned frames, ready for the stacker.

    Parameters
    ----------
    frames : tuple of PreparedFrame
        Every light, in the order given.
    canvas : Canvas
        The output grid.
    alignment, why : str
        What was done, "stars", "wcs" or "none", and why that.
    reference : str
        Name of the frame that gave the grid.
    is_color : bool
        Whether the aligned frames have three channels.
    hot_pixels : int
        Pixels of the sensor that were left out or replaced in every frame.
    masters : tuple of (str, int)
        Calibration frames per kind.
    cache_bytes : int
        Size of the aligned frames.
    levels : str
        How backgrounds were matched: "none", "offset", "plane" or "feather".
    from_cache : bool
        Everything was found in the cache.
    seconds : dict
        Wall-clock time of each step.
    """

    frames: tuple[PreparedFrame, ...]
    canvas: Canvas
    alignment: str
    why: str
    reference: str
    is_color: bool = False
    hot_pixels: int = 0
    masters: tuple[tuple[str, int], ...] = ()
    cache_bytes: int = 0
    levels: str = "none"
    from_cache: bool = False
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def paths(self) -> tuple[Path, ...]:
        """The aligned frames to stack, in order."""
        return tuple(frame.aligned for frame in self.frames if frame.aligned is not None)

    @property
    def kept(self) -> tuple[PreparedFrame, ...]:
        """The frames that are used, as `paths`."""
        return tuple(frame for frame in self.frames if frame.aligned is not None)

    @property
    def dropped(self) -> tuple[PreparedFrame, ...]:
        """The frames that are not used; each says why."""
        return tuple(frame for frame in self.frames if frame.aligned is None)
