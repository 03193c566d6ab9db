"""`combine`: ccdproc's function. Frames go through a `Combiner` band by band, read from their files as they come up."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from astropy.nddata import CCDData, StdDevUncertainty

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.frames.bands import BandReader
from zemosaic_stack_core.frames.file_frames import probe_frame
from zemosaic_stack_core.frames.group import FrameGroup, open_frames
from zemosaic_stack_core.frames.heads import read_head
from zemosaic_stack_core.frames.host_arrays import is_array, shape_of, to_host
from zemosaic_stack_core.frames.planes import PlanesGiven
from zemosaic_stack_core.frames.units import astropy_unit
from zemosaic_stack_core.nddata.clipping import Statistic, clip_options
from zemosaic_stack_core.nddata.combiner import Combiner, check_alike
from zemosaic_stack_core.nddata.namespaces import Namespace

METHODS = ("average", "median", "sum")
# Arguments of `CCDData.read` that bands of rows can be read by; with others a file is read whole.
_BY_ROWS = {"unit", "hdu", "hdu_mask"}
# Of a band, bytes a sample: its mask and what is added to it; a pixel: answers, float64; a sample of which a function
# of the caller's sees copies.
_SAMPLE_BYTES, _PIXEL_BYTES, _CALLED_BYTES = 2, 80, 32
# The rest of the limit is for the stack's own working set.
_SHARE = 0.5


def combine(
    img_list: Any,
    output_file: str | os.PathLike[str] | None = None,
    method: str = "average",
    weights: Any = None,
    scale: Sequence[float] | Callable[..., Any] | None = None,
    mem_limit: float = 16e9,
    clip_extrema: bool = False,
    nlow: int | None = 1,
    nhigh: int | None = 1,
    minmax_clip: bool = False,
    minmax_clip_min: float | None = None,
    minmax_clip_max: float | None = None,
    sigma_clip: bool = False,
    sigma_clip_low_thresh: float | None = 3,
    sigma_clip_high_thresh: float | None = 3,
    sigma_clip_func: Statistic = "mean",
    sigma_clip_dev_func: Statistic = "std",
    dtype: Any = None,
    combine_uncertainty_function: Callable[..., Any] | None = None,
    overwrite_output: bool = False,
    **ccdkwargs: Any,
) -> CCDData:
    """Combine files or `~astropy.nddata.CCDData` objects, with ccdproc's names, in bands of rows.

    Parameters
    ----------
    img_list : iterable of paths or of CCDData, or str
        The frames; one text has names with commas between.
    output_file : path, optional
        FITS file to write; that it exists is found before any work is done.
    method : {"average", "median", "sum"}
        Combination; see `Combiner`.
    weights : array, optional
        One weight per frame, or per sample.
    scale : sequence of float or callable, optional
        Number that each frame is multiplied by, or a function of its data.
    mem_limit : float
        Bytes that a band of all frames may take, besides the result.
    clip_extrema, nlow, nhigh
        Whether to mask so many samples at each end: `Combiner.clip_extrema`.
    minmax_clip, minmax_clip_min, minmax_clip_max
        Whether to mask samples out of a range: `Combiner.minmax_clipping`.
    sigma_clip, sigma_clip_low_thresh, sigma_clip_high_thresh, sigma_clip_func, sigma_clip_dev_func
        Whether to clip: `Combiner.sigma_clipping`.
    dtype : dtype, optional
        Type of the result; by default float64.
    combine_uncertainty_function : callable, optional
        Function to call for the uncertainty.
    overwrite_output : bool
        An existing file may be replaced.
    **ccdkwargs
        Of `CCDData.read`. With others than ``unit``, ``hdu`` and ``hdu_mask`` files are read whole, as are those with
        more than two axes.

    Returns
    -------
    CCDData
        With header and WCS of the first frame, and ``NCOMBINE``.

    Raises
    ------
    InvalidInputError
        There are no frames, or an argument does not fit.
    TypeError
        The frames have different shapes or units.
    FileExistsError, FileNotFoundError
        The output exists and `overwrite_output` is false, or its folder doesn't exist.
    """
    images = _listed(img_list)
    if method not in METHODS:
        raise InvalidInputError(f"unrecognised combine method : {method}. Expected one of: {', '.join(METHODS)}")
    if output_file is not None and not overwrite_output and Path(output_file).exists():
        name = os.fspath(output_file)
        raise FileExistsError(f"File {name} already exists; expected another name or overwrite_output=True")
    if output_file is not None and not (folder := Path(output_file).absolute().parent).is_dir():
        raise FileNotFoundError(f"{os.fspath(output_file)}: there is no folder {folder}; expected one to write in")
    clips: dict[str, dict[str, Any]] = {}
    if clip_extrema:
        clips["clip_extrema"] = {"nlow": nlow, "nhigh": nhigh}
    if minmax_clip:
        clips["minmax_clipping"] = {"min_clip": minmax_clip_min, "max_clip": minmax_clip_max}
    if sigma_clip:
        bounds = {"low_thresh": sigma_clip_low_thresh, "high_thresh": sigma_clip_high_thresh}
        clips["sigma_clipping"] = {**bounds, "func": sigma_clip_func, "dev_func": sigma_clip_dev_func}
    scaling = [scale(_read(image, ccdkwargs).data) for image in images] if callable(scale) else scale
    recipe = _Recipe(method, weights, scaling, clips, combine_uncertainty_function, dtype)
    with ExitStack() as stack:
        source = _open_source(images, ccdkwargs, stack)
        ccd = _combined(source, recipe, int(mem_limit * _SHARE))
    if output_file is not None:
        ccd.write(output_file, overwrite=overwrite_output)
    return ccd


def _listed(img_list: Any) -> list[Any]:
    """Return the frames as a list of paths or of CCDData."""
    if isinstance(img_list, np.ndarray):
        img_list = img_list.tolist()
    if isinstance(img_list, str):
        img_list = img_list.split(",")
    if not isinstance(img_list, Iterable) or isinstance(img_list, CCDData):
        raise InvalidInputError(
            f"unrecognised input for list of images to combine. It is {type(img_list).__name__}; expected a list of "
            "paths or of CCDData"
        )
    images = list(img_list)
    if not images:
        raise InvalidInputError("img_list is empty; expected at least one frame")
    return images


@dataclass(frozen=True)
class _Recipe:
    """What to do with a band of all frames."""

    method: str
    weights: Any
    scaling: Sequence[float] | None
    # Methods of `Combiner` that mask samples, in this order, and their arguments.
    clips: Mapping[str, Mapping[str, Any]]
    uncertainty_func: Callable[..., Any] | None
    dtype: Any

    @property
    def sample_bytes(self) -> int:
        """Bytes that a sample takes beside itself."""
        clip = self.clips.get("sigma_clipping")
        is_called = self.uncertainty_func is not None
        if clip is not None:
            is_called |= (
                clip_options(clip["low_thresh"], clip["high_thresh"], clip["func"], clip["dev_func"], 1) is None
            )
        return _CALLED_BYTES if is_called else _SAMPLE_BYTES

    def apply(self, ccds: Sequence[CCDData], start: int, stop: int) -> CCDData:
        """Combine rows `start` to `stop` of all frames."""
        combiner = Combiner(ccds, self.dtype)
        is_per_sample = is_array(self.weights) and len(shape_of(self.weights)) > 1
        combiner.weights = self.weights[:, start:stop, ...] if is_per_sample else self.weights
        combiner.scaling = self.scaling
        for clip, arguments in self.clips.items():
            getattr(combiner, clip)(**arguments)
        given = {} if self.uncertainty_func is None else {"uncertainty_func": self.uncertainty_func}
        ccd: CCDData = getattr(combiner, f"{self.method}_combine")(**given)
        return ccd


class _Source(Protocol):
    """Frames that hand out rows."""

    # The first frame; of a file no more than its header counts.
    first: CCDData
    shape: tuple[int, ...]
    # Bytes that a row of all frames takes.
    row_bytes: int
    count: int

    def rows(self, start: int, stop: int) -> list[CCDData]:
        """Return rows `start` to `stop` of all frames; they are good until the next call."""
        ...


class _Held:
    """Frames in memory."""

    row_bytes = 0

    def __init__(self, ccds: Sequence[CCDData]) -> None:
        check_alike(ccds)
        self._ccds = ccds
        self.first, self.shape, self.count = ccds[0], shape_of(ccds[0].data), len(ccds)

    def rows(self, start: int, stop: int) -> list[CCDData]:
        """Return rows as views."""
        if start == 0 and stop == self.shape[0]:
            return list(self._ccds)
        rows = slice(start, stop)
        return [CCDData(ccd.data[rows, ...], unit=ccd.unit, mask=_rows_of_mask(ccd, rows)) for ccd in self._ccds]


class _InFiles:
    """Frames in files, of two axes."""

    def __init__(self, group: FrameGroup, reader: BandReader, first: CCDData) -> None:
        self._group, self._reader, self.first = group, reader, first
        self.shape, self.count = group.shape, len(group.sources)
        self.row_bytes = group.columns * sum(source.dtype.itemsize for source in group.sources)
        self._buffers: list[Any] = []

    def rows(self, start: int, stop: int) -> list[CCDData]:
        """Return rows in buffers that the next ones overwrite."""
        self._buffers = self._buffers or self._reader.allocate(stop - start)
        band = self._reader.read(start, stop, self._buffers)
        return [
            CCDData(samples[0], unit=self.first.unit, mask=None if mask is None else mask[0])
            for samples, mask in zip(band.samples, band.masks, strict=True)
        ]


def _open_source(images: Sequence[Any], ccdkwargs: Mapping[str, Any], stack: ExitStack) -> _Source:
    """Return the frames, files among them open until `stack` is left."""
    for index, image in enumerate(images):
        if not isinstance(image, (CCDData, str, os.PathLike)):
            raise InvalidInputError(f"frame {index} is {type(image).__name__}; expected a path or CCDData")
    first = _read(images[0], ccdkwargs)
    are_files = not any(isinstance(image, CCDData) for image in images)
    if not are_files or ccdkwargs.keys() - _BY_ROWS or len(first.shape) != 2:
        return _Held([first, *(_read(image, ccdkwargs) for image in images[1:])])
    header = CCDData(np.empty((0, 0)), unit=first.unit, meta=first.meta, wcs=first.wcs)
    # As `CCDData.read` has it: no mask of that name is none, and uncertainties don't count.
    mask = ccdkwargs.get("hdu_mask", "MASK")
    hdu = ccdkwargs.get("hdu", 0)
    given = PlanesGiven(
        image_extension=None if hdu == 0 else str(hdu),
        mask_extension=None if mask == "MASK" else mask or "",
        variance_extension="",
    )
    frames = [probe_frame(read_head(image, extension=given.image_extension)) for image in images]
    for frame in frames:
        if "unit" not in ccdkwargs and frame.unit and astropy_unit(frame.unit) != first.unit:
            raise TypeError(f"{frame.name} has the unit {frame.unit}; expected {first.unit} as {frames[0].name}")
    # The unit is that of the call, or looked at: no other is converted.
    group = open_frames([replace(frame, unit="") for frame in frames], None, given)
    return _InFiles(group, stack.enter_context(BandReader(group)), header)


def _combined(source: _Source, recipe: _Recipe, limit: int) -> CCDData:
    """Combine all rows, in bands that take `limit` bytes."""
    rows, pixels = source.shape[0], int(np.prod(source.shape[1:]))
    row_bytes = source.row_bytes + pixels * (source.count * recipe.sample_bytes + _PIXEL_BYTES)
    step = max(1, limit // row_bytes)
    if step >= rows:
        ccd = recipe.apply(source.rows(0, rows), 0, rows)
    else:
        bands = _bands(rows, step)
        ccd = _joined(((start, recipe.apply(source.rows(start, stop), start, stop)) for start, stop in bands), rows)
    first = source.first
    ccd.meta = deepcopy(first.meta)
    ccd.meta["NCOMBINE"] = source.count
    ccd.wcs = first.wcs
    return ccd


def _bands(rows: int, step: int) -> Iterator[tuple[int, int]]:
    """Yield the ends of bands of `step` rows."""
    for start in range(0, rows, step):
        yield start, min(start + step, rows)


def _joined(parts: Iterator[tuple[int, CCDData]], rows: int) -> CCDData:
    """Return bands, each with its first row, as one image of so many rows, in the array library that they are in."""
    planes: list[Any] = []
    for start, part in parts:
        bands = [to_host(plane, "band") for plane in (part.data, part.mask, part.uncertainty.array)]
        planes = planes or [np.empty((rows, *band.shape[1:]), band.dtype) for band in bands]
        for plane, band in zip(planes, bands, strict=True):
            plane[start : start + len(band)] = band
    give = Namespace.of(part.data).give
    image, mask, error = planes
    return CCDData(give(image), unit=part.unit, mask=mask, uncertainty=StdDevUncertainty(give(error), copy=False))


def _rows_of_mask(ccd: CCDData, rows: slice) -> Any:
    """Return rows of a mask, which may be one value for all."""
    return ccd.mask[rows, ...] if is_array(ccd.mask) and shape_of(ccd.mask) == ccd.shape else ccd.mask


def _read(image: Any, ccdkwargs: Mapping[str, Any]) -> CCDData:
    """Return a frame, read where it is a file."""
    return image if isinstance(image, CCDData) else CCDData.read(image, **ccdkwargs)
