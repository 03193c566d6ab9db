"""What was brought: lights and calibration frames told apart, their common pattern, the libraries that are needed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.prepare.canvas.canvas import Canvas
from zemosaic_stack_core.prepare.headers.inventory import RawFrame, common_shape, inspect_frame, require_pattern
from zemosaic_stack_core.prepare.options import PrepareOptions
from zemosaic_stack_core.prepare.tasks import aligned_bytes


def plan_preparation(paths: Sequence[str | os.PathLike[str]], options: PrepareOptions) -> dict[str, Any]:
    """Return what the headers say before any work: numbers of frames, size, pattern, the least disk that it will take.

    Raises
    ------
    InvalidInputError, FrameReadError
        As `prepare_frames`, as far as headers show it.
    """
    require_libraries(options)
    lights, calibration = sort_frames(paths, options)
    rows, columns = common_shape([*lights, *calibration])
    pattern = shared_pattern(lights, options)
    is_color = lights[0].channels != 1 or pattern is not None
    canvas = Canvas(rows=rows, columns=columns, x=0, y=0)
    return {
        "lights": len(lights),
        **{kind: sum(frame.kind == kind[:4] for frame in calibration) for kind in ("darks", "flats", "biases")},
        "shape": f"{rows} x {columns}",
        "pattern": pattern or "none",
        "with_wcs": sum(frame.wcs_header is not None for frame in lights),
        "align": options.align,
        "least_disk": f"{len(lights) * aligned_bytes(canvas, is_color=is_color) / 1e6:.0f} MB",
    }


def require_libraries(options: PrepareOptions) -> None:
    """Raise one line that says what to install."""
    needed = ["scipy", *(["sep"] if options.align != "none" else []),
              *(["drizzle"] if options.cfa == "drizzle" else [])]  # fmt: skip
    lacking = [name for name in needed if not is_there(name)]
    if lacking:
        raise InvalidInputError(
            f"preparing raw frames needs {', '.join(lacking)}, not installed; "
            "expected: pip install 'zemosaic-stack-core[prepare]', or --align none for frames that are aligned already"
        )


def is_there(name: str) -> bool:
    """Say whether a library can be imported."""
    try:
        return find_spec(name) is not None
    except ValueError:  # something else stands in its place
        return False


def sort_frames(
    paths: Sequence[str | os.PathLike[str]], options: PrepareOptions
) -> tuple[list[RawFrame], list[RawFrame]]:
    """Read the headers and tell lights from calibration frames."""
    given = [inspect_frame(path) for path in paths]
    asked = [
        replace(inspect_frame(path), kind=kind)
        for kind, named in (("dark", options.darks), ("flat", options.flats), ("bias", options.biases))
        for path in named
    ]
    lights = [frame for frame in given if frame.kind == "light"]
    if not lights:
        raise InvalidInputError(f"{len(given)} files, none of them a light; expected at least one")
    return lights, [*[frame for frame in given if frame.kind != "light"], *asked]


def counts_line(lights: Sequence[RawFrame], calibration: Sequence[RawFrame]) -> str:
    """Return how many frames of each kind there are."""
    kinds = {kind: sum(frame.kind == kind for frame in calibration) for kind in ("dark", "flat", "bias")}
    names = {"dark": "darks", "flat": "flats", "bias": "biases"}
    return ", ".join([f"{len(lights)} lights", *(f"{count} {names[kind]}" for kind, count in kinds.items() if count)])


def shared_pattern(lights: Sequence[RawFrame], options: PrepareOptions) -> str | None:
    """Return the Bayer pattern that all lights share."""
    asked = options.bayer_pattern
    if asked is not None:
        return None if asked == "none" or lights[0].channels != 1 else asked
    patterns = {require_pattern(frame): frame.name for frame in lights}
    if len(patterns) > 1:
        (first, one), (second, other) = list(patterns.items())[:2]
        raise InvalidInputError(
            f"{one} has the Bayer pattern {first} and {other} {second}; expected one, or --bayer-pattern"
        )
    pattern = next(iter(patterns))
    if options.cfa == "drizzle" and pattern is None:
        raise InvalidInputError(f"{lights[0].name}: no Bayer pattern; expected CFA frames for --cfa drizzle")
    return pattern
