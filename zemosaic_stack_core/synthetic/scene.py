"""What the synthetic night looks at: a spiral galaxy, its companion, and a field of stars."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

_Plane = npt.NDArray[np.float64]

# The stream of random numbers that belongs to the scene; a night's other parts have theirs.
SCENE = 0
# Of a star, pixels.
_FWHM = 2.8
_MOFFAT_BETA = 3.0


def generator(seed: int, stream: int, index: int = 0) -> np.random.Generator:
    """Return the random numbers of one part, or of one of several parts, of a night, the same on every system."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, stream, index])))


@dataclass(frozen=True, slots=True)
class SyntheticStar:
    """A star of the scene."""

    # Place on the output grid, pixels; it may lie outside.
    row: float
    column: float
    # Electrons in one exposure through a clear sky, per channel.
    flux: tuple[float, ...]


@dataclass(frozen=True)
class SyntheticScene:
    """A field of the sky, noise-free, in electrons of one exposure."""

    # (row, column) of the output grid, and pixels drawn around it.
    shape: tuple[int, int]
    margin: int
    # Three channels (red, green, blue), or one.
    color: bool
    seed: int

    @cached_property
    def stars(self) -> tuple[SyntheticStar, ...]:
        """The stars, brightest first: as many above a flux as its power -0.9, from red to blue."""
        random = generator(self.seed, SCENE, 0)
        rows, columns = (length + 2 * self.margin for length in self.shape)
        count = max(8, round(rows * columns / 700))
        fluxes = np.sort(np.minimum(500.0 * random.random(count) ** (-1 / 0.9), 9e5))[::-1]
        places = random.random((count, 2)) * (rows, columns) - self.margin - 0.5
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
    def canvas(self) -> npt.NDArray[np.float64]:
        """The scene in electrons, as wide as all the frames together: (row, column, channel)."""
        rows, columns = (length + 2 * self.margin for length in self.shape)
        canvas = np.zeros((rows, columns, 3 if self.color else 1))
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
        row, column = star.row + self.margin, star.column + self.margin
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
        for channel in range(canvas.shape[2]):
            smooth, arms, core, near = tints[channel] if self.color else tints[1]
            glow = (smooth * disk + arms * arm * lumps) * dust + core * bulge
            canvas[..., channel] += glow + 1.6 * near * companion
        self._add_knots(canvas, center, (angle, tilt), size)

    def _lumps(self, shape: tuple[int, int], size: float) -> _Plane:
        """Return a field of mean about 1 that makes the arms uneven: random values joined by smooth curves."""
        random = generator(self.seed, SCENE, 1)
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
        random = generator(self.seed, SCENE, 2)
        angle, tilt = plane
        for _ in range(46):
            radius = 0.22 + 0.62 * random.random()
            along = 2.9 * math.log(radius + 0.05) + math.pi * int(random.integers(2)) + 0.16 * (random.random() - 0.5)
            u, v = size * radius * math.cos(along), size * radius * math.sin(along) * tilt
            column = center[1] + u * math.cos(angle) - v * math.sin(angle) - self.margin
            row = center[0] + u * math.sin(angle) + v * math.cos(angle) - self.margin
            flux = 1200.0 + 5200.0 * random.random() ** 3
            tint = (flux, 0.28 * flux, 0.5 * flux) if self.color else (flux,)
            self._add_star(canvas, SyntheticStar(row, column, tint))


def _smooth(value: _Plane) -> _Plane:
    """Return a curve from 0 to 1 that is level at both ends."""
    return value * value * (3.0 - 2.0 * value)
