"""Arguments about frames as the telescope wrote them, and the policy that they make."""

from __future__ import annotations

import argparse
import inspect
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zemosaic_stack_core.command_line.arguments import parse_size
from zemosaic_stack_core.prepare.options import (
    ALIGNMENTS,
    BAYER_PATTERNS,
    CFA_MODES,
    HOT_PIXEL_MODES,
    KERNELS,
    LEVEL_MODES,
    PrepareOptions,
)

if TYPE_CHECKING:
    from zemosaic_stack_core.prepare.raw_policy import RawPolicy


_WORDS = {
    "--align": ("align", ALIGNMENTS),
    "--cfa": ("cfa", CFA_MODES),
    "--bayer-pattern": ("bayer_pattern", (*BAYER_PATTERNS, "none")),
    "--hot-pixels": ("hot_pixels", HOT_PIXEL_MODES),
    "--kernel": ("kernel", KERNELS),
    "--levels": ("levels", LEVEL_MODES),
}


def add_prepare_arguments(parser: argparse.ArgumentParser, *, has_reference: bool) -> None:
    """Add the arguments of `PrepareOptions`; one that is not given leaves no trace in the namespace."""
    group = parser.add_argument_group(
        "raw frames",
        "Frames as the telescope wrote them are calibrated, registered and resampled before they are stacked; what is "
        "recognized as raw is described in docs/prepare.md. Any of these arguments but --align none says they are raw.",
    )
    text = _descriptions()
    for flag, (name, words) in _WORDS.items():
        group.add_argument(
            flag, dest=f"prepare_{name}", choices=words, default=argparse.SUPPRESS, metavar="NAME",
            help=f"{text[name]}: {', '.join(words)}",
        )  # fmt: skip
    for kind in ("darks", "flats", "biases"):
        group.add_argument(
            f"--{kind}", dest=f"prepare_{kind}", nargs="+", default=argparse.SUPPRESS, metavar="FRAMES",
            help=f"{kind}: files, folders, @lists; those among the frames are known by IMAGETYP",
        )  # fmt: skip
    group.add_argument(
        "--scale-darks", dest="prepare_scale_darks", action="store_true", default=argparse.SUPPRESS,
        help=text["scale_darks"],
    )  # fmt: skip
    group.add_argument(
        "--keep-best", dest="prepare_keep_best", type=_percent, default=argparse.SUPPRESS, metavar="PERCENT",
        help="keep this part of the registered frames, as 80%%: those of the best point-source signal to noise",
    )  # fmt: skip
    group.add_argument(
        "--max-fwhm", dest="prepare_max_fwhm", type=float, default=argparse.SUPPRESS, metavar="PIXELS",
        help=text["max_fwhm"],
    )  # fmt: skip
    if has_reference:
        group.add_argument(
            "--reference-frame", dest="prepare_reference", default=argparse.SUPPRESS, metavar="FRAME",
            help=text["reference"],
        )  # fmt: skip
    group.add_argument(
        "--cache-limit", dest="prepare_cache_limit", type=parse_size, default=argparse.SUPPRESS, metavar="SIZE",
        help="most that the aligned frames may take on the disk (default: nine tenths of what is free)",
    )  # fmt: skip
    group.add_argument(
        "--cache", dest="cache_folder", metavar="FOLDER",
        help="where masters and aligned frames are kept (default: beside the output, its name and '.prepared')",
    )  # fmt: skip


def raw_policy(arguments: argparse.Namespace) -> RawPolicy:
    """Return what the arguments ask for; raise `InvalidInputError` where it is out of range or can't be listed."""
    from zemosaic_stack_core.frames.frame_lists import expand_frame_arguments
    from zemosaic_stack_core.prepare.raw_policy import RawPolicy

    given: dict[str, Any] = {
        name.removeprefix("prepare_"): value for name, value in vars(arguments).items() if name.startswith("prepare_")
    }
    for kind in ("darks", "flats", "biases"):
        if kind in given:
            given[kind] = tuple(expand_frame_arguments(given[kind]))
    policy = RawPolicy(
        options=PrepareOptions(**given),
        cache_folder=None if arguments.cache_folder is None else Path(arguments.cache_folder),
    )
    asks_for_normalization = arguments.config is not None or hasattr(arguments, "normalization")
    return replace(policy, normalization=None) if asks_for_normalization else policy


def _percent(text: str) -> float:
    """Read a part of a whole: ``80%``, or ``0.8``."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(%?)\s*", text)
    part = float(match[1]) / (100.0 if match[2] else 1.0) if match else math.nan
    if not 0.01 <= part <= 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} is no part of the frames; expected 1% to 100%, such as 80%")
    return part


def _descriptions() -> dict[str, str]:
    """Return the first sentence that the docstring of `PrepareOptions` has of each field."""
    section = (inspect.getdoc(PrepareOptions) or "").partition("Parameters\n----------\n")[2].partition("\n\n")[0]
    found = {}
    for names, text in re.findall(r"^(\w[\w, ]*) : .*\n((?:    .*\n?)+)", section, re.MULTILINE):
        first = re.split(r"\.(?:\s|$)", " ".join(text.split()))[0].replace("`", "").replace("%", "%%")
        for name in names.split(","):
            found[name.strip()] = first[:1].lower() + first[1:]
    return found
