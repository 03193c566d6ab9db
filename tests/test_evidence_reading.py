"""Reading what others wrote: letters that are not ASCII, damaged files, folders of systems; seeded fuzz.

``ZSC_FUZZ=20000 python -m pytest tests/test_evidence_reading.py -k fuzz`` tries longer.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

from zemosaic_stack_core import StackOptions, stack
from zemosaic_stack_core.command_line import build_parser, main
from zemosaic_stack_core.command_line.arguments import read_command_options
from zemosaic_stack_core.command_line.computing import read_compute_limits
from zemosaic_stack_core.errors import ZemosaicError
from zemosaic_stack_core.frames.file_frames import probe_frame
from zemosaic_stack_core.frames.frame_lists import expand_frame_arguments
from zemosaic_stack_core.frames.group import open_frames
from zemosaic_stack_core.frames.heads import read_head
from zemosaic_stack_core.frames.scratch import ScratchFolder
from zemosaic_stack_core.master.explain import explain_pixel
from zemosaic_stack_core.master.read import read_master
from zemosaic_stack_core.master.write import write_master
from zemosaic_stack_core.per_frame.weighting import read_weights_csv
from zemosaic_stack_core.phase3.run_plan import read_run_plan
from zemosaic_stack_core.prepare.headers.raw_frame import inspect_frame
from zemosaic_stack_core.prepare.headers.recognize import recognize
from zemosaic_stack_core.stacking.combined_header import reference_header
from zemosaic_stack_core.system.atomic import atomic_output

ROUNDS = int(os.environ.get("ZSC_FUZZ", "150"))
PIXELS = np.random.default_rng(0).integers(400, 900, (40, 48)).astype(np.int16)
WCS = {"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "CRVAL1": 10.0, "CRVAL2": 20.0, "CD1_1": 1e-4, "CD2_2": 1e-4}
SIP = {"A_ORDER": 2, "B_ORDER": 2, "A_0_2": 1e-6, "B_2_0": 1e-6, "IMAGETYP": "Light", "EXPTIME": 30.0}


def raw_header(*cards: bytes) -> bytes:
    first = [b"SIMPLE  =                    T", b"BITPIX  =                   16", b"NAXIS   =                    2"]
    sizes = [b"NAXIS1  =                   48", b"NAXIS2  =                   40"]
    text = b"".join(card.ljust(80) for card in (*first, *sizes, *cards, b"END"))
    return text + b" " * (-len(text) % 2880)


@pytest.mark.parametrize("count", [0, 30, 140, 300])
@pytest.mark.parametrize(
    "card",
    [
        "OBSERVER= 'Ren\xe9'".encode("latin-1"),
        "OBJECT  = 'M\u00e9lotte 15'".encode(),
        "HISTORY 5 \xb5m filter".encode("latin-1"),
        b"NOTES   = 'tab\there'",
        b"OBJECT  = 'first part&'".ljust(80) + b"CONTINUE  ' second part \xe9'".ljust(80),
    ],
)
def test_headers_with_letters_that_are_not_ascii(tmp_path: Path, card: bytes, count: int) -> None:
    history = [f"HISTORY step {number:03d}".encode() for number in range(count)]
    path = tmp_path / "a.fits"
    data = PIXELS.astype(">i2").tobytes()
    path.write_bytes(raw_header(card, *history) + data + bytes(-len(data) % 2880))
    assert np.array_equal(stack([path]).image, PIXELS.astype(np.float32))
    assert inspect_frame(path).kind == "light"


@pytest.mark.parametrize("end", [b"END\x87", b"END" + b" " * 10 + b"\xe9 end of it", b"END\0\0\0\0\0", b"END /"])
def test_an_end_card_with_something_behind_it(tmp_path: Path, end: bytes) -> None:
    path = tmp_path / "a.fits"
    header = raw_header().replace(b"END".ljust(30), end.ljust(30))
    path.write_bytes(header + PIXELS.astype(">i2").tobytes().ljust(5760, b"\0"))
    assert np.array_equal(stack([path]).image, PIXELS.astype(np.float32))


@pytest.mark.parametrize("count", [0, 140, 300])
def test_a_line_without_a_keyword(tmp_path: Path, count: int) -> None:
    path = tmp_path / "a.fits"
    history = [f"HISTORY step {number:03d}".encode() for number in range(count)]
    line = "    prise de vue: René".encode("latin-1")[::-1]
    path.write_bytes(raw_header(line, *history) + PIXELS.astype(">i2").tobytes().ljust(5760, b"\0"))
    assert np.array_equal(stack([path]).image, PIXELS.astype(np.float32))


@pytest.mark.parametrize("value", [b"16.0", b"+16", b"16", b"1.6E1"])
def test_whole_numbers_as_astropy_reads_them(tmp_path: Path, value: bytes) -> None:
    path = tmp_path / "a.fits"
    header = raw_header().replace(b"BITPIX  =                   16", b"BITPIX  = " + value.rjust(20))
    path.write_bytes(header + PIXELS.astype(">i2").tobytes().ljust(5760, b"\0"))
    assert np.array_equal(stack([path]).image, PIXELS.astype(np.float32))


def test_an_end_card_padded_with_zeros(tmp_path: Path) -> None:
    path = tmp_path / "a.fits"
    header = raw_header().replace(b"END".ljust(8), b"END".ljust(8, b"\0"))
    path.write_bytes(header + PIXELS.astype(">i2").tobytes().ljust(5760, b"\0"))
    assert np.array_equal(stack([path]).image, PIXELS.astype(np.float32))


def originals(folder: Path) -> list[bytes]:
    """Return frames as cameras and archives write them: plain, in an extension, compressed in three ways, and .npy."""
    header = fits.Header(list((WCS | SIP).items()))
    plain = [fits.PrimaryHDU(PIXELS, header)]
    several = [fits.PrimaryHDU(), fits.ImageHDU(PIXELS, header), fits.ImageHDU(PIXELS)]
    packed = [
        [fits.PrimaryHDU(), fits.CompImageHDU(PIXELS, header, compression_type=kind)]
        for kind in ("RICE_1", "GZIP_2", "PLIO_1")
    ]
    found = []
    for number, hdus in enumerate((plain, several, *packed)):
        fits.HDUList(hdus).writeto(folder / f"o{number}.fits")
        found.append((folder / f"o{number}.fits").read_bytes())
    np.save(folder / "o.npy", PIXELS)
    return [*found, (folder / "o.npy").read_bytes()]


def mutated(raw: bytes, random: np.random.Generator) -> bytes:
    """Return a file with cards swapped, replaced or cut, bytes changed, or its end gone."""
    data = bytearray(raw)
    for _ in range(int(random.integers(1, 4))):
        at, other = (int(random.integers(0, max(1, len(data) // 80))) * 80 for _ in range(2))
        kind = int(random.integers(0, 6))
        if kind == 0:
            data[at : at + 80], data[other : other + 80] = data[other : other + 80], data[at : at + 80]
        elif kind == 1:
            value = (b"'x'", b"-1", b"1e400", b"nan", b"99999999999", b"T", b"'", b"0")[int(random.integers(0, 8))]
            data[at + 8 : at + 80] = (b"= " + value).ljust(72)
        elif kind == 2:
            del data[at : at + 80]
        elif kind == 3:
            for place in random.integers(0, len(data), 8):
                data[int(place)] = int(random.integers(0, 256))
        elif kind == 4:
            data = data[: int(random.integers(1, len(data)))]
        else:
            spot = int(random.integers(0, min(len(data), 2880)))
            data[spot] = int(random.integers(0, 256))
        if len(data) < 2:
            break
    return bytes(data)


def test_fuzz_of_frames(tmp_path: Path) -> None:
    """Whatever a damaged frame makes astropy raise is that frame's fault, in one line with its name."""
    random = np.random.default_rng(7)
    files = originals(tmp_path)
    for number in range(ROUNDS):
        original = files[number % len(files)]
        path = tmp_path / ("f.npy" if original.startswith(b"\x93NUMPY") else "f.fits")
        path.write_bytes(mutated(original, random))
        recognize([path])
        for work in (inspect_frame, reference_header, stacked):
            assert path.name in (fault(work, path) or path.name)


def stacked(path: Path) -> None:
    with ScratchFolder() as scratch:
        frame = probe_frame(read_head(path), scratch=scratch)
    if frame.rows * frame.columns * frame.channels < 1 << 20:
        stack([path])


def fault(work: Callable[[Path], object], path: Path) -> str | None:
    """Return the one line that says what is wrong with a file; None where nothing is."""
    try:
        work(path)
    except ZemosaicError as error:
        return str(error)
    return None


def test_fuzz_of_masters(tmp_path: Path) -> None:
    frames = [tmp_path / f"{number}.fits" for number in range(3)]
    for path in frames:
        fits.PrimaryHDU(PIXELS, fits.Header(list(SIP.items()))).writeto(path)
    master = write_master(tmp_path / "m.fits", stack(frames, options=StackOptions(rejection="mad_clip")))
    raw, random = master.read_bytes(), np.random.default_rng(8)
    for _ in range(ROUNDS):
        bad = tmp_path / "f.fits"
        bad.write_bytes(mutated(raw, random))
        for work in (read_master, lambda path: explain_pixel(path, 3, 4)):
            assert fault(work, bad) != ""


PLAN: dict[str, Any] = {"tiles": [{"id": 1, "name": "north", "frames": ["a.npy", "b*.fits"]}, {"frames": ["."]}]}
SETTINGS: dict[str, Any] = {
    **{"stacking_normalize_method": "linear_fit", "stacking_weighting_method": "noise_variance", "rows_per_chunk": 7},
    **{"stacking_rejection_algorithm": "winsorized_sigma_clip", "stacking_kappa_low": 2.5, "stacking_kappa_high": 3},
    **{"stacking_winsor_limits": "0.05,0.05", "stacking_final_combine_method": "mean", "apply_radial_weight": True},
    **{"radial_feather_fraction": 0.8, "radial_shape_power": 2.0, "use_gpu_phase5": "yes", "wsc_impl": "pixinsight"},
    **{"parallel_max_cpu_workers": 2, "max_chunk_bytes": 10**6, "poststack_equalize_rgb": False},
}
ODD = (
    None,
    True,
    -1,
    0,
    1e308,
    float("nan"),
    10**30,
    "",
    "x",
    "1e400",
    "\x00",
    "é" * 300,
    [],
    {},
    {"a": {}},
    ["~no", 3],
)


def odd_json(value: Any, random: np.random.Generator) -> Any:
    """Return a JSON value in which some part is another, or gone."""
    if random.random() < 0.12:
        return ODD[int(random.integers(0, len(ODD)))]
    if isinstance(value, dict):
        kept = {key: odd_json(one, random) for key, one in value.items() if random.random() > 0.05}
        return kept | ({"odd": 1} if random.random() < 0.05 else {})
    return [odd_json(one, random) for one in value] if isinstance(value, list) else value


def read_settings(path: Path) -> None:
    arguments = build_parser().parse_args(["stack", "a.npy", "-o", "m.fits", "--config", str(path)])
    wanted = read_command_options(arguments)
    read_compute_limits(arguments, wanted, open_frames([PIXELS]))


def read_list(path: Path) -> None:
    expand_frame_arguments([f"@{path}"])


def read_weights(path: Path) -> None:
    read_weights_csv(path, ["a.npy", "b.fits"])


TEXTS: dict[str, tuple[Callable[[Path], object], bytes]] = {
    "plan.json": (read_run_plan, json.dumps(PLAN).encode()),
    "settings.json": (read_settings, json.dumps(SETTINGS).encode()),
    "list.txt": (read_list, b"a.npy\n# comment\n\nfolder/b.fits\n"),
    "weights.csv": (read_weights, b"file,weight\na.npy,1.5\nb.fits,2\n"),
}


@pytest.mark.parametrize("name", list(TEXTS))
def test_fuzz_of_plans_settings_lists_and_weights(tmp_path: Path, name: str) -> None:
    work, original = TEXTS[name]
    np.save(tmp_path / "a.npy", PIXELS)
    path, random = tmp_path / name, np.random.default_rng(9)
    path.write_bytes(original)
    assert fault(work, path) is None
    faults = 0
    for number in range(ROUNDS):
        data = bytearray(original)
        if name.endswith(".json") and number % 2:
            data = bytearray(json.dumps(odd_json(json.loads(original), random)).encode())
        else:
            for spot in random.integers(0, len(data), int(random.integers(1, 5))):
                data[int(spot)] = int(random.integers(0, 256))
            data = data[: int(random.integers(0, 2 * len(data)))]
        path.write_bytes(bytes(data))
        said = fault(work, path)
        faults += said is not None
        assert said is None or (said and "\n" not in said)
    assert faults > 0.2 * ROUNDS


@pytest.mark.parametrize(
    "name",
    ["@eaDir", "$RECYCLE.BIN", "System Volume Information", "__MACOSX", ".hidden", "lost+found", "#recycle", "no"],
)
def test_folders_of_systems_are_no_tiles(tmp_path: Path, name: str) -> None:
    night = tmp_path / "night"
    for folder in (name, "B 1", "B 2"):
        (night / folder).mkdir(parents=True)
        if folder != "no":
            np.save(night / folder / "a.npy", PIXELS)
    assert [(tile.tile_id, tile.name) for tile in read_run_plan(night)] == [(1, "B 1"), (2, "B 2")]


def test_a_folder_called_like_a_frame_is_none(tmp_path: Path) -> None:
    (tmp_path / "M31.fits").mkdir()
    np.save(tmp_path / "a.npy", PIXELS)
    assert expand_frame_arguments([str(tmp_path)]) == [tmp_path / "a.npy"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.ENOTSUP])
def test_a_disk_that_cannot_flush_is_said(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    for name in ("a", "b"):
        with atomic_output(tmp_path / name) as file:
            file.write(b"x")
        assert (tmp_path / name).read_bytes() == b"x"
    assert caplog.text.count("can't flush") == 1


def test_sip_without_its_name_is_said_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from zemosaic_stack_core.synthetic.raw_night import RawNight

    night = RawNight(n_frames=3, shape=(140, 180), n_stars=220, turn=0.0)
    for index in range(3):
        x, y = night.transform(index).shift_at(0, 0)
        cards = WCS | SIP | {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 90 - x, "CRPIX2": 70 - y}
        fits.PrimaryHDU(night.light(index), fits.Header(list(cards.items()))).writeto(tmp_path / f"{index}.fits")
    paths = [str(tmp_path / f"{index}.fits") for index in range(3)]
    assert main(["stack", *paths, "-o", str(tmp_path / "m.fits"), "--no-picture", "--workers", "1"]) == 0
    said = capfd.readouterr()
    assert sum("SIP" in line for line in said.err.splitlines()) == 1
    assert len((said.out + said.err).splitlines()) < 20


def test_a_picture_without_its_master_stops_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "a.npy", PIXELS)
    (tmp_path / "m.png").write_bytes(b"left over")
    command = ["stack", str(tmp_path / "a.npy"), "-o", str(tmp_path / "m.fits")]
    assert main(command) == 0
    assert (tmp_path / "m.png").read_bytes() != b"left over"
    assert main(command) == 2
    assert "--overwrite" in capsys.readouterr().err
