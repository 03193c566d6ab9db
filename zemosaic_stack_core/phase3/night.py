"""Records of a night: what to run, what came out, how far it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from zemosaic_stack_core.phase3.cluster import ClusterChoice
from zemosaic_stack_core.phase3.run_plan import Shard, TileSpec
from zemosaic_stack_core.phase3.tile import StackSettings
from zemosaic_stack_core.phase3.tile_record import TileOutcome, TileRecord


class RunProgress(Protocol):
    """What a run tells of its progress; every call comes from the run's own thread."""

    def begin(self, tiles: int) -> None:
        """Begin with so many tiles."""
        ...

    def tile(self, spec: TileSpec) -> None:
        """Begin a tile."""
        ...

    def rows(self, done: int, total: int) -> None:
        """Note how many rows of the tile are done."""
        ...

    def done(self, record: TileRecord) -> None:
        """Note what became of a tile."""
        ...

    def end(self) -> None:
        """End: the last tile is done."""
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
class GpuUse:
    """How the GPU fared in a run; its fields are those of the report."""

    # Name of the device; empty where it is not known.
    device: str
    # The GPU is off for the rest of the run, for this reason.
    hard_disabled: bool
    reason: str
    # Stacks that were started on it.
    attempts: int
    gpu_tiles: int
    cpu_tiles: int


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
    gpu : GpuUse or None
        How the GPU fared; None where this process had none.
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
    gpu: GpuUse | None = None

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
