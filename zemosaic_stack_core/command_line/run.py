"""``zemosaic-worker run``: a plan of tiles to master tiles, whatever happens on the way."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zemosaic_stack_core.command_line.arguments import (
    CommandOptions,
    add_compute_arguments,
    add_exclude_argument,
    add_message_arguments,
    add_option_arguments,
    number,
    parse_maps,
    positive,
    read_command_options,
    refuse_idle_arguments,
)
from zemosaic_stack_core.command_line.logs import tell
from zemosaic_stack_core.command_line.messages import answer_json, say
from zemosaic_stack_core.command_line.progress import RunDisplay
from zemosaic_stack_core.command_line.raw_frames import add_prepare_arguments, raw_policy
from zemosaic_stack_core.system.quantities import count_text

if TYPE_CHECKING:
    from zemosaic_stack_core.phase3.night import RunReport
    from zemosaic_stack_core.phase3.tile import StackSettings


_EPILOG = (
    "exit codes: 0 every tile is there; 1 some are not (the report says why); 2 the plan or an option is not what it "
    "must be; 130 interrupted: the same command goes on where this one ended."
)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Describe the command."""
    parser = subparsers.add_parser(
        "run",
        usage="%(prog)s PLAN -o OUT [options]",
        help="make all master tiles of a plan; resumes where an earlier run ended",
        description="Make the master tile of every group of frames. Bad frames and bad tiles are dropped alone; tiles "
        "that are there already and right are reused; report.json and report.html say what was done.",
        epilog=_EPILOG,
        add_help=False,
    )
    tiles = parser.add_argument_group("tiles and frames")
    tiles.add_argument("plan", metavar="PLAN", help="a JSON plan of tiles, or a folder whose sub-folders are tiles")
    tiles.add_argument(
        "--min-frames",
        type=positive,
        metavar="N",
        help="a tile of fewer good frames fails (default: more than a third of its frames, and two of two)",
    )
    tiles.add_argument(
        "--zeros-missing",
        action="store_true",
        help="samples of exactly zero are missing: borders that other programs fill with zeros",
    )
    tiles.add_argument("--strict", action="store_true", help="a bad frame fails its tile instead of being dropped")
    tiles.add_argument(
        "--saturation",
        type=number,
        metavar="X",
        help="value at which a sample is saturated (default: the largest of an integer type; 65535 of floats)",
    )
    add_exclude_argument(tiles)
    outputs = parser.add_argument_group("what is written")
    outputs.add_argument(
        "-o", "--output", metavar="OUT", required=True, help="folder for the tiles and the report (required)"
    )
    outputs.add_argument(
        "--maps",
        type=parse_maps,
        default=("coverage",),
        metavar="NAMES",
        help="maps in each tile besides the coverage: all, none, or some, separated by commas (default: coverage)",
    )
    outputs.add_argument(
        "--no-resume", dest="resume", action="store_false", help="make every tile again, whatever is there already"
    )
    add_option_arguments(parser)
    add_prepare_arguments(parser, has_reference=False)
    add_compute_arguments(parser)
    spread = parser.add_argument_group("many machines")
    spread.add_argument(
        "--shard", metavar="I/N", help="do only part I (from 1) of N: one per job of a batch system (default: all)"
    )
    spread.add_argument(
        "--scheduler", metavar="ADDRESS", help="run on the dask cluster at this address (default: on this machine)"
    )
    spread.add_argument(
        "--local-cluster", type=positive, metavar="N", help="run on N dask worker processes here (default: threads)"
    )
    add_message_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Make the tiles; return 0, 1 or 130."""
    from zemosaic_stack_core.frames.exclusions import read_exclusions
    from zemosaic_stack_core.phase3.cluster import ClusterChoice
    from zemosaic_stack_core.phase3.night import Night
    from zemosaic_stack_core.phase3.run import run_night
    from zemosaic_stack_core.phase3.run_plan import leave_out, parse_shard, read_run_plan

    wanted = read_command_options(arguments)
    refuse_idle_arguments(arguments)
    for line in wanted.lines:
        tell(arguments, line)
    backend = arguments.backend
    if backend == "auto" and not wanted.use_gpu:
        backend = "cpu"
    output = Path(arguments.output)
    cluster = None
    if arguments.scheduler is not None or arguments.local_cluster is not None:
        cluster = ClusterChoice(scheduler=arguments.scheduler, local_workers=arguments.local_cluster)
    settings = _stack_settings(arguments, wanted)
    shard = None if arguments.shard is None else parse_shard(arguments.shard)
    exclusions = None if arguments.exclude is None else read_exclusions(arguments.exclude)
    tiles = read_run_plan(arguments.plan, output=output)
    if exclusions is not None:
        tiles = leave_out(tiles, exclusions)
        left = sum(len(tile.excluded) for tile in tiles)
        tell(arguments, f"{exclusions.source}: {count_text(left, 'frame')} left out")
    night = Night(
        tiles=tiles,
        output=output,
        settings=settings,
        backend=backend,
        resume=arguments.resume,
        shard=shard,
        cluster=cluster,
    )
    progress = RunDisplay(lambda text: tell(arguments, text), is_quiet=arguments.quiet)
    report = run_night(night, progress=progress, pcb_tile=_telemetry)
    tell(arguments, _summary(report))
    if arguments.json:
        answer_json(_facts(report))
    if report.interrupted:
        tell(arguments, "interrupted: run the same command again to go on")
    elif report.stopped:
        say(f"the run stopped: {report.stopped}; free room there and run the same command again to go on")
    return report.exit_code


def _stack_settings(arguments: argparse.Namespace, wanted: CommandOptions) -> StackSettings:
    """Return how the tiles are to be made."""
    from zemosaic_stack_core.command_line.computing import read_compute_limits
    from zemosaic_stack_core.phase3.tile import StackSettings

    return StackSettings(
        options=wanted.options,
        auto=wanted.auto,
        maps=tuple(sorted({*arguments.maps, "coverage"})),
        min_frames=arguments.min_frames,
        strict=arguments.strict,
        zeros_missing=arguments.zeros_missing,
        saturation=arguments.saturation,
        limits=read_compute_limits(arguments, wanted),
        raw_policy=raw_policy(arguments),
    )


def _summary(report: RunReport) -> str:
    """Return the line that says how it went."""
    from zemosaic_stack_core.phase3.tile_record import TileOutcome

    counts = ", ".join(f"{number} {TileOutcome(name).text}" for name, number in report.counts.items())
    where = f"; see {report.page_path}" if report.page_path is not None else ""
    return f"{count_text(len(report.records), 'tile')}: {counts}, in {report.seconds:.1f} s{where}"


def _facts(report: RunReport) -> dict[str, Any]:
    """Return what a run did, for programs; its report has the rest."""
    return {
        "report": report.json_path,
        "page": report.page_path,
        "exit_code": report.exit_code,
        "counts": report.counts,
        "interrupted": report.interrupted,
        "stopped": report.stopped,
        "seconds": report.seconds,
        "tiles": [record.to_json() for record in report.records],
    }


def _telemetry(message: str, **fields: Any) -> None:
    """Write a tile's telemetry to the log."""
    values = " ".join(f"{name}={value}" for name, value in fields.items() if value is not None)
    logging.getLogger("zemosaic_stack_core.telemetry").info("%s %s", message, values)
