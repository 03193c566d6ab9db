"""How often the kernel makes the host wait for a device: a bound per chunk and rule, whatever the samples."""

import numpy as np
import pytest

from benchmarks.waits import count_waits
from zemosaic_stack_core import StackOptions
from zemosaic_stack_core.options import REJECTIONS

#: Where a few samples are missing, or one of many frames' pixels loses many samples, such pixels are a second chunk.
FEW = 10
#: Rules whose iterations are made of rounds or of steps.
MORE = {"winsorized_sigma_clip": 30, "linear_fit_clip": 40}


def samples(frames, pixels=4000):
    """Give noise in which every rule goes on for several iterations, with outliers at both ends."""
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
    """What the bounds above rest on: reading a number, looking for what is true, a boolean mask."""
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
        lambda: values[values > 2.0],
        lambda: values.__setitem__(values > 2.0, 0.0),
    ):
        before = counts.waits.total()
        wait()
        assert counts.waits.total() == before + 1
    assert counts.calls.total() > 0
