"""Mistakes that people make at the command line: each ends in one line that names the thing and says what to do."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from astropy.io import fits

from zemosaic_stack_core.command_line import ExitCode, main
from zemosaic_stack_core.synthetic.night import SyntheticNight


class Mistake(NamedTuple):
    """What is typed, and of the line that comes back: what it names, and what it says to do."""

    typed: str
    names: str
    advice: str
    code: int = ExitCode.BAD_INPUT


OUT = "-o m.fits --backend cpu"
MISTAKES = (
    # The command itself.
    Mistake("", "COMMAND", "see zemosaic-worker --help"),
    Mistake("stakc frames", "'stakc'", "did you mean stack?"),
    Mistake("frames -o m.fits", "'frames'", "choose from"),
    Mistake("stack frames", "-o/--output", "see zemosaic-worker stack --help"),
    Mistake(f"stack {OUT}", "FRAMES", "see zemosaic-worker stack --help"),
    Mistake("run night", "-o/--output", "see zemosaic-worker run --help"),
    Mistake("demo", "OUT", "see zemosaic-worker demo --help"),
    Mistake("explain m.fits 3", "COL", "see zemosaic-worker explain --help"),
    Mistake("explain m.fits left 3", "'left'", "whole number"),
    Mistake("doctor frames", "frames", "see zemosaic-worker doctor --help"),
    Mistake("--verison", "--verison", "did you mean --version?"),
    # Options.
    Mistake(f"stack frames {OUT} --kapa-low 3", "--kapa-low", "did you mean --kappa-low"),
    Mistake(f"stack frames {OUT} --bogus", "--bogus", "see zemosaic-worker stack --help"),
    Mistake(f"stack frames {OUT} --rejection sigma", "'sigma'", "did you mean kappa_sigma"),
    Mistake(f"stack frames {OUT} --normalization yes", "'yes'", "choose from"),
    Mistake(f"stack frames {OUT} --backend cuda", "'cuda'", "choose from"),
    Mistake(f"stack frames {OUT} --kappa-low three", "--kappa-low: 'three'", "a number"),
    Mistake(f"stack frames {OUT} --kappa-low -1", "--kappa-low is -1", "expected a finite number > 0"),
    Mistake(f"stack frames {OUT} --kappa-high nan", "--kappa-high is nan", "expected a finite number > 0"),
    Mistake(f"stack frames {OUT} --max-iterations 0", "--max-iterations is 0", "expected a whole number >= 1"),
    Mistake(f"stack frames {OUT} --workers 0", "--workers: '0'", "whole number of at least 1"),
    Mistake(f"stack frames {OUT} --memory lots", "'lots'", "expected a number of bytes such as 300MB"),
    Mistake(f"stack frames {OUT} --memory 100B", "100 bytes", "expected a larger one", ExitCode.FAILED),
    Mistake(f"stack frames {OUT} --maps depth", "'depth'", "expected one of: coverage"),
    Mistake(f"stack frames {OUT} --reference best", "'best'", "index of a frame"),
    Mistake(f"stack frames {OUT} --reference 6 --normalization additive", "6", "expected"),
    Mistake(f"stack frames {OUT} --winsor-limits 0.6 0.6", "(0.6, 0.6)", "expected a sum below 1"),
    Mistake(f"stack frames {OUT} --reject-above -1e5", "no pixel has a value", "with some that count"),
    Mistake(f"stack frames {OUT} --winsor-limits 0.1", "--winsor-limits", "expected 2 arguments"),
    Mistake(f"stack frames {OUT} --keep-best 120%", "'120%'", "expected 1% to 100%"),
    Mistake(f"stack frames {OUT} --max-fwhm 0", "--max-fwhm is 0", "expected 0.1 to 1000"),
    Mistake(f"stack frames {OUT} --bayer-pattern RGB", "'RGB'", "did you mean"),
    Mistake(f"stack frames {OUT} --config list.json", "list.json", "expected"),
    Mistake(f"stack frames {OUT} --config gone.json", "gone.json", "expected a readable"),
    Mistake("stack frames -o m.fits --backend gpu --config no_gpu.json", "no_gpu.json", "expected one or the other"),
    # Options that do nothing with the others.
    Mistake(f"stack frames {OUT} --p-low 0.3", "--p-low", "expected --rejection percentile_clip"),
    Mistake(f"stack frames {OUT} --kappa-low 2 --rejection minmax", "--kappa-low", "expected --rejection kappa_sigma"),
    Mistake(f"stack frames {OUT} --reference 2 --normalization none", "--reference", "expected --normalization"),
    Mistake(f"stack frames {OUT} --gain 2", "--gain", "expected --rejection noise_clip or --errors detector"),
    Mistake(f"stack frames {OUT} --grow-min-size 5", "--grow-min-size", "expected --grow-radius"),
    Mistake(f"stack frames {OUT} --radial-floor 0.2", "--radial-floor", "expected --radial-feather-fraction"),
    Mistake(f"stack frames {OUT} --dq-bits 4", "--dq-bits", "expected both"),
    Mistake(f"stack frames {OUT} --weighting exposure --combine median", "--weighting", "expected --combine 'mean'"),
    Mistake(f"stack frames {OUT} --grow-radius 2 --rejection none", "--grow-radius", "expected a rule of rejection"),
    Mistake(f"stack frames {OUT} --no-picture --full-size", "--full-size", "expected one or the other"),
    Mistake(f"stack frames {OUT} --no-picture --stretch none", "--stretch", "expected --tiff, or no --stretch"),
    Mistake(f"stack frames {OUT} --scale-darks", "--scale-darks does nothing without darks", "or named"),
    Mistake(f"stack frames {OUT} --trust-calibration", "--trust-calibration", "expected some among the frames"),
    Mistake(f"stack frames {OUT} --cache kept", "--cache does nothing", "expected raw ones"),
    Mistake(f"stack frames {OUT} --cache kept --align none", "--align none", "expected raw frames, or no --cache"),
    Mistake("run night -o tiles --cache kept --align none", "--align none", "expected raw frames, or no --cache"),
    Mistake(f"stack frames {OUT} --errors detector", "--errors", "expected --maps variance or --weighting"),
    Mistake("run night -o tiles --errors detector", "--errors", "expected --maps variance or --weighting"),
    Mistake(f"stack frames {OUT} --variance-extension VAR", "--variance-extension", "expected --maps variance"),
    Mistake(f"stack frames {OUT} -v -q", "--verbose", "expected one or the other"),
    Mistake("run night -o tiles --n-low 2", "--n-low", "expected --rejection minmax"),
    # Frames.
    Mistake(f"stack gone.fits {OUT}", "gone.fits", "expected a readable file"),
    Mistake(f"stack gone_*.fits {OUT}", "gone_*.fits", "expected at least one"),
    Mistake(f"stack empty {OUT}", "empty", "expected files ending in"),
    Mistake(f"stack night {OUT}", "night/tile_1", "expected one of these folders (zemosaic-worker run"),
    Mistake(f"stack there.fits {OUT}", "there.fits: a master", "expected frames"),
    Mistake(f"stack kept {OUT}", "kept/m.fits: a master", "expected frames, those in kept/frames?"),
    Mistake(f"stack photo.jpg {OUT}", "photo.jpg: a JPEG picture", "expected a FITS file"),
    Mistake(f"stack text.fits {OUT}", "text.fits", "expected"),
    Mistake(f"stack cut.fits {OUT}", "cut.fits", "expected"),
    Mistake(f"stack table.fits {OUT}", "table.fits", "expected"),
    Mistake(f"stack notes.txt {OUT}", "notes.txt", "expected"),
    Mistake(f"stack frames small.npy {OUT}", "small.npy is 4 x 4", "expected 24 x 32"),
    Mistake(f"stack objects.npy {OUT}", "objects.npy", "expected numbers"),
    Mistake(f"stack @gone.txt {OUT}", "gone.txt", "expected a readable list"),
    Mistake(f"stack @empty.txt {OUT}", "empty.txt", "expected one a line"),
    Mistake(f"stack @list.txt {OUT}", "not_there.fits", "expected a readable file"),
    Mistake(f"stack frames {OUT} --mask-extension DQ", "DQ", "expected"),
    Mistake(f"stack frames {OUT} --image-extension SCI", "SCI", "expected"),
    Mistake(f"stack frames {OUT} --weights gone.csv", "gone.csv", "expected a readable table"),
    Mistake(f"stack frames {OUT} --weights columns.csv", "name, value", "expected file and weight"),
    Mistake(f"stack frames {OUT} --weights others.csv", "light_001.fits", "expected one row per frame"),
    Mistake(f"stack frames {OUT} --exclude gone.txt", "gone.txt", "expected a readable list of frames to leave out"),
    Mistake(f"stack frames {OUT} --exclude list.txt", "line 1", "expected the path or the name of one of the"),
    Mistake(f"stack frames {OUT} --report page.txt", "page.txt", "expected one ending in .html"),
    Mistake(f"stack frames {OUT} --darks gone", "gone", "expected"),
    # Where it goes.
    Mistake("stack frames -o m.txt", "m.txt", "expected one ending in .fits"),
    Mistake("stack frames -o empty", "empty", "expected one ending in .fits"),
    Mistake("stack frames -o there.fits", "there.fits", "or --overwrite"),
    Mistake("stack frames -o nowhere/m.fits", "nowhere", "expected one to write in"),
    Mistake("stack frames -o frames/light_001.fits --overwrite", "light_001.fits", "expected another name"),
    Mistake(f"stack frames -o {'m' * 300}.fits", "File name too long", "expected the name of a file", ExitCode.FAILED),
    Mistake("stack frames -o /proc/m.fits", "/proc/m.fits", "expected a folder that can be written", ExitCode.FAILED),
    Mistake("demo notes.txt", "notes.txt", "expected a folder"),
    Mistake("demo /proc/demo", "/proc/demo", "expected a folder that can be written", ExitCode.FAILED),
    Mistake("run night -o /proc/tiles", "/proc/tiles", "expected a folder that can be written", ExitCode.FAILED),
    Mistake("run night -o notes.txt", "notes.txt", "expected a folder", ExitCode.FAILED),
    Mistake("run night -o night/tile_1", "night/tile_1", "expected a folder outside of it"),
    Mistake("stack frames -o m.fits --align stars --cache notes.txt", "notes.txt", "--cache names another", 1),
    # Runs.
    Mistake("run gone -o tiles", "gone", "expected a plan (JSON) or a folder"),
    Mistake("run frames -o tiles", "frames", "zemosaic-worker stack"),
    Mistake("run notes.txt -o tiles", "notes.txt", "expected a plan of tiles"),
    Mistake("run misspelt.json -o tiles", "'frmaes'", "expected id, name, frames"),
    Mistake("run night -o tiles --shard 3/2", "'3/2'", "such as 2/8"),
    Mistake("run night -o tiles --min-frames 0", "--min-frames: '0'", "whole number of at least 1"),
    Mistake("run night -o tiles --scheduler a --local-cluster 2", "cluster", "expected either"),
    Mistake("run night -o tiles --log-file nowhere/log", "nowhere/log", "expected a log file"),
    # Masters.
    Mistake("explain gone.fits 1 1", "gone.fits", "expected"),
    Mistake("explain frames/light_001.fits 1 1", "light_001.fits", "expected a master"),
    Mistake("explain there.fits 99 1", "99", "expected"),
    Mistake("replay photo.jpg", "photo.jpg: not a FITS file", "expected a master"),
    Mistake("replay frames/light_001.fits", "light_001.fits", "expected a master"),
    Mistake("plug-in frames", "frames", "expected"),
)


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with what the mistakes are made with."""
    folder = tmp_path_factory.mktemp("things")
    night = SyntheticNight(n_frames=6, shape=(24, 32), dither=3)
    first = night.write(folder / "frames")[0]
    night.write(folder / "night" / "tile_1")
    (folder / "empty").mkdir()
    night.write(folder / "kept" / "frames")
    (folder / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0\x00\x10JFIF\x00")
    np.save(folder / "small.npy", np.zeros((4, 4), np.float32))
    np.save(folder / "objects.npy", np.array([["a", None]], dtype=object))
    (folder / "cut.fits").write_bytes(first.read_bytes()[:4000])
    fits.BinTableHDU.from_columns([fits.Column("A", "E", array=[1.0])]).writeto(folder / "table.fits")
    texts = {
        "text.fits": "no image",
        "notes.txt": "of the night",
        "list.txt": "not_there.fits\n",
        "empty.txt": "# nothing\n",
        "list.json": "[1]",
        "no_gpu.json": json.dumps({"use_gpu_phase5": False}),
        "misspelt.json": json.dumps({"tiles": [{"frmaes": ["frames"]}]}),
        "columns.csv": "name,value\na.fits,1\n",
        "others.csv": "file,weight\nother.fits,1\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    assert main(["stack", str(folder / "frames"), "-o", str(folder / "there.fits"), "--backend", "cpu", "-q"]) == 0
    shutil.copy(folder / "there.fits", folder / "kept" / "m.fits")
    return folder


def test_there_are_many() -> None:
    assert len({mistake.typed for mistake in MISTAKES}) == len(MISTAKES) >= 60


@pytest.mark.skipif(sys.platform != "linux", reason="has the words of Linux for what its files can't be")
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.typed[:60] or "nothing")
def test_a_mistake_is_one_line(
    mistake: Mistake, things: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(things)
    before = sorted(things.rglob("*"))
    code = main(mistake.typed.split())
    said = capsys.readouterr()
    assert said.out == ""
    *before_it, line = said.err.splitlines()
    assert line.startswith("zemosaic-worker")
    assert not any(other.startswith("zemosaic-worker") for other in before_it)  # what was seen of the frames
    assert mistake.names in line
    assert "Errno" not in line
    assert mistake.advice in line
    assert code == mistake.code
    assert sorted(things.rglob("*")) == before
