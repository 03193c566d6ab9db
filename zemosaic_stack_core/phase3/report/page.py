"""The page of a run, ``report.html``: one file that opens in any browser and asks for nothing else."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zemosaic_stack_core.options import StackOptions
from zemosaic_stack_core.phase3.outcome import TileOutcome
from zemosaic_stack_core.phase3.previews import TilePictures
from zemosaic_stack_core.phase3.report.assets import POLICY, SCRIPT, STYLE
from zemosaic_stack_core.phase3.report.charts import Series, bar_chart
from zemosaic_stack_core.system.atomic import atomic_output

OUTCOME_WORDS = {
    TileOutcome.DONE_GPU: "GPU",
    TileOutcome.DONE_CPU: "CPU",
    TileOutcome.DONE_CPU_AFTER_GPU_FAILURE: "CPU after GPU failure",
    TileOutcome.REUSED: "reused",
    TileOutcome.FAILED: "failed",
    TileOutcome.CANCELLED: "not made",
}
_LISTED = 40  # dropped frames of a tile in the page; the JSON report has all
_PROBLEMS = 200

Json = Mapping[str, Any]


def write_page(path: Path, report: Json, pictures: Mapping[int, TilePictures]) -> Path:
    """Write the page of a run, whole or not at all.

    Parameters
    ----------
    path : Path
        The file.
    report : mapping
        As `report_json` gives it.
    pictures : mapping
        Of the tiles by number.

    Raises
    ------
    OutputError
        The system refused.
    """
    with atomic_output(path, overwrite=True) as file:
        for part in page_text(report, pictures):
            file.write(part.encode("utf-8"))
    return path


def page_text(report: Json, pictures: Mapping[int, TilePictures]) -> Iterator[str]:
    """Yield the page, piece by piece: with thousands of pictures it is large."""
    tiles: Sequence[Json] = report["tiles"]
    title = f"Night report: {Path(report['output']).resolve().name or report['output']}"
    yield (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{_text(title)}</title><style>{STYLE}</style></head><body><main>"
    )
    yield _head(report, title)
    yield _facts(report)
    yield _problems(report)
    charts = _charts(tiles)
    yield '<h2>Over the run</h2><div class="charts">'
    labels = [str(tile["tile_id"]) for tile in tiles]
    for chart_title, unit, series in charts:
        yield bar_chart(chart_title, unit, labels, series)
    yield "</div>"
    yield from _tiles(tiles, pictures, report["counts"])
    yield _settings(report)
    data = {
        "labels": [f"tile {tile['tile_id']} {tile['name']}" for tile in tiles],
        "charts": [
            [[one.label, [float(f"{value:.4g}") for value in one.values]] for one in series] for _, _, series in charts
        ],
    }
    # "<" may not stand in a script's text, where a name could end it.
    safe = json.dumps(data).replace("<", "\\u003c")
    yield (
        f"<footer>{_text(report['program'])} {_text(report['version'])}, algorithm {_text(report['algorithm'])}. "
        "Everything on this page is in report.json too. Pictures: automatic stretch, row 0 at the bottom; dark violet "
        'has no value.</footer></main><div id="tip"></div>'
        f'<script type="application/json" id="chart-data">{safe}</script><script>{SCRIPT}</script></body></html>\n'
    )


def _text(value: object) -> str:
    """Return text that can stand anywhere in the page."""
    printable = str(value).encode("utf-8", "replace").decode("utf-8")  # names that are no text
    return html.escape(printable)


def _head(report: Json, title: str) -> str:
    """Return title and status."""
    made, total = _made(report), len(report["tiles"])
    if report["interrupted"]:
        status, kind = f"interrupted: {made} of {total} tiles", "halted"
    elif made == total:
        status, kind = "the tile is there" if total == 1 else f"all {total} tiles are there", ""
    else:
        status, kind = f"{total - made} of {total} tiles {'is' if total - made == 1 else 'are'} missing", "bad"
    where = [
        f"{_moment(report['started'])} to {_moment(report['finished'])} UTC",
        report["machine"]["host"],
        f"in {report['output']}",
    ]
    if report["shard"]:
        where.append(f"shard {report['shard']}")
    if report["cluster"]:
        where.append(f"cluster {report['cluster']}")
    return (
        f'<header><h1>{_text(title)}</h1><span class="status {kind}">{_text(status)}</span></header>'
        f"<p>{_text(' · '.join(where))}</p>"
    )


def _moment(text: str) -> str:
    """Return a time of the report without what every reader knows."""
    return text.replace("T", " ").removesuffix("+00:00")


def _made(report: Json) -> int:
    """Return how many tiles are there."""
    return sum(count for name, count in report["counts"].items() if TileOutcome(name).is_made)


def _facts(report: Json) -> str:
    """Return the figures at the top."""
    tiles = report["tiles"]
    used = sum(tile["frames_used"] for tile in tiles)
    dropped = sum(len(tile["dropped"]) for tile in tiles)
    fresh = [tile for tile in tiles if tile["stack_seconds"] > 0.0]
    samples, seconds = (sum(tile[key] for tile in fresh) for key in ("samples", "stack_seconds"))
    weight = sum(tile["samples"] for tile in tiles)
    rejected = sum((tile["rejected_low"] + tile["rejected_high"]) * tile["samples"] for tile in tiles) / max(weight, 1)
    peak = max((tile["peak_bytes"] for tile in tiles), default=0)
    gpu = report["gpu"]
    facts = [
        (f"{_made(report)} / {len(tiles)}", "tiles"),
        (f"{used:,}", "frames stacked"),
        (f"{dropped:,}", "frames dropped"),
        (f"{rejected:.2f} %", "samples rejected"),
        (_duration(report["seconds"]), "wall clock"),
        (f"{samples / seconds / 1e6:.0f} M/s" if seconds > 0.0 else "-", "samples stacked"),
        (_size(peak) if peak else "-", "peak memory"),
        (_gpu_words(gpu, report["backend"]), "GPU"),
    ]
    cells = "".join(f'<div class="fact"><b>{_text(value)}</b><span>{_text(name)}</span></div>' for value, name in facts)
    return f'<div class="facts">{cells}</div>'


def _gpu_words(gpu: Json, backend: str) -> str:
    """Say in a word what became of the GPU."""
    if backend == "cpu":
        return "off"
    if not gpu:
        return "per worker"
    if gpu["hard_disabled"]:
        return "switched off"
    return "used" if gpu["gpu_tiles"] else "not used"


def _problems(report: Json) -> str:
    """Return what went wrong, empty where nothing did: what is missing first, then what was made of less."""
    lines = [f"The run stopped: {report['stopped']}"] if report["stopped"] else []
    lines += [
        f"Tile {tile['tile_id']} ({tile['name']}) failed: {tile['reason']}"
        for tile in report["tiles"]
        if tile["outcome"] == TileOutcome.FAILED
    ]
    gpu = report["gpu"]
    if gpu and gpu["hard_disabled"]:
        lines.append(f"GPU switched off for this run: {gpu['reason']}")
    losses = [
        f"Tile {tile['tile_id']} ({tile['name']}) is without {len(tile['dropped'])} of {tile['frames_given']} frames"
        for tile in report["tiles"]
        if tile["dropped"] and TileOutcome(tile["outcome"]).is_made
    ]
    kind = "" if lines else " mild"
    title = "What went wrong" if lines else "What was left out"
    lines += losses
    if not lines:
        return ""
    more = len(lines) - _PROBLEMS
    items = "".join(f"<li>{_text(line)}</li>" for line in lines[:_PROBLEMS])
    items += f"<li>and {more} more, see report.json</li>" if more > 0 else ""
    return f'<section class="problems{kind}"><h2>{title}</h2><ul>{items}</ul></section>'


def _charts(tiles: Sequence[Json]) -> list[tuple[str, str, list[Series]]]:
    """Return the charts: title, unit, series."""

    def values(key: str, factor: float = 1.0) -> list[float]:
        return [float(tile[key]) * factor for tile in tiles]

    rest = [
        max(0.0, tile["seconds"] - tile["check_seconds"] - tile["stack_seconds"] - tile["write_seconds"])
        for tile in tiles
    ]
    dropped = [float(len(tile["dropped"])) for tile in tiles]
    return [
        (
            "Time",
            "s",
            [
                Series("stack", "#5fa8e8", values("stack_seconds")),
                Series("check and hash", "#57c2a4", values("check_seconds")),
                Series("write", "#eeb45c", values("write_seconds")),
                Series("other", "#56627a", rest),
            ],
        ),
        (
            "Rejected samples",
            "%",
            [
                Series("low", "#5fa8e8", values("rejected_low")),
                Series("high", "#f08a6a", values("rejected_high")),
            ],
        ),
        (
            "Frames",
            "frames",
            [Series("stacked", "#57c2a4", values("frames_used")), Series("dropped", "#f0707a", dropped)],
        ),
        ("Peak memory", "MB", [Series("process and workers", "#a893f5", values("peak_bytes", 1e-6))]),
    ]


def _tiles(tiles: Sequence[Json], pictures: Mapping[int, TilePictures], counts: Json) -> Iterator[str]:
    """Yield the tools and one card per tile."""
    buttons = '<button data-outcome="" aria-pressed="true">all</button>' + "".join(
        f'<button data-outcome="{name}" aria-pressed="false">{_text(OUTCOME_WORDS[TileOutcome(name)])} {count}</button>'
        for name, count in counts.items()
    )
    orders = (("place", "plan"), ("seconds", "time"), ("rejected", "rejection"), ("dropped", "dropped frames"))
    options = "".join(f'<option value="{key}">order: {word}</option>' for key, word in orders)
    yield (
        f'<h2>Tiles</h2><div class="tools">{buttons}<input id="words" type="search" aria-label="search" '
        f'placeholder="name, frame, reason"><select id="order" aria-label="order">{options}</select>'
        '<span id="shown"></span></div><div class="tiles">'
    )
    for place, tile in enumerate(tiles):
        yield _card(place, tile, pictures.get(tile["tile_id"], TilePictures()))
    yield "</div>"


def _card(place: int, tile: Json, pictures: TilePictures) -> str:
    """Return the card of a tile."""
    outcome = TileOutcome(tile["outcome"])
    rejected = tile["rejected_low"] + tile["rejected_high"]
    names = [frame["name"] for frame in tile["dropped"][:_LISTED]]
    words = _text(" ".join([tile["name"], tile["file"], tile["reason"], *names]).lower())
    numbers = (
        (f"{tile['frames_used']} / {tile['frames_given']}", "frames"),
        (f"{rejected:.2f} %" if outcome.is_made else "-", "rejected"),
        (_duration(tile["seconds"]) if tile["seconds"] else "-", "time"),
    )
    cells = "".join(f"<div><b>{_text(value)}</b>{name}</div>" for value, name in numbers)
    reason = f'<p class="reason">{_text(tile["reason"])}</p>' if tile["reason"] and outcome.is_made else ""
    return (
        f'<article class="tile" data-outcome="{outcome}" data-words="{words}" data-place="{place}" '
        f'data-seconds="{tile["seconds"]:.3f}" data-rejected="{rejected:.4f}" data-dropped="{len(tile["dropped"])}">'
        f'{_pair(tile, pictures)}<div class="body"><h3><span title="{_text(tile["name"])}">{tile["tile_id"]} · '
        f'{_text(tile["name"])}</span><span class="badge" style="flex:none;--c:var(--{outcome})">'
        f'{_text(OUTCOME_WORDS[outcome])}</span></h3><div class="numbers">{cells}</div>{reason}{_details(tile)}</div>'
        "</article>"
    )


def _pair(tile: Json, pictures: TilePictures) -> str:
    """Return the pictures of image and coverage, or what stands in their place."""
    if not pictures.image:
        reason = _text(tile["reason"] or "no picture")
        return f'<div class="pair"><figure class="none"><span>{reason}</span></figure></div>'
    number = tile["tile_id"]
    coverage = f"{tile['coverage_min']} to {tile['coverage_max']} samples"
    second = (
        f'<figure><img src="{pictures.coverage}" alt="coverage of tile {number}"><figcaption>{coverage}</figcaption>'
        "</figure>"
        if pictures.coverage
        else ""
    )
    return f'<div class="pair"><figure><img src="{pictures.image}" alt="tile {number}"></figure>{second}</div>'


_PREPARED_TITLES = (
    *("frame", "stars / matched", "shift px", "turned deg", "scale", "residual px"),
    *("FWHM px", "roundness", "sky", "transparency", "dropped"),
)


def _prepared(prepared: Json) -> str:
    """Return what was measured of raw frames, folded away."""
    rows = []
    for frame in prepared["frames"][:_LISTED]:
        x, y = frame["shift"]
        place = "-" if x is None or y is None else f"{x:+.2f}, {y:+.2f}"
        numbers = (
            *(("rotation", ".2f"), ("scale", ".5f"), ("residual", ".2f")),
            *(("fwhm", ".2f"), ("roundness", ".2f"), ("sky", ".5g"), ("transparency", ".0%")),
        )
        cells = [f"{frame['stars']} / {frame['matched']}", place]
        cells += ["-" if frame[name] is None else format(frame[name], how) for name, how in numbers]
        name = os.path.basename(frame["name"])  # noqa: PTH119
        rows.append("".join(f"<td>{_text(cell)}</td>" for cell in (name, *cells, frame["dropped"])))
    more = len(prepared["frames"]) - _LISTED
    if more > 0:
        rows.append(f'<td>and {more} more</td><td colspan="10">see report.json</td>')
    head = "".join(f"<th>{title}</th>" for title in _PREPARED_TITLES)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    how = _text(f"{prepared['alignment']}: {prepared['why']}")
    return f"<details><summary>registered by {how}</summary><table><tr>{head}</tr>{body}</table></details>"


def _details(tile: Json) -> str:
    """Return what is folded away: dropped and worst frames, times, memory."""
    parts = []
    if tile["dropped"]:
        rows = "".join(
            f"<tr><td>{_text(os.path.basename(frame['name']))}</td><td>{_text(frame['reason'])}</td></tr>"  # noqa: PTH119
            for frame in tile["dropped"][:_LISTED]
        )
        more = len(tile["dropped"]) - _LISTED
        rows += f"<tr><td>and {more} more</td><td>see report.json</td></tr>" if more > 0 else ""
        count = f"{len(tile['dropped'])} {'frame' if len(tile['dropped']) == 1 else 'frames'}"
        parts.append(f"<details><summary>{count} dropped</summary><table>{rows}</table></details>")
    if tile["worst_frames"]:
        rows = "".join(
            f"<tr><td>{_text(os.path.basename(frame['name']))}</td>"  # noqa: PTH119
            f"<td>{frame['rejected_low']:.2f}</td><td>{frame['rejected_high']:.2f}</td><td>{frame['missing']:.1f}</td>"
            f"<td>{frame['weight']:.3g}</td></tr>"
            for frame in tile["worst_frames"]
        )
        parts.append(
            "<details><summary>frames with most rejected</summary><table><tr><th>frame</th><th>low %</th>"
            f"<th>high %</th><th>missing %</th><th>weight</th></tr>{rows}</table></details>"
        )
    if prepared := tile["details"].get("prepared"):
        parts.append(_prepared(prepared))
    shape = " x ".join(map(str, tile["shape"])) or "-"
    facts = (
        ("file", tile["file"] or "-"),
        ("shape", shape),
        ("backend", tile["backend"] or "-"),
        ("attempts on the GPU", tile["gpu_attempts"]),
        ("pixels without a value", f"{tile['empty_pixels']:.2f} %"),
        ("check and hash, stack, write", " + ".join(f"{tile[f'{key}_seconds']:.2f}" for key in _STEPS) + " s"),
        ("peak memory", _size(tile["peak_bytes"]) if tile["peak_bytes"] else "-"),
        ("made by", tile["worker"] or "-"),
        ("started", tile["started"] or "-"),
        ("signature", tile["signature"][:16] or "-"),
    )
    rows = "".join(f"<tr><td>{name}</td><td>{_text(value)}</td></tr>" for name, value in facts)
    parts.append(f"<details><summary>how it was made</summary><table>{rows}</table></details>")
    return "".join(parts)


_STEPS = ("check", "stack", "write")
_SHOWN = ("rejection", "kappa_low", "kappa_high", "normalization", "weighting", "combine", "reference")


def _settings(report: Json) -> str:
    """Return the options and the machine; options that were left as they are stand folded away."""
    defaults = asdict(StackOptions())
    options = report["options"]
    first = {name: value for name, value in options.items() if name in _SHOWN or value != defaults.get(name)}
    rest = {name: value for name, value in options.items() if name not in first}
    machine = dict(report["machine"], memory=_size(report["machine"]["memory_bytes"]))
    del machine["memory_bytes"]
    more = f"<details><summary>{len(rest)} options left as they are</summary>{_table(rest)}</details>" if rest else ""
    return (
        f'<div class="two"><div><h2>Options</h2>{_table({**first, **report["settings"]})}{more}</div>'
        f"<div><h2>Machine</h2>{_table({**machine, **report['gpu']})}</div></div>"
    )


def _table(values: Json) -> str:
    """Return names and values as a table."""
    rows = "".join(f"<tr><td>{_text(name)}</td><td>{_text(_shown(value))}</td></tr>" for name, value in values.items())
    return f'<table class="plain">{rows}</table>'


def _shown(value: Any) -> str:
    """Return a setting as text."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return "-" if value is None or value == "" else str(value)


def _size(size: float) -> str:
    """Return bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000.0
    return f"{size:.3g} TB"


def _duration(seconds: float) -> str:
    """Return a duration for people."""
    if seconds < 59.5:
        return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s" if seconds >= 0.95 else f"{seconds:.2f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
