"""A night that never was: frames whose truth is known, for the demonstration and for tests.

`SyntheticNight` draws a spiral galaxy among stars as a small smart telescope would see it: sky that drifts and tilts,
clouds, photon and read noise, hot pixels, cosmic rays, two satellites, and a camera that is moved a little between
exposures. The frames come aligned (moved back by whole pixels, NaN where the camera did not look) or raw, as the camera
gave them.

The same seed gives the same frames on every system: random numbers are PCG64's, everything that goes through `exp` or a
power is rounded to 1/64 electron before it is used, and a frame depends on the seed and its own index only.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .errors import InvalidInputError
from .fits_stream import bands_of_planes, write_hdu

if TYPE_CHECKING:
    from astropy.io import fits

__all__ = ["SyntheticNight", "SyntheticStar", "write_demo_frames"]

_Image = npt.NDArray[np.float32]
_Plane = npt.NDArray[np.float64]

_GAIN = 0.8  # electrons per data unit
_READ_NOISE = 3.0  # electrons
_BIAS = 200.0  # data units
_FULL_WELL = 65535.0  # data units
_FWHM = 2.8  # pixels
_MOFFAT_BETA = 3.0
_SKY = (520.0, 640.0, 430.0)  # electrons per pixel and exposure, red, green, blue
_PIXEL_SCALE = 2.39 / 3600.0  # degrees
_EXPOSURE = 10.0  # seconds
_FIRST_START = datetime(2026, 3, 14, 21, 30)
_STREAM_SCENE, _STREAM_SENSOR, _STREAM_NIGHT, _STREAM_FRAME = range(4)


@dataclass(frozen=True, slots=True)
class SyntheticStar:
    """A star of the scene.

    Parameters
    ----------
    row, column : float
        Place on the output grid, pixels; it may lie outside.
    flux : tuple of float
        Electrons in one exposure through a clear sky, per channel.
    """

    row: float
    column: float
    flux: tuple[float, ...]


@dataclass(frozen=True)
class SyntheticNight:
    """A deterministic night of one field.

    Parameters
    ----------
    n_frames : int
        At least 1.
    shape : tuple of int
        ``(row, column)`` of a frame and of the output grid, each at least 16.
    color : bool
        Three channels (red, green, blue), or one.
    seed : int
        At least 0.
    dither : int
        Largest shift of the camera in each direction, pixels; 0 for none.

    Notes
    -----
    In data units, at a pixel of frame i that the camera saw,
    ``frame = bias + (sky_i + transparency_i * scene + noise) / gain``, rounded, plus defects; the variance of the noise
    is that of the photons plus the square of the read noise. The noise is drawn as normal, which at these hundreds of
    electrons differs little from Poisson's and, unlike it, is the same on every system.
    """

    n_frames: int = 24
    shape: tuple[int, int] = (540, 960)
    color: bool = True
    seed: int = 20260314
    dither: int = 24

    def __post_init__(self) -> None:
        if self.n_frames < 1 or min(self.shape) < 16 or self.seed < 0 or not 0 <= self.dither < min(self.shape) // 2:
            raise InvalidInputError(
                f"{self.n_frames} frames of {self.shape}, seed {self.seed}, dither {self.dither}; "
                "expected at least 1 frame of 16 x 16, a seed of at least 0, a dither below half the frame"
            )

    @property
    def channels(self) -> int:
        """Channels of a frame."""
        return 3 if self.color else 1

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """``(row, column)`` or ``(row, column, channel)``."""
        return (*self.shape, 3) if self.color else self.shape

    def _random(self, stream: int, index: int = 0) -> np.random.Generator:
        """Return the generator of one part of the night."""
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, stream, index])))

    @cached_property
    def stars(self) -> tuple[SyntheticStar, ...]:
        """The stars, brightest first: power law of fluxes (index -1.5 of the counts), colors from red to blue."""
        random = self._random(_STREAM_SCENE, 0)
        rows, columns = (length + 2 * self.dither for length in self.shape)
        count = max(8, round(rows * columns / 700))
        fluxes = np.sort(np.minimum(500.0 * random.random(count) ** (-1 / 0.9), 9e5))[::-1]
        places = random.random((count, 2)) * (rows, columns) - self.dither - 0.5
        warmth = random.random(count)
        return tuple(
            SyntheticStar(float(row), float(column), self._tint(float(flux), float(warm)))
            for (row, column), flux, warm in zip(places, fluxes, warmth, strict=True)
        )

    def _tint(self, flux: float, warmth: float) -> tuple[float, ...]:
        """Return a star's flux per channel."""
        if not self.color:
            return (flux,)
        tilt = 1.1 * warmth - 0.5  # blue below 0, red above
        return flux * (1.0 + 0.75 * tilt), flux, flux * (1.0 - 0.85 * tilt)

    @cached_property
    def _canvas(self) -> npt.NDArray[np.float64]:
        """The scene in electrons, as wide as all the frames together: (row, column, channel)."""
        rows, columns = (length + 2 * self.dither for length in self.shape)
        canvas = np.zeros((rows, columns, self.channels))
        self._add_galaxy(canvas)
        for star in self.stars:
            self._add_star(canvas, star)
        scene: npt.NDArray[np.float64] = np.rint(canvas * 64.0) / 64.0
        scene.flags.writeable = False
        return scene

    def _add_star(self, canvas: _Plane, star: SyntheticStar) -> None:
        """Add a star's Moffat profile, as far out as it matters."""
        brightest = max(star.flux)
        radius = int(min(8.0 + 0.55 * brightest**0.36, 0.2 * min(self.shape) + 4))
        row, column = star.row + self.dither, star.column + self.dither
        first_row, first_column = max(0, int(row) - radius), max(0, int(column) - radius)
        stamp = canvas[first_row : int(row) + radius + 1, first_column : int(column) + radius + 1]
        y = np.arange(first_row, first_row + stamp.shape[0]) - row
        x = np.arange(first_column, first_column + stamp.shape[1]) - column
        core = (_FWHM / 2.0) ** 2 / (2.0 ** (1.0 / _MOFFAT_BETA) - 1.0)
        distance = y[:, np.newaxis] ** 2 + x**2
        profile = (1.0 + distance / core) ** -_MOFFAT_BETA * (_MOFFAT_BETA - 1.0) / (math.pi * core)
        fade = np.clip((radius + 0.5 - np.sqrt(distance)) / 3.0, 0.0, 1.0)  # no square edge around a bright star
        stamp += (profile * fade)[..., np.newaxis] * np.asarray(star.flux)

    def _add_galaxy(self, canvas: _Plane) -> None:
        """Add a spiral galaxy with bulge, disk, two arms and knots, and a small companion."""
        rows, columns = canvas.shape[:2]
        size = 0.34 * min(self.shape)
        center = (0.5 * rows + 0.02 * size, 0.5 * columns - 0.1 * size)
        y, x = np.arange(rows)[:, np.newaxis] - center[0], np.arange(columns) - center[1]
        angle, tilt = math.radians(28.0), 0.68
        u, v = x * math.cos(angle) + y * math.sin(angle), (y * math.cos(angle) - x * math.sin(angle)) / tilt
        radius = np.sqrt(u * u + v * v) / size + 1e-6
        winding = np.arctan2(v, u) - 2.9 * np.log(radius + 0.05)
        arm = np.exp(3.2 * (np.cos(2.0 * winding) - 1.0)) * np.exp(-((radius - 0.55) ** 2) / 0.12)
        dust = 1.0 - 0.4 * np.exp(4.0 * (np.cos(2.0 * winding + 1.1) - 1.0)) * np.exp(-((radius - 0.45) ** 2) / 0.09)
        disk, bulge = np.exp(-radius / 0.32), np.exp(-((radius / 0.012) ** 0.45))
        lumps = self._lumps((rows, columns), size)
        companion = np.exp(-(((x - 0.95 * size) ** 2 + 1.7 * (y - 0.72 * size) ** 2) ** 0.5) / (0.075 * size))
        tints = ((150.0, 84.0, 2700.0, 140.0), (140.0, 118.0, 1900.0, 112.0), (140.0, 190.0, 1100.0, 78.0))
        for channel in range(self.channels):
            smooth, arms, core, near = tints[channel] if self.color else tints[1]
            glow = (smooth * disk + arms * arm * lumps) * dust + core * bulge
            canvas[..., channel] += glow + 1.6 * near * companion
        self._add_knots(canvas, center, (angle, tilt), size)

    def _lumps(self, shape: tuple[int, int], size: float) -> _Plane:
        """Return a field of mean about 1 that makes the arms uneven: random values joined by smooth curves."""
        random = self._random(_STREAM_SCENE, 1)
        field = np.ones(shape)
        for cell, strength in ((0.2 * size, 0.35), (0.08 * size, 0.3), (0.035 * size, 0.25)):
            cell = max(2.0, cell)
            nodes = random.random((int(shape[0] / cell) + 3, int(shape[1] / cell) + 3)) - 0.5
            row, column = np.arange(shape[0]) / cell, np.arange(shape[1]) / cell
            i, j = row.astype(np.intp), column.astype(np.intp)
            a, b = _smooth(row - i)[:, np.newaxis], _smooth(column - j)
            upper = nodes[i][:, j] * (1 - b) + nodes[i][:, j + 1] * b
            lower = nodes[i + 1][:, j] * (1 - b) + nodes[i + 1][:, j + 1] * b
            field += 2.0 * strength * (upper * (1 - a) + lower * a)
        return np.maximum(field, 0.0)

    def _add_knots(self, canvas: _Plane, center: tuple[float, float], plane: tuple[float, float], size: float) -> None:
        """Add glowing clouds of gas along the arms, pink as hydrogen is."""
        random = self._random(_STREAM_SCENE, 2)
        angle, tilt = plane
        for _ in range(46):
            radius = 0.22 + 0.62 * random.random()
            along = 2.9 * math.log(radius + 0.05) + math.pi * int(random.integers(2)) + 0.16 * (random.random() - 0.5)
            u, v = size * radius * math.cos(along), size * radius * math.sin(along) * tilt
            column = center[1] + u * math.cos(angle) - v * math.sin(angle) - self.dither
            row = center[0] + u * math.sin(angle) + v * math.cos(angle) - self.dither
            flux = 1200.0 + 5200.0 * random.random() ** 3
            tint = (flux, 0.28 * flux, 0.5 * flux) if self.color else (flux,)
            self._add_star(canvas, SyntheticStar(row, column, tint))

    @cached_property
    def scene(self) -> _Image:
        """What a perfect camera would have seen on the output grid, without sky: electrons, of `frame_shape`."""
        inner = slice(self.dither, -self.dither or None)
        return self._canvas[inner, inner].astype(np.float32).reshape(self.frame_shape)

    @cached_property
    def shifts(self) -> tuple[tuple[int, int], ...]:
        """Per frame, ``(row, column)`` on the output grid of the camera's pixel (0, 0); the first frame's is (0, 0)."""
        drawn = self._random(_STREAM_NIGHT, 0).integers(-self.dither, self.dither + 1, (self.n_frames, 2))
        return ((0, 0), *((int(row), int(column)) for row, column in drawn[1:]))

    @cached_property
    def transparency(self) -> tuple[float, ...]:
        """Per frame, the part of the light that comes through: 0.84 to 1."""
        drawn = self._random(_STREAM_NIGHT, 1).random(self.n_frames)
        return tuple(round(1.0 - 0.16 * float(value) ** 2, 4) for value in drawn)

    def sky(self, index: int) -> npt.NDArray[np.float64]:
        """Return a frame's sky in electrons, as the camera saw it: (row, column, channel).

        It grows brighter and dimmer in the course of the night, and its gradient turns.
        """
        phase = 2.0 * math.pi * (index / self.n_frames)
        level = round(1.0 + 0.22 * math.sin(phase) + 0.1 * index / self.n_frames, 6)
        along_row, along_column = (round(0.03 * part(phase + 0.6), 6) for part in (math.sin, math.cos))
        y = np.linspace(-0.5, 0.5, self.shape[0])[:, np.newaxis]
        x = np.linspace(-0.5, 0.5, self.shape[1])
        field = level + along_column * x + along_row * y
        return np.asarray(field[..., np.newaxis] * np.asarray(_SKY if self.color else (sum(_SKY) / 3.0,)))

    @property
    def satellite_frames(self) -> tuple[int, ...]:
        """Frames that a satellite crossed: two, where there are four frames or more."""
        return (self.n_frames // 3, (2 * self.n_frames) // 3) if self.n_frames >= 4 else ()

    @cached_property
    def hot_pixels(self) -> tuple[tuple[int, int, int, float], ...]:
        """The camera's hot pixels: row, column, channel, data units; one pixel in 2500."""
        random = self._random(_STREAM_SENSOR)
        count = max(4, self.shape[0] * self.shape[1] // 2500)
        rows, columns = random.integers(self.shape[0], size=count), random.integers(self.shape[1], size=count)
        channels = random.integers(self.channels, size=count)
        levels = np.rint(400.0 * random.random(count) ** -0.7)
        listed = zip(rows, columns, channels, levels, strict=True)
        return tuple((int(row), int(column), int(channel), float(level)) for row, column, channel, level in listed)

    def raw_frame(self, index: int) -> npt.NDArray[np.uint16]:
        """Return a frame as the camera gave it, not aligned: data units, of `frame_shape`.

        Parameters
        ----------
        index : int
            0 to ``n_frames - 1``.
        """
        self._check(index)
        random = self._random(_STREAM_FRAME, index)
        row, column = (self.dither + shift for shift in self.shifts[index])
        view = self._canvas[row : row + self.shape[0], column : column + self.shape[1]]
        signal = self.transparency[index] * view + self.sky(index)
        noise = random.standard_normal(signal.shape) * np.sqrt(signal + _READ_NOISE**2)
        frame = np.rint((signal + noise) / _GAIN + _BIAS)
        for hot_row, hot_column, channel, level in self.hot_pixels:
            frame[hot_row, hot_column, channel] += level
        self._add_cosmic_rays(frame, random)
        if index in self.satellite_frames:
            self._add_satellite(frame, index)
        return np.clip(frame, 0.0, _FULL_WELL).astype(np.uint16).reshape(self.frame_shape)

    def _add_cosmic_rays(self, frame: _Plane, random: np.random.Generator) -> None:
        """Add a few short bright streaks in data units, in one channel each (a color filter covers each pixel)."""
        rows, columns = self.shape
        for _ in range(max(1, rows * columns // 45000)):
            row, column = int(random.integers(rows)), int(random.integers(columns))
            step_row, step_column = (int(step) for step in random.integers(-1, 2, 2))
            channel, level = int(random.integers(self.channels)), 500.0 + 9000.0 * random.random() ** 2
            for step in range(int(random.integers(1, 6))):
                at = row + step * step_row, column + step * step_column
                if 0 <= at[0] < rows and 0 <= at[1] < columns:
                    frame[*at, channel] += round(level)

    def _add_satellite(self, frame: _Plane, index: int) -> None:
        """Add the trail of a satellite that crosses the whole frame."""
        rows, columns = self.shape
        first = index == self.satellite_frames[0]
        start, end = (
            ((0.1 * rows, 0.0), (0.86 * rows, columns)) if first else ((0.95 * rows, 0.0), (0.3 * rows, columns))
        )
        length = math.hypot(end[0] - start[0], end[1] - start[1])
        along_row, along_column = (end[0] - start[0]) / length, (end[1] - start[1]) / length
        y, x = np.arange(rows)[:, np.newaxis] - start[0], np.arange(columns) - start[1]
        distance = y * along_column - x * along_row
        brightness = 900.0 if first else 420.0
        frame += np.rint(brightness * np.exp(-(distance**2) / 2.6))[..., np.newaxis]

    def frame(self, index: int) -> _Image:
        """Return a frame moved to the output grid: data units, float32, of `frame_shape`, NaN where nothing was seen.

        Parameters
        ----------
        index : int
            0 to ``n_frames - 1``.
        """
        raw = self.raw_frame(index)
        aligned = np.full(self.frame_shape, np.nan, dtype=np.float32)
        (to_row, from_row), (to_column, from_column) = (
            (slice(max(0, shift), length + min(0, shift)), slice(max(0, -shift), length - max(0, shift)))
            for shift, length in zip(self.shifts[index], self.shape, strict=True)
        )
        aligned[to_row, to_column] = raw[from_row, from_column]
        return aligned

    def _check(self, index: int) -> None:
        """Raise unless there is such a frame."""
        if not 0 <= index < self.n_frames:
            raise InvalidInputError(f"frame {index}; expected 0 to {self.n_frames - 1}")

    def start(self, index: int) -> datetime:
        """Return when a frame's exposure began: one every 11 seconds."""
        return _FIRST_START + index * timedelta(seconds=11)

    def _header(self, index: int, *, raw: bool) -> fits.Header:
        """Return a frame's header."""
        from astropy.io import fits

        rows, columns = self.shape
        header = fits.Header()
        header["SIMPLE"] = (True, "conforms to FITS standard")
        header["BITPIX"] = (16 if raw else -32, "array data type")
        header["NAXIS"] = (3 if self.color else 2, "number of array dimensions")
        lengths = (columns, rows, 3) if self.color else (columns, rows)
        for axis, length in enumerate(lengths, start=1):
            header[f"NAXIS{axis}"] = length
        if raw:
            header["BZERO"] = (32768, "unsigned 16-bit integers")
            header["BSCALE"] = 1
        row, column = self.shifts[index] if raw else (0, 0)
        cards: tuple[tuple[str, Any, str], ...] = (
            ("OBJECT", "Synthetic spiral", "made by a program, not seen by anyone"),
            ("TELESCOP", "Synthetic 50 mm", ""),
            ("INSTRUME", "SyntheticNight", ""),
            ("FILTER", "IRCUT", ""),
            ("IMAGETYP", "Light", ""),
            ("EXPTIME", _EXPOSURE, "[s] exposure time"),
            ("DATE-OBS", self.start(index).isoformat(), "start of the exposure"),
            ("EGAIN", _GAIN, "electrons per data unit"),
            ("RDNOISE", _READ_NOISE, "[electron] read noise"),
            ("ROWORDER", "BOTTOM-UP", "row 0 is at the bottom"),
            ("RADESYS", "ICRS", ""),
            ("CTYPE1", "RA---TAN", ""),
            ("CTYPE2", "DEC--TAN", ""),
            ("CRVAL1", 202.4696, "[deg]"),
            ("CRVAL2", 47.1952, "[deg]"),
            ("CRPIX1", columns / 2 + 0.5 - column, ""),
            ("CRPIX2", rows / 2 + 0.5 - row, ""),
            ("CD1_1", -_PIXEL_SCALE, ""),
            ("CD1_2", 0.0, ""),
            ("CD2_1", 0.0, ""),
            ("CD2_2", _PIXEL_SCALE, ""),
        )
        for keyword, value, comment in cards:
            header[keyword] = (value, comment)
        return header

    def write(self, folder: str | os.PathLike[str], *, raw: bool = False) -> list[Path]:
        """Write all frames as FITS files, over older ones, and return their names in order.

        Parameters
        ----------
        folder : path
            Made where it does not exist.
        raw : bool
            Write `raw_frame` as unsigned 16-bit integers, with each frame's own WCS; otherwise `frame` as float32.
        """
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        paths = []
        for index in range(self.n_frames):
            path = target / f"{'raw' if raw else 'light'}_{index + 1:0{max(3, len(str(self.n_frames)))}d}.fits"
            with path.open("w+b") as file:
                header = self._header(index, raw=raw)
                if raw:
                    stored = (self.raw_frame(index) ^ np.uint16(0x8000)).view(np.int16)
                    write_hdu(file, header, bands_of_planes(stored, ">i2"))
                else:
                    write_hdu(file, header, bands_of_planes(self.frame(index), ">f4"))
            paths.append(path)
        return paths


def _smooth(value: _Plane) -> _Plane:
    """Return a curve from 0 to 1 that is level at both ends."""
    return value * value * (3.0 - 2.0 * value)


def write_demo_frames(folder: str | os.PathLike[str]) -> list[Path]:
    """Write the demonstration's 24 aligned color frames and return their names in order.

    Parameters
    ----------
    folder : path
        Made where it does not exist.
    """
    return SyntheticNight().write(folder)
