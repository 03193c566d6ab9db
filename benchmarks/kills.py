"""Kill runs at random with SIGKILL and run them again: always the same tiles, nothing lost, nothing left over.

Each round starts ``zemosaic-worker run`` as a process, kills it (the parent) or one of its dask workers after a random
time, runs the same command again until it ends by itself, and compares every tile with the tiles of a run that nobody
disturbed; until there were so many kills. Prints one JSON object.

Usage::

    python benchmarks/kills.py                       # 50 kills
    python benchmarks/kills.py --rounds 3 --tiles 3  # tiny
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil

MODES = ("parent", "dask worker", "dask parent")
_WORKERS = {
    "parent": ("--workers", "2"),
    "dask worker": ("--local-cluster", "2"),
    "dask parent": ("--local-cluster", "2"),
}


def write_plan(folder: Path, tiles: int, frames: int, shape: tuple[int, int]) -> Path:
    """Write a folder of tiles as .npy frames, one of them broken."""
    for tile in range(1, tiles + 1):
        target = folder / f"tile_{tile}"
        target.mkdir(parents=True)
        for index in range(frames):
            random = np.random.default_rng([tile, index])
            frame: npt.NDArray[np.float32] = random.normal(100.0, 3.0, shape).astype(np.float32)
            frame[: random.integers(0, 9)] = np.nan
            np.save(target / f"light_{index}.npy", frame)
    (folder / "tile_2" / "light_1.npy").write_bytes(b"broken")
    return folder


def start(plan: Path, output: Path, arguments: tuple[str, ...]) -> subprocess.Popen[bytes]:
    """Start a run in a process group of its own."""
    command = [sys.executable, "-m", "zemosaic_stack_core", "run", str(plan), "-o", str(output)]
    return subprocess.Popen(
        [*command, "--backend", "cpu", "-q", *arguments],
        stderr=subprocess.DEVNULL,
        cwd=Path(__file__).parents[1],
        start_new_session=True,
    )


def tiles_of(output: Path) -> dict[str, str]:
    """Return the SHA-256 of each tile."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(output.glob("*.fits"))}


def leftovers(output: Path) -> list[str]:
    """Return what is in the folder beside tiles and reports."""
    known = {"report.json", "report.html"}
    return [path.name for path in output.iterdir() if path.name not in known and path.suffix != ".fits"]


def temporary_files() -> set[str]:
    """Return this program's files in the folder for temporary files."""
    return {path.name for path in Path(tempfile.gettempdir()).glob("zemosaic-*")}


def kill_something(process: subprocess.Popen[bytes], mode: str, random: np.random.Generator) -> str:
    """Kill the process, or the next of its workers that is there; return what happened."""
    while process.poll() is None:
        if mode in ("parent", "dask parent"):
            process.kill()
            return "killed"
        try:
            children = psutil.Process(process.pid).children(recursive=True)
            victims = [child for child in children if _is_dask_worker(child)]
            if victims:
                victims[int(random.integers(len(victims)))].send_signal(signal.SIGKILL)
                return "killed"
        except psutil.NoSuchProcess:
            continue
        time.sleep(0.002)
    return "it had ended"


def _is_dask_worker(child: psutil.Process) -> bool:
    """Return whether a child does a tile's work."""
    try:
        return "spawn_main" in " ".join(child.cmdline())
    except psutil.Error:
        return False


def run_again(plan: Path, output: Path, arguments: tuple[str, ...]) -> int:
    """Run to the end; a run that a dying one still keeps out waits for it."""
    for _ in range(100):
        code = start(plan, output, arguments).wait()
        if code != 2:
            return code
        time.sleep(0.2)
    return code


def measure_kills(
    folder: Path, rounds: int, tiles: int, frames: int, shape: tuple[int, int], seed: int
) -> dict[str, Any]:
    """Return what came of so many kills."""
    random = np.random.default_rng(seed)
    plan = write_plan(folder / "plan", tiles, frames, shape)
    reference = folder / "reference"
    by_arguments: dict[tuple[str, ...], float] = {}
    for arguments in dict.fromkeys(_WORKERS[mode] for mode in MODES):
        began = time.perf_counter()
        output = folder / f"timed {len(by_arguments)}" if by_arguments else reference
        if start(plan, output, arguments).wait() != 0:
            raise RuntimeError(f"the undisturbed run failed ({' '.join(arguments)})")
        by_arguments[arguments] = time.perf_counter() - began
    lengths = {mode: by_arguments[_WORKERS[mode]] for mode in MODES}
    expected = tiles_of(reference)
    happened: Counter[str] = Counter()
    different, lost, left, reused, refused = 0, 0, 0, 0, 0
    before = temporary_files()
    number = kills = 0
    while kills < rounds and number < 3 * rounds:  # a run that ends before anybody is killed proves nothing
        mode = MODES[kills % len(MODES)]
        number += 1
        output = folder / f"round {number}"
        process = start(plan, output, _WORKERS[mode])
        time.sleep(float(random.uniform(0.1, 0.95)) * lengths[mode])
        what = kill_something(process, mode, random)
        happened[f"{mode}: {what}"] += 1
        kills += what == "killed"
        first = process.wait()
        there = tiles_of(output) if output.is_dir() else {}
        different += sum(expected[name] != value for name, value in there.items())  # a whole tile or none
        reused += len(there)
        code = first if first == 0 else run_again(plan, output, _WORKERS[mode])
        refused += code != 0
        found = tiles_of(output)
        different += sum(expected.get(name) != value for name, value in found.items())
        lost += len(set(expected) - set(found))
        left += len(leftovers(output))
    time.sleep(1.0)  # a worker without its parent ends after its chunk
    return {
        "runs": number,
        "kills": kills,
        "tiles": tiles,
        "happened": dict(sorted(happened.items())),
        "tiles_there_after_the_kill": reused,
        "different": different,
        "lost": lost,
        "left_over": left,
        "runs_that_did_not_end_with_0": refused,
        "temporary_files": sorted(temporary_files() - before),
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--tiles", type=int, default=6)
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        shape = (arguments.rows, 700)
        facts = measure_kills(Path(folder), arguments.rounds, arguments.tiles, arguments.frames, shape, arguments.seed)
    print(json.dumps({"cores": os.cpu_count(), **facts}, indent=1))


if __name__ == "__main__":
    main()
