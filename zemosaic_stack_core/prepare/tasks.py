"""What a process does to one frame: scan it for hot pixels, find its stars, align it, bring it to its level."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.fits.observing import FLUX_EXPOSURE
from zemosaic_stack_core.fits.stream import bands_of_planes, write_hdu
from zemosaic_stack_core.frames.file_frames import probe_frame
from zemosaic_stack_core.frames.heads import read_head
from zemosaic_stack_core.frames.pixel_rows import FilePool
from zemosaic_stack_core.prepare.cache import boxes_file, save_array, save_stars
from zemosaic_stack_core.prepare.canvas.cfa_drizzle import drizzle_cfa
from zemosaic_stack_core.prepare.canvas.geometry import Canvas
from zemosaic_stack_core.prepare.canvas.levels import Level, box_medians
from zemosaic_stack_core.prepare.canvas.resample import BorderedFrame, PixelMap, resample
from zemosaic_stack_core.prepare.headers.kinds import KEPT_CARDS
from zemosaic_stack_core.prepare.headers.raw_frame import RawFrame
from zemosaic_stack_core.prepare.options import PrepareOptions
from zemosaic_stack_core.prepare.sensor.calibrate import Masters, calibrate
from zemosaic_stack_core.prepare.sensor.debayer import debayer, pattern_problem
from zemosaic_stack_core.prepare.sensor.hot_pixels import clean_pixels, sharp_pixels
from zemosaic_stack_core.prepare.stars.detect import StarList, detect_stars, luminance
from zemosaic_stack_core.system.atomic import atomic_output

if TYPE_CHECKING:
    from astropy.io import fits


_Image = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class FrameTask:
    """A light and what its calibration needs."""

    frame: RawFrame
    pattern: str | None
    masters: Masters
    # File of the map of hot pixels, bool.
    hot: Path | None = None

    @property
    def pixels(self) -> int:
        """Pixels of the frame."""
        return self.frame.rows * self.frame.columns

    @property
    def parts(self) -> tuple[object, ...]:
        """What the calibrated pixels depend on, for `signature`."""
        return self.frame.signature, self.masters.signature, self.pattern, self.hot and self.hot.name

    def calibrated(self, files: FilePool) -> _Image:
        """Return the calibrated pixels."""
        return calibrate(self.frame, self.frame.read_pixels(files), self.masters)

    def hot_mask(self) -> npt.NDArray[np.bool_] | None:
        """Return the map of hot pixels."""
        if self.hot is None:
            return None
        mask: npt.NDArray[np.bool_] = np.load(self.hot, allow_pickle=False)
        return mask


@dataclass(frozen=True, kw_only=True)
class StarTask:
    """A frame, and the file that gets its stars."""

    light: FrameTask
    target: Path

    @property
    def pixels(self) -> int:
        """Pixels of the frame."""
        return self.light.pixels


@dataclass(frozen=True, kw_only=True)
class AlignTask:
    """A frame, its place and how to bring it there."""

    light: FrameTask
    # From the canvas to the frame; None where the frame stays as it is.
    mapping: PixelMap | None
    canvas: Canvas
    target: Path
    # Hot pixels are not "auto" any more.
    options: PrepareOptions

    @property
    def pixels(self) -> int:
        """Pixels of the canvas."""
        return self.canvas.rows * self.canvas.columns


@dataclass(frozen=True, kw_only=True)
class LevelTask:
    """An aligned frame, its level, and the file that gets the result."""

    source: Path
    level: Level
    target: Path
    # Of the frame whose flux all are brought to, seconds; NaN where it is not known.
    exposure: float
    # More or less: a file is copied, which is soon done.
    pixels: int = 1 << 20


def make_ready(task: FrameTask | StarTask | AlignTask | LevelTask) -> None:
    """Import and compile what a task needs, so that processes that are copies of this one need not, each for itself."""
    if isinstance(task, StarTask):
        import scipy.spatial  # noqa: F401
    elif isinstance(task, FrameTask) and task.frame.channels == 1:
        sharp_pixels(np.zeros((4, 4), np.float32), is_cfa=task.pattern is not None)
    elif isinstance(task, AlignTask):
        import astropy.io.fits  # noqa: F401

        light = task.light
        pixels = np.zeros((4, light.frame.columns), np.float32)
        frame: _Image | BorderedFrame = pixels
        if light.pattern is not None:
            frame = _debayer_around_holes(pixels, light.pattern, BorderedFrame.empty(3, *pixels.shape))
        if task.mapping is not None:
            resample(frame, task.mapping, 1, task.canvas.columns, task.options.kernel)


def scan_frame(task: FrameTask, files: FilePool) -> tuple[npt.NDArray[np.uint8], str]:
    """Return which pixels of a frame are sharp (packed bits), and what is wrong with its Bayer pattern."""
    pixels = task.calibrated(files)
    if pixels.ndim == 3:
        return np.packbits(np.zeros(pixels.shape[:2], np.bool_)), ""
    finite = np.isfinite(pixels)
    if not finite.all():
        pixels = np.where(finite, pixels, np.float32(np.median(pixels[finite]) if finite.any() else 0))
    sharp = sharp_pixels(pixels, is_cfa=task.pattern is not None)
    return np.packbits(sharp), pattern_problem(pixels, task.pattern)


def find_stars(task: StarTask, files: FilePool) -> StarList:
    """Find a frame's stars, and keep them: they are there, wherever the work is interrupted."""
    stars = detect_stars(_luminance_of(task.light, files))
    save_stars(task.target, stars)
    return stars


def _luminance_of(task: FrameTask, files: FilePool) -> _Image:
    """Return what stars are looked for on: without hot pixels, nor anything as sharp as one."""
    pixels = task.calibrated(files)
    is_cfa = task.pattern is not None and pixels.ndim == 2
    if pixels.ndim == 2:
        missing, hot = ~np.isfinite(pixels), task.hot_mask()
        if missing.mean() < 0.01:
            pixels = clean_pixels(pixels, missing, is_cfa=is_cfa)
        if hot is not None:
            pixels = clean_pixels(pixels, hot, is_cfa=is_cfa)
        if np.isfinite(pixels).all():
            pixels = clean_pixels(pixels, sharp_pixels(pixels, is_cfa=is_cfa), is_cfa=is_cfa)
    return luminance(pixels, is_cfa=is_cfa)


def align_frame(task: AlignTask, files: FilePool) -> _Image:
    """Calibrate a frame, bring it onto the canvas, write it, and return the medians of its boxes."""
    light, canvas, mapping, options = task.light, task.canvas, task.mapping, task.options
    # First: what is needed for a while only then leaves one gap, which the canvas takes.
    is_drizzled = light.pattern is not None and options.cfa == "drizzle"
    colors = None
    if light.pattern is not None and not (is_drizzled and mapping is not None):
        colors = BorderedFrame.empty(3, light.frame.rows, light.frame.columns)
    pixels = light.calibrated(files)
    pattern = light.pattern if pixels.ndim == 2 else None
    hot = light.hot_mask() if options.hot_pixels != "off" and pixels.ndim == 2 else None
    if hot is not None:
        if options.hot_pixels == "missing" and (is_drizzled or pattern is None):
            pixels = np.where(hot, np.float32(np.nan), pixels)
        else:
            pixels = clean_pixels(pixels, hot, is_cfa=pattern is not None)
    if pattern is not None and is_drizzled and mapping is not None:
        fraction = options.drizzle_pixel_fraction
        image = drizzle_cfa(pixels, pattern, mapping, canvas.rows, canvas.columns, fraction)
    else:
        frame = pixels if pattern is None or colors is None else _debayer_around_holes(pixels, pattern, colors)
        del pixels  # its memory is wanted
        if mapping is not None:
            image = resample(frame, mapping, canvas.rows, canvas.columns, options.kernel)
        else:
            image = frame.image if isinstance(frame, BorderedFrame) else frame
    boxes = box_medians(image)
    # Before the frame: one that is there has its boxes, wherever the work was interrupted.
    save_array(boxes_file(task.target), boxes, flushes=False)
    _write(task, image)
    return boxes


def _debayer_around_holes(mosaic: _Image, pattern: str, frame: BorderedFrame) -> BorderedFrame:
    """Interpolate the colors of a mosaic with missing samples, which the filters would spread over 5 x 5 pixels."""
    missing = ~np.isfinite(mosaic)
    if missing.any():
        mosaic = clean_pixels(mosaic, missing, is_cfa=True)
    debayer(mosaic, pattern, out=frame.planes)
    if missing.mean() > 0.001:
        frame.planes[:, missing] = np.nan
    return frame


def level_frame(task: LevelTask, _: FilePool) -> None:
    """Write an aligned frame at its level, and remove the one it was made of."""
    with FilePool(1) as files:  # closed before the file is removed
        head = read_head(task.source, files=files)
        frame = probe_frame(head)
        planes = frame.read_planes(0, frame.rows, files)
    task.level.apply_to(planes)
    header = head.image_header()
    if math.isfinite(task.exposure):
        header[FLUX_EXPOSURE] = (task.exposure, "[s] exposure time that the counts are of")
    header.add_history(f"level: {task.level.text}")
    _save(task.target, planes if frame.is_color else planes[0], header)
    task.source.unlink(missing_ok=True)


def _write(task: AlignTask, image: _Image) -> None:
    """Write an aligned frame as FITS with planes first, its observing cards and the canvas's WCS."""
    from astropy.io import fits

    frame = task.light.frame
    header = _observing_cards(frame)
    if task.canvas.wcs_header is not None:
        header.update(fits.Header.fromstring(task.canvas.wcs_header))
    how = task.options.kernel
    if task.mapping is None:
        how = "as it was"
    elif task.options.cfa == "drizzle" and task.light.pattern:
        how = "drizzled"
    header.add_history(f"prepared from {ascii(frame.path.name)[1:-1]}: calibrated, {how}")
    planes = image if image.ndim == 2 else np.ascontiguousarray(image.transpose(2, 0, 1))
    _save(task.target, planes, header)


def _save(target: Path, planes: _Image, header: fits.Header) -> None:
    """Write a FITS file that takes its name when it is whole."""
    from astropy.io import fits

    image = planes if planes.ndim == 2 else planes.transpose(1, 2, 0)
    with atomic_output(target, overwrite=True, flushes=False) as file:
        write_hdu(file, fits.PrimaryHDU(planes, header).header, bands_of_planes(image, ">f4"))


def _observing_cards(frame: RawFrame) -> fits.Header:
    """Return the cards of the raw frame that its aligned copy keeps."""
    from astropy.io import fits

    header = fits.Header()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd cards are the camera's business
        found = frame.cards.to_astropy()
        for keyword in KEPT_CARDS:
            if keyword in found and not isinstance(found[keyword], fits.card.Undefined):
                header[keyword] = (found[keyword], found.comments[keyword])
    return header
