"""What a stack returns: `StackResult`, with one `FrameRecord` per frame and the `RunFacts`."""

from __future__ import annotations

import importlib
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.fits.observing import ObservingFacts
from zemosaic_stack_core.frames.planes import NO_PLANES, PlanesGiven
from zemosaic_stack_core.frames.units import astropy_unit
from zemosaic_stack_core.options import MAPS, SAMPLE_MAPS, StackOptions

if TYPE_CHECKING:
    from astropy.io.fits import Header
    from astropy.nddata import CCDData
    from astropy.table import Table

# Frames that a representation on a screen shows.
MOST_SHOWN = 8
_MAP_FIELDS = (*MAPS, *SAMPLE_MAPS)
# Fields of a record with a value per channel, in the order of the table's columns.
_TABLED = ("weight", "scale", "offset", "rejected_low", "rejected_high", "missing", "sky", "noise", "fwhm")


def _brief(values: Sequence[float]) -> str:
    """Return one value per channel in a few characters."""
    return "/".join(f"{value:.4g}" if isinstance(value, float) else str(value) for value in values)


@dataclass(frozen=True, kw_only=True, repr=False)
class FrameRecord:
    """What happened to one frame; every tuple has one value per channel.

    Parameters
    ----------
    name : str
        The path as given, or ``"frame 3"`` for the fourth array of a list.
    path : Path or None
        The file the frame was read from.
    weight, scale, offset : tuple of float
        The numbers that acted (float32 values).
    rejected_low, rejected_high, missing : tuple of int
        Samples of this frame that the rule excluded below and above, and samples that took part in nothing.
    sky, noise, fwhm : tuple of float or None
        Location of the frame as read (input units), standard deviation of its background after normalization,
        star width in pixels; None where it was not measured.
    note : str
        Why the frame was not normalized or weighted as asked; empty where all went as asked.
    observing : ObservingFacts or None
        What the frame's header says of the exposure; None of an array without a header.
    header, wcs : mapping, WCS or None
        Of a frame in memory, what it said of itself (``CCDData.meta``) and where it lies; None of a file.
    """

    name: str
    path: Path | None = None
    weight: tuple[float, ...]
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    rejected_low: tuple[int, ...]
    rejected_high: tuple[int, ...]
    missing: tuple[int, ...]
    sky: tuple[float, ...] | None = None
    noise: tuple[float, ...] | None = None
    fwhm: tuple[float, ...] | None = None
    note: str = ""
    observing: ObservingFacts | None = field(default=None, compare=False)
    header: Mapping[str, Any] | None = field(default=None, compare=False)
    wcs: Any = field(default=None, compare=False)

    def __repr__(self) -> str:
        usual = {"weight": 1.0, "scale": 1.0, "offset": 0.0}
        acted = [
            f"{name} {_brief(getattr(self, name))}, "
            for name, value in usual.items()
            if any(one != value for one in getattr(self, name))
        ]
        rejected = f"rejected {_brief(self.rejected_low)} low {_brief(self.rejected_high)} high"
        note = f"; {self.note}" if self.note else ""
        return f"<FrameRecord {self.name}: {''.join(acted)}{rejected}, missing {_brief(self.missing)}{note}>"


class FrameRecords(tuple[FrameRecord, ...]):
    """The records of the frames of a stack, in the order given: a tuple that fits a screen, and makes a table."""

    __slots__ = ()

    def __repr__(self) -> str:
        shown = [f"  {index}: {record!r}" for index, record in enumerate(self[:MOST_SHOWN])]
        if len(self) > MOST_SHOWN:
            shown.append(f"  ... {len(self) - MOST_SHOWN} more; to_table() has all")
        return "\n".join([f"<{len(self)} frames>", *shown])

    def to_table(self) -> Table:
        """Return an astropy table, one row per frame; numbers of a color stack have one value per channel."""
        from astropy.table import Table

        columns: dict[str, list[Any]] = {"name": [record.name for record in self]}
        for field_name in _TABLED:
            rows = [getattr(record, field_name) for record in self]
            if all(row is not None for row in rows):
                columns[field_name] = [row[0] if len(row) == 1 else row for row in rows]
        columns["note"] = [record.note for record in self]
        return Table(columns)


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """How a stack was computed, for logs and reports; no number of the image depends on it.

    Parameters
    ----------
    chunks, rows_per_chunk, columns_per_chunk : int
        Number and size of the chunks.
    workers : int
        Threads that computed chunks.
    seconds : float
        Of the whole stack, without the estimate of the frames' numbers.
    upload_ms, compute_ms, download_ms : float
        Milliseconds of each step, summed over the chunks. On a device they are of its own clock, and overlap. On the
        host nothing is copied, and what several threads take is not counted.
    used_gpu : bool
        Every chunk came from the GPU.
    gpu_attempts : int
        Attempts on the GPU.
    fallback_reason : str
        Why the CPU made it; empty where the GPU did, or was not asked for.
    device : str
        Name of the GPU that made it, or ``"CPU"``; empty for a plain `stack`.
    """

    chunks: int = 0
    rows_per_chunk: int = 0
    columns_per_chunk: int = 0
    workers: int = 1
    seconds: float = 0.0
    upload_ms: float = 0.0
    compute_ms: float = 0.0
    download_ms: float = 0.0
    used_gpu: bool = False
    gpu_attempts: int = 0
    fallback_reason: str = ""
    device: str = ""


@dataclass(frozen=True, kw_only=True, repr=False)
class StackResult:
    """The stacked image, the maps that were asked for, and how they came about.

    Parameters
    ----------
    image : array of shape (row, column) or (row, column, channel), float32
        The combined samples in input units, NaN exactly where the coverage is 0.
    coverage, rejected_low, rejected_high : array of the image's shape, int32, or None
        Samples combined, and excluded below and above; None unless asked for.
    weight_map, variance : array of the image's shape, float32, or None
        Sum of the combined samples' weights, variance of the combined value (input units squared; NaN of min and max).
    low, high : array of the image's shape, float32, or None
        The smallest and the largest combined sample, normalized: ends of the interval that was kept.
    rejected : array of shape (frame // 8, row, column[, channel]), uint8, or None
        Which samples are rejected: bit ``frame % 8`` of plane ``frame // 8``; see `is_rejected`. No file has it.
    frames : FrameRecords
        One `FrameRecord` per frame, in the order given: a tuple, whose ``to_table()`` makes an astropy table.
    backend : str
        ``"numpy"``, ``"cupy"`` or the name of the array namespace.
    options : StackOptions
        What was asked for.
    unit : str
        Of the pixels: that of the first frame that has one. Empty where none says it.
    reference : int or None
        Index of the frame that the others were normalized to; None without normalization.
    given : PlanesGiven
        Extensions with masks and variances that were read, and which planes were given as arrays.
    facts : RunFacts
        How it was computed (chunks, workers, seconds, GPU or CPU); nothing is known of a result read from a file.
    """

    image: npt.NDArray[np.float32]
    coverage: npt.NDArray[np.int32] | None = None
    weight_map: npt.NDArray[np.float32] | None = None
    rejected_low: npt.NDArray[np.int32] | None = None
    rejected_high: npt.NDArray[np.int32] | None = None
    variance: npt.NDArray[np.float32] | None = None
    low: npt.NDArray[np.float32] | None = None
    high: npt.NDArray[np.float32] | None = None
    rejected: npt.NDArray[np.uint8] | None = None
    frames: FrameRecords
    backend: str
    options: StackOptions
    unit: str = ""
    reference: int | None = None
    given: PlanesGiven = NO_PLANES
    facts: RunFacts = RunFacts()

    def __post_init__(self) -> None:
        object.__setattr__(self, "frames", FrameRecords(self.frames))

    def __repr__(self) -> str:
        low = sum(sum(frame.rejected_low) for frame in self.frames)
        high = sum(sum(frame.rejected_high) for frame in self.frames)
        maps = [name for name in _MAP_FIELDS if getattr(self, name) is not None]
        lines = [
            f"<StackResult {' x '.join(map(str, self.image.shape))} of {len(self.frames)} frames, {self.backend}",
            f"  options  {self.options!r}",
            f"  rejected {low} samples low, {high} high",
            f"  maps     {', '.join(maps) or 'none'}>",
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Return a small picture and the representation, for a notebook."""
        import html

        from zemosaic_stack_core.stacking.pictures import thumbnail

        text = html.escape(repr(self))
        picture = f'<img src="{thumbnail(self.image)}" alt="{text.partition(" of ")[0][4:]}">'
        return f'<div style="display: flex; gap: 1em; align-items: start">{picture}<pre>{text}</pre></div>'

    def is_rejected(self, frame: int) -> npt.NDArray[np.bool_]:
        """Return which samples of a frame the rule, or growth, rejected: bool, of the image's shape.

        Raise `InvalidInputError` unless the stack was asked for the map ``rejected`` and has such a frame.
        """
        if self.rejected is None or not 0 <= frame < len(self.frames):
            found = f"frame {frame} of {len(self.frames)}" if self.rejected is not None else "no map 'rejected'"
            raise InvalidInputError(f"{found}; expected a frame of a stack with maps=[..., 'rejected']")
        flags: npt.NDArray[np.bool_] = (self.rejected[frame // 8] >> np.uint8(frame % 8) & np.uint8(1)).astype(np.bool_)
        return flags

    @cached_property
    def header(self) -> Header:
        """Header of the stack: of the reference frame or the first, what is true of all, and their exposure."""
        from zemosaic_stack_core.stacking.combined_header import combined_header

        return combined_header(self)

    @cached_property
    def wcs(self) -> Any:
        """WCS of the stack, that of the reference frame or the first; None without one."""
        from zemosaic_stack_core.stacking.combined_header import combined_wcs

        return combined_wcs(self, self.header)

    @property
    def channels(self) -> int:
        """Channels of the image."""
        return 1 if self.image.ndim == 2 else self.image.shape[2]

    def to_ccddata(self, unit: Any = None) -> CCDData:
        """Return image, variance, header and WCS as an astropy ``CCDData``, masked where no sample was combined.

        `unit` is a unit of astropy's, by default that of the frames; raise `InvalidInputError` where there is none.
        `zemosaic_stack_core.nddata.to_ccddata` writes down the options besides.
        """
        from astropy.nddata import CCDData, VarianceUncertainty

        chosen = astropy_unit(self.unit or None) if unit is None else unit
        if chosen is None:
            found = f"that of the frames is {self.unit!r}" if self.unit else "the frames have none"
            raise InvalidInputError(f"unit is None and {found}; expected a unit that astropy knows, such as 'adu'")
        is_known = self.variance is not None and not bool(np.isnan(self.variance).all())  # that of min and max is not
        return CCDData(
            self.image,
            unit=chosen,
            mask=~np.isfinite(self.image),
            uncertainty=VarianceUncertainty(self.variance, copy=False) if is_known else None,
            meta=self.header.copy(),
            wcs=self.wcs,
        )

    def write(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write image, maps and table of frames as a master, and return its path: `write_master` says how."""
        # By the package's face: what writes masters is built on results, so that an import here would go in a circle.
        written: Path = importlib.import_module("zemosaic_stack_core").write_master(path, self, overwrite=overwrite)
        return written


def without_maps(result: StackResult, names: Collection[str]) -> StackResult:
    """Return a result without some of its maps."""
    return replace(result, **dict.fromkeys(names))  # type: ignore[arg-type]


def count_empty(image: npt.NDArray[np.float32]) -> int:
    """Return the number of pixels of an image that have no value, be it in one channel."""
    has_value = np.isfinite(image)
    return int(np.count_nonzero(~(has_value if image.ndim == 2 else has_value.all(axis=2))))


def find_invalid(result: StackResult, shape: tuple[int, ...], n_frames: int) -> str:
    """Return what can't be right about a result with its coverage, empty where nothing is found.

    The image, or the coverage, is not of this shape; the image is not finite where samples were combined, or finite
    where none were; more than `n_frames` samples were combined. An image of zeros is not an error.
    """
    image, coverage = result.image, result.coverage
    if image.shape != shape:
        return f"the image has the shape {image.shape}; expected {shape}"
    if coverage is None or coverage.shape != shape:
        return f"the coverage has the shape {None if coverage is None else coverage.shape}; expected {shape}"
    if coverage.size and (coverage.min() < 0 or coverage.max() > n_frames):
        return f"the coverage runs from {coverage.min()} to {coverage.max()}; expected 0 to {n_frames}"
    is_finite = np.isfinite(image)
    is_covered = coverage > 0
    if not np.array_equal(is_finite, is_covered):
        holes = int(np.count_nonzero(is_covered & ~is_finite))
        ghosts = int(np.count_nonzero(is_finite & ~is_covered))
        return f"{holes} pixels with samples are not finite, {ghosts} without samples are finite; expected 0 and 0"
    return ""
