"""A whole night on the CPU, on the GPU, and with a GPU that fails: the same bits, joined without hole or seam.

Writes a night of overlapping pointings (dithered frames with NaN borders, sky that drifts, hot pixels, cosmic rays,
satellites, a WCS), makes its tiles three times, compares every plane, joins the tiles with
`reproject.mosaicking.reproject_and_coadd`, and measures the holes and the steps across the tiles' borders. Prints one
JSON object. With ``--tiny-tiles N`` it measures instead what a tile costs beside its pixels, alone and on two dask
workers.

Usage::

    python benchmarks/night.py                               # 3,000 frames in 12 tiles
    python benchmarks/night.py --frames 12 --tiles 4         # tiny
    python benchmarks/night.py --tiny-tiles 2000
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io import fits
from astropy.wcs import WCS

from zemosaic_stack_core.backends import Backend, cupy_backend
from zemosaic_stack_core.fits.stream import bands_of_planes, write_hdu
from zemosaic_stack_core.gpu.health import GpuHealth
from zemosaic_stack_core.gpu.phase3_gpu import Phase3Gpu
from zemosaic_stack_core.options import StackOptions
from zemosaic_stack_core.phase3 import ClusterChoice, Night, RunReport, StackSettings, TileRecord, TileSpec, run_night

SHAPE = (60, 80)  # of a frame and a tile, (row, column)
OVERLAP = 20  # pixels that neighbouring pointings share
DITHER = 5
NOISE = 12.0  # of a frame, data units
SKY = 800.0
PIXEL = 2.4 / 3600.0  # degrees

Image = npt.NDArray[Any]
OpenBackend = Callable[[], Backend]


@dataclass(frozen=True)
class Pointings:
    """A night on disk."""

    tiles: list[TileSpec]
    # (row, column) on the field of each tile's first pixel.
    origins: list[tuple[int, int]]
    # What a perfect camera would have seen, with the mean sky.
    field: Image


def draw_field(shape: tuple[int, int], seed: int) -> Image:
    """Return stars and a nebula on a sky that rises slowly."""
    random = np.random.default_rng(seed)
    y, x = np.arange(shape[0])[:, None], np.arange(shape[1])[None]
    field = SKY + 0.05 * x + 0.08 * y
    field = field + 60.0 * np.exp(-((x - 0.5 * shape[1]) ** 2 + (y - 0.45 * shape[0]) ** 2) / (0.06 * shape[1] ** 2))
    for _ in range(shape[0] * shape[1] // 350):
        row, column = random.random(2) * shape
        flux = 60.0 * random.random() ** -0.8
        field = field + flux * np.exp(-((y - row) ** 2 + (x - column) ** 2) / 3.0)
    return np.asarray(field)


def field_header(origin: tuple[int, int]) -> fits.Header:
    """Return the WCS of a part of the field."""
    header = fits.Header()
    for keyword, value in (
        ("CTYPE1", "RA---TAN"),
        ("CTYPE2", "DEC--TAN"),
        ("CRVAL1", 10.68),
        ("CRVAL2", 41.27),
        ("CRPIX1", 100.5 - origin[1]),
        ("CRPIX2", 80.5 - origin[0]),
        ("CDELT1", -PIXEL),
        ("CDELT2", PIXEL),
        ("EXPTIME", 10.0),
    ):
        header[keyword] = value
    return header


def write_pointings(folder: Path, n_tiles: int, n_frames: int, seed: int = 5) -> Pointings:
    """Write `n_frames` frames for each of `n_tiles` pointings, in up to four columns."""
    columns = min(4, n_tiles)
    rows = -(-n_tiles // columns)
    size = [count * (length - OVERLAP) + OVERLAP for count, length in zip((rows, columns), SHAPE, strict=True)]
    field = draw_field((size[0], size[1]), seed)
    specs, origins = [], []
    for tile in range(n_tiles):
        origin = (tile // columns * (SHAPE[0] - OVERLAP), tile % columns * (SHAPE[1] - OVERLAP))
        target = folder / f"tile_{tile + 1:02d}"
        target.mkdir(parents=True)
        paths = []
        for index in range(n_frames):
            path = target / f"light_{index + 1:04d}.fits"
            write_frame(path, draw_frame(field, origin, np.random.default_rng([seed, tile, index])), origin)
            paths.append(path)
        specs.append(TileSpec(tile_id=tile + 1, name=target.name, frames=tuple(paths)))
        origins.append(origin)
    return Pointings(specs, origins, field)


def draw_frame(field: Image, origin: tuple[int, int], random: np.random.Generator) -> Image:
    """Return a frame on the tile's grid: noise, drifting sky, defects, NaN where the camera did not look."""
    part = field[origin[0] : origin[0] + SHAPE[0], origin[1] : origin[1] + SHAPE[1]]
    frame = part + random.normal(0.0, NOISE, SHAPE) + random.normal(0.0, 4.0)
    for _ in range(6):
        frame[random.integers(SHAPE[0]), random.integers(SHAPE[1])] += 300.0 + 3000.0 * random.random()
    if random.random() < 0.05:
        row, slope = random.integers(SHAPE[0]), random.normal(0.0, 0.5)
        trail = np.rint(row + slope * np.arange(SHAPE[1])).astype(np.intp)
        inside = (trail >= 0) & (trail < SHAPE[0])
        frame[trail[inside], np.arange(SHAPE[1])[inside]] += 400.0
    # Never up: the first row of each pointing is seen by none of its frames, and at the field's border by nobody.
    down, right = random.integers(1, DITHER + 1), random.integers(-DITHER, DITHER + 1)
    frame[: max(0, down)] = np.nan
    frame[SHAPE[0] + min(0, down) :] = np.nan
    frame[:, : max(0, right)] = np.nan
    frame[:, SHAPE[1] + min(0, right) :] = np.nan
    return frame.astype(np.float32)


def write_frame(path: Path, frame: Image, origin: tuple[int, int]) -> None:
    """Write a frame with its WCS."""
    header = fits.Header()
    for keyword, value in (("SIMPLE", True), ("BITPIX", -32), ("NAXIS", 2), ("NAXIS1", SHAPE[1]), ("NAXIS2", SHAPE[0])):
        header[keyword] = value
    header.extend(field_header(origin))
    with path.open("w+b") as file:
        write_hdu(file, header, bands_of_planes(frame, ">f4"))


class FailingBackend:
    """A backend that can't be given anything any more once a tile's turn has come."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.fails = False

    def __getattr__(self, name: str) -> Any:
        if self.fails and name == "open_transfer":
            raise RuntimeError("an injected failure of the device")
        return getattr(self._backend, name)


class FailAt:
    """Progress of a run that breaks the device when a tile begins."""

    def __init__(self, backend: FailingBackend, tile_id: int) -> None:
        self._backend, self._tile_id = backend, tile_id

    def begin(self, tiles: int) -> None:
        """See `RunProgress`."""

    def tile(self, spec: TileSpec) -> None:
        """See `RunProgress`."""
        self._backend.fails = self._backend.fails or spec.tile_id == self._tile_id

    def rows(self, done: int, total: int) -> None:
        """See `RunProgress`."""

    def done(self, record: TileRecord) -> None:
        """See `RunProgress`."""

    def end(self) -> None:
        """See `RunProgress`."""


def settings() -> StackSettings:
    """Return how the night's tiles are made."""
    options = StackOptions(rejection="winsorized_sigma_clip", normalization="additive", weighting="noise_variance")
    return StackSettings(options=options, maps=("coverage", "rejected_high", "rejected_low", "weight_map"))


def make_three_times(
    night: Pointings, folder: Path, open_backend: OpenBackend = cupy_backend, fail_at: int = 5
) -> dict[str, RunReport]:
    """Make the tiles on the CPU, on the GPU, and on a GPU that fails in a tile."""

    def gpu(opened: OpenBackend) -> Phase3Gpu:
        return Phase3Gpu(check_health=lambda: GpuHealth(usable=True), open_backend=opened)

    def plan(name: str, backend: str) -> Night:
        return Night(tiles=night.tiles, output=folder / name, settings=settings(), backend=backend)

    failing = FailingBackend(open_backend())
    return {
        "cpu": run_night(plan("cpu", "cpu")),
        "gpu": run_night(plan("gpu", "auto"), gpu=gpu(open_backend)),
        "gpu that fails": run_night(
            plan("gpu that fails", "auto"),
            gpu=gpu(lambda: failing),  # type: ignore[arg-type, return-value]
            progress=FailAt(failing, fail_at),
        ),
    }


def different_planes(first: Path, second: Path) -> list[str]:
    """Return the planes and table columns of two folders' tiles that are not the same bits."""
    found = []
    names = [path.name for path in sorted(first.glob("*.fits"))]
    if names != [path.name for path in sorted(second.glob("*.fits"))]:
        found.append("the names of the tiles")
    for name in names:
        with fits.open(first / name) as one, fits.open(second / name) as other:
            for hdu, same in zip(one, other, strict=True):
                if np.asarray(hdu.data).tobytes() != np.asarray(same.data).tobytes():
                    found.append(f"{name} {hdu.name}")
    return found


def join(output: Path, night: Pointings, *, match_background: bool = True) -> tuple[Image, Image]:
    """Return the mosaic of the tiles and, per pixel, how many samples lie under it.

    A tile has the level of its reference frame, and the sky drifts over the night: joining levels it, as every mosaic
    program does.
    """
    from reproject import reproject_interp
    from reproject.mosaicking import reproject_and_coadd

    target = WCS(field_header((0, 0)))
    tiles, counts = [], []
    for spec in night.tiles:
        with fits.open(output / spec.file_name) as hdus:
            wcs = WCS(hdus[0].header)
            tiles.append((np.array(hdus[0].data, dtype=np.float64), wcs))
            counts.append((np.array(hdus["COVERAGE"].data, dtype=np.float64), wcs))
    # The grids differ by whole pixels only: the nearest pixel is the pixel itself.
    how = {"shape_out": night.field.shape, "reproject_function": reproject_interp, "order": "nearest-neighbor"}
    mosaic, _ = reproject_and_coadd(
        tiles, target, blank_pixel_value=np.nan, match_background=match_background and len(tiles) > 1, **how
    )
    coverage, _ = reproject_and_coadd(counts, target, combine_function="sum", **how)
    return mosaic, coverage


def measure_mosaic(mosaic: Image, coverage: Image, night: Pointings) -> dict[str, float]:
    """Return the holes, the noise per pixel, and the largest step across a tile's border, in units of that noise."""
    seen = np.zeros(night.field.shape, dtype=bool)
    for spec, (row, column) in zip(night.tiles, night.origins, strict=True):
        for path in spec.frames:
            seen[row : row + SHAPE[0], column : column + SHAPE[1]] |= np.isfinite(fits.getdata(path))
    residual = np.where(np.isfinite(mosaic), mosaic - night.field, np.nan)
    # From neighbours' differences: a step between tiles must not pass for noise.
    noise = 1.4826 * float(np.nanmedian(np.abs(np.diff(residual, axis=1)))) / 2**0.5
    steps = list(border_steps(residual, night.origins))
    return {
        "pixels": int(mosaic.size),
        "pixels_seen": int(seen.sum()),
        "finite_where_nobody_looked": int((np.isfinite(mosaic) & ~seen).sum()),
        "holes": int((~np.isfinite(mosaic) & seen).sum()),
        "coverage_where_nobody_looked": int(((coverage > 0) & ~seen).sum()),
        "noise": noise,
        "borders": len(steps),
        "largest_step_over_noise": float(np.max(np.abs(steps))) / noise if steps else 0.0,
    }


def border_steps(residual: Image, origins: list[tuple[int, int]], width: int = 6) -> Iterator[float]:
    """Yield, for each side of each tile that lies inside the field, by how much the level changes across it."""
    for row, column in origins:
        rows, columns = slice(row, row + SHAPE[0]), slice(column, column + SHAPE[1])
        for edge in (row, row + SHAPE[0]):
            if 0 < edge < residual.shape[0]:
                yield _step(residual[edge - width : edge, columns], residual[edge : edge + width, columns])
        for edge in (column, column + SHAPE[1]):
            if 0 < edge < residual.shape[1]:
                yield _step(residual[rows, edge - width : edge], residual[rows, edge : edge + width])


def _step(before: Image, after: Image) -> float:
    """Return the difference of two means."""
    return float(np.nanmean(after) - np.nanmean(before))


def write_tiny_tiles(folder: Path, count: int) -> list[TileSpec]:
    """Write frames of 8 x 8 pixels, three for each of many tiles."""
    random = np.random.default_rng(8)
    specs = []
    for number in range(1, count + 1):
        paths = tuple(folder / f"{number}_{index}.npy" for index in range(3))
        for path in paths:
            np.save(path, random.normal(100.0, 3.0, (8, 8)).astype(np.float32))
        specs.append(TileSpec(tile_id=number, name=str(number), frames=paths))
    return specs


def measure_tiny_tiles(folder: Path, count: int, places: Mapping[str, ClusterChoice | None]) -> dict[str, Any]:
    """Return what a tile costs beside its pixels, in each place; the first is what the others are compared with."""
    specs = write_tiny_tiles(folder, count)
    how = StackSettings(options=StackOptions())
    facts: dict[str, Any] = {"tiles": count}
    for name, cluster in places.items():
        night = Night(tiles=specs, output=folder / name, settings=how, backend="cpu", cluster=cluster)
        for again in ("", "_reused"):
            began, used = time.perf_counter(), sum(os.times()[:4])
            report = run_night(night)
            facts[f"{name}{again}_ms_per_tile"] = 1e3 * (time.perf_counter() - began) / count
            # Of this process and its children: a busy machine changes it little.
            facts[f"{name}{again}_cpu_ms_per_tile"] = 1e3 * (sum(os.times()[:4]) - used) / count
            facts[f"{name}{again}_counts"] = report.counts
    first, *others = places
    facts["different"] = {name: len(different_planes(folder / first, folder / name)) for name in others}
    facts["report_bytes"] = (folder / first / "report.html").stat().st_size
    return facts


def measure_night(folder: Path, n_tiles: int, n_frames: int, open_backend: OpenBackend) -> dict[str, Any]:
    """Return all figures of the night."""
    night = write_pointings(folder / "frames", n_tiles, -(-n_frames // n_tiles))
    reports = make_three_times(night, folder, open_backend, fail_at=min(5, n_tiles))
    return {
        "frames": sum(len(spec.frames) for spec in night.tiles),
        "tiles": n_tiles,
        "shape": SHAPE,
        "runs": {
            name: {
                "seconds": report.seconds,
                **report.counts,
                "gpu_attempts": 0 if report.gpu is None else report.gpu.attempts,
            }
            for name, report in reports.items()
        },
        "different_from_cpu": {
            name: different_planes(folder / "cpu", folder / name) for name in reports if name != "cpu"
        },
        "mosaic": measure_mosaic(*join(folder / "cpu", night), night),
        "mosaic_not_levelled": measure_mosaic(*join(folder / "cpu", night, match_background=False), night),
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=3000)
    parser.add_argument("--tiles", type=int, default=12)
    parser.add_argument("--tiny-tiles", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to work; default a temporary folder")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        if arguments.tiny_tiles:
            places = {"alone": None, "two_dask_workers": ClusterChoice(local_workers=2)}
            facts = measure_tiny_tiles(Path(folder), arguments.tiny_tiles, places)
        else:
            facts = measure_night(Path(folder), arguments.tiles, arguments.frames, cupy_backend)
    print(json.dumps({"cores": os.cpu_count(), **facts}, indent=1))


if __name__ == "__main__":
    main()
