"""`Combiner`: ccdproc's class, whose rejection and combination are the stack's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.stats import sigma_clip

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.frames.array_frames import ArrayFrame
from zemosaic_stack_core.frames.group import FrameGroup, open_frames
from zemosaic_stack_core.frames.host_arrays import is_array, shape_of, to_host
from zemosaic_stack_core.kernel.rules.centered import MAD_TO_SIGMA
from zemosaic_stack_core.nddata.clipping import Statistic, clip_options, for_astropy
from zemosaic_stack_core.nddata.cube import BOUNDS, Cube, bounds_of, flat_shape
from zemosaic_stack_core.nddata.namespaces import Namespace, host_dtype
from zemosaic_stack_core.options import StackOptions
from zemosaic_stack_core.stacking.result import StackResult

_Array = npt.NDArray[Any]
_Function = Callable[..., Any]
_NO_RULE = StackOptions(rejection="none")


class Combiner:
    """Combine `~astropy.nddata.CCDData` objects, with ccdproc's names.

    Parameters
    ----------
    ccd_iter : iterable of CCDData
        Frames of one shape and unit, in any array library, of any number of axes. They are not copied: what is changed
        in one before it is combined changes the answer.
    dtype : dtype, optional
        Type of the results; by default float64. The numbers are computed as the stack does, from float32 samples.

    Raises
    ------
    TypeError
        A frame is no CCDData, or has another shape or unit than the first.

    Notes
    -----
    Samples that are masked or not finite take part in nothing. `sigma_clipping` and `clip_extrema` see the frames
    scaled; what they do to equal samples is defined in "What a stack is" in the documentation. Results have the
    caller's array library and device, ``NCOMBINE`` in their ``meta``, and a mask where no sample is left. Where ccdproc
    differs is listed in "From ccdproc" in the documentation.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.nddata import CCDData
    >>> from zemosaic_stack_core.nddata import Combiner
    >>> combiner = Combiner(CCDData(np.full((2, 3), value), unit="adu") for value in (10.0, 11.0, 12.0, 99.0))
    >>> combiner.clip_extrema(nhigh=1)
    >>> combiner.average_combine().data[0]
    array([11., 11., 11.])
    """

    def __init__(self, ccd_iter: Iterable[CCDData], dtype: Any = None) -> None:
        if ccd_iter is None:
            raise TypeError("ccd_iter is None; expected CCDData objects")
        self.ccd_list = list(ccd_iter)
        if not self.ccd_list:
            raise InvalidInputError("ccd_iter is empty; expected at least one CCDData")
        check_alike(self.ccd_list)
        first = self.ccd_list[0]
        self.unit = first.unit
        self._dtype = np.float64 if dtype is None else dtype
        self._space = Namespace.of(first.data)
        self._shape = shape_of(first.data)
        self._masks = [_mask_of(ccd) for ccd in self.ccd_list]
        # What the last clip rejects, until someone looks: a combination then does both in one pass.
        self._rule = _NO_RULE
        self._opened: FrameGroup | None = None
        self._cube: np.ma.MaskedArray[Any, Any] | None = None
        self._weights: Any = None
        self._scaling: _Array | None = None

    @property
    def dtype(self) -> Any:
        """Type of the results."""
        return self._dtype

    @property
    def data_arr(self) -> np.ma.MaskedArray[Any, Any]:
        """The frames as one masked array of NumPy's, a copy from now on combined in their place."""
        self._settle()
        if self._cube is None:
            kind = host_dtype(self._dtype)
            values = np.empty((len(self.ccd_list), *self._shape), kind if kind.kind == "f" else np.float64)
            masks = np.zeros(values.shape, bool)
            cube = self._flat()
            for frame, (samples, mask) in enumerate(zip(cube.frames, cube.masks, strict=True)):
                values[frame] = to_host(samples, f"frame {frame}").reshape(self._shape)
                if mask is not None:
                    masks[frame] = mask.reshape(self._shape)
            self._cube = np.ma.array(values, mask=masks, copy=False)
        return self._cube

    @property
    def weights(self) -> Any:
        """One weight per frame, or per sample; None for equal ones."""
        return self._weights

    @weights.setter
    def weights(self, value: Any) -> None:
        if value is not None:
            if not is_array(value):
                raise TypeError(f"weights is {type(value).__name__}; expected an array")
            count = len(self.ccd_list)
            if shape_of(value) not in ((count,), (count, *self._shape)):
                raise InvalidInputError(
                    f"weights has the shape {shape_of(value)}; expected {(count,)} or {(count, *self._shape)}"
                )
        self._weights = value

    @property
    def scaling(self) -> _Array | None:
        """Number that each frame is multiplied by, shape (frame, 1, ...); None for 1.

        A function of a frame, a masked array, may be given for them.
        """
        return self._scaling

    @scaling.setter
    def scaling(self, value: Sequence[float] | _Function | None) -> None:
        self._settle()
        if value is None:
            self._scaling = None
            return
        count = len(self.ccd_list)
        factors: Any = [value(self._masked(frame)) for frame in range(count)] if callable(value) else value
        if not hasattr(factors, "__len__"):
            raise TypeError(f"scaling is {factors!r}; expected a function or one number per frame")
        if len(factors) != count:
            raise InvalidInputError(f"scaling has {len(factors)} numbers; expected {count}, one per frame")
        numbers = np.array([np.nan if one is np.ma.masked else float(one) for one in factors])
        if not np.isfinite(numbers).all():
            raise InvalidInputError(f"scaling is {numbers.tolist()}; expected finite numbers")
        self._scaling = numbers.reshape(count, *(1,) * len(self._shape))

    def clip_extrema(self, nlow: int | None = 0, nhigh: int | None = 0) -> None:
        """Mask the lowest `nlow` and the highest `nhigh` samples of each pixel.

        Masked samples count, as in ccdproc; NaN do not. Of equal samples all are masked or none.
        """
        rule = StackOptions(rejection="minmax", n_low=nlow or 0, n_high=nhigh or 0)
        self._settle()
        cube = self._flat()
        if all(mask is None for mask in cube.masks):
            self._reject_by(rule)
        else:
            self._reject(Cube(cube.frames, (None,) * len(cube.frames), cube.scales).outside(rule))

    def minmax_clipping(self, min_clip: float | None = None, max_clip: float | None = None) -> None:
        """Mask samples below `min_clip` or above `max_clip`, before any scaling."""
        self._settle()
        outside = []
        for frame, samples in enumerate(self._flat().frames):
            values = to_host(samples, f"frame {frame}")
            found = np.zeros(values.shape, bool)
            if min_clip is not None:
                found |= values < min_clip
            if max_clip is not None:
                found |= values > max_clip
            outside.append(found)
        self._reject(outside)

    def sigma_clipping(
        self,
        low_thresh: float | None = 3,
        high_thresh: float | None = 3,
        func: Statistic = "mean",
        dev_func: Statistic = "std",
        **kwd: Any,
    ) -> None:
        """Mask samples farther from the center of their pixel than so many deviations.

        Parameters
        ----------
        low_thresh, high_thresh : float or None
            Bounds below and above, in units of the deviation; None for no bound. The sign does not matter.
        func : {"mean", "median"} or callable
            Center.
        dev_func : {"std", "mad_std"} or callable
            Deviation.
        **kwd
            ``maxiters``, by default 1, and what else `astropy.stats.sigma_clip` takes.
        """
        kwd.pop("use_astropy", None)
        kwd = {"maxiters": 1, **{name: value for name, value in kwd.items() if (name, value) != ("axis", 0)}}
        kwd.pop("copy", None)
        options = None
        if kwd.keys() == {"maxiters"}:
            options = clip_options(low_thresh, high_thresh, func, dev_func, kwd["maxiters"])
        if options is not None:
            self._settle()
            self._reject_by(options)
            return
        bounds = (np.inf if one is None else abs(one) for one in (low_thresh, high_thresh))
        kwd = {"axis": 0, **kwd} | dict(zip(("sigma_lower", "sigma_upper"), bounds, strict=True))
        cenfunc, stdfunc = for_astropy(func), for_astropy(dev_func)
        clipped = sigma_clip(self._values(None), cenfunc=cenfunc, stdfunc=stdfunc, masked=True, **kwd)
        self._reject([mask.reshape(flat_shape(self._shape)) for mask in np.ma.getmaskarray(clipped)])

    def median_combine(
        self, median_func: _Function | None = None, scale_to: Any = None, uncertainty_func: _Function | None = None
    ) -> CCDData:
        """Return the median.

        Parameters
        ----------
        median_func, uncertainty_func : callable, optional
            Functions to call instead, with the scaled frames as a masked array and ``axis=0``.
        scale_to : float or array, optional
            Number, or one per frame, to multiply by in place of `scaling`.

        Returns
        -------
        CCDData
            Its uncertainty is 1.4826 times the median absolute deviation over the square root of the samples.
        """
        if self._weights is not None:
            raise InvalidInputError("weights with median_combine; expected weights None, or another combination")
        values = None if median_func is uncertainty_func is None else self._values(scale_to)
        cube, rejects = self._flat(scale_to), self._rule is not _NO_RULE
        result = cube.stack(replace(self._rule, combine="median"), ("coverage", *(BOUNDS if rejects else ())))
        if uncertainty_func is None:
            error = cube.deviation(result.image, bounds_of(result) if rejects else None).astype(np.float64)
            error *= MAD_TO_SIGMA
        else:
            error = _called(uncertainty_func, values)
        image = result.image if median_func is None else _called(median_func, values)
        return self._ccd(image, _coverage(result), _over_root(error, _coverage(result)))

    def average_combine(
        self,
        scale_func: _Function | None = None,
        scale_to: Any = None,
        uncertainty_func: _Function | None = None,
        sum_func: _Function | None = None,
    ) -> CCDData:
        """Return the mean, weighted where `weights` are set.

        Parameters
        ----------
        scale_func, uncertainty_func : callable, optional
            Functions to call instead for the unweighted mean and for the deviation, with the scaled frames as a masked
            array and ``axis=0``.
        scale_to : float or array, optional
            Number, or one per frame, to multiply by in place of `scaling`.
        sum_func : callable, optional
            Function to call instead for the sums of a weighted mean.

        Returns
        -------
        CCDData
            Its uncertainty is the standard deviation (ddof 0) over the square root of the samples; that of a weighted
            mean takes the weights in.
        """
        result, error = self._mean(scale_to, uncertainty_func)
        image: Any = result.image
        if self._weights is None and scale_func is not None:
            image = _called(scale_func, self._values(scale_to))
        elif self._weights is not None and sum_func is not None:
            values, weights = self._values(scale_to), self._weight_cube()
            image = _called(sum_func, values * weights) / _called(sum_func, np.ma.array(weights, mask=values.mask))
        return self._ccd(image, _coverage(result), error)

    def sum_combine(
        self, sum_func: _Function | None = None, scale_to: Any = None, uncertainty_func: _Function | None = None
    ) -> CCDData:
        """Return the sum of the samples that are there, weighted where `weights` are set.

        Parameters
        ----------
        sum_func, uncertainty_func : callable, optional
            Functions to call instead for the sum and for the deviation, with the scaled frames as a masked array and
            ``axis=0``.
        scale_to : float or array, optional
            Number, or one per frame, to multiply by in place of `scaling`.

        Returns
        -------
        CCDData
            0 where no sample is left. Its uncertainty is that of `average_combine` times the sum of the weights.
        """
        result, error = self._mean(scale_to, uncertainty_func, "weight_map")
        total = np.asarray(result.weight_map, np.float64)
        image: Any = np.nan_to_num(result.image.astype(np.float64)) * total
        if sum_func is not None:
            values = self._values(scale_to)
            image = _called(sum_func, values if self._weights is None else values * self._weight_cube())
        return self._ccd(image, _coverage(result), error * total)

    def _mean(self, scale_to: Any, uncertainty_func: _Function | None, *maps: str) -> tuple[StackResult, _Array]:
        """Return the mean, with its coverage and more maps, and its uncertainty, ddof 0."""
        weights = self._flat_weights()
        values = None if uncertainty_func is None else self._values(scale_to)
        if weights is not None and not (weights > 0.0).all():  # to the rule they would be missing, and are not
            self._settle()
        result = self._flat(scale_to).stack(self._rule, ("coverage", "variance", *maps), weights)
        coverage = _coverage(result)
        if uncertainty_func is not None:
            return result, _over_root(_called(uncertainty_func, values), coverage)
        count = len(self.ccd_list)
        n = np.arange(count + 1)
        factors = np.sqrt((n - 1.0).clip(0.0) / np.maximum(n, 1))  # from ddof 1 to ddof 0
        error = np.sqrt(np.asarray(result.variance)).astype(np.float64)
        error *= factors[count] if coverage.min() == count else np.take(factors, coverage)
        error[coverage == 1] = 0.0
        return result, error

    def _flat(self, scale_to: Any = None) -> Cube:
        """Return the frames as images of two axes, with their masks and scales."""
        if scale_to is not None:  # the last clip saw other values
            self._settle()
        shape, count = flat_shape(self._shape), len(self.ccd_list)
        if self._cube is not None:
            frames = list(self._cube.data.reshape(count, *shape))
            masks = [mask if mask.any() else None for mask in np.ma.getmaskarray(self._cube).reshape(count, *shape)]
        else:
            if self._opened is None:  # which computes dask arrays, once for all passes
                self._opened = open_frames([_reshaped(ccd.data, shape) for ccd in self.ccd_list])
            frames = [source.array for source in self._opened.sources if isinstance(source, ArrayFrame)]
            masks = self._masks
        factors = self._scaling if scale_to is None else np.asarray(scale_to, np.float64)
        if factors is None:
            return Cube(tuple(frames), tuple(masks))
        scales = tuple(np.broadcast_to(factors.ravel(), count).tolist())
        return Cube(tuple(frames), tuple(masks), scales)

    def _reject_by(self, rule: StackOptions) -> None:
        """Let a rule mask samples: at once where someone may be looking at the masks."""
        self._rule = rule
        if self._cube is not None:
            self._settle()

    def _settle(self) -> None:
        """Mask what the last clip rejects."""
        if self._rule is not _NO_RULE:
            rule, self._rule = self._rule, _NO_RULE
            self._reject(self._flat().outside(rule))

    def _reject(self, outside: Sequence[_Array]) -> None:
        """Mask samples, of which there is an image of two axes for each frame."""
        for frame, found in enumerate(outside):
            if self._cube is not None:
                np.ma.getmaskarray(self._cube)[frame] |= found.reshape(self._shape)
            elif found.any():
                mask = self._masks[frame]
                self._masks[frame] = found if mask is None else mask | found

    def _masked(self, frame: int) -> np.ma.MaskedArray[Any, Any]:
        """Return a frame as a masked array of its own shape, not scaled."""
        cube = self._flat()
        mask = cube.masks[frame]
        values = to_host(cube.frames[frame], f"frame {frame}").astype(np.float64).reshape(self._shape)
        return np.ma.array(values, mask=False if mask is None else mask.reshape(self._shape))

    def _values(self, scale_to: Any) -> np.ma.MaskedArray[Any, Any]:
        """Return the scaled frames for a function of the caller's, NaN where masked, for those that ignore masks."""
        self._settle()
        scales = self._flat(scale_to).scales or (1.0,) * len(self.ccd_list)
        values = np.ma.stack([self._masked(frame) * scale for frame, scale in enumerate(scales)])
        mask = np.ma.getmaskarray(values) | ~np.isfinite(values.data)
        values.data[mask] = np.nan
        return np.ma.array(values.data, mask=mask)

    def _flat_weights(self) -> Any:
        """Return the weights as the stack takes them."""
        if self._weights is None:
            return None
        weights = to_host(self._weights, "weights")
        return weights if weights.ndim == 1 else weights.reshape(len(self.ccd_list), *flat_shape(self._shape))

    def _weight_cube(self) -> _Array:
        """Return a weight for every sample."""
        weights = to_host(self._weights, "weights").astype(np.float64)
        count = len(self.ccd_list)
        per_sample = weights.reshape(count, *(1,) * len(self._shape)) if weights.ndim == 1 else weights
        return np.broadcast_to(per_sample, (count, *self._shape))

    def _ccd(self, image: Any, coverage: _Array, error: _Array) -> CCDData:
        """Return a result in the caller's array library."""
        kind = host_dtype(self._dtype)
        error = self._space.give(error.reshape(self._shape), kind if kind.kind == "f" else np.float64)
        ccd = CCDData(
            self._space.give(np.reshape(image, self._shape), kind),
            unit=self.unit,
            uncertainty=StdDevUncertainty(error, copy=False),
        )
        ccd.mask = (coverage == 0).reshape(self._shape)  # NumPy's in any case: astropy sees to that
        ccd.meta["NCOMBINE"] = len(self.ccd_list)
        return ccd


def check_alike(ccds: Sequence[CCDData]) -> None:
    """Raise `TypeError` unless all are CCDData of one shape and unit."""
    for frame, ccd in enumerate(ccds):
        if not isinstance(ccd, CCDData):
            raise TypeError(f"frame {frame} is {type(ccd).__name__}; expected CCDData")
        if ccd.shape != ccds[0].shape:
            raise TypeError(f"frame {frame} has the shape {ccd.shape}; expected {ccds[0].shape} as frame 0")
        if ccd.unit != ccds[0].unit:
            raise TypeError(f"frame {frame} has the unit {ccd.unit}; expected {ccds[0].unit} as frame 0")


def _mask_of(ccd: CCDData) -> _Array | None:
    """Return a frame's mask as an image of two axes; None without one."""
    if ccd.mask is None:
        return None
    mask = to_host(ccd.mask, "mask") if is_array(ccd.mask) else np.asarray(ccd.mask)
    return np.broadcast_to(mask.astype(bool), shape_of(ccd.data)).reshape(flat_shape(shape_of(ccd.data)))


def _reshaped(data: Any, shape: tuple[int, int]) -> Any:
    """Return an array of any library in another shape."""
    return data if shape_of(data) == shape else Namespace.of(data).xp.reshape(data, shape)


def _coverage(result: StackResult) -> _Array:
    """Return the coverage, which was asked for."""
    return np.asarray(result.coverage)


def _called(function: _Function, values: Any) -> _Array:
    """Return what a function of the caller's makes of the frames, NaN where it masks."""
    return np.ma.filled(np.ma.asarray(function(values, axis=0), np.float64), np.nan)


def _over_root(deviation: _Array, coverage: _Array) -> _Array:
    """Return a deviation over the square root of the number of samples."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return deviation.reshape(coverage.shape) / np.sqrt(coverage)
