"""Folders as people keep them: kinds below one folder, what earlier stacks left beside the frames, names kept whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from night import outcomes, report_of, run, write_night

from zemosaic_stack_core import read_master, stack
from zemosaic_stack_core.command_line import main
from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.frames.frame_lists import expand_frame_arguments, frame_stem
from zemosaic_stack_core.master.write import write_master
from zemosaic_stack_core.phase3.run_plan import read_run_plan
from zemosaic_stack_core.prepare.headers.kinds import kind_by_path
from zemosaic_stack_core.synthetic.raw_night import RawNight

NIGHT = RawNight(n_frames=4, shape=(140, 180), n_stars=160, shift=3.0, turn=0.0)
# Names of folders as programs and people write them.
NAMES = [
    ("lights", "darks", "flats", "biases"),
    ("LIGHT", "DARK", "FLAT", "BIAS"),
    ("01 Lights", "02_Darks", "03 Flats", "04-Bias"),
    ("brutes", "noirs", "plu", "offset"),
    ("Hellbilder", "Dunkelbilder", "Flats", "Bias"),
    ("subs", "Darks", "flatfields", "zeros"),
]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    NIGHT.write(folder, darks=2, flats=2, biases=2)
    return folder


def sort_into(raw: Path, folder: Path, names: tuple[str, str, str, str]) -> Path:
    """Copy frames into a folder for each kind; their headers say nothing of it."""
    for path in raw.glob("*.fits"):
        kind = next(k for k, mark in enumerate(("light", "dark", "flat", "bias")) if path.name.startswith(mark))
        target = folder / names[kind] / f"frame_{path.name[-9:]}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        with fits.open(target, mode="update") as hdus:
            hdus[0].header.pop("IMAGETYP", None)
    return folder


@pytest.mark.parametrize("names", NAMES)
def test_kinds_below_one_folder(
    raw: Path, tmp_path: Path, names: tuple[str, str, str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = sort_into(raw, tmp_path / "M 31", names)
    (folder / "notes").mkdir()
    (folder / "master.png").write_bytes(b"")
    found = [path.parent.name for path in expand_frame_arguments([str(folder)])]
    assert found == [names[0]] * 4 + [name for name in sorted(names[1:], key=str.casefold) for _ in range(2)]
    command = ["stack", str(folder), "-o", str(tmp_path / "m.fits"), "--no-picture", "--dry-run"]
    assert main(command) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "lights 4 darks 2 flats 2 biases 2" in said
    assert [(tile.name, len(tile.frames)) for tile in read_run_plan(folder)] == [("M 31", 10)]


@pytest.mark.parametrize("below", ["Ha", "2026-03-14", "Night 1"])
def test_folders_of_filters_and_nights_below_the_kinds(
    raw: Path, tmp_path: Path, below: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = sort_into(raw, tmp_path / "night" / "M31", NAMES[0])
    for kind in ("lights", "flats"):
        (folder / kind / below).mkdir()
        for path in (folder / kind).glob("*.fits"):
            path.rename(folder / kind / below / path.name)
    assert main(["stack", str(folder), "-o", str(tmp_path / "m.fits"), "--no-picture", "--dry-run"]) == 0
    assert "lights 4 darks 2 flats 2 biases 2" in " ".join(capsys.readouterr().out.split())
    assert [(tile.name, len(tile.frames)) for tile in read_run_plan(tmp_path / "night")] == [("M31", 10)]


def test_a_folder_called_dark_with_objects_in_it_is_no_kind(raw: Path, tmp_path: Path) -> None:
    folder = tmp_path / "Dark" / "Shark"
    folder.mkdir(parents=True)
    path = folder / "frame_0001.fits"
    path.write_bytes(b"")
    assert kind_by_path(path) == ""


def test_a_run_of_such_a_folder_and_of_folders_of_them(raw: Path, tmp_path: Path) -> None:
    folder = sort_into(raw, tmp_path / "night" / "M31", NAMES[0])
    assert run(folder, tmp_path / "one") == 0
    master = read_master(tmp_path / "one" / "master_tile_001.fits").result
    assert len(master.frames) == 4
    sort_into(raw, tmp_path / "night" / "M42", NAMES[1])
    tiles = read_run_plan(tmp_path / "night")
    assert [(tile.name, len(tile.frames)) for tile in tiles] == [("M31", 10), ("M42", 10)]


def test_calibration_frames_beside_the_tiles_belong_to_all(raw: Path, tmp_path: Path) -> None:
    sort_into(raw, tmp_path / "all", NAMES[0])
    for tile in ("north", "south"):
        shutil.copytree(tmp_path / "all" / "lights", tmp_path / "night" / tile)
    for kind in ("darks", "flats"):
        shutil.copytree(tmp_path / "all" / kind, tmp_path / "night" / kind)
    tiles = read_run_plan(tmp_path / "night")
    assert [(tile.name, len(tile.frames)) for tile in tiles] == [("north", 8), ("south", 8)]


def test_folders_of_calibration_frames_alone_are_tiles(raw: Path, tmp_path: Path) -> None:
    folder = sort_into(raw, tmp_path / "library", NAMES[0])
    shutil.rmtree(folder / "lights")
    assert [tile.name for tile in read_run_plan(folder)] == ["biases", "darks", "flats"]
    with pytest.raises(InvalidInputError, match="no frames in it"):
        expand_frame_arguments([str(folder)])


def test_calibration_frames_in_a_folder_of_lights_are_said(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = sort_into(raw, tmp_path / "M31", NAMES[0])
    for path in (folder / "lights").iterdir():
        path.rename(folder / path.name)
    command = ["stack", str(folder), "-o", str(tmp_path / "m.fits"), "--no-picture", "--dry-run", "--align", "stars"]
    assert main(command) == 0
    said = capsys.readouterr().err
    assert f"{folder}: not used is biases, darks, flats in it; named, too, they calibrate the lights\n" in said
    assert main([*command[:2], str(folder / "darks"), *command[2:]]) == 0
    assert "not used is biases, flats in it" in capsys.readouterr().err
    assert main([*command, "--darks", str(folder / "darks")]) == 0
    assert "not used is biases, flats in it" in capsys.readouterr().err


def test_calibration_frames_beside_a_folder_of_lights_are_said(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lights = sort_into(raw, tmp_path / "M31", NAMES[0]) / "lights"
    command = ["stack", str(lights), "-o", str(tmp_path / "m.fits"), "--no-picture", "--dry-run"]
    assert main(command) == 0
    assert f"{lights}: not used is biases, darks, flats beside it; named, too, they" in capsys.readouterr().err
    others = [f"--{kind}={lights.parent / kind}" for kind in ("biases", "darks", "flats")]
    assert main([*command, *others]) == 0
    assert "not used" not in capsys.readouterr().err


def write_frames(folder: Path, count: int = 5) -> list[Path]:
    random = np.random.default_rng(4)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"r_{index}.fits" for index in range(count)]
    for path in paths:
        fits.PrimaryHDU(random.normal(500, 9, (60, 70)).astype(np.float32)).writeto(path)
    return paths


def our_master(folder: Path, paths: list[Path]) -> None:
    write_master(folder / "a_master.fits", stack(paths))


def stack_of(keyword: str) -> Callable[[Path, list[Path]], None]:
    def write(folder: Path, _: list[Path]) -> None:
        header = fits.Header({keyword: 210, "EXPTIME": 2100.0})
        fits.PrimaryHDU(np.full((60, 70), 900, np.float32), header).writeto(folder / "Stacked_210.fits")

    return write


def kept_by_a_preparation(folder: Path, paths: list[Path]) -> None:
    for name in (
        "boxes-aligned-r_0-0123456789ab.npy",
        "hot-0123456789abcdef0123.npy",
        "master-dark-0123456789abcdef.npy",
        "master-dark-flat-0123456789abcdef.npy",
    ):
        np.save(folder / name, np.full((60, 70), 900, np.float32))
    shutil.copyfile(paths[0], folder / "aligned-r_0-0123456789ab.fits")
    (folder / "inputs.json").write_text("{}")


BESIDE = {
    "a master of ours": our_master,
    "a stack of Siril's": stack_of("STACKCNT"),
    "a stack of another": stack_of("NCOMBINE"),
    "what a preparation keeps": kept_by_a_preparation,
}


@pytest.mark.parametrize("what", list(BESIDE))
def test_what_lies_beside_the_frames_is_no_frame(tmp_path: Path, what: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "night" / "tile"
    paths = write_frames(folder)
    BESIDE[what](folder, paths)
    assert main(["stack", str(folder), "-o", str(tmp_path / "m.fits"), "--no-picture"]) == 0
    assert fits.getheader(tmp_path / "m.fits")["NCOMBINE"] == 5
    said = capsys.readouterr().err
    assert ("no frame; left out of 6 files" in said) == ("prep" not in what)
    assert run(tmp_path / "night", tmp_path / "out", "--strict") == 0
    assert report_of(tmp_path / "out")["tiles"][0]["frames_used"] == 5


def test_the_output_of_an_earlier_stack_among_its_frames_is_made_again(tmp_path: Path) -> None:
    write_frames(tmp_path / "frames")
    command = ["stack", str(tmp_path / "frames"), "-o", str(tmp_path / "frames" / "m.fits"), "--no-picture"]
    assert main(command) == 0
    assert main(command) == 2
    assert main([*command, "--overwrite"]) == 0
    assert fits.getheader(tmp_path / "frames" / "m.fits")["NCOMBINE"] == 5


def test_a_stack_of_masters_is_one(tmp_path: Path) -> None:
    for index in range(3):
        paths = write_frames(tmp_path / str(index))
        write_master(tmp_path / f"m{index}.fits", stack(paths))
    masters = [str(tmp_path / f"m{index}.fits") for index in range(3)]
    assert main(["stack", *masters, "-o", str(tmp_path / "m.fits"), "--no-picture"]) == 0
    assert fits.getheader(tmp_path / "m.fits")["NCOMBINE"] == 3


def test_what_a_preparation_keeps_is_no_tile(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    night = tmp_path / "night"
    shutil.copytree(raw, night / "M31")
    assert main(["stack", str(night / "M31"), "-o", str(night / "m31.fits"), "--no-picture"]) == 0
    capsys.readouterr()
    assert [tile.name for tile in read_run_plan(night)] == ["M31"]
    kept = sorted(path.name for path in expand_frame_arguments([str(night / "m31.prepared")]))
    assert len(kept) == 4
    assert all(name.startswith("aligned-light") for name in kept)


@pytest.mark.parametrize(
    ("kind", "names_it"), [("Dark Frame", "dark"), ("FLAT", "flat"), ("bias", "bias"), ("Flat Dark", "dark flat")]
)
def test_calibration_frames_among_aligned_lights_are_refused(
    tmp_path: Path, kind: str, names_it: str, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = write_frames(tmp_path / "night" / "tile")
    fits.setval(paths[2], "IMAGETYP", value=kind)
    command = ["stack", str(paths[0].parent), "-o", str(tmp_path / "m.fits"), "--no-picture", "--align", "none"]
    assert main(command) == 2
    assert f"r_2.fits of 5 files: a {names_it}, but the frames are stacked as they are" in capsys.readouterr().err
    assert run(tmp_path / "night", tmp_path / "out", "--align", "none") == 1
    assert f"a {names_it}, but" in report_of(tmp_path / "out")["tiles"][0]["reason"]
    assert outcomes(tmp_path / "out") == ["failed"]
    fits.setval(paths[2], "IMAGETYP", value="Light")
    assert main(command) == 0


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("Light_NGC_7023_10.0s_IRCUT_20240730-224436.fit", "Light_NGC_7023_10.0s_IRCUT_20240730-224436"),
        ("a.b.c.fits", "a.b.c"),
        ("a_1.5s.fits.gz", "a_1.5s"),
        ("a_1.5s.fits.fz", "a_1.5s"),
        ("a_1.5s.FIT", "a_1.5s"),
        ("a_1.5s.npy", "a_1.5s"),
        ("a_1.5s", "a_1.5s"),
    ],
)
def test_names_end_where_the_format_begins(name: str, stem: str) -> None:
    assert frame_stem(name) == stem


@pytest.mark.parametrize("levels", ["none", "offset"])
def test_names_are_kept_whole(raw: Path, tmp_path: Path, levels: str, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"Light_NGC_7023_10.0s_IRCUT_20240730-2244{index}6" for index in range(4)]
    folder = tmp_path / "raw"
    folder.mkdir()
    for name, path in zip(names, sorted(raw.glob("light*.fits")), strict=True):
        shutil.copyfile(path, folder / f"{name}.fit")
    command = ["stack", str(folder), "-o", str(tmp_path / "m.fits"), "--no-picture", "--levels", levels]
    assert main(command) == 0
    table = fits.getdata(tmp_path / "m.fits", "FRAMES")
    for name, file, raw_file in zip(names, table["FILE"], table["RAWFILE"], strict=True):
        assert f"aligned-{name}-" in file
        assert Path(raw_file).name == f"{name}.fit"
    capsys.readouterr()
    assert main(["explain", str(tmp_path / "m.fits"), "70", "90"]) == 0
    said = capsys.readouterr().out
    assert all(f"/{name}.fit " in said for name in names)  # as the user knows them
    assert "aligned-" not in said


def test_a_file_system_without_locks_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fcntl = pytest.importorskip("fcntl", reason="POSIX locks")

    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert run(write_night(tmp_path / "night", tiles=1), tmp_path / "out") == 0
    assert capsys.readouterr().err.count("has no locks") == 1
