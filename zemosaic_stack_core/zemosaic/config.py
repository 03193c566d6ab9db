"""ZeMosaic's settings, as its configuration file and its worker write them, to this library's options."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.options import COMBINATIONS, NORMALIZATIONS, REJECTIONS, WEIGHTINGS, StackOptions, check_choice
from zemosaic_stack_core.stacking.limits import setting
from zemosaic_stack_core.zemosaic.parallel_plan import GPU_SWITCHES, allows_gpu

# Other spellings that ZeMosaic's own code accepts; an empty setting is one that was never chosen.
_REJECTION_ALIASES = {
    "": "none",
    "kappa": "kappa_sigma",
    "sigma_clip": "kappa_sigma",
    "winsor": "winsorized_sigma_clip",
    "winsorized": "winsorized_sigma_clip",
    "linear_fit": "linear_fit_clip",
}
_NORMALIZATION_ALIASES = {"": "none", "linear": "linear_fit", "sky": "sky_mean"}
_WEIGHTING_ALIASES = {"": "none", "unit": "none", "unity": "none", "noise_plus_fwhm": "noise_fwhm"}
_COMBINE_ALIASES = {"": "mean", "average": "mean", "med": "median"}
# Value of ZeMosaic's ``wsc_impl`` that asks for its older winsorized clip.
_WSC_LEGACY = "legacy_quantile"
# ZeMosaic's defaults of its radial weight.
RADIAL_FEATHER, RADIAL_POWER = 0.8, 2.0
# Settings that `auto_tune_parallel_plan` reads.
_PARALLEL_KEYS = (
    "parallel_autotune_enabled",
    "parallel_target_cpu_load",
    "parallel_target_ram_fraction",
    "parallel_gpu_vram_fraction",
    "parallel_max_cpu_workers",
    "gpu_rows_per_chunk",
    "gpu_max_chunk_bytes",
    "rows_per_chunk",
    "max_chunk_bytes",
    *GPU_SWITCHES,
)


@dataclass(frozen=True, kw_only=True)
class TranslatedConfig:
    """What a configuration of ZeMosaic means here."""

    options: StackOptions
    # The settings that `auto_tune_parallel_plan` reads.
    parallel: dict[str, Any]
    # False where a setting forbids the GPU.
    use_gpu: bool
    # Bring the channels of a color tile to one median after the stack.
    equalize_rgb: bool
    # What was asked for and can't be had, one line each.
    notes: tuple[str, ...]
    # Names of settings that mean nothing to a stack, sorted.
    ignored: tuple[str, ...]
    # Names of the options that they decide.
    decided: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _Names:
    """How one writer of settings names what a stack needs."""

    normalization: str
    weighting: str
    rejection: str
    kappa_low: str
    kappa_high: str
    winsor_limits: str
    combine: str


_CONFIG_NAMES = _Names(
    "stacking_normalize_method",
    "stacking_weighting_method",
    "stacking_rejection_algorithm",
    "stacking_kappa_low",
    "stacking_kappa_high",
    "stacking_winsor_limits",
    "stacking_final_combine_method",
)
_WORKER_NAMES = _Names(
    "stack_norm_method",
    "stack_weight_method",
    "stack_reject_algo",
    "stack_kappa_low",
    "stack_kappa_high",
    "parsed_winsor_limits",
    "stack_final_combine",
)
_EQUALIZE = "poststack_equalize_rgb"
_COMMON_NAMES = ("wsc_impl", "apply_radial_weight", "radial_feather_fraction", "radial_shape_power", _EQUALIZE)


def read_zemosaic_config(path: str | Path) -> dict[str, Any]:
    """Read a ``zemosaic_config.json``; an error names the file."""
    try:
        settings = json.loads(Path(path).read_text(encoding="utf-8-sig"))  # editors on Windows write the mark
    except OSError as error:
        raise InvalidInputError(
            f"{path}: {error.strerror or error}; expected a readable zemosaic_config.json"
        ) from None
    except ValueError as error:
        raise InvalidInputError(f"{path}: not a JSON file ({error}); expected a zemosaic_config.json") from None
    if not isinstance(settings, dict):
        raise InvalidInputError(f"{path}: found a JSON {type(settings).__name__}; expected an object of settings")
    return settings


def translate_config(config: Mapping[str, Any]) -> TranslatedConfig:
    """Translate the settings of ``zemosaic_config.json``; an absent one has the default of `StackOptions`.

    The winsor limits are a pair, or text as in ``"0.05,0.05"``; ``wsc_impl``, the radial weight, ``parallel_*``,
    ``gpu_*`` and the GPU's switches are read besides the names of `_CONFIG_NAMES`.
    """
    return _translate(config, _CONFIG_NAMES)


def translate_stacking_params(stacking_params: Mapping[str, Any] | None, zconfig: object = None) -> TranslatedConfig:
    """Translate the ``stacking_params`` that ZeMosaic's worker hands to a stacker, under the names of `_WORKER_NAMES`.

    Without ``stack_reject_algo`` nothing is rejected, as there. ``wsc_impl``, what belongs to the parallel plan and the
    GPU's switches are taken from `zconfig`, the whole configuration, which has the last word about
    ``poststack_equalize_rgb``. The reference is frame 0, where ZeMosaic puts it.
    """
    params = {"stack_reject_algo": "none", **(stacking_params or {})}
    for name in ("wsc_impl", *_PARALLEL_KEYS):
        value = setting(zconfig, name)
        if value is not None:
            params.setdefault(name, value)
    if (equalize := setting(zconfig, _EQUALIZE)) is not None:
        params[_EQUALIZE] = equalize
    translated = _translate(params, _WORKER_NAMES)
    return replace(translated, options=replace(translated.options, reference=0))


def _translate(config: Mapping[str, Any], names: _Names) -> TranslatedConfig:
    """Read the settings under one writer's names."""
    chosen = _read_methods(config, names)
    notes = []
    combine = chosen.get("combine", "mean")
    if combine != "mean" and chosen.get("weighting", "none") != "none":
        notes.append(
            f"{names.weighting} {chosen['weighting']!r} is not used: a {combine} has no weights "
            f"({names.combine} is {combine!r})"
        )
        chosen["weighting"] = "none"
    for option, name in (("kappa_low", names.kappa_low), ("kappa_high", names.kappa_high)):
        if config.get(name) is not None:
            chosen[option] = _number(name, config[name])
    if config.get(names.winsor_limits) is not None:
        chosen["winsor_limits"] = _pair(names.winsor_limits, config[names.winsor_limits])
    if config.get("apply_radial_weight"):
        if combine == "mean":
            chosen["radial_feather_fraction"] = _number(
                "radial_feather_fraction", config.get("radial_feather_fraction", RADIAL_FEATHER)
            )
            chosen["radial_shape_power"] = _number("radial_shape_power", config.get("radial_shape_power", RADIAL_POWER))
        else:
            notes.append(f"apply_radial_weight is not used: a {combine} has no weights")
    known = {*vars(names).values(), *_COMMON_NAMES, *_PARALLEL_KEYS}
    return TranslatedConfig(
        options=StackOptions(**chosen),
        parallel={name: config[name] for name in _PARALLEL_KEYS if config.get(name) is not None},
        use_gpu=allows_gpu(config),
        equalize_rgb=is_on(config.get(_EQUALIZE)),
        notes=tuple(notes),
        ignored=tuple(sorted(str(name) for name in config if name not in known)),
        decided=frozenset(chosen),
    )


def is_on(value: object) -> bool:
    """Return whether a switch is on; ZeMosaic also writes them as text."""
    return value.strip().lower() in ("1", "true", "yes", "on") if isinstance(value, str) else bool(value)


def _read_methods(config: Mapping[str, Any], names: _Names) -> dict[str, Any]:
    """Return the methods that are chosen, by option."""
    choices = {
        "normalization": _choice(config, names.normalization, _NORMALIZATION_ALIASES, NORMALIZATIONS),
        "weighting": _choice(config, names.weighting, _WEIGHTING_ALIASES, WEIGHTINGS),
        "rejection": _choice(config, names.rejection, _REJECTION_ALIASES, REJECTIONS),
        "combine": _choice(config, names.combine, _COMBINE_ALIASES, COMBINATIONS),
    }
    chosen: dict[str, Any] = {name: value for name, value in choices.items() if value is not None}
    if chosen.get("rejection") == "winsorized_sigma_clip" and str(config.get("wsc_impl") or "") == _WSC_LEGACY:
        chosen["rejection"] = "winsorized_quantile"
    return chosen


def _choice(config: Mapping[str, Any], name: str, aliases: Mapping[str, str], known: tuple[str, ...]) -> str | None:
    """Return this library's name of a choice, None where nothing is set."""
    value = config.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        check_choice(name, value, known)
    spelled = value.strip().lower().replace("-", "_").replace(" ", "_")
    chosen: str = aliases.get(spelled, spelled)
    check_choice(name, chosen, known)
    return chosen


def _converted(name: str, value: Any, convert: Callable[[Any], Any], expected: str) -> Any:
    """Return a converted setting; its name stands in the message where that fails."""
    try:
        return convert(value)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"{name} is {value!r}; expected {expected}") from error


def _number(name: str, value: Any) -> float:
    """Return a setting as a float; text is read too, with a decimal point or comma."""
    number: float = _converted(
        name, value, lambda given: float(given.replace(",", ".") if isinstance(given, str) else given), "a number"
    )
    return number


def _pair(name: str, value: Any) -> tuple[float, float]:
    """Return two numbers of a pair or of text as in "0.05,0.05"."""

    def convert(given: Any) -> tuple[float, float]:
        parts = given.split(",") if isinstance(given, str) else list(given)
        low, high = (float(part) for part in parts)
        return low, high

    pair: tuple[float, float] = _converted(name, value, convert, "two numbers, as in 0.05,0.05")
    return pair
