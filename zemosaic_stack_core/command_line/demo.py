"""``zemosaic-worker demo``: a night of synthetic frames, stacked, with a picture of what stacking does."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from zemosaic_stack_core.command_line.exit_codes import ExitCode
from zemosaic_stack_core.command_line.messages import answer
from zemosaic_stack_core.command_line.progress import open_display
from zemosaic_stack_core.errors import InvalidInputError, OutputError
from zemosaic_stack_core.system.quantities import percent_of, percent_text, time_text

if TYPE_CHECKING:
    from zemosaic_stack_core.stacking.result import StackResult
    from zemosaic_stack_core.synthetic.night import SyntheticNight


# Of the picture: pixels between and above its panels, and colors.
_MARGIN, _HEADING = 36, 92
_PAPER, _BRIGHT, _DIM = (16, 18, 24), (236, 239, 244), (152, 160, 176)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Describe the command."""
    parser = subparsers.add_parser(
        "demo",
        help="make a synthetic night, stack it, and show what came out",
        description="Make 24 color frames of a night that never was, with satellites, hot pixels, cosmic rays, clouds "
        "and a drifting sky; stack them; write the master with all its maps and a picture. Takes a few seconds.",
    )
    parser.add_argument("output", metavar="OUT", help="folder for the frames and the results; made where there is none")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there already")


def run(arguments: argparse.Namespace) -> int:
    """Make the night, stack it, write the master and the picture."""
    from zemosaic_stack_core.frames.group import open_frames
    from zemosaic_stack_core.gpu.auto import stack_auto
    from zemosaic_stack_core.master.write import write_master
    from zemosaic_stack_core.options import StackOptions
    from zemosaic_stack_core.stacking.adviser import rule_text
    from zemosaic_stack_core.synthetic.night import SyntheticNight
    from zemosaic_stack_core.system.atomic import check_output

    began = time.perf_counter()
    folder = Path(arguments.output)
    if folder.exists() and not folder.is_dir():
        raise InvalidInputError(f"{folder}: a file; expected a folder for the frames and the results, or a new name")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: {error.strerror}; expected a folder that can be written") from None
    frames, master, picture = folder / "frames", folder / "master.fits", folder / "demo.png"
    if frames.exists() and not arguments.overwrite:  # somebody's own frames may be called as the demonstration's are
        raise InvalidInputError(f"{frames}: it exists; expected another folder, or --overwrite")
    for path in (master, picture):
        check_output(path, overwrite=arguments.overwrite)
    night = SyntheticNight()
    paths = night.write(frames)
    made = time.perf_counter()
    rows, columns = night.shape
    answer(
        f"{frames}: {night.n_frames} color frames of {rows} x {columns}, made in {time_text(made - began)}: "
        f"dithered, with satellites in frames {' and '.join(str(index + 1) for index in night.satellite_frames)}, hot "
        "pixels, cosmic rays, clouds and a drifting sky"
    )
    options = StackOptions(rejection="winsorized_sigma_clip", normalization="linear_fit", weighting="noise_variance")
    group = open_frames(paths)
    with open_display() as display:
        result, _ = stack_auto(group, gpu=None, options=options, maps="all", progress=display.step("stacking"))
    stacked = time.perf_counter()
    write_master(master, result, overwrite=arguments.overwrite)
    missing = percent_of(sum(sum(frame.missing) for frame in result.frames), len(paths) * result.image.size)
    borders = f"{percent_text(missing, '.1f')} missing at the dithered borders"
    answer(
        f"{master}: stacked in {time_text(stacked - made)} ({rule_text(options)}, normalization "
        f"{options.normalization}, weighting {options.weighting}; {borders}), "
        "with all its maps and the table FRAMES"
    )
    draw_demo(picture, night, result, overwrite=arguments.overwrite)
    answer(f"{picture}: a single frame, the master, the coverage and what was rejected. Look at this one first.")
    row, column = rows // 2, columns // 2
    answer(f"Then: zemosaic-worker explain {master} {row} {column}")
    answer("With your own frames: zemosaic-worker stack FOLDER -o master.fits")
    answer(f"Done in {time_text(time.perf_counter() - began)}.")
    return ExitCode.DONE


def draw_demo(path: Path, night: SyntheticNight, result: StackResult, *, overwrite: bool) -> Path:
    """Draw a frame that a satellite crossed, the master, the coverage and the rejected samples beside each other."""
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    from zemosaic_stack_core.stacking.pictures import color_map, stretch
    from zemosaic_stack_core.system.atomic import atomic_output

    if result.coverage is None or result.rejected_high is None or result.rejected_low is None:
        raise AssertionError("the maps were not asked for")
    index = night.satellite_frames[0]
    coverage = result.coverage.min(axis=2)
    rejected = (result.rejected_low + result.rejected_high).max(axis=2)
    frame_line = f"number {index + 1} of {night.n_frames}, with a satellite; violet: the camera did not look there"
    master_line = f"{night.n_frames} frames, normalization {result.options.normalization}, {result.options.rejection}"
    coverage_line = f"samples combined at each pixel, {coverage.min()} to {coverage.max()}: the brighter, the more"
    panels = (
        ("A single frame", frame_line, stretch(night.frame(index))),
        ("The master", master_line, stretch(result.image)),
        ("Coverage", coverage_line, color_map(coverage, 0, coverage.max())),
        ("Rejected", "samples rejected at each pixel, 0 to 4 and more", color_map(rejected, 0, 4)),
    )
    rows, columns = night.shape
    title, line = (ImageFont.load_default(size) for size in (26, 18))
    canvas = Image.new("RGB", (2 * columns + 3 * _MARGIN, 2 * (rows + _HEADING) + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(canvas)
    for place, (name, words, picture) in enumerate(panels):
        left = _MARGIN + place % 2 * (columns + _MARGIN)
        top = place // 2 * (rows + _HEADING) + _HEADING
        draw.text((left, top - 38), name, fill=_BRIGHT, font=title, anchor="ls")
        draw.text((left, top - 13), words, fill=_DIM, font=line, anchor="ls")
        canvas.paste(Image.fromarray(np.ascontiguousarray(picture[::-1])), (left, top))
    with atomic_output(path, overwrite=overwrite) as file:
        canvas.save(file, format="PNG")
    return path
