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

from zemosaic_stack_core.command_line.arguments import MESSAGES, flags_of, spell_options
from zemosaic_stack_core.command_line.exit_codes import ExitCode, exit_code_of
from zemosaic_stack_core.command_line.logs import logs
from zemosaic_stack_core.command_line.messages import answer_json, finish_answer, one_line, say
from zemosaic_stack_core.command_line.parser import CommandParser, UsageError
from zemosaic_stack_core.command_line.termination import term_is_interrupt
from zemosaic_stack_core.errors import ZemosaicError

__all__ = ["COMMANDS", "ExitCode", "build_parser", "main"]

# Modules of this package that are commands, in the order in which ``--help`` lists them.
COMMANDS = ("stack", "run", "demo", "explain", "replay", "doctor", "plug-in")

PROGRAM = "zemosaic-worker"
_DESCRIPTION = "Combine astronomical frames, aligned or raw, into master images, the same bits on CPU and GPU."
_EPILOG = "zemosaic-worker COMMAND --help tells all about a command. Start with: zemosaic-worker demo demo_out"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    from zemosaic_stack_core import __version__

    parser = CommandParser(prog=PROGRAM, description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}", help="show the version")
    verbose: dict[str, Any] = {"action": "store_true", "help": "say more: what the library logs"}
    parser.add_argument("-v", "--verbose", **verbose)
    subparsers = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        _module(name).add_parser(subparsers)
        child = subparsers.choices[name]
        child.set_defaults(flags=flags_of(child))
        messages = next((group for group in child._action_groups if group.title == MESSAGES), child)
        # Before the command or behind it; not given behind it, it must not undo what was given before.
        messages.add_argument("-v", "--verbose", default=argparse.SUPPRESS, **verbose)
    return parser


def _module(command: str) -> Any:
    """Return the module of a command."""
    return importlib.import_module(f".{command.replace('-', '_')}", __name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command with these arguments, by default those of the process, and return an `ExitCode`."""
    words = sys.argv[1:] if argv is None else argv
    parser = build_parser()
    if "_ARGCOMPLETE" in os.environ:  # a shell asks what may come next
        import argcomplete

        argcomplete.autocomplete(parser)
    try:
        arguments = parser.parse_args(words)
    except SystemExit as end:  # help, or the version
        return int(end.code or 0)
    except UsageError as error:
        return _fail(str(error), ExitCode.BAD_INPUT, as_json="--json" in words)
    command = _module(arguments.command)
    as_json = bool(getattr(arguments, "json", False))
    try:
        with logs(arguments), term_is_interrupt():
            code = int(command.run(arguments))
        finish_answer()
    except BrokenPipeError:  # whoever read our answer has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.FAILED
    except (ZemosaicError, OSError, MemoryError) as error:
        message = spell_options(one_line(error), arguments.flags)
        return _fail(f"{PROGRAM} {arguments.command}: {message}", exit_code_of(error), as_json=as_json)
    except KeyboardInterrupt:
        line = f"{PROGRAM} {arguments.command}: interrupted; nothing half-written is left"
        return _fail(line, ExitCode.INTERRUPTED, as_json=as_json)
    return code


def _fail(line: str, code: ExitCode, *, as_json: bool) -> ExitCode:
    """Say what was wrong, on standard output too where that is for programs."""
    say(line)
    if as_json:
        answer_json({"error": line, "exit_code": int(code)})
    return code
