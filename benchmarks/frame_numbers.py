"""Measure what per-frame numbers cost, and how far the grid's statistics are from those of all samples.

Prints one JSON object per line: the grid's error in units of the noise per pixel (and the worst in units of the frame's
noise as it is defined for weights, which holds gradients and nebulae too) for synthetic frames (stars, a gradient,
photon-like noise; mono and color filter array) and for given files; the difference in level to the reference frame that
each normalization leaves of frames with gains of 0.8 to 1.2 and offsets of +-20, in units of the noise of their median;
then the cost of the reading pass.

Usage::

    python benchmarks/frame_numbers.py                    # 4, 12 and 24 megapixels
    python benchmarks/frame_numbers.py --megapixels 0.5   # tiny
    python benchmarks/frame_numbers.py light.fits ...     # the grid's error on these frames
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.frames.file_frames import probe_frame
from zemosaic_stack_core.frames.group import FrameSource, group_frames, open_frames
from zemosaic_stack_core.frames.pixel_rows import FilePool
from zemosaic_stack_core.options import NORMALIZATIONS, StackOptions
from zemosaic_stack_core.per_frame.normalization import FrameStatistics, frame_statistics
from zemosaic_stack_core.per_frame.numbers import estimate_frame_numbers
from zemosaic_stack_core.per_frame.sample_grid import read_grid_samples

COUNTED = ("low", "high", "median", "spread", "noise")


def synthetic_frame(rows: int, columns: int, seed: int, *, bayer: bool = False) -> npt.NDArray[np.float32]:
    """Return a frame of sky 1000 and noise 20, with a gradient of 60, stars, and a nebula."""
    random = np.random.default_rng(seed)
    y, x = np.arange(rows, dtype=np.float32)[:, None] / rows, np.arange(columns, dtype=np.float32)[None] / columns
    frame = random.standard_normal((rows, columns), dtype=np.float32) * np.float32(20.0)
    frame += 1000.0 + 60.0 * x + 30.0 * y + 150.0 * np.exp(-((x - 0.4) ** 2 + (y - 0.6) ** 2) / 0.02)
    stamp = np.exp(-((np.arange(-7, 8)[:, None] ** 2 + np.arange(-7, 8)[None] ** 2) / 5.0)).astype(np.float32)
    for row, column, peak in zip(
        random.integers(7, rows - 7, rows * columns // 4000),
        random.integers(7, columns - 7, rows * columns // 4000),
        300.0 * random.random(rows * columns // 4000) ** -0.9,
        strict=True,
    ):
        frame[row - 7 : row + 8, column - 7 : column + 8] += np.float32(min(peak, 5e4)) * stamp
    if bayer:
        frame[0::2, 0::2] *= 0.7
        frame[1::2, 1::2] *= 0.6
    return frame


def grid_errors(source: FrameSource) -> dict[str, float]:
    """Return each statistic's error on the grid in units of the noise per pixel, the largest of the channels."""
    whole = np.empty((source.channels, source.rows, source.columns), source.dtype)
    with FilePool() as files:
        source.read_rows(0, source.rows, whole, files)
    samples = whole.reshape(source.channels, -1).astype(np.float32)
    of_all = frame_statistics(samples)
    of_grid = frame_statistics(read_grid_samples(source).values)
    # The noise of neighboring samples: the clipped deviation of a frame also holds its gradient and nebulae.
    steps = np.diff(samples.reshape(whole.shape)[:, ::2, ::2], axis=2)
    noise = frame_statistics(steps.reshape(source.channels, -1)).noise / 2**0.5
    errors = {name: np.abs(_of(of_grid, name) - _of(of_all, name)) for name in COUNTED}
    return {
        "sigma": round(float(noise.max()), 3),
        "frame_noise": round(float(of_all.noise.max()), 3),
        **{name: round(float((error / noise).max()), 5) for name, error in errors.items()},
        "worst_of_frame_noise": round(max(float((error / of_all.noise).max()) for error in errors.values()), 5),
    }


def _of(statistics: FrameStatistics, name: str) -> npt.NDArray[np.float64]:
    """Return one of a frame's statistics."""
    return np.asarray(getattr(statistics, name))


def levels_left(rows: int, columns: int, seed: int) -> dict[str, float]:
    """Return the largest level difference to the reference, in units of the noise of a frame's median.

    The level is what the normalization matches: the median, or for `linear_fit` and `sky_mean` the 25th percentile. Of
    frames of up to 2**18 pixels it is that of the very samples that were looked at; beyond, that of all samples.
    """
    random = np.random.default_rng(seed)
    sky = synthetic_frame(rows, columns, seed)
    frames = [
        (gain * (sky + random.normal(0.0, 20.0, sky.shape)) + offset).astype(np.float32)
        for gain, offset in ((1.0, 0.0), (0.8, 20.0), (0.9, -20.0), (1.1, 20.0), (1.2, -20.0))
    ]
    group = open_frames(frames)
    noise = 1.2533 * 20.0 * 2**0.5 / (rows * columns) ** 0.5
    left = {}
    for normalization in NORMALIZATIONS[1:]:
        numbers = estimate_frame_numbers(group, StackOptions(normalization=normalization, reference=0))
        if numbers.scale is None or numbers.offset is None:
            raise RuntimeError("no scale and offset")
        percent = 25 if normalization in ("linear_fit", "sky_mean") else 50
        level = [
            float(np.percentile(frame * scale + offset, percent))
            for frame, scale, offset in zip(frames, numbers.scale[:, 0], numbers.offset[:, 0], strict=True)
        ]
        left[normalization] = round(max(abs(one - level[0]) for one in level) / noise, 4)
    return left


def cost(rows: int, columns: int, folder: Path, workers: int) -> dict[str, float]:
    """Return what the pass costs on float32 files in the page cache, best of three."""
    paths = [folder / f"{index}.npy" for index in range(4)]
    for index, path in enumerate(paths):
        if not path.exists():
            np.save(path, synthetic_frame(rows, columns, index))
    group = open_frames(paths)
    options = StackOptions(normalization="linear_fit", weighting="noise_variance")
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        estimate_frame_numbers(group, options, workers=workers)
        seconds.append(time.perf_counter() - began)
    samples = len(paths) * rows * columns
    return {
        "workers": workers,
        "seconds": round(min(seconds), 4),
        "ms_per_frame": round(1e3 * min(seconds) / len(paths), 1),
        "ns_per_sample": round(1e9 * min(seconds) / samples, 2),
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", nargs="*", help="frames to measure the grid's error on")
    parser.add_argument("--megapixels", type=float, nargs="*", default=[4.0, 12.0, 24.0])
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args(arguments)
    for name in given.files:
        frame = group_frames([probe_frame(name)]).sources[0]
        print(json.dumps({"operation": "grid error", "frame": Path(name).name, **grid_errors(frame)}))
    if given.files:
        return
    left = [levels_left(400, 600, seed) for seed in range(given.seeds)]
    worst_left = {name: max(one[name] for one in left) for name in left[0]}
    print(json.dumps({"operation": "level left, worst of seeds", "shape": [400, 600], **worst_left}))
    for megapixels in given.megapixels:
        rows = round((megapixels * 1e6 / 1.5) ** 0.5)
        columns = round(rows * 1.5)
        for bayer in (False, True):
            found = [
                grid_errors(open_frames([synthetic_frame(rows, columns, seed, bayer=bayer)]).sources[0])
                for seed in range(given.seeds)
            ]
            worst = {name: max(one[name] for one in found) for name in found[0]}
            print(
                json.dumps(
                    {"operation": "grid error, worst of seeds", "shape": [rows, columns], "bayer": bayer, **worst}
                )
            )
        with tempfile.TemporaryDirectory() as folder:
            for workers in (1, 2):
                measured = cost(rows, columns, Path(folder), workers)
                print(json.dumps({"operation": "frame numbers", "shape": [rows, columns], **measured}))


if __name__ == "__main__":
    main()
