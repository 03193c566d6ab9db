"""The health check says whether the GPU can be used, and why not, without ever raising or hanging."""

from __future__ import annotations

import logging
import subprocess
import sys
import textwrap
from importlib.metadata import PackageNotFoundError

import numpy as np
import pytest

from conftest import cupy_unusable
from zemosaic_stack_core.backends import numpy_backend
from zemosaic_stack_core.gpu import driver
from zemosaic_stack_core.gpu import health as module
from zemosaic_stack_core.gpu.health import GpuHealth, check_gpu, gpu_health, gpu_is_usable, reset_gpu_health
from zemosaic_stack_core.system.isolation import IsolatedCallError

pytestmark = pytest.mark.gpu

MEMORY = {
    "name": "a card",
    "total": 8 << 30,
    "free": 6 << 30,
    "pool_free": 0,
    "pool_used": 0,
    "allocatable": 6 << 30,
    "float64_ratio": 32,
}


@pytest.fixture(autouse=True)
def _forget():
    """Leave no answer of a test for the next."""
    reset_gpu_health()
    yield
    reset_gpu_health()


@pytest.fixture
def answers(monkeypatch):
    """Let the isolated check answer, or raise, what a test puts here; says how often it was asked."""
    waiting = []
    asked = []

    def call(target, arguments, *, timeout_s):
        asked.append((target, list(arguments), timeout_s))
        answer = waiting.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(module, "call_in_thread", call)
    monkeypatch.setattr(module, "call_in_process", call)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda _: object())
    monkeypatch.setattr(module, "missing_driver", lambda: "")
    return waiting, asked


def test_a_healthy_gpu(answers):
    answers[0].append({"usable": True, "memory": MEMORY})
    health = check_gpu(5)
    assert health.usable
    assert health.reason == health.advice == ""
    assert health.memory.name == "a card"
    assert answers[1] == [("zemosaic_stack_core.gpu.health:check_gpu_here", [], 5)]


@pytest.mark.parametrize(
    ("answer", "reason", "advice"),
    [
        (IsolatedCallError("no answer within 120 s"), "no answer within 120 s", "the driver hangs"),
        (IsolatedCallError("the check ended with exit code -11: x"), "exit code -11", "update NVIDIA's driver"),
        (
            IsolatedCallError("RuntimeError: Failed to find CUDA headers. Please install"),
            "CUDA headers",
            'pip install "cupy-cuda12x[ctk]"',
        ),
        (
            {"usable": False, "reason": "no CUDA device answers: cudaErrorInsufficientDriver: x", "memory": None},
            "cudaErrorInsufficientDriver",
            "install NVIDIA's driver",
        ),
        (
            {"usable": False, "reason": "no CUDA device answers: cudaErrorNoDevice: x", "memory": None},
            "cudaErrorNoDevice",
            "no NVIDIA card is visible",
        ),
        (
            {"usable": False, "reason": "CuPy can't be imported (ImportError: x)", "memory": None},
            "can't be imported",
            'pip install "cupy-cuda12x[ctk]"',
        ),
        (
            {"usable": False, "reason": "9 frames, gesd: array 0 differs from the CPU's", "memory": MEMORY},
            "differs",
            "other numbers than the CPU",
        ),
    ],
)
def test_each_failure_has_a_reason_and_advice(answers, answer, reason, advice):
    answers[0].append(answer)
    health = check_gpu()
    assert not health.usable
    assert reason in health.reason
    assert advice in health.advice


def test_without_cupy_nothing_is_started(monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda _: None)
    assert check_gpu() == GpuHealth(
        usable=False,
        reason="CuPy is not installed",
        advice='python -m pip install "cupy-cuda12x[ctk]"; without an NVIDIA card the CPU does all the work',
    )


def test_the_answer_is_kept_until_it_is_reset(answers, caplog):
    answers[0].append({"usable": False, "reason": "out of order", "memory": None})
    answers[0].append({"usable": True, "memory": MEMORY})
    logger = logging.getLogger("a test")
    with caplog.at_level("INFO"):
        assert not gpu_is_usable(logger)
        assert not gpu_is_usable()
    assert [record.getMessage() for record in caplog.records] == ["[P3][GPU] GPU not usable: out of order"]
    reset_gpu_health()
    assert gpu_is_usable(logger)
    assert gpu_health().memory.total == 8 << 30
    assert len(answers[1]) == 2


def test_a_different_bit_is_found():
    first = [np.array([1.0, np.nan], dtype=np.float32), np.array([1, 2])]
    same = [array.copy() for array in first]
    assert module._find_difference(first, same) == ""
    same[1][0] = 3
    assert "array 1" in module._find_difference(first, same)
    same = [np.nextafter(first[0], np.float32(2)), first[1]]
    assert "array 0" in module._find_difference(first, same)


def test_the_checks_cubes_have_something_to_do():
    for n_frames in module._FRAMES:
        for rule in module._RULES:
            image, coverage, low, high = module._kernel_answers(numpy_backend(), n_frames, rule)[:4]
            assert np.isnan(image).any()
            assert coverage.min() == 0
            assert low.any() or high.any()


def test_this_gpu_passes():
    if cupy_unusable():
        pytest.skip(cupy_unusable())
    health = check_gpu(600)  # an emulation may have to compile every kernel first
    assert health.usable, health.reason
    assert health.memory.free > 0


@pytest.mark.parametrize(
    ("platform", "error", "reason"),
    [
        (
            "linux",
            OSError("libcuda.so.1: cannot open shared object file: No such file or directory"),
            "libcuda.so.1 is not there",
        ),
        ("linux", OSError("libcuda.so.1: invalid ELF header"), "libcuda.so.1: invalid ELF header"),
        ("win32", FileNotFoundError("Could not find module 'nvcuda.dll'"), "nvcuda.dll is not there"),
    ],
)
def test_without_a_driver_no_process_is_started(answers, monkeypatch, platform, error, reason):
    def load(name):
        raise error

    monkeypatch.setattr(driver.ctypes, "CDLL", load)
    monkeypatch.setattr(driver.sys, "platform", platform)
    monkeypatch.setattr(driver.importlib.metadata, "distribution", lambda name: name)
    monkeypatch.setattr(module, "missing_driver", driver.missing_driver)
    monkeypatch.setattr(module, "cupy_in_use", lambda: False)
    health = check_gpu()
    assert health.reason == f"no NVIDIA driver: {reason}"
    assert health.advice.startswith("install NVIDIA's driver")
    assert answers[1] == []

    # CuPy works in this process already, whatever its driver is: that it does is for the check to say.
    monkeypatch.setattr(module, "cupy_in_use", lambda: True)
    answers[0].append({"usable": True, "memory": MEMORY})
    assert check_gpu().usable


def test_only_what_is_surely_missing_is_called_so(monkeypatch):
    loaded = []
    monkeypatch.setattr(driver.ctypes, "CDLL", loaded.append)
    monkeypatch.setattr(driver.sys, "platform", "linux")
    assert driver.missing_driver() == ""
    assert loaded == ["libcuda.so.1"]

    def load(name):
        raise OSError(name)

    def distribution(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(driver.ctypes, "CDLL", load)
    monkeypatch.setattr(driver.importlib.metadata, "distribution", distribution)
    assert driver.missing_driver() == ""  # a CuPy that was built for other hardware
    monkeypatch.setattr(driver.sys, "platform", "darwin")
    assert driver.missing_driver() == ""


def run_python(code):
    """Run Python apart from this process, which may use an emulated CuPy, and give the lines that it prints."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def no_driver():
    """Skip where this machine has a GPU, or no CuPy to find out that it has none."""
    pytest.importorskip("cupy", reason="CuPy is not installed")
    if not cupy_unusable() and "cupyemu" not in sys.modules:
        pytest.skip("this machine has a GPU")


def test_cupy_without_a_driver(no_driver):
    usable, reason, advice = run_python("""
        import sys
        from zemosaic_stack_core.gpu.health import check_gpu
        health = check_gpu()
        print(health.usable, "cupy" in sys.modules)
        print(health.reason)
        print(health.advice)
        """)
    assert usable == "False False"
    assert reason.startswith(("no NVIDIA driver: ", "no CUDA device answers"))
    assert "driver" in advice or "card" in advice


def test_what_cupy_says_without_a_driver(no_driver):
    """The look for the driver apart: CuPy's own answer is a reason too, and the process that asked it goes on."""
    usable, reason = run_python("""
        from zemosaic_stack_core.gpu import health
        health.missing_driver = lambda: ""
        found = health.check_gpu()
        print(found.usable)
        print(found.reason)
        """)
    assert usable == "False"
    assert reason.startswith("no CUDA device answers")


class Driver:
    """Stand for the driver's library, which fills in a number."""

    def __init__(self, version: int, failure: int = 0) -> None:
        self.version, self.failure = version, failure

    def cuDriverGetVersion(self, place):  # noqa: N802 - NVIDIA's name
        place._obj.value = self.version
        return self.failure


@pytest.mark.parametrize(
    ("library", "cuda", "package"),
    [
        (Driver(12040), (12, 4), '"cupy-cuda12x[ctk]"'),
        (Driver(13010), (13, 1), '"cupy-cuda13x[ctk]" (or "cupy-cuda12x[ctk]" for a card older than 2018)'),
        (Driver(13010, failure=3), (0, 0), '"cupy-cuda12x[ctk]"'),
        (object(), (0, 0), '"cupy-cuda12x[ctk]"'),
    ],
)
def test_the_driver_says_which_cupy_fits(monkeypatch, library, cuda, package):
    monkeypatch.setattr(driver.sys, "platform", "linux")
    monkeypatch.setattr(driver.ctypes, "CDLL", lambda _: library)
    assert driver.cuda_of_driver() == cuda
    assert driver.install_command() == f"python -m pip install {package}"
