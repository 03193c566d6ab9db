"""Make one tile of a run, or find that it is there already; whatever goes wrong stays with the tile."""

from __future__ import annotations

import logging
import math
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from zemosaic_stack_core.errors import InvalidInputError, ZemosaicError
from zemosaic_stack_core.fits.cards import read_first_header
from zemosaic_stack_core.fits.stream import is_intact
from zemosaic_stack_core.frames.scratch import ScratchFolder
from zemosaic_stack_core.gpu.phase3_gpu import Phase3Gpu
from zemosaic_stack_core.master.read import read_master
from zemosaic_stack_core.master.tile import TileFacts
from zemosaic_stack_core.phase3.frame_quality import frame_qualities, look_at_frames, stack_record
from zemosaic_stack_core.phase3.memory_watch import MemoryWatch
from zemosaic_stack_core.phase3.previews import PicturePlan, TilePictures, tile_pictures
from zemosaic_stack_core.phase3.run_plan import PREPARED_FOLDER, TileSpec
from zemosaic_stack_core.phase3.signature import tile_signature
from zemosaic_stack_core.phase3.tile import StackedTile, StackSettings, stack_frames, write_tile
from zemosaic_stack_core.phase3.tile_frames import TileFrames, choose_tile_frames, tile_is_raw
from zemosaic_stack_core.phase3.tile_record import (
    DroppedFrame,
    FrameQuality,
    MadeTile,
    TileOutcome,
    TileRecord,
)
from zemosaic_stack_core.prepare.options import NAMED_KINDS
from zemosaic_stack_core.stacking.pictures import DRAWN_MAPS
from zemosaic_stack_core.stacking.result import StackResult, without_maps
from zemosaic_stack_core.stacking.telemetry import QUIET, Telemetry
from zemosaic_stack_core.system.atomic import disk_is_full
from zemosaic_stack_core.system.file_stamps import HashedInput, InputHashes, file_stamp, hashes_to_json

_LOGGER = logging.getLogger(__name__)

# What fails a tile alone. Not KeyboardInterrupt: that ends the run.
_FAILURES = (ZemosaicError, OSError, MemoryError, RuntimeError, ValueError, TypeError, LookupError, ArithmeticError)
_OLD = ".old"
# Details of a tile that are true of its file, not of the run that made it.
_LASTING = ("prepared", "chosen", "advice")


@dataclass(frozen=True, kw_only=True)
class TileMaker:
    """How the tiles of one run are made in one process."""

    output: Path
    settings: StackSettings
    # Reuse a file that is right.
    resume: bool = True
    # Sizes of the report's pictures.
    plan: PicturePlan = field(default_factory=PicturePlan)
    # State of the GPU for the run; None for the CPU.
    gpu: Phase3Gpu | None = None
    # Of the run's inputs, as far as they are known.
    hashes: InputHashes = field(default_factory=InputHashes)
    telemetry: Telemetry = QUIET

    def make(self, spec: TileSpec, earlier: TileRecord | None = None) -> MadeTile:
        """Make a tile or reuse it; `earlier` is its record in an earlier run.

        Only what is raised on purpose to end the run passes through; any other failure is the tile's outcome.
        """
        began = time.perf_counter()
        started = datetime.now(UTC).isoformat(timespec="seconds")
        work = _TileWork(self, spec)
        stops = False
        try:
            made = work.reuse(earlier) if self.resume else None
            made = made or work.make()
        except _FAILURES as error:
            stops = disk_is_full(error)
            made = MadeTile(record=work.failed(error), inputs=work.input_rows)
        record = replace(
            made.record,
            seconds=time.perf_counter() - began,
            started=started,
            excluded=spec.excluded,
            worker=f"{socket.gethostname()} {os.getpid()}",
        )
        return replace(made, record=record, stops_run=stops)


@dataclass(frozen=True)
class _Stacked:
    """A tile that is stacked and not yet written."""

    frames: TileFrames
    tile: StackedTile
    seconds: float
    # What is known of each frame.
    qualities: tuple[FrameQuality, ...]
    pictures: TilePictures


class _TileWork:
    """The work on one tile, and what is known of it so far: a failure has a record, too."""

    def __init__(self, maker: TileMaker, spec: TileSpec) -> None:
        self.maker, self.spec = maker, spec
        self.target = maker.output / spec.file_name
        self.set_aside = maker.output / (spec.file_name + _OLD)
        self.dropped: tuple[DroppedFrame, ...] = ()
        self.inputs: list[HashedInput] = []
        self.signature = ""
        self.check_seconds = 0.0
        self.given = len(spec.frames)

    @cached_property
    def is_raw(self) -> bool:
        """Whether the frames are to be prepared; their headers are looked at when the tile's turn has come."""
        return tile_is_raw(self.spec.frames, self.maker.settings.raw_policy)

    @property
    def input_rows(self) -> list[list[Any]]:
        """The inputs as the report keeps them."""
        return hashes_to_json(self.spec.frames, self.inputs)

    def reuse(self, earlier: TileRecord | None) -> MadeTile | None:
        """Return the tile where its file is right, None where it has to be made."""
        if self.spec.problem or not (self.target.exists() or self.set_aside.exists()):
            return None
        self._sign()
        if not self.target.exists() and self._is_right(self.set_aside):
            self.set_aside.replace(self.target)
        if not self._is_right(self.target):
            return None
        self.given = int(read_first_header(self.target)["ZMT_NRAW"])
        result = read_master(self.target).result
        record = self._record(TileOutcome.REUSED, result, frame_qualities(result, ()))
        if earlier is not None and earlier.signature == self.signature:
            known = {name: getattr(earlier, name) for name in ("dropped", "gpu_attempts", "frames", "worst_frames")}
            known["frames"] = _renamed(earlier.frames, self.spec.frames)
            details = {name: value for name, value in earlier.details.items() if name in _LASTING}
            record = replace(record, details=details, **{name: value for name, value in known.items() if value})
        return MadeTile(record=record, inputs=self.input_rows, pictures=tile_pictures(result, self.maker.plan))

    def make(self) -> MadeTile:
        """Stack the tile and write its file."""
        self._check_spec()
        if not self.signature:
            self._sign()
        watch = MemoryWatch()
        stacked = self._stack_files_at_rest(watch)
        tile, facts = stacked.tile, stacked.tile.result.facts
        said = tile.said  # before the file is there: from then on nothing may take time
        began = time.perf_counter()
        hashes = {os.fspath(p): i.sha256 for p, i in zip(self.spec.frames, self.inputs, strict=True) if i.stamp}
        extras = replace(
            stacked.frames.extras(tile.result),
            tile=TileFacts(tile_id=self.spec.tile_id, raw_frames=self.given),
            signature=self.signature,
            sha256=[hashes.get(frame.name) for frame in tile.result.frames],
        )
        write_tile(self.target, tile, extras, overwrite=True)
        self.set_aside.unlink(missing_ok=True)
        watch.look(now=True)
        known = {name: value for name, value in asdict(facts).items() if name not in ("used_gpu", "gpu_attempts")}
        record = replace(
            self._record(_outcome(tile.result), tile.result, stacked.qualities),
            reason=facts.fallback_reason if facts.gpu_attempts and not facts.used_gpu else "",
            dropped=tile.dropped,
            gpu_attempts=facts.gpu_attempts,
            stack_seconds=stacked.seconds,
            write_seconds=time.perf_counter() - began,
            peak_bytes=watch.peak,
            details={name: value for name, value in known.items() if isinstance(value, str) or math.isfinite(value)}
            | stacked.frames.details
            | said,
        )
        return MadeTile(record=record, inputs=self.input_rows, pictures=stacked.pictures)

    def failed(self, error: BaseException) -> TileRecord:
        """Return the record of a failure; an older file of the tile is set aside, so that nobody takes it for new."""
        reason = " ".join(str(error).split()) or type(error).__name__
        if not isinstance(error, (ZemosaicError, OSError, MemoryError)):
            reason = f"unexpected {type(error).__name__}: {reason}"
            _LOGGER.debug("tile %d", self.spec.tile_id, exc_info=error)
        try:
            if "ZSC_ALGO" in read_first_header(self.target):
                self.target.replace(self.set_aside)
                _LOGGER.warning("tile %d: the older %s is now %s", self.spec.tile_id, self.target, self.set_aside.name)
        except OSError as problem:
            _LOGGER.warning("tile %d: the older %s can't be renamed: %s", self.spec.tile_id, self.target, problem)
        record = TileRecord.without_file(self.spec, TileOutcome.FAILED, reason)
        frames = tuple(FrameQuality(name=frame.name, dropped=frame.reason) for frame in self.dropped)
        return replace(
            record,
            signature=self.signature,
            dropped=self.dropped,
            frames=frames,
            check_seconds=self.check_seconds,
        )

    def _check_spec(self) -> None:
        """Raise where the plan has no frames for the tile, or somebody else's file has its name."""
        if self.spec.problem:
            raise InvalidInputError(self.spec.problem)
        if not self.spec.frames:
            raise InvalidInputError("no frames in the plan; expected at least one")
        header = read_first_header(self.target)
        if header.cards and "ZSC_ALGO" not in header:
            raise InvalidInputError(f"{self.target}: not written by this program; expected a free name in the folder")

    def _sign(self) -> None:
        """Hash the inputs and compute the signature."""
        began = time.perf_counter()
        self.inputs = self.maker.hashes.look(self.spec.frames)
        settings = self.maker.settings
        extra = {"maps": sorted(settings.maps), "saturation": settings.saturation, **self._preparation()}
        if settings.auto:
            extra["auto"] = sorted(settings.auto)
        if settings.zeros_missing:
            extra["zeros_missing"] = True
        self.signature = tile_signature(self.spec.tile_id, self.inputs, settings.options, extra=extra)
        self.check_seconds += time.perf_counter() - began

    def _preparation(self) -> dict[str, Any]:
        """Return what the preparation of raw frames depends on, for the signature; nothing of aligned ones."""
        policy = self.maker.settings.raw_policy
        if not self.is_raw or policy is None:
            return {}
        options = policy.options
        named = [Path(path) for name in NAMED_KINDS for path in getattr(options, name)]
        calibration = [item.sha256 for item in self.maker.hashes.look(named)]
        plain = replace(options, **dict.fromkeys(NAMED_KINDS, ()), cache_limit=None)  # type: ignore[arg-type]
        return {"prepare": repr(plain), "calibration": calibration}

    def _is_right(self, path: Path) -> bool:
        """Return whether a file is this tile, whole, and made of enough frames for this run."""
        header = read_first_header(path)
        if header.get("ZSC_SIGN") != self.signature:
            return False
        try:
            used, given = int(header["ZSC_NFRM"]), int(header["ZMT_NRAW"])
        except (KeyError, ValueError):
            return False
        settings = self.maker.settings
        policy = settings.raw_policy
        wants_fewer = policy is not None and (policy.options.keep_best or policy.options.max_fwhm)
        if wants_fewer:  # it was enough when the tile was made
            given = used
        has_enough = used >= settings.least_frames(given) and not (settings.strict and used < given)
        return has_enough and is_intact(path)

    def _stack_files_at_rest(self, watch: MemoryWatch) -> _Stacked:
        """Stack the tile; once more where a frame changed meanwhile, and then raise where one did again."""
        stacked = self._stack(watch)
        if self._changed_inputs():
            self._sign()
            stacked = self._stack(watch)
            changed = self._changed_inputs()
            if changed:
                raise InvalidInputError(f"{changed[0]}: changed while the tile was made; expected a file at rest")
        return stacked

    def _stack(self, watch: MemoryWatch) -> _Stacked:
        """Choose the frames, prepare them where they are raw, and stack them."""
        maker = self.maker

        def progress(done: int, total: int) -> None:
            watch.look()
            if maker.telemetry.progress is not None:
                maker.telemetry.progress(done, total)

        telemetry = replace(maker.telemetry, progress=progress, tile_id=self.spec.tile_id)
        began = time.perf_counter()
        with ScratchFolder() as scratch:
            frames = choose_tile_frames(
                self.spec.frames,
                maker.settings,
                is_raw=self.is_raw,
                cache=self.target.parent / PREPARED_FOLDER,
                scratch=scratch,
            )
            self.dropped, self.given = frames.choice.dropped, frames.given
            chosen = time.perf_counter()
            self.check_seconds += chosen - began
            maps = frames.settings.maps
            settings = replace(frames.settings, maps=tuple(sorted({*maps, *DRAWN_MAPS})))
            tile = stack_frames(frames.choice, settings, gpu=maker.gpu, telemetry=telemetry)
            self.dropped = tile.dropped
            seconds = time.perf_counter() - chosen
            qualities, pictures = self._look(frames, tile, scratch)
        tile = replace(tile, result=without_maps(tile.result, set(DRAWN_MAPS) - {*maps}))
        return _Stacked(frames, tile, seconds, qualities, pictures)

    def _look(
        self, frames: TileFrames, tile: StackedTile, scratch: ScratchFolder
    ) -> tuple[tuple[FrameQuality, ...], TilePictures]:
        """Return what is known of each frame, and the pictures of a tile that has the maps for them."""
        order = [os.fspath(path) for path in self.spec.frames]
        known = frame_qualities(tile.result, tile.dropped, frames.prepared, order)
        plan, limits = self.maker.plan, self.maker.settings.limits
        qualities, pictures = look_at_frames(known, frames.sources, plan, scratch, workers=limits.workers)
        return qualities, tile_pictures(tile.result, plan, pictures)

    def _changed_inputs(self) -> list[Path]:
        """Return the inputs that are not what was hashed."""
        pairs = zip(self.spec.frames, self.inputs, strict=True)
        return [path for path, item in pairs if file_stamp(path) != item.stamp]

    def _record(self, outcome: TileOutcome, result: StackResult, frames: tuple[FrameQuality, ...]) -> TileRecord:
        """Return what a stack says of its tile."""
        return replace(
            stack_record(self.spec, outcome, result, frames),
            signature=self.signature,
            frames_given=self.given,
            check_seconds=self.check_seconds,
        )


def _renamed(frames: Sequence[FrameQuality], paths: Sequence[Path]) -> tuple[FrameQuality, ...]:
    """Return the frames of an earlier run under the names that they have now: a night that was moved is reused."""
    now = {path.name: os.fspath(path) for path in paths}
    return tuple(replace(frame, name=now.get(Path(frame.name).name, frame.name)) for frame in frames)


def _outcome(result: StackResult) -> TileOutcome:
    """Return the outcome of a tile that was made."""
    if result.facts.used_gpu:
        return TileOutcome.DONE_GPU
    return TileOutcome.DONE_CPU_AFTER_GPU_FAILURE if result.facts.gpu_attempts else TileOutcome.DONE_CPU
