"""Measure what each addition to a plain stack costs, in nanoseconds per sample: rules, normalization, weights, maps.

The yardstick is ``kappa_sigma`` with a mean and nothing else, of the same frames in the same run. Every case is timed
in turn, several times over, and its least processor time counts. One thread; the frames (noise, outliers, trails) are
in memory.

Usage::

    python benchmarks/additions.py                   # 24 frames of 1.5 megapixels
    python benchmarks/additions.py --megapixels 0.02 --frames 8 --repeat 1
    python benchmarks/additions.py --json            # a JSON object per line instead of the table
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core import StackOptions, stack
from zemosaic_stack_core.options import COMBINATIONS, NORMALIZATIONS, REJECTIONS

PLAIN = "plain"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One way to stack: `options` of `StackOptions`, and other arguments of `stack`."""

    group: str
    name: str
    options: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one way takes."""

    group: str
    name: str
    # Processor time over the number of samples.
    ns_per_sample: float
    # More than the plain stack takes.
    added: float
    # Times that of the plain stack.
    ratio: float


def make_frames(frames: int, rows: int, columns: int) -> list[npt.NDArray[np.float32]]:
    """Return frames of sky 1000 and noise 20, with outliers, one in three with a trail."""
    random = np.random.default_rng(1)
    made = []
    for index in range(frames):
        frame = random.standard_normal((rows, columns), dtype=np.float32) * np.float32(20.0)
        frame += np.float32(1000.0)
        hit = random.integers(0, frame.size, frame.size // 2000)
        frame.reshape(-1)[hit] += np.float32(2000.0)
        if index % 3 == 0:
            column = np.arange(columns)
            row = (0.3 * column + 17 * index) % rows
            for width in range(-2, 3):
                frame[(row + width).astype(np.intp) % rows, column] += np.float32(600.0 / (1 + width * width))
        made.append(frame)
    return made


def cases(frames: list[npt.NDArray[np.float32]]) -> Iterator[Case]:
    """Yield the plain stack, then every addition to it."""
    shape = (len(frames), *frames[0].shape)
    plane = np.broadcast_to(np.linspace(0.5, 1.5, shape[2], dtype=np.float32), shape)
    masks = [np.zeros(shape[1:], np.bool_) for _ in frames]
    for mask in masks:
        mask[::50, ::40] = True
    yield Case(group=PLAIN, name="kappa_sigma, mean")
    for rule in REJECTIONS:
        if rule != "kappa_sigma":
            yield Case(group="rule", name=rule, options={"rejection": rule})
    for combine in COMBINATIONS[1:]:
        yield Case(group="combination", name=combine, options={"combine": combine})
    for normalization in NORMALIZATIONS[1:]:
        yield Case(group="normalization", name=normalization, options={"normalization": normalization})
    yield Case(group="weights", name="noise_variance", options={"weighting": "noise_variance"})
    yield Case(group="weights", name="per frame, given", arguments={"weights": np.linspace(0.5, 1.5, len(frames))})
    yield Case(group="weights", name="per sample, given", arguments={"weights": plane})
    yield Case(group="weights", name="radial", options={"radial_feather_fraction": 0.9})
    by_variance = {"weighting": "inverse_variance"}
    yield Case(group="weights", name="inverse_variance, given", options=by_variance, arguments={"variances": plane})
    yield Case(group="weights", name="inverse_variance, detector", options={**by_variance, "errors": "detector"})
    yield Case(group="masks", name="one sample in 2000", arguments={"masks": masks})
    for name in ("rejected_low", "weight_map", "variance", "all"):
        yield Case(group="maps", name="empirical variance" if name == "variance" else name, arguments={"maps": name})
    yield Case(group="maps", name="variance, given", arguments={"maps": "variance", "variances": plane})
    yield Case(group="maps", name="variance, detector", options={"errors": "detector"}, arguments={"maps": "variance"})
    yield Case(group="growth", name="radius 3, from 10 samples", options={"grow_radius": 3.0})
    yield Case(group="growth", name="radius 3, no cluster", options={"grow_radius": 3.0, "grow_min_size": 1_000_000})


def measure_additions(frames: int, rows: int, columns: int, repeat: int) -> list[Cost]:
    """Time every case `repeat` times, in turn."""
    images = make_frames(frames, rows, columns)
    listed = list(cases(images))
    best = [float("inf")] * len(listed)
    for _ in range(repeat):
        for index, case in enumerate(listed):
            began = time.process_time()
            stack(images, options=StackOptions(**case.options), workers=1, **case.arguments)
            best[index] = min(best[index], time.process_time() - began)
    unit = 1e9 / (frames * rows * columns)
    return [
        Cost(
            group=case.group,
            name=case.name,
            ns_per_sample=round(seconds * unit, 2),
            added=round((seconds - best[0]) * unit, 2),
            ratio=round(seconds / best[0], 2),
        )
        for case, seconds in zip(listed, best, strict=True)
    ]


def table(costs: list[Cost]) -> str:
    """Return the costs as a Markdown table."""
    lines = ["| | | ns per sample | added | times plain |", "|---|---|---|---|---|"]
    before = ""
    for cost in costs:
        group = "" if cost.group == before else cost.group
        lines.append(f"| {group} | {cost.name} | {cost.ns_per_sample:.1f} | {cost.added:+.1f} | {cost.ratio:.1f} |")
        before = cost.group
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--megapixels", type=float, default=1.5)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    rows = max(60, round((given.megapixels * 1e6 / 1.5) ** 0.5))
    costs = measure_additions(given.frames, rows, round(rows * 1.5), given.repeat)
    if given.json:
        for cost in costs:
            print(json.dumps(asdict(cost)))
        return
    print(f"{given.frames} frames of {rows} x {round(rows * 1.5)}, one thread\n")
    print(table(costs))


if __name__ == "__main__":
    main()
