"""A run: all tiles of a plan into one folder, whatever happens on the way."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from zemosaic_stack_core.errors import ZemosaicError
from zemosaic_stack_core.gpu.phase3_gpu import Phase3Gpu
from zemosaic_stack_core.phase3.cluster import make_on_cluster
from zemosaic_stack_core.phase3.journal import EarlierRuns, Journal, earlier_runs, remove_journals
from zemosaic_stack_core.phase3.lock import OutputLock
from zemosaic_stack_core.phase3.make import TileMaker
from zemosaic_stack_core.phase3.night import GpuUse, Night, RunProgress, RunReport
from zemosaic_stack_core.phase3.previews import PicturePlan
from zemosaic_stack_core.phase3.run_plan import TileSpec
from zemosaic_stack_core.phase3.tile_record import MadeTile, TileOutcome, TileRecord
from zemosaic_stack_core.stacking.telemetry import PcbTile, Telemetry
from zemosaic_stack_core.system.file_stamps import InputHashes

_LOGGER = logging.getLogger(__name__)


def run_night(
    night: Night,
    *,
    gpu: Phase3Gpu | None = None,
    progress: RunProgress | None = None,
    pcb_tile: PcbTile | None = None,
) -> RunReport:
    """Make every tile of a plan that can be made.

    Parameters
    ----------
    night : Night
        What to do.
    gpu : Phase3Gpu, optional
        State of the GPU for this run; default a new one, unless the backend is ``"cpu"``.
    progress : RunProgress, optional
        Called as the run goes on.
    pcb_tile : callable, optional
        Gets the telemetry of each tile, see `stack_auto`.

    Returns
    -------
    RunReport
        Also where tiles failed or the run was interrupted.

    Raises
    ------
    InvalidInputError
        Another run is at work in the folder.
    OutputError
        The folder can't be written.
    BackendUnavailableError
        The GPU or the cluster is required and can't be used.
    """
    specs = list(night.tiles) if night.shard is None else night.shard.take(night.tiles)
    with OutputLock(night.output, night.shard) as lock:
        lock.sweep()
        report = _run_locked(night, specs, gpu, progress, pcb_tile)
        lock.sweep()
        if report.json_path is not None and night.shard is None:
            remove_journals(night.output)
    return report


@dataclass(frozen=True)
class _Made:
    """The tiles that were made before a run ended, and how it ended."""

    # By number.
    tiles: dict[int, MadeTile]
    was_interrupted: bool = False
    # Why the run gave up; empty where it did not.
    stopped: str = ""

    def records(self, specs: Sequence[TileSpec]) -> tuple[TileRecord, ...]:
        """Return the record of every tile, in the plan's order."""
        why = "interrupted" if self.was_interrupted else f"the run stopped: {self.stopped}"
        return tuple(
            self.tiles[spec.tile_id].record
            if spec.tile_id in self.tiles
            else TileRecord.without_file(spec, TileOutcome.CANCELLED, why)
            for spec in specs
        )


def _run_locked(
    night: Night,
    specs: Sequence[TileSpec],
    gpu: Phase3Gpu | None,
    progress: RunProgress | None,
    pcb_tile: PcbTile | None,
) -> RunReport:
    """Run while the folder is held."""
    began = time.perf_counter()
    started = _now()
    earlier = earlier_runs(night.output if night.resume else None)
    own_gpu = _open_gpu(night) if gpu is None else None
    gpu = gpu or own_gpu
    maker = TileMaker(
        output=night.output,
        settings=night.settings,
        resume=night.resume,
        plan=PicturePlan.of_night(len(specs), max((len(spec.frames) for spec in specs), default=0)),
        gpu=gpu,
        hashes=InputHashes(earlier.inputs),
        telemetry=Telemetry(progress=None if progress is None else progress.rows, pcb_tile=pcb_tile),
    )
    if progress is not None:
        progress.begin(len(specs))
    with Journal(night.output, night.report_name) as journal:
        if night.cluster is None:
            tiles = _make_here(maker, specs, earlier, progress)
        else:
            tiles = make_on_cluster(night.cluster, maker, specs, earlier, backend=night.backend)
        try:
            made = _collect(tiles, journal, progress)
        finally:
            if progress is not None:
                progress.end()
            if own_gpu is not None:
                own_gpu.close()
        report = RunReport(
            records=made.records(specs),
            interrupted=made.was_interrupted,
            stopped=made.stopped,
            started=started,
            finished=_now(),
            seconds=time.perf_counter() - began,
            output=night.output,
            gpu=None if gpu is None else _gpu_use(gpu),
        )
        return _write_reports(night, report, made.tiles, journal)


def _open_gpu(night: Night) -> Phase3Gpu | None:
    """Return a new state of the GPU, None where no tile is made on one by this process; raise where it is required."""
    if night.backend == "cpu" or night.cluster is not None:
        return None
    gpu = Phase3Gpu(night.settings.limits, is_required=night.backend == "gpu")
    if gpu.is_required:
        gpu.may_try()
    return gpu


def _make_here(
    maker: TileMaker, specs: Sequence[TileSpec], earlier: EarlierRuns, progress: RunProgress | None
) -> Generator[MadeTile]:
    """Yield the tiles of a run, made by this process one after the other."""
    for spec in specs:
        if progress is not None:
            progress.tile(spec)
        yield maker.make(spec, earlier.records.get(spec.tile_id))


def _collect(tiles: Generator[MadeTile], journal: Journal, progress: RunProgress | None) -> _Made:
    """Make the tiles, write each into journal and log, and return them, up to an interruption or a full disk."""
    made: dict[int, MadeTile] = {}
    try:
        with closing(tiles):
            for tile in tiles:
                made[tile.record.tile_id] = tile
                journal.add(tile)
                _log(tile.record)
                if progress is not None:
                    progress.done(tile.record)
                if tile.stops_run:
                    return _Made(made, stopped=tile.record.reason)
    except KeyboardInterrupt:
        return _Made(made, was_interrupted=True)
    return _Made(made)


def _log(record: TileRecord) -> None:
    """Log why frames were dropped and why the tile failed, a line each."""
    if record.outcome is TileOutcome.REUSED:
        return
    for frame in record.dropped:
        _LOGGER.warning("tile %d: frame dropped: %s: %s", record.tile_id, _printable(frame.name), frame.reason)
    if record.outcome is TileOutcome.FAILED:
        _LOGGER.error("tile %d failed: %s", record.tile_id, _printable(record.reason))


def _printable(text: str) -> str:
    """Return text that stays on its line, whatever a file is called."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def _write_reports(night: Night, report: RunReport, made: dict[int, MadeTile], journal: Journal) -> RunReport:
    """Write the reports; a disk that is full costs the reports, not the run."""
    from zemosaic_stack_core.phase3.report.document import report_json, write_json
    from zemosaic_stack_core.phase3.report.page import earlier_pictures, write_page

    values = report_json(night, report, {number: tile.inputs for number, tile in made.items()})
    pictures = {number: tile.pictures for number, tile in made.items()}
    if any(record.outcome is TileOutcome.REUSED for record in report.records):
        earlier = earlier_pictures(night.output)
        pictures |= {
            record.tile_id: earlier[record.signature]
            for record in report.records
            if record.outcome is TileOutcome.REUSED and record.signature in earlier
        }
    try:
        json_path = write_json(night.output / f"{night.report_name}.json", values)
        journal.done()
        page_path = write_page(night.output / f"{night.report_name}.html", values, pictures)
    except ZemosaicError as error:
        _LOGGER.error("the report can't be written: %s", error)  # noqa: TRY400 - one line for the user
        return report
    return replace(report, json_path=json_path, page_path=page_path)


def _gpu_use(gpu: Phase3Gpu) -> GpuUse:
    """Return how the GPU fared."""
    memory = None if gpu.health is None else gpu.health.memory
    return GpuUse(
        device="" if memory is None else memory.name,
        hard_disabled=gpu.hard_disabled,
        reason=gpu.reason,
        attempts=gpu.attempts,
        gpu_tiles=gpu.gpu_tiles,
        cpu_tiles=gpu.cpu_tiles,
    )


def _now() -> str:
    """Return the time for the report."""
    return datetime.now(UTC).isoformat(timespec="seconds")
