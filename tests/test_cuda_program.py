"""Launches of a program on a GPU: how many threads, and what the compiler says of it."""

from __future__ import annotations

import numpy as np
import pytest

from conftest import make_case
from zemosaic_stack_core.backends.cuda import SCRATCH_BYTES, CudaProgram, cupy_backend
from zemosaic_stack_core.backends.cuda_source import scratch_bytes
from zemosaic_stack_core.backends.inputs import Layout
from zemosaic_stack_core.backends.tracing import Program
from zemosaic_stack_core.kernel import stack_chunk
from zemosaic_stack_core.kernel.samples import Samples
from zemosaic_stack_core.options import StackOptions


def launch(pixels, *, frames=32, columns=2, block=64, resident=28 * 576):
    """Return the threads of a launch on a card with 28 multiprocessors."""
    program = CudaProgram(Program(Layout(), columns=columns), None, block, resident, 28 * 1536)
    return program.threads(frames, pixels)


@pytest.mark.parametrize(
    ("pixels", "threads"),
    [
        (1, 64),
        (65, 128),
        (28 * 576, 28 * 576),
        (28 * 576 + 1, 8128),  # two pixels a thread, and not one for most and two for one
        (100 * 28 * 576, 28 * 576),
    ],
)
def test_each_thread_has_as_many_pixels(pixels, threads):
    assert launch(pixels) == threads


@pytest.mark.parametrize("frames", [2, 33, 400, 3000, 1_000_000])
@pytest.mark.parametrize("pixels", [1, 1000, 1 << 21])
def test_threads_keep_their_samples_in_the_memory_that_is_planned(frames, pixels):
    threads = launch(pixels, frames=frames, resident=132 * 2048)
    assert threads % 64 == 0
    assert threads * scratch_bytes(frames, 2) <= max(SCRATCH_BYTES, 64 * scratch_bytes(frames, 2))
    assert threads >= min(pixels, 64)


@pytest.mark.gpu
def test_what_the_compiler_says(monkeypatch):
    make_case("cupy")
    backend = cupy_backend(compiler_options=("--maxrregcount=64",))
    seen = []
    program_of = backend.program
    monkeypatch.setattr(backend, "program", lambda *given: seen.append(program_of(*given)) or seen[-1])
    rows = [backend.upload(row) for row in np.arange(12, dtype=np.float32).reshape(4, 3)]
    stack_chunk(backend, Samples(rows), StackOptions())
    [program] = seen
    assert program.registers > 0
    assert program.spilled_bytes >= 0
    assert program.block <= program.resident <= program.most_resident
