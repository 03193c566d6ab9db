"""From a backend's name to the backend."""

from __future__ import annotations

from collections.abc import Callable

from zemosaic_stack_core.backends.base import Backend, numpy_backend
from zemosaic_stack_core.backends.cuda import cupy_backend
from zemosaic_stack_core.errors import InvalidInputError

BACKENDS: dict[str, Callable[[], Backend]] = {
    "numpy": numpy_backend,
    "cpu": numpy_backend,
    "cupy": cupy_backend,
    "gpu": cupy_backend,
}
"""Names of backends and what makes each."""


def resolve_backend(backend: str | Backend) -> Backend:
    """Return the backend of that name, or the backend itself.

    Parameters
    ----------
    backend : str or Backend
        One of `BACKENDS`, or a backend. ``"auto"`` is a policy, not a backend: see `zemosaic_stack_core.gpu.auto`.

    Returns
    -------
    Backend
        Ready to use.

    Raises
    ------
    InvalidInputError
        The name is unknown, or it is no backend; the message lists the known ones.
    BackendUnavailableError
        CuPy was asked for and can't be had; the message says why.
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
