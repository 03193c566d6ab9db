"""The page of a run, ``report.html``: one file that opens in any browser and asks for nothing else."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zemosaic_stack_core.options import StackOptions
from zemosaic_stack_core.phase3.previews import TilePictures
from zemosaic_stack_core.phase3.report.charts import Chart, Series
from zemosaic_stack_core.phase3.tile_record import TileOutcome
from zemosaic_stack_core.system.atomic import atomic_output
from zemosaic_stack_core.system.quantities import percent_text, size_text, time_text

if TYPE_CHECKING:
    from jinja2 import Environment

OUTCOME_WORDS = {
    TileOutcome.DONE_GPU: "GPU",
    TileOutcome.DONE_CPU: "CPU",
    TileOutcome.DONE_CPU_AFTER_GPU_FAILURE: "CPU after GPU failure",
    TileOutcome.REUSED: "reused",
    TileOutcome.FAILED: "failed",
    TileOutcome.CANCELLED: "not made",
}
# Lines and frames of a tile in the page; the JSON report has all.
_MOST_PROBLEMS = 200
_MOST_FRAMES = 40
# Options that are shown even where they were left as they are.
_SHOWN = ("rejection", "kappa_low", "kappa_high", "normalization", "weighting", "combine", "reference")

Json = Mapping[str, Any]


def write_page(path: Path, report: Json, pictures: Mapping[int, TilePictures]) -> Path:
    """Write the page of a run, whole or not at all: the report as `report_json` returns it, pictures by tile number.

    Raises OutputError where the system refuses.
    """
    tiles = report["tiles"]
    charts = _charts(tiles)
    options, defaults = _options(report)
    page = _environment().get_template("report.html.jinja")
    stream = page.stream(
        report=report,
        pictures=pictures,
        night=Path(report["output"]).resolve().name or report["output"],
        status=_status(report),
        facts=_facts(report),
        problems=_problems(report),
        losses=_losses(tiles),
        charts=charts,
        chart_data=_chart_data(tiles, charts),
        options=options,
        defaults=defaults,
        machine=_machine(report),
    )
    stream.enable_buffering(200)
    with atomic_output(path, overwrite=True) as file:
        stream.dump(file, encoding="utf-8", errors="replace")  # a name may be no text
    return path


@cache
def _environment() -> Environment:
    """Return how templates are read, which keeps them compiled: what they show is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # 50 ms that only a report needs

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "basename": os.path.basename,
        "duration": time_text,
        "moment": _moment,
        "number": _number,
        "setting": _setting,
        "size": size_text,
    }
    environment.globals |= {
        "is_made": _is_made,
        "most_frames": _MOST_FRAMES,
        "most_problems": _MOST_PROBLEMS,
        "no_pictures": TilePictures(),
        "outcome_words": OUTCOME_WORDS,
        "words_of": _words_of,
    }
    return environment


def _is_made(tile: Json) -> bool:
    """Return whether a tile is there."""
    return TileOutcome(tile["outcome"]).is_made


def _status(report: Json) -> dict[str, str]:
    """Return the line beside the title, and its kind: a class of the style."""
    total = len(report["tiles"])
    made = sum(map(_is_made, report["tiles"]))
    if report["interrupted"]:
        return {"text": f"interrupted: {made} of {total} tiles", "kind": "halted"}
    if made == total:
        return {"text": "the tile is there" if total == 1 else f"all {total} tiles are there", "kind": ""}
    return {"text": f"{total - made} of {total} tiles {'is' if total - made == 1 else 'are'} missing", "kind": "bad"}


def _facts(report: Json) -> dict[str, str]:
    """Return the figures at the top."""
    tiles = report["tiles"]
    fresh = [tile for tile in tiles if tile["stack_seconds"] > 0.0]
    samples, seconds = (sum(tile[key] for tile in fresh) for key in ("samples", "stack_seconds"))
    weight = sum(tile["samples"] for tile in tiles)
    rejected = sum((tile["rejected_low"] + tile["rejected_high"]) * tile["samples"] for tile in tiles) / max(weight, 1)
    peak = max((tile["peak_bytes"] for tile in tiles), default=0)
    return {
        "tiles": f"{sum(map(_is_made, tiles))} / {len(tiles)}",
        "frames stacked": f"{sum(tile['frames_used'] for tile in tiles):,}",
        "frames dropped": f"{sum(len(tile['dropped']) for tile in tiles):,}",
        "samples rejected": percent_text(rejected),
        "wall clock": time_text(report["seconds"]),
        "samples stacked": f"{samples / seconds / 1e6:.0f} M/s" if seconds > 0.0 else "-",
        "peak memory": size_text(peak) if peak else "-",
        "GPU": _gpu_words(report["gpu"], report["backend"]),
    }


def _gpu_words(gpu: Json, backend: str) -> str:
    """Return what became of the GPU."""
    if backend == "cpu":
        return "off"
    if not gpu:
        return "per worker"
    if gpu["hard_disabled"]:
        return "switched off"
    return "used" if gpu["gpu_tiles"] else "not used"


def _problems(report: Json) -> list[str]:
    """Return what went wrong, a line each."""
    lines = [f"The run stopped: {report['stopped']}"] if report["stopped"] else []
    lines += [
        f"Tile {tile['tile_id']} ({tile['name']}) failed: {tile['reason']}"
        for tile in report["tiles"]
        if tile["outcome"] == TileOutcome.FAILED
    ]
    gpu = report["gpu"]
    if gpu and gpu["hard_disabled"]:
        lines.append(f"GPU switched off for this run: {gpu['reason']}")
    return lines


def _losses(tiles: list[Json]) -> list[str]:
    """Return what was made of less, a line each."""
    return [
        f"Tile {tile['tile_id']} ({tile['name']}) is without {len(tile['dropped'])} of {tile['frames_given']} frames"
        for tile in tiles
        if tile["dropped"] and _is_made(tile)
    ]


def _charts(tiles: list[Json]) -> list[Chart]:
    """Return the charts over the run."""
    labels = [str(tile["tile_id"]) for tile in tiles]

    def series(label: str, color: str, key: str, factor: float = 1.0) -> Series:
        return Series(label, color, [float(tile[key]) * factor for tile in tiles])

    other = [
        max(0.0, tile["seconds"] - tile["check_seconds"] - tile["stack_seconds"] - tile["write_seconds"])
        for tile in tiles
    ]
    dropped = [float(len(tile["dropped"])) for tile in tiles]
    times = [
        series("stack", "#5fa8e8", "stack_seconds"),
        series("check and hash", "#57c2a4", "check_seconds"),
        series("write", "#eeb45c", "write_seconds"),
        Series("other", "#56627a", other),
    ]
    rejected = [series("low", "#5fa8e8", "rejected_low"), series("high", "#f08a6a", "rejected_high")]
    frames = [series("stacked", "#57c2a4", "frames_used"), Series("dropped", "#f0707a", dropped)]
    memory = [series("process and workers", "#a893f5", "peak_bytes", 1e-6)]
    return [
        Chart("Time", "s", labels, times),
        Chart("Rejected samples", "%", labels, rejected),
        Chart("Frames", "frames", labels, frames),
        Chart("Peak memory", "MB", labels, memory),
    ]


def _chart_data(tiles: list[Json], charts: list[Chart]) -> Json:
    """Return the numbers that the script shows under the pointer."""
    return {
        "labels": [f"tile {tile['tile_id']} {tile['name']}" for tile in tiles],
        "charts": [
            [[one.label, [float(f"{value:.4g}") for value in one.values]] for one in chart.series] for chart in charts
        ],
    }


def _words_of(tile: Json) -> str:
    """Return the text in which the page's search looks."""
    names = [frame["name"] for frame in tile["dropped"][:_MOST_FRAMES]]
    return " ".join([tile["name"], tile["file"], tile["reason"], *names]).lower()


def _options(report: Json) -> tuple[Json, Json]:
    """Return the options that were chosen, with the settings of the run, and those left as they are."""
    options, defaults = report["options"], asdict(StackOptions())
    chosen = {name: value for name, value in options.items() if name in _SHOWN or value != defaults.get(name)}
    left = {name: value for name, value in options.items() if name not in chosen}
    return {**chosen, **report["settings"]}, left


def _machine(report: Json) -> Json:
    """Return the machine, and its GPU."""
    machine = dict(report["machine"], memory=size_text(report["machine"]["memory_bytes"]))
    del machine["memory_bytes"]
    return {**machine, **report["gpu"]}


def _moment(text: str) -> str:
    """Return a time of the report without what every reader knows."""
    return text.replace("T", " ").removesuffix("+00:00")


def _number(value: float | None, how: str) -> str:
    """Return a number as text, a dash where it is unknown."""
    return "-" if value is None else format(value, how)


def _setting(value: Any) -> str:
    """Return a setting as text."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return "-" if value is None or value == "" else str(value)
