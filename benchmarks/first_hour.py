"""The first hour of someone new, as a script: ``python -m benchmarks.first_hour FOLDER [--data FOLDER]``.

It clones the repository, installs it into an environment of its own and types what the pages tell a user to type.
Each command is shown with what it says, its exit code and its times; the first that fails ends it. What it leaves in
FOLDER is to be looked at: pictures, reports, and every line on the screen.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
# A GPU that is not there is an answer, not a failure.
NO_GPU = 1
_RAW_FOLDER = """\
from pathlib import Path
from zemosaic_stack_core.synthetic.raw_night import RawNight

night = RawNight(n_frames=8, shape=(360, 480), pattern="GRBG", trails=(3,), clouds=(6,))
for path in night.write("raw", darks=5, biases=5, flats=5):
    kind = path.name.split("_")[0]
    folder = Path("raw", {"light": "lights", "dark": "darks", "bias": "biases", "flat": "flats"}[kind])
    folder.mkdir(exist_ok=True)
    path.rename(folder / path.name)
"""
_NIGHT = """\
from zemosaic_stack_core.synthetic.night import SyntheticNight

for tile in (1, 2, 3, 4):
    SyntheticNight(n_frames=12, shape=(240, 360), seed=tile, dither=6).write(f"night/tile_{tile}")
"""


class Step(NamedTuple):
    """A command that is typed."""

    command: tuple[str, ...]
    # Where, in the folder of the hour.
    folder: str = "."
    # Exit codes beside 0 that are right.
    allowed: tuple[int, ...] = ()
    # The first picture is there afterwards.
    is_first_picture: bool = False


def steps(data: Path | None) -> Iterator[Step]:
    """Yield what is typed, in order."""
    yield Step(("git", "clone", "--quiet", str(ROOT), "project"))
    yield Step((sys.executable, "-m", "venv", "env"))
    yield Step(("../env/bin/python", "-m", "pip", "install", "--quiet", "."), "project")
    yield _ours("demo demo_out")._replace(is_first_picture=True)
    yield _ours("stack demo_out/frames -o master.fits --dry-run")
    yield _ours("stack demo_out/frames -o master.fits --maps all --report master.html")
    yield _ours("explain master.fits 270 480")
    yield _ours("replay master.fits")
    if data is not None:
        yield Step(("mkdir", "sets"))
        for folder in sorted(path for path in data.resolve().iterdir() if path.is_dir()):
            yield _ours("stack", str(folder), "-o", f"sets/{folder.name}.fits", "--report", f"sets/{folder.name}.html")
    yield Step(("env/bin/python", "-c", _RAW_FOLDER))
    yield _ours("stack raw -o registered.fits --dry-run")
    yield _ours("stack raw -o registered.fits --report registered.html")
    yield _ours("explain registered.fits 180 240")
    yield _ours("replay registered.fits")
    yield Step(("env/bin/python", "-c", _NIGHT))
    yield Step(("truncate", "--size", "100000", "night/tile_2/light_004.fits"))
    yield _ours("run night -o tiles")
    yield _ours("run night -o tiles")
    yield Step(("env/bin/python", "-c", "open('list.txt', 'w').write('night/tile_3/light_002.fits\\n')"))
    yield _ours("run night -o tiles --exclude list.txt")
    yield _ours("explain tiles/master_tile_003.fits 120 180")
    yield _ours("replay tiles/master_tile_003.fits")
    yield _ours("doctor")._replace(allowed=(NO_GPU,))


def _ours(line: str, *words: str) -> Step:
    """Return a call of our command: words separated by spaces, then those that may hold some."""
    return Step(("env/bin/zemosaic-worker", *line.split(), *words))


def main(arguments: list[str] | None = None) -> int:
    """Type everything; return 1 where a command failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_hour", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a new folder for all that comes out")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="sets of frames of your own, a folder each")
    given = parser.parse_args(arguments)
    if given.data is not None and not given.data.is_dir():
        parser.error(f"--data: no folder {given.data}")
    try:
        given.folder.mkdir(parents=True)
    except OSError as error:
        parser.error(f"{given.folder}: {error.strerror}; expected the name of a new folder")
    # The environment sees what was installed into it, and nothing of ours.
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    began, cpu_so_far = time.perf_counter(), 0.0
    for step in steps(given.data):
        code, seconds, cpu = _type(step, given.folder, variables)
        cpu_so_far += cpu
        print(f"-> exit code {code}, {seconds:.1f} s, {cpu:.1f} s of processor time\n", flush=True)
        if code not in (0, *step.allowed):
            print("This command failed; nothing more is tried.")
            return 1
        if step.is_first_picture:
            print(f"== The first picture after {_times(began, cpu_so_far)}\n")
    print(f"== Everything after {_times(began, cpu_so_far)}")
    return 0


def _times(began: float, cpu: float) -> str:
    """Return how long it has taken."""
    return f"{time.perf_counter() - began:.0f} s, {cpu:.0f} s of processor time"


def _type(step: Step, folder: Path, variables: dict[str, str]) -> tuple[int, float, float]:
    """Run a command; return its exit code, wall and processor seconds, those of its children among them."""
    where = f"({step.folder}) " if step.folder != "." else ""
    print(f"{where}$ {shlex.join(step.command)}", flush=True)
    began = time.perf_counter()
    process = subprocess.Popen(step.command, cwd=folder / step.folder, env=variables, stdin=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, time.perf_counter() - began, usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    sys.exit(main())
