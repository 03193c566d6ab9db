"""`Combiner` and `combine` where ccdproc's own tests don't look: what it gets wrong, files, bands, array libraries."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from array_api_compat import array_namespace
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty, VarianceUncertainty
from astropy.stats import mad_std, sigma_clip
from astropy.wcs import WCS

from zemosaic_stack_core import InvalidInputError, StackOptions, stack
from zemosaic_stack_core.errors import FrameReadError
from zemosaic_stack_core.frames.host_arrays import to_host
from zemosaic_stack_core.nddata import Combiner, combine, from_ccddata, to_ccddata

METHODS = ("average", "median", "sum")


def ccds_of(*pixels, unit="adu", shape=(2, 3)):
    """Return frames that are the same everywhere."""
    return [CCDData(np.full(shape, pixel, np.float64), unit=unit) for pixel in pixels]


def noisy(n=9, shape=(13, 11), seed=1):
    """Return frames with noise, outliers, NaN and masks; pixel (0, 0) is masked in all."""
    rng = np.random.default_rng(seed)
    frames = []
    for frame in range(n):
        data = rng.normal(1000.0, 5.0, shape).astype(np.float32)
        data[frame % shape[0], 3] += 900.0
        data[4, frame % shape[1]] = np.nan
        mask = rng.random(shape) < 0.1
        mask[0, 0] = True
        frames.append(CCDData(data, unit="adu", mask=mask))
    return frames


def filled(frames, scales=None):
    """Return the frames as one float64 cube, NaN where nothing is to be seen."""
    cube = np.array([np.where(ccd.mask, np.nan, ccd.data) for ccd in frames], np.float64)
    return cube if scales is None else cube * np.reshape(scales, (-1, 1, 1))


@pytest.mark.filterwarnings("ignore:(All-NaN|Mean of empty|Degrees of freedom):RuntimeWarning")
@pytest.mark.parametrize("scales", [None, np.linspace(0.5, 2.0, 9)], ids=["", "scaled"])
def test_against_numpy(scales):
    frames = noisy()
    combiner = Combiner(frames)
    combiner.scaling = scales
    cube = filled(frames, scales)
    n = np.isfinite(cube).sum(axis=0)
    deviation = np.nanstd(cube, axis=0)
    median = np.nanmedian(cube, axis=0)
    mad = 1.482602218505602 * np.nanmedian(np.abs(cube - median), axis=0)
    for found, data, error in (
        (combiner.average_combine(), np.nanmean(cube, axis=0), deviation / np.sqrt(np.maximum(n, 1))),
        (combiner.median_combine(), median, mad / np.sqrt(np.maximum(n, 1))),
        (combiner.sum_combine(), np.nansum(cube, axis=0), deviation * np.sqrt(n)),
    ):
        np.testing.assert_allclose(found.data, data, rtol=1e-6)
        np.testing.assert_allclose(found.uncertainty.array, error, rtol=2e-4, atol=2e-4)
        np.testing.assert_array_equal(found.mask, n == 0)
        assert found.data.dtype == found.uncertainty.array.dtype == np.float64
        assert found.meta["NCOMBINE"] == 9
        assert isinstance(found.uncertainty, StdDevUncertainty)


# -- what comes out otherwise than from ccdproc: the table of docs/how-to/from-ccdproc.md -----------------------------


def masked_outlier(module):
    frames = ccds_of(*[100.0] * 8, 110.0, 1e6)
    frames[9].mask = np.ones((2, 3), bool)
    combiner = module.Combiner(frames)
    combiner.sigma_clipping(2.5, 2.5)
    return combiner.average_combine().data[0, 0]


def short_exposure(module):
    combiner = module.Combiner(ccds_of(*[100.0] * 11, 10.0))
    combiner.scaling = [1.0] * 11 + [10.0]
    combiner.sigma_clipping()
    return int(combiner.data_arr.mask[11, 0, 0])


def rejected(*thresholds, **given):
    def count(module):
        combiner = module.Combiner(ccds_of(*[100.0] * 20, 0.0))
        combiner.sigma_clipping(*thresholds, **given)
        return int(combiner.data_arr.mask[:, 0, 0].sum())

    return count


def extrema(*pixels):
    def mean(module):
        combiner = module.Combiner(ccds_of(*pixels))
        combiner.clip_extrema(nlow=1, nhigh=1)
        return combiner.average_combine().data[0, 0]

    return mean


def masked_weight(module):
    frames = ccds_of(10.0, 20.0, 30.0)
    frames[2].mask = np.ones((2, 3), bool)
    combiner = module.Combiner(frames)
    combiner.weights = np.array([1.0, 3.0, 4.0])
    assert combiner.sum_combine().data[0, 0] == 70.0
    return combiner.average_combine().data[0, 0]


def weighted_median(module):
    combiner = module.Combiner(ccds_of(10.0, 20.0, 30.0))
    combiner.weights = np.array([1.0, 3.0, 4.0])
    return combiner.median_combine().data[0, 0]


def weighted_error(module):
    combiner = module.Combiner(ccds_of(0.0, 0.0, 0.0, 10.0))
    combiner.weights = np.array([1.0, 1.0, 1.0, 100.0])
    return combiner.average_combine().uncertainty.array[0, 0]


def kind_of_uncertainty(module):
    frames = ccds_of(1.0, 3.0)
    frames[0].uncertainty = VarianceUncertainty(np.ones((2, 3)))
    return type(module.combine(frames).uncertainty)


@pytest.mark.parametrize(
    ("act", "theirs", "ours"),
    [
        (masked_outlier, 910 / 9, 100.0),
        (short_exposure, 1, 0),
        (rejected(-3, 3), 21, 1),
        (rejected(None, 3), 1, 0),
        (rejected(None, None), 1, 0),
        (rejected(3, 3, maxiters=3), TypeError, 1),
        (extrema(1.0, 2.0, 3.0, 9.0, np.nan), 14 / 3, 2.5),
        (extrema(1.0, 1.0, 2.0, 3.0), 1.5, 4 / 3),
        (lambda module: bool(np.isnan(extrema(1.0, 9.0)(module))), True, False),
        (masked_weight, 8.75, 17.5),
        (weighted_median, 20.0, InvalidInputError),
        (weighted_error, np.std([0, 0, 0, 10]) / 2, np.std([0, 0, 0, 10]) * np.sqrt(10003) / 103),
        (lambda module: module.combine(ccds_of(1.0, 2.0)).meta.get("NCOMBINE"), None, 2),
        (kind_of_uncertainty, VarianceUncertainty, StdDevUncertainty),
        (lambda module: module.combine(ccds_of(1.0, 2.0, 2.0), dtype=int).data[0, 0], 1, 2),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of ccdproc where bottleneck is not installed
@pytest.mark.parametrize("name", ["ccdproc", "zemosaic_stack_core.nddata"])
def test_what_comes_out_otherwise(name, act, theirs, ours):
    module = pytest.importorskip(name, reason="ccdproc is not installed (extra test)")
    expected = theirs if name == "ccdproc" else ours
    if isinstance(expected, type) and issubclass(expected, Exception):
        with pytest.raises(expected):
            act(module)
    elif isinstance(expected, float):
        assert act(module) == pytest.approx(expected)
    else:
        assert act(module) == expected


def test_extrema_are_those_of_scaled_frames():
    combiner = Combiner(ccds_of(100.0, 200.0, 400.0))
    combiner.scaling = [8, 2, 1]
    combiner.clip_extrema(nhigh=1)
    assert np.all(combiner.average_combine().data == 400.0)


def test_a_clip_and_a_combination_in_one_pass_are_as_one_after_the_other():
    """A clip waits for what follows; scaling, masks, weights of zero and another clip after it don't change it."""
    found, expected = Combiner(noisy()), Combiner(noisy())
    for combiner in (found, expected):
        combiner.scaling = np.linspace(1.0, 1.2, 9)
        combiner.sigma_clipping(2.0, 2.0, func="median")
    masks = expected.data_arr.mask
    assert masks.sum() > sum(ccd.mask.sum() for ccd in expected.ccd_list)
    for method in METHODS:
        one, other = (getattr(combiner, f"{method}_combine")() for combiner in (found, expected))
        np.testing.assert_allclose(one.data, other.data, rtol=1e-6)
        np.testing.assert_allclose(one.uncertainty.array, other.uncertainty.array, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(one.mask, other.mask)
    weights = np.r_[0.0, np.ones(8)]
    found.weights = expected.weights = weights
    np.testing.assert_allclose(found.average_combine().data, expected.average_combine().data, rtol=1e-6)
    for act in (
        lambda combiner: setattr(combiner, "scaling", None),
        lambda combiner: combiner.median_combine(scale_to=3.0),
        lambda combiner: combiner.sum_combine(sum_func=np.ma.sum),
        lambda combiner: combiner.minmax_clipping(min_clip=0.0),
        lambda combiner: combiner.sigma_clipping(None, None),
    ):
        combiner = Combiner(noisy())
        combiner.scaling = np.linspace(1.0, 1.2, 9)
        combiner.sigma_clipping(2.0, 2.0, func="median")
        act(combiner)
        np.testing.assert_array_equal(combiner.data_arr.mask, masks)


def test_minmax_clipping_sees_frames_as_they_are():
    combiner = Combiner(ccds_of(100.0, 110.0, 60000.0))
    combiner.scaling = [1.0, 1.0, 1e-3]
    combiner.minmax_clipping(max_clip=50000.0)
    assert np.all(combiner.average_combine().data == 105.0)


def test_the_uncertainty_of_a_weighted_mean_is_its_own():
    rng = np.random.default_rng(3)
    frames = [CCDData(rng.normal(0.0, 1.0, (300, 300)), unit="adu") for _ in range(30)]
    combiner = Combiner(frames)
    combiner.weights = np.r_[np.full(5, 100.0), np.ones(25)]  # 5 frames decide: ccdproc says 1/sqrt(30)
    found = combiner.average_combine()
    assert np.sqrt(np.mean(found.uncertainty.array**2)) == pytest.approx(np.std(found.data), rel=0.03)


def test_a_header_is_taken_over_and_not_written_to():
    frames = ccds_of(1.0, 3.0)
    frames[0].meta["OBJECT"] = "M 31"
    assert combine(frames).meta["OBJECT"] == "M 31"
    assert "NCOMBINE" not in frames[0].meta


# -- clips that no rule has, functions of the caller's ----------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        {"func": "median", "dev_func": "std", "maxiters": 5},
        {"func": "mean", "dev_func": "std", "maxiters": None},
        {"func": np.nanmedian, "dev_func": mad_std, "maxiters": 3},
        {"func": "mean", "dev_func": "mad_std"},  # no rule of the stack's
        {"func": "mean", "dev_func": mad_std},
        {"func": "median", "dev_func": "std", "grow": 1.5, "maxiters": 2},
        {"func": lambda samples, axis: np.nanmax(samples, axis=axis), "dev_func": "std"},
    ],
    ids=["median", "mean", "mad", "mean-mad", "mean-mad-function", "grow", "function"],
)
@pytest.mark.filterwarnings("ignore:All-NaN slice encountered:RuntimeWarning")
def test_any_clip_is_astropys_on_what_is_there(given):
    frames = noisy(12)
    for frame in frames:
        frame.data[0, 0], frame.mask[0, 0] = 1.0, False
    cube = np.ma.masked_invalid(filled(frames))
    # By functions astropy iterates otherwise, and `mad_std` does not leave NaN out.
    named = {mad_std: "mad_std", np.nanmedian: "median"}
    expected = sigma_clip(
        cube,
        sigma_lower=2.0,
        sigma_upper=2.5,
        axis=0,
        cenfunc=named.get(given["func"], given["func"]),
        stdfunc=named.get(given["dev_func"], given["dev_func"]),
        maxiters=given.get("maxiters", 1),
        grow=given.get("grow", False),
    )
    combiner = Combiner(frames)
    combiner.sigma_clipping(2.0, 2.5, **given)
    np.testing.assert_allclose(combiner.average_combine().data, expected.mean(axis=0).filled(np.nan), rtol=1e-6)


@pytest.mark.parametrize("function", [np.nanmax, np.ma.max, np.max])
def test_a_function_sees_nothing_masked_whatever_it_knows_of_masks(function):
    frames = ccds_of(1.0, 2.0, 99.0)
    frames[2].mask = np.ones((2, 3), bool)
    combiner = Combiner(frames)
    assert np.all(combiner.median_combine(median_func=function).data == 2.0)
    assert np.all(combiner.average_combine(uncertainty_func=function).uncertainty.array == 2.0 / np.sqrt(2.0))
    assert np.all(combiner.average_combine(scale_func=function).data == 2.0)
    assert np.all(combiner.sum_combine(sum_func=function).data == 2.0)


def test_a_weighted_mean_with_a_sum_of_the_callers():
    combiner = Combiner(ccds_of(10.0, 20.0))
    combiner.weights = np.array([1.0, 3.0])
    assert np.all(combiner.average_combine(sum_func=np.ma.sum).data == 17.5)


# -- what is handed in ------------------------------------------------------------------------------------------------


def test_data_arr_may_be_edited():
    combiner = Combiner(ccds_of(1.0, 2.0, 9.0))
    combiner.minmax_clipping(max_clip=5.0)
    assert combiner.data_arr.mask[2].all()
    combiner.data_arr[0, 0, 0] = 4.0
    combiner.data_arr.mask[1, 0, 1] = True
    combiner.minmax_clipping(min_clip=2.0)
    assert combiner.average_combine().data[0].tolist() == [3.0, pytest.approx(np.nan, nan_ok=True), 2.0]


@pytest.mark.parametrize(
    ("act", "error", "said"),
    [
        (lambda c: Combiner([]), InvalidInputError, "ccd_iter is empty; expected at least one CCDData"),
        (lambda c: Combiner([c[0], 3]), TypeError, "frame 1 is int; expected CCDData"),
        (
            lambda c: Combiner([c[0], CCDData(np.ones((2, 2)), unit="adu")]),
            TypeError,
            r"frame 1 has the shape \(2, 2\)",
        ),
        (lambda c: Combiner([c[0], CCDData(c[1].data, unit="s")]), TypeError, "frame 1 has the unit s; expected adu"),
        (lambda c: combine([]), InvalidInputError, "img_list is empty"),
        (lambda c: combine([c[0], 3]), InvalidInputError, "frame 1 is int; expected a path or CCDData"),
        (lambda c: combine(c[0]), InvalidInputError, "It is CCDData; expected a list"),
        (lambda c: combine(c, weights=np.ones(3)), InvalidInputError, r"shape \(3,\); expected \(2,\) or \(2, 2, 3\)"),
        (lambda c: combine(c, weights=[1, 2]), TypeError, "weights is list; expected an array"),
        (
            lambda c: combine(c, scale=lambda data: data.sum() * np.nan),
            InvalidInputError,
            r"scaling is \[nan, nan\]; expected",
        ),
        (lambda c: combine(c, scale=[1.0]), InvalidInputError, "scaling has 1 numbers; expected 2"),
        (lambda c: combine(c, method="median", weights=np.ones(2)), InvalidInputError, "weights with median_combine"),
        (
            lambda c: Combiner(c).sigma_clipping(0, 3),
            InvalidInputError,
            "low_thresh is 0; expected a number other than 0",
        ),
    ],
)
def test_one_clear_line(act, error, said):
    with pytest.raises(error, match=said):
        act(ccds_of(1.0, 2.0))


@pytest.mark.parametrize("shape", [(5,), (4, 5), (3, 4, 5), (2, 3, 4, 5)])
def test_any_number_of_axes(shape):
    rng = np.random.default_rng(2)
    frames = [CCDData(rng.normal(0, 1, shape), unit="adu", mask=rng.random(shape) < 0.2) for _ in range(5)]
    found = combine(frames, method="median", mem_limit=2000, weights=None)
    cube = np.ma.array([ccd.data for ccd in frames], mask=[ccd.mask for ccd in frames])
    assert found.shape == found.mask.shape == found.uncertainty.array.shape == shape
    np.testing.assert_allclose(found.data[~found.mask], np.ma.median(cube, axis=0).compressed(), atol=1e-6)


def test_whole_numbers_are_rounded_and_a_hole_is_0():
    frames = ccds_of(1.0, 2.0, 2.0)
    for frame in frames:
        frame.mask = np.zeros((2, 3), bool)
        frame.mask[0, 0] = True
    found = Combiner(frames, dtype=np.int16).average_combine()
    assert found.data.dtype == np.int16
    assert found.data.tolist() == [[0, 2, 2], [2, 2, 2]]
    assert found.uncertainty.array.dtype == np.float64


def test_answers_are_in_the_callers_library(backend):
    plain = noisy()
    expected = Combiner(plain, dtype="float32")
    frames = [CCDData(backend.make(ccd.data), unit="adu", mask=ccd.mask) for ccd in plain]
    combiner = Combiner(frames, dtype=array_namespace(frames[0].data).float32)
    for one in (expected, combiner):
        one.scaling = np.linspace(1.0, 1.5, 9)
        one.sigma_clipping(func="median", dev_func="mad_std")
    combiner.weights, expected.weights = backend.make(np.linspace(1.0, 2.0, 9)), np.linspace(1.0, 2.0, 9)
    found, known = combiner.average_combine(), expected.average_combine()
    for array, values in ((found.data, known.data), (found.uncertainty.array, known.uncertainty.array)):
        assert type(array) is type(frames[0].data)
        assert array.dtype == backend.make(values).dtype
        np.testing.assert_array_equal(to_host(array, ""), values)
    if backend.id == "array-api-strict":
        assert found.data.device == frames[0].data.device
    np.testing.assert_array_equal(found.mask, known.mask)


def test_dask_arrays_are_computed_once():
    array = pytest.importorskip("dask.array", reason="dask is not installed (extra dask)")
    computed = []

    def block(index):
        computed.append(index)
        return np.full((4, 5), float(index))

    frames = [
        CCDData(
            array.map_blocks(lambda _, index=index: block(index), array.zeros((4, 5)), meta=np.empty((0, 0))), unit="s"
        )
        for index in range(4)
    ]
    combiner = Combiner(frames)
    combiner.clip_extrema(nhigh=1)
    combiner.scaling = [1.0, 1.0, 1.0, 1.0]
    combiner.sigma_clipping(func="median")
    assert np.all(np.asarray(combiner.median_combine().data) == 1.0)
    assert np.all(np.asarray(combiner.average_combine().data) == 1.0)
    assert sorted(computed) == [0, 1, 2, 3]


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path):
    """Write frames with masks, a header and a WCS."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.cdelt = ("RA---TAN", "DEC--TAN"), (10.0, 20.0), (-1e-4, 1e-4)
    paths = []
    for index, ccd in enumerate(noisy(9, (40, 11))):
        ccd.meta["FRAME"], ccd.wcs = index, wcs
        paths.append(tmp_path / f"{index}.fits")
        ccd.write(paths[-1])
    return paths


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mem_limit", [16e9, 20_000])
def test_files_are_as_ccddata(files, method, mem_limit):
    given = {
        "method": method,
        "sigma_clip": True,
        "sigma_clip_func": "median",
        "minmax_clip": True,
        "minmax_clip_min": 900.0,
    }
    if method != "median":
        given["weights"] = np.random.default_rng(1).random((9, 40, 11)) + 0.5
    found = combine(files, mem_limit=mem_limit, scale=np.linspace(1, 2, 9), **given)
    ccds = [CCDData.read(path) for path in files]
    expected = combine(ccds, scale=np.linspace(1, 2, 9), **given)
    np.testing.assert_array_equal(found.data, expected.data)
    np.testing.assert_array_equal(found.mask, expected.mask)
    np.testing.assert_array_equal(found.uncertainty.array, expected.uncertainty.array)
    assert found.unit == u.adu
    assert (found.meta["FRAME"], found.meta["NCOMBINE"]) == (0, 9)
    assert found.wcs.wcs.crval.tolist() == [10.0, 20.0]


@pytest.mark.parametrize(
    "given",
    [
        {"sigma_clip": True},
        {"method": "median", "clip_extrema": True, "minmax_clip": True, "minmax_clip_max": 1010.0, "sigma_clip": True},
        {"combine_uncertainty_function": np.ma.std},
    ],
    ids=["clip", "clips", "function"],
)
def test_the_memory_limit_holds(given, tmp_path):
    paths = [tmp_path / f"{index}.fits" for index in range(10)]
    rng = np.random.default_rng(1)
    for path in paths:
        fits.writeto(path, rng.normal(1000.0, 5.0, (400, 500)).astype(np.float32))
    limit = 3_000_000  # of 8 MB
    combine(paths, unit="adu", mem_limit=limit, **given)  # whatever is compiled is compiled now
    tracemalloc.start()
    try:
        found = combine(paths, unit="adu", mem_limit=limit, **given)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak - found.data.nbytes - found.uncertainty.array.nbytes - found.mask.nbytes < limit


def test_names_with_commas_and_a_function_that_scales(files):
    found = combine(",".join(map(str, files[:3])), scale=lambda data: 1.0 / np.nanmedian(data))
    assert np.nanmedian(found.data) == pytest.approx(1.0, rel=0.01)


def test_a_function_for_the_uncertainty_goes_band_by_band(files):
    found, expected = (combine(files, combine_uncertainty_function=np.ma.std, mem_limit=limit) for limit in (1e9, 1e5))
    np.testing.assert_array_equal(found.uncertainty.array, expected.uncertainty.array)


def test_an_output_that_exists_is_found_before_any_work(files, tmp_path):
    with pytest.raises(FileExistsError, match=r"File .*0\.fits already exists"):
        combine([tmp_path / "missing.fits"], output_file=files[0])
    combine(files, output_file=tmp_path / "out.fits", dtype="float32")
    found = CCDData.read(tmp_path / "out.fits")
    assert found.meta["NCOMBINE"] == 9
    np.testing.assert_array_equal(found.data, combine(files, dtype="float32").data)


def test_a_folder_that_is_not_there_is_said_before_any_work(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*none; expected one to write in"):
        combine([tmp_path / "gone.fits"], tmp_path / "none" / "m.fits", unit="adu")


def test_another_unit_is_refused(files):
    with fits.open(files[2], mode="update") as hdus:
        hdus[0].header["BUNIT"] = "electron"
    with pytest.raises(TypeError, match="unit electron; expected adu"):
        combine(files)


def test_arguments_of_reading(files, tmp_path):
    with_masks, without = combine(files), combine(files, hdu_mask=None)
    assert with_masks.mask[0, 0]
    assert not without.mask[0, 0]
    paths = []
    for index in range(3):
        paths.append(tmp_path / f"multi_{index}.fits")
        images = [
            fits.ImageHDU(np.full((4, 5), 10.0 * extension + index), name=f"CHIP{extension}") for extension in (1, 2)
        ]
        fits.HDUList([fits.PrimaryHDU(), *images]).writeto(paths[-1])
    for hdu in (2, "CHIP2"):
        assert np.all(combine(paths, unit="adu", hdu=hdu).data == 21.0)
    assert np.all(combine(paths, unit="adu", hdu=2, memmap=False).data == 21.0)  # read whole
    with pytest.raises(FrameReadError, match="CHIP"):
        combine(paths, unit="adu")  # ccdproc takes the first that there is


def test_cubes_in_files_are_read_whole(tmp_path):
    paths = [tmp_path / f"{index}.fits" for index in range(3)]
    for index, path in enumerate(paths):
        CCDData(np.full((3, 4, 5), float(index)), unit="adu").write(path)
    found = combine(paths)
    assert found.shape == (3, 4, 5)
    assert np.all(found.data == 1.0)


# -- results as CCDData -----------------------------------------------------------------------------------------------


def test_a_result_as_ccddata_and_back(tmp_path):
    frames = noisy()
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = ("RA---TAN", "DEC--TAN"), (10.0, 20.0)
    for frame in frames:
        frame.meta["OBJECT"], frame.wcs = "M 31", wcs
    options = StackOptions(kappa_low=2.5, max_iterations=3)
    result = stack(frames, options=options, maps=("coverage", "variance"))
    ccd = to_ccddata(result)
    assert (ccd.unit, ccd.meta["OBJECT"], ccd.meta["NCOMBINE"], ccd.meta["ZSC_KLO"]) == (u.adu, "M 31", 9, 2.5)
    assert ccd.wcs.wcs.crval.tolist() == [10.0, 20.0]
    assert "ZSC_KLO" not in result.to_ccddata().meta
    np.testing.assert_array_equal(ccd.mask, result.coverage == 0)
    ccd.write(tmp_path / "master.fits")
    for given in (ccd, CCDData.read(tmp_path / "master.fits")):
        back = from_ccddata(given)
        np.testing.assert_array_equal(back.image, result.image)
        np.testing.assert_array_equal(back.variance, result.variance)
        assert (back.options, back.unit) == (options, "adu")
        assert back.to_ccddata().unit == u.adu
    assert to_ccddata(result, "electron").unit == u.electron


def test_a_result_without_a_variance_has_no_uncertainty():
    frames = ccds_of(1.0, 2.0, 3.0)
    assert stack(frames).to_ccddata("adu").uncertainty is None
    ends = stack(frames, options=StackOptions(combine="max", rejection="none"), maps="all")
    assert ends.to_ccddata("adu").uncertainty is None


def test_what_is_no_result_is_refused():
    with pytest.raises(FrameReadError, match="no ZSC_REJ card"):
        from_ccddata(ccds_of(1.0)[0])
    with pytest.raises(InvalidInputError, match="unit is None and the frames have none; expected a unit"):
        to_ccddata(stack([np.ones((2, 3)), np.ones((2, 3))]))


@pytest.mark.parametrize(
    ("text", "unit"), [("ADU", "adu"), ("Counts", "ct"), ("MJy/sr", "MJy / sr"), ("bananas", None)]
)
def test_units_as_headers_have_them(text, unit, tmp_path):
    for index in range(2):
        header = fits.Header({"BUNIT": text})
        fits.writeto(tmp_path / f"{index}.fits", np.ones((2, 3), np.float32), header)
    result = stack([tmp_path / "0.fits", tmp_path / "1.fits"])
    if unit is None:
        with pytest.raises(
            InvalidInputError, match="that of the frames is 'bananas'; expected a unit that astropy knows"
        ):
            result.to_ccddata()
    else:
        assert result.to_ccddata().unit == u.Unit(unit)
