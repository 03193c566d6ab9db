"""Lose the device on purpose, in this process: ``python -m benchmarks.gpu_lost`` prints what came of it, as JSON."""

from __future__ import annotations

import json
import os
import sys

from zemosaic_stack_core.backends import CupyBackend, cupy_backend

from .gpu_checks import lose_device

_TO_NOWHERE = 'extern "C" __global__ void f(int* nowhere) { *nowhere = 1; }'


def _main() -> None:
    """Write to an address that is none, as a faulty driver or a card that falls off the bus would fail."""
    backend: CupyBackend = cupy_backend()

    def strike() -> None:
        kernel = backend.cupy.RawKernel(_TO_NOWHERE, "f")
        kernel((1,), (1,), (backend.cupy.uintp(8),))

    print(json.dumps(lose_device(backend, strike)[:3]), flush=True)
    sys.stderr.flush()
    os._exit(0)  # what is left of CuPy would complain about the device


if __name__ == "__main__":
    _main()
