"""The command line ``zemosaic-worker``: one module per command, each with `add_parser` and `run`.

``add_parser(subparsers)`` describes a command with argparse; ``run(arguments) -> int`` does it and returns an
`ExitCode`. Whatever a command needs beyond options and argparse it imports when it runs, so that ``--help`` is quick.
An error of this library ends a command with one line on standard error; anything else is a bug and shows itself.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from zemosaic_stack_core.command_line.exit_codes import ExitCode, exit_code_of
from zemosaic_stack_core.command_line.logs import logs
from zemosaic_stack_core.command_line.messages import finish_answer, one_line, say
from zemosaic_stack_core.command_line.parser import CommandParser
from zemosaic_stack_core.command_line.termination import term_is_interrupt
from zemosaic_stack_core.errors import ZemosaicError

__all__ = ["COMMANDS", "ExitCode", "build_parser", "main"]

# Modules of this package that are commands, in the order in which ``--help`` lists them.
COMMANDS = ("stack", "run", "demo", "explain", "replay", "doctor", "plug-in")

PROGRAM = "zemosaic-worker"
_DESCRIPTION = "Combine aligned astronomical frames into master images, the same bits on CPU and GPU."
_EPILOG = "zemosaic-worker COMMAND --help tells all about a command. Start with: zemosaic-worker demo demo_out"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    from zemosaic_stack_core import __version__

    parser = CommandParser(prog=PROGRAM, description=_DESCRIPTION, epilog=_EPILOG, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    verbose: dict[str, Any] = {"action": "store_true", "help": "say more: what the library logs"}
    parser.add_argument("-v", "--verbose", **verbose)
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        _module(name).add_parser(subparsers)
        # Before the command or behind it; not given behind it, it must not undo what was given before.
        subparsers.choices[name].add_argument("-v", "--verbose", default=argparse.SUPPRESS, **verbose)
    return parser


def _module(command: str) -> Any:
    """Return the module of a command."""
    return importlib.import_module(f".{command.replace('-', '_')}", __name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command with these arguments, by default those of the process, and return an `ExitCode`."""
    try:
        arguments = build_parser().parse_args(argv)
    except SystemExit as end:  # argparse has said why
        return int(end.code or 0)
    command = _module(arguments.command)
    try:
        with logs(arguments), term_is_interrupt():
            code = int(command.run(arguments))
        finish_answer()
    except BrokenPipeError:  # whoever read our answer has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.FAILED
    except (ZemosaicError, OSError, MemoryError) as error:
        say(f"{PROGRAM} {arguments.command}: {one_line(error)}")
        return exit_code_of(error)
    except KeyboardInterrupt:
        say(f"{PROGRAM} {arguments.command}: interrupted; nothing half-written is left")
        return ExitCode.INTERRUPTED
    return code
