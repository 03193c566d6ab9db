"""What a backend is: an array namespace, its transfers, its memory. NumPy and the plain namespaces are here.

A *transfer* moves the bands of one stack. It has two slots, so that a band is read and uploaded while the one before
is computed. The band loop is the same for every backend::

    with backend.open_transfer() as transfer:
        # on the reading thread                      # on the computing thread
        slot = transfer.acquire()
        samples = slot.host_arrays(shapes, dtypes)
        ...fill samples...
        transfer.upload(slot, samples)
                                                     with transfer.computing():
                                                         rows = transfer.arrive(slot)
                                                         chunk = stack_chunk(backend.xp, rows, ...)
                                                         transfer.download([(chunk.image, image[band]), ...])
                                                         transfer.release(slot)
        ...
        transfer.finish()                            # only now are the downloads in their places

On the host an upload is no copy: the kernel reads the slot's own memory. On a GPU the slot's host memory is pinned and
every step but `acquire` and `finish` only queues work.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.backends.host import Outputs, host_bytes, host_program
from zemosaic_stack_core.backends.inputs import Inputs
from zemosaic_stack_core.backends.plain import PLAIN_BYTES, run_plainly
from zemosaic_stack_core.errors import BackendUnavailableError

# An array of whichever namespace is in use.
Array: TypeAlias = Any

# Bytes: CuPy's allocation unit; each array of a slot starts at a multiple, so that every copy is aligned.
_ALIGNMENT = 512

# One band is computed while the next is read and uploaded.
N_SLOTS = 2


class TransferClosed(Exception):  # noqa: N818 - not an error: tells the reading thread that nobody waits for it
    """The transfer was closed while the reading thread waited for a slot."""


class TransferTimes(Protocol):
    """Milliseconds that each step took on the device, summed over the bands; zero where the host can't tell."""

    upload_ms: float
    compute_ms: float
    download_ms: float


class _NoTimes:
    """Every step is done when its call returns: the caller's own clock times it."""

    upload_ms = 0.0
    compute_ms = 0.0
    download_ms = 0.0


class Slot:
    """Host memory of one band, grown when needed and used again; ``allocate(n_bytes)`` makes it, uint8."""

    def __init__(self, allocate: Any) -> None:
        self._allocate = allocate
        self._memory: npt.NDArray[np.uint8] | None = None
        self._extra: Slot | None = None
        self.device_arrays: list[Array] = []

    def host_arrays(self, shapes: Sequence[tuple[int, ...]], dtypes: Sequence[npt.DTypeLike]) -> list[npt.NDArray[Any]]:
        """Return uninitialized contiguous arrays in the slot's memory, of native order, valid until it is released."""
        kinds = [np.dtype(dtype) for dtype in dtypes]
        sizes = [math.prod(shape) * kind.itemsize for shape, kind in zip(shapes, kinds, strict=True)]
        starts, total = self.layout(sizes)
        if self._memory is None or self._memory.size < total:
            self._memory = None  # the old memory goes before the new comes
            self._memory = self._allocate(max(total, 1))
        memory = self._memory
        return [
            memory[start : start + size].view(kind).reshape(shape)
            for start, size, kind, shape in zip(starts, sizes, kinds, shapes, strict=True)
        ]

    def give_memory(self) -> npt.NDArray[np.uint8] | None:
        """Hand the slot's memory over to the caller; the slot has none afterwards."""
        memory, self._memory = self._memory, None
        return memory

    def staged(self, arrays: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """Return contiguous arrays in memory of the slot: those that lie there already, and copies of the others."""
        memory = self._memory
        is_here = [
            memory is not None and array.flags.c_contiguous and np.may_share_memory(memory, array) for array in arrays
        ]
        others = [array for here, array in zip(is_here, arrays, strict=True) if not here]
        if others and not any(is_here):
            return self._copied(self, others)
        if others and self._extra is None:
            self._extra = Slot(self._allocate)
        copies = iter([] if self._extra is None or not others else self._copied(self._extra, others))
        return [array if here else next(copies) for here, array in zip(is_here, arrays, strict=True)]

    @staticmethod
    def _copied(slot: Slot, arrays: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """Copy arrays into a slot's memory."""
        copies = slot.host_arrays([array.shape for array in arrays], [array.dtype for array in arrays])
        for copy, array in zip(copies, arrays, strict=True):
            np.copyto(copy, array, casting="no")
        return copies

    def whole(self, arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[np.uint8] | None:
        """Return the slot's memory as far as the arrays reach, if they lie in it as `layout` lays them out."""
        memory = self._memory
        starts, total = self.layout([array.nbytes for array in arrays])
        if memory is None or total > memory.size:
            return None
        is_laid_out = all(
            array.nbytes == 0 or array.ctypes.data == memory.ctypes.data + start
            for array, start in zip(arrays, starts, strict=True)
        )
        return memory[:total] if is_laid_out else None

    @staticmethod
    def layout(sizes: Sequence[int]) -> tuple[list[int], int]:
        """Return where arrays of these sizes in bytes start in the slot's memory, and the bytes of all."""
        starts = []
        total = 0
        for size in sizes:
            starts.append(total)
            total += -(-size // _ALIGNMENT) * _ALIGNMENT
        return starts, total


class Transfer(Protocol):
    """Moves the bands of one stack to the backend and its results back; see the module's docstring."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def acquire(self) -> Slot:
        """Wait for a slot whose host memory may be overwritten; raise `TransferClosed` after `close`."""

    def upload(self, slot: Slot, arrays: Sequence[npt.NDArray[Any]]) -> None:
        """Send native-order host arrays (the slot's own, or others) to the backend; asynchronously where it can."""

    def computing(self) -> AbstractContextManager[None]:
        """Make the kernel's calls inside the block follow each other on the computing stream."""

    def arrive(self, slot: Slot) -> list[Array]:
        """Return the slot's arrays on the backend, in the order uploaded."""

    def download(self, pairs: Sequence[tuple[Array, npt.NDArray[Any]]]) -> None:
        """Bring results into host arrays of the same shape and dtype; they are complete after `finish`."""

    def release(self, slot: Slot) -> None:
        """Say that every call on the slot's arrays is made; the slot goes back to the reading thread."""

    def finish(self) -> None:
        """Wait until every download is in its place."""

    def close(self) -> None:
        """Take no more uploads and wake the reading thread; safe to call twice. Leaving the context does it too."""

    @property
    def times(self) -> TransferTimes:
        """Time of the copies so far; exact after `finish`."""


class Backend(Protocol):
    """Where arrays live."""

    @property
    def name(self) -> str:
        """``"numpy"``, ``"cupy"``, or the namespace's name."""

    @property
    def xp(self) -> Any:
        """The array namespace: NumPy's own, others through ``array_api_compat`` where it knows them."""

    @property
    def is_host(self) -> bool:
        """True where host arrays are used in place."""

    @property
    def reads_words(self) -> bool:
        """True where programs read pixels as files have them: see `inputs.STORED_TYPES`."""

    @property
    def device(self) -> Any | None:
        """The device that new arrays are made on; None for the namespace's default."""

    def upload(self, array: npt.NDArray[Any]) -> Array:
        """Return a native-order host array on the backend."""

    def download(self, array: Array, out: npt.NDArray[Any]) -> None:
        """Copy an array of the backend into a host array of the same shape and dtype."""

    def synchronize(self) -> None:
        """Wait until everything that was queued is done."""

    def free_memory(self) -> int | None:
        """Return the bytes that can be allocated now (free device memory and free pool bytes); None where unknown."""

    def release(self) -> None:
        """Give pooled memory back to the system, at the end of a job or before a retry."""

    def open_transfer(self) -> Transfer:
        """Return a new transfer for one stack."""

    def compiled(self, function: Callable[..., Any], task: Any) -> Callable[[Inputs], Outputs]:
        """Return what runs ``function(xp, column, task)`` on this backend's arrays; see `tracing`."""

    def working_bytes(self, frames: int, sums: int) -> tuple[int, float]:
        """Return the bytes that a program which keeps so many running sums takes: for each pixel, and at most."""


class HostTransfer:
    """A transfer that copies on the spot: in place on the host, through `NamespaceBackend.upload` elsewhere."""

    def __init__(self, backend: NamespaceBackend) -> None:
        self._backend = backend
        self._free = [Slot(lambda n_bytes: np.empty(n_bytes, dtype=np.uint8)) for _ in range(N_SLOTS)]
        self._changed = threading.Condition()
        self._closed = False
        self.times: TransferTimes = _NoTimes()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def acquire(self) -> Slot:
        """Wait for a free slot."""
        with self._changed:
            self._changed.wait_for(lambda: self._free or self._closed)
            if self._closed:
                raise TransferClosed
            return self._free.pop()

    def upload(self, slot: Slot, arrays: Sequence[npt.NDArray[Any]]) -> None:
        """Copy the arrays to the backend; on the host, use them in place."""
        slot.device_arrays = [self._backend.upload(array) for array in arrays]

    def computing(self) -> AbstractContextManager[None]:
        """Do nothing: every call is done when it returns."""
        return nullcontext()

    def arrive(self, slot: Slot) -> list[Array]:
        """Return the slot's arrays."""
        return slot.device_arrays

    def download(self, pairs: Sequence[tuple[Array, npt.NDArray[Any]]]) -> None:
        """Copy each result into its place."""
        for array, out in pairs:
            self._backend.download(array, out)

    def release(self, slot: Slot) -> None:
        """Give the slot back."""
        slot.device_arrays = []
        with self._changed:
            self._free.append(slot)
            self._changed.notify()

    def finish(self) -> None:
        """Do nothing: downloads are done when they return."""

    def close(self) -> None:
        """Wake the reading thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class NamespaceBackend:
    """A backend over any array namespace whose calls are done when they return.

    `is_host` says that arrays are used in place; `host_device` is the namespace's device whose memory NumPy can read,
    None where that is `device` itself.
    """

    def __init__(
        self, *, name: str, xp: Any, is_host: bool, device: Any | None = None, host_device: Any | None = None
    ) -> None:
        self.name = name
        self.xp = xp
        self.is_host = is_host
        self.reads_words = is_host
        self.compiles = is_host
        self.device = device
        self._host_device = host_device

    def __repr__(self) -> str:
        return f"<backend {self.name}>"

    def upload(self, array: npt.NDArray[Any]) -> Array:
        """Return the host array on this backend: itself on the host, a copy elsewhere."""
        if self.is_host:
            return array
        # A copy is asked for: torch would share a writable array's memory and warn about a read-only one.
        return self.xp.asarray(array.copy(), device=self.device)

    def download(self, array: Array, out: npt.NDArray[Any]) -> None:
        """Copy an array of this backend into a host array of the same shape and dtype."""
        if not self.is_host:
            if self._host_device is not None:
                array = array.to_device(self._host_device)
            array = np.from_dlpack(array)
        np.copyto(out, array, casting="no")

    def synchronize(self) -> None:
        """Do nothing: every call is done when it returns."""

    def free_memory(self) -> int | None:
        """Return None: the host's memory is planned from what the machine says, not here."""
        return None

    def release(self) -> None:
        """Do nothing: nothing is pooled."""

    def open_transfer(self) -> HostTransfer:
        """Return a new transfer for one stack."""
        return HostTransfer(self)

    def compiled(self, function: Callable[..., Any], task: Any) -> Callable[[Inputs], Outputs]:
        """Return what runs ``function(xp, column, task)`` on this backend's arrays; see `tracing`."""
        if self.compiles:
            return host_program(function, task)
        return partial(run_plainly, self.xp, function, task, device=self.device)

    def working_bytes(self, frames: int, sums: int) -> tuple[int, float]:
        """Return the bytes that a program which keeps so many running sums takes: for each pixel, and at most."""
        return host_bytes(frames, sums) if self.compiles else (PLAIN_BYTES * frames, math.inf)


def numpy_backend() -> NamespaceBackend:
    """Return the backend of the host's arrays.

    NumPy's own namespace follows the standard from 2.1 on: array-api-compat's copy of it adds nothing that the kernel
    uses, and takes 0.15 s and 20 MB to import, because it looks at all of NumPy.
    """
    return NamespaceBackend(name="numpy", xp=np, is_host=True)


def plain_numpy_backend() -> NamespaceBackend:
    """Return NumPy's backend that compiles nothing: sooner done where there is next to nothing to compute."""
    backend = numpy_backend()
    backend.compiles = False
    return backend


def namespace_backend(xp: Any, device: Any | None = None) -> NamespaceBackend:
    """Return a backend over an array namespace that runs on the host, such as ``array_api_strict`` or ``torch``.

    Its arrays count as device arrays: nothing but `upload` and `download` crosses the border. Raises
    `BackendUnavailableError` for what is no namespace.
    """
    if not hasattr(xp, "asarray"):
        raise BackendUnavailableError(f"{xp!r} is not an array namespace: it has no asarray")
    name = getattr(xp, "__name__", type(xp).__name__).removeprefix("array_api_compat.")
    if name == "numpy":
        return numpy_backend()
    if name == "torch":
        import array_api_compat.torch as wrapped

        return NamespaceBackend(name=name, xp=wrapped, is_host=False, device=device)
    host = xp.Device("CPU_DEVICE") if name == "array_api_strict" and device is not None else None
    return NamespaceBackend(name=name, xp=xp, is_host=False, device=device, host_device=host)
