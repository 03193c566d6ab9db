"""Pixels as FITS files have them go to the program as they are: the same bits as their numbers, whatever reads them."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

from zemosaic_stack_core import StackOptions, stack
from zemosaic_stack_core.backends import numpy_backend
from zemosaic_stack_core.frames.group import open_frames
from zemosaic_stack_core.frames.pixel_rows import FilePool
from zemosaic_stack_core.stacking.job import StackRequest, make_job, plan_job
from zemosaic_stack_core.stacking.limits import ONE_WORKER

pytestmark = pytest.mark.slow

MAPS = ("image", "coverage", "weight_map", "rejected_low", "rejected_high", "variance")
# Types of pixels, and what programs call their words; the others are converted by the reader.
STORED = {"float32": "f32be", "int16": "i16be", "uint16": "u16flip", "uint8": "", "int32": "", "float64": ""}


def cubes(dtype, frames=6, shape=(3, 9, 14)):
    """Return frames of shape (channel, row, column) of a type, with outliers at both of its ends."""
    rng = np.random.default_rng(5)
    values = rng.normal(100.0, 10.0, (frames, *shape))
    if dtype != "float32":
        values = np.rint(values)
    made = values.astype(dtype)
    is_whole = np.dtype(dtype).kind in "iu"
    limits = np.iinfo(dtype) if is_whole else np.finfo(np.float32)
    made[0, :, 2, 3], made[1, :, 4, 5], made[2, :, :, 7] = (
        limits.max,
        limits.min,
        limits.max // 2 if is_whole else np.nan,
    )
    return made


def write(folder, cube, **cards):
    """Write frames as FITS files and return their paths."""
    paths = []
    for index, planes in enumerate(cube):
        hdu = fits.PrimaryHDU(planes)
        hdu.header.update(cards)
        paths.append(folder / f"frame_{index}.fits")
        hdu.writeto(paths[-1])
    return paths


def assert_same(result, expected):
    for name in MAPS:
        np.testing.assert_array_equal(getattr(result, name), getattr(expected, name), strict=True)
    for one, other in zip(result.frames, expected.frames, strict=True):
        assert (one.rejected_low, one.rejected_high, one.missing) == (
            other.rejected_low,
            other.rejected_high,
            other.missing,
        )


@pytest.mark.gpu
@pytest.mark.parametrize("rejection", ["none", "kappa_sigma", "winsorized_sigma_clip"])
@pytest.mark.parametrize("dtype", STORED)
def test_files_give_the_bits_of_arrays(backend, dtype, rejection, tmp_path):
    cube = cubes(dtype)
    options = StackOptions(rejection=rejection, normalization="additive_scaling")
    arrays = [np.moveaxis(planes, 0, -1) for planes in cube]
    weights = np.linspace(0.5, 1.0, len(cube))
    expected = stack(arrays, options=options, weights=weights, maps="all", workers=1)
    paths = write(tmp_path, cube)
    assert open_frames(paths).stored_type == STORED[dtype]
    for rows in (4, None):
        kwargs = {"weights": weights, "maps": "all", "backend": backend.backend, "rows_per_chunk": rows}
        assert_same(stack(paths, options=options, **kwargs), expected)


def job_of(frames, **more):
    """Return the job of a stack as it is prepared, and as the host computes it."""
    request = StackRequest(options=more.get("options", StackOptions()), variances=more.get("variances"))
    job, _ = make_job(open_frames(frames), request, numpy_backend(), ONE_WORKER)
    return job, job.with_words()


@pytest.mark.parametrize(
    ("dtype", "more", "stored"),
    [
        ("float32", {}, "f32be"),
        ("uint16", {}, "u16flip"),
        ("float32", {"options": StackOptions(grow_radius=1.5)}, ""),
        ("float32", {"variances": np.ones(6)[:, None, None, None]}, ""),
        ("int32", {}, ""),
    ],
)
def test_words_go_only_where_programs_alone_look_at_them(dtype, more, stored, tmp_path):
    cube = cubes(dtype)
    paths = write(tmp_path, cube)
    job, computed = job_of(paths, **more)
    assert (job.stored, computed.stored) == ("", stored)
    expected = stack([np.moveaxis(planes, 0, -1) for planes in cube], maps="all", workers=1, **more)
    assert_same(stack(paths, maps="all", workers=1, **more), expected)


def test_words_take_as_much_memory(tmp_path):
    job, words = job_of(write(tmp_path, cubes("uint16")))
    assert words.stored == "u16flip"
    request = StackRequest(options=StackOptions())
    assert plan_job(words.group, request, numpy_backend(), ONE_WORKER, planes=0) == job.chunk_plan


@pytest.mark.parametrize(
    ("cards", "converted"),
    [({"BLANK": 7}, "float32"), ({"BSCALE": 0.5}, "float32"), ({"BZERO": 3.0}, "float32")],
)
def test_what_has_to_be_converted_is_no_word(cards, converted, tmp_path):
    paths = write(tmp_path, cubes("int16"), **cards)
    group = open_frames(paths)
    assert group.stored_type == ""
    assert group.sources[0].dtype == converted


def test_frames_of_two_types_are_numbers(tmp_path):
    (tmp_path / "other").mkdir()
    paths = [*write(tmp_path, cubes("float32")), *write(tmp_path / "other", cubes("uint16"))]
    assert open_frames(paths).stored_type == ""
    arrays = [np.moveaxis(planes, 0, -1) for dtype in ("float32", "uint16") for planes in cubes(dtype)]
    assert_same(stack(paths, maps="all"), stack(arrays, maps="all"))


def test_words_are_the_bytes_of_the_file(tmp_path):
    cube = cubes("uint16")
    [source, *_] = open_frames(write(tmp_path, cube)).words.sources
    assert (source.dtype, source.channels) == ("uint16", 3)
    rows = np.empty((3, 2, 14), source.dtype)
    with FilePool() as files:
        source.read_rows(4, 6, rows, files)
    np.testing.assert_array_equal(rows.view(">i2").astype(int) + 32768, cube[0, :, 4:6])


@pytest.mark.parametrize("dtype", [">f4", ">i2"])
@pytest.mark.parametrize("shape", [(9, 14), (9, 14, 1), (9, 14, 3)])
def test_arrays_that_came_from_a_file(dtype, shape):
    rng = np.random.default_rng(8)
    native = [np.rint(rng.normal(100.0, 9.0, shape)).astype(np.dtype(dtype).newbyteorder("=")) for _ in range(7)]
    stored = [frame.astype(dtype) for frame in native]
    assert open_frames(stored).stored_type == ({">f4": "f32be", ">i2": "i16be"}[dtype] if shape[2:] != (3,) else "")
    assert_same(stack(stored, maps="all"), stack(native, maps="all"))
    columns = [frame[:, ::2] for frame in stored]
    assert open_frames(columns).stored_type == ""
    assert_same(stack(columns, maps="all"), stack([frame[:, ::2] for frame in native], maps="all"))
