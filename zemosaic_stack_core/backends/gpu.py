"""CuPy: the GPU's namespace, transfers and memory. The only file that names CuPy."""

from __future__ import annotations

from typing import Any

from zemosaic_stack_core.errors import BackendUnavailableError

from .base import NamespaceBackend

__all__ = ["cupy_backend"]


def _import_cupy() -> Any:
    """Return the module, or raise `BackendUnavailableError` with the reason."""
    try:
        import cupy  # noqa: TID251 - the one door
    except (ImportError, RuntimeError, OSError) as error:  # RuntimeError: a CUDA library that can't be loaded
        raise BackendUnavailableError(
            f'CuPy can\'t be imported ({type(error).__name__}: {error}); pip install "zemosaic-stack-core[cuda12]"'
        ) from error
    return cupy


class CupyBackend(NamespaceBackend):
    """The default CUDA device through CuPy."""


def cupy_backend() -> CupyBackend:
    """Return the backend of the default CUDA device."""
    _import_cupy()
    import array_api_compat.cupy as xp

    return CupyBackend(name="cupy", xp=xp, is_host=False)
