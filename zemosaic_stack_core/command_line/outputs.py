"""What ``zemosaic-worker stack`` writes: the arguments that say it, and whether it can be written."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zemosaic_stack_core.command_line.arguments import parse_maps
from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.options import MAPS

if TYPE_CHECKING:
    import numpy.typing as npt

_FITS_SUFFIXES = (".fits", ".fit", ".fts")
_STRETCHES = ("auto", "linked", "none")


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Files to be written."""

    master: Path
    picture: Path | None
    tiff: Path | None
    report: Path | None


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say what is written."""
    group = parser.add_argument_group("what is written")
    group.add_argument("-o", "--output", required=True, metavar="FITS", help="the master image to write (required)")
    group.add_argument("--overwrite", action="store_true", help="replace files that are there already")
    group.add_argument(
        "--maps",
        type=parse_maps,
        default=("coverage",),
        metavar="NAMES",
        help=f"maps to write as extensions: all, none, or some of {', '.join(MAPS)} (default: coverage)",
    )
    group.add_argument(
        "--report",
        nargs="?",
        const="",
        metavar="HTML",
        help="write a page to judge the frames by: this file, or that of the master's name with .html (default: none)",
    )
    group.add_argument("--no-picture", action="store_true", help="write no stretched PNG beside the master")
    group.add_argument(
        "--full-size", action="store_true", help="a PNG of every pixel; without it no side is longer than 1600"
    )
    group.add_argument("--tiff", action="store_true", help="write a 16-bit TIFF beside the master too")
    group.add_argument(
        "--stretch",
        choices=_STRETCHES,
        help="of PNG and TIFF: auto stretches each color by itself, which takes out the sky's color; linked all alike; "
        "none is linear from the lowest to the highest value (default: auto)",
    )
    group.add_argument(
        "--sha256", action="store_true", help="store the SHA-256 of each frame's file in the FRAMES table"
    )
    group.add_argument("--dry-run", action="store_true", help="show the plan and what the rule can do; write nothing")


def check_output_arguments(arguments: argparse.Namespace) -> None:
    """Raise where an argument can do nothing with the others, or needs a library that is not there."""
    if arguments.no_picture and arguments.full_size:
        raise InvalidInputError("--full-size does nothing with --no-picture; expected one or the other")
    if arguments.no_picture and not arguments.tiff and arguments.stretch is not None:
        raise InvalidInputError("--stretch does nothing with --no-picture; expected --tiff, or no --stretch")
    if arguments.tiff and find_spec("tifffile") is None:
        raise InvalidInputError(
            "--tiff needs tifffile, which is not installed; expected: python -m pip install tifffile"
        )


def check_outputs(arguments: argparse.Namespace, frames: list[Path]) -> Outputs:
    """Find out before the work whether the files can be written; no frame is ever overwritten."""
    from zemosaic_stack_core.system.atomic import check_output

    master = Path(arguments.output)
    if master.suffix.casefold() not in _FITS_SUFFIXES:
        raise InvalidInputError(f"{master}: the name of the master; expected one ending in {', '.join(_FITS_SUFFIXES)}")
    report = None if arguments.report is None else Path(arguments.report or master.with_suffix(".html"))
    if report is not None and report.suffix.casefold() not in (".html", ".htm"):
        raise InvalidInputError(
            f"{report}: the name of the report; expected one ending in .html, or --report behind the frames and alone"
        )
    outputs = Outputs(
        master=master,
        picture=None if arguments.no_picture else master.with_suffix(".png"),
        tiff=master.with_suffix(".tif") if arguments.tiff else None,
        report=report,
    )
    if arguments.dry_run:
        return outputs
    real = {os.path.realpath(path) for path in frames}
    for path in filter(None, (outputs.master, outputs.picture, outputs.tiff, report)):
        if os.path.realpath(path) in real:
            raise InvalidInputError(f"{path}: one of the frames; expected another name for the master")
        if not path.resolve().parent.is_dir():
            raise InvalidInputError(f"{path}: there is no folder {path.parent}; expected one to write in")
        # A picture whose master is gone is replaced.
        is_left = path in (outputs.picture, outputs.tiff) and not os.path.lexists(outputs.master)
        check_output(path, overwrite=arguments.overwrite or is_left)
    return outputs


def write_pictures(
    arguments: argparse.Namespace, outputs: Outputs, image: npt.NDArray[Any], *, overwrite: bool
) -> None:
    """Write the pictures of a master."""
    from zemosaic_stack_core.stacking.pictures import save_preview, save_tiff

    kind = arguments.stretch or "auto"
    if outputs.picture is not None:
        size = max(image.shape[:2]) if arguments.full_size else 1600
        save_preview(outputs.picture, image, max_size=size, kind=kind, overwrite=overwrite)
    if outputs.tiff is not None:
        save_tiff(outputs.tiff, image, kind=kind, overwrite=overwrite)
