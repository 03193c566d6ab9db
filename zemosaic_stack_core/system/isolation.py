"""Call a function where it can do no harm: a driver may hang, crash, or leave its process unusable."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

# What the line with the answer starts with: libraries print to standard output too.
_MARK = "zemosaic-answer:"
# Seconds that a killed process may take to go; one that hangs in the driver never does, and is left behind.
_GRACE_S = 5.0


class IsolatedCallError(Exception):
    """The call gave no answer: it took too long, crashed, or raised."""


def _function(target: str) -> Callable[..., Any]:
    """Return the function that ``"package.module:name"`` names."""
    module, name = target.split(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


def call_in_process(target: str, arguments: Sequence[Any], *, timeout_s: float) -> Any:
    """Return what the function `target`, ``"package.module:function"``, returns in a Python process of its own.

    JSON must be able to hold the arguments and the answer. The process is killed after `timeout_s` seconds. Raise
    `IsolatedCallError` with the reason in one line.
    """
    command = [sys.executable, "-m", __name__, target, json.dumps(list(arguments))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(  # noqa: S603 - our own interpreter and module
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        encoding="utf-8",
        errors="replace",
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # no console window flashes on Windows
    ) as process:
        try:
            output, errors = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            try:
                process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                process.returncode = -9  # it hangs in the driver and can't be killed: nobody is to wait for it
            raise IsolatedCallError(f"no answer within {timeout_s:g} s") from None
    for line in output.splitlines():
        if line.startswith(_MARK):
            return json.loads(line.removeprefix(_MARK))
    last_words = errors.strip().splitlines()[-1:] or ["it printed nothing"]
    raise IsolatedCallError(f"the check ended with exit code {process.returncode}: {last_words[0]}")


def call_in_thread(target: str, arguments: Sequence[Any], *, timeout_s: float) -> Any:
    """Call a function on a thread of this process that nobody waits for longer than the time-out.

    For a program whose interpreter can't be started again, and for one that uses the library in question already: a
    process of its own would then say nothing about the state of this one. Parameters, result and errors are those of
    `call_in_process`.
    """
    answers: list[Any] = []
    failures: list[BaseException] = []

    def call() -> None:
        try:
            answers.append(_function(target)(*arguments))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - handed to the caller below
            failures.append(error)

    thread = threading.Thread(target=call, name="zemosaic-isolated", daemon=True)
    thread.start()
    thread.join(timeout_s)
    if answers:
        return answers[0]
    if failures:
        error = failures[0]
        raise IsolatedCallError(f"{type(error).__name__}: {error}") from error
    raise IsolatedCallError(f"no answer within {timeout_s:g} s")


def _serve(target: str, arguments: str) -> None:
    """Call the function and write its answer to standard output."""
    answer = _function(target)(*json.loads(arguments))
    sys.stdout.write(f"\n{_MARK}{json.dumps(answer)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    _serve(*sys.argv[1:])
