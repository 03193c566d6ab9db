"""stcal's `MedianComputer` and `nanmedian3D`: its own four tests where its source release is, and ours."""

from __future__ import annotations

import importlib.util
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from zemosaic_stack_core import InvalidInputError
from zemosaic_stack_core.frames.host_arrays import to_host
from zemosaic_stack_core.nddata import MedianComputer, nanmedian3D

# An unpacked source release of stcal's, whose tests are not in its wheel: ZEMOSAIC_STCAL=FOLDER.
STCAL = os.environ.get("ZEMOSAIC_STCAL")
# Those that meet what stcal offers; its other three are of classes that it keeps to itself.
THEIRS = ["test_computer", "test_nanmedian3D", "test_memory_computer"]


@pytest.fixture
def stcal(monkeypatch):
    """Return stcal's module of tests, in which the two names are ours."""
    if not STCAL:
        pytest.skip("ZEMOSAIC_STCAL names no source release of stcal")
    monkeypatch.syspath_prepend(Path(STCAL) / "src")
    spec = importlib.util.spec_from_file_location(
        "stcal_medians", Path(STCAL, "tests/outlier_detection/test_median.py")
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "MedianComputer", MedianComputer)
    monkeypatch.setattr(module, "nanmedian3D", nanmedian3D)
    return module


@pytest.mark.parametrize("name", THEIRS)
def test_stcals_own(name, stcal, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    if name != "test_memory_computer":
        getattr(stcal, name)()
        return
    for in_memory in (True, False):
        stcal.test_memory_computer(in_memory, tmp_path)


def frames_of(n=7, shape=(21, 20), dtype=np.float32):
    """Return frames with NaN in some, and everywhere at one pixel."""
    cube = np.random.default_rng(n).normal(100.0, 5.0, (n, *shape)).astype(dtype)
    cube[2, 3:5, 4:8] = np.nan
    cube[:, 0, 0] = np.nan
    return cube


@pytest.mark.filterwarnings("ignore:All-NaN slice encountered:RuntimeWarning")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_median_is_numpys(dtype, backend):
    cube = frames_of(dtype=dtype)
    given = backend.make(cube)
    found = nanmedian3D(given)
    assert type(found) is type(given)
    assert found.dtype == given.dtype
    np.testing.assert_allclose(to_host(found, ""), np.nanmedian(cube, axis=0), rtol=1e-7)
    np.testing.assert_array_equal(to_host(given, ""), cube)


@pytest.mark.parametrize("buffer_size", [None, 4000])
def test_on_disk_as_in_memory(buffer_size, tmp_path):
    """More frames than sections: stcal refuses the fourth of seven frames here."""
    cube = frames_of()
    on_disk = MedianComputer(cube.shape, False, buffer_size=buffer_size, tempdir=tmp_path)
    in_memory = MedianComputer(cube.shape, in_memory=True)
    for index, frame in enumerate(cube):
        on_disk.append(frame)
        in_memory.append(frame, index)
    assert len(list(tmp_path.glob("*/*.rows"))) == 7
    found = on_disk.evaluate()
    np.testing.assert_array_equal(found, nanmedian3D(cube))
    np.testing.assert_array_equal(in_memory.evaluate(), found)
    assert not list(tmp_path.iterdir())
    with pytest.raises(InvalidInputError, match="no frames; expected at least one from append"):
        on_disk.evaluate()


def test_frames_that_never_came_do_not_count():
    computer = MedianComputer((5, 2, 3), in_memory=True, dtype="int32")
    for index, value in ((4, 10), (1, 13)):
        computer.append(np.full((2, 3), value), index)
    median = computer.evaluate()
    assert median.dtype == np.int32
    assert np.all(median == 12)  # 11.5, halves go to even


@pytest.mark.parametrize("is_dask", [False, True], ids=["numpy", "dask"])
def test_frames_of_any_library(is_dask, tmp_path):
    array = pytest.importorskip("dask.array", reason="dask is not installed (extra dask)")
    cube = frames_of()
    for in_memory in (True, False):
        computer = MedianComputer(cube.shape, in_memory, tempdir=tmp_path)
        for index, frame in enumerate(cube):
            computer.append(array.from_array(frame, (10, 20)) if is_dask else frame, index)
        np.testing.assert_array_equal(computer.evaluate(), nanmedian3D(cube))
    if is_dask:
        found = nanmedian3D(array.from_array(cube, (3, 10, 20)))
        assert isinstance(found, array.Array)
        np.testing.assert_array_equal(found.compute(), nanmedian3D(cube))


def test_on_disk_takes_no_more_than_a_few_frames(tmp_path):
    shape = (20, 500, 500)
    frame_bytes = 4 * 500 * 500
    computer = MedianComputer((2, 4, 4), in_memory=False, tempdir=tmp_path)  # whatever is imported is imported now
    computer.append(np.ones((4, 4), np.float32))
    computer.evaluate()
    tracemalloc.start()
    try:
        computer = MedianComputer(shape, in_memory=False, tempdir=tmp_path)
        for index in range(shape[0]):
            computer.append(np.full(shape[1:], index, np.float32))
        assert np.all(computer.evaluate() == 9.5)
        assert tracemalloc.get_traced_memory()[1] < 2.5 * frame_bytes + (1 << 20)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("shape", "in_memory", "frame", "index", "error", "said"),
    [
        ((4, 5), True, None, None, ValueError, r"full_shape is \(4, 5\); expected frames, rows and columns"),
        ((2, 4, 5), True, np.ones((4, 5)), None, ValueError, "idx is None with in_memory"),
        ((2, 4, 5), True, np.ones((5, 5)), 0, ValueError, r"shape \(5, 5\); expected \(4, 5\)"),
        ((2, 4, 5), False, np.ones((5, 5)), 0, ValueError, r"shape \(5, 5\); expected \(4, 5\)"),
        ((2, 4, 5), False, np.ones((4, 5)), 0, ValueError, "dtype float64; expected float32"),
        ((0, 4, 5), False, np.ones((4, 5), np.float32), None, IndexError, "frame 0 of 0"),
        ((2, 4, 5), True, np.ones((4, 5)), 2, IndexError, "frame 2 of 2; expected 0 to 1"),
    ],
)
def test_one_clear_line(shape, in_memory, frame, index, error, said, tmp_path):
    with pytest.raises(error, match=said):
        MedianComputer(shape, in_memory, tempdir=tmp_path).append(frame, index)


@pytest.mark.parametrize("shape", [(4, 5), (0, 4, 5), (2, 0, 5)])
def test_what_is_no_cube_is_refused(shape):
    with pytest.raises(InvalidInputError, match=r"cube has the shape .*; expected frames, rows and columns"):
        nanmedian3D(np.zeros(shape))
