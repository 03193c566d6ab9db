"""Runs that are killed at random and resumed: the benchmark, a few rounds of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import kills
from zemosaic_stack_core.phase3.run_plan import Shard


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_killed_runs_are_resumed_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kills, "MODES", ("parent",))
    scratch = tmp_path / "temporary"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr(kills.tempfile, "gettempdir", lambda: str(scratch))
    facts = kills.measure_kills(tmp_path / "work", rounds=2, tiles=3, frames=6, shape=(200, 300), seed=3)
    assert facts["kills"] == 2
    assert (facts["different"], facts["lost"], facts["left_over"]) == (0, 0, 0)
    assert facts["runs_that_did_not_end_with_0"] == 0
    assert facts["temporary_files"] == []


def test_every_tile_is_in_exactly_one_shard() -> None:
    tiles = list(range(11))
    for count in (1, 2, 3, 11, 20):
        taken = [tile for index in range(1, count + 1) for tile in Shard(index, count).take(tiles)]  # type: ignore[arg-type]
        assert sorted(taken) == tiles
