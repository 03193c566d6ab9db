"""The JSON report of a run; its fields are described in the documentation, "The report explained"."""

from __future__ import annotations

import json
import os
import platform
import socket
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zemosaic_stack_core.master.option_cards import ALGORITHM
from zemosaic_stack_core.system.atomic import atomic_output
from zemosaic_stack_core.system.memory import available_memory, usable_cores

if TYPE_CHECKING:
    from zemosaic_stack_core.phase3.night import Night, RunReport


# The number is raised whenever a field changes its meaning or goes.
SCHEMA = "zemosaic-run-report/1"


def report_json(night: Night, report: RunReport, inputs: Mapping[int, list[list[Any]]]) -> dict[str, Any]:
    """Return the report of a run as JSON values; `inputs` are the rows of `hashes_to_json` per tile."""
    from zemosaic_stack_core import __version__

    settings = night.settings
    return {
        "schema": SCHEMA,
        "program": "zemosaic-stack-core",
        "version": __version__,
        "algorithm": ALGORITHM,
        "started": report.started,
        "finished": report.finished,
        "seconds": report.seconds,
        "exit_code": report.exit_code,
        "interrupted": report.interrupted,
        "stopped": report.stopped,
        "output": os.fspath(night.output),
        "shard": None if night.shard is None else str(night.shard),
        "cluster": None if night.cluster is None else str(night.cluster),
        "backend": night.backend,
        "options": asdict(settings.options) | dict.fromkeys(sorted(settings.auto), "auto"),
        "settings": {
            "maps": list(settings.maps),
            "min_frames": settings.min_frames,
            "strict": settings.strict,
            "saturation": settings.saturation,
        },
        "machine": {
            "host": socket.gethostname(),
            "system": platform.platform(),
            "python": platform.python_version(),
            "cores": usable_cores(),
            "memory_bytes": available_memory()[0],
        },
        "gpu": {} if report.gpu is None else asdict(report.gpu),
        "counts": report.counts,
        "tiles": [{**record.to_json(), "inputs": inputs.get(record.tile_id, [])} for record in report.records],
    }


def write_json(path: Path, values: dict[str, Any]) -> Path:
    """Write a report, whole or not at all; raise OutputError where the system refuses."""
    with atomic_output(path, overwrite=True) as file:
        file.write(json.dumps(values, indent=1, allow_nan=False).encode("utf-8"))
        file.write(b"\n")
    return path
