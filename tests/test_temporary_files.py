"""A folder for temporary files that is full or can't be written: no stack needs it but one that grows, in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from io import FileIO
from pathlib import Path

import numpy as np
import pytest
from samples import assert_same_bits

from zemosaic_stack_core import StackOptions, stack
from zemosaic_stack_core.errors import ScratchError

GROWS = StackOptions(kappa_high=2.0, grow_radius=1.5, grow_min_size=1)
NO_ROOM = r"No space left on device; expected room there for a bit per sample \(TMPDIR names another folder\)"


@pytest.fixture
def paths(tmp_path):
    """Nine frames with outliers, in files."""
    generator = np.random.default_rng(5)
    names = []
    for index in range(9):
        frame = generator.normal(100.0, 5.0, (40, 30)).astype(np.float32)
        frame[5 + index : 9 + index, 3:8] += 400.0
        names.append(tmp_path / f"{index}.npy")
        np.save(names[-1], frame)
    return names


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Let temporary files be made in a folder of the test's own."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("options", [StackOptions(), GROWS], ids=["plain", "growth"])
def test_nothing_is_left_there(paths, temporary, options, workers):
    stack(paths, options=options, workers=workers, rows_per_chunk=7)
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("workers", [1, 3])
def test_a_stack_that_does_not_grow_needs_none(paths, monkeypatch, workers):
    """Python finds none where no folder can be written."""

    def none(*_, **__):
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    expected = stack(paths, maps="all", workers=1)
    monkeypatch.setattr("tempfile.gettempdir", none)
    monkeypatch.setattr("tempfile.TemporaryFile", none)
    monkeypatch.setattr("tempfile.mkdtemp", none)
    assert_same_bits(stack(paths, maps="all", workers=workers, rows_per_chunk=7), expected)


class FullDisk(FileIO):
    """A file on a disk that takes no byte more, as a sparse file finds out late."""

    def write(self, _):
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("workers", [1, 3])
def test_a_disk_that_fills_up_is_one_line(paths, tmp_path, monkeypatch, workers):
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: FullDisk(tmp_path / "flags", "w+"))
    calls = []
    with pytest.raises(ScratchError, match=NO_ROOM):
        stack(paths, options=GROWS, workers=workers, rows_per_chunk=1, progress=lambda *done: calls.append(done))
    assert len(calls) < 40


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
from zemosaic_stack_core import StackOptions, stack
from zemosaic_stack_core.errors import ScratchError
try:
    stack(sys.argv[1:], options=StackOptions(kappa_high=2.0, grow_radius=1.5, grow_min_size=1), workers=2)
except ScratchError as error:
    print(error)
"""


def test_a_limit_on_the_size_of_files_is_one_line(paths, tmp_path):
    pytest.importorskip("resource", reason="no such limit on this system")
    done = run_python(LIMITED, paths, tmp_path)
    assert done.stdout == (
        f"{tmp_path}: File too large; expected room there for a bit per sample (TMPDIR names another folder)\n"
    )
    assert done.stderr == ""


CONTAINER = """
mount -t tmpfs -o size=64k tmpfs "$1" || exit 77
TMPDIR="$1" exec "$2" -m zemosaic_stack_core stack "${@:4}" -o "$3" --backend cpu --workers 2
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="mounts a file system as Linux does")
def test_a_container_with_little_room(tmp_path):
    """64 kB of TMPDIR: a stack with results of 72 MB ends well, and one that grows with one line."""
    folder, master = tmp_path / "tiny", tmp_path / "m.fits"
    folder.mkdir()
    frames = []
    for index in range(9):
        frames.append(str(tmp_path / f"{index}.npy"))
        frame = np.full((1000, 1000), index, np.uint8)
        frame[index::9] = 255
        np.save(frames[-1], frame)

    def run(*more):
        done = subprocess.run(
            [
                "unshare",
                "--mount",
                "bash",
                "-c",
                CONTAINER,
                "container",
                folder,
                sys.executable,
                master,
                *frames,
                *more,
            ],
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).parents[1],
        )
        if done.returncode == 77 or "unshare" in done.stderr:
            pytest.skip("file systems can be mounted by the superuser of a Linux machine only")
        return done

    growing = run("--grow-radius", "2", "--grow-min-size", "1", "--kappa-high", "1")
    assert growing.returncode == 1
    assert "expected room there for a bit per sample (TMPDIR names another folder)" in growing.stderr
    assert "Traceback" not in growing.stderr
    assert not master.exists()
    assert run("--maps", "all").returncode == 0
    assert master.is_file()


def run_python(code, arguments, folder):
    """Run Python apart from this process, with temporary files in a folder."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TMPDIR": str(folder)},
        cwd=Path(__file__).parents[1],
    )
