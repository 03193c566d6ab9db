"""Measure the preparation of raw frames against a truth, and time its steps.

::

    python benchmarks/prepare.py truth [--frames 24] [--bayer] [--flip] [--drizzle] [--workers N]
    python benchmarks/prepare.py kernels
    python benchmarks/prepare.py debayer
    python benchmarks/prepare.py real FOLDER      # time and records of a real set

Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.io import fits

from zemosaic_stack_core import StackOptions, stack
from zemosaic_stack_core.fits.observing import FLUX_EXPOSURE
from zemosaic_stack_core.frames.frame_lists import expand_frame_arguments
from zemosaic_stack_core.prepare import PrepareOptions, prepare_frames
from zemosaic_stack_core.prepare.canvas.geometry import Affine, corners_of
from zemosaic_stack_core.prepare.canvas.resample import AffineMap, resample
from zemosaic_stack_core.prepare.stars.detect import detect_stars
from zemosaic_stack_core.synthetic.raw_night import RawNight

Result = dict[str, Any]


def truth(night: RawNight, options: PrepareOptions, folder: Path, workers: int | None, darks: int = 8) -> Result:
    """Prepare and stack a synthetic night; compare transforms, photometry, places, noise and completeness."""
    paths = night.write(folder / "raw", darks=darks, biases=8 if darks else 0, flats=8 if darks else 0)
    began = time.perf_counter()
    group = prepare_frames(paths, options, cache_folder=folder / "cache", workers=workers)
    seconds = time.perf_counter() - began
    names = [path.name for path in paths]
    reference = names.index(Path(group.reference).name)
    to_canvas = night.transform(reference).inverse()
    errors = []
    for frame in group.kept:
        index = names.index(frame.path.name)
        true = night.transform(index).then(to_canvas)
        errors.append(transform_error(frame, true, night.shape))
    result: Result = {
        "frames": night.n_frames,
        "kept": len(group.kept),
        "dropped": [[f.path.name, f.dropped] for f in group.dropped],
        "alignment": group.alignment,
        "hot_pixels_true": len(night.hot_pixels[0]),
        "hot_pixels": group.hot_pixels,
        "shift_error_px": _summary([e[0] for e in errors]),
        "rotation_error_deg": _summary([e[1] for e in errors]),
        "scale_error": _summary([e[2] for e in errors]),
        "seconds_prepare": seconds,
        "seconds": group.seconds,
    }
    for rejection in ("none", "mad_clip"):
        master = stack(group.paths, options=StackOptions(rejection=rejection, normalization="additive"))
        result[f"stack_{rejection}"] = measure_master(night, group, names, master.image, to_canvas)
    return result


def transform_error(frame: Any, true: Affine, shape: tuple[int, int]) -> tuple[float, float, float]:
    """Return shift, rotation and scale against the truth."""
    x, y = (shape[1] - 1) / 2, (shape[0] - 1) / 2
    dx, dy = true.shift_at(x, y)
    turn = (frame.rotation - true.rotation + 180.0) % 360.0 - 180.0
    return float(np.hypot(frame.shift[0] - dx, frame.shift[1] - dy)), abs(turn), abs(frame.scale - true.scale)


def _summary(values: list[float]) -> dict[str, float]:
    """Return median and largest."""
    return {"median": float(np.median(values)), "max": float(np.max(values))}


def _median(values: npt.NDArray[Any]) -> float:
    """Return the median, NaN of nothing."""
    return float(np.median(values)) if values.size else float("nan")


def measure_master(
    night: RawNight, group: Any, names: list[str], image: npt.NDArray[Any], to_reference: Affine
) -> Result:
    """Compare a master with the scene it was made of."""
    import sep

    places, fluxes = night.stars
    on_canvas = to_reference.moved(group.canvas.x, group.canvas.y)(places)
    corner = corners_of(*night.shape) + np.array([group.canvas.x, group.canvas.y])
    low, high = corner.min(axis=0) + 25, corner.max(axis=0) - 25
    inside = np.all((on_canvas > low) & (on_canvas < high), axis=1)
    distance = np.hypot(*(on_canvas[:, np.newaxis] - on_canvas[np.newaxis]).transpose(2, 0, 1))
    np.fill_diagonal(distance, 1e9)
    radius = max(7.0, 1.6 * night.fwhm[1])
    alone = distance.min(axis=1) > 2.2 * radius
    through = float(np.mean([night.transparency(names.index(frame.path.name)) for frame in group.kept]))
    if FLUX_EXPOSURE in fits.getheader(group.paths[-1]):  # fluxes are those of the reference
        through = night.transparency(names.index(Path(group.reference).name))
    if dict(group.masters).get("flat"):
        through *= float(np.median(night.flat))  # a flat is divided by its median: that of the response becomes 1
    result: Result = {}
    planes = [(1, image)] if image.ndim == 2 else [(channel, image[..., channel]) for channel in range(3)]
    for channel, plane in planes:
        data = np.ascontiguousarray(np.nan_to_num(plane, nan=float(np.nanmedian(plane))), np.float32)
        data -= sep.Background(data, bw=64, bh=64).back()
        bright = inside & alone & (fluxes[:, channel] > np.percentile(fluxes[inside, channel], 20))
        bright &= fluxes[:, channel] < 100000
        x, y = on_canvas[bright].T
        flux, _, _ = sep.sum_circle(data, x, y, radius, bkgann=(radius + 1, radius + 6), subpix=9)
        ratio = flux / (fluxes[bright, channel] * through) - 1
        found = detect_stars(plane)
        near = np.hypot(found.x[:, None] - x, found.y[:, None] - y)
        hit = near.min(axis=0) < 1.5
        partner = near.argmin(axis=0)[hit]
        seen = inside & alone
        every = np.hypot(found.x[:, None] - on_canvas[seen, 0], found.y[:, None] - on_canvas[seen, 1]).min(axis=0) < 1.5
        result["RGB"[channel]] = {
            "stars": int(bright.sum()),
            "flux_bias_percent": 100 * _median(ratio),
            "flux_scatter_percent": 100 * 1.4826 * _median(np.abs(ratio - _median(ratio))),
            "offset_x_px": _median(found.x[partner] - x[hit]),
            "offset_y_px": _median(found.y[partner] - y[hit]),
            "place_error_px": _median(np.hypot(found.x[partner] - x[hit], found.y[partner] - y[hit])),
            "completeness": float(every.mean()) if every.size else float("nan"),
            "lost": _lost(data, on_canvas[seen], through * fluxes[seen, channel], night.fwhm[1]),
            "fwhm": found.fwhm,
            "stars_true": int(seen.sum()),
        }
        result["RGB"[channel]]["noise_over_ideal_8x8"] = _noise(night, group, names, plane, on_canvas, channel)
    return result


def _noise(
    night: RawNight, group: Any, names: list[str], plane: npt.NDArray[Any], stars: npt.NDArray[Any], channel: int
) -> float:
    """Return the noise of 8 x 8 bins of empty sky over that of perfectly aligned frames with the same light."""
    rows, columns = plane.shape
    x0, y0 = group.canvas.x, group.canvas.y
    variances = []
    for frame in group.kept:
        index = names.index(frame.path.name)
        phase = 2 * np.pi * index / night.n_frames
        level = night.sky * (1 + 0.2 * np.sin(phase)) * (0.8, 1.0, 0.7)[channel]
        response = float(np.median(night.flat))
        read = 20.0 + night.read_noise**2
        variances.append((level * response + read * (1 + 1 / 8)) / response**2)  # and the noise of a dark of 8
    samples = 1.0 if night.pattern is None else (0.25, 0.5, 0.25)[channel]
    ideal = np.sqrt(np.mean(variances) / len(variances) / 64 / samples)
    differences = []
    taken = np.zeros((rows, columns), bool)
    for x, y in stars:
        taken[max(0, int(y) - 12) : max(0, int(y) + 13), max(0, int(x) - 12) : max(0, int(x) + 13)] = True
    previous: float | None = None
    for top in range(y0 + 24, y0 + night.shape[0] - 32, 8):
        previous = None
        for left in range(x0 + 24, x0 + night.shape[1] - 32, 8):
            box = plane[top : top + 8, left : left + 8]
            if taken[top : top + 8, left : left + 8].any() or not np.isfinite(box).all():
                previous = None
                continue
            value = float(box.mean(dtype=np.float64))
            if previous is not None:  # neighbors' difference: gradients of the sky cancel
                differences.append(value - previous)
            previous = value
    if len(differences) <= 30:
        return float("nan")
    off = np.abs(np.array(differences) - np.median(differences))  # the steepest gradients don't cancel
    return float(1.4826 * np.median(off) / np.sqrt(2) / ideal)


def _lost(data: npt.NDArray[Any], places: npt.NDArray[Any], fluxes: npt.NDArray[Any], fwhm: float) -> float:
    """Return the part of stars of which less than half the light is there; NaN where there are few."""
    import sep

    if len(places) < 8:
        return float("nan")
    inner = (2.5 * fwhm, 2.5 * fwhm + 5)
    found, _, _ = sep.sum_circle(data, *places.T.copy(), fwhm, bkgann=inner, subpix=9)
    return float(np.mean(found < 0.5 * fluxes))


def kernels() -> Result:
    """Compare resampling kernels and libraries on stars: flux, place, width, noise, time."""
    import sep
    from scipy.ndimage import map_coordinates

    night = RawNight(
        n_frames=2, shape=(600, 800), n_stars=500, cosmic_rays=0, hot_fraction=0.0, fwhm=(2.2, 2.2), turn=7.3
    )
    source = night.signal(1).astype(np.float32)
    places, fluxes = night.stars
    sky = night.sky * (1 + 0.2 * np.sin(np.pi))
    mapping = AffineMap(night.transform(1).inverse())
    x, y = mapping.places(0, 600, 800)

    def cv2_lanczos4(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        import cv2

        return np.asarray(
            cv2.remap(
                image,
                x.astype(np.float32),
                y.astype(np.float32),
                cv2.INTER_LANCZOS4,
                borderMode=cv2.BORDER_CONSTANT,
                borderValue=float("nan"),
            )
        )

    def skimage_bicubic(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        from skimage.transform import warp

        return np.asarray(warp(image, np.stack([y, x]), order=3, cval=sky, preserve_range=True))

    def adaptive(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        from astropy.wcs import WCS
        from reproject import reproject_adaptive

        def plain(transform: Affine) -> WCS:
            wcs = WCS(naxis=2)
            wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
            wcs.wcs.crval = [10.0, 0.0]
            wcs.wcs.crpix = transform([(400.0, 300.0)])[0] + 1
            wcs.wcs.cd = np.linalg.inv(transform.linear) * 1e-4
            return wcs

        out, _ = reproject_adaptive(
            (image, plain(night.transform(1).inverse())),
            plain(Affine()),
            (600, 800),
            kernel="gaussian",
            conserve_flux=True,
        )
        return np.asarray(out)

    methods = {
        f"own {name}": (lambda image, name=name: resample(image, mapping, 600, 800, name))
        for name in ("bilinear", "lanczos2", "lanczos3", "lanczos4")
    }
    methods |= {
        "opencv lanczos4": cv2_lanczos4,
        "skimage bicubic": skimage_bicubic,
        "reproject adaptive": adaptive,
        "scipy cubic spline": lambda image: map_coordinates(image, [y, x], order=3, cval=np.nan),
    }
    random = np.random.default_rng(0)
    noise = random.normal(0, 10, source.shape).astype(np.float32)
    distance = np.hypot(*(places[:, np.newaxis] - places[np.newaxis]).transpose(2, 0, 1)) + 1e9 * np.eye(len(places))
    good = np.all((places > 60) & (places < (740, 540)), axis=1) & (distance.min(axis=1) > 16)
    hole = source.copy()
    hole[300, 400] = np.nan
    result: Result = {}
    for name, method in methods.items():
        try:
            method(source)  # compiles
            began = time.process_time()
            image = method(source)
            seconds = time.process_time() - began
        except ImportError as error:
            result[name] = str(error)
            continue
        data = np.ascontiguousarray(np.nan_to_num(image, nan=sky), np.float32) - np.float32(0)
        data -= sep.Background(data).back()
        px, py = places[good].T
        flux, _, _ = sep.sum_circle(data, px, py, 6.0, bkgann=(7, 12), subpix=9)
        through = night.transparency(1)
        ratio = flux / (fluxes[good, 1] * through) - 1
        half, _ = sep.flux_radius(data, px, py, np.full(px.size, 6.0), 0.5, subpix=9)
        wx, wy, _ = sep.winpos(data, px, py, np.full(px.size, 1.0))
        result[name] = {
            "flux_bias_percent": 100 * float(np.median(ratio)),
            "flux_scatter_percent": 100 * float(np.std(ratio)),
            "place_error_px": float(np.median(np.hypot(wx - px, wy - py))),
            "fwhm_px": 2 * float(np.median(half)),
            "noise_per_pixel": float(np.nanstd(method(noise)) / 10),
            "lost_around_one_nan": int(np.isnan(method(hole)).sum() - np.isnan(image).sum()),
            "ns_per_pixel": 1e9 * seconds / image.size,
        }
    return result


def debayering() -> Result:
    """Compare ways to debayer on undersampled stars of many colors."""
    import warnings

    import sep

    from zemosaic_stack_core.prepare.sensor.debayer import debayer

    night = RawNight(n_frames=1, shape=(600, 800), n_stars=500, pattern="GRBG", fwhm=(2.8, 2.8), hot_fraction=0.0)
    mosaic = night.signal(0).astype(np.float32)
    places, fluxes = night.stars
    methods: dict[str, Any] = {"own malvar": lambda image: debayer(image, "GRBG")}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import colour_demosaicing as cd
        methods |= {
            "colour-demosaicing malvar": lambda image: cd.demosaicing_CFA_Bayer_Malvar2004(image, "GRBG"),
            "colour-demosaicing menon": lambda image: cd.demosaicing_CFA_Bayer_Menon2007(image, "GRBG"),
            "colour-demosaicing bilinear": lambda image: cd.demosaicing_CFA_Bayer_bilinear(image, "GRBG"),
        }
    except ImportError:
        pass
    try:
        import cv2

        def edge_aware(image: npt.NDArray[Any]) -> npt.NDArray[Any]:
            whole = np.clip(np.rint(image), 0, 65535).astype(np.uint16)
            return np.asarray(cv2.cvtColor(whole, cv2.COLOR_BayerGRBG2RGB_EA), np.float32)

        methods["opencv edge-aware (16 bit)"] = edge_aware
    except ImportError:
        pass
    distance = np.hypot(*(places[:, np.newaxis] - places[np.newaxis]).transpose(2, 0, 1)) + 1e9 * np.eye(len(places))
    good = np.all((places > 30) & (places < (770, 570)), axis=1) & (distance.min(axis=1) > 16)
    x, y = places[good].T
    result: Result = {}
    for name, method in methods.items():
        method(mosaic)  # compiles
        began = time.process_time()
        image = method(mosaic)
        seconds = time.process_time() - began
        lines = {}
        for channel in range(3):
            data = np.ascontiguousarray(image[..., channel], np.float32)
            data -= sep.Background(data).back()
            flux, _, _ = sep.sum_circle(data, x, y, 6.0, bkgann=(7, 12), subpix=9)
            ratio = flux / (fluxes[good, channel] * night.transparency(0)) - 1
            half, _ = sep.flux_radius(data, x, y, np.full(x.size, 6.0), 0.5, subpix=9)
            lines["RGB"[channel]] = {
                "flux_bias_percent": 100 * float(np.median(ratio)),
                "flux_scatter_percent": 100 * float(np.std(ratio)),
                "fwhm_px": 2 * float(np.median(half)),
            }
        result[name] = {**lines, "ns_per_pixel": 1e9 * seconds / mosaic.size}
    return result


def real(folder: str, cache: Path, workers: int | None, options: PrepareOptions) -> Result:
    """Prepare a real folder and time its steps."""
    paths = expand_frame_arguments([folder])
    began, cpu = time.perf_counter(), time.process_time()
    group = prepare_frames(paths, options, cache_folder=cache, workers=workers)
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    began = time.perf_counter()
    prepare_frames(paths, options, cache_folder=cache, workers=workers)
    again = time.perf_counter() - began
    names = ("name", "stars", "matched", "shift", "rotation", "scale", "residual", "fwhm", "dropped")
    return {
        "frames": len(group.frames),
        "kept": len(group.kept),
        "alignment": group.alignment,
        "why": group.why,
        "canvas": [group.canvas.rows, group.canvas.columns],
        "seconds": group.seconds,
        "total_seconds": seconds,
        "cpu_seconds_parent": cpu,
        "seconds_from_cache": again,
        "seconds_per_frame": seconds / len(group.frames),
        "peak_mib_parent": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "peak_mib_worker": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024,
        "records": [{name: getattr(frame, name) for name in names} for frame in group.frames],
    }


def main(arguments: list[str] | None = None) -> None:
    """Run one measurement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=["truth", "kernels", "debayer", "real"])
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--size", type=int, nargs=2, default=[1100, 1400], metavar=("ROWS", "COLUMNS"))
    parser.add_argument("--stars", type=int, default=3000)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--bayer", action="store_true")
    parser.add_argument("--flip", action="store_true")
    parser.add_argument("--drizzle", action="store_true")
    parser.add_argument("--clouds", action="store_true")
    parser.add_argument("--kernel", default="lanczos3")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        if given.what == "truth":
            bad = given.frames >= 10
            night = RawNight(
                n_frames=given.frames,
                shape=tuple(given.size),
                n_stars=given.stars,
                zoom=0.0005,
                flip=given.flip,
                pattern="GRBG" if given.bayer or given.drizzle else None,
                shift=20.0,
                turn=2.0,
                trails=(3,) if bad else (),
                clouds=(7,) if given.clouds else (),
            )
            options = PrepareOptions(cfa="drizzle" if given.drizzle else "debayer", kernel=given.kernel)
            result = truth(night, options, Path(scratch), given.workers)
        elif given.what == "kernels":
            result = kernels()
        elif given.what == "debayer":
            result = debayering()
        else:
            result = real(given.folder, Path(scratch), given.workers, PrepareOptions(kernel=given.kernel))
    print(json.dumps({"operation": f"prepare {given.what}", **result}, indent=1))


if __name__ == "__main__":
    main()
