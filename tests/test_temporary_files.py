"""A folder for temporary files that is full or can't be written: the same bits from elsewhere, or one clear line."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from samples import assert_same_bits

from zemosaic_stack_core import StackOptions, stack
from zemosaic_stack_core.errors import ScratchError
from zemosaic_stack_core.system import shared_file
from zemosaic_stack_core.system.shared_file import SharedFile, map_file

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has files in memory that belong to no folder")

GROWS = StackOptions(kappa_high=2.0, grow_radius=1.5, grow_min_size=1)


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
def full(tmp_path, monkeypatch):
    """Let nothing be reserved in the temporary folder; in memory, something may."""
    folder = tmp_path / "full"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    reserve = getattr(os, "posix_fallocate", None)

    def fallocate(descriptor, offset, size):
        if str(folder) in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(28, "No space left on device")
        reserve(descriptor, offset, size)

    monkeypatch.setattr(os, "posix_fallocate", fallocate, raising=False)
    return folder


def warnings_of(caplog):
    """Return the lines that a user sees."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@on_linux
@pytest.mark.parametrize("options", [StackOptions(), GROWS], ids=["plain", "growth"])
def test_results_go_to_memory_where_the_temporary_folder_is_full(paths, full, caplog, options):
    expected = stack(paths, options=options, maps="all", workers=1)
    caplog.clear()
    found = stack(paths, options=options, maps="all", workers=2, rows_per_chunk=7)
    assert found.facts.workers == 2
    assert_same_bits(found, expected)
    lines = warnings_of(caplog)
    assert len(lines) == (1 if options is not GROWS else 2)
    assert lines[0] == (
        f"{full}: No space left on device; {6 * 4 * 40 * 30} bytes of results are kept in memory instead "
        "(TMPDIR names another folder)"
    )
    assert list(full.iterdir()) == []


@on_linux
def test_one_process_goes_on_where_nothing_can_be_shared(paths, full, caplog, monkeypatch):
    monkeypatch.delattr(os, "memfd_create")
    found = stack(paths, maps="all", workers=2, rows_per_chunk=7)
    assert found.facts.workers == 1
    assert_same_bits(found, stack(paths, maps="all", workers=1))
    [line] = warnings_of(caplog)
    assert line.startswith(f"{full}: No space left on device; expected room there for ")
    assert line.endswith("one process goes on alone")


@on_linux
def test_no_more_is_kept_in_memory_than_is_free(full, monkeypatch):
    monkeypatch.setattr(shared_file, "available_memory", lambda: (1000, 99))
    with pytest.raises(ScratchError, match="No space left on device; expected room there for 100 bytes of results"):
        SharedFile(100)


@on_linux
def test_what_is_kept_in_memory_is_shared(full):
    with SharedFile(100) as shared:
        other = map_file(shared.path)
        other[7] = 42
        other.close()
        assert shared.memory[7] == 42


@on_linux
def test_without_any_temporary_folder(paths, monkeypatch, caplog):
    """Python finds none where no folder can be written."""

    def none():
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr("tempfile.gettempdir", none)
    found = stack(paths, maps="all", workers=2, rows_per_chunk=7)
    assert_same_bits(found, stack(paths, maps="all", workers=1))
    [line] = warnings_of(caplog)
    assert line.startswith("No usable temporary directory found in ['/tmp']; ")


CONTAINER = """
mount -t tmpfs -o size=64m tmpfs /dev/shm && mount -t tmpfs -o size=64k tmpfs "$1" || exit 77
TMPDIR="$1" exec "$2" -c '
import sys
import numpy as np
from zemosaic_stack_core import stack
from zemosaic_stack_core.options import MAPS
frames = sys.argv[1:]
several = stack(frames, maps="all", workers=2)
one = stack(frames, maps="all", workers=1)
for name in ("image", *MAPS):
    assert np.array_equal(getattr(several, name), getattr(one, name), equal_nan=True)
print(several.facts.workers, several.image.nbytes * 6 > 64 << 20)
' "${@:3}"
"""


@on_linux
def test_a_container_with_little_shared_memory_and_no_room(tmp_path):
    """64 MB of /dev/shm, as Docker gives, and 64 kB of TMPDIR: results of 72 MB neither fail nor kill a process."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    frames = []
    for index in range(3):
        frames.append(str(tmp_path / f"{index}.npy"))
        np.save(frames[-1], np.full((1500, 2000), index, np.uint8))
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-c", CONTAINER, "container", str(folder), sys.executable, *frames],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("file systems can be mounted by the superuser of a Linux machine only")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "2 True\n"
    # Python itself may take another folder where it can't write a byte to TMPDIR.
    assert done.stderr.count("\n") <= 1
