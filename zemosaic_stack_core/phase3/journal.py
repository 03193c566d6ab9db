"""What a run has done so far, a line for each tile, so that a killed run leaves its knowledge to the next one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from zemosaic_stack_core.errors import OutputError
from zemosaic_stack_core.phase3.lock import LOCK_NAME
from zemosaic_stack_core.phase3.tile_record import TileRecord
from zemosaic_stack_core.system.file_stamps import HashedInput, hashes_from_json

if TYPE_CHECKING:
    from zemosaic_stack_core.phase3.tile_record import MadeTile


@dataclass(frozen=True)
class EarlierRuns:
    """What earlier runs in a folder knew."""

    # By name.
    inputs: dict[str, HashedInput] = field(default_factory=dict)
    # Of tiles, by number.
    records: dict[int, TileRecord] = field(default_factory=dict)


class Journal:
    """A file of one JSON line per tile, there only while a run is; `name` is that of the run's report."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / f"{LOCK_NAME}.{name}.journal"
        self._file: TextIOWrapper | None = None

    def __enter__(self) -> Self:
        # Appended to: until the next report is written, the lines of a killed run are all that is known of its tiles.
        try:
            self._file = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{self.path}: {error.strerror}; expected a folder that can be written") from error
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is None:
            return
        with suppress(OSError):  # the last lines had no room: their tiles are looked at again
            self._file.close()
        self._file = None
        with suppress(OSError):
            if self.path.stat().st_size == 0:
                self.path.unlink()

    def add(self, tile: MadeTile) -> None:
        """Keep what is known of a tile; a full disk costs no more than that."""
        if self._file is None:
            return
        try:
            self._file.write("\n" + json.dumps({"tile": tile.record.to_json(), "inputs": tile.inputs}) + "\n")
            self._file.flush()
        except OSError:
            return

    def done(self) -> None:
        """Remove the journal: the report says it all."""
        self.__exit__()
        self.path.unlink(missing_ok=True)


def remove_journals(folder: Path) -> None:
    """Remove the journals of killed runs, after a report of the whole plan has taken their knowledge over."""
    for path in folder.glob(f"{LOCK_NAME}.*.journal"):
        path.unlink(missing_ok=True)


def earlier_runs(folder: Path | None) -> EarlierRuns:
    """Return what the reports and journals in an output folder say, as far as they can be read; nothing of None."""
    found = EarlierRuns()
    if folder is None:
        return found
    reports = sorted(folder.glob("report*.json"))
    journals = sorted(folder.glob(f"{LOCK_NAME}.*.journal"))
    for path in sorted([*reports, *journals], key=_age):
        for entry in _entries(path):
            try:
                inputs = hashes_from_json(entry.get("inputs", []))
                record = TileRecord.from_json(entry["tile"])
            except (KeyError, TypeError, ValueError, AttributeError):
                continue
            found.inputs.update(inputs)
            if record.outcome.is_made:
                found.records[record.tile_id] = record
    return found


def _age(path: Path) -> int:
    """Return when a file was written, for putting the newest last."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the tiles in a report or a journal, each with its inputs."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return
    if path.suffix == ".journal":
        for line in text.splitlines():
            try:
                entry = json.loads(line)
            except ValueError:  # the line that the process died in
                continue
            if isinstance(entry, dict):
                yield entry
        return
    try:
        tiles = json.loads(text)["tiles"]
    except (ValueError, KeyError, TypeError):
        return
    for tile in tiles if isinstance(tiles, list) else []:
        if isinstance(tile, dict):
            inputs = tile.pop("inputs", [])
            yield {"tile": tile, "inputs": inputs}
