"""XISF, cameras' raw files and TIFF give the rows and the facts that a FITS file of the same frame gives."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from astropy.io import fits
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from zemosaic_stack_core import stack
from zemosaic_stack_core.command_line import main
from zemosaic_stack_core.errors import FrameReadError
from zemosaic_stack_core.frames.file_frames import probe_frame
from zemosaic_stack_core.frames.frame_lists import expand_frame_arguments
from zemosaic_stack_core.frames.heads import read_head
from zemosaic_stack_core.frames.pixel_rows import FilePool
from zemosaic_stack_core.phase3.frame_check import choose_frames
from zemosaic_stack_core.prepare.headers.raw_frame import inspect_frame
from zemosaic_stack_core.synthetic.raw_night import RawNight

xisf = pytest.importorskip("xisf", reason="the extra formats is not installed")
tifffile = pytest.importorskip("tifffile", reason="the extra formats is not installed")
rawpy = pytest.importorskip("rawpy", reason="the extra formats is not installed")

Array = npt.NDArray[Any]
BLACK, WHITE = 512, 16000
# Colors of a DNG's mosaic, by number.
GRBG = (1, 0, 2, 1)


def write_dng(path: Path, samples: Array, seconds: int = 30, pattern: tuple[int, ...] = GRBG) -> Path:
    """Write a mosaic of sensor samples, the top row first, as a camera would."""
    tags = [
        (33421, "H", 2, (2, 2), True),
        (33422, "B", 4, pattern, True),
        (50706, "B", 4, (1, 4, 0, 0), True),
        (271, "s", 0, "Maker", True),
        (272, "s", 0, "Camera", True),
        (50708, "s", 0, "Maker Camera", True),
        (50714, "H", 1, (BLACK,), True),
        (50717, "H", 1, (WHITE,), True),
        (50721, "2i", 9, (1, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 1, 1, 1), True),
        (50728, "2I", 3, (1, 1, 1, 1, 1, 1), True),
        (50778, "H", 1, (21,), True),
        (33434, "2I", 1, (seconds, 1), True),
        (306, "s", 0, "2026:03:01 22:15:00", True),
    ]
    tifffile.imwrite(path, samples, photometric=32803, extratags=tags, metadata=None, software=False)
    return path


def samples_of(shape: tuple[int, ...], dtype: str = "u2", seed: int = 3) -> Array:
    return np.random.default_rng(seed).integers(BLACK - 40, 4000, shape).astype(dtype)


def write_xisf(path: Path, samples: Array, **how: Any) -> Path:
    xisf.XISF.write(str(path), samples if samples.ndim == 3 else samples[..., np.newaxis], **how)
    return path


def read(path: Path) -> Array:
    with FilePool() as files:
        frame = probe_frame(path)
        planes = frame.read_planes(0, frame.rows, files)
    return planes[0] if frame.channels == 1 else planes.transpose(1, 2, 0)


@pytest.mark.parametrize("shape", [(7, 9), (7, 9, 3)])
@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "f4", "f8"])
@pytest.mark.parametrize("suffix", [".tif", ".xisf"])
def test_pixels_are_those_that_were_written(tmp_path: Path, suffix: str, dtype: str, shape: tuple[int, ...]) -> None:
    samples = samples_of(shape, dtype)
    path = tmp_path / f"a{suffix}"
    if suffix == ".tif":
        tifffile.imwrite(path, samples, photometric="rgb" if len(shape) == 3 else "minisblack")
    else:
        write_xisf(path, samples)
    np.testing.assert_array_equal(read(path), samples[::-1].astype(read(path).dtype))
    assert read_head(path).foreign_shape == (*shape, 1)[:3]


def test_threads_that_open_xisf_files_leave_standard_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, before, opening = write_xisf(tmp_path / "a.xisf", samples_of((40, 50))), sys.stdout, xisf.XISF.__init__

    def open_slowly(self: Any, name: str) -> None:
        time.sleep(0.005)
        opening(self, name)

    monkeypatch.setattr(xisf.XISF, "__init__", open_slowly)
    with ThreadPoolExecutor(4) as pool:
        assert {frame.rows for frame in pool.map(probe_frame, 8 * [path])} == {40}
    assert sys.stdout is before


@pytest.mark.parametrize("codec", ["zlib", "lz4", "zstd"])
def test_compressed_xisf(tmp_path: Path, codec: str) -> None:
    samples = samples_of((40, 60))
    path = write_xisf(tmp_path / "a.xisf", samples, codec=codec, shuffle=True)
    np.testing.assert_array_equal(read(path), samples[::-1])


def test_planes_and_opacity_of_a_tiff(tmp_path: Path) -> None:
    samples = samples_of((7, 9, 4))
    tifffile.imwrite(tmp_path / "rgba.tif", samples, photometric="rgb", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(read(tmp_path / "rgba.tif"), samples[::-1, :, :3])
    assert read_head(tmp_path / "rgba.tif").foreign_shape == (7, 9, 3)
    tifffile.imwrite(tmp_path / "planes.tif", samples[..., :3].transpose(2, 0, 1), photometric="rgb", planarconfig=2)
    np.testing.assert_array_equal(read(tmp_path / "planes.tif"), samples[::-1, :, :3])


def test_a_camera_s_black_level_is_taken_off(tmp_path: Path) -> None:
    samples = samples_of((32, 48))
    found = read(write_dng(tmp_path / "a.dng", samples))
    assert found.dtype == np.int16
    np.testing.assert_array_equal(found, samples[::-1].astype(np.int32) - BLACK)


def test_a_camera_s_white_level_tells_what_is_saturated(tmp_path: Path) -> None:
    samples = samples_of((32, 48))
    good = write_dng(tmp_path / "good.dng", samples)
    samples[:20] = WHITE
    bad = write_dng(tmp_path / "bad.dng", samples)
    choice = choose_frames([good, bad])
    assert [frame.path for frame in choice.frames] == [good]
    assert choice.dropped[0].reason == "saturated: 62.5 % of the samples are at 15488 or above; expected at most half"


@pytest.mark.parametrize(("rows", "first_rows"), [(32, "BGGR"), (33, "GRBG")])
def test_a_camera_says_its_pattern_its_time_and_its_date(tmp_path: Path, rows: int, first_rows: str) -> None:
    frame = inspect_frame(write_dng(tmp_path / "a.dng", samples_of((rows, 48)), seconds=30))
    # Seen from the bottom row, which is the last one of the sensor's.
    assert frame.pattern == first_rows
    assert frame.exposure == 30.0
    assert frame.date == "2026-03-01T22:15:00"
    assert (frame.rows, frame.columns, frame.kind) == (rows, 48, "light")


def test_an_exposure_that_a_camera_does_not_know(tmp_path: Path) -> None:
    exif = Image.Exif()
    part = exif.get_ifd(0x8769)
    part |= {0x829A: IFDRational(0, 0), 0x9003: "0000:00:00 00:00:00"}
    exif[0x8769] = dict(part)
    Image.fromarray(samples_of((20, 30), "u1")).save(tmp_path / "a.tif", exif=exif)
    assert probe_frame(tmp_path / "a.tif").rows == 20
    facts = read_head(tmp_path / "a.tif").observing
    assert (facts.exposure, facts.start) == (None, None)


def test_a_tiff_of_several_exposures_is_no_frame(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for shape in ((32, 48), (8, 12)):  # the second is a thumbnail of the first
            file.write(samples_of(shape), metadata=None)
    assert probe_frame(tmp_path / "a.tif").rows == 32
    tifffile.imwrite(tmp_path / "b.tif", samples_of((4, 32, 48)), photometric="minisblack")
    with pytest.raises(FrameReadError, match=r"b.tif: .*4 pages of 32 x 48.*expected"):
        probe_frame(tmp_path / "b.tif")


@pytest.mark.parametrize("write", ["xisf", "tiff"])
def test_cards_of_a_fits_header_are_kept(tmp_path: Path, write: str) -> None:
    cards = {"OBJECT": "M 31", "EXPTIME": 120.0, "FILTER": "Ha", "BAYERPAT": "RGGB", "DATE-OBS": "2026-01-02T03:04:05"}
    samples = samples_of((8, 12))
    if write == "xisf":
        keywords = {name: [{"value": repr(value), "comment": ""}] for name, value in cards.items()}
        path = write_xisf(tmp_path / "a.xisf", samples, image_metadata={"FITSKeywords": keywords})
    else:
        header = fits.Header({"SIMPLE": True, "BITPIX": 16, "NAXIS": 2, "NAXIS1": 12, "NAXIS2": 8, **cards})
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, samples, description=header.tostring(sep="\n"), metadata=None)
    head = read_head(path)
    assert (head.observing.object, head.observing.exposure, head.observing.filter) == ("M 31", 120.0, "Ha")
    assert head.get("DATE-OBS") == "2026-01-02T03:04:05"
    assert inspect_frame(path).pattern == "GBRG"  # RGGB from the top: the bottom row is the last of 8


def test_three_formats_stack_to_the_same_bits(tmp_path: Path) -> None:
    frames = [samples_of((20, 30), seed=seed) for seed in range(4)]
    images = []
    writers: dict[str, Callable[[Path, Array], Any]] = {
        ".xisf": write_xisf,
        ".tif": tifffile.imwrite,
        ".fits": lambda path, samples: fits.writeto(path, samples[::-1]),
    }
    for suffix, write in writers.items():
        paths = [tmp_path / f"{index}{suffix}" for index in range(len(frames))]
        for path, samples in zip(paths, frames, strict=True):
            write(path, samples)
        images.append(stack(paths).image)
    assert all(np.array_equal(image, images[-1]) for image in images)


@pytest.mark.slow
def test_a_folder_of_a_camera_s_raw_files_is_stacked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    night = RawNight(n_frames=4, shape=(160, 200), n_stars=220, turn=0.2, shift=3.0, pattern="RGGB")
    for path in night.write(tmp_path / "fits"):
        samples = np.clip(fits.getdata(path)[::-1].astype(np.int32) + BLACK, 0, 65535).astype(np.uint16)
        (tmp_path / "lights").mkdir(exist_ok=True)
        # RGGB from the first row of the file, which is the bottom one.
        write_dng(tmp_path / "lights" / f"{path.stem}.dng", samples, pattern=(1, 2, 0, 1))
    master = tmp_path / "m.fits"
    assert main(["stack", str(tmp_path / "lights"), "-o", str(master), "--backend", "cpu", "--workers", "1"]) == 0
    assert "4 of 4 frames are Bayer mosaics" in capsys.readouterr().err
    with fits.open(master) as hdus:
        assert hdus[0].data.shape[0] == 3
        assert hdus[0].header["EXPTOTAL"] == 120.0
    assert main(["replay", str(master)]) == 0


def test_a_tiff_beside_other_frames_is_a_picture(tmp_path: Path) -> None:
    for name in ("b.tif", "a.TIF"):
        tifffile.imwrite(tmp_path / name, samples_of((4, 4)))
    assert [path.name for path in expand_frame_arguments([str(tmp_path)])] == ["a.TIF", "b.tif"]
    (tmp_path / "c.CR2").touch()
    (tmp_path / "d.xisf").touch()
    assert [path.name for path in expand_frame_arguments([str(tmp_path)])] == ["c.CR2", "d.xisf"]


@pytest.mark.parametrize(
    ("name", "library"), [("a.xisf", "xisf"), ("a.dng", "rawpy"), ("a.cr3", "rawpy"), ("a.tif", "tifffile")]
)
def test_without_the_library_its_name_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, library: str
) -> None:
    path = tmp_path / name
    path.write_bytes(b"XISF0100" if name == "a.xisf" else b"II*\0" + bytes(100))
    monkeypatch.setitem(sys.modules, library, None)
    assert main(["stack", str(path), "-o", str(tmp_path / "m.fits"), "--backend", "cpu"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"{name}: reading " in said
    assert said.endswith(f" needs {library}, which is not installed; expected: python -m pip install {library}")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".xisf", ".zstd.xisf", ".dng", ".tif"])
def test_whatever_is_damaged_is_one_error(tmp_path: Path, suffix: str) -> None:
    samples = samples_of((32, 48))
    path = tmp_path / f"whole{suffix}"
    if suffix == ".dng":
        write_dng(path, samples)
    elif suffix.endswith(".xisf"):
        write_xisf(path, samples, codec="zstd" if "zstd" in suffix else "zlib")
    else:
        tifffile.imwrite(path, samples, compression="zlib")
    whole = path.read_bytes()
    random = np.random.default_rng(5)
    broken = tmp_path / f"broken{suffix}"
    refused = 0
    for trial in range(120):
        content = bytearray(whole)
        if trial % 3 == 0:
            del content[int(random.integers(10, len(content))) :]
        else:
            for _ in range(4):
                content[int(random.integers(8, min(len(content), 3000)))] = int(random.integers(0, 256))
        broken.write_bytes(content)
        with suppress(FrameReadError):
            read(broken)
            continue
        refused += 1
    assert refused > 20


@pytest.mark.parametrize("suffix", [".xisf", ".dng", ".tif"])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, suffix: str) -> None:
    samples, path = samples_of((64, 96)), tmp_path / f"a{suffix}"
    writers: dict[str, Callable[[Path, Array], Any]] = {
        ".xisf": write_xisf,
        ".dng": write_dng,
        ".tif": tifffile.imwrite,
    }
    writers[suffix](path, samples)
    path.write_bytes(path.read_bytes()[: -samples.nbytes // 3])
    with pytest.raises(FrameReadError, match=rf"a\{suffix}: .* that can't be read \(.*\); expected a whole file"):
        read(path)


def test_they_have_no_extensions(tmp_path: Path) -> None:
    write_xisf(tmp_path / "a.xisf", samples_of((4, 5)))
    with pytest.raises(FrameReadError, match=r"a\.xisf: a XISF file has no extensions; expected a FITS file with SCI"):
        probe_frame(read_head(tmp_path / "a.xisf", extension="SCI"))
