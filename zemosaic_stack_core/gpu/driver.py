"""Is NVIDIA's driver there at all? A look that costs nothing, before the health check that costs half a second."""

from __future__ import annotations

import ctypes
import errno
import importlib.metadata
import os
import sys

# The driver's library by `sys.platform`: what CUDA itself looks for, under the name that it uses.
_LIBRARIES = {"linux": "libcuda.so.1", "win32": "nvcuda.dll"}
# CUDA 13 left cards before Turing (compute capability 7.5, 2018) behind; a driver that runs it runs CUDA 12 as well.
_NEW_CUDA = 13
# How the loader of Linux ends its line where it finds no file of that name.
_NO_FILE = f"cannot open shared object file: {os.strerror(errno.ENOENT)}"
# Builds of CuPy that need that driver. A build of another name may be for other hardware.
_NVIDIA_WHEELS = ("cupy-cuda12x", "cupy-cuda13x", "cupy-cuda11x")


def missing_driver() -> str:
    """Return why NVIDIA's driver can't be had; empty where it is there or the health check has to find out.

    Its library is loaded the way CUDA does, and not initialized, which is where a broken driver hangs.
    """
    name = _LIBRARIES.get(sys.platform)
    if name is None:
        return ""
    try:
        ctypes.CDLL(name)
    except OSError as error:
        is_absent = isinstance(error, FileNotFoundError) or str(error).endswith(_NO_FILE)
        reason = f"{name} is not there" if is_absent else str(error)
        return f"no NVIDIA driver: {reason}" if _needs_the_driver() else ""
    return ""


def cuda_of_driver() -> tuple[int, int]:
    """Return the newest CUDA that NVIDIA's driver can run, (0, 0) where there is no driver; nothing is initialized."""
    name = _LIBRARIES.get(sys.platform)
    version = ctypes.c_int(0)
    try:
        if name is None or ctypes.CDLL(name).cuDriverGetVersion(ctypes.byref(version)):
            return 0, 0
    except (OSError, AttributeError):
        return 0, 0
    return version.value // 1000, version.value % 1000 // 10


def install_command() -> str:
    """Return the command that installs the CuPy that goes with the driver."""
    if cuda_of_driver()[0] < _NEW_CUDA:
        return 'python -m pip install "cupy-cuda12x[ctk]"'
    return 'python -m pip install "cupy-cuda13x[ctk]" (or "cupy-cuda12x[ctk]" for a card older than 2018)'


def _needs_the_driver() -> bool:
    """Return whether the CuPy that is installed is one of NVIDIA's wheels."""
    for name in _NVIDIA_WHEELS:
        try:
            importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        return True
    return False
