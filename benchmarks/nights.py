"""The false-alarm table: 54 synthetic nights; what should register does, what should be refused is.

::

    python benchmarks/nights.py                 # the table as Markdown, minutes
    python benchmarks/nights.py bayer clouds    # nights whose names have one of the words

Exit code 1 where a night came out otherwise than it should.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.prepare import measure_master, transform_error
from zemosaic_stack_core import StackOptions, stack
from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.prepare import PreparedGroup, PrepareOptions, prepare_frames
from zemosaic_stack_core.prepare.canvas.geometry import Affine
from zemosaic_stack_core.synthetic.raw_night import RawNight

_Plane = npt.NDArray[np.float64]

# Pixels that a frame's center may be off.
RIGHT = 0.25
# Levels of hot pixels, noises of a pixel, that should be found.
_HOT = 12.0


@dataclass(frozen=True, kw_only=True)
class HardNight(RawNight):
    """A raw night with what makes nights hard."""

    # Pixels that the field moves from frame to frame, x and y, besides `shift`.
    drift: tuple[float, float] = (0.0, 0.0)
    # Sky from border to border, data units, turning by half a circle over the night.
    gradient: float = 0.0
    # Dark current at the corner that glows, data units.
    glow: float = 0.0
    # Objects that stay at their places on the sensor: trees, lamps.
    landscape: int = 0
    # What field each frame looks at; empty: all at the first.
    fields: tuple[int, ...] = ()
    # No vignetting, no dust: what is measured needs no flats.
    is_even: bool = False

    @cached_property
    def flat(self) -> _Plane:
        """The sensor's response."""
        return np.ones(self.shape) if self.is_even else super().flat

    def transform(self, index: int) -> Affine:
        """Return the map from a frame's pixels to the scene's."""
        dx, dy = self.drift
        return super().transform(index).moved(dx * index, dy * index)

    def signal(self, index: int) -> _Plane:
        """Return the light that reaches the sensor in one exposure."""
        if self.fields and self.fields[index]:
            return replace(self, fields=(), seed=self.seed + 1000 * self.fields[index]).signal(index)
        y, x = np.mgrid[: self.shape[0], : self.shape[1]]
        angle = math.pi * index / max(1, self.n_frames)
        slope = math.cos(angle) * x / self.shape[1] + math.sin(angle) * y / self.shape[0]
        return super().signal(index) + self.gradient * slope + self._fixed

    @property
    def _fixed(self) -> _Plane:
        """The landscape."""
        light = np.zeros(self.shape)
        y, x = np.mgrid[: self.shape[0], : self.shape[1]]
        random = np.random.default_rng([self.seed, 9])
        for row, column in random.uniform((8, 8), (self.shape[0] - 8, self.shape[1] - 8), (self.landscape, 2)):
            light += 3000 * np.exp(-((y - row) ** 2 + (x - column) ** 2) / 4)
        return light

    def _dark_current(self) -> _Plane:
        y, x = np.mgrid[: self.shape[0], : self.shape[1]]
        distance = np.hypot(x - self.shape[1], y - 0.2 * self.shape[0])
        return super()._dark_current() + self.glow * np.exp(-distance / (0.15 * self.shape[1]))


@dataclass(frozen=True, kw_only=True)
class Case:
    """A night, its calibration frames, and what should become of it."""

    name: str
    night: HardNight
    calibration: int = 0
    # Frames that must be kept, at least; None: all.
    keeps: int | None = None
    # Frames that may not be kept.
    drops: tuple[int, ...] = ()
    # Words of the refusal that is right; empty: none is.
    refused: str = ""


@dataclass(frozen=True, kw_only=True)
class NightRow:
    """What became of a night."""

    name: str
    frames: int
    kept: int = 0
    # What is wrong with it; empty where all is right.
    problem: str = ""
    refused: str = ""
    # Of the frames' centers, pixels: median and largest.
    shift_errors: tuple[float, float] = (math.nan, math.nan)
    # Degrees, the largest.
    turn_error: float = math.nan
    flux_bias_percent: float = math.nan
    noise_over_ideal: float = math.nan
    stars_lost_percent: float = math.nan
    # Hot pixels that stand out, those of them that were found, and good pixels called hot.
    hot: tuple[int, int, int] = (0, 0, 0)
    dropped: tuple[str, ...] = field(default_factory=tuple)


def cases(*words: str) -> tuple[Case, ...]:
    """Return the cases whose names have one of the words; all without a word."""
    return tuple(case for case in CASES if not words or any(word in case.name for word in words))


def _case(name: str, *, bayer: str | None = None, **options: object) -> Case:
    """Return a case; what is no field of `Case` is the night's."""
    own = {key: options.pop(key) for key in ("calibration", "keeps", "drops", "refused") if key in options}
    night = {"n_frames": 8, "shape": (240, 320), "n_stars": 260, "turn": 0.5, "pattern": bayer, **options}
    night["is_even"] = not own.get("calibration")
    return Case(name=name, night=HardNight(**night), **own)  # type: ignore[arg-type]


CASES = (
    _case("mono, 6 frames", n_frames=6),
    _case("mono, 60 frames", n_frames=60),
    _case("bayer, 6 frames", bayer="GRBG", n_frames=6),
    _case("bayer, 24 frames, calibrated", bayer="RGGB", n_frames=24, calibration=6, shape=(320, 420), n_stars=400),
    _case("few stars, mono", n_stars=40, n_frames=12),
    _case("few stars, bayer", bayer="GRBG", n_stars=60, n_frames=12),
    _case("crowded, mono", n_stars=3500),
    _case("crowded, bayer", bayer="BGGR", n_stars=2500),
    _case("undersampled, mono", fwhm=(1.4, 1.8), calibration=4),
    _case("undersampled, mono, no darks", fwhm=(1.4, 1.8)),
    _case("undersampled, bayer", bayer="GRBG", fwhm=(1.8, 2.2)),
    _case("wide stars, mono", fwhm=(5.0, 7.0)),
    _case("wide stars, bayer", bayer="GRBG", fwhm=(6.0, 8.0)),
    _case("seeing from 2 to 6 px", fwhm=(2.0, 6.0), n_frames=16),
    _case("not dithered, mono, darks", shift=0.0, turn=0.0, calibration=4),
    _case("not dithered, mono, no darks", shift=0.0, turn=0.0),
    _case("not dithered, sharp, bayer", bayer="GRBG", shift=0.0, turn=0.0, fwhm=(1.6, 1.9)),
    _case("drift, mono", drift=(2.0, -0.7), shift=0.4, n_frames=24),
    _case("drift, bayer", bayer="GRBG", drift=(1.3, 0.9), shift=0.4, n_frames=16),
    _case("field rotation by 24 degrees", turn=24.0, n_frames=16),
    _case("turned by 90 degrees", turn=90.0, n_frames=10, n_stars=350),
    _case("flip, calibrated", flip=True, calibration=5),
    _case("flip, bayer, calibrated", bayer="GRBG", flip=True, calibration=5),
    _case("flip, few stars", flip=True, n_stars=50),
    _case("gradients, mono", gradient=300.0, n_frames=12),
    _case("gradients, bayer, turn", bayer="GRBG", gradient=200.0, turn=15.0, n_frames=12),
    _case("clouds in 3 of 12", clouds=(3, 4, 9), n_frames=12, keeps=9),
    _case("clouds in 2 of 8, bayer", bayer="GRBG", clouds=(2, 5), keeps=6),
    _case("amp glow, no darks", glow=3000.0),
    _case("amp glow, darks", glow=3000.0, calibration=5),
    _case("amp glow, bayer, no darks", bayer="GRBG", glow=3000.0),
    _case("hot 0.5 %, no darks", hot_fraction=0.005),
    _case("hot 0.5 %, bayer, no darks", bayer="GRBG", hot_fraction=0.005),
    _case("hot 0.5 %, drift, few stars", hot_fraction=0.005, n_stars=60, drift=(1.5, 0.6), n_frames=12),
    _case("hot 1 %, darks", hot_fraction=0.01, calibration=5),
    _case("satellites in 3 of 8", trails=(1, 4, 6)),
    _case("focus changes", zoom=0.002),
    _case("faint stars", faintest=500.0, brightest=12000.0, n_stars=400),
    _case("saturated stars", brightest=3e6),
    _case("bright sky", sky=9000.0, faintest=4000.0),
    _case("cosmic rays, 300 a frame", cosmic_rays=300),
    _case("one frame elsewhere", fields=(0, 0, 0, 1, 0, 0, 0, 0), drops=(3,), keeps=7),
    _case("two fields", fields=(0, 0, 0, 0, 1, 1, 1, 1), refused="two different fields"),
    _case("two fields, bayer", bayer="GRBG", fields=(0, 0, 0, 0, 1, 1, 1, 1), refused="two different fields"),
    _case("noise only, mono", n_stars=0, hot_fraction=0.0, cosmic_rays=0, refused="stars"),
    _case("noise only, bayer", bayer="GRBG", n_stars=0, hot_fraction=0.0, cosmic_rays=0, refused="stars"),
    _case("hot pixels only", n_stars=0, hot_fraction=0.005, refused="stars"),
    _case("clouds only, gradients", n_stars=0, gradient=300.0, refused="stars"),
    _case("landscape, the sky turns", landscape=150, turn=14.0, n_stars=150, refused="stay at their places"),
    _case("landscape, few stars", landscape=60, turn=14.0, n_stars=45, refused="stay at their places"),
    _case("landscape, bayer", bayer="GRBG", landscape=100, turn=9.0, n_stars=100, refused="stay at their places"),
    _case("a few fixed objects, the sky turns", landscape=12, turn=14.0, n_stars=200),
    _case("a few fixed objects, the sky drifts", landscape=12, drift=(1.5, 0.4), n_stars=150),
    _case("every frame elsewhere", fields=tuple(range(8)), refused="field"),
)


def measure_night(case: Case, folder: Path, workers: int | None = None) -> NightRow:
    """Prepare and stack a night and compare it with its truth."""
    night, count = case.night, case.calibration
    paths = night.write(folder / "raw", darks=count, biases=count, flats=count)
    row = NightRow(name=case.name, frames=night.n_frames)
    try:
        group = prepare_frames(paths, PrepareOptions(), cache_folder=folder / "cache", workers=workers)
    except InvalidInputError as error:
        is_right = bool(case.refused) and case.refused in str(error)
        return replace(row, refused=str(error), problem="" if is_right else "refused")
    names = [path.name for path in paths]
    used = [names.index(frame.path.name) for frame in group.kept]
    to_canvas = night.transform(names.index(Path(group.reference).name)).inverse()
    errors = [(0.0, 0.0, 0.0)] * len(used)
    truths = [night.transform(index).then(to_canvas) for index in used]
    if group.alignment != "none":
        errors = [transform_error(*pair, night.shape) for pair in zip(group.kept, truths, strict=True)]
    elif max(one.largest_move(*night.shape) for one in truths) > RIGHT:
        errors = [(math.inf, math.inf, math.inf)]
    shifts = [one[0] for one in errors]
    row = replace(
        row,
        kept=len(used),
        shift_errors=(float(np.median(shifts)), max(shifts)),
        turn_error=max(one[1] for one in errors),
        hot=_hot(night, folder / "cache"),
        dropped=tuple(f"{frame.path.name}: {frame.dropped}" for frame in group.dropped),
    )
    if case.refused:
        return replace(row, problem=_problem(case, row, used))
    return replace(row, problem=_problem(case, row, used), **_measured(night, group, names, to_canvas))


def _measured(night: HardNight, group: PreparedGroup, names: list[str], to_canvas: Affine) -> dict[str, float]:
    """Return what is measured on the master, of its green."""
    master = stack(group.paths, options=StackOptions(rejection="mad_clip", normalization="additive"))
    found = measure_master(night, group, names, master.image, to_canvas)["G"]
    return {
        "flux_bias_percent": found["flux_bias_percent"],
        "noise_over_ideal": found["noise_over_ideal_8x8"],
        "stars_lost_percent": 100 * found["lost"],
    }


def _hot(night: HardNight, cache: Path) -> tuple[int, int, int]:
    """Return hot pixels that stand out, those of them that were found, and good pixels called hot."""
    where, levels = night.hot_pixels
    size = night.shape[0] * night.shape[1]
    found = np.zeros(size, np.bool_)
    for path in cache.glob("hot-*.npy"):
        found |= np.load(path).reshape(-1)
    noise = math.sqrt(night.sky + 20.0 + night.read_noise**2)
    bright = where[levels > _HOT * noise]
    good = np.ones(size, np.bool_)
    good[where] = False
    return len(bright), int(found[bright].sum()), int((found & good).sum())


def _problem(case: Case, row: NightRow, used: Sequence[int]) -> str:
    """Return what is wrong with what became of a night."""
    if row.shift_errors[1] > RIGHT:
        return f"a frame is {row.shift_errors[1]:.2f} px off"
    if case.refused:
        return "not refused"
    least = case.night.n_frames if case.keeps is None else case.keeps
    if len(used) < least:
        return f"{len(used)} kept, not {least}"
    wrong = sorted(set(used) & set(case.drops))
    return f"frame {wrong[0]} is kept" if wrong else ""


def table(rows: Sequence[NightRow]) -> str:
    """Return the rows as Markdown."""
    lines = [
        "| night | kept | shift px, median and largest | turn deg | flux % | noise / ideal | stars lost % | "
        "hot: there, found, false | |",
        "|" + " --- |" * 9,
    ]
    for row in rows:
        if row.refused:
            lines.append(f"| {row.name} | refused | | | | | | | {row.problem or row.refused.splitlines()[0][:70]} |")
            continue
        low, high = row.shift_errors
        lines.append(
            f"| {row.name} | {row.kept} of {row.frames} | {low:.3f}, {high:.3f} | {row.turn_error:.4f} | "
            f"{row.flux_bias_percent:.2f} | {row.noise_over_ideal:.2f} | {row.stars_lost_percent:.1f} | "
            f"{', '.join(map(str, row.hot))} | {row.problem} |"
        )
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Measure the nights asked for; return 1 where one came out otherwise than it should."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("words", nargs="*", metavar="WORD", help="of the names of the nights (default: all)")
    parser.add_argument("--workers", type=int)
    given = parser.parse_args(arguments)
    rows = []
    for case in cases(*given.words):
        with tempfile.TemporaryDirectory() as folder:
            rows.append(measure_night(case, Path(folder), given.workers))
        for line in (rows[-1].problem, *rows[-1].dropped):
            if line:
                print(f"{case.name}: {line}", file=sys.stderr, flush=True)
    print(table(rows))
    return int(any(row.problem for row in rows))


if __name__ == "__main__":
    sys.exit(main())
