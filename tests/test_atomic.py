import os
import subprocess
import sys
from pathlib import Path

import pytest

from zemosaic_stack_core.errors import InvalidInputError, OutputError
from zemosaic_stack_core.system.atomic import atomic_output, check_output, remove_leftovers


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write(path, data, *, overwrite=True, and_then=lambda: None):
    with atomic_output(path, overwrite=overwrite) as file:
        file.write(data)
        file.flush()
        and_then()


def test_a_file_appears_whole_under_its_name_only(tmp_path):
    path = tmp_path / "out.bin"
    with atomic_output(path) as file:
        file.write(b"abc")
        assert not path.exists()
    assert path.read_bytes() == b"abc"
    assert names(tmp_path) == ["out.bin"]


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "out.bin"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError):
        write(path, b"new", and_then=lambda: 1 / 0)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["out.bin"]


def test_a_failing_rename_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "out.bin"
    path.write_bytes(b"old")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OutputError, match=r"out\.bin: Permission denied while writing"):
        write(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["out.bin"]


def test_an_existing_file_is_refused_before_anything_is_written(tmp_path):
    path = tmp_path / "out.bin"
    path.write_bytes(b"old")
    with pytest.raises(InvalidInputError, match=r"out\.bin: the file exists; expected a new name, or --overwrite"):
        check_output(path)
    with pytest.raises(InvalidInputError), atomic_output(path):
        pytest.fail("the block must not run")
    assert path.read_bytes() == b"old"


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path):
    path = tmp_path / "out.bin"
    with pytest.raises(InvalidInputError, match="the file exists"):
        write(path, b"ours", overwrite=False, and_then=lambda: path.write_bytes(b"theirs"))
    assert path.read_bytes() == b"theirs"
    assert names(tmp_path) == ["out.bin"]


def test_a_folder_or_a_parent_that_is_none_is_refused(tmp_path):
    with pytest.raises(InvalidInputError, match="a folder; expected the name of a file"):
        check_output(tmp_path, overwrite=True)
    (tmp_path / "plain").write_bytes(b"")
    for path in (tmp_path / "plain" / "out.bin", tmp_path / "absent" / "out.bin"):
        with pytest.raises(OutputError, match="is not a folder; expected one to write in"):
            check_output(path)
        with pytest.raises(OutputError), atomic_output(path):
            pytest.fail("the block must not run")


def test_a_link_is_followed_and_stays_a_link(tmp_path):
    target, link = tmp_path / "target.bin", tmp_path / "link.bin"
    target.write_bytes(b"old")
    link.symlink_to(target)
    with atomic_output(link, overwrite=True) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_the_umask_rules_the_new_file(tmp_path):
    path = tmp_path / "out.bin"
    with atomic_output(path) as file:
        file.write(b"abc")
    plain = tmp_path / "plain.bin"
    plain.write_bytes(b"abc")
    assert path.stat().st_mode == plain.stat().st_mode


def test_leftovers_of_a_killed_run_are_removed_and_named(tmp_path):
    (tmp_path / "keep.fits").write_bytes(b"")
    code = (
        "import os, sys\nfrom zemosaic_stack_core.system.atomic import atomic_output\n"
        "with atomic_output(sys.argv[1]) as file:\n    file.write(b'x')\n    file.flush()\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "out.bin")], cwd=Path(__file__).parent.parent, check=False
    )
    assert len(names(tmp_path)) == 2
    assert len(remove_leftovers(tmp_path)) == 1
    assert names(tmp_path) == ["keep.fits"]


@pytest.mark.skipif(os.name != "posix", reason="file size limits are POSIX")
def test_a_full_disk_is_one_clear_error_and_the_old_file_stays(tmp_path):
    path = tmp_path / "out.bin"
    path.write_bytes(b"old")
    code = (
        "import resource, sys\nfrom zemosaic_stack_core.system.atomic import atomic_output\n"
        "from zemosaic_stack_core.errors import OutputError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n"
        "    with atomic_output(sys.argv[1], overwrite=True) as file:\n"
        "        file.write(bytes(1_000_000))\n"
        "except OutputError as error:\n"
        "    sys.exit(str(error))\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "out.bin: File too large while writing; expected room and permission in" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["out.bin"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that not even root can write in")
def test_a_folder_that_can_not_be_written_is_found_before_the_work():
    with pytest.raises(OutputError, match=r"m\.fits: .* in /proc; expected a folder that can be written"):
        check_output("/proc/m.fits")


def test_a_name_that_is_too_long_is_found_before_the_work(tmp_path):
    with pytest.raises(OutputError, match="File name too long; expected the name of a file to write"):
        check_output(tmp_path / f"{'m' * 300}.fits")


def test_the_look_before_the_work_leaves_nothing(tmp_path):
    check_output(tmp_path / "m.fits")
    assert not list(tmp_path.iterdir())
