"""How often the kernel makes the host wait for a device: a bound per chunk and rule, whatever the samples."""

import sys

import numpy as np
import pytest

from benchmarks.waits import count_waits
from zemosaic_stack_core import StackOptions
from zemosaic_stack_core.kernel import stack_chunk
from zemosaic_stack_core.kernel.samples import Samples
from zemosaic_stack_core.options import REJECTIONS
from zemosaic_stack_core.stacking.critical_values import gesd_critical_values

# Where a few samples are missing, or one of many frames' pixels loses many samples, such pixels are a second chunk.
FEW = 10
# Rules whose iterations are made of rounds or of steps.
MORE = {"winsorized_sigma_clip": 30, "linear_fit_clip": 40}


def samples(frames, pixels=4000):
    """Return noise in which every rule goes on for several iterations, with outliers at both ends."""
    rng = np.random.default_rng(frames)
    values = rng.normal(1000.0, 20.0, (frames, pixels)).astype(np.float32)
    values[rng.random(values.shape) < 0.04] += np.float32(900.0)
    values[rng.random(values.shape) < 0.02] -= np.float32(300.0)
    return values


@pytest.mark.parametrize("frames", [9, 32, 90])
@pytest.mark.parametrize("rejection", REJECTIONS)
def test_waits(rejection, frames):
    values = samples(frames)
    options = StackOptions(
        rejection=rejection, **({"gain": 1.0, "read_noise": 20.0} if rejection == "noise_clip" else {})
    )
    most = MORE.get(rejection, FEW)
    assert count_waits(values, options).waits.total() <= (most if frames < 64 else 2 * most)
    values[0, :40] = np.nan
    assert count_waits(values, options).waits.total() <= 2 * most


def test_the_counter_sees_each_kind_of_wait():
    """What the bounds above rest on: reading a number, looking for what is true, a boolean mask, a clip."""
    from benchmarks.waits import Counts, _Namespace

    counts = Counts()
    xp = _Namespace(counts)
    values = xp.asarray(np.arange(4.0))
    values = values + 1.0
    assert counts.waits.total() == 0
    for wait in (
        lambda: bool(xp.any(values > 2.0)),
        lambda: int(xp.max(values)),
        lambda: xp.nonzero(values > 2.0),
        lambda: xp.clip(values, 1.0, 2.0),
        lambda: values[values > 2.0],
        lambda: values.__setitem__(values > 2.0, 0.0),
    ):
        before = counts.waits.total()
        wait()
        assert counts.waits.total() == before + 1
    assert counts.calls.total() > 0


@pytest.mark.gpu
@pytest.mark.parametrize("rejection", ["kappa_sigma", "linear_fit_clip", "minmax", "gesd"])
def test_cupy_waits_as_often_as_is_counted(rejection):
    """Each wait of CuPy copies something to the host; what emulates CuPy counts those."""
    emulator = sys.modules.get("cupyemu")
    if emulator is None:
        pytest.skip("CuPy is not emulated here: nothing counts its copies to the host")
    import array_api_compat.cupy as xp
    import cupy

    values = samples(9, pixels=300)
    options = StackOptions(rejection=rejection)
    critical = None if rejection != "gesd" else cupy.asarray(gesd_critical_values(9, options))
    given = Samples(values=[cupy.asarray(frame) for frame in values], has_missing=[False] * 9)
    before = emulator.count("d2h")
    stack_chunk(xp, given, options, critical_values=critical)
    assert emulator.count("d2h") - before == count_waits(values, options).waits.total()
