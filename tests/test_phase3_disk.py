from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from night import leftovers, outcomes, report_of, run, tiles_of, write_night

from zemosaic_stack_core.errors import OutputError
from zemosaic_stack_core.system.atomic import disk_is_full


def _mount(*arguments: str) -> bool:
    """Mount something; return whether that could be done."""
    return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a file system of 64 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        sys.platform != "linux"
        or os.geteuid() != 0
        or not _mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder))
    ):
        pytest.skip("a small file system can be mounted by the superuser of a Linux machine only")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_stops_the_run_which_is_resumed(
    small_disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = write_night(tmp_path / "night", tiles=6)
    assert run(plan, tmp_path / "whole") == 0
    capsys.readouterr()
    assert run(plan, small_disk) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "No space left on device" in said
    assert "the run stopped" in said
    assert "run the same command again to go on" in said
    made = tiles_of(small_disk)
    assert 0 < len(made) < 6
    assert leftovers(small_disk, ("report.json", "report.html", ".zemosaic-run.report.journal")) == []
    assert _mount("-o", "remount,size=4m", str(small_disk))
    assert run(plan, small_disk) == 0
    assert tiles_of(small_disk) == tiles_of(tmp_path / "whole")
    assert outcomes(small_disk)[: len(made)] == ["reused"] * len(made)
    assert leftovers(small_disk) == []


def test_a_disk_that_becomes_read_only(small_disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = write_night(tmp_path / "night", tiles=2)
    assert _mount("-o", "remount,ro", str(small_disk))
    assert run(plan, small_disk) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "Read-only file system" in said


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="this system has no limit on the size of files")
def test_files_that_may_not_grow(tmp_path: Path) -> None:
    plan, output = write_night(tmp_path / "night", tiles=2), tmp_path / "out"
    arguments = ["run", str(plan), "-o", str(output), "--backend", "cpu"]
    code = f"import sys; from zemosaic_stack_core.command_line import main; sys.exit(main({arguments!r}))"

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))

    answer = subprocess.run(
        [sys.executable, "-B", "-c", code],
        preexec_fn=limit,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        check=False,
    )
    assert answer.returncode == 1
    assert "File too large" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert tiles_of(output) == {}
    assert leftovers(output, ("report.json", "report.html", ".zemosaic-run.report.journal")) == []
    assert run(plan, output) == 0
    assert report_of(output)["counts"] == {"done_cpu": 2}
    assert leftovers(output) == []


def test_which_errors_concern_every_tile() -> None:
    def error(number: int) -> OutputError:
        output = OutputError("x")
        output.__cause__ = OSError(number, "x")
        return output

    import errno

    assert disk_is_full(error(errno.ENOSPC))
    assert disk_is_full(error(errno.EROFS))
    assert not disk_is_full(error(errno.EFBIG))
    assert not disk_is_full(OSError(errno.ENOSPC, "of the scratch folder, not of the output"))
