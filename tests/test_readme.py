"""Every command and every script in the README runs, in the order of the page."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from zemosaic_stack_core.synthetic import SyntheticNight

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
LINKS = re.findall(r"\]\(([^)#]+)\)", README)

pytestmark = [
    pytest.mark.skipif(shutil.which("bash") is None, reason="the README's commands are for bash, which is not here"),
    pytest.mark.xdist_group("readme"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make what the README takes for granted: frames, a table of weights, a configuration, a night of two tiles."""
    folder = tmp_path_factory.mktemp("readme")
    night = SyntheticNight(n_frames=6, shape=(64, 96), dither=4)
    frames = night.write(folder / "my_frames")
    table = "\n".join(f"{path.name},{1 + index % 3}" for index, path in enumerate(frames))
    (folder / "weights.csv").write_text(f"file,weight\n{table}\n", encoding="utf-8")
    settings = {"stacking_normalize_method": "linear_fit", "stacking_kappa_high": 2.5, "use_gpu_phase5": True}
    (folder / "zemosaic_config.json").write_text(json.dumps(settings), encoding="utf-8")
    for tile in ("tile_1", "tile_2"):
        SyntheticNight(n_frames=4, shape=(32, 48), dither=3).write(folder / "night" / tile)
    command = folder / "bin" / "zemosaic-worker"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m zemosaic_worker "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    return folder


def run(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(folder / "bin"), os.environ["PATH"]])
    search = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "PATH": path, "PYTHONPATH": search}
    command = ["bash", "-eu", "-c", text]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def test_every_block_runs(folder: Path) -> None:
    ran = 0
    for language, text in BLOCKS:
        # Installing is for the one who reads; `python -m pytest` is what runs here.
        command = re.sub(r"^python -m pip install \S+ && ", "", text).replace("python -m pytest\n", "")
        if language == "python":
            (folder / "script.py").write_text(text, encoding="utf-8")
            command = f'"{sys.executable}" script.py'
        if not command.strip():
            continue
        done = run(command, folder)
        has_no_gpu = "zemosaic-worker doctor" in text and "The GPU is not usable" in done.stdout
        assert done.returncode == (1 if has_no_gpu else 0), (command, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr, (command, done.stderr)
        ran += 1
    assert ran >= 10
    assert (folder / "demo_out" / "demo.png").stat().st_size > 10_000
    for name in ("master", "clipped", "weighted", "by_hand", "as_configured"):
        assert (folder / f"{name}.fits").is_file()
    assert (folder / "tiles" / "master_tile_002.fits").is_file()


def test_the_two_commands_of_the_first_minute() -> None:
    commands = [text for language, text in BLOCKS if language == "bash"]
    assert commands[0] == "python -m pip install . && zemosaic-worker demo demo_out\n"
    assert commands[1] == 'python -m pip install ".[test]" && python -m pytest\n'


@pytest.mark.parametrize("link", sorted(set(LINKS)))
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link).is_file()
