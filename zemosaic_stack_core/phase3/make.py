"""Make one tile of a run, or find that it is there already; whatever goes wrong stays with the tile."""

from __future__ import annotations

import logging
import math
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from zemosaic_stack_core.errors import InvalidInputError, ZemosaicError
from zemosaic_stack_core.fits.cards import read_first_header
from zemosaic_stack_core.fits.stream import is_intact
from zemosaic_stack_core.frames.scratch import ScratchFolder
from zemosaic_stack_core.gpu.phase3_gpu import Phase3Gpu
from zemosaic_stack_core.master.read import read_master
from zemosaic_stack_core.phase3.outcome import DroppedFrame, FrameUse, MadeTile, TileOutcome, TileRecord
from zemosaic_stack_core.phase3.plan import PREPARED_FOLDER, TileSpec
from zemosaic_stack_core.phase3.previews import PREVIEW_SIZE, tile_pictures
from zemosaic_stack_core.phase3.raw_tile import choose_tile_frames, tile_is_raw
from zemosaic_stack_core.phase3.signature import tile_signature
from zemosaic_stack_core.phase3.tile import StackSettings, stack_frames, write_tile
from zemosaic_stack_core.phase3.watch import MemoryWatch
from zemosaic_stack_core.stacking.result import FrameRecord, StackResult
from zemosaic_stack_core.stacking.telemetry import QUIET, Telemetry
from zemosaic_stack_core.system.atomic import disk_is_full
from zemosaic_stack_core.system.file_stamps import HashedInput, InputHashes, file_stamp, hashes_to_json

_LOGGER = logging.getLogger(__name__)

#: What fails a tile alone. Not KeyboardInterrupt: that ends the run.
_FAILURES = (ZemosaicError, OSError, MemoryError, RuntimeError, ValueError, TypeError, LookupError, ArithmeticError)
_WORST = 5
_OLD = ".old"


def make_tile(
    spec: TileSpec,
    output: Path,
    settings: StackSettings,
    *,
    gpu: Phase3Gpu | None,
    hashes: InputHashes,
    resume: bool = True,
    earlier: TileRecord | None = None,
    preview_size: int = PREVIEW_SIZE,
    telemetry: Telemetry = QUIET,
) -> MadeTile:
    """Make a tile of a run, or reuse it.

    Parameters
    ----------
    spec : TileSpec
        What to make.
    output : Path
        The output folder.
    settings : StackSettings
        How.
    gpu : Phase3Gpu or None
        State of the run.
    hashes : InputHashes
        Of the run's inputs, as far as they are known.
    resume : bool
        Reuse a file that is right.
    earlier : TileRecord, optional
        What an earlier run said of this tile.
    preview_size : int
        Longest side of the report's pictures.
    telemetry : Telemetry
        Callbacks of the run.

    Returns
    -------
    MadeTile
        Also where the tile failed; only what is raised on purpose to end the run passes through.
    """
    began = time.perf_counter()
    started = datetime.now(UTC).isoformat(timespec="seconds")
    job = _Job(spec, output, settings, gpu, hashes, preview_size, telemetry)
    stops = False
    try:
        made = job.reuse(earlier) if resume else None
        made = made or job.make()
    except _FAILURES as error:
        stops = disk_is_full(error)
        made = MadeTile(record=job.failed(error), inputs=job.input_rows)
    record = replace(
        made.record,
        seconds=time.perf_counter() - began,
        started=started,
        worker=f"{socket.gethostname()} {os.getpid()}",
    )
    return replace(made, record=record, stops_run=stops)


class _Job:
    """One tile in work."""

    def __init__(
        self,
        spec: TileSpec,
        output: Path,
        settings: StackSettings,
        gpu: Phase3Gpu | None,
        hashes: InputHashes,
        preview_size: int,
        telemetry: Telemetry,
    ) -> None:
        self.spec, self.settings, self.gpu, self.hashes = spec, settings, gpu, hashes
        self.preview_size, self.telemetry = preview_size, replace(telemetry, tile_id=spec.tile_id)
        self.target = output / spec.file_name
        self.set_aside = output / (spec.file_name + _OLD)
        self.dropped: tuple[DroppedFrame, ...] = ()
        self.inputs: list[HashedInput] = []
        self.signature = ""
        self.check_seconds = 0.0
        self.given = len(spec.frames)

    @cached_property
    def is_raw(self) -> bool:
        """Whether the frames are to be prepared; their headers are looked at when the tile's turn has come."""
        return tile_is_raw(self.spec.frames, self.settings.raw_policy)

    @property
    def input_rows(self) -> list[list[Any]]:
        """The inputs as the report keeps them."""
        return hashes_to_json(self.spec.frames, self.inputs)

    def sign(self) -> None:
        """Hash the inputs and compute the signature."""
        began = time.perf_counter()
        self.inputs = self.hashes.look(self.spec.frames)
        settings = self.settings
        self.signature = tile_signature(
            self.spec.tile_id,
            self.inputs,
            settings.options,
            extra={"maps": sorted(settings.maps), "saturation": settings.saturation, **self._preparation()},
        )
        self.check_seconds += time.perf_counter() - began

    def _preparation(self) -> dict[str, Any]:
        """Return what the preparation of raw frames depends on; nothing of aligned ones."""
        policy = self.settings.raw_policy
        if not self.is_raw or policy is None:
            return {}
        options = policy.options
        named = [Path(path) for path in (*options.darks, *options.flats, *options.biases)]
        calibration = [item.sha256 for item in self.hashes.look(named)]
        plain = replace(options, darks=(), flats=(), biases=(), cache_limit=None)
        return {"prepare": repr(plain), "calibration": calibration, "levels": policy.normalization}

    def reuse(self, earlier: TileRecord | None) -> MadeTile | None:
        """Return the tile where its file is right, None where it has to be made."""
        if self.spec.problem or not (self.target.exists() or self.set_aside.exists()):
            return None
        self.sign()
        if not self.target.exists() and self._is_right(self.set_aside):
            self.set_aside.replace(self.target)
        if not self._is_right(self.target):
            return None
        self.given = int(read_first_header(self.target)["ZMT_NRAW"])
        master = read_master(self.target)
        record = self._record(TileOutcome.REUSED, master.result)
        if earlier is not None and earlier.signature == self.signature:
            record = replace(record, dropped=earlier.dropped, gpu_attempts=earlier.gpu_attempts)
        pictures = tile_pictures(master.result, self.preview_size)
        return MadeTile(record=record, inputs=self.input_rows, pictures=pictures)

    def _is_right(self, path: Path) -> bool:
        """Return whether a file is this tile, whole, and made of enough frames for this run."""
        header = read_first_header(path)
        if header.get("ZSC_SIGN") != self.signature:
            return False
        try:
            used, given = int(header["ZSC_NFRM"]), int(header["ZMT_NRAW"])
        except (KeyError, ValueError):
            return False
        enough = used >= self.settings.min_frames and not (self.settings.strict and used < given)
        return enough and is_intact(path)

    def make(self) -> MadeTile:
        """Stack the tile and write its file."""
        if self.spec.problem:
            raise InvalidInputError(self.spec.problem)
        if not self.spec.frames:
            raise InvalidInputError("no frames in the plan; expected at least one")
        self._refuse_foreign_file()
        if not self.signature:
            self.sign()
        watch = MemoryWatch()

        def progress(done: int, total: int) -> None:
            watch.look()
            if self.telemetry.progress is not None:
                self.telemetry.progress(done, total)

        for attempt in range(2):
            began = time.perf_counter()
            with ScratchFolder() as scratch:
                chosen = choose_tile_frames(
                    self.spec.frames,
                    self.settings,
                    is_raw=self.is_raw,
                    cache=self.target.parent / PREPARED_FOLDER,
                    scratch=scratch,
                )
                self.check_seconds += time.perf_counter() - began
                self.dropped, self.given = chosen.choice.dropped, chosen.given
                began = time.perf_counter()
                telemetry = replace(self.telemetry, progress=progress)
                tile = stack_frames(chosen.choice, chosen.settings, gpu=self.gpu, telemetry=telemetry)
                self.dropped = tile.dropped
            stacked = time.perf_counter()
            changed = self._changed_inputs()
            if not changed:
                break
            if attempt:
                raise InvalidInputError(f"{changed[0]}: changed while the tile was made; expected a file at rest")
            self.sign()
        write_tile(
            self.target,
            tile,
            tile_id=self.spec.tile_id,
            raw_frames=self.given,
            signature=self.signature,
            sha256={os.fspath(p): i.sha256 for p, i in zip(self.spec.frames, self.inputs, strict=True) if i.stamp},
            **chosen.extras,
            overwrite=True,
        )
        self.set_aside.unlink(missing_ok=True)
        watch.look(now=True)
        facts = tile.result.facts
        used_gpu, attempts = facts.used_gpu, facts.gpu_attempts
        outcome = (
            TileOutcome.DONE_GPU
            if used_gpu
            else TileOutcome.DONE_CPU_AFTER_GPU_FAILURE
            if attempts
            else TileOutcome.DONE_CPU
        )
        record = replace(
            self._record(outcome, tile.result),
            reason="" if used_gpu or not attempts else facts.fallback_reason,
            dropped=tile.dropped,
            gpu_attempts=attempts,
            check_seconds=self.check_seconds,
            stack_seconds=stacked - began,
            write_seconds=time.perf_counter() - stacked,
            peak_bytes=watch.peak,
            details={
                name: value
                for name, value in asdict(facts).items()
                if (isinstance(value, (int, str)) or (isinstance(value, float) and math.isfinite(value)))
                and name not in ("used_gpu", "gpu_attempts")
            }
            | chosen.facts,
        )
        return MadeTile(record=record, inputs=self.input_rows, pictures=tile_pictures(tile.result, self.preview_size))

    def _refuse_foreign_file(self) -> None:
        """Raise where a file of this name was made by somebody else."""
        header = read_first_header(self.target)
        if header.cards and "ZSC_ALGO" not in header:
            raise InvalidInputError(f"{self.target}: not written by this program; expected a free name in the folder")

    def _changed_inputs(self) -> list[Path]:
        """Return the inputs that are not what was hashed."""
        pairs = zip(self.spec.frames, self.inputs, strict=True)
        return [path for path, item in pairs if file_stamp(path) != item.stamp]

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
        return TileRecord(
            tile_id=self.spec.tile_id,
            name=self.spec.name,
            outcome=TileOutcome.FAILED,
            reason=reason,
            signature=self.signature,
            frames_given=len(self.spec.frames),
            dropped=self.dropped,
            check_seconds=self.check_seconds,
        )

    def _record(self, outcome: TileOutcome, result: StackResult) -> TileRecord:
        """Return what a stack says of its tile."""
        shape = result.image.shape
        pixels = int(np.prod(shape[:2]))
        channels = shape[2] if len(shape) == 3 else 1
        samples = len(result.frames) * pixels * channels
        present = samples - sum(sum(frame.missing) for frame in result.frames)
        uses = sorted(
            (_use(frame, pixels) for frame in result.frames), key=lambda use: -(use.rejected_low + use.rejected_high)
        )
        coverage = result.coverage
        return TileRecord(
            tile_id=self.spec.tile_id,
            name=self.spec.name,
            outcome=outcome,
            file=self.spec.file_name,
            signature=self.signature,
            shape=tuple(shape),
            frames_given=self.given,
            frames_used=len(result.frames),
            rejected_low=_percent(sum(sum(frame.rejected_low) for frame in result.frames), present),
            rejected_high=_percent(sum(sum(frame.rejected_high) for frame in result.frames), present),
            coverage_min=0 if coverage is None else int(coverage.min(initial=0)),
            coverage_max=0 if coverage is None else int(coverage.max(initial=0)),
            empty_pixels=_percent(int(np.count_nonzero(~np.isfinite(result.image))), pixels * channels),
            worst_frames=tuple(uses[:_WORST]),
            backend=result.backend,
            check_seconds=self.check_seconds,
            samples=samples,
        )


def _use(frame: FrameRecord, pixels: int) -> FrameUse:
    """Return how a frame fared."""
    channels = len(frame.missing)
    missing = sum(frame.missing)
    present = pixels * channels - missing
    return FrameUse(
        name=frame.name,
        rejected_low=_percent(sum(frame.rejected_low), present),
        rejected_high=_percent(sum(frame.rejected_high), present),
        missing=_percent(missing, pixels * channels),
        weight=float(np.mean(frame.weight)) if frame.weight else 1.0,
        note=frame.note,
    )


def _percent(part: int, whole: int) -> float:
    """Return a part in percent; 0 of nothing."""
    return 100.0 * part / whole if whole else 0.0


def not_made(specs: Sequence[TileSpec], reason: str) -> list[TileRecord]:
    """Return the records of tiles that a run did not come to."""
    return [
        TileRecord(
            tile_id=spec.tile_id,
            name=spec.name,
            outcome=TileOutcome.CANCELLED,
            reason=reason,
            frames_given=len(spec.frames),
        )
        for spec in specs
    ]
