"""A run: all tiles of a plan into one folder, whatever happens on the way."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from zemosaic_stack_core.errors import ZemosaicError
from zemosaic_stack_core.gpu.phase3_gpu import Phase3Gpu

from .cluster import ClusterChoice, made_on_cluster
from .journal import Journal, earlier_runs, remove_journals
from .lock import OutputLock
from .make import MadeTile, make_tile, not_made
from .outcome import TileOutcome, TileRecord
from .plan import Shard, TileSpec
from .previews import PREVIEW_SIZE, TilePictures
from .signature import InputHashes
from .tile import StackSettings

__all__ = ["Night", "RunProgress", "RunReport", "preview_size", "run_night"]

_LOGGER = logging.getLogger(__name__)
_PICTURE_BYTES = 24 * 1024 * 1024  # of a report's page, all pictures together
_BYTES_PER_PIXEL = 0.35  # of a picture pair in a page, measured on star fields


class RunProgress(Protocol):
    """What a run tells of its progress; every call comes from the run's own thread."""

    def begin(self, tiles: int) -> None:
        """Tell how many tiles there are."""
        ...

    def tile(self, spec: TileSpec) -> None:
        """Tell which tile is next."""
        ...

    def rows(self, done: int, total: int) -> None:
        """Tell how many rows of the tile are done."""
        ...

    def done(self, record: TileRecord) -> None:
        """Tell what became of a tile."""
        ...

    def end(self) -> None:
        """Tell that the last tile is done."""
        ...


@dataclass(frozen=True, kw_only=True)
class Night:
    """What a run is to do.

    Parameters
    ----------
    tiles : sequence of TileSpec
        The whole plan.
    output : Path
        The folder of the tiles and the reports.
    settings : StackSettings
        How the tiles are made.
    backend : {"auto", "cpu", "gpu"}
        Which backend makes them.
    resume : bool
        Reuse the tiles of earlier runs that are right.
    shard : Shard, optional
        Do only this part of the plan.
    cluster : ClusterChoice, optional
        Do it on a dask cluster.
    """

    tiles: Sequence[TileSpec]
    output: Path
    settings: StackSettings
    backend: str = "auto"
    resume: bool = True
    shard: Shard | None = None
    cluster: ClusterChoice | None = None

    @property
    def report_name(self) -> str:
        """Name of the reports, without ``.json`` and ``.html``."""
        return "report" if self.shard is None else f"report-{self.shard.index}-of-{self.shard.count}"


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """What a run did.

    Parameters
    ----------
    records : tuple of TileRecord
        One per tile of the plan (of the shard), in its order.
    interrupted : bool
        Somebody ended the run (Ctrl-C, SIGTERM).
    stopped : str
        Why the run gave up before its last tile; empty where it did not.
    started, finished : str
        ISO 8601, UTC.
    seconds : float
        Wall-clock time.
    output : Path
        The folder.
    json_path, page_path : Path or None
        The reports; None where they could not be written.
    """

    records: tuple[TileRecord, ...]
    interrupted: bool
    stopped: str
    started: str
    finished: str
    seconds: float
    output: Path
    json_path: Path | None = None
    page_path: Path | None = None
    gpu: dict[str, Any] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, int]:
        """Tiles of each outcome, those that occur."""
        found = Counter(record.outcome for record in self.records)
        return {outcome.value: found[outcome] for outcome in TileOutcome if found[outcome]}

    @property
    def exit_code(self) -> int:
        """0 all tiles are there; 1 some are not; 130 interrupted."""
        if self.interrupted:
            return 130
        return 0 if all(record.outcome.is_made for record in self.records) else 1


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
        gpu = Phase3Gpu(night.settings.plan, is_required=night.backend == "gpu")
        if night.backend == "gpu":
            gpu.may_try()  # without it, the run ends here
    size = preview_size(len(specs))
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
                    pcb_tile=pcb_tile,
                    progress=None if progress is None else progress.rows,
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
    from .report import report_json, write_json
    from .report_page import write_page

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
