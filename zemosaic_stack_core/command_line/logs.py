"""What the library logs while a command runs: to the terminal, and to a file where one was asked for."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from zemosaic_stack_core.command_line.foreign_warnings import counted_warnings
from zemosaic_stack_core.command_line.messages import say
from zemosaic_stack_core.errors import InvalidInputError

# Logger of the lines that a command says by itself.
_SAID = "zemosaic_stack_core.said"


class _SayHandler(logging.Handler):
    """Say what is logged, but for what was said already."""

    def emit(self, record: logging.LogRecord) -> None:
        """Say a record."""
        if record.name != _SAID:
            say(self.format(record))


@contextmanager
def logs(arguments: argparse.Namespace) -> Iterator[None]:
    """Log while a command runs; the logging of a program that called us is afterwards as it was.

    On the terminal are warnings; everything where the arguments have ``verbose``, errors alone where they have
    ``quiet``. Everything is appended to ``log_file``, where they have one.
    """
    is_quiet = getattr(arguments, "quiet", False)
    if is_quiet and arguments.verbose:
        raise InvalidInputError("--verbose does nothing with --quiet; expected one or the other")
    logger = logging.getLogger("zemosaic_stack_core")
    terminal: logging.Handler = _SayHandler()
    terminal.setLevel(logging.INFO if arguments.verbose else logging.WARNING)
    if is_quiet:
        terminal.setLevel(logging.ERROR)
    handlers = [terminal]
    if getattr(arguments, "log_file", None) is not None:
        handlers.append(_open_log(arguments.log_file))
    before = logger.level
    for handler in handlers:
        logger.addHandler(handler)
    wanted = logging.INFO if len(handlers) > 1 else terminal.level
    logger.setLevel(min(wanted, before or wanted))
    try:
        with counted_warnings():
            yield
    finally:
        logger.setLevel(before)
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()


def _open_log(path: str) -> logging.FileHandler:
    """Open a file to log to."""
    try:
        file = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise InvalidInputError(f"{path}: {error.strerror}; expected a log file to append to") from None
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    return file


def tell(arguments: argparse.Namespace, text: str) -> None:
    """Say a line unless told to be quiet; the log file gets it in any case."""
    logging.getLogger(_SAID).info(text)
    if not arguments.quiet:
        say(text)
