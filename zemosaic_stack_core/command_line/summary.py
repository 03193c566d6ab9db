"""What a stack gave, for people and for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zemosaic_stack_core.command_line.outputs import Outputs
from zemosaic_stack_core.options import StackOptions
from zemosaic_stack_core.stacking.adviser import Advice, rule_text
from zemosaic_stack_core.stacking.result import FrameRecord, RunFacts, StackResult, count_empty
from zemosaic_stack_core.system.quantities import count_text, percent_of, percent_text, size_text, time_text


@dataclass(frozen=True, kw_only=True)
class FrameSummary:
    """What happened to a frame; every list has a value per channel."""

    name: str
    weight: tuple[float, ...]
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    rejected_low_percent: list[float]
    rejected_high_percent: list[float]
    missing: tuple[int, ...]
    sky: tuple[float, ...] | None
    noise: tuple[float, ...] | None
    fwhm: tuple[float, ...] | None
    note: str


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a stack gave; its fields are those that ``stack --json`` prints."""

    master: Path
    picture: Path | None
    tiff: Path | None
    report: Path | None
    shape: tuple[int, ...]
    n_frames: int
    backend: str
    # Wall-clock time of the whole command, but for the start of Python.
    seconds: float
    samples: int
    rejected_low_percent: float
    rejected_high_percent: float
    missing_percent: float
    empty_pixels: int
    reference: int | None
    options: StackOptions
    # What was chosen for the frames, and why.
    chosen: tuple[str, ...]
    advice: str
    problem: str
    details: RunFacts
    frames: list[FrameSummary]


def summarize(
    result: StackResult, advice: Advice, outputs: Outputs, *, chosen: tuple[str, ...], seconds: float
) -> Summary:
    """Return the summary of a stack; `seconds` is what the whole command took."""
    pixels = result.image.size // result.channels
    given = result.image.size * len(result.frames)
    low, high, missing = (
        sum(sum(getattr(frame, name)) for frame in result.frames)
        for name in ("rejected_low", "rejected_high", "missing")
    )
    return Summary(
        master=outputs.master,
        picture=outputs.picture,
        tiff=outputs.tiff,
        report=outputs.report,
        shape=result.image.shape,
        n_frames=len(result.frames),
        backend=result.backend,
        seconds=seconds,
        samples=given,
        rejected_low_percent=percent_of(low, given - missing),
        rejected_high_percent=percent_of(high, given - missing),
        missing_percent=percent_of(missing, given),
        empty_pixels=count_empty(result.image),
        reference=result.reference,
        options=result.options,
        chosen=chosen,
        advice=advice.line,
        problem=advice.problem,
        details=result.facts,
        frames=[_summarize_frame(frame, pixels) for frame in result.frames],
    )


def _summarize_frame(frame: FrameRecord, pixels: int) -> FrameSummary:
    """Return what happened to a frame of so many pixels."""
    present = [pixels - gone for gone in frame.missing]
    same: dict[str, Any] = {
        name: getattr(frame, name)
        for name in ("name", "weight", "scale", "offset", "missing", "sky", "noise", "fwhm", "note")
    }
    return FrameSummary(
        rejected_low_percent=list(map(percent_of, frame.rejected_low, present)),
        rejected_high_percent=list(map(percent_of, frame.rejected_high, present)),
        **same,
    )


def describe_summary(summary: Summary, names: Sequence[str]) -> list[str]:
    """Return a summary in a few lines for people, who know the frames by these names."""
    options, facts = summary.options, summary.details
    where = f"{summary.backend}, {facts.workers} threads" if facts.workers > 1 else summary.backend
    shape = " x ".join(map(str, summary.shape))
    low, high = percent_text(summary.rejected_low_percent), percent_text(summary.rejected_high_percent)
    lines = [
        f"{summary.master}: {count_text(summary.n_frames, 'frame')} of {shape} "
        f"({size_text(4 * summary.samples)}) in {time_text(summary.seconds)}, {where}",
        f"  {rule_text(options)}, {options.combine}: rejected {low} low, {high} high; "
        f"{percent_text(summary.missing_percent)} missing; {summary.empty_pixels} pixels without a value",
    ]
    if options.normalization != "none" and summary.reference is not None:
        lines.append(f"  normalized ({options.normalization}) to {names[summary.reference]}")
    lines += [f"  {name}: {frame.note}" for name, frame in zip(names, summary.frames, strict=True) if frame.note]
    if facts.fallback_reason and facts.gpu_attempts:
        lines.append(f"  made on the CPU after the GPU failed: {facts.fallback_reason}")
    if summary.advice and not summary.problem:  # a problem was told before the work
        lines.append(f"  {summary.advice}")
    if summary.picture:
        lines.append(f"{summary.picture}: a picture of it")
    if summary.tiff:
        lines.append(f"{summary.tiff}: a picture of 16 bits, for other programs")
    if summary.report:
        lines.append(f"{summary.report}: a page to judge the frames by")
    return lines
