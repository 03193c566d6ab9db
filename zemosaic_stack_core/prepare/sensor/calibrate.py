"""Master bias, darks and flats, made by the stacker, and what they do to a frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.frames.known_folders import DARK_FLAT
from zemosaic_stack_core.frames.pixel_rows import FilePool
from zemosaic_stack_core.options import StackOptions
from zemosaic_stack_core.prepare.cache import save_array
from zemosaic_stack_core.prepare.headers.raw_frame import RawFrame
from zemosaic_stack_core.prepare.medians import median_of_present
from zemosaic_stack_core.prepare.options import PrepareOptions
from zemosaic_stack_core.prepare.sensor.belonging import (
    Fit,
    Group,
    fit_lines,
    fitting_group,
    group_calibration,
    left_out_line,
    mismatch,
)
from zemosaic_stack_core.stacking.run import stack
from zemosaic_stack_core.system.file_stamps import hash_text

_Image = npt.NDArray[np.float32]

# Of a flat's typical response: such a pixel saw nothing.
_DEAD = 0.1
# Part of a flat's pixels that are all at its highest value.
_SATURATED = 0.02
_REJECTION = StackOptions(rejection="mad_clip", kappa_low=4.0, kappa_high=4.0)


@dataclass(frozen=True, kw_only=True)
class Masters:
    """The master frames of a set, as ``.npy`` files: one per state of the sensor that a frame needs."""

    biases: tuple[Group, ...] = ()
    # Bias included; those of the flats' exposure times only for flats.
    darks: tuple[Group, ...] = ()
    dark_flats: tuple[Group, ...] = ()
    # Divided by their typical value (of each color of a mosaic).
    flats: tuple[Group, ...] = ()
    # Darks of other exposure times may be scaled.
    scale_darks: bool = False
    # Calibration frames may contradict what they calibrate.
    trusts: bool = False
    # How many frames of each kind the masters were made of, for reports.
    counts: tuple[tuple[str, int], ...] = ()
    # What the user should know: frames left out, facts that can't be compared.
    lines: tuple[str, ...] = ()

    def dark_for(self, frame: RawFrame) -> tuple[Fit, float] | None:
        """Return the dark for a frame and the factor of its current; None without darks, raise where none fits."""
        if not self.darks:
            return None
        fit = fitting_group(frame, self.darks, trusts=False)
        if fit is not None:
            return fit, 1.0
        others = [group for group in self.darks if fitting_group(frame, [group], trusts=False, skip=("exposure",))]
        if self.scale_darks and others:
            return self._scaled(frame, others)
        fit = fitting_group(frame, self.darks, trusts=True) if self.trusts else None
        if fit is not None:
            return fit, 1.0
        if not others:
            raise mismatch(frame, self.darks, ("exposure",))
        raise InvalidInputError(
            f"{frame.name}: exposure {frame.exposure:g} s, darks of {_times(others)}; expected darks of that time, "
            "or --scale-darks"
        )

    def _scaled(self, frame: RawFrame, darks: Sequence[Group]) -> tuple[Fit, float]:
        """Return the dark of the nearest exposure time, and the factor of its current."""
        wanted = frame.exposure or 0.0
        if not self.biases:
            raise InvalidInputError(
                f"{frame.name}: exposure {wanted:g} s, darks of {_times(darks)}, no biases; "
                "expected biases to scale darks"
            )
        dark = min(darks, key=lambda group: abs(np.log((group.facts.exposure or 1e-9) / (wanted or 1e-9))))
        return Fit(group=dark), wanted / (dark.facts.exposure or 1.0)

    def bias_for(self, frame: RawFrame) -> Fit | None:
        """Return the bias for a frame; None without biases, raise where none fits."""
        if not self.biases:
            return None
        fit = fitting_group(frame, self.biases, trusts=self.trusts)
        if fit is None:
            raise mismatch(frame, self.biases)
        return fit

    def flat_for(self, frame: RawFrame) -> Fit | None:
        """Return the flat of a frame's filter and camera; None where there are none, raise where none fits."""
        if not self.flats:
            return None
        fit = fitting_group(frame, self.flats, trusts=self.trusts)
        if fit is None:
            raise mismatch(frame, self.flats)
        return fit

    def pedestal_of_flat(self, flat: RawFrame) -> Fit | None:
        """Return the dark of a flat's exposure time, else the bias; None where there is neither."""
        darks = [group for group in (*self.dark_flats, *self.darks) if group.facts.exposure is not None]
        fit = fitting_group(flat, darks, trusts=False) if flat.exposure is not None else None
        return fit or self.bias_for(flat)

    def light_fits(self, frame: RawFrame) -> list[Fit]:
        """Return everything that a light is calibrated with."""
        dark = self.dark_for(frame)
        fits = [None if dark is None else dark[0], self.flat_for(frame)]
        if dark is None or dark[1] != 1.0:
            fits.append(self.bias_for(frame))
        return [fit for fit in fits if fit is not None]

    @property
    def groups(self) -> tuple[Group, ...]:
        """All of them."""
        return *self.biases, *self.darks, *self.dark_flats, *self.flats

    @property
    def signature(self) -> tuple[str, ...]:
        """Names of the master files, which hold the signatures of what they were made of."""
        return tuple(group.path.name for group in self.groups if group.path is not None)


def make_masters(
    calibration: Sequence[RawFrame],
    folder: Path,
    *,
    lights: Sequence[RawFrame],
    options: PrepareOptions | None = None,
    pattern: str | None = None,
    workers: int | None = None,
) -> Masters:
    """Combine the calibration frames that belong to lights; masters made before are found again in the folder.

    With a Bayer `pattern` each color of a flat has its own level; `workers` is the stacker's. Raise where frames belong
    to no light.

    Notes
    -----
    Outliers (cosmic rays, stars in twilight flats) are clipped at 4 robust deviations. Flats have a dark of their
    exposure time (or the bias) subtracted and are brought to one level before they are combined.
    """
    options = options or PrepareOptions()
    by_kind = {kind: [f for f in calibration if f.kind == kind] for kind in ("bias", "dark", DARK_FLAT, "flat")}
    counts = (
        ("bias", len(by_kind["bias"])),
        ("dark", len(by_kind["dark"]) + len(by_kind[DARK_FLAT])),
        ("flat", len(by_kind["flat"])),
    )
    made = {kind: tuple(group_calibration(frames, kind)) for kind, frames in by_kind.items()}
    plan = Masters(
        biases=made["bias"],
        darks=made["dark"],
        dark_flats=made[DARK_FLAT],
        flats=made["flat"],
        scale_darks=options.scale_darks,
        trusts=options.trust_calibration,
        counts=counts,
    )
    distinct = {(light.facts, light.shape, light.channels): light for light in lights}.values()
    fits = [(light, fit) for light in distinct for fit in plan.light_fits(light)]
    flats = {id(fit.group): fit.group for _, fit in fits if fit.group.kind == "flat"}
    pedestals = [(flat, plan.pedestal_of_flat(flat)) for group in flats.values() for flat in group.frames]
    fits += [(flat, fit) for flat, fit in pedestals if fit is not None]
    used = {id(fit.group) for _, fit in fits}
    lines = fit_lines(fits)
    for groups in made.values():
        # A bias that the dark holds already, and a dark flat of flats that are not there, belong all the same.
        others = [group for group in groups if id(group) not in used]
        if others and (len(others) < len(groups) or groups[0].kind == DARK_FLAT):
            lines.append(left_out_line(others, list(distinct)))
    kept = {kind: tuple(g for g in groups if id(g) in used) for kind, groups in made.items()}
    plan = replace(
        plan,
        biases=tuple(_combine(group, folder, workers) for group in kept["bias"]),
        darks=tuple(_combine(group, folder, workers) for group in kept["dark"]),
        dark_flats=tuple(_combine(group, folder, workers) for group in kept[DARK_FLAT]),
    )
    made_flats = tuple(_combine_flats(group, folder, plan, pattern, workers) for group in kept["flat"])
    lines += [f"{group.line}: {group.said}" for group in made_flats if group.said]
    return replace(plan, flats=made_flats, lines=tuple(lines))


def calibrate(frame: RawFrame, pixels: _Image, masters: Masters) -> _Image:
    """Return a frame without bias and dark current, divided by the flat; pixels that a flat calls dead are NaN."""
    found = masters.dark_for(frame)
    image = pixels
    if found is not None:
        dark, factor = _load(found[0]), found[1]
        if factor == 1.0:
            image = image - dark
        else:
            bias = _load(masters.bias_for(frame))
            image = image - bias
            image -= np.float32(factor) * (dark - bias)
    elif masters.biases:
        image = image - _load(masters.bias_for(frame))
    flat_fit = masters.flat_for(frame)
    if flat_fit is not None:
        flat = _load(flat_fit)
        with np.errstate(divide="ignore", invalid="ignore"):
            image = np.divide(image, flat, out=None if image is pixels else image)
        image.reshape(-1)[_dead(_path(flat_fit))] = np.nan
    return image


def _load(fit: Fit | None) -> _Image:
    """Return the pixels of a group's master."""
    return _open(_path(fit))


def _path(fit: Fit | None) -> Path:
    """Return the file of a group's master."""
    assert fit is not None  # noqa: S101 - the masters were made for these frames
    assert fit.group.path is not None  # noqa: S101
    return fit.group.path


@lru_cache(maxsize=8)
def _open(path: Path) -> _Image:
    """Return the pixels of a master, opened once for all frames: its name changes with its content."""
    image: _Image = np.load(path, mmap_mode="r")
    return image


@lru_cache(maxsize=8)
def _dead(path: Path) -> npt.NDArray[np.intp]:
    """Return the flat indices of the pixels that a flat calls dead."""
    return np.flatnonzero(~(_open(path) > _DEAD))


def _times(groups: Sequence[Group]) -> str:
    """Return the exposure times of darks in words."""
    return ", ".join(f"{g.facts.exposure:g} s" for g in groups if g.facts.exposure is not None)


def _name(frames: Sequence[RawFrame], kind: str, *more: object) -> str:
    """Return a file name that changes with any of the files."""
    text = repr((sorted(frame.signature for frame in frames), kind, more))
    return f"master-{kind}-{hash_text(text)[:16]}.npy"


def _combine(group: Group, folder: Path, workers: int | None) -> Group:
    """Stack biases or darks."""
    target = folder / _name(group.frames, group.kind.replace(" ", "-"))
    if not target.exists():
        sources = [frame.source or frame.path for frame in group.frames]
        save_array(target, stack(sources, options=_REJECTION, maps=(), workers=workers).image)
    return replace(group, path=target)


def _combine_flats(group: Group, folder: Path, masters: Masters, pattern: str | None, workers: int | None) -> Group:
    """Stack flats at one level, and divide by their typical response."""
    pedestals = [masters.pedestal_of_flat(flat) for flat in group.frames]
    names = [fit and fit.group.path and fit.group.path.name for fit in pedestals]
    target = folder / _name(group.frames, "flat", names, pattern)
    if target.exists():
        return replace(group, path=target)
    said = ""
    with TemporaryDirectory(dir=folder) as scratch:
        leveled = []
        for index, (flat, pedestal) in enumerate(zip(group.frames, pedestals, strict=True)):
            with FilePool(1) as files:
                pixels = flat.read_pixels(files)
            said = said or _saturated(pixels)
            if pedestal is not None:
                pixels = pixels - _load(pedestal)
            level = median_of_present(pixels)
            if not level > 0:
                raise InvalidInputError(f"{flat.name}: median {level:g} after bias or dark; expected light in a flat")
            leveled.append(Path(scratch, f"{index}.npy"))
            np.save(leveled[-1], pixels / np.float32(level), allow_pickle=False)
        image = stack(leveled, options=_REJECTION, maps=(), workers=workers).image
    if pattern is not None:
        for row in (0, 1):
            for column in (0, 1):
                plane = image[row::2, column::2]
                image[row::2, column::2] = plane / np.float32(median_of_present(plane))
    else:
        image = image / np.float32(median_of_present(image))
    save_array(target, image)
    return replace(group, path=target, said=said)


def level_lines(masters: Masters, light: RawFrame, files: FilePool) -> list[str]:
    """Return a line about each dark that is brighter than a light; raise where its unit is not the light's."""
    if not masters.groups:
        return []
    pixels = light.read_pixels(files)
    lines, middle = [], median_of_present(pixels)
    for group in (*masters.biases, *masters.darks):
        level = _load(Fit(group=group))
        if _is_unit(level) != _is_unit(pixels):
            raise InvalidInputError(
                f"{group.frames[0].name}: values up to {np.nanmax(level):.3g}, in {light.name} up to "
                f"{np.nanmax(pixels):.3g}; expected one unit (0 to 1, or counts) in all frames"
            )
        typical = median_of_present(level)
        if masters.dark_for(light) and typical > middle:
            lines.append(f"{group.line}: brighter ({typical:.5g}) than {light.path.name} ({middle:.5g})")
    return lines


def _saturated(pixels: _Image) -> str:
    """Return how much of a flat is saturated, in words; empty where next to nothing is."""
    top = float(np.nanmax(pixels))
    part = float(np.mean(pixels >= top))
    return f"saturated ({100 * part:.0f} % of its pixels are at {top:g})" if part > _SATURATED else ""


def _is_unit(pixels: _Image) -> bool:
    """Return whether values are of the range 0 to 1 that programs which process images use."""
    return bool(np.nanmax(pixels) <= 1.5)
