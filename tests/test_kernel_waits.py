"""How often the kernel keeps a device waiting: never within a chunk, whatever the rule and the samples."""

import sys
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.kernel import critical_values, options_of
from benchmarks.waits import count_waits
from conftest import make_case
from zemosaic_stack_core import StackOptions
from zemosaic_stack_core.kernel import stack_chunk
from zemosaic_stack_core.kernel.samples import Samples
from zemosaic_stack_core.options import REJECTIONS


def samples(frames, pixels=4000):
    """Return noise in which every rule goes on for several iterations, with outliers at both ends."""
    rng = np.random.default_rng(frames)
    values = rng.normal(1000.0, 20.0, (frames, pixels)).astype(np.float32)
    values[rng.random(values.shape) < 0.04] += np.float32(900.0)
    values[rng.random(values.shape) < 0.02] -= np.float32(300.0)
    return values


@pytest.mark.parametrize("frames", [9, 90])
@pytest.mark.parametrize("rejection", REJECTIONS)
def test_a_chunk_is_one_launch_and_no_wait(rejection, frames):
    values = samples(frames)
    for missing in (0, 40):
        values[0, :missing] = np.nan
        counts = count_waits(values, options_of(rejection))
        assert (counts.programs, counts.waits.total()) == (1, 0)
        assert counts.calls.total() <= 2


def test_growth_waits_for_nothing_either():
    options = replace(StackOptions(kappa_high=2.0), grow_radius=2.0, grow_min_size=1)
    counts = count_waits(samples(9), options)
    assert (counts.programs, counts.waits.total()) == (2, 0)


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
@pytest.mark.parametrize("rejection", ["kappa_sigma", "gesd"])
def test_cupy_waits_as_often_as_is_counted(rejection):
    """A wait of CuPy copies something to the host; what emulates CuPy counts that, and launches."""
    emulator = sys.modules.get("cupyemu")
    if emulator is None:
        pytest.skip("CuPy is not emulated here: nothing counts its launches and its copies to the host")
    case = make_case("cupy")
    values = samples(9, pixels=300)
    options = StackOptions(rejection=rejection)
    critical = critical_values(9, options)
    if critical is not None:
        critical = critical._replace(values=case.make(critical.values))
    given = Samples(values=[case.make(frame) for frame in values])
    stack_chunk(case.backend, given, options, critical_values=critical)  # compiles
    before = {name: emulator.count(name) for name in ("launch", "d2h", "h2d")}
    stack_chunk(case.backend, given, options, critical_values=critical)
    made = {name: emulator.count(name) - number for name, number in before.items()}
    counts = count_waits(values, options)
    assert made["d2h"] == counts.waits.total() == 0
    assert made["h2d"] == 1  # pointers and numbers
    assert made["launch"] <= counts.programs + counts.calls.total()
