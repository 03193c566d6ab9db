"""A run: all tiles of a plan into one folder, whatever happens on the way."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from zemosaic_stack_core.errors import ZemosaicError
from zemosaic_stack_core.gpu.phase3_gpu import Phase3Gpu
from zemosaic_stack_core.phase3.cluster import made_on_cluster
from zemosaic_stack_core.phase3.journal import Journal, earlier_runs, remove_journals
from zemosaic_stack_core.phase3.lock import OutputLock
from zemosaic_stack_core.phase3.make import make_tile, not_made
from zemosaic_stack_core.phase3.night import Night, RunProgress, RunReport
from zemosaic_stack_core.phase3.outcome import MadeTile, TileOutcome, TileRecord
from zemosaic_stack_core.phase3.plan import TileSpec
from zemosaic_stack_core.phase3.previews import PREVIEW_SIZE, TilePictures
from zemosaic_stack_core.stacking.telemetry import Telemetry
from zemosaic_stack_core.system.file_stamps import InputHashes

_LOGGER = logging.getLogger(__name__)
_PICTURE_BYTES = 24 * 1024 * 1024  # of a report's page, all pictures together
_BYTES_PER_PIXEL = 0.35  # of a picture pair in a page, measured on star fields


def run_night(
    night: Night,
    *,
    gpu: Phase3Gpu | None = None,
    progress: RunProgress | None = None,
    pcb_tile: Callable[..., Any] | None = None,
) -> RunReport:
    """Make every tile of a plan that can be made.

    Parameters
    ----------
    night : Night
        What to do.
    gpu : Phase3Gpu, optional
        State of the GPU for this run; default a new one, unless the backend is ``"cpu"``.
    progress : RunProgress, optional
        Is told what happens.
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


def _run_locked(
    night: Night,
    specs: Sequence[TileSpec],
    gpu: Phase3Gpu | None,
    progress: RunProgress | None,
    pcb_tile: Callable[..., Any] | None,
) -> RunReport:
    """Run while the folder is held."""
    began = time.perf_counter()
    started = _now()
    earlier = earlier_runs(night.output) if night.resume else earlier_runs(None)
    is_own = gpu is None
    if is_own and night.backend != "cpu" and night.cluster is None:
        gpu = Phase3Gpu(night.settings.limits, is_required=night.backend == "gpu")
        if night.backend == "gpu":
            gpu.may_try()  # without it, the run ends here
    size = preview_size(len(specs))
    telemetry = Telemetry(progress=None if progress is None else progress.rows, pcb_tile=pcb_tile)
    made: dict[int, MadeTile] = {}
    interrupted, stopped = False, ""
    if progress is not None:
        progress.begin(len(specs))
    with Journal(night.output, night.report_name) as journal:

        def local() -> Generator[MadeTile]:
            hashes = InputHashes(earlier.inputs)
            for spec in specs:
                if progress is not None:
                    progress.tile(spec)
                yield make_tile(
                    spec,
                    night.output,
                    night.settings,
                    gpu=gpu,
                    hashes=hashes,
                    resume=night.resume,
                    earlier=earlier.records.get(spec.tile_id),
                    preview_size=size,
                    telemetry=telemetry,
                )

        source = (
            local()
            if night.cluster is None
            else made_on_cluster(
                night.cluster,
                specs,
                night.output,
                night.settings,
                backend=night.backend,
                earlier=earlier,
                resume=night.resume,
                preview_size=size,
            )
        )
        try:
            for tile in source:
                made[tile.record.tile_id] = tile
                journal.add(tile)
                _tell_log(tile.record)
                if progress is not None:
                    progress.done(tile.record)
                if tile.stops_run:
                    stopped = tile.record.reason
                    break
        except KeyboardInterrupt:
            interrupted = True
        finally:
            source.close()
            if progress is not None:
                progress.end()
            if is_own and gpu is not None:
                gpu.close()
        why = "interrupted" if interrupted else f"the run stopped: {stopped}"
        rest = not_made([spec for spec in specs if spec.tile_id not in made], why)
        by_id = {record.tile_id: record for record in rest}
        records = tuple(made[s.tile_id].record if s.tile_id in made else by_id[s.tile_id] for s in specs)
        finished = RunReport(
            records=records,
            interrupted=interrupted,
            stopped=stopped,
            started=started,
            finished=_now(),
            seconds=time.perf_counter() - began,
            output=night.output,
            gpu=_gpu_facts(gpu),
        )
        return _write_reports(night, finished, made, journal)


def _tell_log(record: TileRecord) -> None:
    """Say of each dropped frame and of a failure why, one line each."""
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
    from zemosaic_stack_core.phase3.report.page import write_page

    values = report_json(night, report, {number: tile.inputs for number, tile in made.items()})
    pictures: dict[int, TilePictures] = {number: tile.pictures for number, tile in made.items()}
    try:
        json_path = write_json(night.output / f"{night.report_name}.json", values)
        journal.done()
        page_path = write_page(night.output / f"{night.report_name}.html", values, pictures)
    except ZemosaicError as error:
        _LOGGER.error("the report can't be written: %s", error)  # noqa: TRY400 - one line for the user
        return report
    return replace(report, json_path=json_path, page_path=page_path)


def preview_size(tiles: int) -> int:
    """Return the longest side of the pictures, so that the page of so many tiles stays of a size that opens."""
    affordable = (_PICTURE_BYTES / max(tiles, 1) / _BYTES_PER_PIXEL) ** 0.5
    return max(64, min(PREVIEW_SIZE, int(affordable)))


def _gpu_facts(gpu: Phase3Gpu | None) -> dict[str, Any]:
    """Return what the report says of the GPU."""
    if gpu is None:
        return {}
    memory = None if gpu.health is None else gpu.health.memory
    return {
        "device": "" if memory is None else memory.name,
        "hard_disabled": gpu.hard_disabled,
        "reason": gpu.reason,
        "attempts": gpu.attempts,
        "gpu_tiles": gpu.gpu_tiles,
        "cpu_tiles": gpu.cpu_tiles,
    }


def _now() -> str:
    """Return the time for the report."""
    return datetime.now(UTC).isoformat(timespec="seconds")
