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

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.fits.stream import bands_of_planes, write_hdu
from zemosaic_stack_core.synthetic.scene import SyntheticScene, SyntheticStar, generator

if TYPE_CHECKING:
    from astropy.io import fits


_Image = npt.NDArray[np.float32]
_Plane = npt.NDArray[np.float64]

# Electrons per data unit.
_GAIN = 0.8
# Electrons.
_READ_NOISE = 3.0
# Data units.
_BIAS = 200.0
_FULL_WELL = 65535.0
# Electrons per pixel and exposure: red, green, blue.
_SKY = (520.0, 640.0, 430.0)
# Degrees.
_PIXEL_SCALE = 2.39 / 3600.0
# Seconds.
_EXPOSURE = 10.0
_FIRST_START = datetime(2026, 3, 14, 21, 30)
# Streams of random numbers, beside the scene's.
_SENSOR, _NIGHT, _FRAME = range(1, 4)


@dataclass(frozen=True)
class SyntheticNight:
    """A deterministic night of one field.

    Notes
    -----
    In data units, at a pixel of frame i that the camera saw,
    ``frame = bias + (sky_i + transparency_i * scene + noise) / gain``, rounded, plus defects; the variance of the noise
    is that of the photons plus the square of the read noise. The noise is drawn as normal, which at these hundreds of
    electrons differs little from Poisson's and, unlike it, is the same on every system.
    """

    n_frames: int = 24
    # (row, column) of a frame and of the output grid, each at least 16.
    shape: tuple[int, int] = (540, 960)
    # Three channels (red, green, blue), or one.
    color: bool = True
    seed: int = 20260314
    # Largest shift of the camera in each direction, pixels; 0 for none.
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

    @cached_property
    def _field(self) -> SyntheticScene:
        """The scene, as wide as all the frames together."""
        return SyntheticScene(self.shape, self.dither, self.color, self.seed)

    @property
    def stars(self) -> tuple[SyntheticStar, ...]:
        """The stars, brightest first."""
        return self._field.stars

    @cached_property
    def scene(self) -> _Image:
        """What a perfect camera would have seen on the output grid, without sky: electrons, of `frame_shape`."""
        inner = slice(self.dither, -self.dither or None)
        return self._field.canvas[inner, inner].astype(np.float32).reshape(self.frame_shape)

    @cached_property
    def shifts(self) -> tuple[tuple[int, int], ...]:
        """Per frame, ``(row, column)`` on the output grid of the camera's pixel (0, 0); the first frame's is (0, 0)."""
        drawn = generator(self.seed, _NIGHT, 0).integers(-self.dither, self.dither + 1, (self.n_frames, 2))
        return ((0, 0), *((int(row), int(column)) for row, column in drawn[1:]))

    @cached_property
    def transparency(self) -> tuple[float, ...]:
        """Per frame, the part of the light that comes through: 0.84 to 1."""
        drawn = generator(self.seed, _NIGHT, 1).random(self.n_frames)
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
        random = generator(self.seed, _SENSOR)
        count = max(4, self.shape[0] * self.shape[1] // 2500)
        rows, columns = random.integers(self.shape[0], size=count), random.integers(self.shape[1], size=count)
        channels = random.integers(self.channels, size=count)
        levels = np.rint(400.0 * random.random(count) ** -0.7)
        listed = zip(rows, columns, channels, levels, strict=True)
        return tuple((int(row), int(column), int(channel), float(level)) for row, column, channel, level in listed)

    def raw_frame(self, index: int) -> npt.NDArray[np.uint16]:
        """Return a frame as the camera gave it, not aligned: data units, of `frame_shape`."""
        self._check(index)
        random = generator(self.seed, _FRAME, index)
        row, column = (self.dither + shift for shift in self.shifts[index])
        view = self._field.canvas[row : row + self.shape[0], column : column + self.shape[1]]
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
        """Return a frame moved to the output grid: data units, float32, `frame_shape`, NaN where nothing was seen."""
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

        The raw ones are `raw_frame` as unsigned 16-bit integers, with each frame's own WCS, the others `frame` as
        float32.
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
