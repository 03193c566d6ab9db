"""What Linux has and Windows or macOS lack: each is taken away here, and the work is done without it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from samples import assert_same_bits, make_frames

from zemosaic_stack_core import stack
from zemosaic_stack_core.backends import numpy_backend
from zemosaic_stack_core.backends.host import has_compiler
from zemosaic_stack_core.errors import FrameReadError, InvalidInputError, OutputError
from zemosaic_stack_core.frames import scratch
from zemosaic_stack_core.frames.frame_lists import expand_frame_arguments
from zemosaic_stack_core.frames.group import open_frames
from zemosaic_stack_core.frames.scratch import ScratchFolder
from zemosaic_stack_core.master.read import read_master
from zemosaic_stack_core.master.write import write_master
from zemosaic_stack_core.system.atomic import atomic_output
from zemosaic_stack_core.system.memory import usable_cores
from zemosaic_stack_core.system.open_files import MAX_OPEN_FILES, default_open_files


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """Let temporary files be made in a folder of the test's own."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def refuse(*_, **__):
    raise PermissionError(13, "The process cannot access the file because it is being used by another process")


def test_without_limits_on_descriptors(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)
    assert default_open_files() == MAX_OPEN_FILES


def test_without_affinity_every_core_counts(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    assert usable_cores() == 12
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores() == 1


def test_without_a_compiler(monkeypatch):
    """llvmlite has no wheel for every machine: NumPy runs the same functions, to the same bits."""
    frames, masks = make_frames(1, 9, pattern="masks")
    compiled = stack(frames, masks=masks, maps="all")
    before = numpy_backend().working_bytes(9, 2)
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    assert not has_compiler()
    assert numpy_backend().working_bytes(9, 2) > before  # of each sample, and not of a few pixels
    assert_same_bits(stack(frames, masks=masks, maps="all"), compiled)


@pytest.fixture
def packed(tmp_path):
    """A frame that has to be decoded."""
    path = tmp_path / "a.fits.gz"
    fits.writeto(path, np.ones((3, 4), np.float32))
    return path


def test_a_scratch_folder_without_locks(temporary, packed, monkeypatch):
    """On Windows a file that is open can't be removed: that is the lock."""
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setattr(scratch, "_GRACE_SECONDS", 0.0)
    with ScratchFolder() as folder:
        open_frames([packed], scratch=folder)
        alive = folder.path
        with monkeypatch.context() as windows:
            windows.setattr(Path, "unlink", refuse)
            with ScratchFolder() as second:
                open_frames([packed], scratch=second)
                assert alive.is_dir()
        abandoned = temporary / f"{alive.name[:17]}abandoned"
        abandoned.mkdir()
        (abandoned / "lock").touch()
    assert not alive.exists()
    with ScratchFolder() as third:
        open_frames([packed], scratch=third)
        assert not abandoned.exists()
    assert list(temporary.iterdir()) == []


def test_a_folder_that_can_not_be_listed(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(FrameReadError, match="being used by another process; expected a readable folder"):
        expand_frame_arguments([str(tmp_path)])


def test_a_folder_that_can_not_be_synced(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "open", refuse)
    with atomic_output(tmp_path / "x") as file:
        file.write(b"whole")
    assert (tmp_path / "x").read_bytes() == b"whole"


def test_a_file_that_somebody_has_open_stays_as_it_was(tmp_path, monkeypatch):
    """On Windows nothing can be renamed over it."""
    target = tmp_path / "master.fits"
    target.write_bytes(b"older")
    monkeypatch.setattr(Path, "replace", refuse)
    with (
        pytest.raises(OutputError, match=r"master\.fits: The process cannot access the file .* while writing"),
        atomic_output(target, overwrite=True) as file,
    ):
        file.write(b"newer")
    assert target.read_bytes() == b"older"
    assert [path.name for path in tmp_path.iterdir()] == ["master.fits"]
    with pytest.raises(InvalidInputError, match="the file exists"), atomic_output(target):
        pass


def test_frames_on_another_drive_have_no_relative_name(tmp_path, monkeypatch):
    def relpath(path, start):
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    frame = tmp_path / "a.npy"
    np.save(frame, np.ones((3, 4), np.float32))
    monkeypatch.setattr(os.path, "relpath", relpath)
    master = write_master(tmp_path / "m.fits", stack([frame]))
    (row,) = read_master(master).rows
    assert (row.record.name, row.relative, row.record.path) == (str(frame), "", frame)
