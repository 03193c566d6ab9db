"""``zemosaic-worker stack``: frames in, one master image out."""

from __future__ import annotations

import argparse
import importlib
import os
import threading
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from zemosaic_stack_core.command_line.arguments import (
    CARD,
    PREPARE_PREFIX,
    CommandOptions,
    add_compute_arguments,
    add_exclude_argument,
    add_message_arguments,
    add_option_arguments,
    check_backend,
    positive,
    read_command_options,
    refuse_idle_arguments,
)
from zemosaic_stack_core.command_line.exit_codes import ExitCode
from zemosaic_stack_core.command_line.logs import tell
from zemosaic_stack_core.command_line.messages import answer_either
from zemosaic_stack_core.command_line.outputs import (
    Outputs,
    add_output_arguments,
    check_output_arguments,
    check_outputs,
    write_pictures,
)
from zemosaic_stack_core.command_line.progress import open_display
from zemosaic_stack_core.command_line.raw_frames import add_prepare_arguments, raw_policy, refuse_idle_calibration
from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.prepare.options import NAMED_KINDS, PrepareOptions

if TYPE_CHECKING:
    from zemosaic_stack_core.command_line.summary import Summary
    from zemosaic_stack_core.frames.group import FrameGroup
    from zemosaic_stack_core.frames.heads import FileHead, FrameFile
    from zemosaic_stack_core.frames.pixel_rows import FilePool
    from zemosaic_stack_core.frames.scratch import ScratchFolder
    from zemosaic_stack_core.per_frame.choice import Choice
    from zemosaic_stack_core.prepare.raw_policy import RawPolicy
    from zemosaic_stack_core.prepare.records import PreparedGroup
    from zemosaic_stack_core.stacking.adviser import Advice
    from zemosaic_stack_core.stacking.result import StackResult


# Channels of a camera, at most: more are planes of something else.
_MOST_CHANNELS = 4
# What writing needs: half a second of importing.
_WRITER = ("zemosaic_stack_core.master.write", "zemosaic_stack_core.stacking.pictures")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Describe the command."""
    parser = subparsers.add_parser(
        "stack",
        usage="%(prog)s FRAMES [FRAMES ...] -o FITS [options]",
        help="combine frames into one master image",
        description="Combine frames into one master image: a FITS file with its maps and a table of the frames, and a "
        "picture of it. Raw frames are calibrated and registered first.",
        add_help=False,
    )
    frames = parser.add_argument_group("frames")
    frames.add_argument(
        "frames",
        nargs="+",
        metavar="FRAMES",
        help="FITS (.fit .fits .fts, also .gz and .fz), .npy, XISF, TIFF and cameras' raw files; a folder means its "
        "frames in natural order, @list.txt a list of them",
    )
    add_exclude_argument(frames)
    frames.add_argument(
        "--weights",
        metavar="CSV",
        help="a table with the columns file and weight, or card:NAME, a card of each frame's header; multiplied with "
        "what --weighting gives (default: none)",
    )
    frames.add_argument(
        "--image-extension",
        metavar="NAME",
        help="FITS extension with each frame's image: SCI, SCI,2 or its number (default: the only image, or SCI)",
    )
    frames.add_argument(
        "--mask-extension",
        metavar="NAME",
        help="FITS extension of each frame, nonzero where missing (default: none)",
    )
    frames.add_argument(
        "--dq-bits", type=positive, metavar="BITS", help="only these bits of the mask extension count (default: all)"
    )
    frames.add_argument(
        "--variance-extension",
        metavar="NAME",
        help="FITS extension of each frame with the variances of its samples; standard deviations where its card UTYPE "
        "or its name (UNCERT, ERR, SIGMA, ...) says so (default: none)",
    )
    frames.add_argument(
        "--zeros-missing",
        action="store_true",
        help="samples of exactly zero are missing: borders that other programs fill with zeros",
    )
    frames.add_argument(
        "--min-frames",
        type=positive,
        metavar="N",
        help="fewer good frames fail (default: more than a third of the lights, and two of two)",
    )
    add_output_arguments(parser)
    add_option_arguments(parser)
    add_prepare_arguments(parser, has_reference=True)
    add_compute_arguments(parser)
    add_message_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Stack, write and tell what came out."""
    from zemosaic_stack_core.command_line.computing import choose
    from zemosaic_stack_core.command_line.summary import summarize
    from zemosaic_stack_core.frames.pixel_rows import FilePool
    from zemosaic_stack_core.frames.scratch import ScratchFolder
    from zemosaic_stack_core.prepare.headers.kinds import calibration_kind

    began = time.perf_counter()
    wanted = read_command_options(arguments)
    policy = raw_policy(arguments)
    _check_arguments(arguments, wanted)
    paths, excluded = _find_frames(arguments)
    outputs = check_outputs(arguments, paths)
    prepared: PreparedGroup | None = None
    with ScratchFolder() as scratch:
        with FilePool() as files:
            _tell_all(arguments, (*wanted.lines, *_odd_frames(arguments, paths)))
            heads = _read_heads(arguments, paths, files)
            if not (are_raw := _are_raw(arguments, policy, heads, files)):
                group = _open(arguments, heads, scratch)
                _say_zero_borders(arguments, group, files)
        if are_raw:
            if arguments.dry_run:
                return _show_preparation(arguments, wanted, policy, heads)
            prepared = _prepare(arguments, policy, heads)
            group = _open(arguments, prepared.paths, scratch)
        kind = "" if are_raw else calibration_kind(heads)
        heads.clear()  # ten thousand take 80 MB
        _check_enough(arguments, len(group.sources), prepared)
        choice = choose(arguments, wanted, group, kind)
        _tell_all(arguments, choice.lines)
        wanted = replace(wanted, options=choice.options)
        if arguments.dry_run:
            return _show_forecast(arguments, wanted, group)
        advice = _advise(arguments, len(group.sources), wanted)
        names = [frame.name for frame in (group.sources if prepared is None else prepared.kept)]
        result = _compute(arguments, wanted, group, names, choice)
        _write(arguments, outputs, result, prepared)
        if outputs.report is not None:
            from zemosaic_stack_core.phase3.report.one_stack import OneStack, write_stack_page

            stack = OneStack(
                master=outputs.master,
                result=result,
                sources=group.sources,
                maps=arguments.maps,
                seconds=time.perf_counter() - began,
                prepared=prepared,
                chosen=choice.lines,
                excluded=tuple(excluded),
                workers=arguments.workers,
            )
            write_stack_page(outputs.report, stack, overwrite=arguments.overwrite)
    seconds = time.perf_counter() - began
    summary = summarize(result, advice, outputs, chosen=choice.lines, seconds=seconds)
    _show_summary(arguments, summary, prepared)
    return ExitCode.DONE


def _advise(arguments: argparse.Namespace, frames: int, wanted: CommandOptions) -> Advice:
    """Return what the rule can do with so many frames; say it where that is a problem and was not said already."""
    from zemosaic_stack_core.stacking.adviser import advise

    advice = advise(frames, wanted.options)
    if advice.problem and "rejection" not in wanted.auto:
        tell(arguments, advice.line)
    return advice


def _check_arguments(arguments: argparse.Namespace, wanted: CommandOptions) -> None:
    """Raise where arguments contradict each other, or a table that one names is none, before a frame is looked for."""
    if arguments.dq_bits is not None and arguments.mask_extension is None:
        raise InvalidInputError("--dq-bits does nothing without --mask-extension; expected both, or no --dq-bits")
    refuse_idle_arguments(arguments)
    check_output_arguments(arguments)
    check_backend(arguments, wanted)
    if arguments.weights is not None and not arguments.weights.startswith(CARD):
        from zemosaic_stack_core.per_frame.weighting import read_weight_rows

        read_weight_rows(arguments.weights)


def _find_frames(arguments: argparse.Namespace) -> tuple[list[Path], list[Path]]:
    """Return the files to stack, and those that a list excludes; the master of an earlier stack is neither."""
    from zemosaic_stack_core.fits.cards import read_first_header
    from zemosaic_stack_core.frames.exclusions import read_exclusions, without_excluded
    from zemosaic_stack_core.frames.frame_lists import expand_frame_arguments
    from zemosaic_stack_core.system.quantities import count_text

    exclusions = None if arguments.exclude is None else read_exclusions(arguments.exclude)
    paths = expand_frame_arguments(arguments.frames)
    excluded: list[Path] = []
    if exclusions is not None:
        paths, excluded = without_excluded(paths, exclusions)
        tell(arguments, f"{exclusions.source}: {count_text(len(excluded), 'frame')} left out")
    if "ZSC_ALGO" in read_first_header(arguments.output):
        target = os.path.realpath(arguments.output)
        paths = [path for path in paths if os.path.realpath(path) != target] or paths
    return paths, excluded


def _odd_frames(arguments: argparse.Namespace, paths: list[Path]) -> list[str]:
    """Return a line for what is allowed and seldom meant: a frame given twice, calibration frames that are not used."""
    from zemosaic_stack_core.frames.frame_lists import calibration_beside, expand_frame_arguments, find_repeated
    from zemosaic_stack_core.frames.known_folders import kind_of_folder

    lines = [f"{path}: given {count} times, so it counts {count} times" for path, count in find_repeated(paths).items()]
    named = [name for kind in NAMED_KINDS for name in getattr(arguments, PREPARE_PREFIX + kind, ())]
    used = [*paths, *(expand_frame_arguments(named) if named else ())]
    for folder in (path for path in map(Path, arguments.frames) if path.is_dir()):
        is_lights = kind_of_folder(folder.name) == "light"
        where = "beside" if is_lights else "in"
        if unused := calibration_beside(folder.absolute().parent if is_lights else folder, used):
            lines.append(f"{folder}: not used is {', '.join(unused)} {where} it; named, too, they calibrate the lights")
    return lines


def _tell_all(arguments: argparse.Namespace, lines: Sequence[str]) -> None:
    """Say lines unless told to be quiet."""
    for line in lines:
        tell(arguments, line)


def _read_heads(arguments: argparse.Namespace, paths: Sequence[Path], files: FilePool) -> list[FileHead]:
    """Read the heads of the frames; files that are stacks of frames are left out, and said."""
    from zemosaic_stack_core.frames.frame_lists import folders_of_frames
    from zemosaic_stack_core.frames.heads import read_head
    from zemosaic_stack_core.prepare.headers.kinds import find_masters, is_our_master

    heads = [read_head(path, extension=arguments.image_extension, files=files) for path in paths]
    if len(heads) == 1 and is_our_master(heads[0]):
        inner = [str(part) for name in arguments.frames for part in folders_of_frames(Path(name))]
        where = f", those in {', '.join(inner)}?" if inner else ""
        raise InvalidInputError(
            f"{heads[0].name}: a master of this program, and no frame beside it; expected frames{where}"
        )
    masters = find_masters(heads)
    if masters:
        first, what = next(iter(masters.items()))
        more = f", and {len(masters) - 1} more" if len(masters) > 1 else ""
        tell(arguments, f"{heads[first].name}: {what}, no frame{more}; left out of {len(heads)} files")
    return [head for index, head in enumerate(heads) if index not in masters]


def _are_raw(arguments: argparse.Namespace, policy: RawPolicy, heads: Sequence[FileHead], files: FilePool) -> bool:
    """Decide whether the frames are prepared, and say why; raise where an argument needs aligned ones."""
    from zemosaic_stack_core.prepare.headers.recognize import refuse_calibration

    found = policy.by_stars(policy.by_headers(heads), heads, files)
    if not found.is_raw:
        refuse_calibration(heads)
    if found.line:
        is_asked = policy.options != PrepareOptions()
        tell(
            arguments, found.line + (" (--align none stacks them as they are)" if found.is_raw and not is_asked else "")
        )
    if arguments.cache_folder is not None and not found.is_raw:
        raise InvalidInputError(
            "--cache does nothing with aligned frames; expected raw ones (--align stars says that they are), "
            "or no --cache"
        )
    for flag in ("mask_extension", "variance_extension"):
        if found.is_raw and getattr(arguments, flag) is not None:
            raise InvalidInputError(
                f"--{flag.replace('_', '-')} with raw frames; expected aligned ones (--align none says that they are), "
                f"not {policy.options.align}"
            )
    if found.is_raw:
        refuse_idle_calibration(policy.options, heads)
    return found.is_raw


def _prepare(arguments: argparse.Namespace, policy: RawPolicy, frames: Sequence[FrameFile]) -> PreparedGroup:
    """Prepare raw frames."""
    from zemosaic_stack_core.prepare.report import describe_frame

    if arguments.weights is not None:  # hours later it would be late to find a frame that is not in the table
        from zemosaic_stack_core.command_line.computing import read_weights
        from zemosaic_stack_core.prepare.frame_set import inspect_frames

        read_weights(arguments.weights, [light.name for light in inspect_frames(frames, policy.options).lights])
    output = Path(arguments.output)
    with open_display(is_quiet=arguments.quiet) as display:
        prepared = policy.prepare(
            frames,
            output.with_name(f"{output.stem}.prepared"),
            workers=arguments.workers,
            progress=display.show_frames,
            report=partial(tell, arguments),
        )
    for frame in prepared.frames:
        tell(arguments, f"  {describe_frame(frame)}")
    if prepared.dropped:
        tell(arguments, f"{len(prepared.dropped)} of {len(prepared.frames)} frames dropped")
    return prepared


def _check_enough(arguments: argparse.Namespace, good: int, prepared: PreparedGroup | None) -> None:
    """Raise where too few frames are left."""
    from zemosaic_stack_core.frames.frame_lists import least_frames

    bad = [] if prepared is None else [frame for frame in prepared.dropped if not frame.is_spare]
    given = good + len(bad)
    least = arguments.min_frames or least_frames(given)
    if good < least:
        why = f"; first bad one {bad[0].name}: {bad[0].dropped}" if bad else ""
        raise InvalidInputError(f"{good} good of {given} frames; expected at least {least} (--min-frames){why}")


def _show_preparation(
    arguments: argparse.Namespace, wanted: CommandOptions, policy: RawPolicy, frames: Sequence[FrameFile]
) -> int:
    """Answer what is known of raw frames before they are registered, and what the rule can do with so many."""
    from zemosaic_stack_core.per_frame.choice import choose_rule
    from zemosaic_stack_core.prepare.frame_set import forecast_preparation
    from zemosaic_stack_core.stacking.adviser import advise, rule_text

    forecast = forecast_preparation(frames, policy.options)
    lights, options = forecast.lights, wanted.options
    if "rejection" in wanted.auto:
        options, why = choose_rule(options, lights)
        tell(arguments, f"rejection {options.rejection}: {why}")
    advice = advise(lights, options, is_thorough=True).lines
    lines = (f"{name.replace('_', ' '):<14} {value}" for name, value in asdict(forecast).items())
    facts = {"prepare": asdict(forecast), "rule": rule_text(options), "advice": advice}
    answer_either(facts, (*lines, *advice), as_json=arguments.json)
    return ExitCode.DONE


def _open(arguments: argparse.Namespace, frames: Sequence[FrameFile], scratch: ScratchFolder) -> FrameGroup:
    """Open the frames that are stacked."""
    from zemosaic_stack_core.frames.group import open_frames
    from zemosaic_stack_core.frames.planes import PlanesGiven

    given = PlanesGiven(
        image_extension=arguments.image_extension,
        mask_extension=arguments.mask_extension,
        dq_bits=arguments.dq_bits,
        variance_extension=arguments.variance_extension,
        zeros_missing=arguments.zeros_missing or None,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        group = open_frames(frames, None, given, scratch=scratch)
    for warning in caught:
        tell(arguments, str(warning.message))
    if group.channels > _MOST_CHANNELS:
        tell(
            arguments,
            f"{group.sources[0].name}: its {group.channels} planes are taken for channels of one frame; "
            "exposures are expected in a file each",
        )
    return group


def _say_zero_borders(arguments: argparse.Namespace, group: FrameGroup, files: FilePool) -> None:
    """Say where borders of zeros would be averaged in."""
    from zemosaic_stack_core.frames.borders import zero_border_line

    if not arguments.zeros_missing and (line := zero_border_line(group.sources, files)):
        tell(arguments, line)


def _compute(
    arguments: argparse.Namespace, wanted: CommandOptions, group: FrameGroup, names: list[str], choice: Choice
) -> StackResult:
    """Stack, with progress on standard error."""
    from zemosaic_stack_core.command_line.computing import compute_stack

    writer: list[threading.Thread] = []
    with open_display(is_quiet=arguments.quiet) as display:
        show = display.step(f"stacking {len(group.sources)} frames")

        def progress(done: int, total: int) -> None:
            if not writer and done < total:  # the workers are under way: forking needs a single thread
                writer.append(threading.Thread(target=import_ahead, args=(_WRITER,)))
                writer[0].start()
            show(done, total)

        try:
            return compute_stack(arguments, wanted, group, names, choice, progress)
        finally:
            for thread in writer:  # two threads must not import the same modules at once
                thread.join()


def import_ahead(names: Sequence[str]) -> None:
    """Import modules while the workers compute."""
    with suppress(ImportError, OSError):  # imported again where it is needed, it says there what is wrong
        for name in names:
            importlib.import_module(name)


def _write(
    arguments: argparse.Namespace, outputs: Outputs, result: StackResult, prepared: PreparedGroup | None
) -> None:
    """Write the master and its picture."""
    from zemosaic_stack_core.master.tile import MasterExtras
    from zemosaic_stack_core.master.write import write_master
    from zemosaic_stack_core.stacking.pictures import DRAWN_MAPS
    from zemosaic_stack_core.stacking.result import without_maps
    from zemosaic_stack_core.system.file_stamps import hash_file

    sha256: list[str | None] = []
    if arguments.sha256:
        sha256 = [None if frame.path is None else hash_file(frame.path) for frame in result.frames]
    extras = MasterExtras(sha256=sha256)
    if prepared is not None:
        from zemosaic_stack_core.prepare.report import frames_columns, history_lines

        columns = frames_columns(prepared, [frame.name for frame in result.frames])
        extras = replace(extras, columns=columns, history=history_lines(prepared))
    is_new = not os.path.lexists(outputs.master)
    written = without_maps(result, {*DRAWN_MAPS} - {*arguments.maps})
    write_master(outputs.master, written, extras, overwrite=arguments.overwrite)
    write_pictures(arguments, outputs, result.image, overwrite=arguments.overwrite or is_new)


def _show_forecast(arguments: argparse.Namespace, wanted: CommandOptions, group: FrameGroup) -> int:
    """Answer what the stack would take and what the rule can do."""
    from zemosaic_stack_core.command_line.forecast import describe_forecast, forecast_stack

    forecast = forecast_stack(arguments, wanted, group)
    answer_either(asdict(forecast), describe_forecast(forecast), as_json=arguments.json)
    return ExitCode.DONE


def _show_summary(arguments: argparse.Namespace, summary: Summary, prepared: PreparedGroup | None) -> None:
    """Answer what came out."""
    from zemosaic_stack_core.command_line.summary import describe_summary

    facts = asdict(summary)
    if prepared is not None:
        from zemosaic_stack_core.prepare.report import group_facts

        facts["prepared"] = group_facts(prepared)
    names = [frame.name for frame in (summary.frames if prepared is None else prepared.kept)]
    answer_either(facts, () if arguments.quiet else describe_summary(summary, names), as_json=arguments.json)
