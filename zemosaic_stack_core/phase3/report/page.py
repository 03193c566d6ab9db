"""The page of a run, ``report.html``: one file that opens in any browser and asks for nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from zemosaic_stack_core.kernel.rules.centered import MAD_TO_SIGMA
from zemosaic_stack_core.options import StackOptions
from zemosaic_stack_core.phase3.previews import TilePictures
from zemosaic_stack_core.phase3.report.charts import Chart, Series
from zemosaic_stack_core.phase3.tile_record import TileOutcome
from zemosaic_stack_core.system.atomic import atomic_output
from zemosaic_stack_core.system.quantities import count_text, percent_text, size_text, time_text

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
# Lines in the page; the JSON report has all.
_MOST_PROBLEMS = 200
# What is shown of a frame: field of `FrameQuality`, title, unit, decimals (None: four digits), whether it is drawn, and
# whether it has a column in the table.
_COLUMNS = (
    ("fwhm", "FWHM", "px", 2, True, True),
    ("roundness", "Roundness", "", 2, True, True),
    ("stars", "Stars", "", 0, True, True),
    ("sky", "Sky", "input units", None, True, True),
    ("noise", "Noise", "input units", None, True, True),
    ("transparency", "Transparency", "%", 0, True, True),
    ("weight", "Weight", "", 3, True, True),
    ("rejected_low", "Rejected low", "%", 2, False, True),
    ("rejected_high", "Rejected high", "%", 2, False, True),
    ("missing", "Missing", "%", 1, False, True),
    ("exposure", "Exposure", "s", None, False, False),
    ("shift_x", "Shift in x", "px", 2, False, False),
    ("shift_y", "Shift in y", "px", 2, False, False),
    ("rotation", "Rotation", "\u00b0", 2, False, False),
    ("residual", "Residual", "px", 2, False, False),
)
# Of these, which way is worse, and how far from the median of the stacked frames one must be to stand out: so many of
# their spreads and, besides, this part of the median, or so much where it is a percentage.
_WORSE = {"fwhm": 1, "roundness": -1, "stars": -1, "sky": 1, "noise": 1, "transparency": -1}
_WORSE |= {"rejected_low": 1, "rejected_high": 1}
_SPREADS, _PART, _PERCENT = 5.0, 0.15, 0.5
# Frames that tell what is usual.
_FEWEST = 6
_COLUMN_FIELDS = ("key", "title", "unit", "digits", "drawn", "listed")
# Fields whose name is not what people call it.
_WORDS = {
    "maps": "maps in each file",
    "min_frames": "fewest frames of a tile",
    "strict": "a bad frame fails its tile",
    "saturation": "saturation level",
    "kappa_low": "kappa, low side",
    "kappa_high": "kappa, high side",
    "host": "computer",
    "python": "Python",
    "hard_disabled": "GPU switched off for the run",
    "attempts": "stacks started on the GPU",
    "gpu_tiles": "tiles made on the GPU",
    "cpu_tiles": "tiles made on the CPU",
    "device": "GPU",
    "reason": "why no GPU",
}
# What the table says of a frame that a list named.
_ASKED = "left out of this run, as asked"
# Steps of a tile that are timed.
_STEPS = (("check_seconds", "looking and hashing"), ("stack_seconds", "stacking"), ("write_seconds", "writing"))
# In front of the numbers and pictures in a page, by which a later run finds them again.
_DATA_MARK = '<script type="application/json" id="data">'
# Options that are shown even where they were left as they are.
_SHOWN = ("rejection", "kappa_low", "kappa_high", "normalization", "weighting", "combine", "reference")

Json = Mapping[str, Any]


def write_page(path: Path, report: Json, pictures: Mapping[int, TilePictures], *, overwrite: bool = True) -> Path:
    """Write the page of a run, whole or not at all: the report as `report_json` returns it, pictures by tile number.

    Raises OutputError where the system refuses.
    """
    charts = _charts(report["tiles"])
    options, defaults = _options(report)
    page = _environment().get_template("report.html.jinja")
    stream = page.stream(
        report=report,
        title=_title(report),
        status=_status(report),
        facts=_facts(report),
        problems=_problems(report),
        losses=_losses(report["tiles"]),
        charts=charts,
        data=_data(report, charts, pictures),
        options=options,
        defaults=defaults,
        machine=_machine(report),
    )
    stream.enable_buffering(200)
    with atomic_output(path, overwrite=overwrite) as file:
        stream.dump(file, encoding="utf-8", errors="replace")  # a name may be no text
    return path


def earlier_pictures(folder: Path) -> dict[str, TilePictures]:
    """Return the pictures in the pages of an output folder by the signature of their tile, as far as they are there."""
    found: dict[str, TilePictures] = {}
    for path in sorted(folder.glob("report*.html")):
        with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):  # another program's page
            text = path.read_text(encoding="utf-8").partition(_DATA_MARK)[2].partition("</script>")[0]
            for tile in json.loads(text)["tiles"]:
                pictures = dict(tile["pictures"])
                pictures["frames"] = {int(place): picture for place, picture in pictures["frames"].items()}
                found[tile["signature"]] = TilePictures(**pictures)
    return found


@cache
def _environment() -> Environment:
    """Return how templates are read, which keeps them compiled: what they show is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # 50 ms that only a report needs
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "duration": time_text,
        "moment": _moment,
        "number": format,
        "setting": _setting,
        "words": _words,
    }
    environment.globals |= {
        "data_mark": Markup(_DATA_MARK),  # noqa: S704 - written here
        "is_made": _is_made,
        "most_problems": _MOST_PROBLEMS,
        "outcome_words": OUTCOME_WORDS,
        "words_of": _words_of,
    }
    return environment


def _is_made(tile: Json) -> bool:
    """Return whether a tile is there."""
    return TileOutcome(tile["outcome"]).is_made


def _title(report: Json) -> str:
    """Return what the page is about: the name of the output's folder."""
    return Path(report["output"]).resolve().name or report["output"]


def _status(report: Json) -> dict[str, str]:
    """Return the line beside the title, and its kind: a class of the style."""
    total = len(report["tiles"])
    made = sum(map(_is_made, report["tiles"]))
    if report["interrupted"]:
        return {"text": f"interrupted: {made} of {total} tiles", "kind": "halted"}
    if made == total:
        return {"text": "the master is there" if total == 1 else f"all {total} tiles are there", "kind": ""}
    return {"text": f"{total - made} of {total} tiles {'is' if total - made == 1 else 'are'} missing", "kind": "bad"}


def _facts(report: Json) -> dict[str, str]:
    """Return the figures at the top."""
    tiles = report["tiles"]
    fresh = [tile for tile in tiles if tile["stack_seconds"] > 0.0]
    samples, seconds = (sum(tile[key] for tile in fresh) for key in ("samples", "stack_seconds"))
    weight = sum(tile["samples"] for tile in tiles)
    rejected = sum((tile["rejected_low"] + tile["rejected_high"]) * tile["samples"] for tile in tiles) / max(weight, 1)
    peak = max((tile["peak_bytes"] for tile in tiles), default=0)
    facts = {
        "tiles": f"{sum(map(_is_made, tiles))} / {len(tiles)}",
        "frames stacked": f"{sum(tile['frames_used'] for tile in tiles):,}",
        "frames dropped": f"{sum(len(tile['dropped']) for tile in tiles):,}",
        "samples rejected": percent_text(rejected),
        "time taken": time_text(report["seconds"]),
        "samples stacked": f"{samples / seconds / 1e6:.0f} M/s" if seconds > 0.0 else "-",
        "peak memory": size_text(peak) if peak else "-",
        "GPU": _gpu_words(report["gpu"], report["backend"]),
    }
    if len(tiles) == 1:
        del facts["tiles"]
    return {name: value for name, value in facts.items() if value != "-"}


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
        f"{_named(tile, tiles)} is without {len(tile['dropped'])} of {tile['frames_given']} frames"
        for tile in tiles
        if tile["dropped"] and _is_made(tile)
    ] + [
        f"{_named(tile, tiles)}: {count_text(len(tile['excluded']), 'frame')} left out as asked"
        for tile in tiles
        if tile["excluded"]
    ]


def _named(tile: Json, tiles: list[Json]) -> str:
    """Return what a tile is called in a sentence."""
    return f"Tile {tile['tile_id']} ({tile['name']})" if len(tiles) > 1 else tile["name"]


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
        series("stack", "var(--blue)", "stack_seconds"),
        series("check and hash", "var(--green)", "check_seconds"),
        series("write", "var(--amber)", "write_seconds"),
        Series("pictures and other", "var(--gray)", other),
    ]
    rejected = [series("low", "var(--blue)", "rejected_low"), series("high", "var(--orange)", "rejected_high")]
    frames = [series("stacked", "var(--green)", "frames_used"), Series("dropped", "var(--red)", dropped)]
    memory = [series("process and workers", "var(--violet)", "peak_bytes", 1e-6)]
    return [
        Chart("Time", "s", labels, times),
        Chart("Rejected samples", "%", labels, rejected),
        Chart("Frames", "frames", labels, frames),
        Chart("Peak memory", "MB", labels, memory),
    ]


def _data(report: Json, charts: list[Chart], pictures: Mapping[int, TilePictures]) -> Json:
    """Return the numbers and pictures that the script shows."""
    tiles = report["tiles"]
    return {
        "output": report["output"],
        "started": report["started"],
        "elsewhere": report.get("elsewhere", "report.json"),
        "excluded": sorted({name for tile in tiles for name in tile["excluded"]}),
        "columns": [dict(zip(_COLUMN_FIELDS, column, strict=True)) for column in _COLUMNS],
        "tiles": [_tile_data(tile, pictures.get(tile["tile_id"], TilePictures())) for tile in tiles],
        "labels": [f"tile {tile['tile_id']} {tile['name']}" for tile in tiles],
        "charts": [
            [[one.label, [float(f"{value:.4g}") for value in one.values]] for one in chart.series] for chart in charts
        ],
    }


def _tile_data(tile: Json, pictures: TilePictures) -> Json:
    """Return what the script shows of a tile."""
    frames = [*tile["frames"], *({"name": name, "note": _ASKED} for name in tile["excluded"])]
    folder, names = _split_names([frame["name"] for frame in frames])
    columns = {key: [_rounded(frame.get(key)) for frame in frames] for key, *_ in _COLUMNS}
    columns = {key: values for key, values in columns.items() if any(value is not None for value in values)}
    return {
        "id": tile["tile_id"],
        "name": tile["name"],
        "signature": tile["signature"],
        "outcome": OUTCOME_WORDS[TileOutcome(tile["outcome"])],
        "reason": tile["reason"],
        "facts": list(_tile_facts(tile)),
        "coverage": [tile["coverage_min"], tile["coverage_max"]],
        "folder": folder,
        "names": names,
        "dates": [_seconds(frame.get("date", "")) for frame in frames],
        "dropped": [frame.get("dropped", "") for frame in frames],
        "notes": [frame.get("note", "") for frame in frames],
        "numbers": columns,
        "standing_out": dict(_standing_out(columns, [bool(frame.get("dropped")) for frame in frames])),
        "pictures": asdict(pictures),
    }


def _standing_out(
    columns: Mapping[str, Sequence[float | None]], is_dropped: Sequence[bool]
) -> Iterator[tuple[str, Json]]:
    """Yield, of each column that has some, the places of the stacked frames that are far worse, and the median."""
    for key in _WORSE.keys() & columns.keys():
        stacked = {
            place: value
            for place, (value, dropped) in enumerate(zip(columns[key], is_dropped, strict=True))
            if value is not None and not dropped
        }
        if len(stacked) < _FEWEST:
            continue
        usual = median(stacked.values())
        spread = MAD_TO_SIGMA * median(abs(value - usual) for value in stacked.values())
        limit = max(_SPREADS * spread, _PERCENT if key.startswith("rejected") else _PART * abs(usual))
        found = [place for place, value in stacked.items() if _WORSE[key] * (value - usual) > limit]
        if found:
            yield key, {"places": found, "median": _rounded(usual)}


def _split_names(names: Sequence[str]) -> tuple[str, list[str]]:
    """Return the folder that all names begin with, and what is left of each: thousands of names share it."""
    folder = ""
    with suppress(ValueError):  # no names, or names on two drives
        folder = os.path.commonpath([os.path.dirname(name) for name in names])  # noqa: PTH120 - names stay text
    start = os.path.join(folder, "")  # noqa: PTH118 - the same, with its separator
    return start, [name.removeprefix(start) for name in names]


def _rounded(value: float | None) -> float | int | None:
    """Return a number to four digits, which take less room; a whole one without a point."""
    short = None if value is None else float(f"{value:.4g}")
    return int(short) if short is not None and short.is_integer() else short


def _seconds(text: str) -> int | None:
    """Return a date as whole seconds of UTC since 1970, None where it is unknown."""
    with suppress(ValueError):
        moment = datetime.fromisoformat(text)
        return round(moment.replace(tzinfo=UTC).timestamp())  # as the dates of FITS are
    return None


def _tile_facts(tile: Json) -> Iterator[tuple[str, str]]:
    """Yield how a tile was made: what, and how much in its unit."""
    yield "frames stacked", f"{tile['frames_used']} of {tile['frames_given']}"
    if _is_made(tile):
        yield (
            "samples rejected",
            f"{percent_text(tile['rejected_low'])} low, {percent_text(tile['rejected_high'])} high",
        )
        yield "samples combined at a pixel", f"{tile['coverage_min']} to {tile['coverage_max']}"
        yield "pixels without a value", percent_text(tile["empty_pixels"])
        yield "size", " x ".join(map(str, tile["shape"][:2])) + " pixels" + ", color" * (len(tile["shape"]) > 2)
        yield "file", tile["file"]
    for line in tile["details"].get("chosen", ()):
        option, _, choice = line.partition(" ")
        yield option, choice
    if tile["details"].get("advice"):
        yield "advice", tile["details"]["advice"]
    prepared = tile["details"].get("prepared")
    if prepared:
        yield "registered by", f"{prepared['alignment']}: {prepared['why']}"
        calibration = ", ".join(f"{count} {kind}" for kind, count in prepared["calibration"].items() if count)
        yield "calibrated with", calibration or "nothing"
    if tile["backend"]:
        words: dict[str, str] = {"numpy": "the CPU", "cupy": "the GPU"}
        yield "computed by", words.get(tile["backend"], str(tile["backend"]))
    if tile["gpu_attempts"]:
        yield "stacks started on the GPU", str(tile["gpu_attempts"])
    if tile["stack_seconds"]:
        parts = (f"{time_text(tile[key])} {word}" for key, word in _STEPS if tile[key])
        yield "time", f"{time_text(tile['seconds'])}: {', '.join(parts)}"
    if tile["peak_bytes"]:
        yield "peak memory", size_text(tile["peak_bytes"])


def _words_of(tile: Json) -> str:
    """Return the text in which the page's search looks."""
    return " ".join([tile["name"], tile["file"], tile["reason"]]).lower()


def _options(report: Json) -> tuple[Json, Json]:
    """Return the options that were chosen, with the settings of the run, and those left as they are."""
    options, defaults = report["options"], asdict(StackOptions())
    chosen = {name: value for name, value in options.items() if name in _SHOWN or value != defaults.get(name)}
    left = {name: value for name, value in options.items() if name not in chosen}
    settings = {name: value for name, value in report["settings"].items() if value is not None}
    return {**chosen, **settings}, left


def _machine(report: Json) -> Json:
    """Return the machine, and its GPU."""
    machine = dict(report["machine"], memory=size_text(report["machine"]["memory_bytes"]))
    del machine["memory_bytes"]
    return {**machine, **report["gpu"]}


def _words(name: str) -> str:
    """Return the name of a field in words."""
    return _WORDS.get(name, name.replace("_", " "))


def _moment(text: str) -> str:
    """Return a time of the report without what every reader knows."""
    return text.replace("T", " ").removesuffix("+00:00")


def _setting(value: Any) -> str:
    """Return a setting as text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return "-" if value is None or value == "" else str(value)
