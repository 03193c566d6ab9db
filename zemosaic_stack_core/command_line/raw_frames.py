"""Arguments about frames as the telescope wrote them, and the policy that they make."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zemosaic_stack_core.command_line.arguments import PREPARE_PREFIX, field_descriptions, flag_of, number, parse_size
from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.prepare.options import (
    ALIGNMENTS,
    BAYER_PATTERNS,
    CFA_MODES,
    HOT_PIXEL_MODES,
    KERNELS,
    LEVEL_MODES,
    NAMED_KINDS,
    PrepareOptions,
)

if TYPE_CHECKING:
    from zemosaic_stack_core.frames.heads import FrameFile
    from zemosaic_stack_core.prepare.raw_policy import RawPolicy


# Options that are one of some words.
_WORDS = {
    "align": ALIGNMENTS,
    "cfa": CFA_MODES,
    "bayer_pattern": (*BAYER_PATTERNS, "none"),
    "hot_pixels": HOT_PIXEL_MODES,
    "kernel": KERNELS,
    "levels": LEVEL_MODES,
}
# What holds where an option of none is not given.
_WITHOUT = {
    "bayer_pattern": "what the headers say",
    "lights": "known by IMAGETYP, folder or name, as are all kinds",
    "darks": "as for lights",
    "flats": "as for lights",
    "biases": "as for lights",
    "dark_flats": "as for lights",
    "filter": "all, which are of one",
    "keep_best": "all",
    "max_fwhm": "any",
    "reference": "the one with the most and sharpest stars",
    "cache_limit": "nine tenths of what is free",
}


def add_prepare_arguments(parser: argparse.ArgumentParser, *, has_reference: bool) -> None:
    """Add the arguments of `PrepareOptions`; one that is not given leaves no trace in the namespace."""
    group = parser.add_argument_group(
        "raw frames (calibrated, registered and resampled first)",
        "What is raw is seen from the headers; any of these arguments but --align none says it.",
    )
    descriptions = {name: _first_sentence(text) for name, text in field_descriptions(PrepareOptions).items()}
    defaults = {option.name: option.default for option in fields(PrepareOptions)}

    def add(name: str, text: str = "", flag: str = "", **how: Any) -> None:
        if how.get("action") != "store_true":
            text = f"{text or descriptions[name]} (default: {_WITHOUT.get(name, defaults[name])})"
        how |= {"dest": PREPARE_PREFIX + name, "default": argparse.SUPPRESS, "help": text or descriptions[name]}
        group.add_argument(flag or flag_of(name), **how)

    for name, words in _WORDS.items():
        add(name, f"{descriptions[name]}: {', '.join(words)}", choices=words, metavar="NAME")
    for name in NAMED_KINDS:
        what = "files, folders or @lists of frames that are" if name == "lights" else "those that are"
        add(name, f"{what} {name.replace('_', ' ')}", nargs="+", metavar="FRAMES")
    add("filter", metavar="NAME")
    add("trust_calibration", action="store_true")
    add("scale_darks", action="store_true")
    add(
        "keep_best",
        "keep this part of the registered frames, as 80%%: those of the best point-source signal to noise",
        type=_percent,
        metavar="PERCENT",
    )
    add("max_fwhm", type=number, metavar="PIXELS")
    if has_reference:
        add("reference", flag="--reference-frame", metavar="FRAME")
    add("cache_limit", type=parse_size, metavar="SIZE")
    group.add_argument(
        "--cache",
        dest="cache_folder",
        metavar="FOLDER",
        help="where masters and aligned frames are kept (default: beside the output, its name and '.prepared')",
    )


def raw_policy(arguments: argparse.Namespace) -> RawPolicy:
    """Return what the arguments ask for; raise `InvalidInputError` where it is out of range or can't be listed."""
    from zemosaic_stack_core.frames.frame_lists import expand_frame_arguments
    from zemosaic_stack_core.prepare.raw_policy import RawPolicy

    given: dict[str, Any] = {
        name.removeprefix(PREPARE_PREFIX): value
        for name, value in vars(arguments).items()
        if name.startswith(PREPARE_PREFIX)
    }
    for kind in NAMED_KINDS:
        if kind in given:
            given[kind] = tuple(expand_frame_arguments(given[kind]))
    return RawPolicy(
        options=PrepareOptions(**given),
        cache_folder=None if arguments.cache_folder is None else Path(arguments.cache_folder),
        zeros_missing=arguments.zeros_missing,
    )


def refuse_idle_calibration(options: PrepareOptions, frames: Sequence[FrameFile]) -> None:
    """Raise where an option about calibration frames was given, and there are none that it could act on."""
    from zemosaic_stack_core.prepare.frame_set import inspect_frames

    needed = {"scale_darks": ("dark",), "trust_calibration": ("dark", "flat", "bias")}
    given = [name for name in needed if getattr(options, name)]
    found = inspect_frames(frames, options) if given else None
    for name in given:
        if found is not None and not any(map(found.of_kind, needed[name])):
            what = "darks" if name == "scale_darks" else "calibration frames"
            raise InvalidInputError(
                f"{flag_of(name)} does nothing without {what}; expected some among the frames or named, "
                f"or no {flag_of(name)}"
            )


def _percent(text: str) -> float:
    """Read a part of a whole: ``80%``, or ``0.8``."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(%?)\s*", text)
    part = float(match[1]) / (100.0 if match[2] else 1.0) if match else math.nan
    if not 0.01 <= part <= 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} is no part of the frames; expected 1% to 100%, such as 80%")
    return part


def _first_sentence(text: str) -> str:
    """Return the first sentence of a description as the help of an argument."""
    first = re.split(r"\.(?:\s|$)", text)[0].replace("%", "%%")
    return first[:1].lower() + first[1:]
