"""Combine a folder of frames with one program and print what it took.

``python nddata_run.py FOLDER CASE METHOD CLIP PROGRAM REPEAT``
"""

from __future__ import annotations

import gc
import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from astropy.nddata import CCDData

LIMIT = 30_000_000
_SAMPLING_SECONDS = 0.002


def combination(frames: list[Any], method: str, clip: str, program: str) -> Callable[[], Any]:
    """Return what combines frames, CCDData or paths of files."""
    are_files = isinstance(frames[0], Path)
    if program == "stack":
        from zemosaic_stack_core import StackOptions, stack

        rule = {"rejection": "kappa_sigma", "max_iterations": 1} if clip == "sigma clip" else {"rejection": "none"}
        options = StackOptions(combine={"average": "mean"}.get(method, method), **rule)
        limit = LIMIT if are_files else None
        return lambda: stack(frames, options=options, maps=("coverage", "variance"), memory_limit=limit)
    if program == "ccdproc":
        from ccdproc import Combiner, combine
    else:
        from zemosaic_stack_core.nddata import Combiner, combine
    if are_files:
        names, clips = list(map(str, frames)), clip == "sigma clip"
        return lambda: combine(
            names, method=method, mem_limit=LIMIT, unit="adu", sigma_clip=clips, sigma_clip_func="median"
        )

    def combined() -> Any:
        combiner = Combiner(frames)
        if clip == "sigma clip":
            combiner.sigma_clipping(func="median")
        return getattr(combiner, f"{method}_combine")()

    return combined


def watched(act: Callable[[], Any]) -> tuple[Any, float, int]:
    """Return what a call gives, the processor seconds, and the bytes at most beyond those before."""
    process = psutil.Process()
    gc.collect()
    before = peak = process.memory_info().rss
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(_SAMPLING_SECONDS):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.process_time()
    answer = act()
    seconds = time.process_time() - began
    ended.set()
    watcher.join()
    return answer, seconds, peak - before


def result_bytes(answer: Any) -> int:
    """Return the bytes of the planes of an answer."""
    if isinstance(answer, CCDData):
        return int(answer.data.nbytes + answer.mask.nbytes + answer.uncertainty.array.nbytes)
    return int(sum(plane.nbytes for plane in (answer.image, answer.coverage, answer.variance)))


def main() -> None:
    """Combine a corner, then all."""
    folder, case, method, clip, program, repeat = sys.argv[1:]
    frames: list[Any] = sorted(Path(folder).glob("*.fits"))
    if case == "arrays":
        frames = [CCDData.read(path, unit="adu", memmap=False) for path in frames]
        frames = [CCDData(frame.data.astype(frame.data.dtype.newbyteorder("=")), unit="adu") for frame in frames]
    corner = [CCDData(np.random.default_rng(index).normal(size=(8, 8)), unit="adu") for index in range(len(frames))]
    _, first, _ = watched(combination(corner, method, clip, program))
    act = combination(frames, method, clip, program)
    answer, seconds, peak = watched(act)
    size = result_bytes(answer)
    del answer
    taken = [seconds]
    for _ in range(int(repeat) - 1):
        began = time.process_time()
        act()
        taken.append(time.process_time() - began)
    print(json.dumps({"cpu": min(taken), "first_cpu": first, "peak": peak, "result": size}))


if __name__ == "__main__":
    main()
