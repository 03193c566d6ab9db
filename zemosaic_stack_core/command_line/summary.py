"""What a stack gave, for people and for programs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from zemosaic_stack_core.options import StackOptions
from zemosaic_stack_core.stacking.adviser import Advice, rule_text
from zemosaic_stack_core.stacking.result import FrameRecord, StackResult
from zemosaic_stack_core.system.quantities import count_text, percent_of, percent_text, size_text, time_text


def summarize(
    result: StackResult, *, seconds: float, master: Path, picture: Path | None, advice: Advice | None = None
) -> dict[str, Any]:
    """Return the summary of a stack: what ``--json`` prints.

    Parameters
    ----------
    result : StackResult
        The stack.
    seconds : float
        Wall-clock time of the whole command, but for the start of Python.
    master, picture : Path
        Files written.
    advice : Advice, optional
        What the adviser said of the rule.
    """
    channels = 1 if result.image.ndim == 2 else result.image.shape[2]
    pixels = result.image.size // channels
    given = pixels * channels * len(result.frames)
    low, high, missing = (
        sum(sum(getattr(frame, name)) for frame in result.frames)
        for name in ("rejected_low", "rejected_high", "missing")
    )
    present = given - missing
    return {
        "master": str(master),
        "picture": None if picture is None else str(picture),
        "shape": list(result.image.shape),
        "n_frames": len(result.frames),
        "backend": result.backend,
        "seconds": seconds,
        "samples": given,
        "rejected_low_percent": percent_of(low, present),
        "rejected_high_percent": percent_of(high, present),
        "missing_percent": percent_of(missing, given),
        "empty_pixels": int(np.count_nonzero(~np.isfinite(result.image))),
        "reference": result.reference,
        "options": asdict(result.options),
        "advice": None if advice is None else advice.line,
        "problem": "" if advice is None else advice.problem,
        "details": asdict(result.facts),
        "frames": [_frame_summary(frame, pixels) for frame in result.frames],
    }


def _frame_summary(frame: FrameRecord, pixels: int) -> dict[str, Any]:
    """Return what happened to a frame."""
    present = [pixels - gone for gone in frame.missing]
    return {
        "name": frame.name,
        "weight": frame.weight,
        "scale": frame.scale,
        "offset": frame.offset,
        "rejected_low_percent": list(map(percent_of, frame.rejected_low, present)),
        "rejected_high_percent": list(map(percent_of, frame.rejected_high, present)),
        "missing": frame.missing,
        "sky": frame.sky,
        "noise": frame.noise,
        "fwhm": frame.fwhm,
        "note": frame.note,
    }


def describe_result(summary: dict[str, Any]) -> list[str]:
    """Return a summary in a few lines for people."""
    options = StackOptions(**summary["options"])
    details = summary["details"]
    workers = details.get("workers", 1)
    where = f"{summary['backend']}, {workers} processes" if workers > 1 else summary["backend"]
    shape = " x ".join(map(str, summary["shape"]))
    low, high, missing = (
        percent_text(summary[f"{name}_percent"]) for name in ("rejected_low", "rejected_high", "missing")
    )
    lines = [
        f"{summary['master']}: {count_text(summary['n_frames'], 'frame')} of {shape} "
        f"({size_text(4 * summary['samples'])}) in {time_text(summary['seconds'])}, {where}",
        f"  {rule_text(options)}, {options.combine}: rejected {low} low, {high} high; {missing} missing; "
        f"{summary['empty_pixels']} pixels without a value",
    ]
    if options.normalization != "none" and summary["reference"] is not None:
        name = summary["frames"][summary["reference"]]["name"]
        lines.append(f"  normalized ({options.normalization}) to {name}")
    lines += [f"  {frame['name']}: {frame['note']}" for frame in summary["frames"] if frame["note"]]
    if details.get("fallback_reason") and details.get("gpu_attempts"):
        lines.append(f"  made on the CPU after the GPU failed: {details['fallback_reason']}")
    if summary["advice"] and not summary["problem"]:  # a problem was told before the work
        lines.append(f"  {summary['advice']}")
    if summary["picture"]:
        lines.append(f"{summary['picture']}: a picture of it")
    return lines
