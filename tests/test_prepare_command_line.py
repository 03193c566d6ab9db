"""Raw frames on the command line: recognized, registered, told of; aligned frames are stacked as ever."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from benchmarks import prepare, prepare_beside_siril
from zemosaic_stack_core.command_line import main
from zemosaic_stack_core.synthetic.night import SyntheticNight
from zemosaic_stack_core.synthetic.raw_night import RawNight

NIGHT = RawNight(n_frames=5, shape=(160, 200), n_stars=220, turn=0.3, shift=3.0, cosmic_rays=4)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw") / "night"
    NIGHT.write(folder, darks=4)
    return folder


@pytest.fixture(scope="module")
def master(raw: Path) -> Path:
    """A master of the night, its aligned frames beside it."""
    path = raw.parent / "master.fits"
    arguments = ["stack", str(raw), "-o", str(path), "--backend", "cpu", "--workers", "1", "--no-picture"]
    assert main(arguments) == 0
    return path


def run(*arguments: object) -> int:
    return main([*map(str, arguments), "--backend", "cpu", "--workers", "1"])


def test_a_folder_of_raw_frames_becomes_a_master(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("stack", raw, "-o", tmp_path / "m.fits", "--json") == 0
    said = capsys.readouterr()
    assert "raw frames: 4 darks among 9 files; the lights are registered first (--align none stacks" in said.err
    assert "5 lights, 4 darks\n" in said.err
    assert "alignment: stars (5 of 5 frames have no WCS)\n" in said.err
    assert "light_0003.fits: " in said.err
    assert "normalization additive: levels from " in said.err
    summary = json.loads(said.out)
    assert summary["n_frames"] == 5
    assert summary["options"]["normalization"] == "additive"
    assert summary["prepared"]["alignment"] == "stars"
    assert [frame["dropped"] for frame in summary["prepared"]["frames"]] == [""] * 5
    assert (tmp_path / "m.png").exists()
    assert len(list((tmp_path / "m.prepared").glob("aligned-light_*.fits"))) == 5
    assert run("stack", raw, "-o", tmp_path / "n.fits", "--no-picture", "--cache", tmp_path / "m.prepared") == 0
    assert f"  normalized (additive) to {raw / 'light_000'}" in capsys.readouterr().out


def test_the_master_tells_what_was_measured(master: Path) -> None:
    with fits.open(master) as hdus:
        table, header = hdus["FRAMES"].data, hdus[0].header
        assert [Path(name).name for name in table["RAWFILE"]] == [f"light_{i:04d}.fits" for i in range(5)]
        assert np.abs(table["SHIFTX"]).max() < 7
        assert np.all(table["NSTARS"] >= table["NMATCH"])
        assert np.all(table["STARFWHM"] > 2)
        assert hdus["FRAMES"].columns["SHIFTX"].unit == "pix"
        assert "prepared: aligned by stars (5 of 5 frames have no WCS)" in str(header["HISTORY"])


def test_it_can_be_replayed_and_explained(master: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(master), "--backend", "cpu"]) == 0
    assert main(["explain", str(master), "80", "100"]) == 0
    said = capsys.readouterr().out
    assert "the same bits" in said
    assert "light_0002.fits " in said


def test_a_second_stack_registers_nothing(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = tmp_path / "kept"
    assert run("stack", raw, "-o", tmp_path / "a.fits", "--cache", cache, "--no-picture") == 0
    capsys.readouterr()
    asked = ("--rejection", "mad_clip", "--normalization", "none")
    assert run("stack", raw, "-o", tmp_path / "b.fits", "--cache", cache, "--no-picture", *asked) == 0
    said = capsys.readouterr().err
    assert "5 aligned frames found in the cache" in said
    assert "normalization additive" not in said


def test_options_reach_the_preparation(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lights = sorted(raw.glob("light_*.fits"))
    assert (
        run(
            "stack",
            *lights,
            "-o",
            tmp_path / "m.fits",
            "--no-picture",
            "--json",
            "--darks",
            raw / "dark_00.fits",
            "--keep-best",
            "60%",
            "--kernel",
            "bilinear",
            "--hot-pixels",
            "interpolate",
            "--levels",
            "offset",
            "--reference-frame",
            lights[2],
            "--align",
            "stars",
        )
        == 0
    )
    summary = json.loads(capsys.readouterr().out)
    prepared = summary["prepared"]
    assert summary["n_frames"] == 3
    assert summary["options"]["normalization"] == "none"
    assert prepared["levels"] == "offset"
    assert prepared["calibration"]["dark"] == 1
    assert prepared["reference"] == str(lights[2])
    assert sum(frame["dropped"] == "not among the best 60 %" for frame in prepared["frames"]) == 2
    history = str(fits.getheader(tmp_path / "m.fits")["HISTORY"])
    assert "dropped light_" in history


def test_weights_are_named_by_the_raw_frames(raw: Path, tmp_path: Path) -> None:
    lights = sorted(raw.glob("light_*.fits"))[:3]
    rows = [f"{path},{index + 1}" for index, path in enumerate(lights)]
    (tmp_path / "w.csv").write_text("\n".join(["file,weight", *rows]), encoding="utf-8")
    assert run("stack", *lights, "-o", tmp_path / "m.fits", "--weights", tmp_path / "w.csv", "--no-picture") == 0
    weights = fits.getdata(tmp_path / "m.fits", "FRAMES")["WEIGHT"]
    assert weights[1] == pytest.approx(2 * weights[0])
    assert weights[2] == pytest.approx(3 * weights[0])


def test_a_light_without_a_weight_is_found_before_the_work(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "weights.csv"
    table.write_text("file,weight\nother.fits,1\n", encoding="utf-8")
    assert run("stack", raw, "-o", tmp_path / "m.fits", "--weights", table) == 2
    assert "weights.csv: no row for" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == [table]


def test_a_dry_run_reads_headers_only(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("stack", raw, "-o", tmp_path / "m.fits", "--dry-run", "--json") == 0
    plan = json.loads(capsys.readouterr().out)["prepare"]
    assert (plan["lights"], plan["darks"], plan["flats"], plan["biases"]) == (5, 4, 0, 0)
    assert plan["shape"] == "160 x 200"
    assert run("stack", raw, "-o", tmp_path / "m.fits", "--dry-run") == 0
    said = capsys.readouterr()
    assert "least disk" in said.out
    assert "winsorized_sigma_clip 3/3 with 5 frames:\n  takes " in said.out
    assert "rejection winsorized_sigma_clip: 5 frames" in said.err
    assert not list(tmp_path.iterdir())


def test_frames_that_show_no_sky_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    RawNight(n_frames=3, shape=(120, 130), n_stars=0).write(tmp_path / "night")
    assert run("stack", tmp_path / "night", "-o", tmp_path / "m.fits") == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("zemosaic-worker stack: no frame of 3 has 6 stars")
    assert [path.name for path in tmp_path.iterdir()] == ["night"]


def test_what_needs_aligned_frames_says_so(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("stack", raw, "-o", tmp_path / "m.fits", "--mask-extension", "DQ") == 2
    assert "--mask-extension with raw frames; expected aligned ones" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["0", "120%", "few"])
def test_a_part_must_be_one(raw: Path, tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("stack", raw, "-o", tmp_path / "m.fits", "--keep-best", text) == 2
    assert "expected 1% to 100%" in capsys.readouterr().err


def test_align_none_stacks_raw_frames_as_they_are(raw: Path, tmp_path: Path) -> None:
    lights = sorted(raw.glob("light_*.fits"))
    assert run("stack", *lights, "-o", tmp_path / "m.fits", "--align", "none", "--no-picture") == 0
    with fits.open(tmp_path / "m.fits") as hdus:
        assert hdus[0].data.shape == NIGHT.shape
        assert "RAWFILE" not in hdus["FRAMES"].columns.names
    assert not (tmp_path / "m.prepared").exists()


def test_aligned_frames_are_not_touched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    SyntheticNight(n_frames=4, shape=(40, 60), dither=4).write(tmp_path / "night")
    arguments = ("--no-picture", "--rejection", "minmax")
    assert run("stack", tmp_path / "night", "-o", tmp_path / "a.fits", *arguments) == 0
    assert "raw" not in capsys.readouterr().err
    assert run("stack", tmp_path / "night", "-o", tmp_path / "b.fits", "--align", "none", *arguments) == 0
    assert (tmp_path / "a.fits").read_bytes() == (tmp_path / "b.fits").read_bytes()
    assert not (tmp_path / "a.prepared").exists()


def test_a_run_prepares_the_tiles_that_need_it(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(raw, tmp_path / "plan" / "a")
    SyntheticNight(n_frames=4, shape=(40, 60), dither=4).write(tmp_path / "plan" / "b")
    dark = RawNight(n_frames=3, shape=(120, 130), n_stars=0)
    dark.write(tmp_path / "plan" / "c")
    (tmp_path / "plan" / "a" / "light_bad.fits").write_bytes(b"cut off")
    out = tmp_path / "out"
    assert run("run", tmp_path / "plan", "-o", out) == 1
    said = capsys.readouterr().err
    assert "no frame of 3 has 6 stars" in said
    assert "tile 1 (a): made on the CPU, 5 of 6 frames registered by stars, " in said
    assert "tile 2 (b): made on the CPU, 4 of 4 frames, " in said
    tiles = {tile["name"]: tile for tile in json.loads((out / "report.json").read_text())["tiles"]}
    assert [tiles[name]["outcome"] for name in "abc"] == ["done_cpu", "done_cpu", "failed"]
    assert (tiles["a"]["frames_used"], tiles["a"]["frames_given"]) == (5, 6)
    assert [Path(frame["name"]).name for frame in tiles["a"]["dropped"]] == ["light_bad.fits"]
    prepared = tiles["a"]["details"]["prepared"]
    assert prepared["alignment"] == "stars"
    assert all(frame["stars"] >= frame["matched"] > 0 for frame in prepared["frames"])
    assert "prepared" not in tiles["b"]["details"]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("stars: 5 of 5 frames have no WCS") == 1
    assert "light_0004.fits" in page
    with fits.open(out / "master_tile_001.fits") as hdus:
        assert "SHIFTX" in hdus["FRAMES"].columns.names
        assert hdus[0].header["ZMT_NRAW"] == 6
    assert run("run", tmp_path / "plan", "-o", out) == 1
    tiles = {tile["name"]: tile for tile in json.loads((out / "report.json").read_text())["tiles"]}
    assert [tiles[name]["outcome"] for name in "abc"] == ["reused", "reused", "failed"]
    assert (tiles["a"]["frames_used"], tiles["a"]["frames_given"]) == (5, 6)


def test_a_run_asked_for_something_else_makes_the_raw_tile_again(raw: Path, tmp_path: Path) -> None:
    shutil.copytree(raw, tmp_path / "plan" / "a")
    assert run("run", tmp_path / "plan", "-o", tmp_path / "out", "-q") == 0
    assert run("run", tmp_path / "plan", "-o", tmp_path / "out", "-q", "--keep-best", "60%") == 0
    (tile,) = json.loads((tmp_path / "out" / "report.json").read_text())["tiles"]
    assert tile["outcome"] == "done_cpu"
    assert tile["frames_used"] == 3
    assert [frame["reason"] for frame in tile["dropped"]] == ["not among the best 60 %"] * 2


def test_what_is_not_installed_is_said(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "drizzle", None)
    assert run("stack", raw, "-o", tmp_path / "m.fits", "--cfa", "drizzle") == 2
    assert (
        "--cfa drizzle needs drizzle, not installed; expected: python -m pip install drizzle" in capsys.readouterr().err
    )


@pytest.mark.slow
def test_the_benchmark_runs(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sep", reason="another opinion on stars, without a wheel for Python 3.14")
    arguments = ["truth", "--frames", "3", "--size", "160", "200", "--stars", "250", "--workers", "1"]
    prepare.main(arguments)
    result = json.loads(capsys.readouterr().out)
    assert result["kept"] == 3
    assert result["shift_error_px"]["median"] < 0.1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="shares of memory are Linux's")
def test_our_half_of_the_comparison_runs(raw: Path, tmp_path: Path) -> None:
    cost = prepare_beside_siril.ours(sorted(raw.iterdir()), tmp_path, 1)
    assert {"masters", "stars", "align", "stack"} < set(cost)
    assert all(step["wall"] > 0 for step in cost.values())
