"""`prepare_frames`: raw lights (and darks, flats, biases) in, aligned frames on one canvas out."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import InvalidInputError, ZemosaicError
from zemosaic_stack_core.frames.borders import zero_border_line
from zemosaic_stack_core.frames.heads import FrameFile
from zemosaic_stack_core.frames.pixel_rows import FilePool
from zemosaic_stack_core.prepare.align import Placement, place_frames
from zemosaic_stack_core.prepare.cache import PrepareCache, aligned_bytes, signature
from zemosaic_stack_core.prepare.canvas.geometry import Canvas
from zemosaic_stack_core.prepare.canvas.level_match import match_levels, see_different_skies, see_other_parts
from zemosaic_stack_core.prepare.canvas.levels import Level
from zemosaic_stack_core.prepare.frame_set import FrameSet, inspect_frames, require_libraries
from zemosaic_stack_core.prepare.headers.raw_frame import RawFrame
from zemosaic_stack_core.prepare.options import PrepareOptions
from zemosaic_stack_core.prepare.records import PreparedFrame, PreparedGroup
from zemosaic_stack_core.prepare.selection import dimmed_line, select_frames, with_sky_agreement, with_transparency
from zemosaic_stack_core.prepare.sensor.calibrate import level_lines, make_masters
from zemosaic_stack_core.prepare.sensor.hot_pixels import MOST_HOT, hot_in_dark, persistent_pixels
from zemosaic_stack_core.prepare.stars.detect import StarList
from zemosaic_stack_core.prepare.stars.register import Place
from zemosaic_stack_core.prepare.tasks import (
    AlignTask,
    FrameTask,
    LevelTask,
    StarTask,
    align_frame,
    find_stars,
    level_frame,
    make_ready,
    scan_frame,
)
from zemosaic_stack_core.system.pool import is_forking, map_in_processes
from zemosaic_stack_core.system.quantities import percent_text, size_text

Progress = Callable[[str, int, int], None]
_Image = npt.NDArray[np.float32]
_Task = FrameTask | StarTask | AlignTask | LevelTask
_Answer = TypeVar("_Answer")

# Frames that hot pixels are looked for in: more show no more of them.
_SCANNED = 24
# Pixels; with less, the same output pixels lack the hot pixel in every frame.
_DITHERED = 2.0
# Pixels; frames whose corners all move less are aligned.
_STILL = 0.1
# What a frame gets.
_LEVELS = {
    "offset": "a constant per frame",
    "plane": "a plane per frame",
    "feather": "a plane per frame, faded at its borders,",
}


def prepare_frames(
    frames: Sequence[FrameFile],
    options: PrepareOptions | None = None,
    *,
    cache_folder: str | os.PathLike[str],
    progress: Progress | None = None,
    report: Callable[[str], None] | None = None,
    workers: int | None = None,
) -> PreparedGroup:
    """Calibrate, debayer, register and resample frames as the telescope wrote them.

    Parameters
    ----------
    frames : sequence of paths, or of heads that were read
        Lights; darks, flats and biases among them are told by ``IMAGETYP``.
    options : PrepareOptions, optional
        What to do.
    cache_folder : path
        Where masters and aligned frames go; made where it does not exist. What is found there is not made again.
    progress : callable, optional
        Called as ``progress(step, done, total)``. An exception raised there ends the preparation and passes through.
    report : callable, optional
        Called with lines for the user: what was found, what is done and why, how much disk it takes.
    workers : int, optional
        Processes. No pixel depends on it.

    Returns
    -------
    PreparedGroup
        Its `paths` are what the stacker reads.

    Raises
    ------
    InvalidInputError
        Frames that don't fit each other, a Bayer pattern that must be asked about, a set that can't be registered, a
        cache that is too small. One line, before anything that looks like a success is written.
    FrameReadError
        A file can't be read.
    """
    options = options or PrepareOptions()
    require_libraries(options)
    is_new = not Path(cache_folder).exists()
    try:
        cache = PrepareCache(cache_folder, options.cache_limit)
        with FilePool() as files:
            return _Preparation(options, cache, progress, report or (lambda _: None), workers, files).run(frames)
    except ZemosaicError:
        # A set that is refused leaves nothing behind; aligned frames, hours of work perhaps, stay for the next run.
        if is_new and not any(Path(cache_folder).glob("aligned-*")):
            shutil.rmtree(cache_folder, ignore_errors=True)
        raise


class _Clock:
    """The time that each step takes, seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, step: str) -> None:
        """Note the time since the step before."""
        now = time.perf_counter()
        self.seconds[step] = now - self._last
        self._last = now


@dataclass(frozen=True, eq=False)
class _Preparation:
    """One run: options, cache, and whom to tell."""

    options: PrepareOptions
    cache: PrepareCache
    progress: Progress | None
    report: Callable[[str], None]
    workers: int | None
    # The lights, which several steps read.
    files: FilePool

    def run(self, given_files: Sequence[FrameFile]) -> PreparedGroup:
        """Do all steps, or find them done."""
        options, clock = self.options, _Clock()
        given = inspect_frames(given_files, options)
        frames = FrameSet(self.cache.sign(given.lights), self.cache.sign(given.calibration))
        self.report(frames.counts)
        if not options.zeros_missing and (line := zero_border_line([one.source for one in frames.lights], self.files)):
            self.report(line)
        lights, (rows, columns) = frames.lights, frames.shape
        signatures = [[frame.signature for frame in part] for part in (lights, frames.calibration)]
        key = signature("group", *signatures, options)
        found = self.cache.load_group(key)
        if found is not None:
            self.report(f"{len(found.paths)} aligned frames found in the cache {self.cache.folder}")
            return found
        pattern = frames.pattern(options)
        masters = make_masters(
            frames.calibration,
            self.cache.folder,
            lights=lights,
            options=options,
            pattern=pattern,
            workers=self.workers,
        )
        for line in (*frames.lines, *masters.lines, *level_lines(masters, lights[0], self.files)):
            self.report(line)
        clock.lap("masters")
        if is_forking():  # the processes of every step inherit the open files
            self.files.keep(frame.source.data_path for frame in lights if frame.source is not None)
        tasks = [FrameTask(frame=frame, pattern=pattern, masters=masters) for frame in lights]
        maps = {shape: self._hot_pixels(tasks, shape) for shape in dict.fromkeys(frame.shape for frame in lights)}
        tasks = [replace(task, hot=maps[task.frame.shape][0]) for task in tasks]
        hot_count = sum(count for _, count in maps.values())
        clock.lap("hot pixels")
        lists = [StarList.empty(rows, columns)] * len(tasks) if options.align == "none" else self._stars(tasks)
        clock.lap("stars")
        placement = place_frames(lights, lists, options)
        self.report(f"alignment: {placement.alignment} ({placement.why})")
        clock.lap("register")
        records = [_record(*item) for item in zip(lights, lists, placement.places, strict=True)]
        records = select_frames(with_transparency(records), options)
        line = dimmed_line(records)
        if line:
            self.report(line)
        if pattern is None and not frames.calibration and self._stands_still(records, placement):
            return self._as_they_are(records, placement, clock)
        group = self._align(tasks, records, placement, clock)
        group = replace(group, hot_pixels=hot_count, masters=masters.counts)
        self.cache.save_group(key, group)
        self.cache.shrink(group.paths)
        return group

    def _stands_still(self, records: Sequence[PreparedFrame], placement: Placement) -> bool:
        """Return whether the frames lie on each other and nothing else was asked for."""
        wanted = replace(PrepareOptions(), keep_best=self.options.keep_best, max_fwhm=self.options.max_fwhm)
        wanted = replace(wanted, zeros_missing=self.options.zeros_missing)
        if replace(self.options, cache_limit=None, reference=None) != wanted or len(records) < 2:
            return False
        used = [place.transform for place, r in zip(placement.places, records, strict=True) if not r.dropped]
        shape = placement.frames[0].shape
        if any(frame.shape != shape for frame in placement.frames):
            return False
        return all(transform is not None and transform.largest_move(*shape) < _STILL for transform in used)

    def _as_they_are(self, records: Sequence[PreparedFrame], placement: Placement, clock: _Clock) -> PreparedGroup:
        """Return the frames themselves."""
        self.report(f"nothing moves by {_STILL:g} px or more: the frames are stacked as they are")
        return PreparedGroup(
            frames=tuple(r if r.dropped else replace(r, aligned=r.path) for r in records),
            canvas=placement.canvas([]),
            alignment="none",
            why="nothing moves",
            reference=records[placement.reference].name,
            seconds=clock.seconds,
        )

    def _each(self, step: str, function: Callable[..., _Answer], tasks: Sequence[_Task]) -> list[_Answer]:
        """Return the function's answers for all frames, from several processes, with progress."""
        progress = None if self.progress is None else partial(self.progress, step)
        pixels = tasks[0].pixels if tasks else 0
        if tasks and is_forking():
            make_ready(tasks[0])
        return map_in_processes(function, tasks, self.files, pixels=pixels, workers=self.workers, progress=progress)

    def _hot_pixels(self, every: Sequence[FrameTask], shape: tuple[int, int]) -> tuple[Path | None, int]:
        """Write the map of hot pixels of frames of a shape; ask about a Bayer pattern that the pixels contradict."""
        tasks = [task for task in every if task.frame.shape == shape]
        chosen = tasks[:: -(-len(tasks) // _SCANNED)]
        scanned = self._each("hot pixels", scan_frame, chosen)
        if self.options.bayer_pattern is None:
            problems = [(task.frame.name, said) for task, (_, said) in zip(chosen, scanned, strict=True) if said]
            if 2 * len(problems) > len(chosen):
                raise InvalidInputError(": ".join(problems[0]))
        if self.options.hot_pixels == "off":
            return None, 0
        counts = np.zeros(shape, np.int32)
        for bits, _ in scanned:
            counts += np.unpackbits(bits, count=counts.size).reshape(counts.shape)
        maps = [("the lights", persistent_pixels(counts, len(chosen)))]
        for group in tasks[0].masters.darks:
            dark = None if group.path is None else np.load(group.path)
            if dark is not None and dark.shape[:2] == shape:
                maps.append((group.line, hot_in_dark(dark)))
        hot = np.zeros(counts.shape, np.bool_)
        for name, found in maps:
            if found.mean() <= MOST_HOT:
                hot |= found
            else:
                share = percent_text(100 * found.mean(), ".1f")
                self.report(f"{share} of the pixels would be hot by {name}: something else is wrong; not left out")
        if not hot.any():
            return None, 0
        self.report(f"{int(hot.sum())} hot pixels ({percent_text(100 * hot.mean(), '.3f')})")
        return self.cache.save_hot(hot), int(hot.sum())

    def _stars(self, tasks: Sequence[FrameTask]) -> list[StarList]:
        """Find the stars of every frame, or find them in the cache."""
        keys = [signature("stars", *task.parts) for task in tasks]
        cached = [self.cache.load_stars(key) for key in keys]
        lost = [index for index, stars in enumerate(cached) if stars is None]
        star_tasks = [StarTask(light=tasks[index], target=self.cache.stars_file(keys[index])) for index in lost]
        fresh = dict(zip(lost, self._each("stars", find_stars, star_tasks), strict=True))
        return [fresh[index] if stars is None else stars for index, stars in enumerate(cached)]

    def _align(
        self, tasks: Sequence[FrameTask], records: list[PreparedFrame], placement: Placement, clock: _Clock
    ) -> PreparedGroup:
        """Write the frames on the canvas that hold together, and match their levels."""
        alive = [index for index, record in enumerate(records) if not record.dropped]
        canvas = placement.canvas(alive)
        is_color = tasks[0].frame.channels != 1 or tasks[0].pattern is not None
        align_tasks = self._align_tasks([tasks[index] for index in alive], alive, placement, canvas)
        self._check_size(align_tasks, canvas, is_color=is_color)
        for task in align_tasks:
            self.cache.has_whole(task.target)
        boxes = dict(zip(alive, self._boxes(align_tasks), strict=True))
        clock.lap("align")
        is_strict = placement.alignment == "stars"
        agreeing = with_sky_agreement([records[i] for i in alive], list(boxes.values()), is_strict=is_strict)
        checked = dict(zip(alive, agreeing, strict=True))
        kept = [index for index in alive if not checked[index].dropped]
        first = kept.index(placement.reference) if placement.reference in kept else 0
        scales = self._scales([checked[index] for index in kept], [boxes[index] for index in kept], first)
        levels, mode = self._levels([boxes[index] for index in kept], scales, first)
        if levels:
            self.report(f"levels: {_LEVELS[mode]} makes overlaps agree")
        exposure = checked[kept[first]].exposure if set(scales) != {1.0} else math.nan
        written = [task for index, task in zip(alive, align_tasks, strict=True) if index in kept]
        targets = dict(zip(kept, self._finish(written, levels, exposure), strict=True))
        clock.lap("levels")
        checked |= {index: replace(checked[index], aligned=targets[index]) for index in kept}
        return PreparedGroup(
            frames=tuple(checked.get(index, record) for index, record in enumerate(records)),
            canvas=canvas,
            alignment=placement.alignment,
            why=placement.why,
            reference=records[placement.reference].name,
            is_color=is_color,
            cache_bytes=sum(targets[index].stat().st_size for index in kept),
            levels=mode,
            seconds=clock.seconds,
        )

    def _align_tasks(
        self, tasks: Sequence[FrameTask], indices: Sequence[int], placement: Placement, canvas: Canvas
    ) -> list[AlignTask]:
        """Return what is to be written."""
        options = self.options
        if options.hot_pixels == "auto":
            # Interpolated colors need whole mosaics; still frames would lack the same samples in all of them.
            is_mono = tasks[0].pattern is None or options.cfa == "drizzle"
            is_missing = is_mono and placement.spread(indices) >= _DITHERED
            options = replace(options, hot_pixels="missing" if is_missing else "interpolate")
        how = (options.kernel, options.hot_pixels, options.cfa, options.drizzle_pixel_fraction)
        align_tasks = []
        for index, task in zip(indices, tasks, strict=True):
            mapping = placement.map_from(canvas, index)
            key = signature("aligned", *task.parts, mapping, canvas, *how)
            target = self.cache.aligned(key, task.frame.path.name)
            align_tasks.append(AlignTask(light=task, mapping=mapping, canvas=canvas, target=target, options=options))
        return align_tasks

    def _check_size(self, tasks: Sequence[AlignTask], canvas: Canvas, *, is_color: bool) -> None:
        """Report how much disk the aligned frames take, and refuse where it is too much."""
        needed = len(tasks) * aligned_bytes(canvas, is_color=is_color)
        size = f"{canvas.rows} x {canvas.columns}: {size_text(needed)} in {self.cache.folder}"
        self.report(f"{len(tasks)} aligned frames of {size}")
        self.cache.check_room(needed, [task.target for task in tasks])

    def _boxes(self, tasks: Sequence[AlignTask]) -> list[_Image]:
        """Return the box medians of all frames, those that are not there yet from the frames that are written now."""
        cached = [self.cache.load_boxes(task.target) for task in tasks]
        lost = [index for index, boxes in enumerate(cached) if boxes is None]
        fresh = dict(zip(lost, self._each("align", align_frame, [tasks[i] for i in lost]), strict=True))
        return [fresh[index] if boxes is None else boxes for index, boxes in enumerate(cached)]

    def _scales(self, records: Sequence[PreparedFrame], boxes: Sequence[_Image], first: int) -> list[float]:
        """Return what brings frames to the flux of frame `first`; ones where all see about the same of the sky."""
        if self.options.levels == "auto" and not see_other_parts(boxes):
            return [1.0] * len(records)
        return [record.flux_scale / records[first].flux_scale for record in records]

    def _levels(self, boxes: Sequence[_Image], scales: Sequence[float], first: int) -> tuple[list[Level], str]:
        """Return what brings frames to the level of frame `first`, and its kind, one of `LEVEL_MODES`."""
        mode = self.options.levels
        if mode == "none" or (mode == "auto" and not see_different_skies(boxes)):
            return [], "none"
        return match_levels(boxes, scales, first, mode)

    def _finish(self, tasks: Sequence[AlignTask], levels: Sequence[Level], exposure: float) -> list[Path]:
        """Write what is not there yet of the frames, at their levels where they have one; return their files.

        `exposure` is that of the frame whose flux all have at their levels, NaN where each has its own.
        """
        targets: list[Path] = []
        to_align: dict[Path, AlignTask] = {}
        to_level: dict[Path, LevelTask] = {}
        for index, task in enumerate(tasks):
            source = target = task.target
            if levels and not levels[index].changes_nothing:
                raw = source.name.removeprefix("aligned-").rpartition("-")[0]
                target = self.cache.aligned(signature("level", source.stem, *levels[index].parts, exposure), raw)
                if not self.cache.has_whole(target):
                    to_level[target] = LevelTask(source=source, level=levels[index], target=target, exposure=exposure)
            if not (target.exists() or source.exists()):  # its boxes are there, but it went, to another level perhaps
                to_align[source] = task
            targets.append(target)
        self._each("align", align_frame, list(to_align.values()))
        self._each("levels", level_frame, list(to_level.values()))
        return targets


def _record(frame: RawFrame, stars: StarList, place: Place) -> PreparedFrame:
    """Return what is known of a frame before it is aligned."""
    record = PreparedFrame(
        name=frame.name,
        path=frame.path,
        stars=len(stars),
        fwhm=stars.fwhm,
        roundness=stars.roundness,
        sky=stars.sky,
        noise=stars.noise,
        flux_ratio=place.flux_ratio,
        exposure=frame.seconds,
        date=frame.date,
        dropped=place.reason,
        note=place.note,
    )
    if place.match is not None:
        record = replace(record, matched=place.match.stars, residual=place.match.residual)
    if place.transform is None:
        return record
    turn, scale, is_mirrored = place.transform.rotation, place.transform.scale, place.transform.is_mirrored
    shift = place.transform.shift_at((frame.columns - 1) / 2, (frame.rows - 1) / 2)
    return replace(record, shift=shift, rotation=turn, scale=scale, is_mirrored=is_mirrored)
