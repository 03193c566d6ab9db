"""``zemosaic-worker explain``: why a pixel of a master has the value it has."""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict
from typing import TYPE_CHECKING

from zemosaic_stack_core.command_line.arguments import whole
from zemosaic_stack_core.command_line.exit_codes import ExitCode
from zemosaic_stack_core.command_line.messages import answer_either
from zemosaic_stack_core.system.quantities import count_text

if TYPE_CHECKING:
    from zemosaic_stack_core.master.explain import LastLook, PixelChannel, SampleFate


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Describe the command."""
    parser = subparsers.add_parser(
        "explain",
        help="show every sample of a pixel of a master, and what became of it",
        description="Read the samples of one pixel again from the frames in the master's table, and show them in "
        "order: value as read and normalized, weight, kept or rejected, and how the master's value comes out of them.",
        epilog="exit code: 0 where the kernel gives the master's bits again, 1 where not.",
    )
    parser.add_argument("master", metavar="MASTER", help="a master that this program wrote")
    parser.add_argument("row", type=whole, metavar="ROW", help="row, from 0 (the first of the file; FITS y less 1)")
    parser.add_argument("column", type=whole, metavar="COL", help="column, from 0 (FITS x less 1)")
    parser.add_argument("--json", action="store_true", help="machine-readable on standard output")


def run(arguments: argparse.Namespace) -> int:
    """Explain every channel of the pixel."""
    from zemosaic_stack_core.master.explain import explain_pixel

    channels = explain_pixel(arguments.master, arguments.row, arguments.column)
    facts = [{**asdict(channel), "bounds": channel.bounds, "is_same": channel.is_same} for channel in channels]
    lines = [line for channel in channels for line in _describe_channel(channel, is_only=len(channels) == 1)]
    answer_either({"channels": facts}, lines, as_json=arguments.json)
    return ExitCode.DONE if all(channel.is_same for channel in channels) else ExitCode.FAILED


def _describe_channel(channel: PixelChannel, *, is_only: bool) -> list[str]:
    """Return a channel's samples as a table, and how its value comes out."""
    from zemosaic_stack_core.stacking.adviser import rule_text

    options = channel.options
    where = f"row {channel.row}, column {channel.column}" + ("" if is_only else f", channel {channel.channel}")
    how = (
        f"{rule_text(options)}, {options.combine}; normalization {options.normalization}, weighting {options.weighting}"
    )
    width = max([5, *(len(sample.name) for sample in channel.samples)])
    look = channel.last_look
    lines = [
        f"{where}: {how}",
        f"  {'frame':<{width}}  {'as read':>12}  {'normalized':>12}  {'sigma':>7}  {'weight':>9}  fate",
        *(f"  {_describe_sample(sample, width, look)}" for sample in channel.samples),
    ]
    if look is not None:
        samples = count_text(look.count, "sample")
        lines.append(
            f"  last iteration: {samples}, median {look.median:.9g}, standard deviation {look.deviation:.6g} (sigma)"
        )
    kept = channel.kept
    if kept and options.rejection != "none":
        lines.append(f"  kept: {len(kept)} samples from {kept[0].value:.9g} to {kept[-1].value:.9g}")
    lines.append(f"  value: {_describe_value(channel)}")
    same = "the same bits" if channel.is_same else "NOT the same bits"
    lines.append(f"  the master says {channel.stored:.9g}: {same}")
    return lines


def _describe_sample(sample: SampleFate, width: int, look: LastLook | None) -> str:
    """Return a line of the table."""
    fate = sample.fate + (f" (iteration {sample.iteration})" if sample.iteration else "")
    fate += " (a cluster near by grew)" if sample.is_grown else ""
    value = "" if math.isnan(sample.value) else f"{sample.value:.9g}"
    distance = math.nan if look is None else look.distance(sample.value)
    sigma = "" if math.isnan(distance) else f"{distance:+.2f}"
    return f"{sample.name:<{width}}  {sample.raw:>12.9g}  {value:>12}  {sigma:>7}  {sample.weight:>9.6g}  {fate}"


def _describe_value(channel: PixelChannel) -> str:
    """Return how the value comes out of the kept samples."""
    kept = channel.kept
    if not kept:
        return "no sample, so there is no value (NaN)"
    options = channel.options
    error = "" if math.isnan(channel.variance) else f" +- {math.sqrt(channel.variance):.3g}"
    is_even = all(sample.weight == 1.0 for sample in channel.samples if sample.fate != "missing")
    if options.combine != "mean":
        what = "kept samples" if is_even else "kept samples times their weights"
        return f"{options.combine} of {len(kept)} {what} = {channel.value:.9g}{error}"
    if is_even:
        return f"sum {math.fsum(s.value for s in kept):.9g} / {len(kept)} samples = {channel.value:.9g}{error}"
    total = math.fsum(s.weight * s.value for s in kept)
    return (
        f"sum of weight times value {total:.9g} / sum of weights {channel.weight_sum:.9g} = {channel.value:.9g}{error}"
    )
