"""``zemosaic-worker plug-in``: put this stacker into a ZeMosaic folder, look at it, take it out."""

from __future__ import annotations

import argparse

from zemosaic_stack_core.command_line.exit_codes import ExitCode
from zemosaic_stack_core.command_line.messages import answer_either

_EPILOG = "exit code: 0 where it was done; with --check 0 where ours is in place and fits, 1 where not."


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Describe the command."""
    parser = subparsers.add_parser(
        "plug-in",
        help="put this stacker into a ZeMosaic folder, and take it out",
        description="Put thin files in the place of five of ZeMosaic's modules, whose own files are kept beside them. "
        "A folder that is not ZeMosaic's, or makes a call that this stacker can't take, is left alone.",
        epilog=_EPILOG,
    )
    parser.add_argument("folder", metavar="ZEMOSAIC_FOLDER", help="folder of ZeMosaic, with its zemosaic_worker.py")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="only say what is in place, and what the GPU does")
    what.add_argument("--remove", action="store_true", help="restore every file of ZeMosaic's")
    parser.add_argument("--json", action="store_true", help="machine-readable findings on standard output")


def run(arguments: argparse.Namespace) -> int:
    """Plug in, check or remove."""
    from zemosaic_stack_core.zemosaic import plug_files

    action = plug_files.look if arguments.check else plug_files.take_out if arguments.remove else plug_files.put_in
    found = action(arguments.folder)
    lines = found.lines()
    facts = {
        "folder": str(found.code),
        "is_package": found.is_package,
        "plugged": list(found.plugged),
        "is_in_place": found.is_in_place,
        "unknown_calls": list(found.unknown),
        "marker": dict(found.marker),
    }
    if arguments.check:
        from zemosaic_stack_core.gpu.health import gpu_health

        health = gpu_health()
        lines.append("GPU: usable, and gives the CPU's bits" if health.usable else f"GPU: not used: {health.reason}")
        facts["gpu_usable"] = health.usable
    answer_either(facts, lines, as_json=arguments.json)
    return ExitCode.FAILED if arguments.check and not found.is_in_place else ExitCode.DONE
