"""ccdproc's own tests of combining, from its installed package, on our `Combiner` and `combine`; once more with dask.

Its test functions run as they are, from its modules, in which the two names are ours.
"""

from __future__ import annotations

import importlib
import sys
from types import SimpleNamespace

import pytest
from astropy.nddata import CCDData, StdDevUncertainty

from zemosaic_stack_core import nddata

for needed in ("ccdproc", "memory_profiler", "dask.array"):
    pytest.importorskip(needed, reason=f"{needed} is not installed (extra test)")
theirs = importlib.import_module("ccdproc.tests.test_combiner")
pytestmark = theirs.pytestmark

# All of ccdproc 2.5.1's but one, with what each is tried with 67 cases.
NAMES = """
1Dweights 3d_combiner_with_scaling average_combine_uncertainty ccddata_combiner_objects ccddata_combiner_size
ccddata_combiner_units clip_extrema clip_extrema_3d clip_extrema_via_combine clip_extrema_with_other_rejection
combine_average_ccddata combine_average_fitsimages combine_bad_input combine_image_file_collection_input
combine_limitedmem_fitsimages combine_limitedmem_scale_fitsimages combine_numpyndarray combine_overwrite_output
combine_result_uncertainty_and_mask combiner_3d combiner_average combiner_create combiner_dtype combiner_empty
combiner_gen combiner_image_file_collection_input combiner_init_with_none combiner_mask combiner_mask_average
combiner_mask_median combiner_mask_sum combiner_median combiner_minmax combiner_minmax_max combiner_minmax_min
combiner_result_dtype combiner_scaling_fails combiner_sigmaclip_high combiner_sigmaclip_low
combiner_sigmaclip_single_pix combiner_sum combiner_sum_weighted combiner_sum_weighted_by_pixel
combiner_uncertainty_average combiner_uncertainty_average_mask combiner_uncertainty_median_mask
combiner_uncertainty_sum_mask combiner_with_scaling combiner_with_scaling_uncertainty median_combine_uncertainty
pixelwise_weights sum_combine_uncertainty user_supplied_combine_func_that_relies_on_masks weights weights_shape
writeable_after_combine
"""
PASSING = NAMES.split()
LEFT_OUT = {"ystep_calculation": "5 cases of ccdproc's private _calculate_step_sizes, which nothing of ours is"}
globals().update({f"test_{name}": getattr(theirs, f"test_{name}") for name in PASSING})


def in_dask(frames):
    """Return CCDData with their pixels in dask arrays of several blocks; whatever else there is stays as it is."""
    import dask.array

    def in_blocks(ccd):
        if not isinstance(ccd, CCDData):
            return ccd
        blocks = tuple(max(1, length // 2) for length in ccd.shape)
        return CCDData(dask.array.from_array(ccd.data, blocks), unit=ccd.unit, mask=ccd.mask, meta=ccd.meta)

    return frames if frames is None or isinstance(frames, int) else [in_blocks(frame) for frame in frames]


def computed(ccd):
    """Return a result in dask arrays with NumPy's, for tests that know no other."""
    import dask.array

    assert isinstance(ccd.data, dask.array.Array)
    assert isinstance(ccd.uncertainty.array, dask.array.Array)
    error = StdDevUncertainty(ccd.uncertainty.array.compute())
    return CCDData(ccd.data.compute(), unit=ccd.unit, mask=ccd.mask, uncertainty=error, meta=ccd.meta)


class DaskCombiner(nddata.Combiner):
    """Ours, whose frames are in dask arrays."""

    def __init__(self, ccd_iter, dtype=None):
        super().__init__(in_dask(ccd_iter), dtype)

    def average_combine(self, *args, **kwds):
        return computed(super().average_combine(*args, **kwds))

    def median_combine(self, *args, **kwds):
        return computed(super().median_combine(*args, **kwds))

    def sum_combine(self, *args, **kwds):
        return computed(super().sum_combine(*args, **kwds))


def combine_in_dask(img_list, *args, **kwds):
    """Ours, whose frames, if in memory, are in dask arrays."""
    frames = in_dask(img_list)
    result = nddata.combine(frames, *args, **kwds)
    return computed(result) if isinstance(frames[0], CCDData) else result


LIBRARIES = {
    "numpy": SimpleNamespace(Combiner=nddata.Combiner, combine=nddata.combine),
    "dask": SimpleNamespace(Combiner=DaskCombiner, combine=combine_in_dask),
}


@pytest.fixture(autouse=True, params=LIBRARIES)
def ours(request, monkeypatch):
    """Put our names in the place of ccdproc's."""
    for module in (theirs, sys.modules["ccdproc.combiner"]):
        monkeypatch.setattr(module, "Combiner", LIBRARIES[request.param].Combiner)
        monkeypatch.setattr(module, "combine", LIBRARIES[request.param].combine)
    return request.param


def test_every_test_of_theirs_is_listed():
    """A release of ccdproc's with more of them is looked at before it is let in (pyproject.toml)."""
    found = {name.removeprefix("test_") for name in dir(theirs) if name.startswith("test_")}
    assert found == {*PASSING, *LEFT_OUT}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="ccdproc's test sets a limit that Windows does not have")
@pytest.mark.parametrize("name", ["chunks", "no_chunks"])
def test_open_files(name, ours, monkeypatch):
    """15 files with at most 20 open: their test, whose script finds ours under ccdproc's name."""
    if ours == "dask":
        pytest.skip("of files there is no dask array")
    module = importlib.import_module("ccdproc.tests.test_combine_open_files")
    replaced = "import ccdproc, runpy, sys; from zemosaic_stack_core import nddata; ccdproc.combine = nddata.combine; "
    run = "del sys.argv[0]; runpy.run_path(sys.argv[0], run_name='__main__')"
    executable, *rest = module.common_args
    monkeypatch.setattr(module, "common_args", [executable, "-c", f"{replaced}{run}", *rest])
    getattr(module, f"test_open_files_combine_{name}")()


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ccdproc's test is for Linux")
def test_memory_use(ours, monkeypatch):
    """10 files of 16 MB with a limit of 500 MB, and watched while they are combined."""
    if ours == "dask":
        pytest.skip("of files there is no dask array")
    module = importlib.import_module("ccdproc.tests.test_memory_use")
    monkeypatch.setattr(importlib.import_module("ccdproc.tests.run_for_memory_profile"), "combine", nddata.combine)
    module.setup_module()
    try:
        for method in ("average", "sum", "median"):
            module.test_memory_use_in_combine(method)
    finally:
        module.teardown_module()
