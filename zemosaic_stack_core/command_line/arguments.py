"""Arguments that commands share, and what they mean: options, backend, memory."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache, partial
from typing import Any

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.options import (
    CENTERS,
    COMBINATIONS,
    ERRORS,
    KAPPA_RULES,
    MAPS,
    NORMALIZATIONS,
    REJECTIONS,
    REPEATED_RULES,
    UNBOUNDED,
    UNNORMALIZABLE_ACTIONS,
    WEIGHTINGS,
    StackOptions,
    check_choice,
)

# In a namespace the options of the preparation have this in front: some are called as those of a stack.
PREPARE_PREFIX = "prepare_"
# What weights begin with that are a card of the frames' headers.
CARD = "card:"
# Title of the last group of arguments.
MESSAGES = "help and messages"
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
_GROUPS = {
    "what is rejected": (
        *("rejection", "kappa_low", "kappa_high", "max_iterations", "center", "p_low", "p_high", "n_low", "n_high"),
        *("winsor_limits", "outlier_fraction", "alpha", "grow_radius", "grow_min_size", "reject_below", "reject_above"),
    ),
    "levels and weights of the frames": (
        *("normalization", "reference", "on_unnormalizable", "statistics_section", "weighting"),
    ),
    "how the kept samples are combined": (
        *("combine", "errors", "gain", "read_noise", "sensitivity"),
        *("radial_feather_fraction", "radial_shape_power", "radial_floor"),
    ),
}
# What a command leaves to the frames, unless it is told or a configuration file says it: the default in words, and a
# choice that is usual.
_AUTO = {
    "rejection": ("auto, by the number of frames", "winsorized_sigma_clip"),
    "normalization": ("auto, by the levels that are measured", "additive"),
}
_NOISE_MODEL = (("rejection", ("noise_clip",)), ("errors", ("detector",)))
# An option does something only where one of these others has one of these values; none listed: any but its default.
_ACTS_WITH: dict[str, tuple[tuple[str, tuple[str, ...]], ...]] = {
    "kappa_low": (("rejection", KAPPA_RULES),),
    "kappa_high": (("rejection", KAPPA_RULES),),
    "max_iterations": (("rejection", REPEATED_RULES),),
    "center": (("rejection", ("kappa_sigma",)),),
    "p_low": (("rejection", ("percentile_clip",)),),
    "p_high": (("rejection", ("percentile_clip",)),),
    "n_low": (("rejection", ("minmax",)),),
    "n_high": (("rejection", ("minmax",)),),
    "winsor_limits": (("rejection", ("winsorized_quantile",)),),
    "outlier_fraction": (("rejection", ("gesd",)),),
    "alpha": (("rejection", ("gesd",)),),
    "grow_min_size": (("grow_radius", ()),),
    "reference": (("normalization", ()),),
    "on_unnormalizable": (("normalization", ()),),
    "statistics_section": (("normalization", ()), ("weighting", ("noise_variance", "noise_fwhm"))),
    "gain": _NOISE_MODEL,
    "read_noise": _NOISE_MODEL,
    "sensitivity": _NOISE_MODEL,
    "radial_shape_power": (("radial_feather_fraction", ()),),
    "radial_floor": (("radial_feather_fraction", ()),),
}
_SIZE_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_SIZE_UNITS |= {"K": 10**3, "M": 10**6, "G": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


@dataclass(frozen=True, kw_only=True)
class CommandOptions:
    """What arguments and configuration file ask for together: arguments first, then the file, then the defaults."""

    options: StackOptions
    # Names of options that are chosen for the frames, see `choose_options`.
    auto: frozenset[str] = frozenset()
    # Of the configuration file: what `auto_tune_parallel_plan` reads of it.
    parallel: dict[str, Any] = field(default_factory=dict)
    # False where the configuration file forbids the GPU.
    use_gpu: bool = True
    # What the user should know about the configuration file.
    lines: tuple[str, ...] = ()


def add_option_arguments(parser: argparse.ArgumentParser) -> None:
    """Add an argument for each field of `StackOptions`, in groups of what one wants, and ``--config``.

    An argument that is not given leaves no trace in the namespace: a configuration file or the default then decides.
    """
    defaults = {option.name: option.default for option in fields(StackOptions)}
    for title, names in _GROUPS.items():
        group = parser.add_argument_group(title)
        for name in names:
            group.add_argument(flag_of(name), **_how(name, defaults[name]))
    group.add_argument(
        "--config",
        metavar="JSON",
        help="ZeMosaic's zemosaic_config.json: its stacking, parallel and GPU settings are used where no argument says "
        "otherwise (default: none)",
    )


def _how(name: str, default: Any) -> dict[str, Any]:
    """Return how a field of `StackOptions` is read, and its help."""
    shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
    text = re.sub(r"\bNone\b", "none", field_descriptions(StackOptions)[name])
    how: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS}
    if name in _CHOICES:
        text = re.sub(r",? ?one of [A-Z]+$", "", text, flags=re.IGNORECASE)
        names = ("auto", *_CHOICES[name]) if name in _AUTO else _CHOICES[name]
        first, _, rest = text.partition(". ")
        text = f"{first}: {', '.join(names)}" + (f". {rest}" if rest else "")
        how |= {"choices": names, "metavar": "NAME"}
        shown = _AUTO[name][0] if name in _AUTO else shown
    elif name == "reference":
        how |= {"type": _reference, "metavar": "INDEX"}
    elif name == "statistics_section":
        how["metavar"] = "SECTION"
    elif name in UNBOUNDED:
        how |= {"type": partial(_number_or_none, type(default)), "metavar": "N" if type(default) is int else "X"}
    elif isinstance(default, tuple):
        how |= {"type": number, "nargs": len(default), "metavar": ("LOW", "HIGH")}
    else:  # a number that has no default is a float
        how |= {"type": whole, "metavar": "N"} if isinstance(default, int) else {"type": number, "metavar": "X"}
    how["help"] = f"{text[:1].lower()}{text[1:]} (default: {'none' if default is None else shown})".replace("%", "%%")
    return how


def flag_of(name: str) -> str:
    """Return how an option is written at the command line."""
    return "--" + name.replace("_", "-")


def add_compute_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say where and how the work is done; no number of the result depends on them."""
    group = parser.add_argument_group("speed and memory (changes no bit of the result)")
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


def add_exclude_argument(group: argparse._ArgumentGroup) -> None:
    """Add the argument that names frames to leave out."""
    group.add_argument(
        "--exclude",
        metavar="LIST",
        help="a text of frames to leave out, a path or a name a line, as a report saves it (default: none)",
    )


def add_message_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments about what a command says."""
    group = parser.add_argument_group(MESSAGES)
    group.add_argument("-h", "--help", action="help", help="show this help")
    group.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
    group.add_argument(
        "--json", action="store_true", help="on standard output a summary for programs, or what was wrong"
    )
    group.add_argument(
        "--log-file", metavar="FILE", help="append everything that is said, and more, to this file (default: none)"
    )


def read_command_options(arguments: argparse.Namespace) -> CommandOptions:
    """Return what `add_option_arguments` added; raise `InvalidInputError` where the configuration can't be read."""
    given = {
        option.name: value
        for option in fields(StackOptions)
        if (value := _given(arguments, option.name)) is not None
        or (option.name in UNBOUNDED and hasattr(arguments, option.name))
    }
    auto = frozenset(name for name in _AUTO if given.get(name) == "auto")
    given = {name: value for name, value in given.items() if name not in auto}
    if arguments.config is None:
        options = StackOptions(**given)
        auto = frozenset(_AUTO) - given.keys()
        refuse_idle(given, options, auto)
        return CommandOptions(options=options, auto=auto)
    from zemosaic_stack_core.zemosaic.config import read_zemosaic_config, translate_config

    settings = translate_config(read_zemosaic_config(arguments.config))
    lines = [f"{arguments.config}: {note}" for note in settings.notes]
    if settings.ignored:
        lines.append(f"{arguments.config}: settings that mean nothing to a stack: {', '.join(settings.ignored)}")
    options = replace(settings.options, **given)
    auto |= _AUTO.keys() - given.keys() - settings.decided
    refuse_idle(given, options, auto)
    return CommandOptions(
        options=options,
        auto=auto,
        parallel=settings.parallel,
        use_gpu=settings.use_gpu,
        lines=tuple(lines),
    )


def check_backend(arguments: argparse.Namespace, wanted: CommandOptions) -> None:
    """Raise `InvalidInputError` where the arguments require the GPU and the configuration forbids it."""
    if arguments.backend == "gpu" and not wanted.use_gpu:
        raise InvalidInputError(f"--backend gpu, but {arguments.config} forbids the GPU; expected one or the other")


def refuse_idle(given: Collection[str], options: StackOptions, auto: Collection[str]) -> None:
    """Raise where an option that was given can do nothing with the others; those of a configuration may."""
    usual: dict[str, Any] = {name: _AUTO[name][1] for name in auto}
    options = replace(options, **usual)
    for name in given:
        needed = _ACTS_WITH.get(name, ())
        if needed and not any(_lets_act(options, decider, values) for decider, values in needed):
            decider, values = needed[0]
            value = "auto" if decider in auto else getattr(options, decider)
            found = f"with {flag_of(decider)} {value}" if values else f"without {flag_of(decider)}"
            expected = " or ".join(f"{flag_of(one)} {' or '.join(values)}".strip() for one, values in needed)
            raise InvalidInputError(f"{flag_of(name)} does nothing {found}; expected {expected}, or no {flag_of(name)}")


def refuse_idle_arguments(arguments: argparse.Namespace) -> None:
    """Raise where an argument that was given can do nothing with the others, those beside `StackOptions`."""
    given = vars(arguments)
    if "variance" not in arguments.maps and given.get("weighting") != "inverse_variance":
        idle = {"--errors": given.get("errors") == "detector", "--variance-extension": given.get("variance_extension")}
        for flag in (flag for flag, is_given in idle.items() if is_given):
            raise InvalidInputError(
                f"{flag} does nothing without a use of variances; expected --maps variance or --weighting "
                f"inverse_variance, or no {flag}"
            )
    if arguments.cache_folder is not None and given.get(PREPARE_PREFIX + "align") == "none":
        raise InvalidInputError("--cache does nothing with --align none; expected raw frames, or no --cache")


def flags_of(parser: argparse.ArgumentParser) -> dict[str, str]:
    """Return how each option of a command is written, by the name that the library has for it."""
    named = (action for action in parser._actions if action.option_strings)
    return {action.dest.removeprefix(PREPARE_PREFIX): action.option_strings[-1] for action in reversed(list(named))}


def spell_options(message: str, flags: Mapping[str, str]) -> str:
    """Return a message of the library's in which options are called as they are typed."""
    names = "|".join(map(re.escape, flags))
    return re.sub(rf"(?<![\w./-])({names})(?= is | '|=)", lambda found: flags[found[1]], message)


def _lets_act(options: StackOptions, decider: str, values: tuple[str, ...]) -> bool:
    """Return whether an option has one of these values, or without any, another than its default."""
    value = getattr(options, decider)
    return value in values if values else value != getattr(StackOptions(), decider)


def number(text: str) -> float:
    """Read a number."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def whole(text: str) -> int:
    """Read a whole number."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


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
        count = int(text)
    except ValueError:
        count = 0
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return count


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
