"""Every command and every script in the README runs, in the order of the page."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from doc_blocks import ROOT, blocks_of, prepare, run_block, write_commands

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


def test_the_two_commands_of_the_first_minute() -> None:
    commands = [block.text for block in BLOCKS if block.language == "bash"]
    assert commands[0] == "python -m pip install . && zemosaic-worker demo demo_out\n"
    assert commands[1] == 'python -m pip install ".[test]" && python -m pytest\n'


@pytest.mark.parametrize("link", sorted(set(LINKS)))
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link).is_file()
