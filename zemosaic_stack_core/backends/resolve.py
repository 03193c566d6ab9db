"""From a backend's name to the backend."""

from __future__ import annotations

from collections.abc import Callable

from zemosaic_stack_core.backends.base import Backend, numpy_backend
from zemosaic_stack_core.backends.cuda import cupy_backend
from zemosaic_stack_core.errors import InvalidInputError

# Names of backends and what makes each.
BACKENDS: dict[str, Callable[[], Backend]] = {
    "numpy": numpy_backend,
    "cpu": numpy_backend,
    "cupy": cupy_backend,
    "gpu": cupy_backend,
}


def resolve_backend(backend: str | Backend) -> Backend:
    """Return the backend of that name, or the backend itself.

    ``"auto"`` is a policy and no backend: see `gpu.auto`. Raises `InvalidInputError` for what is neither, and
    `BackendUnavailableError` where CuPy was asked for and can't be had.
    """
    if not isinstance(backend, str):
        if not hasattr(backend, "open_transfer"):
            raise InvalidInputError(
                f"backend is {backend!r}; expected a backend, as `namespace_backend` gives, or one of: "
                f"{', '.join(BACKENDS)}"
            )
        return backend
    if backend not in BACKENDS:
        raise InvalidInputError(f"backend is {backend!r}; expected one of: {', '.join(BACKENDS)}")
    return BACKENDS[backend]()
