"""Prepare the same raw frames with this program and with Siril, step by step, and compare time and memory.

::

    python benchmarks/prepare_beside_siril.py [FOLDER] [--frames 24] [--size 1080 1920] [--workers 2] [--rounds 2]

Without a folder, a synthetic night with darks, biases and flats is made. Both programs read the same files, write
32-bit frames and interpolate with Lanczos; Siril gets as many threads as this program has processes. Siril writes
calibrated and registered frames, these on the reference's grid; this program registered ones only, on a canvas that
holds all frames. Memory is the proportional share of all processes of a step, sampled. Prints JSON: of several rounds,
the fastest of each step.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from zemosaic_stack_core import StackOptions, stack
from zemosaic_stack_core.frames.frame_lists import expand_frame_arguments
from zemosaic_stack_core.frames.pixel_rows import FilePool
from zemosaic_stack_core.prepare import PrepareOptions, prepare_frames
from zemosaic_stack_core.prepare.frame_set import inspect_frames
from zemosaic_stack_core.prepare.sensor.calibrate import make_masters
from zemosaic_stack_core.prepare.sensor.debayer import debayer
from zemosaic_stack_core.prepare.tasks import FrameTask
from zemosaic_stack_core.synthetic.raw_night import RawNight
from zemosaic_stack_core.system.pool import map_in_processes

Cost = dict[str, float]

_SAMPLED = 0.04  # seconds between two looks at the processes
_UNWRITTEN = "calibrate and debayer alone, nothing written"


class Watch:
    """A child process that is waited for while its CPU time and its memory, and its own children's, are looked at.

    `samples` are (time, CPU seconds, bytes); what a step that ended between two of them cost can be read there.
    """

    def __init__(self, process: Any) -> None:
        self.samples: list[tuple[float, float, int]] = []
        began, ended = time.perf_counter(), threading.Event()
        watcher = threading.Thread(target=self._look, args=(process.pid, ended))
        watcher.start()
        try:
            _, status, used = os.wait4(process.pid, 0)
        finally:
            ended.set()
            watcher.join()
        if status != 0:
            raise RuntimeError(f"a step ended with status {status}")
        self.cost = {
            "wall": time.perf_counter() - began,
            "cpu": used.ru_utime + used.ru_stime,
            "peak_mib": max((size for _, _, size in self.samples), default=0) / 2**20,
        }

    def _look(self, pid: int, ended: threading.Event) -> None:
        """Take samples until told to stop."""
        while not ended.wait(_SAMPLED):
            try:
                root = psutil.Process(pid)
                children = root.children(recursive=True)
                own = root.cpu_times()
                cpu = own.user + own.system + own.children_user + own.children_system
                size = root.memory_full_info().pss
                for child in children:
                    times = child.cpu_times()
                    cpu += times.user + times.system
                    size += child.memory_full_info().pss
            except psutil.Error:  # one ended meanwhile
                continue
            self.samples.append((time.perf_counter(), cpu, size))

    def between(self, start: float, stop: float) -> Cost:
        """Return what was spent between two times."""
        times, cpu, size = (np.array(column) for column in zip(*self.samples, strict=True))
        inside = size[(times >= start) & (times <= stop)]
        spent = np.interp(stop, times, cpu) - np.interp(start, times, cpu)
        return {"wall": stop - start, "cpu": float(spent), "peak_mib": float(inside.max(initial=0)) / 2**20}


def in_child(function: Callable[[], Any]) -> Watch:
    """Run a function in a copy of this process."""
    process = multiprocessing.get_context("fork").Process(target=function)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12+ warns of forking with threads
        process.start()
    return Watch(process)


def siril(folder: Path, lines: Sequence[str], threads: int) -> Cost:
    """Run commands of Siril in a folder."""
    script = folder / "step.ssf"
    script.write_text(
        "\n".join(["requires 1.0.0", "setext fits", "set32bits", f"setcpu {threads}", *lines, "close", ""])
    )
    command = ["siril-cli", "-d", str(folder), "-s", str(script)]
    with (folder / "siril.log").open("w+b") as log:
        try:
            return Watch(subprocess.Popen(command, stdout=log, stderr=log)).cost
        except RuntimeError:
            log.seek(0)
            sys.stderr.write(log.read()[-1500:].decode(errors="replace"))
            raise


def theirs(paths: Sequence[Path], scratch: Path, threads: int) -> dict[str, Cost]:
    """Do all steps with Siril."""
    frames = inspect_frames(paths, PrepareOptions())
    is_cfa = frames.lights[0].pattern is not None
    kinds = {kind: frames.of_kind(kind) for kind in ("bias", "dark", "flat")}
    for name, group in {"light": frames.lights, **kinds}.items():
        for index, frame in enumerate(group, 1):
            (scratch / f"{name}_{index:05d}.fits").symlink_to(frame.path.resolve())
    there = {kind for kind, group in kinds.items() if group}
    masters = []
    if "bias" in there:
        masters.append("stack bias_ rej 3 3 -nonorm -out=master_bias")
    if "dark" in there:
        masters.append("stack dark_ rej 3 3 -nonorm -out=master_dark")
    if "flat" in there:
        flats = "pp_flat_" if "bias" in there else "flat_"
        masters += ["preprocess flat_ -bias=master_bias"] * ("bias" in there)
        masters.append(f"stack {flats} rej 3 3 -norm=mul -out=master_flat")
    used = " ".join(
        f"-{kind}=master_{kind}"
        for kind in ("bias", "dark", "flat")
        if kind in there and not (kind == "bias" and "dark" in there)
    )
    cosmetic = " -cc=dark" * ("dark" in there)
    steps: dict[str, list[str]] = {"start": []}
    if masters:
        steps["masters"] = masters
    steps |= {
        "calibrate, debayer": [f"preprocess light_ {used}{cosmetic}{' -cfa -debayer' * is_cfa}".replace("  ", " ")],
        "stars, register, resample": ["register pp_light_"],
        "stack": ["stack r_pp_light_ rej s 3 3 -norm=add -out=master"],
    }
    cost = {name: siril(scratch, lines, threads) for name, lines in steps.items()}
    if not (scratch / "master.fits").exists():
        raise RuntimeError(f"Siril made no master; see {scratch / 'siril.log'}")
    return cost


def _colors(task: FrameTask, files: FilePool) -> None:
    """Calibrate and debayer a frame, in memory."""
    pixels = task.calibrated(files)
    if task.pattern is not None:
        debayer(pixels, task.pattern)


def ours(paths: Sequence[Path], scratch: Path, workers: int) -> dict[str, Cost]:
    """Do all steps with this program."""
    cache, note = scratch / "cache", scratch / "group.json"

    def run_preparation() -> None:
        began = time.perf_counter()
        group = prepare_frames(paths, cache_folder=cache, workers=workers)
        note.write_text(json.dumps([began, group.seconds, [str(path) for path in group.paths]]))

    def run_stack() -> None:
        _, _, aligned = json.loads(note.read_text())
        options = StackOptions(rejection="kappa_sigma", normalization="additive")
        stack([Path(path) for path in aligned], options=options, maps=(), workers=workers)

    watch = in_child(run_preparation)
    began, seconds, _ = json.loads(note.read_text())
    cost = {}
    for step, wall in seconds.items():
        cost[step] = watch.between(began, began + wall)
        began += wall
    cost["stack"] = in_child(run_stack).cost
    frames = inspect_frames(paths, PrepareOptions())
    masters = make_masters(frames.calibration, scratch, lights=frames.lights, pattern=frames.lights[0].pattern)
    tasks = [FrameTask(frame=frame, pattern=frame.pattern, masters=masters) for frame in frames.lights]
    pixels = frames.lights[0].rows * frames.lights[0].columns
    with FilePool() as files:
        watch = in_child(lambda: map_in_processes(_colors, tasks, files, pixels=pixels, workers=workers))
    cost[_UNWRITTEN] = watch.cost
    return cost


def compare(paths: Sequence[Path], workers: int, rounds: int, scratch: Path) -> dict[str, Any]:
    """Run both programs in turn; return the costs of the fastest round of each step, and the ratios of the wholes."""
    found: dict[str, list[dict[str, Any]]] = {"ours": [], "siril": []}
    for round_ in range(rounds):
        for name, run in (("ours", ours), ("siril", theirs)):
            folder = scratch / f"{name}{round_}"
            folder.mkdir(parents=True)
            found[name].append(run(paths, folder, workers))
            shutil.rmtree(folder)
    best = {
        name: {step: min((cost[step] for cost in costs), key=lambda cost: cost["wall"]) for step in costs[0]}
        for name, costs in found.items()
    }
    unwritten = best["ours"].pop(_UNWRITTEN)
    whole = {
        name: {
            **{key: sum(cost[key] for cost in steps.values()) for key in ("wall", "cpu")},
            "peak_mib": max(cost["peak_mib"] for cost in steps.values()),
        }
        for name, steps in best.items()
    }
    ratio = {key: whole["ours"][key] / whole["siril"][key] for key in ("wall", "cpu", "peak_mib")}
    return {**best, _UNWRITTEN: unwritten, "whole": whole, "ours_over_siril": ratio}


def main(arguments: list[str] | None = None) -> None:
    """Compare on a folder, or on a synthetic night."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--size", type=int, nargs=2, default=[1080, 1920], metavar=("ROWS", "COLUMNS"))
    parser.add_argument("--stars", type=int, default=4000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args(arguments)
    if shutil.which("siril-cli") is None:
        sys.exit("siril-cli is not installed")
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        if given.folder is None:
            night = RawNight(
                n_frames=given.frames,
                shape=tuple(given.size),
                n_stars=given.stars,
                pattern="GRBG",
                shift=20.0,
                turn=2.0,
                zoom=0.0005,
            )
            night.write(scratch / "raw", darks=8, biases=8, flats=8)
            paths = sorted((scratch / "raw").iterdir())
        else:
            paths = expand_frame_arguments([given.folder])
        result = compare(paths, given.workers, given.rounds, scratch)
    print(json.dumps({"operation": "prepare beside siril", "files": len(paths), **result}, indent=1))


if __name__ == "__main__":
    main()
