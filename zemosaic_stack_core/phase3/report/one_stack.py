"""The page of a single stack, as a night of one tile has it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from zemosaic_stack_core.frames.group import FrameSource
from zemosaic_stack_core.phase3.frame_quality import frame_qualities, look_at_frames, stack_record
from zemosaic_stack_core.phase3.night import GpuUse, Night, RunReport
from zemosaic_stack_core.phase3.previews import PicturePlan, tile_pictures
from zemosaic_stack_core.phase3.report.document import report_json
from zemosaic_stack_core.phase3.report.page import write_page
from zemosaic_stack_core.phase3.run_plan import TileSpec
from zemosaic_stack_core.phase3.tile import StackSettings
from zemosaic_stack_core.phase3.tile_record import DroppedFrame, TileOutcome
from zemosaic_stack_core.prepare.report import group_facts

if TYPE_CHECKING:
    from zemosaic_stack_core.prepare.records import PreparedGroup
    from zemosaic_stack_core.stacking.result import StackResult


@dataclass(frozen=True, kw_only=True)
class OneStack:
    """What the page of a stack is made of."""

    master: Path
    # With the maps that are drawn.
    result: StackResult
    # Those of the frames that were stacked, in order.
    sources: Sequence[FrameSource]
    maps: tuple[str, ...]
    # Of the command so far.
    seconds: float
    prepared: PreparedGroup | None = None
    # Options that were chosen for the frames, and why.
    chosen: Sequence[str] = ()
    # Frames that were left out on request.
    excluded: tuple[Path, ...] = ()
    # Threads that look at the frames; None for as many as there are cores.
    workers: int | None = None


def write_stack_page(path: Path, stack: OneStack, *, overwrite: bool = False) -> Path:
    """Write the page of a stack, whole or not at all; raise OutputError where the system refuses."""
    result, prepared, master = stack.result, stack.prepared, stack.master.absolute()
    raw = {} if prepared is None else {str(frame.aligned): frame.name for frame in prepared.kept}
    sources = {raw.get(source.name, source.name): source for source in stack.sources}
    names = list(sources) if prepared is None else [frame.name for frame in prepared.frames]
    dropped = () if prepared is None else prepared.dropped
    lost = tuple(DroppedFrame(name=frame.name, reason=frame.dropped) for frame in dropped)
    plan = PicturePlan.of_night(1, len(names))
    known = frame_qualities(result, lost, prepared, names)
    frames, pictures = look_at_frames(known, sources, plan, workers=stack.workers)
    spec = TileSpec(
        tile_id=1,
        name=master.name,
        frames=tuple(map(Path, names)),
        excluded=tuple(os.fspath(frame.absolute()) for frame in stack.excluded),
    )
    record = replace(
        stack_record(spec, TileOutcome.DONE_GPU if result.facts.used_gpu else TileOutcome.DONE_CPU, result, frames),
        file=master.name,
        frames_given=len(result.frames) + len(lost),
        dropped=lost,
        excluded=spec.excluded,
        gpu_attempts=result.facts.gpu_attempts,
        seconds=stack.seconds,
        stack_seconds=result.facts.seconds,
        details={"chosen": list(stack.chosen)} | ({} if prepared is None else {"prepared": group_facts(prepared)}),
    )
    end = datetime.now(UTC)
    facts = result.facts
    gpu = GpuUse(
        device=facts.device if facts.used_gpu else "",
        hard_disabled=not facts.used_gpu,
        reason=facts.fallback_reason,
        attempts=facts.gpu_attempts,
        gpu_tiles=int(facts.used_gpu),
        cpu_tiles=int(not facts.used_gpu),
    )
    report = RunReport(
        records=(record,),
        interrupted=False,
        stopped="",
        started=(end - timedelta(seconds=stack.seconds)).isoformat(timespec="seconds"),
        finished=end.isoformat(timespec="seconds"),
        seconds=stack.seconds,
        output=master,
        gpu=gpu if facts.gpu_attempts else None,
    )
    settings = StackSettings(options=result.options, maps=stack.maps)
    backend = "auto" if facts.gpu_attempts else "cpu"
    values = report_json(Night(tiles=[spec], output=master, settings=settings, backend=backend), report, {})
    values |= {"settings": {"maps": list(stack.maps)}, "elsewhere": f"the table FRAMES of {master.name}"}
    return write_page(path, values, {1: tile_pictures(result, plan, pictures)}, overwrite=overwrite)
