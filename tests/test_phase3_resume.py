from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from night import leftovers, make_frame, outcomes, report_of, run, tiles_of, write_frame, write_night

from zemosaic_stack_core.errors import InvalidInputError, OutputError
from zemosaic_stack_core.master import option_cards
from zemosaic_stack_core.phase3 import signature
from zemosaic_stack_core.phase3.lock import OutputLock
from zemosaic_stack_core.phase3.run_plan import Shard
from zemosaic_stack_core.system import file_stamps

pytestmark = pytest.mark.slow


@pytest.fixture
def night(tmp_path: Path) -> tuple[Path, Path, dict[str, str]]:
    """Return a plan, an output folder with its three tiles, and their hashes."""
    plan, output = write_night(tmp_path / "night"), tmp_path / "out"
    assert run(plan, output) == 0
    return plan, output, tiles_of(output)


def test_what_is_right_is_reused_without_being_touched(night: tuple[Path, Path, dict[str, str]]) -> None:
    plan, output, before = night
    times = [path.stat().st_mtime_ns for path in sorted(output.glob("*.fits"))]
    assert run(plan, output) == 0
    assert outcomes(output) == ["reused"] * 3
    assert tiles_of(output) == before
    assert [path.stat().st_mtime_ns for path in sorted(output.glob("*.fits"))] == times
    assert leftovers(output) == []


def test_a_reused_tile_is_reported_as_it_was(night: tuple[Path, Path, dict[str, str]]) -> None:
    plan, output, _ = night
    (plan / "tile_1" / "light_4.fits").write_bytes(b"no frame")
    run(plan, output)
    first = report_of(output)["tiles"]
    run(plan, output)
    second = report_of(output)["tiles"]
    kept = ("frames_given", "frames_used", "dropped", "rejected_low", "rejected_high", "coverage_max", "worst_frames")
    assert [[tile[key] for key in kept] for tile in second] == [[tile[key] for key in kept] for tile in first]
    assert outcomes(output) == ["reused"] * 3


def test_touching_moving_and_copying_inputs_changes_nothing(
    night: tuple[Path, Path, dict[str, str]], tmp_path: Path
) -> None:
    plan, output, before = night
    for path in plan.rglob("*.fits"):
        os.utime(path)
    assert run(plan, output) == 0
    assert outcomes(output) == ["reused"] * 3
    shutil.copytree(plan, tmp_path / "elsewhere")
    shutil.rmtree(plan)
    assert run(tmp_path / "elsewhere", output) == 0
    assert outcomes(output) == ["reused"] * 3
    assert tiles_of(output) == before


def test_a_changed_frame_makes_just_its_tile_again(night: tuple[Path, Path, dict[str, str]]) -> None:
    plan, output, before = night
    write_frame(plan / "tile_2" / "light_3.fits", make_frame(50, 50))
    assert run(plan, output) == 0
    assert outcomes(output) == ["reused", "done_cpu", "reused"]
    after = tiles_of(output)
    assert {name for name in before if before[name] != after[name]} == {"master_tile_002.fits"}


def test_a_frame_rewritten_in_place_with_its_times_restored_is_noticed(
    night: tuple[Path, Path, dict[str, str]],
) -> None:
    plan, output, before = night
    frame = plan / "tile_3" / "light_1.fits"
    status = frame.stat()
    with frame.open("r+b") as file:
        file.seek(-400, os.SEEK_END)
        file.write(b"\x42\xc8\x00\x00")
    os.utime(frame, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert run(plan, output) == 0
    assert outcomes(output) == ["reused", "reused", "done_cpu"]
    assert tiles_of(output) != before


def test_more_and_fewer_and_reordered_frames_make_the_tile_again(night: tuple[Path, Path, dict[str, str]]) -> None:
    plan, output, before = night
    write_frame(plan / "tile_1" / "light_7.fits", make_frame(1, 6))
    assert run(plan, output) == 0
    assert outcomes(output) == ["done_cpu", "reused", "reused"]
    (plan / "tile_1" / "light_7.fits").unlink()
    assert run(plan, output) == 0
    assert outcomes(output) == ["done_cpu", "reused", "reused"]
    assert tiles_of(output) == before
    (plan / "tile_1" / "light_1.fits").rename(plan / "tile_1" / "light_9.fits")
    assert run(plan, output) == 0
    assert outcomes(output) == ["done_cpu", "reused", "reused"]


def test_a_bad_frame_that_is_repaired_makes_the_tile_again(night: tuple[Path, Path, dict[str, str]]) -> None:
    plan, output, before = night
    frame = plan / "tile_1" / "light_2.fits"
    content = frame.read_bytes()
    frame.write_bytes(content[:5000])
    run(plan, output)
    assert outcomes(output) == ["done_cpu", "reused", "reused"]
    run(plan, output)
    assert outcomes(output) == ["reused"] * 3
    frame.unlink()
    run(plan, output)
    assert outcomes(output) == ["done_cpu", "reused", "reused"]
    frame.write_bytes(content)
    run(plan, output)
    assert outcomes(output) == ["done_cpu", "reused", "reused"]
    assert tiles_of(output) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("--kappa-low", "2.5"),
        ("--rejection", "none"),
        ("--maps", "variance"),
        ("--normalization", "additive"),
        ("--saturation", "50000"),
    ],
)
def test_changed_options_make_every_tile_again(
    night: tuple[Path, Path, dict[str, str]], arguments: tuple[str, ...]
) -> None:
    plan, output, _ = night
    assert run(plan, output, *arguments) == 0
    assert outcomes(output) == ["done_cpu"] * 3


@pytest.mark.parametrize(
    "arguments", [("--workers", "1"), ("--memory", "200MB"), ("--rows-per-chunk", "5"), ("--backend", "auto")]
)
def test_how_the_work_is_done_makes_nothing_again(
    night: tuple[Path, Path, dict[str, str]], arguments: tuple[str, ...]
) -> None:
    plan, output, before = night
    assert run(plan, output, *arguments) == 0
    assert outcomes(output) == ["reused"] * 3
    assert tiles_of(output) == before


@pytest.mark.parametrize(("module", "name"), [(option_cards, "ALGORITHM"), (signature, "TILE_VERSION")])
def test_another_algorithm_makes_every_tile_again(
    night: tuple[Path, Path, dict[str, str]], monkeypatch: pytest.MonkeyPatch, module: object, name: str
) -> None:
    plan, output, _ = night
    monkeypatch.setattr(signature, name, "another")
    assert hasattr(module, name)
    assert run(plan, output) == 0
    assert outcomes(output) == ["done_cpu"] * 3


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "longer", "gone"])
def test_a_damaged_tile_is_made_again(night: tuple[Path, Path, dict[str, str]], damage: str) -> None:
    plan, output, before = night
    tile = output / "master_tile_002.fits"
    content = bytearray(tile.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    if damage == "gone":
        tile.unlink()
    else:
        end = {"cut": 6000, "empty": 0}.get(damage, len(content))
        tile.write_bytes(bytes(content[:end]) + (b"\0" * 2880 if damage == "longer" else b""))
    assert run(plan, output) == 0
    assert outcomes(output) == ["reused", "done_cpu", "reused"]
    assert tiles_of(output) == before


def test_stricter_demands_do_not_reuse_what_does_not_meet_them(tmp_path: Path) -> None:
    plan, output = write_night(tmp_path / "night", tiles=1), tmp_path / "out"
    (plan / "tile_1" / "light_1.fits").write_bytes(b"")
    assert run(plan, output) == 0
    before = tiles_of(output)
    assert run(plan, output, "--min-frames", "6") == 1
    assert outcomes(output) == ["failed"]
    # Nobody takes the older tile for this run's, and it is not lost either.
    assert tiles_of(output) == {}
    assert leftovers(output) == ["master_tile_001.fits.old"]
    assert run(plan, output) == 0
    assert outcomes(output) == ["reused"]
    assert tiles_of(output) == before
    assert leftovers(output) == []


def test_no_resume_makes_everything_again(night: tuple[Path, Path, dict[str, str]]) -> None:
    plan, output, before = night
    assert run(plan, output, "--no-resume") == 0
    assert outcomes(output) == ["done_cpu"] * 3
    assert tiles_of(output) == before


def test_inputs_are_hashed_once(night: tuple[Path, Path, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    plan, output, _ = night
    hashed: list[str] = []
    original = file_stamps.hash_file
    monkeypatch.setattr(file_stamps, "hash_file", lambda path: hashed.append(str(path)) or original(path))
    assert run(plan, output) == 0
    assert hashed == []
    os.utime(plan / "tile_2" / "light_2.fits")
    assert run(plan, output) == 0
    assert hashed == [str(plan / "tile_2" / "light_2.fits")]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"tiles": 3}', '{"tiles": [{"inputs": [[1]], "outcome": "x"}]}', "\xff"]
)
def test_a_report_that_makes_no_sense_is_ignored(night: tuple[Path, Path, dict[str, str]], text: str) -> None:
    plan, output, before = night
    (output / "report.json").write_bytes(text.encode("latin-1"))
    assert run(plan, output) == 0
    assert outcomes(output) == ["reused"] * 3
    assert tiles_of(output) == before


_KILLED_AFTER_TILE_2 = """
import os, signal, sys
from zemosaic_stack_core.command_line import main
from zemosaic_stack_core.phase3.journal import Journal

add = Journal.add

def add_and_die(journal, tile):
    add(journal, tile)
    if tile.record.tile_id == 2:
        os.kill(os.getpid(), signal.SIGKILL)

Journal.add = add_and_die
main(["run", *sys.argv[1:], "--backend", "cpu", "--quiet"])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_killed_run_leaves_its_journal_and_the_next_one_uses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, output = write_night(tmp_path / "night", tiles=4, frames=4), tmp_path / "out"
    assert run(plan, tmp_path / "whole") == 0
    command = [sys.executable, "-c", _KILLED_AFTER_TILE_2, str(plan), "-o", str(output)]
    assert subprocess.run(command, cwd=Path(__file__).parents[1], check=False).returncode == -signal.SIGKILL
    (output / ".zsc-0123456789abcdef.tmp").write_bytes(b"of a killed run")
    assert not (output / "report.json").exists()
    hashed: list[str] = []
    original = file_stamps.hash_file
    monkeypatch.setattr(file_stamps, "hash_file", lambda path: hashed.append(str(path)) or original(path))
    assert run(plan, output) == 0
    assert tiles_of(output) == tiles_of(tmp_path / "whole")
    assert outcomes(output) == ["reused", "reused", "done_cpu", "done_cpu"]
    assert {Path(path).parent.name for path in hashed} == {"tile_3", "tile_4"}
    assert leftovers(output) == []


def test_a_second_run_in_the_same_folder_refuses(
    night: tuple[Path, Path, dict[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    plan, output, before = night
    with OutputLock(output):
        assert run(plan, output) == 2
    said = capsys.readouterr().err.splitlines()
    assert f"process {os.getpid()} on" in said[-1]
    assert "expected one run at a time" in said[-1]
    assert tiles_of(output) == before
    assert run(plan, output) == 0


def test_locks_of_shards(tmp_path: Path) -> None:
    with OutputLock(tmp_path, Shard(1, 2)) as first, OutputLock(tmp_path, Shard(2, 2)):
        (tmp_path / ".zsc-00.tmp").write_bytes(b"of the other shard")
        assert first.sweep() == []
        for other in (None, Shard(1, 2), Shard(1, 3)):
            with pytest.raises(InvalidInputError, match="at work in this folder"), OutputLock(tmp_path, other):
                pass
    with OutputLock(tmp_path, Shard(1, 3)) as lock:
        assert lock.sweep() == [tmp_path / ".zsc-00.tmp"]
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / ".zemosaic-run.lock").write_text(json.dumps({"pid": 1, "host": "gone"}))
    (tmp_path / ".zemosaic-run.1-of-2.lock").write_text("")
    with OutputLock(tmp_path) as lock:
        lock.sweep()
        assert json.loads((tmp_path / ".zemosaic-run.lock").read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = write_night(tmp_path / "night", tiles=1)
    (tmp_path / "out").write_text("a file")
    assert run(plan, tmp_path / "out") == 1
    assert "expected a folder for the tiles" in capsys.readouterr().err
    with pytest.raises(OutputError), OutputLock(tmp_path / "out" / "deeper"):
        pass


@contextmanager
def _without_power() -> Iterator[None]:
    """Lay down the superuser's rights, to whom no folder is unwritable."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.name != "posix", reason="only POSIX systems have folders that their owner may not write")
def test_an_unwritable_folder_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with TemporaryDirectory() as name:  # pytest's own folders are closed to others
        Path(name).chmod(0o755)
        plan, output = write_night(Path(name) / "night", tiles=1), Path(name) / "out"
        assert run(plan, Path(name) / "before") == 0  # imports all that is imported late: others may not read it
        capsys.readouterr()
        output.mkdir(mode=0o555)
        with _without_power():
            assert run(plan, output) == 1
        said = capsys.readouterr().err
        assert said == f"zemosaic-worker run: {output}: Permission denied; expected a folder that can be written\n"
        output.chmod(0o755)
        assert run(plan, output) == 0


def test_a_frame_that_changes_while_its_tile_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, output = write_night(tmp_path / "night", tiles=1), tmp_path / "out"
    frame = plan / "tile_1" / "light_1.fits"
    from zemosaic_stack_core.phase3 import make

    original = make.stack_frames
    changes = [make_frame(70, 1), make_frame(70, 2)]

    def meddle(*arguments: object, **named: object) -> object:
        result = original(*arguments, **named)  # type: ignore[arg-type]
        if changes:
            write_frame(frame, changes.pop())
        return result

    monkeypatch.setattr(make, "stack_frames", meddle)
    assert run(plan, output) == 1
    assert "changed while the tile was made" in report_of(output)["tiles"][0]["reason"]
    assert run(plan, output) == 0
    monkeypatch.undo()
    assert run(plan, output) == 0
    assert outcomes(output) == ["reused"]
    tiles = tiles_of(output)
    assert run(plan, tmp_path / "fresh") == 0
    assert tiles_of(tmp_path / "fresh") == tiles


def test_signatures_tell_everything_apart(tmp_path: Path) -> None:
    from zemosaic_stack_core import StackOptions
    from zemosaic_stack_core.phase3.signature import tile_signature
    from zemosaic_stack_core.system.file_stamps import HashedInput

    one, two = HashedInput(None, "a"), HashedInput(None, "b")
    options = StackOptions()
    seen = {
        tile_signature(1, [one, two], options),
        tile_signature(2, [one, two], options),
        tile_signature(1, [two, one], options),
        tile_signature(1, [one], options),
        tile_signature(1, [one, two], StackOptions(kappa_low=np.nextafter(3.0, 4.0))),
        tile_signature(1, [one, two], options, extra={"maps": ["coverage"]}),
    }
    assert len(seen) == 6
    assert tile_signature(1, [one, two], StackOptions()) in seen
