"""`prepare_frames`: raw lights (and darks, flats, biases) in, aligned frames on one canvas out."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import InvalidInputError, ZemosaicError
from zemosaic_stack_core.prepare.align import Placement, place_frames
from zemosaic_stack_core.prepare.cache import PrepareCache, signature
from zemosaic_stack_core.prepare.canvas.canvas import Canvas
from zemosaic_stack_core.prepare.canvas.levels import best_levels, match_levels, sky_scatter
from zemosaic_stack_core.prepare.frame_set import FrameSet, inspect_frames, require_libraries
from zemosaic_stack_core.prepare.headers.raw_frame import RawFrame
from zemosaic_stack_core.prepare.options import PrepareOptions
from zemosaic_stack_core.prepare.records import PreparedFrame, PreparedGroup
from zemosaic_stack_core.prepare.selection import dimmed_line, select_frames, with_transparency
from zemosaic_stack_core.prepare.sensor.calibrate import Masters, make_masters
from zemosaic_stack_core.prepare.sensor.hot_pixels import hot_in_dark, persistent_pixels
from zemosaic_stack_core.prepare.stars.detect import StarList
from zemosaic_stack_core.prepare.stars.register import Place
from zemosaic_stack_core.prepare.tasks import (
    AlignTask,
    FrameTask,
    LevelTask,
    align_frame,
    aligned_bytes,
    find_stars,
    level_frame,
    scan_frame,
)
from zemosaic_stack_core.system.pool import map_frames

Progress = Callable[[str, int, int], None]

_SCANNED = 24  # frames that hot pixels are looked for in: more show no more of them
_DITHERED = 2.0  # pixels; with less, the same output pixels lack the hot pixel in every frame
_SKY_DISAGREES = 3.0  # noise per pixel; and five times what is usual in the set
_STILL = 0.1  # pixels; frames whose corners all move less are aligned
_OTHER_SKY = 0.8  # part of the canvas; frames that cover less see different parts of the sky


def prepare_frames(
    paths: Sequence[str | os.PathLike[str]],
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
    paths : sequence of paths
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
        return _Preparation(options, cache, progress, report, workers).run(paths)
    except ZemosaicError:
        if is_new:  # a set that is refused leaves nothing behind
            shutil.rmtree(cache_folder, ignore_errors=True)
        raise


@dataclass(frozen=True, eq=False)
class _Preparation:
    """One run: options, cache, and whom to tell."""

    options: PrepareOptions
    cache: PrepareCache
    progress: Progress | None
    tell: Callable[[str], None] | None
    workers: int | None

    def run(self, paths: Sequence[str | os.PathLike[str]]) -> PreparedGroup:
        """Do all steps, or find them done."""
        began = time.perf_counter()
        seconds: dict[str, float] = {}
        given = inspect_frames(paths, self.options)
        frames = FrameSet(self.cache.sign(given.lights), self.cache.sign(given.calibration))
        self._report(frames.counts)
        shape, lights = frames.shape, frames.lights
        signatures = [[frame.signature for frame in part] for part in (lights, frames.calibration)]
        key = signature("group", *signatures, self.options)
        found = self.cache.load_group(key)
        if found is not None:
            self._report(f"{len(found.paths)} aligned frames found in the cache {self.cache.folder}")
            return found
        lap = self._clock(seconds, began)
        pattern = frames.pattern(self.options)
        scale_darks = self.options.scale_darks
        masters = make_masters(frames.calibration, self.cache.folder, scale_darks=scale_darks, pattern=pattern)
        lap("masters")
        tasks = [FrameTask(frame=frame, pattern=pattern, masters=masters) for frame in lights]
        for frame in lights:  # a dark or flat that fits no light is told before the work
            masters.dark_for(frame), masters.flat_for(frame)
        hot, hot_count = self._hot_pixels(tasks, masters)
        tasks = [replace(task, hot=hot) for task in tasks]
        lap("hot pixels")
        lists = self._stars(tasks) if self.options.align != "none" else [StarList.empty(*shape)] * len(tasks)
        lap("stars")
        placement = place_frames(lights, lists, self.options)
        self._report(f"alignment: {placement.alignment} ({placement.why})")
        lap("register")
        records = [_record(*item) for item in zip(lights, lists, placement.places, strict=True)]
        records = select_frames(with_transparency(records), self.options)
        line = dimmed_line(records)
        if line:
            self._report(line)
        if self._stands_still(records, placement, pattern, frames.calibration):
            return self._as_they_are(records, placement, seconds)
        group = self._align(tasks, records, placement, hot_count, masters, lap)
        group = replace(group, seconds=seconds)
        self.cache.save_group(key, group)
        self.cache.shrink(group.paths)
        return group

    def _stands_still(
        self, records: Sequence[PreparedFrame], placement: Placement, pattern: str | None,
        calibration: Sequence[RawFrame],
    ) -> bool:  # fmt: skip
        """Tell whether nothing is to be done: the frames lie on each other and nothing else was asked for."""
        wanted = replace(PrepareOptions(), keep_best=self.options.keep_best, max_fwhm=self.options.max_fwhm)
        asked = replace(self.options, cache_limit=None, reference=None)
        if asked != wanted or pattern is not None or calibration or len(records) < 2:
            return False
        kept = [place.transform for place, r in zip(placement.places, records, strict=True) if not r.dropped]
        shape = placement.frames[0].shape
        return all(transform is not None and transform.largest_move(*shape) < _STILL for transform in kept)

    def _as_they_are(
        self, records: Sequence[PreparedFrame], placement: Placement, seconds: dict[str, float]
    ) -> PreparedGroup:
        """Return the frames themselves."""
        self._report(f"nothing moves by {_STILL:g} px or more: the frames are stacked as they are")
        return PreparedGroup(
            frames=tuple(r if r.dropped else replace(r, aligned=r.path) for r in records),
            canvas=placement.canvas([]), alignment="none", why="nothing moves",
            reference=records[placement.reference].name, is_color=False, hot_pixels=0, seconds=seconds,
        )  # fmt: skip

    def _report(self, line: str) -> None:
        """Tell the user a line."""
        if self.tell is not None:
            self.tell(line)

    def _step(self, name: str) -> Callable[[int, int], None] | None:
        """Return the progress callable of one step."""
        if self.progress is None:
            return None
        report = self.progress
        return lambda done, total: report(name, done, total)

    @staticmethod
    def _clock(seconds: dict[str, float], began: float) -> Callable[[str], None]:
        """Return a function that notes the time since it was called last."""
        last = [began]

        def lap(name: str) -> None:
            now = time.perf_counter()
            seconds[name] = now - last[0]
            last[0] = now

        return lap

    def _hot_pixels(self, tasks: Sequence[FrameTask], masters: Masters) -> tuple[Path | None, int]:
        """Make the map of hot pixels; ask about a Bayer pattern that the pixels contradict."""
        step = -(-len(tasks) // _SCANNED)
        chosen = list(tasks[::step])
        frame = tasks[0].frame
        scanned = map_frames(scan_frame, chosen, pixels=frame.rows * frame.columns, workers=self.workers,
                             progress=self._step("hot pixels"))  # fmt: skip
        if self.options.bayer_pattern is None:
            problems = [(task.frame.name, said) for task, (_, said) in zip(chosen, scanned, strict=True) if said]
            if 2 * len(problems) > len(chosen):
                raise InvalidInputError(": ".join(problems[0]))
        if self.options.hot_pixels == "off":
            return None, 0
        counts = np.zeros(frame.shape, np.int32)
        for bits, _ in scanned:
            counts += np.unpackbits(bits, count=counts.size).reshape(counts.shape)
        hot = persistent_pixels(counts, len(chosen))
        for _, path in masters.darks:
            hot |= hot_in_dark(np.load(path))
        if not hot.any():
            return None, 0
        path = self.cache.folder / f"hot-{signature('hot', hot.shape, np.packbits(hot).tobytes())}.npy"
        np.save(path, hot, allow_pickle=False)
        self._report(f"{int(hot.sum())} hot pixels ({100 * hot.mean():.3f} %)")
        return path, int(hot.sum())

    def _stars(self, tasks: Sequence[FrameTask]) -> list[StarList]:
        """Find the stars of every frame, or find them in the cache."""
        keys = [signature("stars", task.frame.signature, task.masters.signature, task.pattern,
                          task.hot and task.hot.name) for task in tasks]  # fmt: skip
        cached = [self.cache.load_stars(key) for key in keys]
        lost = [index for index, found in enumerate(cached) if found is None]
        frame = tasks[0].frame
        found = map_frames(find_stars, [tasks[i] for i in lost], pixels=frame.rows * frame.columns,
                           workers=self.workers, progress=self._step("stars"))  # fmt: skip
        fresh = dict(zip(lost, found, strict=True))
        for index, stars in fresh.items():
            self.cache.save_stars(keys[index], stars, "")
        return [fresh[i] if item is None else item[0] for i, item in enumerate(cached)]

    def _align(
        self, tasks: Sequence[FrameTask], records: list[PreparedFrame], placement: Placement,
        hot_count: int, masters: Masters, lap: Callable[[str], None],
    ) -> PreparedGroup:  # fmt: skip
        """Write the frames on the canvas that hold together, and match their levels."""
        alive = [index for index, record in enumerate(records) if not record.dropped]
        canvas = placement.canvas(alive)
        is_color = tasks[0].frame.channels != 1 or tasks[0].pattern is not None
        jobs = self._jobs(tasks, alive, placement, canvas)
        self._tell_size(canvas, len(alive), is_color=is_color, keep=[job.target for job in jobs])
        boxes = self._aligned(jobs, canvas)
        lap("align")
        scales = [records[i].flux_ratio if np.isfinite(records[i].flux_ratio) else 1.0 for i in alive]
        scatter = sky_scatter(boxes, scales, [records[i].noise for i in alive])
        typical = float(np.nanmedian(scatter)) if np.isfinite(scatter).any() else 0.0
        for position, index in enumerate(alive):
            value = scatter[position]
            records[index] = replace(records[index], sky_agreement=value)
            if placement.alignment == "stars" and value > max(_SKY_DISAGREES, 5 * typical):
                records[index] = replace(
                    records[index],
                    dropped=f"its sky differs from the others' by {value:.1f} times the noise of a pixel",
                )
        kept = [position for position, index in enumerate(alive) if not records[index].dropped]
        targets = [jobs[position].target for position in kept]
        mode = self._level_mode(jobs, boxes, kept, canvas)
        if mode != "none":
            at = [alive[position] for position in kept]
            first = at.index(placement.reference) if placement.reference in at else 0
            relative = [scales[position] / scales[kept[first]] for position in kept]
            used = [boxes[position] for position in kept]
            if mode == "best":
                levels, mode = best_levels(used, relative, first)
            else:
                levels = match_levels(used, relative, first, mode)
            self._report(f"levels: a {'plane' if mode == 'plane' else 'constant'} per frame makes overlaps agree")
            targets = self._level([jobs[position].target for position in kept], levels)
            lap("levels")
        for target, position in zip(targets, kept, strict=True):
            records[alive[position]] = replace(records[alive[position]], aligned=target)
        return PreparedGroup(
            frames=tuple(records), canvas=canvas, alignment=placement.alignment, why=placement.why,
            reference=tasks[placement.reference].frame.name, is_color=is_color, hot_pixels=hot_count,
            masters=masters.counts, cache_bytes=sum(path.stat().st_size for path in targets), levels=mode,
        )  # fmt: skip

    def _jobs(
        self, tasks: Sequence[FrameTask], alive: Sequence[int], placement: Placement, canvas: Canvas
    ) -> list[AlignTask]:
        """Return what is to be written."""
        options = self.options
        hot = options.hot_pixels
        if hot == "auto":
            # Interpolated colors need whole mosaics; still frames would lack the same samples in all of them.
            mono = tasks[0].pattern is None or options.cfa == "drizzle"
            hot = "missing" if mono and placement.spread(alive) >= _DITHERED else "interpolate"
        jobs = []
        for index in alive:
            task, mapping = tasks[index], placement.map_from(canvas, index)
            key = signature("aligned", task.frame.signature, task.masters.signature, task.pattern,
                            task.hot and task.hot.name, mapping, canvas, options.kernel, hot, options.cfa,
                            options.drizzle_pixel_fraction)  # fmt: skip
            jobs.append(AlignTask(
                task=task, mapping=mapping, canvas=canvas, target=self.cache.aligned(key, task.frame.path.name),
                kernel=options.kernel,
                hot_pixels=hot, cfa=options.cfa, pixel_fraction=options.drizzle_pixel_fraction,
            ))  # fmt: skip
        return jobs

    def _tell_size(self, canvas: Canvas, frames: int, *, is_color: bool, keep: Sequence[Path]) -> None:
        """Say how much disk the aligned frames take, and refuse where it is too much."""
        needed = frames * aligned_bytes(canvas, is_color=is_color)
        self._report(
            f"{frames} aligned frames of {canvas.rows} x {canvas.columns}: {needed / 1e6:.0f} MB in {self.cache.folder}"
        )
        self.cache.check_room(needed, keep)

    def _aligned(self, jobs: Sequence[AlignTask], canvas: Canvas) -> list[npt.NDArray[np.float32]]:
        """Write the frames that are not there yet; return the box medians of all."""
        keys = [job.target.stem for job in jobs]
        cached = [
            self.cache.load_boxes(key) if job.target.exists() else None for key, job in zip(keys, jobs, strict=True)
        ]
        lost = [index for index, boxes in enumerate(cached) if boxes is None]
        made = map_frames(align_frame, [jobs[i] for i in lost], pixels=canvas.rows * canvas.columns,
                          workers=self.workers, progress=self._step("align"))  # fmt: skip
        fresh = dict(zip(lost, made, strict=True))
        for index, boxes in fresh.items():
            self.cache.save_boxes(keys[index], boxes)
        return [fresh[i] if boxes is None else boxes for i, boxes in enumerate(cached)]

    def _level_mode(
        self, jobs: Sequence[AlignTask], boxes: Sequence[npt.NDArray[np.float32]], kept: Sequence[int], canvas: Canvas
    ) -> str:
        """Decide whether backgrounds are matched here; "best": by what makes overlaps agree."""
        mode = self.options.levels
        if mode != "auto":
            return mode
        del jobs, canvas
        if len(kept) < 2:
            return "none"
        seen = np.stack([np.isfinite(boxes[position][..., 0]) for position in kept])
        covered = seen.any(axis=0).sum()
        return "best" if float(seen.sum(axis=(1, 2)).min()) < _OTHER_SKY * float(covered) else "none"

    def _level(self, sources: Sequence[Path], levels: Sequence[object]) -> list[Path]:
        """Write frames at their levels."""
        from zemosaic_stack_core.prepare.canvas.levels import Level

        jobs, targets = [], []
        for source, level in zip(sources, levels, strict=True):
            assert isinstance(level, Level)  # noqa: S101 - for the type checker
            if level.changes_nothing:
                targets.append(source)
                continue
            raw = source.name.removeprefix("aligned-").rpartition("-")[0]
            target = self.cache.aligned(signature("level", source.stem, level), raw)
            targets.append(target)
            jobs.append(LevelTask(source=source, level=level, target=target))
        map_frames(level_frame, jobs, pixels=1 << 20, workers=self.workers, progress=self._step("levels"))
        return targets


def _record(frame: RawFrame, stars: StarList, place: Place) -> PreparedFrame:
    """Return what is known of a frame before it is aligned."""
    nan = float("nan")
    known: dict[str, Any] = {}
    if place.transform is not None:
        shift = place.transform.shift_at((frame.columns - 1) / 2, (frame.rows - 1) / 2)
        turn, scale = place.transform.rotation, place.transform.scale
        known = {"shift": shift, "rotation": turn, "scale": scale, "is_mirrored": place.transform.is_mirrored}
    return PreparedFrame(
        name=frame.name, path=frame.path, stars=len(stars), matched=0 if place.match is None else place.match.stars,
        **known, residual=nan if place.match is None else place.match.residual, fwhm=stars.fwhm,
        roundness=stars.roundness, sky=stars.sky, noise=stars.noise, flux_ratio=place.flux_ratio,
        exposure=frame.seconds, date=frame.date, dropped=place.reason, note=place.note,
    )  # fmt: skip
