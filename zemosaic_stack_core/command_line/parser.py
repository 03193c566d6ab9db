"""The parser of all commands: what is wrong with a command is one line, with what was probably meant."""

from __future__ import annotations

import argparse
import difflib
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from zemosaic_stack_core.errors import ZemosaicError

_MOST_SUGGESTIONS = 3
# A number, and no option; to argparse before Python 3.14 -1e5 is one.
_NEGATIVE = re.compile(r"-(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$")

# Columns of help, however wide the terminal is: longer lines are hard to read.
_COLUMNS = 80


class UsageError(ZemosaicError):
    """The arguments are not those of a command; the message says all of it."""


class _HelpFormatter(argparse.HelpFormatter):
    """Help in at most 80 columns; what has a default that the text does not say gets it said."""

    def __init__(self, prog: str, **how: Any) -> None:
        how["width"] = min(shutil.get_terminal_size().columns, _COLUMNS) - 2
        super().__init__(prog, **how)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help or ""
        says_nothing = action.default is None or action.default is argparse.SUPPRESS or "(default: " in text
        return text if says_nothing or action.nargs == 0 else f"{text} (default: %(default)s)"


class CommandParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, and raised as `UsageError`.

    argparse itself prints the usage first: 20 lines for a command with an option per field, of which the last counts.
    """

    def __init__(self, **how: Any) -> None:
        super().__init__(**{"formatter_class": _HelpFormatter, "allow_abbrev": False, **how})
        self._negative_number_matcher = _NEGATIVE

    def parse_known_args(  # type: ignore[override]  # argparse declares overloads that are of no use here
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Parse, and take what is unknown for an error of this parser: its options are the ones that may be meant."""
        for word in map(str, sys.argv[1:] if args is None else args):  # what is misspelt is not what is lacking
            if word == "--" or (self._subparsers is not None and not word.startswith("-")):
                break
            if re.match(r"--\w", word) and word.partition("=")[0] not in self._option_string_actions:
                self.error(f"unrecognized arguments: {word}")
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """Raise one line that says what is wrong, what was probably meant, and where help is."""
        raise UsageError(f"{self.prog}: {message}{self._suggestion(message)}; see {self.prog} --help")

    def _suggestion(self, message: str) -> str:
        """Return what was probably meant, empty where nothing is similar."""
        choice = re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message)
        if choice is not None:
            return _did_you_mean(choice[1], re.findall(r"[\w-]+", choice[2]))
        option = re.search(r"unrecognized arguments: (?:.* )?(--[\w-]+)", message)
        if option is not None:
            return _did_you_mean(option[1], self._option_string_actions)
        return ""


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the question with the known words that begin with `word` or are like it, empty without any."""
    known = list(known)
    longer = [name for name in known if len(word) > len("--") and name.startswith(word)]
    inner = [name for name in known if len(word) > len("min") and word in name]
    similar = (longer or difflib.get_close_matches(word, known, cutoff=0.7) or inner)[:_MOST_SUGGESTIONS]
    return f" (did you mean {' or '.join(similar)}?)" if similar else ""
