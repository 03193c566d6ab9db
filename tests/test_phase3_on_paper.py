"""The night on paper says what its script computes, and the script adds up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import on_paper as paper

ROOT = Path(__file__).parents[1]


def test_the_page_has_the_tables_of_the_script() -> None:
    page = (ROOT / "docs" / "night-on-paper.md").read_text(encoding="utf-8")
    first, second = paper.tables().rstrip().split("\n\n")
    assert first in page
    assert second in page


def test_a_night_is_as_large_as_its_frames() -> None:
    night = paper.Night()
    assert night.samples == 10_000 * 1920 * 1080 * 3
    assert night.bytes == pytest.approx(249e9, rel=1e-3)
    assert replace(night, sample_bytes=2).bytes == night.bytes / 2


def test_the_slowest_of_what_happens_at_once_counts() -> None:
    night, costs = paper.Night(), paper.Costs()
    parts = paper.parts(night, paper.DESKTOP, costs)
    assert parts["hash the frames"] == (night.bytes / 3e9, "disk")
    assert parts["stack"] == (pytest.approx(night.samples * 2e-9 / 8), "cores")
    fast_disk = replace(paper.DESKTOP, disk=1e12)
    assert paper.parts(night, fast_disk, costs)["hash the frames"][1] == "cores"
    no_cache = replace(paper.DESKTOP, memory=0.0, disk=1e9)
    assert paper.parts(night, no_cache, costs)["stack"] == (night.bytes / 1e9, "disk")
    slow_card = replace(paper.WITH_GPU, gpu_memory=1e9)
    assert paper.parts(night, slow_card, costs)["stack"][1] == "memory of the card"
