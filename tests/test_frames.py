"""Every kind of good frame gives the values that astropy and numpy give, in bands of any height."""

from __future__ import annotations

import gc
import gzip
import os
import pickle
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from zemosaic_stack_core.errors import FrameReadError, InvalidInputError
from zemosaic_stack_core.frames.bands import BandReader
from zemosaic_stack_core.frames.file_frames import probe_frame, probe_plane
from zemosaic_stack_core.frames.group import FrameGroup, group_frames, open_frames
from zemosaic_stack_core.frames.heads import read_head
from zemosaic_stack_core.frames.scratch import ScratchFolder

ROWS, COLUMNS = 23, 17
RNG_SEED = 11


def read_all(group: FrameGroup, rows: int) -> list[np.ndarray]:
    """Read a whole group in bands; return (channels, rows, columns) per frame."""
    with BandReader(group) as reader:
        buffers = reader.allocate(rows)
        bands = [
            [samples.copy() for samples in reader.read(start, min(start + rows, group.rows), buffers).samples]
            for start in range(0, group.rows, rows)
        ]
    return [np.concatenate(parts, axis=1) for parts in zip(*bands, strict=True)]


def read_one(path: object, rows: int = 7) -> np.ndarray:
    return read_all(open_frames([path]), rows)[0]


def stored_values(dtype: str, shape: tuple[int, ...] = (ROWS, COLUMNS)) -> np.ndarray:
    rng = np.random.default_rng(RNG_SEED)
    if np.dtype(dtype).kind == "f":
        values = rng.normal(0, 1e3, shape).astype(dtype)
        values.flat[:3] = np.nan, np.inf, -np.inf
        return values
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)


def write_raw(path: Path, stored: np.ndarray, **cards: object) -> None:
    """Write stored values as they are, with scaling cards that astropy has no say in."""
    bitpix = stored.dtype.itemsize * (8 if stored.dtype.kind in "ui" else -8)
    header = {"SIMPLE": True, "BITPIX": bitpix, "NAXIS": stored.ndim}
    header |= {f"NAXIS{i}": n for i, n in enumerate(reversed(stored.shape), 1)}
    text = "".join(str(fits.Card(key, value)) for key, value in (header | cards).items()) + "END".ljust(80)
    data = stored.astype(stored.dtype.newbyteorder(">")).tobytes()
    path.write_bytes(text.ljust(-(-len(text) // 2880) * 2880).encode() + data + bytes(-len(data) % 2880))


SCALES = {
    "plain": {},
    "unsigned": {"BZERO": None, "BSCALE": 1.0},
    "scaled": {"BZERO": 100.25, "BSCALE": 0.3},
    "zero only": {"BZERO": -7.5},
}


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("stored", ["u1", "i2", "i4", "i8", "f4", "f8"])
def test_fits_types_equal_astropy(tmp_path: Path, stored: str, scale: str) -> None:
    values = stored_values(stored)
    cards = dict(SCALES[scale])
    if cards.get("BZERO", 0) is None:
        if values.dtype.kind == "f":
            cards["BZERO"] = 32768.0
        else:
            cards["BZERO"] = -128 if stored == "u1" else 2 ** (8 * values.itemsize - 1)
    write_raw(tmp_path / "a.fits", values, **cards)
    with fits.open(tmp_path / "a.fits", uint=True) as hdus:
        expected = hdus[0].data
    # astropy scales 8- and 16-bit integers in float32 (two roundings); the values here are computed in float64.
    if scale in ("scaled", "zero only"):
        with np.errstate(invalid="ignore", over="ignore"):
            expected = values.astype("f8") * cards.get("BSCALE", 1.0) + cards["BZERO"]
        with fits.open(tmp_path / "a.fits") as hdus:
            np.testing.assert_allclose(hdus[0].data, expected, rtol=3e-5, atol=1e-3)
    found = read_one(tmp_path / "a.fits")[0]
    wanted = {"i1": "i2", "u1": "u1", "i2": "i2", "u2": "u2"}.get(
        f"{expected.dtype.kind}{expected.dtype.itemsize}", "f4"
    )
    assert found.dtype == np.dtype(wanted)
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, expected.astype(wanted))


@pytest.mark.parametrize("rows", [1, 7, ROWS])
@pytest.mark.parametrize("shape", [(ROWS, COLUMNS), (1, ROWS, COLUMNS), (1, 3, ROWS, COLUMNS), (3, ROWS, COLUMNS)])
def test_fits_planes_in_bands(tmp_path: Path, shape: tuple[int, ...], rows: int) -> None:
    values = stored_values("f4", shape)
    fits.writeto(tmp_path / "a.fits", values)
    group = open_frames([tmp_path / "a.fits"])
    assert group.is_color is (3 in shape)
    np.testing.assert_array_equal(read_all(group, rows)[0], values.reshape(-1, ROWS, COLUMNS))


def test_fits_with_the_channels_as_the_fastest_axis(tmp_path: Path) -> None:
    values = stored_values("i2", (ROWS, COLUMNS, 3))
    fits.writeto(tmp_path / "a.fits", values)
    np.testing.assert_array_equal(read_one(tmp_path / "a.fits"), values.transpose(2, 0, 1))


def test_rows_longer_than_the_buffer(tmp_path: Path) -> None:
    values = stored_values("f4", (3, 70_001))
    fits.writeto(tmp_path / "a.fits", values)
    np.testing.assert_array_equal(read_one(tmp_path / "a.fits", 2)[0], values)


@pytest.mark.parametrize("cards", [{}, {"BZERO": 32768}, {"BZERO": 10.0, "BSCALE": 2.0}])
def test_blank_is_missing(tmp_path: Path, cards: dict[str, float]) -> None:
    stored = stored_values("i2")
    stored[2, 3] = stored[20, 0] = -5
    write_raw(tmp_path / "a.fits", stored, BLANK=-5, **cards)
    found = read_one(tmp_path / "a.fits")[0]
    expected = (stored * cards.get("BSCALE", 1.0) + cards.get("BZERO", 0.0)).astype("f4")
    expected[stored == -5] = np.nan
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)


def test_blank_that_no_pixel_can_have_keeps_the_integers(tmp_path: Path) -> None:
    write_raw(tmp_path / "a.fits", stored_values("i2"), BLANK=-999999)
    assert probe_frame(tmp_path / "a.fits").dtype == np.int16


def test_float64_beyond_float32_is_missing(tmp_path: Path) -> None:
    values = np.array([[1e300, 1.0], [-1e39, 2.0]])
    fits.writeto(tmp_path / "a.fits", values)
    for item in (tmp_path / "a.fits", values):
        np.testing.assert_array_equal(read_one(item)[0], np.array([[np.inf, 1], [-np.inf, 2]], "f4"))


def test_first_image_extension_when_the_primary_is_empty(tmp_path: Path) -> None:
    values = stored_values("f4")
    table = fits.BinTableHDU.from_columns([fits.Column("A", "PJ()", array=np.array([[1, 2], [3]], object))])
    hdus = fits.HDUList(
        [fits.PrimaryHDU(), table, fits.ImageHDU(), fits.ImageHDU(values), fits.ImageHDU(values + 1, name="WHT")]
    )
    hdus.writeto(tmp_path / "a.fits")
    np.testing.assert_array_equal(read_one(tmp_path / "a.fits")[0], values)


def test_long_header_and_trailing_junk(tmp_path: Path) -> None:
    values = stored_values("f4")
    header = fits.Header([(f"HIERARCH key{i}", "long / text 'quoted'", "NAXIS1 = 5 / not it") for i in range(800)])
    fits.writeto(tmp_path / "a.fits", values, header)
    with (tmp_path / "a.fits").open("ab") as file:
        file.write(b"junk" * 1000)
    np.testing.assert_array_equal(read_one(tmp_path / "a.fits")[0], values)


def test_missing_padding_at_the_end_is_no_damage(tmp_path: Path) -> None:
    values = stored_values("f4")
    fits.writeto(tmp_path / "a.fits", values)
    raw = (tmp_path / "a.fits").read_bytes()
    (tmp_path / "a.fits").write_bytes(raw[: len(raw) - len(raw) % 2880 - (2880 - values.nbytes % 2880)])
    np.testing.assert_array_equal(read_one(tmp_path / "a.fits")[0], values)


NPY_TYPES = ["<f4", ">f4", "<f8", ">f8", "<f2", "|u1", "|i1", "<u2", ">u2", "<i2", ">i2", "<u4", ">i4", "<i8", "<u8"]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", NPY_TYPES)
def test_npy_types(tmp_path: Path, dtype: str, order: str) -> None:
    values = np.asarray(stored_values(np.dtype(dtype).newbyteorder("=").str).astype(dtype), order=order)
    np.save(tmp_path / "a.npy", values)
    from_file, from_memory = read_one(tmp_path / "a.npy")[0], read_one(values)[0]
    wanted = {"i1": "i2", "u1": "u1", "i2": "i2", "u2": "u2"}.get(dtype[1:], "f4")
    for found in (from_file, from_memory):
        assert found.dtype == np.dtype(wanted)
        np.testing.assert_array_equal(found, values.astype(wanted))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(ROWS, COLUMNS, 3), (3, ROWS, COLUMNS), (1, ROWS, COLUMNS), (ROWS, COLUMNS, 1)])
def test_npy_color_axes(tmp_path: Path, shape: tuple[int, ...], order: str) -> None:
    values = np.asarray(stored_values("f4", shape), order=order)
    np.save(tmp_path / "a.npy", values)
    group = open_frames([tmp_path / "a.npy"])
    expected = values if shape[0] <= 3 else values.transpose(2, 0, 1)
    assert group.is_color is (shape != (1, ROWS, COLUMNS))
    for rows in (1, 7, ROWS):
        np.testing.assert_array_equal(read_all(group, rows)[0], expected)


def test_boolean_npy(tmp_path: Path) -> None:
    values = stored_values("u1") > 100
    np.save(tmp_path / "a.npy", values)
    for item in (tmp_path / "a.npy", values):
        found = read_one(item)[0]
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, values)


COMPRESSIONS = [
    ("RICE_1", "i2"),
    ("RICE_1", "u2"),
    ("RICE_1", "u1"),
    ("GZIP_1", "i4"),
    ("GZIP_2", "f4"),
    ("GZIP_1", "f8"),
    ("HCOMPRESS_1", "i2"),
    ("PLIO_1", "i2"),
]


@pytest.mark.parametrize("shape", [(60, 41), (3, 60, 41)])
@pytest.mark.parametrize(("compression", "dtype"), COMPRESSIONS)
def test_tile_compressed_images_equal_astropy(
    tmp_path: Path, compression: str, dtype: str, shape: tuple[int, ...]
) -> None:
    values = stored_values(dtype, shape)
    if compression == "PLIO_1":
        values = values & 0x0FFF
    if compression == "HCOMPRESS_1":
        values = values // 64
    image = fits.CompImageHDU(values, compression_type=compression, quantize_level=0)
    fits.HDUList([fits.PrimaryHDU(), image]).writeto(tmp_path / "a.fits.fz")
    found = read_one(tmp_path / "a.fits.fz")
    with fits.open(tmp_path / "a.fits.fz", uint=True) as hdus:
        expected = hdus[1].data.reshape(-1, *shape[-2:])
    np.testing.assert_array_equal(found, expected.astype(found.dtype))
    assert found.dtype == (dtype if dtype in ("u1", "i2", "u2") else "f4")


def test_quantized_and_blank_compressed_images_equal_astropy(tmp_path: Path) -> None:
    quantized = np.random.default_rng(1).normal(1000, 20, (60, 41)).astype("f4")
    quantized[3, 4:9] = np.nan
    integers = stored_values("i2", (60, 41))
    integers[5, 6] = -32768
    header = fits.Header({"BLANK": -32768})
    for name, values, cards in (("q.fz", quantized, None), ("b.fz", integers, header)):
        image = fits.CompImageHDU(values, cards, compression_type="RICE_1")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fits.HDUList([fits.PrimaryHDU(), image]).writeto(tmp_path / name)
            with fits.open(tmp_path / name) as hdus:
                expected = hdus[1].data.astype("f4")
        found = read_one(tmp_path / name)[0]
        np.testing.assert_array_equal(found, expected)
        assert np.isnan(found).any()


@pytest.mark.parametrize("name", ["a.fits.gz", "b.fits", "c.npy.gz", "d.fz.gz"])
def test_gzip_is_recognized_by_content(tmp_path: Path, name: str) -> None:
    values = stored_values("u2")
    plain = tmp_path / "plain"
    if "npy" in name:
        with plain.open("wb") as file:
            np.save(file, values)
    elif "fz" in name:
        fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(values)]).writeto(plain)
    else:
        fits.writeto(plain, values)
    (tmp_path / name).write_bytes(gzip.compress(plain.read_bytes()))
    found = read_one(tmp_path / name)[0]
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("name", ["with blank.fits", "é ñ 星.fits", "[1] (2) {3}*.fits", "percent%s.fits"])
def test_names_are_only_names(tmp_path: Path, name: str) -> None:
    values = stored_values("f4")
    (tmp_path / name).write_bytes(fits_bytes(values))
    np.testing.assert_array_equal(read_one(tmp_path / name)[0], values)
    np.testing.assert_array_equal(read_one(str(tmp_path / name))[0], values)


def fits_bytes(values: np.ndarray) -> bytes:
    hdus = fits.HDUList([fits.PrimaryHDU(values)])
    from io import BytesIO

    out = BytesIO()
    hdus.writeto(out)
    return out.getvalue()


def scratch_folders(parent: Path) -> list[Path]:
    return list(parent.glob("zemosaic-scratch-*"))


def write_packed(path: Path) -> np.ndarray:
    values = stored_values("f4")
    path.write_bytes(gzip.compress(fits_bytes(values)))
    return values


def test_scratch_goes_with_the_frames(tmp_path: Path) -> None:
    values = write_packed(tmp_path / "a.fits.gz")
    group = open_frames([tmp_path / "a.fits.gz"], scratch=ScratchFolder(tmp_path))
    assert len(scratch_folders(tmp_path)) == 1
    borrowed = pickle.loads(pickle.dumps(group))  # noqa: S301 - our own bytes
    np.testing.assert_array_equal(read_all(borrowed, 5)[0][0], values)
    del borrowed
    gc.collect()
    assert len(scratch_folders(tmp_path)) == 1
    del group
    gc.collect()
    assert scratch_folders(tmp_path) == []


def test_scratch_is_a_context_manager_and_is_not_made_for_plain_files(tmp_path: Path) -> None:
    write_packed(tmp_path / "a.fits.gz")
    fits.writeto(tmp_path / "b.fits", stored_values("f4"))
    with ScratchFolder(tmp_path) as scratch:
        open_frames([tmp_path / "b.fits"], scratch=scratch)
        assert scratch_folders(tmp_path) == []
        group = open_frames([tmp_path / "a.fits.gz"], scratch=scratch)
        assert len(scratch_folders(tmp_path)) == 1
    assert scratch_folders(tmp_path) == []
    with pytest.raises(FrameReadError, match=r"a\.fits\.gz: .*; expected a readable file"):
        read_all(group, 5)


def test_failed_decoding_leaves_no_file(tmp_path: Path) -> None:
    write_packed(tmp_path / "a.fits.gz")
    raw = (tmp_path / "a.fits.gz").read_bytes()
    (tmp_path / "a.fits.gz").write_bytes(raw[: len(raw) * 6 // 10])
    with ScratchFolder(tmp_path) as scratch:
        with pytest.raises(FrameReadError, match="gzip data end too early"):
            probe_frame(tmp_path / "a.fits.gz", scratch=scratch)
        assert [path.name for path in scratch_folders(tmp_path)[0].iterdir()] == ["lock"]


def test_threads_share_one_folder(tmp_path: Path) -> None:
    scratch, start = ScratchFolder(tmp_path), threading.Barrier(8)

    def store(number: int) -> Path:
        start.wait()
        return scratch.store([np.full(4, number)], "frame")

    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(store, range(8)))
    assert [int(np.fromfile(path, np.int64)[0]) for path in paths] == list(range(8))
    assert {path.parent for path in paths} == {scratch.path}
    scratch.close()
    assert list(tmp_path.iterdir()) == []


def test_a_forked_copy_does_not_remove_the_folder(tmp_path: Path) -> None:
    if not hasattr(os, "fork"):
        pytest.skip("no fork on this system")
    write_packed(tmp_path / "a.fits.gz")
    scratch = ScratchFolder(tmp_path)
    probe_frame(tmp_path / "a.fits.gz", scratch=scratch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # forking with threads about: the child does nothing but this
        child = os.fork()
    if child == 0:
        scratch.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert len(scratch_folders(tmp_path)) == 1
    scratch.close()
    assert scratch_folders(tmp_path) == []


def test_folders_of_killed_runs_are_removed_and_those_of_living_ones_not(tmp_path: Path) -> None:
    write_packed(tmp_path / "a.fits.gz")
    living = ScratchFolder(tmp_path)
    probe_frame(tmp_path / "a.fits.gz", scratch=living)
    dead = tmp_path / "zemosaic-scratch-dead"
    dead.mkdir()
    for name in ("lock", "1.rows"):
        (dead / name).touch()
    for folder in scratch_folders(tmp_path):
        os.utime(folder, (1, 1))
    with ScratchFolder(tmp_path) as scratch:
        probe_frame(tmp_path / "a.fits.gz", scratch=scratch)
        assert not dead.exists()
        assert set(scratch_folders(tmp_path)) == {living.path, scratch.path}
    living.close()


def test_full_disk_is_not_the_frames_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_packed(tmp_path / "a.fits.gz")
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 0})())
    with ScratchFolder(tmp_path) as scratch:
        with pytest.raises(OSError, match=r"a\.fits\.gz: can't be decoded into .*No space left") as caught:
            probe_frame(tmp_path / "a.fits.gz", scratch=scratch)
        assert not isinstance(caught.value, FrameReadError)


def test_planes_by_name(tmp_path: Path) -> None:
    values = stored_values("f4")
    hdus = [fits.PrimaryHDU(values), fits.ImageHDU(values**2, name="VARIANCE"), fits.ImageHDU(values[:5], name="ERR")]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    frame = probe_frame(tmp_path / "a.fits")
    plane = probe_plane(frame, read_head(frame.path, extension="variance"))
    np.testing.assert_array_equal(read_all(group_frames([plane]), 7)[0][0], values**2)
    assert plane.name == f"{tmp_path / 'a.fits'}[variance]"
    with pytest.raises(InvalidInputError, match=r"a\.fits\[ERR\] is 5 x 17 .*; expected 23 x 17 .* as in .*a\.fits"):
        probe_plane(frame, read_head(frame.path, extension="ERR"))
    with pytest.raises(FrameReadError, match="3 HDU without an image extension named DQ"):
        probe_plane(frame, read_head(frame.path, extension="DQ"))


def test_sources_are_small_when_pickled(tmp_path: Path) -> None:
    fits.writeto(tmp_path / "a.fits", stored_values("f4"))
    frame = probe_frame(tmp_path / "a.fits")
    copy = pickle.loads(pickle.dumps(frame))  # noqa: S301 - our own bytes
    assert copy == frame
    assert len(pickle.dumps(frame)) < 1500
