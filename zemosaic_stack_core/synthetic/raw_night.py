"""Raw frames whose truth is known: a synthetic night as a telescope writes it, for tests, benchmarks and documentation.

Unlike those of `night`, which are aligned or whole pixels apart, these are shifted by fractions, turned, scaled and
flipped, through a Bayer filter if asked, with seeing, sky and clouds that change, hot pixels, cosmic rays and trails,
and their dark, bias and flat frames.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.prepare.canvas.geometry import Affine

_Values = npt.NDArray[np.float64]

# Data units, and data units per exposure.
_BIAS, _DARK = 300.0, 20.0
_COLORS = "RGB"


@dataclass(frozen=True, kw_only=True)
class RawNight:
    """A deterministic night of raw frames; one electron is one data unit."""

    # Lights.
    n_frames: int = 24
    # (row, column) of a frame.
    shape: tuple[int, int] = (400, 500)
    # On an area that all frames together see.
    n_stars: int = 600
    # Bayer pattern; None for mono.
    pattern: str | None = None
    # Largest shift of a frame in x and y, pixels.
    shift: float = 12.0
    # Field rotation over the whole night, degrees.
    turn: float = 1.5
    # A meridian flip in the middle: the second half is turned by 180 degrees.
    flip: bool = False
    # Largest relative change of the scale (focus).
    zoom: float = 0.0
    # Narrowest and widest stars, pixels.
    fwhm: tuple[float, float] = (2.6, 3.4)
    # Flux of stars, data units.
    faintest: float = 1500.0
    brightest: float = 150000.0
    # Data units per pixel.
    sky: float = 400.0
    # Part of the pixels that are hot.
    hot_fraction: float = 0.001
    # Per frame.
    cosmic_rays: int = 15
    # Frames with a satellite's trail, and frames that clouds dim to a tenth, unevenly.
    trails: tuple[int, ...] = ()
    clouds: tuple[int, ...] = ()
    # Data units.
    read_noise: float = 4.0
    seed: int = 1

    def _random(self, *stream: int) -> np.random.Generator:
        """Return the generator of one part of the night."""
        return np.random.default_rng([self.seed, *stream])

    @cached_property
    def stars(self) -> tuple[_Values, _Values]:
        """Places (x, y) on the scene's grid, shape (star, 2), and fluxes in red, green and blue, shape (star, 3)."""
        random = self._random(0)
        reach = math.hypot(*self.shape) / 2 + self.shift
        middle = ((self.shape[1] - 1) / 2, (self.shape[0] - 1) / 2)
        places = random.uniform(-reach, reach, (self.n_stars, 2)) + middle
        slope = np.log(self.brightest / self.faintest)
        flux = self.faintest * np.exp(slope * random.random(self.n_stars) ** 2.5)
        warmth = random.uniform(-0.35, 0.35, self.n_stars)
        return places, np.column_stack([flux * (1 + warmth), flux, flux * (1 - warmth)])

    def transform(self, index: int) -> Affine:
        """Return the map from a frame's pixels to the scene's; the first frame's is the identity."""
        if index == 0:
            return Affine()
        random = self._random(1, index)
        angle = math.radians(self.turn * index / max(1, self.n_frames - 1))
        angle += math.pi if self.flip and index >= (self.n_frames + 1) // 2 else 0.0
        scale = 1.0 + self.zoom * random.uniform(-1, 1)
        c, s = scale * math.cos(angle), scale * math.sin(angle)
        x, y = (self.shape[1] - 1) / 2, (self.shape[0] - 1) / 2
        dx, dy = random.uniform(-self.shift, self.shift, 2)
        return Affine(c, -s, x - c * x + s * y + dx, s, c, y - s * x - c * y + dy)

    def transparency(self, index: int) -> float:
        """Return the part of the light that comes through."""
        clear = 1.0 - 0.15 * float(self._random(2, index).random())
        return 0.1 * clear if index in self.clouds else clear

    def width(self, index: int) -> float:
        """Return a frame's FWHM, pixels."""
        return float(self._random(3, index).uniform(*self.fwhm))

    @cached_property
    def hot_pixels(self) -> tuple[npt.NDArray[np.intp], _Values]:
        """Flat indices of the hot pixels and their levels, data units per exposure."""
        random = self._random(4)
        count = round(self.hot_fraction * self.shape[0] * self.shape[1])
        where = random.choice(self.shape[0] * self.shape[1], count, replace=False)
        return where, 500.0 * random.random(count) ** -0.8

    @cached_property
    def flat(self) -> _Values:
        """The sensor's response: vignetting and dust."""
        y, x = np.mgrid[: self.shape[0], : self.shape[1]]
        r = np.hypot(y / self.shape[0] - 0.5, x / self.shape[1] - 0.5)
        dust = 1 - 0.15 * np.exp(-((y - 0.3 * self.shape[0]) ** 2 + (x - 0.7 * self.shape[1]) ** 2) / 200.0)
        response: _Values = (1.0 - 0.35 * r**2) * dust
        return response

    def signal(self, index: int) -> _Values:
        """Return the light that reaches the sensor in one exposure, without noise, before the flat: data units."""
        from scipy.special import erf

        places, fluxes = self.stars
        on_frame = self.transform(index).inverse()(places)
        sigma = self.width(index) / 2.3548
        light = np.zeros((*self.shape, 3))
        radius = math.ceil(5.5 * sigma)
        for (x, y), flux in zip(on_frame, fluxes, strict=True):
            left, top = round(x) - radius, round(y) - radius
            if left >= self.shape[1] or top >= self.shape[0] or left + 2 * radius < 0 or top + 2 * radius < 0:
                continue
            columns = np.arange(max(0, left), min(self.shape[1], left + 2 * radius + 1))
            rows = np.arange(max(0, top), min(self.shape[0], top + 2 * radius + 1))
            edge_x = erf((np.append(columns, columns[-1] + 1) - 0.5 - x) / (math.sqrt(2) * sigma))
            edge_y = erf((np.append(rows, rows[-1] + 1) - 0.5 - y) / (math.sqrt(2) * sigma))
            stamp = np.diff(edge_y)[:, np.newaxis] * np.diff(edge_x) / 4
            light[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] += stamp[..., np.newaxis] * flux
        y, x = np.mgrid[: self.shape[0], : self.shape[1]]
        phase = 2 * math.pi * index / self.n_frames
        through = np.full(self.shape, self.transparency(index))
        if index in self.clouds:
            through *= 1 + 0.9 * np.sin(x / 37.0 + phase) * np.sin(y / 29.0)
        level = self.sky * (1 + 0.2 * math.sin(phase) + 0.05 * (x / self.shape[1] - 0.5) * math.cos(phase))
        light = light * through[..., np.newaxis] + level[..., np.newaxis] * np.array([0.8, 1.0, 0.7])
        if self.pattern is None:
            mono: _Values = light[..., 1]
            return mono
        mosaic = np.empty(self.shape)
        for place, color in enumerate(self.pattern):
            row, column = place // 2, place % 2
            mosaic[row::2, column::2] = light[row::2, column::2, _COLORS.index(color)]
        return mosaic

    def light(self, index: int, *, exposure: float = 1.0) -> npt.NDArray[np.uint16]:
        """Return a light as the camera writes it."""
        random = self._random(5, index)
        expected = self.signal(index) * self.flat + self._dark_current() * exposure
        if index in self.trails:
            y, x = np.mgrid[: self.shape[0], : self.shape[1]]
            distance = (x - 0.6 * y - 0.2 * self.shape[1]) / math.hypot(1, 0.6)
            expected += 3000.0 * np.exp(-0.5 * (distance / 1.5) ** 2)
        frame = self._read(expected, random)
        rows, columns = (random.integers(0, length, self.cosmic_rays) for length in self.shape)
        frame[rows, columns] += random.uniform(1000, 20000, self.cosmic_rays)
        return np.clip(np.rint(frame), 0, 65535).astype(np.uint16)

    def dark(self, index: int, *, exposure: float = 1.0) -> npt.NDArray[np.uint16]:
        """Return a dark frame."""
        frame = self._read(self._dark_current() * exposure, self._random(6, index))
        return np.clip(np.rint(frame), 0, 65535).astype(np.uint16)

    def bias(self, index: int) -> npt.NDArray[np.uint16]:
        """Return a bias frame."""
        return np.clip(np.rint(self._read(np.zeros(self.shape), self._random(7, index))), 0, 65535).astype(np.uint16)

    def flat_frame(self, index: int) -> npt.NDArray[np.uint16]:
        """Return a flat frame."""
        expected = (20000.0 + 500.0 * index) * self.flat
        if self.pattern is not None:
            for place, color in enumerate(self.pattern):
                expected[place // 2 :: 2, place % 2 :: 2] *= {"R": 0.7, "G": 1.0, "B": 0.6}[color]
        return np.clip(np.rint(self._read(expected, self._random(8, index))), 0, 65535).astype(np.uint16)

    def _dark_current(self) -> _Values:
        """Return the dark current of one exposure, data units."""
        current = np.full(self.shape[0] * self.shape[1], _DARK)
        where, level = self.hot_pixels
        current[where] += level
        return current.reshape(self.shape)

    def _read(self, expected: _Values, random: np.random.Generator) -> _Values:
        """Return what is read out, with noise."""
        noise = random.standard_normal(self.shape) * np.sqrt(expected + self.read_noise**2)
        return expected + noise + _BIAS

    def write(self, folder: str | os.PathLike[str], *, darks: int = 0, biases: int = 0, flats: int = 0) -> list[Path]:
        """Write the lights, then darks, biases and flats, as 16-bit FITS files; return their names."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        written = [
            self._save(target / f"light_{index:04d}.fits", self.light(index), "Light Frame", index)
            for index in range(self.n_frames)
        ]
        written += [self._save(target / f"dark_{i:02d}.fits", self.dark(i), "Dark Frame", i) for i in range(darks)]
        written += [self._save(target / f"bias_{i:02d}.fits", self.bias(i), "Bias Frame", i) for i in range(biases)]
        written += [
            self._save(target / f"flat_{i:02d}.fits", self.flat_frame(i), "Flat Field", i) for i in range(flats)
        ]
        return written

    def _save(self, path: Path, pixels: npt.NDArray[np.uint16], kind: str, index: int) -> Path:
        """Write one frame with the cards that cameras write."""
        from astropy.io import fits

        header = fits.Header()
        header["IMAGETYP"] = kind
        header["EXPTIME"] = 0.0 if kind.startswith("Bias") else 1.0 if kind.startswith("Flat") else 30.0
        header["DATE-OBS"] = f"2026-03-14T{20 + index // 60 % 4:02d}:{index % 60:02d}:00"
        if self.pattern is not None:
            header["BAYERPAT"] = self.pattern
        fits.PrimaryHDU(pixels, header).writeto(path, overwrite=True)
        return path
