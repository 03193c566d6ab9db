"""Bands: the pool's bound, arrays of any library, views, masks, and what travels to a worker."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
from pathlib import Path

import array_api_strict
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData

import zemosaic_stack_core
from zemosaic_stack_core.errors import FrameReadError, InvalidInputError
from zemosaic_stack_core.frames.bands import BandReader, BandReaders
from zemosaic_stack_core.frames.group import open_frames
from zemosaic_stack_core.frames.planes import PlanesGiven
from zemosaic_stack_core.system import open_files
from zemosaic_stack_core.system.open_files import MAX_OPEN_FILES, default_open_files

ROWS, COLUMNS = 11, 7


def frame(seed: int, shape: tuple[int, ...] = (ROWS, COLUMNS)) -> np.ndarray:
    return np.random.default_rng(seed).normal(1000, 20, shape).astype("f4")


@pytest.fixture
def many(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{index}.fits" for index in range(9)]
    for index, path in enumerate(paths):
        fits.writeto(path, frame(index))
    return paths


@pytest.mark.parametrize("limit", [1, 2, 8, 9, 50])
def test_pool_keeps_its_bound_and_any_size_gives_the_same(many: list[Path], limit: int) -> None:
    with BandReader(open_frames(many), max_open_files=limit) as reader:
        buffers = reader.allocate(4)
        for start in (0, 4, 8, 0):
            stop = min(start + 4, ROWS)
            band = reader.read(start, stop, buffers)
            assert reader.open_files == min(limit, 9)
            for index, samples in enumerate(band.samples):
                np.testing.assert_array_equal(samples[0], frame(index)[start:stop])
    assert reader.open_files == 0


def test_files_that_fit_survive_from_band_to_band(many: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []
    real = open_files.FileIO
    group = open_frames(many)
    monkeypatch.setattr(open_files, "FileIO", lambda path: opened.append(path) or real(path))
    with BandReader(group, max_open_files=7) as reader:
        buffers = reader.allocate(1)
        reader.read(0, 1, buffers)
        assert len(opened) == 9
        for row in range(1, 5):
            opened.clear()
            reader.read(row, row + 1, buffers)
            assert len(opened) <= 3  # of 9: the least recently used policy would open all 9 again


def test_descriptors_used_up_by_others_shrink_the_pool(many: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    real = open_files.FileIO
    still_open: list[object] = []

    def scarce(path: str) -> object:
        still_open[:] = [file for file in still_open if not file.closed]  # type: ignore[attr-defined]
        if len(still_open) == 3:
            raise OSError(errno.EMFILE, "Too many open files")
        still_open.append(real(path))
        return still_open[-1]

    monkeypatch.setattr(open_files, "FileIO", scarce)
    with BandReader(open_frames(many)) as reader:
        band = reader.read(0, 3, reader.allocate(3))
        assert reader.open_files == 3
    np.testing.assert_array_equal(band.samples[8][0], frame(8)[:3])


def test_default_pool_is_half_of_what_the_system_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource", reason="no limits on descriptors on this system")
    for soft, expected in ((64, 32), (256, 128), (1_000_000, MAX_OPEN_FILES), (resource.RLIM_INFINITY, 128), (1, 1)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, soft=soft: (soft, soft))
        assert default_open_files() == expected


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
from pathlib import Path
import numpy as np
from zemosaic_stack_core.frames.bands import BandReader
from zemosaic_stack_core.frames.group import open_frames
assert "astropy" not in sys.modules
group = open_frames(sorted(Path(sys.argv[1]).iterdir()))
with BandReader(group) as reader:
    buffers = reader.allocate(2)
    total = 0.0
    for start in range(0, group.rows, 2):
        total += sum(float(samples.sum(dtype="f8")) for samples in reader.read(start, start + 2, buffers).samples)
        assert reader.open_files <= 32
assert "astropy" not in sys.modules
print(len(group.sources), int(total))
"""


def test_300_files_under_a_limit_of_64(tmp_path: Path) -> None:
    pytest.importorskip("resource", reason="no limits on descriptors on this system")
    folder = tmp_path / "frames"
    folder.mkdir()
    for index in range(300):
        fits.writeto(folder / f"{index:03}.fits", np.full((4, 3), index, "u2"))
    environment = os.environ | {"PYTHONPATH": str(Path(zemosaic_stack_core.__path__[0]).parent)}
    run = subprocess.run(
        [sys.executable, "-c", LIMITED, str(folder)], env=environment, capture_output=True, text=True, timeout=60
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.split() == ["300", str(12 * sum(range(300)))]


def test_without_positional_reads(many: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "preadv", raising=False)
    with BandReader(open_frames(many)) as reader:
        for index, samples in enumerate(reader.read(3, 8, reader.allocate(5)).samples):
            np.testing.assert_array_equal(samples[0], frame(index)[3:8])


def test_part_of_the_frames(many: list[Path]) -> None:
    with BandReader(open_frames(many)) as reader:
        buffers = reader.allocate(5)
        band = reader.read(2, 6, buffers[3:7], 3, 7)
        assert (len(band.samples), band.masks) == (4, [None] * 4)
        for index, samples in enumerate(band.samples, 3):
            np.testing.assert_array_equal(samples[0], frame(index)[2:6])
            assert np.shares_memory(samples, buffers[index])


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_several_readers_read_what_one_does_and_copy_views(many: list[Path], threads: int) -> None:
    mask = np.zeros((ROWS, COLUMNS), bool)
    mask[5, 2] = True
    group = open_frames([*many, frame(9)], [None] * 7 + [mask] + [None] * 2)
    with BandReaders(group, threads) as readers, BandReader(group) as reader:
        assert (readers.shapes(4)[-1], reader.shapes(4)[-1]) == ((1, 4, COLUMNS), (1, 0, COLUMNS))
        for start, stop in ((2, 6), (8, ROWS)):
            buffers = [
                np.empty(shape, source.dtype) for shape, source in zip(readers.shapes(4), group.sources, strict=True)
            ]
            band, expected = readers.read(start, stop, buffers), reader.read(start, stop, reader.allocate(4))
            for found, wanted, buffer in zip(band.samples, expected.samples, buffers, strict=True):
                np.testing.assert_array_equal(found, wanted, strict=True)
                assert np.shares_memory(found, buffer)
            assert [found is None for found in band.masks] == [wanted is None for wanted in expected.masks]


def test_an_error_of_any_reader_is_raised(many: list[Path]) -> None:
    group = open_frames(many)
    many[7].write_bytes(many[7].read_bytes()[:2900])
    with BandReaders(group, 3) as readers:
        buffers = [np.empty(shape, "f4") for shape in readers.shapes(5)]
        with pytest.raises(FrameReadError, match=r"7.fits: nothing at byte .*, the file became shorter"):
            readers.read(3, 8, buffers)


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (3, 3), (5, 4), (0, ROWS + 1)])
def test_rows_outside_of_the_image(many: list[Path], start: int, stop: int) -> None:
    with BandReader(open_frames(many)) as reader:
        buffers = reader.allocate(ROWS)
        with pytest.raises(InvalidInputError, match=f"rows {start} to {stop}; expected a range within 0 to 11"):
            reader.read(start, stop, buffers)
        with pytest.raises(InvalidInputError, match="8 buffers for 9 frames; expected one per frame"):
            reader.read(0, 2, buffers[1:])


def test_a_group_travels_to_a_worker(many: list[Path]) -> None:
    mask = np.zeros((ROWS, COLUMNS), bool)
    mask[4] = True
    group = pickle.loads(pickle.dumps(open_frames([*many, frame(9)], [mask] + [None] * 9)))  # noqa: S301 - our own bytes
    with BandReader(group) as reader:
        band = reader.read(4, 5, reader.allocate(1))
    np.testing.assert_array_equal(band.samples[9][0], frame(9)[4:5])
    assert band.masks[0] is not None
    assert band.masks[0].all()
    assert band.masks[1:] == [None] * 9


def test_numpy_arrays_are_handed_out_as_read_only_views() -> None:
    for array in (frame(0), frame(0, (ROWS, COLUMNS, 1)), np.ones((ROWS, COLUMNS), "u2"), frame(0)[::-1]):
        with BandReader(open_frames([array])) as reader:
            buffers = reader.allocate(5)
            samples = reader.read(1, 6, buffers).samples[0]
        assert buffers[0].nbytes == 0
        assert np.shares_memory(samples, array)
        assert not samples.flags.writeable
        assert array.flags.writeable
        np.testing.assert_array_equal(samples[0], array.reshape(ROWS, COLUMNS)[1:6])


@pytest.mark.parametrize(
    "array",
    [
        frame(0).astype("f8"),
        frame(0).astype(">f4"),
        np.asfortranarray(frame(0)),
        frame(0, (COLUMNS, ROWS)).T,
        frame(0, (ROWS, 2 * COLUMNS))[:, ::2],
    ],
)
def test_other_numpy_arrays_are_converted(array: np.ndarray) -> None:
    before = array.copy()
    array.flags.writeable = False
    with BandReader(open_frames([array])) as reader:
        samples = reader.read(2, 9, reader.allocate(7)).samples[0]
    assert samples.dtype == np.float32
    assert samples.flags.c_contiguous
    np.testing.assert_array_equal(samples[0], before[2:9].astype("f4"))
    np.testing.assert_array_equal(array, before)


def test_color_arrays_become_planes() -> None:
    array = frame(0, (ROWS, COLUMNS, 3))
    group = open_frames([array])
    assert (group.channels, group.is_color) == (3, True)
    with BandReader(group) as reader:
        samples = reader.read(2, 9, reader.allocate(ROWS)).samples[0]
    assert all(plane.flags.c_contiguous for plane in samples)
    np.testing.assert_array_equal(samples, array[2:9].transpose(2, 0, 1))


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint16", "int32", "bool"])
@pytest.mark.parametrize("shape", [(ROWS, COLUMNS), (ROWS, COLUMNS, 3)])
def test_arrays_on_another_device(dtype: str, shape: tuple[int, ...]) -> None:
    xp = array_api_strict
    values = frame(0, shape).astype(dtype)
    array = xp.asarray(values, device=xp.Device("device1"))
    mask = xp.asarray(frame(1, shape) > 1000, device=xp.Device("device1"))
    group = open_frames([array, values], [mask, None])
    assert group.sources[0].name == "frame 0"
    assert group.sources[0].dtype == group.sources[1].dtype
    with BandReader(group) as reader:
        band = reader.read(2, 9, reader.allocate(7))
    np.testing.assert_array_equal(band.samples[0], band.samples[1])
    expected = np.atleast_3d(frame(1, shape) > 1000)[2:9].transpose(2, 0, 1)
    np.testing.assert_array_equal(band.masks[0], expected)
    assert band.masks[1] is None


def test_masks_of_the_caller() -> None:
    plane, full = np.zeros((ROWS, COLUMNS), bool), np.zeros((ROWS, COLUMNS, 3), bool)
    plane[3, 4] = full[6, 1, 2] = True
    arrays = [frame(index, (ROWS, COLUMNS, 3)) for index in range(3)]
    with BandReader(open_frames(arrays, [plane, None, full])) as reader:
        buffers = reader.allocate(ROWS)
        whole = reader.read(0, ROWS, buffers)
        part = reader.read(4, 6, buffers)
    assert whole.masks[0] is not None
    assert whole.masks[2] is not None
    np.testing.assert_array_equal(whole.masks[0], plane[None])
    np.testing.assert_array_equal(whole.masks[2], full.transpose(2, 0, 1))
    assert whole.masks[1] is None
    assert part.masks == [None] * 3


def test_masked_arrays_and_ccddata_bring_their_mask() -> None:
    values, mask = frame(0), np.zeros((ROWS, COLUMNS), bool)
    mask[2, 3] = True
    given = np.zeros_like(mask)
    given[8, 1] = True
    frames = [np.ma.masked_array(values, mask), CCDData(values, unit="", mask=mask), CCDData(values, unit="")]
    with BandReader(open_frames([*frames, np.ma.masked_array(values)], [given, None, None, None])) as reader:
        band = reader.read(0, ROWS, reader.allocate(ROWS))
    np.testing.assert_array_equal(band.masks[0], (mask | given)[None])
    np.testing.assert_array_equal(band.masks[1], mask[None])
    assert band.masks[2:] == [None, None]
    np.testing.assert_array_equal(band.samples[1][0], values)


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "u4", "f4"])
def test_mask_extension(tmp_path: Path, dtype: str) -> None:
    values, quality = frame(0), np.zeros((ROWS, COLUMNS), dtype)
    quality[3, 4], quality[7, 5] = 1, 64
    hdus = [fits.PrimaryHDU(values), fits.ImageHDU(quality, name="DQ")]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    for bits, expected in ((None, quality != 0), (64 | 2, quality == 64), (2, quality > 99)):
        if bits is not None and dtype == "f4":
            with pytest.raises(InvalidInputError, match=r"a\.fits\[dq\]: values of type float; expected whole numbers"):
                open_frames([tmp_path / "a.fits"], None, PlanesGiven(mask_extension="dq", dq_bits=bits))
            continue
        group = open_frames([tmp_path / "a.fits"], None, PlanesGiven(mask_extension="dq", dq_bits=bits))
        with BandReader(group) as reader:
            buffers = reader.allocate(4)
            for start in range(0, ROWS, 4):
                band = reader.read(start, min(start + 4, ROWS), buffers)
                wanted = expected[start : start + 4]
                found = band.masks[0]
                np.testing.assert_array_equal(np.zeros_like(wanted) if found is None else found[0], wanted)
                assert (found is not None) == wanted.any()
            np.testing.assert_array_equal(reader.read(0, 4, buffers).samples[0][0], values[:4])


def test_high_bits_of_a_wide_mask_extension(tmp_path: Path) -> None:
    quality = np.full((ROWS, COLUMNS), 2**30 + 1, "i4")
    quality[0, 0] = 2**30
    fits.HDUList([fits.PrimaryHDU(frame(0)), fits.ImageHDU(quality, name="DQ")]).writeto(tmp_path / "a.fits")
    with BandReader(open_frames([tmp_path / "a.fits"], None, PlanesGiven(mask_extension="DQ", dq_bits=1))) as reader:
        mask = reader.read(0, 1, reader.allocate(1)).masks[0]
    assert mask is not None
    assert mask[0, 0].tolist() == [False] + [True] * (COLUMNS - 1)
