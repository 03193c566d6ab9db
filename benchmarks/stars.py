"""Measure the detector of stars against truth, and what registering costs with the number of frames.

::

    python benchmarks/stars.py detect      # stars, places, light, widths and processor time on synthetic frames
    python benchmarks/stars.py register    # star lists alone: 24 to 3,000 frames

Prints one JSON object per line. Complete is the part of single stars found whose light is 10 times the noise within 1.5
widths, of the 1,000 brightest. Places are off by the median distance of single stars: bright ones (50 times that noise)
and faint ones (10 to 25 times). Light is that of bright single stars, width is over that of a Gaussian averaged over
pixels.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

from zemosaic_stack_core.prepare.canvas.geometry import Affine
from zemosaic_stack_core.prepare.stars.adjust import Ties, adjust
from zemosaic_stack_core.prepare.stars.detect import StarList, cfa_luminance, detect_stars
from zemosaic_stack_core.prepare.stars.fluxes import flux_ratios, overlapping_pairs
from zemosaic_stack_core.prepare.stars.register import register_frames
from zemosaic_stack_core.synthetic.raw_night import RawNight

Result = dict[str, Any]
Values = npt.NDArray[np.float64]

FEW, CROWD = 25, 22_000
FAINT, BRIGHT, COUNTED = (10.0, 25.0), 50.0, 1000


def processor_seconds(call: Callable[[], Any]) -> float:
    """Return the processor time of the faster of two calls."""
    seconds = []
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_SELF)
        call()
        after = resource.getrusage(resource.RUSAGE_SELF)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(seconds)


def cases(shape: tuple[int, int]) -> dict[str, tuple[RawNight, Callable[[Values], Values]]]:
    """Return nights, and what comes to their light."""
    megapixels = shape[0] * shape[1] / 1e6
    usual = RawNight(n_frames=4, shape=shape, n_stars=round(1800 * megapixels), hot_fraction=0, cosmic_rays=0)
    y, x = (np.linspace(0, 1, length) for length in shape)
    slope = 3000 * (x + 0.5 * y[:, np.newaxis] ** 2)
    random = np.random.default_rng(5)
    knots = np.zeros(shape)
    for _ in range(round(64 * megapixels)):
        size, row, column = random.uniform(4, 40), *random.uniform(0, shape)
        down, across = ((np.arange(length) - at) ** 2 for length, at in zip(shape, (row, column), strict=True))
        knots += random.uniform(0, 1500) * np.exp(-0.5 * (down[:, np.newaxis] + across) / size**2)
    found = {
        f"mono, {width} px": (replace(usual, fwhm=(width, width)), 0.0) for width in (1.4, 1.8, 2.3, 3.0, 5.0, 8.0)
    }
    bayer = replace(usual, pattern="GRBG")
    found |= {f"Bayer, {width} px": (replace(bayer, fwhm=(width, width)), 0.0) for width in (1.8, 3.0, 5.0)}
    still = replace(usual, fwhm=(3.0, 3.0))
    found |= {
        "crowd": (replace(still, n_stars=round(CROWD * megapixels)), 0.0),
        "few": (replace(still, n_stars=FEW), 0.0),
        "gradient": (still, slope),
        "nebula": (still, knots),
        "nothing, mono": (replace(still, n_stars=1, brightest=2.0, faintest=1.0), 0.0),
        "nothing, Bayer": (replace(bayer, n_stars=1, brightest=2.0, faintest=1.0), 0.0),
    }
    return {name: (night, lambda light, more=more: light + more) for name, (night, more) in found.items()}


def detect(shape: tuple[int, int]) -> list[Result]:
    """Find the stars of frames whose truth is known."""
    rows = []
    for name, (night, lit) in cases(shape).items():
        random = np.random.default_rng(len(name))
        light = lit(night.signal(1))
        image = (light + random.standard_normal(shape) * np.sqrt(light + night.read_noise**2)).astype(np.float32)
        if night.pattern:
            image = cfa_luminance(image)
        stars = detect_stars(image)
        seconds = processor_seconds(partial(detect_stars, image))
        rows.append(
            {"case": name, **compare(stars, night, float(np.sqrt(np.median(light)))), "ms": round(1e3 * seconds, 1)}
        )
    return rows


def compare(stars: StarList, night: RawNight, noise: float) -> Result:
    """Compare stars with those of a night, on a sky of a noise per pixel."""
    width = night.width(1)
    places = night.transform(1).inverse()(night.stars[0])
    colors = night.stars[1] * night.transparency(1)
    light = colors[:, 1] if night.pattern is None else colors @ (0.25, 0.5, 0.25)
    inside = np.all((places > 8) & (places < (night.shape[1] - 9, night.shape[0] - 9)), axis=1)
    places, light = places[inside], light[inside]
    near = KDTree(places).query(stars.points)[0] if len(places) and len(stars) else np.full(len(stars), math.inf)
    border = np.min([stars.x, stars.y, stars.columns - 1 - stars.x, stars.rows - 1 - stars.y], axis=0)
    result: Result = {"stars": len(stars), "false": int(((near > max(2.0, 0.7 * width)) & (border > 8)).sum())}
    if len(places) < 2 or len(stars) < 2:
        return result
    alone = np.ones(len(places), np.bool_)
    for one, other in KDTree(places).query_pairs(max(8.0, 4 * width)):
        alone[one] &= light[other] < 0.1 * light[one]
        alone[other] &= light[one] < 0.1 * light[other]
    apart, index = KDTree(stars.points).query(places)
    signal = light / (noise * math.sqrt(math.pi) * max(3.0, 1.5 * width))
    counted = alone & (signal > FAINT[0]) & (light >= np.sort(light)[-COUNTED:][0])
    seen = alone & (apart < max(1.0, 0.4 * width))
    bright, faint = seen & (signal > BRIGHT), seen & (signal > FAINT[0]) & (signal < FAINT[1])
    ratio = stars.flux[index[bright]] / light[bright] - 1
    smoothed = 0.5 if night.pattern else 0.0
    expected = 2.3548 * math.sqrt((width / 2.3548) ** 2 + 1 / 12 + smoothed)
    return result | {
        "complete": round(float(seen[counted].mean()), 3),
        "bright_px": round(float(np.median(apart[bright])), 4),
        "faint_px": round(float(np.median(apart[faint])), 4) if faint.any() else None,
        "light_%": round(100 * float(np.median(ratio)), 2),
        "light_scatter_%": round(148.26 * float(np.median(np.abs(ratio - np.median(ratio)))), 2),
        "width": round(stars.fwhm / expected, 3),
    }


def star_lists(frames: int, stars: int = 300) -> list[StarList]:
    """Return the stars of a night that drifts and turns, a frame of 1080 x 1920 every 10 seconds."""
    random = np.random.default_rng(1)
    sky = random.uniform(-1500, 1500, (12 * stars, 2))
    flux = 1000 * random.random(len(sky)) ** -1.0
    found = []
    for index in range(frames):
        angle = math.radians(0.003 * index)
        turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        at = sky @ turn.T + (960, 540) + 0.05 * index + random.normal(0, 4, 2)
        seen = np.all((at > 3) & (at < (1916, 1076)), axis=1) & (random.random(len(at)) > 0.15)
        order = np.argsort(-flux[seen])
        at, light = at[seen][order], flux[seen][order]
        at = at + random.normal(0, 1, at.shape) * (0.02 + 40 / light)[:, np.newaxis]
        error = np.full(len(at), 40.0)
        found.append(StarList(at[:, 0], at[:, 1], light, error, 3.0, 0.9, 100.0, 5.0, 1080, 1920))
    return found


def register(counts: tuple[int, ...]) -> list[Result]:
    """Register nights of more and more frames by their star lists; adjust all overlaps; tie their brightness."""
    rows = []
    for count in counts:
        lists = star_lists(count)
        names = [f"{index}.fits" for index in range(count)]
        found = register_frames(lists, min_stars=6, max_residual=1.0, names=names)
        transforms = [place.transform for place in found.places]
        off = np.random.default_rng(2).normal(0, 0.3, (count, 2))
        steps = {
            "register": partial(register_frames, lists, min_stars=6, max_residual=1.0, names=names),
            "adjust": partial(_adjust, lists, transforms, found.reference, off),
            "brightness": partial(flux_ratios, lists, transforms, found.reference, [10.0] * count),
        }
        costs = {f"{name}_ms": round(1e3 * processor_seconds(step) / count, 2) for name, step in steps.items()}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        rows.append({"frames": count, "registered": found.good, **costs, "peak_mib": peak // 1024})
    return rows


def _adjust(lists: list[StarList], transforms: list[Affine | None], reference: int, off: Values) -> list[Affine]:
    """Adjust all overlaps of frames that lie where they should not, by `off`; from what `refine_match` would find."""
    random = np.random.default_rng(3)
    ties = []
    for first, second in overlapping_pairs(lists, transforms, reference):
        at = random.uniform(0, (1920, 1080), (200, 2))
        ties.append(Ties.of(first, second, at + off[first], at + off[second] + random.normal(0, 0.05, at.shape)))
    centers = np.array([(transform or Affine())([(960.0, 540.0)])[0] for transform in transforms])
    return adjust(ties, centers, 1100.0, reference, (1.0, 0.5))


def main(arguments: list[str] | None = None) -> None:
    """Measure what is asked for and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("detect", "register"))
    parser.add_argument("--size", type=int, nargs=2, default=(1080, 1920), metavar=("ROWS", "COLUMNS"))
    parser.add_argument("--frames", type=int, nargs="+", default=(24, 100, 400, 3000))
    given = parser.parse_args(arguments)
    rows = detect(tuple(given.size)) if given.part == "detect" else register(tuple(given.frames))
    for row in rows:
        print(json.dumps(row))


if __name__ == "__main__":
    main()
