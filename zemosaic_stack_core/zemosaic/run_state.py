"""What outlives a call of ZeMosaic's: the GPU of a run, the figures of its last stack. And a heartbeat."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from zemosaic_stack_core.gpu.auto import tile_figures
from zemosaic_stack_core.gpu.phase3_gpu import Phase3Gpu
from zemosaic_stack_core.stacking.result import StackResult

# ZeMosaic aborts a tile after 240 s of silence; seconds between two signs of life.
HEARTBEAT_S = 5.0
HEARTBEAT = "phase3_stack_progress"


class RunGpu:
    """The GPU of a Phase 3 run: ZeMosaic calls functions, on several threads, and keeps no state of ours."""

    def __init__(self, make: Callable[..., Phase3Gpu] = Phase3Gpu) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._gpu: Phase3Gpu | None = None

    def of_run(self, logger: logging.Logger) -> Phase3Gpu:
        """Return the run's state, made at its first tile."""
        with self._lock:
            if self._gpu is None:
                self._gpu = self._make(logger=logger)
            return self._gpu

    def begin(self) -> None:
        """Begin a run: forget that the GPU failed, give its memory back, look again whether it is sane."""
        with self._lock:
            gpu, self._gpu = self._gpu, None
        if gpu is not None:
            gpu.close()


class RuntimeStats:
    """Figures of the last GPU stack; the existing program asks for them by function, so they outlive the call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._figures: dict[str, Any] = {}

    def replace(self, figures: Mapping[str, Any]) -> None:
        """Keep these figures in place of the last."""
        with self._lock:
            self._figures = dict(figures)

    def copy(self) -> dict[str, Any]:
        """Return a copy."""
        with self._lock:
            return dict(self._figures)


# Held while a stack is on the device, by the functions that make one attempt; a `Phase3Gpu` has a lock of its own.
DEVICE = threading.Lock()
RUN_GPU = RunGpu()
RUNTIME_STATS = RuntimeStats()


def begin_run() -> None:
    """Begin a Phase 3 run: a GPU that was switched off in the last one is tried again."""
    RUN_GPU.begin()
    RUNTIME_STATS.replace({})


def note_gpu_stack(result: StackResult, total_rows: int, duration_s: float) -> dict[str, Any]:
    """Keep the figures of a stack on the GPU, and return those of its chunk summary."""
    summary = {**tile_figures(result, total_rows), "duration_s": duration_s}
    steps = {"upload": summary["upload_ms"], "compute": summary["reject_ms"], "download": summary["download_ms"]}
    total = sum(steps.values())
    figures = {**summary, "used": True, "frames": summary["n_frames"]}
    figures |= {f"{step}_share_pct": 100.0 * spent / total if total > 0 else 0.0 for step, spent in steps.items()}
    RUNTIME_STATS.replace({f"p3_gpu_last_{name}": value for name, value in figures.items()})
    return summary


class Heartbeat:
    """A progress callback that tells ZeMosaic's watchdog, through its callback, that a stack goes on."""

    def __init__(self, pcb: Callable[..., Any], tile_id: int | None, every_s: float = HEARTBEAT_S) -> None:
        self._pcb = pcb
        self._tile_id = tile_id
        self._every_s = every_s
        self._last = -math.inf
        # What the callback raised.
        self.raised: BaseException | None = None

    def __call__(self, done: int, total: int) -> None:
        """Report rows; what the callback raises, as an abort, passes through."""
        now = time.monotonic()
        if now - self._last >= self._every_s:
            self._last = now
            where = {"tile_id": self._tile_id, "done_rows": done, "total_rows": total}
            try:
                self._pcb(HEARTBEAT, prog=None, lvl="DEBUG_DETAIL", **where)
            except BaseException as error:
                self.raised = error
                raise
