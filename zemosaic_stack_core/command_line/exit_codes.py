"""How a command ends: `ExitCode`."""

from __future__ import annotations

import enum

from zemosaic_stack_core.errors import FrameReadError, InvalidInputError, ZemosaicError


class ExitCode(enum.IntEnum):
    """Exit code of every command."""

    DONE = 0
    """All that was asked for was done; every file that was named as written is whole."""

    FAILED = 1
    """The work could not be done, or its answer is "no" (`replay`: the bits differ; `doctor`: no GPU is usable)."""

    BAD_INPUT = 2
    """The command, an option or a frame is not what it must be; nothing was written."""

    INTERRUPTED = 130
    """Ctrl-C. Files that were there before are as they were; nothing half-written is left."""


def exit_code_of(error: ZemosaicError | OSError | MemoryError) -> ExitCode:
    """Return the code of an error: the input's fault or the machine's."""
    is_inputs = isinstance(error, (InvalidInputError, FrameReadError))
    return ExitCode.BAD_INPUT if is_inputs else ExitCode.FAILED
