"""What people hold in memory, handed to `stack` as it is: more than `test_table_of_inputs` has in a row."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, InverseVariance, NDData, StdDevUncertainty, UnknownUncertainty, VarianceUncertainty
from astropy.utils.masked import Masked

from zemosaic_stack_core import InvalidInputError, StackOptions, stack

da = pytest.importorskip("dask.array", reason="dask is an extra")

ROWS, COLUMNS, N = 11, 13, 4
PLAIN = StackOptions(rejection="none")


def make() -> tuple[Any, Any]:
    """Return frames and a mask of each."""
    rng = np.random.default_rng(5)
    frames = rng.integers(100, 1000, (N, ROWS, COLUMNS)).astype(np.float32)
    return frames, rng.random(frames.shape) < 0.2


FRAMES, MASKS = make()


def test_a_frame_without_a_mask_has_mask_false_or_none():
    for mask in (None, False, np.ma.nomask):
        result = stack([NDData(frame, mask=mask) for frame in FRAMES], options=PLAIN)
        np.testing.assert_array_equal(result.image, stack(list(FRAMES), options=PLAIN).image)


def test_units_are_converted_to_that_of_the_first_frame():
    frames = [FRAMES[0] * u.Jy, FRAMES[1] * 1000 * u.mJy, CCDData(FRAMES[2] * 1e6, unit=u.uJy), FRAMES[3] * u.Jy]
    result = stack(frames, options=PLAIN)
    np.testing.assert_allclose(result.image, stack(list(FRAMES), options=PLAIN).image, rtol=1e-6)


UNCERTAINTIES = {
    "deviations": lambda variance: StdDevUncertainty(np.sqrt(variance)),
    "variances": VarianceUncertainty,
    "inverse": lambda variance: InverseVariance(1 / variance),
    "other unit": lambda variance: StdDevUncertainty(np.sqrt(variance) * 1000, unit=u.mJy),
}


@pytest.mark.parametrize("kind", UNCERTAINTIES.values(), ids=UNCERTAINTIES)
@pytest.mark.parametrize("combine", ["mean", "median"])
def test_uncertainties_are_propagated(kind, combine):
    variances = np.random.default_rng(1).uniform(4, 100, FRAMES.shape)
    frames = [CCDData(frame, unit="Jy", uncertainty=kind(one)) for frame, one in zip(FRAMES, variances, strict=True)]
    options = StackOptions(rejection="none", combine=combine)
    found = stack(frames, options=options, maps="variance")
    expected = stack(list(FRAMES), options=options, variances=variances, maps="variance")
    np.testing.assert_allclose(found.variance, expected.variance, rtol=1e-5)
    assert found.given.arrays == ("variances",)


def test_uncertainties_are_weights_and_follow_the_unit():
    variances = np.random.default_rng(1).uniform(4, 100, FRAMES.shape)
    factors, frame_units = (1, 1e3, 1, 1e3), (u.Jy, u.mJy, u.Jy, u.mJy)
    frames = [
        CCDData(frame * factor, unit=unit, uncertainty=StdDevUncertainty(np.sqrt(one) * factor))
        for frame, one, factor, unit in zip(FRAMES, variances, factors, frame_units, strict=True)
    ]
    options = StackOptions(rejection="none", weighting="inverse_variance")
    found = stack(frames, options=options)
    np.testing.assert_allclose(found.image, stack(list(FRAMES), options=options, variances=variances).image, rtol=1e-5)


def test_uncertainties_that_cannot_be_used_are_refused():
    good = CCDData(FRAMES[0], unit="adu", uncertainty=StdDevUncertainty(np.ones_like(FRAMES[0])))
    unknown = CCDData(FRAMES[0], unit="adu", uncertainty=UnknownUncertainty(np.ones_like(FRAMES[0])))
    with pytest.raises(InvalidInputError, match="frame 0 has an uncertainty of type UnknownUncertainty; expected"):
        stack([unknown, unknown])
    with pytest.raises(InvalidInputError, match="frame 0 has an uncertainty and frame 1 has none; expected"):
        stack([good, CCDData(FRAMES[1], unit="adu")])
    with pytest.raises(InvalidInputError, match="variances and uncertainties of frames; expected one source"):
        stack([good, good], variances=np.ones((2, 1, 1)))


def test_cubes_of_planes_first_are_refused():
    cube = np.zeros((6, 20, 30), np.float32)
    with pytest.raises(InvalidInputError, match=r"frame 0 has shape \(6, 20, 30\), which is 30 channels; .*moveaxis"):
        stack([cube, cube])
    assert stack([np.moveaxis(cube, 0, -1)] * 2).image.shape == (20, 30, 6)


@pytest.mark.parametrize("normalization", ["none", "additive"])
def test_a_dask_frame_is_computed_once(normalization):
    calls = []

    def block(values: Any) -> Any:
        calls.append(values.shape)
        return values

    frames = [da.from_array(frame, chunks=-1).map_blocks(block, meta=np.empty((0, 0), np.float32)) for frame in FRAMES]
    options = StackOptions(rejection="none", normalization=normalization)
    result = stack(frames, options=options, rows_per_chunk=2)
    assert calls == [(ROWS, COLUMNS)] * N
    np.testing.assert_array_equal(result.image, stack(list(FRAMES), options=options).image)


def test_dask_frames_keep_their_16_bits_and_their_channels():
    frames = np.random.default_rng(0).integers(0, 60000, (N, ROWS, COLUMNS, 3)).astype(np.uint16)
    result = stack([da.from_array(frame, chunks=(4, 6, 2)) for frame in frames], options=PLAIN)
    np.testing.assert_array_equal(result.image, stack(list(frames), options=PLAIN).image)


def test_dask_blocks_that_are_masked_unawares_are_refused():
    frame = da.from_array(FRAMES[0].astype(np.uint16), chunks=-1)
    hidden = frame.map_blocks(lambda block: np.ma.MaskedArray(block, MASKS[0]), meta=np.empty((0, 0), np.uint16))
    with pytest.raises(InvalidInputError, match="frame 0 is masked and its _meta is not; expected a masked _meta"):
        stack([hidden])


@pytest.mark.parametrize("name", ["weights", "variances"])
@pytest.mark.parametrize("many", [lambda cube: cube, list], ids=["cube", "list"])
def test_planes_that_are_masked_or_have_a_unit_are_refused(name, many):
    ones = np.ones(FRAMES.shape)
    for masked in (np.ma.MaskedArray(ones, MASKS), Masked(ones, MASKS)):
        with pytest.raises(InvalidInputError, match=f"{name} are masked; expected numbers for all samples"):
            stack(list(FRAMES), **{name: many(masked)})
    with pytest.raises(InvalidInputError, match=f"{name} have the unit adu2; expected plain numbers"):
        stack(list(FRAMES), **{name: many(ones * u.adu**2)})


def test_weights_of_frames_that_are_masked_are_refused():
    with pytest.raises(InvalidInputError, match="weights are masked"):
        stack(list(FRAMES), weights=np.ma.MaskedArray([1, 2, 3, 4], [0, 0, 1, 0]))


def test_one_uncertainty_for_all_samples():
    frames = [NDData(frame, uncertainty=StdDevUncertainty(2.0)) for frame in FRAMES]
    np.testing.assert_array_equal(stack(frames, options=PLAIN, maps="variance").variance, np.float32(4 / N))


def test_magnitudes_are_not_converted():
    with pytest.raises(InvalidInputError, match=r"frame 1 has the unit Jy; expected mag\(AB\) as in frame 0"):
        stack([CCDData(FRAMES[0], unit=u.ABmag), CCDData(FRAMES[1], unit=u.Jy)])


class Rows:
    """Rows handed out when they are asked for."""

    def __init__(self, array: Any) -> None:
        self._array, self.shape, self.dtype, self.most = array, array.shape, array.dtype, 0

    def __getitem__(self, key: Any) -> Any:
        rows = self._array[key]
        self.most = max(self.most, rows.shape[0])
        return rows


def test_an_object_that_hands_out_rows_is_a_frame():
    frames = [Rows(frame) for frame in FRAMES]
    result = stack(frames, options=PLAIN, rows_per_chunk=3)
    np.testing.assert_array_equal(result.image, stack(list(FRAMES), options=PLAIN).image)
    assert {frame.most for frame in frames} == {3}


def test_zarr_arrays_are_frames(tmp_path):
    zarr = pytest.importorskip("zarr", reason="zarr comes with reproject")
    stored = [zarr.array(frame, chunks=(4, 5)) for frame in FRAMES]
    np.testing.assert_array_equal(stack(stored, options=PLAIN).image, stack(list(FRAMES), options=PLAIN).image)


@pytest.mark.skipif(not hasattr(fits.Section, "dtype"), reason="this version of astropy has sections without a type")
def test_sections_of_fits_files_are_frames(tmp_path):
    paths = [tmp_path / f"{index}.fits" for index in range(N)]
    for path, frame in zip(paths, FRAMES, strict=True):
        fits.writeto(path, frame.astype(np.float64))
    with ExitStack() as opened:
        sections = [opened.enter_context(fits.open(path))[0].section for path in paths]
        np.testing.assert_array_equal(stack(sections, options=PLAIN).image, stack(list(FRAMES), options=PLAIN).image)


class TestXarray:
    """Frames with names of axes and coordinates."""

    @pytest.fixture
    def xarray(self) -> Any:
        return pytest.importorskip("xarray", reason="xarray is not installed")

    def test_its_data_are_the_frame(self, xarray):
        frames = xarray.DataArray(FRAMES, dims=("time", "y", "x"), coords={"x": np.arange(COLUMNS), "time": range(N)})
        result = stack(frames, options=PLAIN)
        np.testing.assert_array_equal(result.image, stack(list(FRAMES), options=PLAIN).image)
        lazy = stack(frames.chunk({"y": 3}), options=PLAIN)
        np.testing.assert_array_equal(lazy.image, result.image)
