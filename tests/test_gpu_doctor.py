"""The doctor's lines are plain words, and its comparison finds a wrong bit."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from conftest import cupy_unusable
from zemosaic_stack_core.backends.cuda import GpuMemory
from zemosaic_stack_core.gpu import doctor as gpu_doctor
from zemosaic_stack_core.gpu.doctor import GpuComparison, compare_gpu, diagnose_gpu
from zemosaic_stack_core.gpu.health import GpuHealth
from zemosaic_stack_core.options import StackOptions
from zemosaic_stack_core.stacking.run import stack
from zemosaic_stack_core.system.isolation import IsolatedCallError

pytestmark = pytest.mark.gpu

MEMORY = GpuMemory(
    name="a card", total=8 << 30, free=7 << 30, pool_free=0, pool_used=0, allocatable=7 << 30, float64_ratio=32
)
COMPARISON = GpuComparison(
    frames=10, rows=100, columns=100, cpu_s=0.5, gpu_s=0.25, upload_ms=0.04, compute_ms=0.2, download_ms=0.01
)


@pytest.fixture
def patient(monkeypatch):
    """Make the doctor find what a test says."""

    def make(health, comparison=None):
        def compare(size):
            if isinstance(comparison, Exception):
                raise comparison
            return comparison

        monkeypatch.setattr(gpu_doctor, "cuda_of_driver", lambda: (0, 0))
        monkeypatch.setattr(gpu_doctor, "check_gpu", lambda: health)
        monkeypatch.setattr(gpu_doctor, "compare_gpu", compare)
        monkeypatch.setattr(gpu_doctor, "_version_of", lambda *names: "0.50.0" if "llvmlite" in names else "14.2.0")

    return make


def test_a_healthy_gpu(patient):
    patient(GpuHealth(usable=True, memory=MEMORY), COMPARISON)
    diagnosis = diagnose_gpu((10, 100, 100))
    assert diagnosis.usable
    assert diagnosis.lines == (
        "CPU: the kernel is compiled by llvmlite 0.50.0.",
        "CuPy 14.2.0 is installed.",
        "GPU: a card, 8.0 GiB of memory, 7.0 GiB free.",
        "The GPU is usable: its answers on small cubes are the CPU's, bit for bit.",
        "10 frames of 100 x 100 pixels: CPU and GPU give the same bits.",
        "CPU (one thread) 0.50 s, GPU 0.25 s; on the device, per sample: upload 0.40 ns (10.0 GB/s), "
        "kernel 2.00 ns, download 0.100 ns.",
    )


def test_without_a_comparison(patient):
    patient(GpuHealth(usable=True, memory=MEMORY))
    diagnosis = diagnose_gpu(None)
    assert diagnosis.usable
    assert len(diagnosis.lines) == 4


def test_an_unusable_gpu(patient):
    patient(GpuHealth(usable=False, reason="no card", advice="buy one"))
    diagnosis = diagnose_gpu()
    assert not diagnosis.usable
    assert diagnosis.lines[2:] == (
        "The GPU is not usable: no card.",
        "What to do: buy one.",
        "Stacks run on the CPU; the images are the same.",
    )


def test_the_extra_that_fits_is_told(patient, monkeypatch):
    patient(GpuHealth(usable=False, reason="CuPy is not installed", advice="buy one"))
    monkeypatch.setattr(gpu_doctor, "cuda_of_driver", lambda: (13, 0))
    said = "NVIDIA's driver runs CUDA 13.0 and older: the extra cuda13 fits, and for a card older than 2018 cuda12."
    assert diagnose_gpu().lines[2] == said
    monkeypatch.setattr(gpu_doctor, "cuda_of_driver", lambda: (12, 8))
    assert diagnose_gpu().lines[2] == "NVIDIA's driver runs CUDA 12.8 and older: the extra cuda12 fits."


def test_a_gpu_that_gives_other_bits(patient):
    patient(GpuHealth(usable=True, memory=MEMORY), replace(COMPARISON, difference="kappa_sigma: image differs"))
    diagnosis = diagnose_gpu()
    assert not diagnosis.usable
    assert "is NOT the CPU's: kappa_sigma: image differs" in diagnosis.lines[4]


def test_a_gpu_that_fails_on_the_big_cube(patient):
    patient(GpuHealth(usable=True, memory=MEMORY), IsolatedCallError("no answer within 600 s"))
    diagnosis = diagnose_gpu()
    assert not diagnosis.usable
    assert "the GPU did not manage it: no answer within 600 s" in diagnosis.lines[4]


def test_a_difference_is_found_and_counted():
    frames = [np.full((3, 4), value, dtype=np.float32) for value in (1, 2, 3, 50)]
    frames[0][0, 0] = frames[1][0, 0] = frames[2][0, 0] = frames[3][0, 0] = np.nan
    expected = stack(frames, options=StackOptions(), maps="all")
    assert gpu_doctor._find_difference("rule", expected, expected) == ""
    image = expected.image.copy()
    image[1, 1] = np.nextafter(image[1, 1], np.float32(9))
    other = replace(expected, image=image)
    assert gpu_doctor._find_difference("rule", expected, other) == "rule: image differs in 1 of 12 pixels"
    records = (replace(expected.frames[0], missing=(5,)), *expected.frames[1:])
    other = replace(expected, frames=records)
    assert gpu_doctor._find_difference("rule", expected, other) == "rule: the counts of rejected samples differ"


def test_this_gpu_gives_the_cpus_bits():
    if cupy_unusable():
        pytest.skip(cupy_unusable())
    comparison = compare_gpu((6, 24, 16))
    assert comparison.difference == ""
    assert (comparison.frames, comparison.columns) == (6, 16)
    assert 8 <= comparison.rows <= 24  # a very slow device gets fewer
    assert min(comparison.upload_ms, comparison.compute_ms, comparison.download_ms, comparison.cpu_s) > 0.0


def test_no_driver_in_plain_words():
    pytest.importorskip("cupy", reason="CuPy is not installed")
    if not cupy_unusable() and "cupyemu" not in sys.modules:
        pytest.skip("this machine has a GPU")
    code = "from zemosaic_stack_core.gpu.doctor import diagnose_gpu; print(*diagnose_gpu().lines, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    compiler, *lines = done.stdout.splitlines()
    assert compiler.startswith("CPU: ")
    assert lines[0].startswith("CuPy ")
    reasons = ("no NVIDIA driver", "no CUDA device answers")
    assert lines[1].startswith(tuple(f"The GPU is not usable: {reason}" for reason in reasons))
    assert lines[2].startswith("What to do: ")
