from __future__ import annotations

import json
import logging
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from night import (
    leftovers,
    make_frame,
    outcomes,
    report_of,
    run,
    start,
    tiles_of,
    write_frame,
    write_long_plan,
    write_night,
)

from zemosaic_stack_core import StackOptions, stack
from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.options import MAPS
from zemosaic_stack_core.phase3 import Night, StackedTile, StackSettings, TileOutcome, TileSpec, run_night


def test_a_folder_of_folders_becomes_tiles(tmp_path: Path) -> None:
    plan = write_night(tmp_path / "night", tiles=2)
    assert run(plan, tmp_path / "out", "--rejection", "kappa_sigma") == 0
    assert list(tiles_of(tmp_path / "out")) == ["master_tile_001.fits", "master_tile_002.fits"]
    assert outcomes(tmp_path / "out") == ["done_cpu", "done_cpu"]
    assert leftovers(tmp_path / "out") == []
    with fits.open(tmp_path / "out" / "master_tile_002.fits") as hdus:
        frames = [make_frame(2, index) for index in range(6)]
        expected = stack(frames, options=StackOptions())
        np.testing.assert_array_equal(hdus[0].data, expected.image)
        np.testing.assert_array_equal(hdus["COVERAGE"].data, expected.coverage)
        np.testing.assert_array_equal(hdus["ALPHA"].data, np.where(expected.coverage > 0, 255, 0))
        header = hdus[0].header
        assert (header["ZMT_ID"], header["ZMT_NRAW"], header["MT_NFRAMES"], header["CRPIX1"]) == (2, 6, 6, 16.0)
        assert (header["ZMT_REJ"], header["ZMT_KAPLO"], header["ALPHAEXT"]) == ("kappa_sigma", 3.0, "ALPHA")


def test_a_json_plan_gives_numbers_and_names(tmp_path: Path) -> None:
    write_night(tmp_path / "night", tiles=2)
    plan = tmp_path / "plan.json"
    tiles = [
        {"id": 7, "name": "north", "frames": ["night/tile_1/light_1.fits", "night/tile_1/light_2.fits"]},
        {"id": 1234, "frames": ["night/tile_2"]},
    ]
    plan.write_text(json.dumps({"tiles": tiles}))
    assert run(plan, tmp_path / "out") == 0
    assert list(tiles_of(tmp_path / "out")) == ["master_tile_007.fits", "master_tile_1234.fits"]
    assert [tile["name"] for tile in report_of(tmp_path / "out")["tiles"]] == ["north", "tile 1234"]


def test_options_and_configuration_reach_the_tiles(tmp_path: Path) -> None:
    plan = write_night(tmp_path / "night", tiles=1)
    config = tmp_path / "zemosaic_config.json"
    config.write_text(
        json.dumps(
            {
                "stacking_rejection_algorithm": "linear_fit_clip",
                "stacking_kappa_low": 2.5,
                "stacking_final_combine_method": "mean",
                "parallel_max_cpu_workers": 1,
                "window_geometry": "1x1",
            }
        )
    )
    assert run(plan, tmp_path / "out", "--config", str(config), "--kappa-high", "4") == 0
    header = fits.getheader(tmp_path / "out" / "master_tile_001.fits")
    assert (header["ZMT_REJ"], header["ZMT_KAPLO"], header["ZMT_KAPHI"]) == ("linear_fit_clip", 2.5, 4.0)


def test_one_bad_tile_fails_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = write_night(tmp_path / "night", tiles=3)
    for path in (plan / "tile_2").iterdir():
        path.write_bytes(b"<html>")
    assert run(plan, tmp_path / "out") == 1
    assert outcomes(tmp_path / "out") == ["done_cpu", "failed", "done_cpu"]
    assert "0 good of 6 frames" in report_of(tmp_path / "out")["tiles"][1]["reason"]
    said = capsys.readouterr().err
    assert "tile 2 failed: 0 good of 6 frames; expected at least 3 (--min-frames); first bad one" in said
    assert "Traceback" not in said
    assert "3 tiles: 2 made on the CPU, 1 FAILED" in said


def test_a_tile_without_frames_fails_alone(tmp_path: Path) -> None:
    plan = write_night(tmp_path / "night", tiles=2)
    (plan / "no frame").mkdir()
    (plan / "no frame" / "a.fits").write_bytes(b"")
    (plan / "empty").mkdir()  # no tile
    assert run(plan, tmp_path / "out") == 1
    assert outcomes(tmp_path / "out") == ["failed", "done_cpu", "done_cpu"]


def test_bad_frames_are_dropped_one_by_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = write_night(tmp_path / "night", tiles=1, frames=8)
    tile = plan / "tile_1"
    (tile / "light_2.fits").write_bytes(b"")
    write_frame(tile / "light_4.fits", np.full((24, 32), np.nan, np.float32))
    write_frame(tile / "light_6.fits", np.full((24, 32), 65535, np.uint16))
    write_frame(tile / "light_7.fits", make_frame(9, 9, (24, 33)))
    assert run(plan, tmp_path / "out", "--rejection", "kappa_sigma") == 0
    record = report_of(tmp_path / "out")["tiles"][0]
    assert record["frames_given"] == 8
    assert record["frames_used"] == 4
    assert [Path(frame["name"]).name for frame in record["dropped"]] == [f"light_{n}.fits" for n in (2, 4, 6, 7)]
    warnings = [line for line in capsys.readouterr().err.splitlines() if "frame dropped" in line]
    assert len(warnings) == 4
    good = [make_frame(1, index) for index in (0, 2, 4, 7)]
    np.testing.assert_array_equal(fits.getdata(tmp_path / "out" / "master_tile_001.fits"), stack(good).image)
    header = fits.getheader(tmp_path / "out" / "master_tile_001.fits")
    assert (header["ZMT_NRAW"], header["ZMT_NALGN"], header["MT_NFRAMES"], header["ZSC_NDRP"]) == (8, 4, 4, 4)


def test_min_frames_and_strict(tmp_path: Path) -> None:
    plan = write_night(tmp_path / "night", tiles=2)
    (plan / "tile_1" / "light_3.fits").write_bytes(b"no")
    assert run(plan, tmp_path / "a", "--min-frames", "6") == 1
    assert outcomes(tmp_path / "a") == ["failed", "done_cpu"]
    assert "5 good of 6 frames; expected at least 6" in report_of(tmp_path / "a")["tiles"][0]["reason"]
    assert run(plan, tmp_path / "b", "--strict") == 1
    assert outcomes(tmp_path / "b") == ["failed", "done_cpu"]
    assert report_of(tmp_path / "b")["tiles"][0]["reason"].endswith("(strict)")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "expected a plan"),
        ("{", "not a JSON file"),
        ("[]", "no list of tiles"),
        ('{"tiles": []}', "no list of tiles"),
        ('{"tiles": [{"id": 1, "frames": ["a"]}, {"id": 1, "frames": ["b"]}]}', "expected each once"),
        ('{"tiles": [{"id": "x", "frames": ["a"]}]}', "expected a whole number"),
        ('{"tiles": [{"id": 1, "frames": "a"}]}', "expected a list of paths"),
        ('{"tiles": [3]}', "tile 1 of the list is a int"),
        ('{"tiles": [{"frmaes": ["a"]}]}', "tile 1 of the list: 'frmaes' means nothing in a plan; expected id, name"),
        ('{"tils": []}', "'tils' means nothing in a plan; expected tiles"),
    ],
)
def test_a_bad_plan_is_bad_usage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, message: str
) -> None:
    plan = tmp_path / "plan.json"
    if text is not None:
        plan.write_text(text)
    assert run(plan, tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("where", ["tile_1", "tile_1/deeper", "new/deeper"])
def test_an_output_among_the_frames_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], where: str) -> None:
    plan = write_night(tmp_path / "night", tiles=1, frames=2)
    before = sorted(plan.rglob("*"))
    assert run(plan, plan / where) == 2
    assert "which is a tile of the plan; expected a folder outside of it" in capsys.readouterr().err
    assert sorted(plan.rglob("*")) == before


def test_an_output_beside_the_tiles_is_never_a_tile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = write_night(tmp_path / "night", tiles=2, frames=2)
    write_frame(plan / "prepared" / "aligned.fits", make_frame(1, 1))  # of raw frames, by a run into the same folder
    assert run(plan, plan) == 0
    assert [tile["name"] for tile in report_of(plan)["tiles"]] == ["tile_1", "tile_2"]
    (plan / "prepared").rename(tmp_path / "prepared")
    for output in (plan / "out", plan / "out", plan, plan / "another"):
        assert run(plan, output) == 0
        assert [tile["name"] for tile in report_of(output)["tiles"]] == ["tile_1", "tile_2"]
    assert "out: holds the tiles of an earlier run; left out of the plan" in capsys.readouterr().err


def test_a_folder_of_frames_is_no_folder_of_tiles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = write_night(tmp_path / "night", tiles=1, frames=2)
    assert run(plan / "tile_1", tmp_path / "out") == 2
    assert "for a single tile: zemosaic-worker stack" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ("--min-frames", "0"),
        ("--shard", "3/2"),
        ("--shard", "x"),
        ("--kappa-low", "-1"),
        ("--scheduler", "tcp://localhost:1", "--local-cluster", "2"),
        ("--maps", "nonsense"),
        ("--local-cluster", "0"),
    ],
)
def test_bad_options_are_bad_usage(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    plan = write_night(tmp_path / "night", tiles=1, frames=2)
    assert run(plan, tmp_path / "out", *arguments) == 2
    assert not (tmp_path / "out").exists()


def test_quiet_says_only_errors_and_the_log_file_gets_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = write_night(tmp_path / "night", tiles=2)
    (plan / "tile_1" / "light_3.fits").write_bytes(b"no")
    for path in (plan / "tile_2").iterdir():
        path.write_bytes(b"")
    assert run(plan, tmp_path / "out", "--quiet", "--log-file", str(tmp_path / "log")) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert said.err.startswith("tile 2 failed:")
    log = (tmp_path / "log").read_text()
    assert "WARNING tile 1: frame dropped" in log
    assert "phase3_cpu_chunk_summary" in log
    assert "2 tiles: 1 made on the CPU, 1 FAILED" in log
    assert logging.getLogger("zemosaic_stack_core").handlers == []


def test_fewest_samples_and_empty_pixels_are_counted(tmp_path: Path) -> None:
    frames = [np.full((24, 32, 3), 100.0, np.float32) for _ in range(4)]
    frames[0][:, :8] = np.nan
    for index, frame in enumerate(frames):
        frame[0, -2:, 1] = np.nan  # of one channel
        write_frame(tmp_path / "night" / "tile_1" / f"light_{index}.fits", frame)
        write_frame(tmp_path / "night" / "tile_2" / f"light_{index}.fits", frame[1:])
    assert run(tmp_path / "night", tmp_path / "out", "--align", "none", "--rejection", "none") == 0
    one, two = report_of(tmp_path / "out")["tiles"]
    assert (one["coverage_min"], one["coverage_max"]) == (0, 4)
    assert one["empty_pixels"] == pytest.approx(100 * 2 / (24 * 32))
    assert (two["coverage_min"], two["coverage_max"], two["empty_pixels"]) == (3, 4, 0.0)


def test_a_run_answers_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = write_night(tmp_path / "night", tiles=2)
    (plan / "tile_2" / "light_3.fits").write_bytes(b"no image")
    assert run(plan, tmp_path / "out", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["exit_code"], answer["interrupted"], answer["stopped"]) == (0, False, "")
    assert answer["counts"] == {"done_cpu": 2}
    assert Path(answer["page"]) == tmp_path / "out" / "report.html"
    assert answer["tiles"] == [
        {name: value for name, value in tile.items() if name != "inputs"}
        for tile in report_of(tmp_path / "out")["tiles"]
    ]
    (plan / "tile_2" / "light_1.fits").unlink()
    assert run(plan, tmp_path / "out", "--json", "--strict") == 1
    assert json.loads(capsys.readouterr().out)["exit_code"] == 1


def test_shards_divide_the_tiles_and_make_the_same_bits(tmp_path: Path) -> None:
    plan = write_night(tmp_path / "night", tiles=5)
    assert run(plan, tmp_path / "whole") == 0
    for index in (1, 2, 3):
        assert run(plan, tmp_path / "parts", "--shard", f"{index}/3") == 0
    assert tiles_of(tmp_path / "parts") == tiles_of(tmp_path / "whole")
    names = [f"report-{index}-of-3.{kind}" for index in (1, 2, 3) for kind in ("json", "html")]
    assert leftovers(tmp_path / "parts", names) == []
    counts = [len(report_of(tmp_path / "parts", f"report-{index}-of-3")["tiles"]) for index in (1, 2, 3)]
    assert counts == [2, 2, 1]
    assert run(plan, tmp_path / "parts") == 0
    assert outcomes(tmp_path / "parts") == ["reused"] * 5


def test_a_file_that_somebody_else_made_is_not_overwritten(tmp_path: Path) -> None:
    plan = write_night(tmp_path / "night", tiles=2)
    (tmp_path / "out").mkdir()
    other = write_frame(tmp_path / "out" / "master_tile_001.fits", make_frame(5, 5))
    before = other.read_bytes()
    assert run(plan, tmp_path / "out") == 1
    assert other.read_bytes() == before
    assert outcomes(tmp_path / "out") == ["failed", "done_cpu"]


def test_an_interrupt_between_bands_cancels_the_rest(tmp_path: Path) -> None:
    class Impatient:
        def __init__(self) -> None:
            self.number = 0

        def begin(self, tiles: int) -> None: ...

        def tile(self, spec: TileSpec) -> None:
            self.number = spec.tile_id

        def rows(self, done: int, total: int) -> None:
            if self.number == 2:
                raise KeyboardInterrupt

        def done(self, record: object) -> None: ...

        def end(self) -> None: ...

    plan = write_night(tmp_path / "night", tiles=3)
    tiles = [TileSpec(tile_id=n, name=f"t{n}", frames=tuple(sorted((plan / f"tile_{n}").iterdir()))) for n in (1, 2, 3)]
    night = Night(tiles=tiles, output=tmp_path / "out", settings=StackSettings(options=StackOptions()), backend="cpu")
    report = run_night(night, progress=Impatient())
    assert report.exit_code == 130
    assert [record.outcome for record in report.records] == [
        TileOutcome.DONE_CPU,
        TileOutcome.CANCELLED,
        TileOutcome.CANCELLED,
    ]
    assert leftovers(tmp_path / "out") == []
    assert list(tiles_of(tmp_path / "out")) == ["master_tile_001.fits"]
    assert run_night(night).exit_code == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_with_130(tmp_path: Path, number: int) -> None:
    process = start(write_long_plan(tmp_path), tmp_path / "out")
    while not (tmp_path / "out" / "master_tile_002.fits").exists():
        assert process.poll() is None
        time.sleep(0.002)
    os.kill(process.pid, number)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert "run the same command again" in said
    assert leftovers(tmp_path / "out") == []
    assert {"done_cpu", "cancelled"} == set(outcomes(tmp_path / "out"))


def test_settings_are_checked() -> None:
    with pytest.raises(InvalidInputError, match="min_frames is 0; expected a whole number of at least 1"):
        StackSettings(options=StackOptions(), min_frames=0)


@pytest.mark.parametrize("shape", [(9, 12), (9, 12, 3)])
def test_a_crop_cuts_every_map(shape: tuple[int, ...]) -> None:
    frames = list(np.random.default_rng(2).normal(100.0, 3.0, (9, *shape)).astype(np.float32))
    result = stack(frames, maps=[*MAPS, "rejected"])
    cropped = StackedTile(result=result).crop(slice(2, 8), slice(1, 12)).result
    for name in ("image", *MAPS):
        assert np.array_equal(getattr(cropped, name), getattr(result, name)[2:8, 1:12])
    assert np.array_equal(cropped.is_rejected(8), result.is_rejected(8)[2:8, 1:12])


def test_a_crop_leaves_the_frames_that_are_in_it() -> None:
    frames = np.random.default_rng(2).normal(100.0, 3.0, (5, 20, 30)).astype(np.float32)
    frames[1, :, :18] = np.nan
    assert StackedTile(result=stack(list(frames))).crop(slice(0, 20), slice(20, 28)).result.header["NCOMBINE"] == 5
