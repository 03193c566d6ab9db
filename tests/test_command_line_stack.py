"""``zemosaic-worker stack``, ``demo`` and ``doctor``: what they write, say and refuse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import namedtuple
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from PIL import Image

from zemosaic_stack_core import StackOptions, stack
from zemosaic_stack_core.command_line import ExitCode, main
from zemosaic_stack_core.command_line.stack import import_ahead
from zemosaic_stack_core.gpu.health import GpuHealth
from zemosaic_stack_core.gpu.phase3_gpu import Phase3Gpu
from zemosaic_stack_core.master.read import read_master
from zemosaic_stack_core.stacking.pictures import color_map, stretch
from zemosaic_stack_core.synthetic.night import SyntheticNight

NIGHT = SyntheticNight(n_frames=9, shape=(40, 56), dither=4)


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("night") / "frames"
    NIGHT.write(folder)
    return folder


def run(*arguments: object) -> int:
    return main(["stack", *map(str, arguments), "--backend", "cpu"])


def test_writes_what_the_library_gives(frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    master = tmp_path / "master.fits"
    assert run(frames, "-o", master, "--maps", "all", "--rejection", "mad_clip", "--kappa-high", "2") == ExitCode.DONE
    options = StackOptions(rejection="mad_clip", kappa_high=2.0, normalization="additive")
    expected = stack(sorted(frames.iterdir()), options=options, maps="all")
    written = read_master(master).result
    for name in ("image", "coverage", "weight_map", "rejected_low", "rejected_high", "variance"):
        np.testing.assert_array_equal(getattr(written, name), getattr(expected, name), strict=True)
    assert written.options == options
    said = capsys.readouterr().out
    assert f"{master}: 9 frames of 40 x 56 x 3" in said
    assert "mad_clip 3/2, mean: rejected" in said
    assert (tmp_path / "master.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["master.fits", "master.png"]


def test_no_bit_depends_on_how_the_work_is_done(frames: Path, tmp_path: Path) -> None:
    ways = ([], ["--workers", 3], ["--rows-per-chunk", 1], ["--memory", "300kB", "--workers", 2])
    masters = []
    for index, way in enumerate(ways):
        path = tmp_path / f"{index}.fits"
        assert run(frames, "-o", path, "--no-picture", *way) == ExitCode.DONE
        masters.append(path.read_bytes())
    assert all(master == masters[0] for master in masters)


def test_weights_of_a_table(frames: Path, tmp_path: Path) -> None:
    paths = sorted(frames.iterdir())
    table = tmp_path / "weights.csv"
    weights = [float(1 + index % 4) for index in range(len(paths))]
    lines = [f"{path.name},{weight}" for path, weight in zip(paths, weights, strict=True)]
    table.write_text("file,weight\n" + "\n".join(lines), encoding="utf-8")
    master = tmp_path / "m.fits"
    assert run(frames, "-o", master, "--weights", table, "--maps", "weight_map", "--no-picture") == ExitCode.DONE
    written = read_master(master).result
    np.testing.assert_array_equal(written.image, stack(paths, options=written.options, weights=weights).image)
    assert [frame.weight for frame in written.frames] == [(weight,) * 3 for weight in weights]
    assert written.coverage is None


def test_json(frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(frames, "-o", tmp_path / "m.fits", "--json", "--combine", "median") == ExitCode.DONE
    summary = json.loads(capsys.readouterr().out)
    assert summary["shape"] == [40, 56, 3]
    assert summary["n_frames"] == len(summary["frames"]) == 9
    assert summary["options"]["combine"] == "median"
    assert summary["picture"] == str(tmp_path / "m.png")
    assert summary["backend"] == "numpy"
    counts = [frame["rejected_high_percent"] for frame in summary["frames"]]
    assert summary["rejected_high_percent"] == pytest.approx(float(np.mean(counts)), abs=0.05)


class TestDryRun:
    def test_writes_nothing(self, frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(frames, "-o", tmp_path / "m.fits", "--dry-run", "--workers", 2) == ExitCode.DONE
        said = capsys.readouterr().out
        assert list(tmp_path.iterdir()) == []
        for words in ("9 of 40 x 56 x 3", "read 2 times", "peak memory", "winsorized_sigma_clip 3/3 with 9 frames"):
            assert words in said
        plain = ("--rejection", "kappa_sigma", "--normalization", "none")
        assert run(frames, "-o", tmp_path / "m.fits", "--dry-run", *plain) == ExitCode.DONE
        said = capsys.readouterr().out
        for words in ("read once", "kappa_sigma 3/3 with 9 frames", "no sample can"):
            assert words in said

    def test_is_for_programs_too(self, frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        arguments = ("--dry-run", "--json", "--memory", "200kB", "--normalization", "linear_fit")
        assert run(frames, "-o", tmp_path / "m.fits", *arguments) == ExitCode.DONE
        plan = json.loads(capsys.readouterr().out)
        assert plan["passes"] == 2
        assert plan["chunks"] > 1
        assert plan["chunk_bytes"] <= 200_000 < plan["predicted_peak_bytes"]
        assert plan["input_bytes"] == 9 * 40 * 56 * 3 * 4

    def test_what_does_not_fit(self, frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(frames, "-o", tmp_path / "m.fits", "--dry-run", "--memory", "100B") == ExitCode.FAILED
        assert "the memory budget is" in capsys.readouterr().err


def bad_cases(frames: Path, folder: Path) -> list[tuple[list[object], str]]:
    first = sorted(frames.iterdir())[0]
    (folder / "there.fits").write_bytes(b"mine")
    (folder / "there.png").write_bytes(b"mine")
    (folder / "text.fits").write_text("no image", encoding="utf-8")
    np.save(folder / "small.npy", np.zeros((4, 4), np.float32))
    (folder / "empty").mkdir()
    (folder / "bad.json").write_text("[1]", encoding="utf-8")
    (folder / "weights.csv").write_text("file,weight\nother.fits,1\n", encoding="utf-8")
    out = folder / "m.fits"
    return [
        ([frames, "-o", folder / "m.txt"], "expected one ending in .fits"),
        ([frames, "-o", folder / "there.fits"], "there.fits: the file exists"),
        ([frames, "-o", folder / "nowhere" / "m.fits"], "there is no folder"),
        ([frames, "-o", first, "--overwrite"], "one of the frames; expected another name"),
        ([folder / "gone.fits", "-o", out], "gone.fits"),
        ([folder / "empty", "-o", out], "no frames in it"),
        ([folder / "text.fits", "-o", out], "text.fits"),
        ([first, folder / "small.npy", "-o", out], "small.npy is 4 x 4"),
        ([frames, "-o", out, "--kappa-low", "-1"], "--kappa-low is -1.0; expected a finite number > 0"),
        ([frames, "-o", out, "--reference", "9", "--normalization", "additive"], "reference"),
        ([frames, "-o", out, "--weighting", "exposure", "--combine", "median"], "--combine 'mean'"),
        ([frames, "-o", out, "--config", folder / "bad.json"], "bad.json: found a JSON list"),
        ([frames, "-o", out, "--config", folder / "gone.json"], "gone.json"),
        ([frames, "-o", out, "--weights", folder / "weights.csv"], "weights.csv: no row for"),
        ([frames, "-o", out, "--weights", folder / "gone.csv"], "gone.csv"),
        ([frames, "-o", out, "--mask-extension", "DQ"], "DQ"),
        ([frames, "-o", out, "--dq-bits", "1"], "--dq-bits does nothing without --mask-extension"),
    ]


@pytest.mark.parametrize("case", range(17))
def test_refuses_in_one_line(case: int, frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = bad_cases(frames, tmp_path)
    assert len(cases) == 17
    arguments, message = cases[case]
    before = sorted(tmp_path.iterdir())
    assert run(*arguments) == ExitCode.BAD_INPUT
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    last = captured.err.splitlines()[-1]
    assert last.startswith("zemosaic-worker stack: ")
    assert "Traceback" not in captured.err
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "there.fits").read_bytes() == b"mine"


def test_masks_of_extensions_are_remembered(tmp_path: Path) -> None:
    from astropy.io import fits

    paths = []
    for index in range(3):
        flags = np.zeros((6, 8), np.int16)
        flags[index, 2] = 4
        flags[index, 3] = 1
        image = fits.PrimaryHDU(np.full((6, 8), 10.0 + index, np.float32))
        paths.append(tmp_path / f"{index}.fits")
        fits.HDUList([image, fits.ImageHDU(flags, name="DQ")]).writeto(paths[-1])
    master = tmp_path / "m.fits"
    given = ("--mask-extension", "DQ", "--dq-bits", "4", "--no-picture", "--rejection", "none")
    assert run(*paths, "-o", master, *given) == ExitCode.DONE
    tile = read_master(master)
    assert tile.result.coverage is not None
    assert tile.result.coverage[0].tolist() == [3, 3, 2, 3, 3, 3, 3, 3]
    assert (tile.header["ZSC_MASK"], tile.header["ZSC_DQB"]) == ("DQ", 4)
    assert main(["replay", str(master)]) == ExitCode.DONE


def test_warns_before_the_work(frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = sorted(frames.iterdir())[:5]
    assert run(*few, "-o", tmp_path / "m.fits", "--no-picture", "--rejection", "kappa_sigma") == ExitCode.DONE
    captured = capsys.readouterr()
    assert "advice: kappa_sigma 3/3 rejects nothing at all with 5 frames" in captured.err
    assert "advice" not in captured.out


class TestBackend:
    def test_a_required_gpu(
        self, frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        health = GpuHealth(usable=False, reason="the card is on fire", advice="water")
        unusable = partial(Phase3Gpu, check_health=lambda: health)
        monkeypatch.setattr("zemosaic_stack_core.command_line.computing.Phase3Gpu", unusable)
        arguments = ["stack", str(frames), "-o", str(tmp_path / "m.fits"), "--backend"]
        assert main([*arguments, "gpu"]) == ExitCode.FAILED
        assert "the GPU is required and can't be used: the card is on fire" in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []
        assert main([*arguments, "auto"]) == ExitCode.DONE

    def test_a_required_gpu_that_the_configuration_forbids(
        self, frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        config = tmp_path / "c.json"
        config.write_text('{"use_gpu_phase5": false}', encoding="utf-8")
        arguments = ["stack", str(frames), "-o", str(tmp_path / "m.fits"), "--backend", "gpu", "--config", str(config)]
        assert main(arguments) == ExitCode.BAD_INPUT
        assert "forbids the GPU" in capsys.readouterr().err


INTERRUPTED = """
import os, signal, sys
from zemosaic_stack_core.command_line import main
from zemosaic_stack_core.command_line.progress import LineDisplay

sent = []

def interrupt(display, done, total):
    if not sent:  # the other thread's chunk may end, too
        sent.append(True)
        os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
LineDisplay.show = interrupt
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="sends itself a POSIX signal")
@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_leaves_nothing(workers: int, frames: Path, tmp_path: Path) -> None:
    master = tmp_path / "m.fits"
    master.write_bytes(b"the older one")
    given = [str(frames), "-o", str(master), "--overwrite", "--backend", "cpu", "--workers", str(workers)]
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    (tmp_path / "tmp").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, "stack", *given],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == ExitCode.INTERRUPTED, done.stderr
    assert "interrupted; nothing half-written is left" in done.stderr
    assert "Traceback" not in done.stderr
    assert master.read_bytes() == b"the older one"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["m.fits", "tmp"]


def test_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    small: Any = lambda: replace(NIGHT, n_frames=6)  # noqa: E731 - stands in for the class
    monkeypatch.setattr("zemosaic_stack_core.synthetic.night.SyntheticNight", small)
    folder = tmp_path / "deep" / "demo_out"
    assert main(["demo", str(folder)]) == ExitCode.DONE
    said = capsys.readouterr().out
    assert sorted(path.name for path in folder.iterdir()) == ["demo.png", "frames", "master.fits"]
    assert len(list((folder / "frames").iterdir())) == 6
    result = read_master(folder / "master.fits").result
    assert all(getattr(result, name) is not None for name in ("coverage", "weight_map", "rejected_low", "variance"))
    with Image.open(folder / "demo.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    # The maps are below the frame and the master, row 0 at the bottom.
    panels = [pixels[92:132, 36:92], pixels[92:132, 128:184], pixels[224:264, 36:92], pixels[224:264, 128:184]]
    rejected = result.rejected_low + result.rejected_high
    assert np.array_equal(panels[1][::-1], stretch(result.image))
    assert np.array_equal(panels[3][::-1], color_map(rejected.max(axis=2), 0, 4))
    assert pixels.shape == (300, 220, 3)
    assert f"zemosaic-worker explain {folder / 'master.fits'} 20 28" in said
    assert main(["explain", str(folder / "master.fits"), "20", "28"]) == ExitCode.DONE
    assert main(["demo", str(folder)]) == ExitCode.BAD_INPUT
    assert "frames: it exists; expected another folder, or --overwrite" in capsys.readouterr().err
    assert main(["demo", str(folder), "--overwrite"]) == ExitCode.DONE


@pytest.mark.parametrize("name", ["frames/light_001.fits", "master.fits", "demo.png"])
def test_demo_writes_over_nobodys_files(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    theirs = tmp_path / name
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_bytes(b"a night's work")
    assert main(["demo", str(tmp_path)]) == ExitCode.BAD_INPUT
    assert theirs.read_bytes() == b"a night's work"
    assert "overwrite" in capsys.readouterr().err


def test_demo_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x").touch()
    assert main(["demo", str(tmp_path / "x")]) == ExitCode.BAD_INPUT
    assert "x: a file; expected a folder" in capsys.readouterr().err


def test_a_frame_that_is_given_twice(frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    again = sorted(frames.iterdir())[0]
    assert run(frames, again, "-o", tmp_path / "m.fits", "--no-picture") == ExitCode.DONE
    assert f"{again}: given 2 times, so it counts 2 times\n" in capsys.readouterr().err


def test_a_master_among_frames(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "frames"
    NIGHT.write(folder)
    master = folder / "master.fits"
    assert run(folder, "-o", master, "--no-picture") == ExitCode.DONE
    assert "a master" not in capsys.readouterr().err
    assert run(folder, "-o", tmp_path / "m.fits", "--no-picture") == ExitCode.DONE
    assert f"{master}: a master of this program, no frame; left out of 10 files\n" in capsys.readouterr().err
    assert run(master, tmp_path / "m.fits", "-o", tmp_path / "both.fits", "--no-picture") == ExitCode.DONE
    assert "a master" not in capsys.readouterr().err


def test_a_cube_is_no_series_of_exposures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cube = tmp_path / "cube.fits"
    fits.writeto(cube, np.ones((5, 6, 7), np.float32))
    assert run(cube, "-o", tmp_path / "m.fits", "--no-picture") == ExitCode.DONE
    captured = capsys.readouterr()
    assert "cube.fits: its 5 planes are taken for channels of one frame" in captured.err
    assert "m.fits: 1 frame of 6 x 7 x 5" in captured.out


def test_an_import_ahead_of_its_time_that_fails_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """It fails again where the module is needed, and says there what is wrong."""
    thread = threading.Thread(target=import_ahead, args=(("no_such_module",),))
    thread.start()
    thread.join()
    assert capsys.readouterr() == ("", "")


def test_a_full_scratch_disk_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = tmp_path / "a.fits.gz"
    fits.writeto(packed, np.ones((6, 7), np.float32))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(1, 1, 0))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert run(packed, "-o", tmp_path / "m.fits") == ExitCode.FAILED
    said = capsys.readouterr().err
    assert said.startswith(f"zemosaic-worker stack: {packed}: can't be decoded into {tmp_path}")
    assert said.endswith("No space left on device; expected room there (TMPDIR names another folder)\n")
    assert said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.fits.gz"]


def test_doctor_without_a_gpu(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    health = GpuHealth(usable=False, reason="no card", advice="buy one")
    monkeypatch.setattr("zemosaic_stack_core.gpu.doctor.check_gpu", lambda: health)
    assert main(["doctor"]) == ExitCode.FAILED
    said = capsys.readouterr().out
    assert "The GPU is not usable: no card." in said
    assert "What to do: buy one." in said
    assert "cores for this program" in said
    assert main(["doctor", "--json"]) == ExitCode.FAILED
    found = json.loads(capsys.readouterr().out)
    assert (found["usable"], found["health"]["reason"], found["comparison"]) == (False, "no card", None)


def test_the_plan_of_a_configuration_changes_no_bit(
    frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "zemosaic_config.json"
    settings = {"parallel_max_cpu_workers": 1, "rows_per_chunk": 7, "max_chunk_bytes": 10**6, "use_gpu_phase5": False}
    config.write_text(json.dumps({**settings, "theme": "dark"}), encoding="utf-8")
    assert run(frames, "-o", tmp_path / "a.fits", "--no-picture", "--config", config, "--json") == ExitCode.DONE
    captured = capsys.readouterr()
    assert f"{config}: settings that mean nothing to a stack: theme\n" in captured.err
    assert json.loads(captured.out)["details"]["rows_per_chunk"] == 7
    assert run(frames, "-o", tmp_path / "b.fits", "--no-picture") == ExitCode.DONE
    assert (tmp_path / "a.fits").read_bytes() == (tmp_path / "b.fits").read_bytes()
    assert (
        main(["stack", str(frames), "-o", str(tmp_path / "c.fits"), "--config", str(config), "--backend", "gpu"]) == 2
    )
    assert "forbids the GPU; expected one or the other" in capsys.readouterr().err


def test_what_the_summary_says(frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [frames, "-o", tmp_path / "m.fits", "--no-picture", "--normalization", "linear_fit", "--reference", "2"]
    assert run(*given) == ExitCode.DONE
    assert f"  normalized (linear_fit) to {sorted(frames.iterdir())[2]}\n" in capsys.readouterr().out
    flat = tmp_path / "even.npy"
    np.save(flat, np.full(NIGHT.frame_shape, 7, np.float32))
    assert run(frames, flat, *given[1:], "--overwrite") == ExitCode.DONE
    assert (
        f"  {flat}: used as it is, not normalized: linear_fit: the frame has percentiles 7 and 7"
        in capsys.readouterr().out
    )


def test_quiet_says_nothing_but_errors(frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = sorted(frames.iterdir())[:5]  # too few for the rule, of which it warns otherwise
    log = tmp_path / "log.txt"
    plain = ("-q", "--log-file", log, "--rejection", "kappa_sigma")
    assert run(*few, few[0], "-o", tmp_path / "m.fits", *plain) == ExitCode.DONE
    assert capsys.readouterr() == ("", "")
    assert "advice: kappa_sigma" in log.read_text(encoding="utf-8")
    assert run(*few, "-o", tmp_path / "m.fits", "-q") == ExitCode.BAD_INPUT
    assert capsys.readouterr().err.endswith("m.fits: the file exists; expected a new name, or --overwrite\n")


def test_a_mistake_in_an_argument_comes_before_the_place_of_the_output(
    frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = tmp_path / "nowhere" / "m.fits"
    for mistake, message in (
        (("--kappa-low", "0"), "--kappa-low is 0.0"),
        (("--max-fwhm", "-2"), "--max-fwhm is -2"),
        (("--p-low", "0.1"), "--p-low does nothing with --rejection auto; expected --rejection percentile_clip"),
        (("--weights", "gone.csv"), "gone.csv: No such file"),
        (("--darks", "gone_*.fits"), "gone_*.fits: no file matches"),
    ):
        assert run(frames, "-o", nowhere, *mistake) == ExitCode.BAD_INPUT
        assert message in capsys.readouterr().err


def test_the_table_of_frames_has_no_unit_that_astropy_warns_of(frames: Path, tmp_path: Path) -> None:
    assert run(frames, "-o", tmp_path / "m.fits", "--no-picture") == ExitCode.DONE
    table = Table.read(tmp_path / "m.fits", hdu="FRAMES")  # a warning is an error
    assert table["REJHIPCT"].unit is None
    assert str(table["EXPTIME"].unit) == "s"


def test_pictures_of_full_size_and_16_bits(frames: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tifffile = pytest.importorskip("tifffile", reason="the extra formats is not installed")
    master = tmp_path / "m.fits"
    assert run(frames, "-o", master, "--tiff", "--full-size", "--stretch", "linked") == ExitCode.DONE
    assert f"{tmp_path / 'm.tif'}: a picture of 16 bits" in capsys.readouterr().out
    assert tifffile.imread(tmp_path / "m.tif").shape == (40, 56, 3)
    with Image.open(tmp_path / "m.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture)[::-1], stretch(read_master(master).result.image, "linked"))
    assert run(frames, "-o", tmp_path / "m.fits", "--tiff") == ExitCode.BAD_INPUT


def test_a_tiff_without_its_library(
    frames: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("zemosaic_stack_core.command_line.outputs.find_spec", lambda _: None)
    assert run(frames, "-o", tmp_path / "m.fits", "--tiff") == ExitCode.BAD_INPUT
    assert "tifffile, which is not installed; expected: python -m pip install tifffile" in capsys.readouterr().err
