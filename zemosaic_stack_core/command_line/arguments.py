"""Arguments that commands share, and what they mean: options, backend, memory."""

from __future__ import annotations

import argparse
import inspect
import re
from dataclasses import dataclass, field, fields, replace
from functools import cache, partial
from typing import Any

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.options import (
    CENTERS,
    COMBINATIONS,
    ERRORS,
    MAPS,
    NORMALIZATIONS,
    REJECTIONS,
    UNBOUNDED,
    UNNORMALIZABLE_ACTIONS,
    WEIGHTINGS,
    StackOptions,
    check_choice,
)

BACKEND_CHOICES = ("cpu", "auto", "gpu")

_CHOICES = {
    "rejection": REJECTIONS,
    "center": CENTERS,
    "combine": COMBINATIONS,
    "normalization": NORMALIZATIONS,
    "on_unnormalizable": UNNORMALIZABLE_ACTIONS,
    "weighting": WEIGHTINGS,
    "errors": ERRORS,
}
_SIZE_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SIZE_UNITS |= {"K": 10**3, "M": 10**6, "G": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


@dataclass(frozen=True, kw_only=True)
class CommandOptions:
    """What arguments and configuration file ask for together: arguments first, then the file, then the defaults."""

    options: StackOptions
    # Of the configuration file: what `auto_tune_parallel_plan` reads of it.
    parallel: dict[str, Any] = field(default_factory=dict)
    # False where the configuration file forbids the GPU.
    use_gpu: bool = True
    # What the user should know about the configuration file.
    lines: tuple[str, ...] = ()


def add_option_arguments(parser: argparse.ArgumentParser) -> None:
    """Add an argument for each field of `StackOptions`, and ``--config``.

    An argument that is not given leaves no trace in the namespace: a configuration file or the default then decides.
    """
    parser.add_argument(
        "--config",
        metavar="JSON",
        help="ZeMosaic's zemosaic_config.json: its stacking, parallel and GPU settings are used; arguments come first",
    )
    group = parser.add_argument_group("how frames are combined (the same names as in StackOptions)")
    descriptions = field_descriptions(StackOptions)
    for option in fields(StackOptions):
        default: Any = option.default
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
        text = descriptions.get(option.name, "")
        how: dict[str, Any] = {"dest": option.name, "default": argparse.SUPPRESS}
        if option.name in _CHOICES:
            text = re.sub(r",? ?one of [A-Z]+$", "", text, flags=re.IGNORECASE)
            text = f"{text}: {', '.join(_CHOICES[option.name])}".removeprefix(": ")
            how |= {"choices": _CHOICES[option.name], "metavar": "NAME"}
        elif option.name == "reference":
            how |= {"type": _reference, "metavar": "INDEX"}
        elif option.name in UNBOUNDED:
            how |= {"type": partial(_number_or_none, type(default)), "metavar": "N" if type(default) is int else "X"}
        elif isinstance(default, bool):
            how["action"] = argparse.BooleanOptionalAction
        elif isinstance(default, tuple):
            how |= {"type": type(default[0]), "nargs": len(default), "metavar": ("LOW", "HIGH")}
        else:  # a number that has no default is a float
            how |= {"type": int, "metavar": "N"} if isinstance(default, int) else {"type": float, "metavar": "X"}
        how["help"] = (text + ("" if default is None else f" (default: {shown})")).strip().replace("%", "%%")
        group.add_argument("--" + option.name.replace("_", "-"), **how)


def add_compute_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say where and how the work is done; no number of the result depends on them."""
    group = parser.add_argument_group("how the work is done (changes no bit of the result)")
    group.add_argument(
        "--backend",
        choices=BACKEND_CHOICES,
        default="auto",
        help="cpu; auto: the GPU where it passes its health check, otherwise the CPU; gpu: an error where it can't be "
        "used (default: auto)",
    )
    group.add_argument(
        "--workers",
        type=positive,
        metavar="N",
        help="threads, and processes that prepare raw frames (default: the cores, where that pays)",
    )
    group.add_argument(
        "--memory",
        type=parse_size,
        metavar="SIZE",
        help="memory for the working set of all workers, as 1GB or 300MB (default: a quarter of what is free)",
    )
    group.add_argument(
        "--rows-per-chunk",
        type=positive,
        metavar="N",
        help="most rows computed at once (default: what the memory allows)",
    )


def read_command_options(arguments: argparse.Namespace) -> CommandOptions:
    """Return what `add_option_arguments` added; raise `InvalidInputError` where the configuration can't be read."""
    given = {
        option.name: value
        for option in fields(StackOptions)
        if (value := _given(arguments, option.name)) is not None
        or (option.name in UNBOUNDED and hasattr(arguments, option.name))
    }
    if arguments.config is None:
        return CommandOptions(options=StackOptions(**given))
    from zemosaic_stack_core.zemosaic.config import read_zemosaic_config, translate_config

    settings = translate_config(read_zemosaic_config(arguments.config))
    lines = [f"{arguments.config}: {note}" for note in settings.notes]
    if settings.ignored:
        lines.append(f"{arguments.config}: settings that mean nothing to a stack: {', '.join(settings.ignored)}")
    return CommandOptions(
        options=replace(settings.options, **given),
        parallel=settings.parallel,
        use_gpu=settings.use_gpu,
        lines=tuple(lines),
    )


def parse_size(text: str) -> int:
    """Read a number of bytes: ``500000``, ``300MB`` (decimal units), ``1.5GiB`` (binary units)."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([A-Za-z]*)\s*", text)
    unit = _SIZE_UNITS.get(match[2].upper()) if match else None
    size = int(float(match[1]) * unit) if match and unit else 0
    if size < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; expected a number of bytes such as 300MB or 1GB")
    return size


def parse_maps(text: str) -> tuple[str, ...]:
    """Read names of maps separated by commas, or ``all``, or ``none``."""
    if text in ("all", "none"):
        return MAPS if text == "all" else ()
    names = tuple(name.strip().replace("-", "_") for name in text.split(","))
    try:
        for name in names:
            check_choice("map", name, MAPS)
    except InvalidInputError as error:
        raise argparse.ArgumentTypeError(f"{error}; or all, or none") from None
    return names


def _given(arguments: argparse.Namespace, name: str) -> Any:
    """Return an argument, None where it was not given."""
    value = getattr(arguments, name, None)
    return tuple(value) if isinstance(value, list) else value


def positive(text: str) -> int:
    """Read a whole number of at least 1."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return number


def _number_or_none(kind: type, text: str) -> float | None:
    """Read a number, or ``none``."""
    try:
        value: float | None = None if text == "none" else kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor 'none'") from None
    return value


def _reference(text: str) -> int | str:
    """Read the index of a frame, or ``auto``."""
    if text == "auto":
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither the index of a frame (0 = first) nor 'auto'") from None


@cache
def field_descriptions(options: type) -> dict[str, str]:
    """Return what the docstring of an options' record says of each field: the one place where that is written."""
    descriptions = {}
    section = (inspect.getdoc(options) or "").partition("Parameters\n----------\n")[2].partition("\n\n")[0]
    for names, text in re.findall(r"^(\w[\w, ]*) : .*\n((?:    .*\n?)+)", section, re.MULTILINE):
        plain = re.sub(r"`+", "", " ".join(text.split())).rstrip(".")
        for name in names.split(","):
            descriptions[name.strip()] = plain
    return descriptions
