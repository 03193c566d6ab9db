"""``zemosaic-worker replay``: make a master again from its own file, and compare every bit."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from zemosaic_stack_core.command_line.arguments import parse_size, positive
from zemosaic_stack_core.command_line.exit_codes import ExitCode
from zemosaic_stack_core.command_line.messages import answer_either
from zemosaic_stack_core.command_line.progress import open_display

if TYPE_CHECKING:
    from zemosaic_stack_core.master.replay import Replay


# Differences that are listed.
_MOST_LINES = 20


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Describe the command."""
    parser = subparsers.add_parser(
        "replay",
        help="make a master again from its own header and table, and compare every bit",
        description="Stack the frames in a master's table again, with the options in its header and the scales, "
        "offsets and weights in its table, and compare image, maps and counts bit for bit. Writes nothing.",
        epilog="exit code: 0 where all bits are the same, 1 where not.",
    )
    parser.add_argument("master", metavar="MASTER", help="a master that this program wrote")
    parser.add_argument(
        "--backend", choices=("cpu", "gpu"), default="cpu", help="where to do it; the bits must not tell (default: cpu)"
    )
    parser.add_argument("--workers", type=positive, metavar="N", help="threads (default: the cores)")
    parser.add_argument(
        "--memory",
        type=parse_size,
        metavar="SIZE",
        help="memory for the working set, as 1GB (default: a quarter of what is free)",
    )
    parser.add_argument("--json", action="store_true", help="machine-readable on standard output")


def run(arguments: argparse.Namespace) -> int:
    """Replay and compare."""
    from zemosaic_stack_core.backends import resolve_backend
    from zemosaic_stack_core.master.replay import replay_master
    from zemosaic_stack_core.stacking.limits import Limits

    with open_display() as display:
        replay = replay_master(
            arguments.master,
            backend=resolve_backend(arguments.backend),
            limits=Limits(workers=arguments.workers, memory_limit=arguments.memory),
            progress=display.step("replaying"),
        )
    facts = {
        "master": arguments.master,
        "is_same": replay.is_same,
        "differences": list(replay.differences),
        "compared": list(replay.compared),
        "backend": replay.result.backend,
        "is_verified": replay.is_verified,
    }
    answer_either(facts, _describe_replay(arguments.master, replay), as_json=arguments.json)
    return ExitCode.DONE if replay.is_same else ExitCode.FAILED


def _describe_replay(master: str, replay: Replay) -> list[str]:
    """Return what came out, in lines for people."""
    if replay.is_same:
        return [f"{master}: the same bits, on {replay.result.backend}: {', '.join(replay.compared)}"]
    lines = [f"{master}: DIFFERENT, on {replay.result.backend}:"]
    lines += [f"  {line}" for line in replay.differences[:_MOST_LINES]]
    if len(replay.differences) > _MOST_LINES:
        lines.append(f"  and {len(replay.differences) - _MOST_LINES} more")
    if not replay.is_verified:
        lines.append("  a frame may have changed and kept its size: the master has no SHA-256 of them (stack --sha256)")
    return lines
