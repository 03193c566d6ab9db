"""Master bias, darks and flats, made by the stacker, and what they do to a frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.frames.pixel_rows import FilePool
from zemosaic_stack_core.options import StackOptions
from zemosaic_stack_core.prepare.cache import save_array
from zemosaic_stack_core.prepare.headers.raw_frame import RawFrame
from zemosaic_stack_core.stacking.run import stack
from zemosaic_stack_core.system.file_stamps import hash_text

_Image = npt.NDArray[np.float32]

# Relative difference of exposure times that are the same; timers are that good.
_SAME_EXPOSURE = 0.02
# Of a flat's typical response: such a pixel saw nothing.
_DEAD = 0.1
_REJECTION = StackOptions(rejection="mad_clip", kappa_low=4.0, kappa_high=4.0)


@dataclass(frozen=True, kw_only=True)
class Masters:
    """The master frames of a set, as ``.npy`` files."""

    bias: Path | None = None
    # Exposure time, seconds, and master dark, bias included.
    darks: tuple[tuple[float | None, Path], ...] = ()
    # Filter and master flat, divided by its typical value (of each color of a mosaic).
    flats: tuple[tuple[str, Path], ...] = ()
    # Darks of other exposure times may be scaled.
    scale_darks: bool = False
    # How many frames of each kind the masters were made of, for reports.
    counts: tuple[tuple[str, int], ...] = ()

    def dark_for(self, frame: RawFrame) -> tuple[Path, float] | None:
        """Return the dark for a frame and the factor of its current; None without darks, raise where none fits."""
        if not self.darks:
            return None
        wanted = frame.exposure
        for exposure, path in self.darks:
            same = wanted is None or exposure is None
            if same or abs((exposure or 0.0) - (wanted or 0.0)) <= _SAME_EXPOSURE * max(wanted or 0.0, 1e-9):
                return path, 1.0
        times = ", ".join(f"{exposure:g} s" for exposure, _ in self.darks if exposure is not None)
        if not self.scale_darks:
            raise InvalidInputError(
                f"{frame.name}: exposure {wanted:g} s, darks of {times}; expected darks of that time, or --scale-darks"
            )
        if self.bias is None:
            raise InvalidInputError(
                f"{frame.name}: exposure {wanted:g} s, darks of {times}, no biases; expected biases to scale darks"
            )
        exposure, path = min(self.darks, key=lambda dark: abs(np.log((dark[0] or 1e-9) / (wanted or 1e-9))))
        return path, (wanted or 0.0) / (exposure or 1.0)

    def flat_for(self, frame: RawFrame) -> Path | None:
        """Return the flat of a frame's filter; the only one where filters are not named; None where there are none."""
        if not self.flats:
            return None
        named = dict(self.flats)
        if frame.filter in named:
            return named[frame.filter]
        if len(named) == 1 and ("" in named or not frame.filter):
            return next(iter(named.values()))
        raise InvalidInputError(
            f"{frame.name}: filter {frame.filter or 'not named'}, flats of {', '.join(sorted(named))}; "
            "expected a flat of the same filter"
        )

    @property
    def signature(self) -> tuple[str, ...]:
        """Names of the master files, which hold the signatures of what they were made of."""
        paths = [self.bias, *(path for _, path in self.darks), *(path for _, path in self.flats)]
        return tuple(path.name for path in paths if path is not None)


def make_masters(calibration: Sequence[RawFrame], folder: Path, *, scale_darks: bool, pattern: str | None) -> Masters:
    """Combine calibration frames of one shape; masters made before of the same files are found again in the folder.

    With a Bayer `pattern` each color of a flat has its own level.

    Notes
    -----
    Outliers (cosmic rays, stars in twilight flats) are clipped at 4 robust deviations. Flats have the bias (or a dark
    of their exposure time) subtracted and are brought to one level before they are combined.
    """
    biases, darks, flats = ([f for f in calibration if f.kind == kind] for kind in ("bias", "dark", "flat"))
    bias = _combine(biases, folder, "bias") if biases else None
    grouped: dict[float | None, list[RawFrame]] = {}
    for dark in darks:
        key = next((t for t in grouped if _same_time(t, dark.exposure)), dark.exposure)
        grouped.setdefault(key, []).append(dark)
    masters = tuple((exposure, _combine(group, folder, "dark")) for exposure, group in grouped.items())
    by_filter: dict[str, list[RawFrame]] = {}
    for flat in flats:
        by_filter.setdefault(flat.filter, []).append(flat)
    made = tuple(
        (name, _combine_flats(group, folder, bias, masters, pattern)) for name, group in sorted(by_filter.items())
    )
    counts = (("bias", len(biases)), ("dark", len(darks)), ("flat", len(flats)))
    return Masters(bias=bias, darks=masters, flats=made, scale_darks=scale_darks, counts=counts)


def calibrate(frame: RawFrame, pixels: _Image, masters: Masters) -> _Image:
    """Return a frame without bias and dark current, divided by the flat; pixels that a flat calls dead are NaN."""
    found = masters.dark_for(frame)
    bias = None if masters.bias is None else np.load(masters.bias, mmap_mode="r")
    image = pixels
    if found is not None:
        path, factor = found
        dark = np.load(path, mmap_mode="r")
        if factor == 1.0:
            image = image - dark
        else:
            assert bias is not None  # noqa: S101 - dark_for has made sure
            image = image - bias - np.float32(factor) * (dark - bias)
    elif bias is not None:
        image = image - bias
    flat_path = masters.flat_for(frame)
    if flat_path is not None:
        flat = np.load(flat_path, mmap_mode="r")
        with np.errstate(divide="ignore", invalid="ignore"):
            image = np.where(flat > _DEAD, image / flat, np.float32(np.nan))
    return np.asarray(image, np.float32)


def _same_time(first: float | None, second: float | None) -> bool:
    """Return whether two exposure times are the same."""
    if first is None or second is None:
        return first is second
    return abs(first - second) <= _SAME_EXPOSURE * max(first, second, 1e-9)


def _name(frames: Sequence[RawFrame], kind: str, *more: object) -> str:
    """Return a file name that changes with any of the files."""
    text = repr((sorted(frame.signature for frame in frames), kind, more))
    return f"master-{kind}-{hash_text(text)[:16]}.npy"


def _combine(frames: Sequence[RawFrame], folder: Path, kind: str) -> Path:
    """Stack biases or darks."""
    target = folder / _name(frames, kind)
    if not target.exists():
        save_array(target, stack([frame.source or frame.path for frame in frames], options=_REJECTION, maps=()).image)
    return target


def _combine_flats(
    flats: Sequence[RawFrame],
    folder: Path,
    bias: Path | None,
    darks: Sequence[tuple[float | None, Path]],
    pattern: str | None,
) -> Path:
    """Stack flats at one level, and divide by their typical response."""
    target = folder / _name(flats, "flat", bias and bias.name, [path.name for _, path in darks], pattern)
    if target.exists():
        return target
    with TemporaryDirectory(dir=folder) as scratch:
        leveled = []
        for index, flat in enumerate(flats):
            exact = [path for exposure, path in darks if _same_time(exposure, flat.exposure) and exposure is not None]
            dark = exact[0] if exact else bias
            with FilePool(1) as files:
                pixels = flat.read_pixels(files)
            if dark is not None:
                pixels = pixels - np.load(dark)
            level = float(np.nanmedian(pixels))
            if not level > 0:
                raise InvalidInputError(f"{flat.name}: median {level:g} after bias or dark; expected light in a flat")
            leveled.append(Path(scratch, f"{index}.npy"))
            np.save(leveled[-1], pixels / np.float32(level), allow_pickle=False)
        image = stack(leveled, options=_REJECTION, maps=()).image
    if pattern is not None:
        for row in (0, 1):
            for column in (0, 1):
                plane = image[row::2, column::2]
                image[row::2, column::2] = plane / np.float32(np.nanmedian(plane))
    else:
        image = image / np.float32(np.nanmedian(image))
    save_array(target, image)
    return target
