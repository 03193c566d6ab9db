"""CuPy: the GPU's namespace, transfers and memory. The only file that names CuPy."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.backends.base import N_SLOTS, Array, Slot, TransferClosed
from zemosaic_stack_core.backends.cuda_source import cuda_source, scratch_bytes
from zemosaic_stack_core.backends.faults import is_device_lost
from zemosaic_stack_core.backends.host import ARRAYS, Outputs
from zemosaic_stack_core.backends.inputs import Inputs, Layout, layout_of, readable
from zemosaic_stack_core.backends.network import comparators
from zemosaic_stack_core.backends.tracing import Program, trace
from zemosaic_stack_core.errors import BackendUnavailableError


@dataclass(frozen=True, kw_only=True)
class GpuMemory:
    """Memory of a CUDA device, in bytes."""

    name: str
    total: int
    # What no process holds.
    free: int
    # What CuPy's pool of this process holds for later, and what it has handed out.
    pool_free: int
    pool_used: int
    # What an allocation of this process can get: `free` and `pool_free`, less where the pool has a limit.
    allocatable: int
    # How many float32 operations the device does in the time of one in float64.
    float64_ratio: int


def _import_cupy() -> Any:
    """Return the module, or raise `BackendUnavailableError` with the reason."""
    try:
        import cupy  # noqa: TID251 - the one door
    except (ImportError, RuntimeError, OSError, AttributeError) as error:  # what a broken install was seen to raise
        raise BackendUnavailableError(
            f'CuPy can\'t be imported ({type(error).__name__}: {error}); python -m pip install "cupy-cuda12x[ctk]"'
        ) from error
    return cupy


def cupy_in_use() -> bool:
    """Say whether this process has imported CuPy."""
    return "cupy" in sys.modules


def _pools(cupy: Any) -> list[Any]:
    """Return the device pools that may hold blocks: CuPy's own, and the one that the program set instead."""
    default = cupy.get_default_memory_pool()
    current = getattr(cupy.cuda.get_allocator(), "__self__", None)  # the pool of a bound `malloc`
    others = [] if current is default or not hasattr(current, "free_all_blocks") else [current]
    return [default, *others]


def free_cupy_memory_pools() -> None:
    """Give the unused blocks of CuPy's device and pinned pools back.

    Does nothing where this process has not imported CuPy or no device answers. Must not be called after a sticky
    device error: see `is_device_lost`.
    """
    cupy = sys.modules.get("cupy")
    if cupy is None or not cupy.is_available():
        return
    for pool in _pools(cupy):
        pool.free_all_blocks()
    cupy.get_default_pinned_memory_pool().free_all_blocks()


def gpu_memory() -> GpuMemory:
    """Return the memory figures of the current CUDA device; raise `BackendUnavailableError` where none answers."""
    cupy = _import_cupy()
    runtime = cupy.cuda.runtime
    try:
        free, total = runtime.memGetInfo()
        properties = runtime.getDeviceProperties(runtime.getDevice())
        pool = _pools(cupy)[-1]
        pool_free, pool_used = pool.free_bytes(), pool.used_bytes()
        limit = pool.get_limit() if hasattr(pool, "get_limit") else 0
    except runtime.CUDARuntimeError as error:
        raise BackendUnavailableError(f"no CUDA device answers: {error}") from error
    name = properties["name"]
    allocatable = free + pool_free
    return GpuMemory(
        name=(name.decode(errors="replace") if isinstance(name, bytes) else str(name)).strip(),
        total=int(total),
        free=int(free),
        pool_free=int(pool_free),
        pool_used=int(pool_used),
        allocatable=int(min(allocatable, max(limit - pool_used, 0)) if limit else allocatable),
        float64_ratio=int(properties.get("singleToDoublePrecisionPerfRatio", 1)),
    )


# The most memory that all threads of a launch keep their samples in: 65,536 threads of 200 frames and two running sums,
# as many as an H100 runs at a time with 512 a multiprocessor.
SCRATCH_BYTES = 1 << 28
# Threads of a block that are tried: whole warps. With 112 registers a thread, 65,536 registers hold 16 warps in blocks
# of four warps and 18 in blocks of two.
_BLOCKS = range(64, 257, 32)


@dataclass(frozen=True)
class CudaProgram:
    """A program compiled for the current device."""

    program: Program
    kernel: Any
    # Threads of a block; threads that the device runs at a time, and those that it could of a program of few registers.
    block: int
    resident: int
    most_resident: int

    @property
    def registers(self) -> int:
        """Registers of a thread."""
        return int(self.kernel.num_regs)

    @property
    def spilled_bytes(self) -> int:
        """Bytes of a thread that found no room in registers."""
        return int(self.kernel.local_size_bytes)

    def threads(self, frames: int, pixels: int) -> int:
        """Return the threads of a launch: as many as run at a time, and no more than each has as many pixels to do."""
        room = SCRATCH_BYTES // scratch_bytes(frames, self.program.columns)
        most = max(min(self.resident, room) // self.block, 1) * self.block
        rounds = -(-pixels // most)
        return -(-pixels // (rounds * self.block)) * self.block


@lru_cache(maxsize=256)
def _compiled(
    function: Callable[..., Any], task: Any, layout: Layout, options: tuple[str, ...], device: int
) -> CudaProgram:
    """Return the function compiled for a device, which is the current one; more than the options come with it.

    ``--fmad=false``: a multiplication and an addition are rounded one after the other, as everywhere.
    """
    program = trace(function, task, layout)
    cuda = _import_cupy().cuda
    kernel = _import_cupy().RawKernel(cuda_source(program), "f", options=("--fmad=false", *options))
    pointer = kernel.kernel.ptr  # compiled here
    attributes = cuda.Device(device).attributes
    count = attributes["MultiProcessorCount"]
    running = {
        block: cuda.driver.occupancyMaxActiveBlocksPerMultiprocessor(pointer, block, 0) * block for block in _BLOCKS
    }
    block = max(_BLOCKS, key=lambda size: running[size])  # the smallest of those that are best
    return CudaProgram(
        program,
        kernel,
        block,
        max(running[block], block) * count,
        attributes["MaxThreadsPerMultiProcessor"] * count,
    )


class _Streams:
    """The streams of a backend and events for use again.

    CuPy's pool keeps what a stream has freed for that stream: with new ones for each tile nothing would be used again.
    No event is destroyed before the streams are, which may still have to wait for it.
    """

    def __init__(self, cuda: Any) -> None:
        self.upload = cuda.Stream(non_blocking=True)
        self.compute = cuda.Stream(non_blocking=True)
        self.download = cuda.Stream(non_blocking=True)
        self._cuda = cuda
        self._events: list[Any] = []
        self._spare: list[Any] = []
        self._lock = threading.Lock()

    def take(self) -> Any:
        """Return an event that nothing waits for."""
        with self._lock:
            if not self._spare:
                self._events.append(self._cuda.Event())
                return self._events[-1]
            return self._spare.pop()

    def give(self, *events: Any) -> None:
        """Take events back that no stream waits for anymore."""
        with self._lock:
            self._spare.extend(events)


@dataclass
class _BandEvents:
    """The events of one band's way through the device."""

    upload_start: Any
    uploaded: Any
    compute_start: Any
    consumed: Any


class _GpuSlot(Slot):
    """A slot with pinned host memory and device memory of the same layout."""

    def __init__(self, backend: CupyBackend) -> None:
        super().__init__(backend.allocate_pinned)
        self._cupy = backend.cupy
        self._device_memory: Any = None
        self.band: _BandEvents | None = None

    def device_views(self, arrays: Sequence[npt.NDArray[Any]]) -> list[Array]:
        """Return device arrays of the shapes and dtypes of `arrays`, in the slot's device memory."""
        starts, total = self.layout([array.nbytes for array in arrays])
        if self._device_memory is None or self._device_memory.size < total:
            self._device_memory = None  # the old memory goes before the new comes
            self.device_arrays = []
            self._device_memory = self._cupy.empty(max(total, 1), dtype=np.uint8)
        memory = self._device_memory
        return [
            memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
            for start, array in zip(starts, arrays, strict=True)
        ]

    def copy(self, arrays: Sequence[npt.NDArray[Any]], stream: Any) -> None:
        """Queue the copies of the arrays to the device's views: one copy where both sides are laid out alike."""
        whole = self.whole(arrays)
        if whole is not None:
            if whole.size:
                self._device_memory[: whole.size].set(whole, stream=stream)
            return
        for target, source in zip(self.device_arrays, arrays, strict=True):
            if source.size:
                target.set(source, stream=stream)


@dataclass
class _Download:
    """A copy that is on its way: the device array and the pinned array must live until the event has come."""

    array: Array
    pinned: npt.NDArray[Any]
    out: npt.NDArray[Any]
    start: Any
    done: Any
    band: int


class CupyTransfer:
    """Double-buffered transfer on three streams: uploads, kernel, downloads.

    The kernel stream waits for a slot's `uploaded` event, the upload stream for its `consumed` event before it
    overwrites the slot's device memory, the download stream for the kernel's results. The host waits in `acquire` for
    the pinned memory it is about to overwrite, and for downloads once the next band is queued.
    """

    def __init__(self, backend: CupyBackend) -> None:
        self._backend = backend
        self._events = backend.streams()
        self._upload_stream = self._events.upload
        self._compute_stream = self._events.compute
        self._download_stream = self._events.download
        self._free = [_GpuSlot(backend) for _ in range(N_SLOTS)]
        self._downloads: deque[_Download] = deque()
        self._in_flight: deque[_BandEvents] = deque()
        # Events with the band at which they were last in use: a stream may still have to wait for them.
        self._waited_for: deque[tuple[int, Iterable[Any]]] = deque()
        self._band = 0
        self._changed = threading.Condition()
        self._uploading = threading.Lock()
        self._closed = False
        self.upload_ms = 0.0
        self.compute_ms = 0.0
        self.download_ms = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self.finish()
                # Every band was computed: the reading thread is through with the pinned memory, the next tile gets it.
                self._backend.keep_pinned([slot.give_memory() for slot in self._free])
            self.close()
            if error is not None and not is_device_lost(error):
                self._settle()
        finally:
            self.close()
            self._downloads.clear()
            self._free.clear()

    @property
    def times(self) -> Self:
        """The transfer itself: it has ``upload_ms``, ``compute_ms`` and ``download_ms``."""
        return self

    def acquire(self) -> _GpuSlot:
        """Wait until a slot is free and its pinned memory has been uploaded."""
        with self._changed:
            self._changed.wait_for(lambda: self._free or self._closed)
            if self._closed:
                raise TransferClosed
            slot = self._free.pop(0)
        with self._uploading:
            self._check_open()
            if slot.band is not None:
                slot.band.uploaded.synchronize()
        return slot

    def upload(self, slot: Slot, arrays: Sequence[npt.NDArray[Any]]) -> None:
        """Queue the copies of the arrays to the slot's device memory; 16-bit samples go as 16-bit."""
        if not isinstance(slot, _GpuSlot):
            raise TypeError(f"the slot is {slot!r}; expected one that `acquire` gave")
        arrays = slot.staged(arrays)
        with self._uploading:
            self._check_open()
            with self._backend.on_device(), self._upload_stream as stream:
                if slot.band is not None:
                    stream.wait_event(slot.band.consumed)
                events = _BandEvents(*(self._events.take() for _ in range(4)))
                slot.band = events
                events.upload_start.record(stream)
                slot.device_arrays = slot.device_views(arrays)
                slot.copy(arrays, stream)
                events.uploaded.record(stream)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Queue the calls inside the block on the kernel's stream."""
        with self._backend.on_device(), self._compute_stream:
            yield

    def arrive(self, slot: Slot) -> list[Array]:
        """Make the kernel's stream wait for the slot's upload and return its device arrays."""
        events = self._band_in(slot)
        self._compute_stream.wait_event(events.uploaded)
        events.compute_start.record(self._compute_stream)
        return slot.device_arrays

    def download(self, pairs: Sequence[tuple[Array, npt.NDArray[Any]]]) -> None:
        """Queue the copies of results to pinned memory; `finish` or a later band brings them to their places."""
        backend, stream = self._backend, self._download_stream
        with backend.on_device():
            contiguous = []
            with self._compute_stream:
                for array, out in pairs:
                    contiguous.append((backend.cupy.ascontiguousarray(array), out))
                computed = self._events.take()
                computed.record(self._compute_stream)
            stream.wait_event(computed)
            for array, out in contiguous:
                start, done = self._events.take(), self._events.take()
                pinned = backend.empty_pinned(array.shape, array.dtype)
                start.record(stream)
                if array.size:
                    array.get(stream=stream, out=pinned, blocking=False)
                done.record(stream)
                self._downloads.append(_Download(array, pinned, out, start, done, self._band))
            self._waited_for.append((self._band, (computed,)))

    def release(self, slot: Slot) -> None:
        """Mark the end of the kernel's use of the slot and collect the downloads of the bands before."""
        events = self._band_in(slot)
        events.consumed.record(self._compute_stream)
        self._collect()
        self._in_flight.append(events)
        self._band += 1
        with self._changed:
            self._free.append(slot)  # type: ignore[arg-type]  # _band_in has checked it
            self._changed.notify()

    def finish(self) -> None:
        """Wait for the kernel and bring every download to its place."""
        self._compute_stream.synchronize()
        self._band += 1
        self._collect()

    def close(self) -> None:
        """Let the reading thread queue nothing more and wake it; an upload that is being queued is waited for."""
        with self._uploading, self._changed:
            self._closed = True
            self._changed.notify_all()

    def _check_open(self) -> None:
        """Raise where the transfer was closed."""
        if self._closed:
            raise TransferClosed

    def _settle(self) -> None:
        """Wait for what is queued, so that no copy still runs into memory that is about to be used for other things."""
        try:
            for stream in (self._upload_stream, self._compute_stream, self._download_stream):
                stream.synchronize()
        except RuntimeError:
            # The device died as well. An error is already on its way to the caller, and that one says what came first.
            return

    def _band_in(self, slot: Slot) -> _BandEvents:
        """Return the events of the band that is in the slot."""
        if not isinstance(slot, _GpuSlot) or slot.band is None:
            raise TypeError(f"the slot is {slot!r}; expected one that `acquire` gave and `upload` filled")
        return slot.band

    def _collect(self) -> None:
        """Bring the downloads of the bands before the current one to their places and add up the times."""
        while self._downloads and self._downloads[0].band < self._band:
            download = self._downloads.popleft()
            download.done.synchronize()
            self.download_ms += self._elapsed(download.start, download.done)
            self._events.give(download.start, download.done)
            np.copyto(download.out, download.pinned, casting="no")
        while self._in_flight:
            events = self._in_flight.popleft()
            events.consumed.synchronize()
            self.upload_ms += self._elapsed(events.upload_start, events.uploaded)
            self.compute_ms += self._elapsed(events.compute_start, events.consumed)
            self._waited_for.append((self._band, vars(events).values()))
        while self._waited_for and self._waited_for[0][0] + 2 * N_SLOTS < self._band:
            self._events.give(*self._waited_for.popleft()[1])

    def _elapsed(self, start: Any, end: Any) -> float:
        """Return the milliseconds between two events that have come."""
        return float(self._backend.cupy.cuda.get_elapsed_time(start, end))


class CupyBackend:
    """One CUDA device through CuPy; `xp` is ``array_api_compat.cupy``, the options are for CUDA's compiler."""

    name = "cupy"
    is_host = False
    reads_words = True

    def __init__(self, *, cupy: Any, xp: Any, device_id: int, compiler_options: tuple[str, ...] = ()) -> None:
        self.cupy = cupy
        self.xp = xp
        self._device_id = device_id
        self._compiler_options = compiler_options
        self._streams: _Streams | None = None
        self._scratch: dict[int, Array] = {}
        self._spare_pinned: list[npt.NDArray[np.uint8]] = []
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<backend cupy, device {self._device_id}>"

    @property
    def module(self) -> Any:
        """CuPy itself, for programs that want to work with it."""
        return self.cupy

    @property
    def device(self) -> Any:
        """The CUDA device."""
        return self.cupy.cuda.Device(self._device_id)

    def on_device(self) -> Any:
        """Make the device current for the calling thread inside the block."""
        return self.cupy.cuda.Device(self._device_id)

    def upload(self, array: npt.NDArray[Any]) -> Array:
        """Return a copy of a native-order host array on the device, in the current stream's order."""
        with self.on_device():
            return self.xp.asarray(array)

    def download(self, array: Array, out: npt.NDArray[Any]) -> None:
        """Copy a device array into a host array of the same shape and dtype, and wait for it."""
        np.copyto(out, array.get(), casting="no")

    def synchronize(self) -> None:
        """Wait for everything that was queued on the device."""
        self.device.synchronize()

    def free_memory(self) -> int:
        """Return the bytes of device memory that an allocation can get now."""
        with self.on_device():
            return gpu_memory().allocatable

    def release(self) -> None:
        """Give the pools' unused memory back; must not be called after a sticky device error."""
        self.keep_pinned([])
        self._scratch.clear()
        with self.on_device():
            free_cupy_memory_pools()

    def compiled(self, function: Callable[..., Any], task: Any) -> Callable[[Inputs], Outputs]:
        """Return what runs ``function(xp, column, task)`` on the device's arrays; see `tracing`."""
        return partial(self._run, function, task)

    def program(self, function: Callable[..., Any], task: Any, layout: Layout) -> CudaProgram:
        """Return a function compiled for inputs of that layout."""
        with self.on_device():
            return _compiled(function, task, layout, self._compiler_options, self._device_id)

    def working_bytes(self, frames: int, sums: int) -> tuple[int, float]:
        """Return the bytes that a program which keeps so many running sums takes: for each pixel, and at most."""
        return scratch_bytes(frames, sums), SCRATCH_BYTES  # with more frames fewer threads run at once

    def _run(self, function: Callable[..., Any], task: Any, inputs: Inputs) -> Outputs:
        """Compile the function, unless that was done, and queue it: one launch, which nothing waits for."""
        cupy = self.cupy
        inputs = readable(self.xp, inputs)
        compiled = self.program(function, task, layout_of(inputs))
        program, block = compiled.program, compiled.block
        frames, pixels, layout = inputs.frames, inputs.pixels, program.layout
        given = [row for rows in inputs.rows.values() for row in rows] + list(inputs.whole.values())
        rows = [cupy.ascontiguousarray(row) for row in given]
        tables = [cupy.ascontiguousarray(inputs.tables[name]) for name in layout.tables]
        results = {name: cupy.empty((frames, pixels), ARRAYS[dtype]) for name, dtype in program.given}
        results |= {name: cupy.empty(pixels, ARRAYS[program.types[number]]) for name, number in program.results}
        tallies = cupy.zeros((len(program.tallies), frames), np.int64)
        handed = [
            *([array.data.ptr for array in arrays] for arrays in (rows, tables, results.values())),
            np.array([inputs.numbers[name] for name in layout.numbers], np.float32),
            np.array([inputs.parameters[name] for name in layout.parameters], np.float64),
            np.array(comparators(frames), np.int32),
        ]
        row_pointers, table_pointers, result_pointers, numbers, parameters, network = self._upload_all(handed)
        threads = compiled.threads(frames, pixels)
        scratch = self._scratch_of(threads * scratch_bytes(frames, program.columns))
        addresses = (row_pointers, numbers, parameters, table_pointers, result_pointers, tallies)
        arguments = (*addresses, np.int64(pixels), np.int32(frames), network, np.int64(network.size // 2), scratch)
        compiled.kernel((threads // block,), (block,), arguments)
        return results, dict(zip(program.tallies, tallies, strict=True))

    def _scratch_of(self, n_bytes: int) -> Array:
        """Return memory for the samples of a launch's threads, used again by the next launch on the same stream.

        Taken anew each time, the pool would put small results into what the last launch left, and need as much again.
        """
        stream = self.cupy.cuda.get_current_stream().ptr
        with self._lock:
            kept = self._scratch.pop(stream, None)
            if kept is None or kept.size < n_bytes:
                kept = None  # the old memory goes before the new comes
                kept = self.cupy.empty(n_bytes, np.uint8)
            self._scratch[stream] = kept
            return kept

    def _upload_all(self, arrays: Sequence[Any]) -> list[Array]:
        """Return small host arrays (lists are addresses) on the device, by one copy."""
        kept = [np.asarray(array, np.uint64) if isinstance(array, list) else array for array in arrays]
        starts, total = Slot.layout([array.nbytes for array in kept])
        packed = np.zeros(max(total, 1), np.uint8)
        for array, start in zip(kept, starts, strict=True):
            packed[start : start + array.nbytes] = array.reshape(-1).view(np.uint8)
        memory = self.cupy.asarray(packed)
        return [
            memory[start : start + array.nbytes].view(array.dtype) for array, start in zip(kept, starts, strict=True)
        ]

    def streams(self) -> _Streams:
        """Return the streams that all transfers of this backend share, made at the first call."""
        with self._lock, self.on_device():
            if self._streams is None:
                self._streams = _Streams(self.cupy.cuda)
            return self._streams

    def open_transfer(self) -> CupyTransfer:
        """Return a new transfer for one stack."""
        return CupyTransfer(self)

    def allocate_pinned(self, n_bytes: int) -> npt.NDArray[np.uint8]:
        """Return pinned host memory of at least that size.

        Pinning costs more than filling the memory, so what the last stack left is used again; CuPy's pinned pool would
        do that too, but rounds the size up to a power of two.
        """
        with self._lock:
            for index, memory in enumerate(self._spare_pinned):
                if memory.size >= n_bytes:
                    return self._spare_pinned.pop(index)
        cuda = self.cupy.cuda
        pointer = cuda.PinnedMemoryPointer(cuda.PinnedMemory(n_bytes), 0)
        return np.frombuffer(pointer, np.uint8, n_bytes)

    def keep_pinned(self, memories: Sequence[npt.NDArray[np.uint8] | None]) -> None:
        """Keep the pinned memory of a finished stack for the next one, in place of what was kept before."""
        with self._lock:
            self._spare_pinned = [memory for memory in memories if memory is not None]

    def empty_pinned(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return an uninitialized array in the pool's pinned memory."""
        kind = np.dtype(dtype)
        count = int(np.prod(shape, dtype=np.int64))
        pointer = self.cupy.cuda.alloc_pinned_memory(max(count * kind.itemsize, 1))
        return np.frombuffer(pointer, kind, count).reshape(shape)


def cupy_backend(compiler_options: tuple[str, ...] = ()) -> CupyBackend:
    """Return the backend of the current CUDA device; raise `BackendUnavailableError`, which says what to do."""
    cupy = _import_cupy()
    try:
        n_devices = cupy.cuda.runtime.getDeviceCount()
        device_id = cupy.cuda.runtime.getDevice() if n_devices else 0
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise BackendUnavailableError(f"no CUDA device answers: {error}") from error
    if not n_devices:
        raise BackendUnavailableError("no CUDA device answers: the driver lists none")
    import array_api_compat.cupy as xp

    return CupyBackend(cupy=cupy, xp=xp, device_id=device_id, compiler_options=compiler_options)
