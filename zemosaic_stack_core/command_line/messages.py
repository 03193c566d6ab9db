"""What a command says: the answer on standard output, everything else on standard error."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable
from typing import Any, TextIO


def answer(text: str = "") -> None:
    """Write a line of what was asked for to standard output."""
    _write(sys.stdout, text + "\n")


def finish_answer() -> None:
    """Send what was answered on its way; an error of whatever takes it is raised now."""
    if sys.stdout is not None:
        sys.stdout.flush()


def answer_json(value: dict[str, Any]) -> None:
    """Write a machine-readable answer to standard output; what is not finite becomes null."""
    answer(json.dumps(_json_value(value), indent=2, allow_nan=False))


def answer_either(value: dict[str, Any], lines: Iterable[str], *, as_json: bool) -> None:
    """Write an answer for programs or for people to standard output."""
    if as_json:
        answer_json(value)
    else:
        for line in lines:
            answer(line)


def say(text: str) -> None:
    """Write a line about the work to standard error."""
    if sys.stderr is not None:
        _write(sys.stderr, text + "\n")
        sys.stderr.flush()


def _write(stream: TextIO | None, text: str) -> None:
    """Write to a stream, if there is one: a program without a console has none, nor has one whose stream was closed."""
    if stream is None:
        return
    try:
        stream.write(text)
    except UnicodeEncodeError:  # a file's name in letters that the console, or the file behind it, does not have
        stream.write(text.encode("ascii", "backslashreplace").decode("ascii"))


def one_line(error: BaseException) -> str:
    """Return an error's message on one line, without the number of a system error; its class where it has none."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror if error.filename is None else f"{os.fsdecode(error.filename)}: {error.strerror}"
    return " ".join(text.split()) or type(error).__name__


def _json_value(value: Any) -> Any:
    """Return a value that JSON has."""
    if isinstance(value, dict):
        return {str(key): _json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json_value(item) for item in value]
    if hasattr(value, "item"):  # a number of NumPy's
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int)) else str(value)
