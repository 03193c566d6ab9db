"""Fixtures of every test: the array backends that the same test is run on.

The `backend` fixture runs a test on NumPy, on NumPy with read-only inputs (writing into an input fails), on NumPy as it
is used where no compiler is, on array-api-strict with a device that is not the default one (a hidden conversion to
NumPy fails, as on a GPU), and on CuPy where a kernel really runs. Set ``ZEMOSAIC_REQUIRE_CUPY=1`` to make a CuPy that
doesn't run a failure and not a skip.
"""

from __future__ import annotations

import gc
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from zemosaic_stack_core.backends import cupy_backend, namespace_backend, numpy_backend, plain_numpy_backend

BACKENDS = ("numpy", "numpy-readonly", "numpy-plain", "array-api-strict", pytest.param("cupy", marks=pytest.mark.gpu))


@dataclass(frozen=True)
class BackendCase:
    """One backend to run a test on."""

    # One of numpy, numpy-readonly, numpy-plain, array-api-strict, cupy.
    id: str
    # What to hand to `stack`.
    backend: Any
    # Makes an array of the backend's namespace from a NumPy array; never shares its memory.
    make: Callable[[npt.ArrayLike], Any]


@cache
def cupy_unusable() -> str:
    """Return why CuPy can't run a kernel here; empty where it can."""
    try:
        import cupy  # noqa: TID251 - a test drives it directly
    except ImportError as error:
        return f"CuPy is not installed ({error})"
    try:
        answer = int((cupy.arange(3, dtype=cupy.int64) + 1).sum())
    except (RuntimeError, ImportError) as error:  # no driver, no device, no CUDA headers, no compiler
        return f"CuPy {cupy.__version__} can't run a kernel ({type(error).__name__}: {error})".splitlines()[0]
    return "" if answer == 6 else f"CuPy {cupy.__version__} computes 1 + 2 + 3 = {answer}"


def gpu_in_use() -> str:
    """Return what the CuPy cases run on."""
    reason = cupy_unusable()
    if reason:
        return f"none: {reason}"
    import cupy  # noqa: TID251 - a test drives it directly

    if "cupyemu" in sys.modules:
        return f"CuPy {cupy.__version__} emulated on the CPU"
    name = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.runtime.getDevice())["name"]
    return f"CuPy {cupy.__version__} on {name.decode(errors='replace')}"


def pytest_report_header() -> str:
    """Name the GPU, so that a green run says what it ran on."""
    return f"gpu: {gpu_in_use()}"


def pytest_collection_finish() -> None:
    """Keep what is loaded by now out of garbage collection: a failed allocation collects, and so does CuPy, twice."""
    gc.collect()
    gc.freeze()


def make_case(name: str) -> BackendCase:
    """Return the backend of that name; skip, or fail where it is required, without a CuPy that runs."""
    if name == "numpy":
        return BackendCase(name, numpy_backend(), lambda values: np.array(values))
    if name == "numpy-readonly":

        def read_only(values: npt.ArrayLike) -> npt.NDArray[Any]:
            array = np.array(values)
            array.flags.writeable = False
            return array

        return BackendCase(name, numpy_backend(), read_only)
    if name == "numpy-plain":
        return BackendCase(name, plain_numpy_backend(), lambda values: np.array(values))
    if name == "array-api-strict":
        xp = pytest.importorskip("array_api_strict", reason="array-api-strict is not installed (extra test)")
        device = xp.Device("device1")
        return BackendCase(
            name, namespace_backend(xp, device=device), lambda values: xp.asarray(np.array(values), device=device)
        )
    reason = cupy_unusable()
    if reason:
        if os.environ.get("ZEMOSAIC_REQUIRE_CUPY") == "1":
            pytest.fail(f"ZEMOSAIC_REQUIRE_CUPY is 1, but {reason}", pytrace=False)
        pytest.skip(reason)
    import cupy  # noqa: TID251 - a test drives it directly

    return BackendCase(name, cupy_backend(), lambda values: cupy.asarray(np.array(values)))


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> BackendCase:
    """Run the test on every backend; see `BackendCase`."""
    return make_case(request.param)


@pytest.fixture(params=BACKENDS[1:])
def other_backend(request: pytest.FixtureRequest) -> BackendCase:
    """Run the test on every backend but plain NumPy, whose answer it is compared with."""
    return make_case(request.param)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Return a Chromium that Playwright drives; tests are skipped where either is missing."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("no Chromium on this machine")
    with sync_api.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(params=["compiled", "plain"])
def compiler(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test where there is a compiler, and where there is none."""
    if request.param == "plain":
        monkeypatch.setitem(sys.modules, "llvmlite", None)
