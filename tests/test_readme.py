"""Every command and every script in the README runs, in the order of the page."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from doc_blocks import MY_FRAMES, MY_TILE, ROOT, blocks_of, prepare, run_block, write_commands

from zemosaic_stack_core.synthetic.night import SyntheticNight

README = ROOT / "README.md"
BLOCKS = blocks_of(README)
LINKS = re.findall(r"\]\(([^)#]+)\)", README.read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="the README's commands are for bash, which is not here")
def test_every_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_commands(tmp_path / "bin")
    prepare(tmp_path)
    for block in BLOCKS:
        assert block.language in ("bash", "python")
        assert not block.why_not_run
        run_block(block, tmp_path)
    assert len(BLOCKS) >= 10
    assert (tmp_path / "demo_out" / "demo.png").stat().st_size > 10_000
    for name in ("master", "clipped", "weighted", "by_hand", "as_configured"):
        assert (tmp_path / f"{name}.fits").is_file()
    assert (tmp_path / "tiles" / "master_tile_002.fits").is_file()
    for name in ("master", "registered", "clipped", "weighted", "by_hand"):
        assert_clean(MY_FRAMES, tmp_path / f"{name}.fits")
    assert_clean(MY_TILE, tmp_path / "tiles" / "master_tile_002.fits")


def assert_clean(night: SyntheticNight, master: Path) -> None:
    """Check that no trail is left in a master, and no step at the borders of its frames."""
    image = fits.getdata(master).transpose(1, 2, 0)
    if image.shape != night.frame_shape:  # registered anew
        return
    left = image - night.scene / 0.8
    left -= np.nanmedian(left, axis=(0, 1))
    for index in night.satellite_frames:
        trail = np.nan_to_num(night.frame(index) - night.frame((index + 1) % night.n_frames)).max(axis=2) > 400
        # Unrejected it would be more than 400 / n_frames; what is left is its faint edge.
        assert abs(float(np.nanmedian(left[trail]))) < 80 / night.n_frames
    edge = night.dither
    inner = np.nanmedian(left[edge:-edge, edge:-edge])
    for border in (left[:edge], left[-edge:], left[:, :edge], left[:, -edge:]):
        assert abs(float(np.nanmedian(border) - inner)) < 15


def test_the_two_commands_of_the_first_minute() -> None:
    commands = [block.text for block in BLOCKS if block.language == "bash"]
    assert commands[0] == "python -m pip install . && zemosaic-worker demo demo_out\n"
    assert commands[1] == 'python -m pip install ".[test]" && python -m pytest\n'


@pytest.mark.parametrize("link", sorted(set(LINKS)))
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link).is_file()
