"""Backends: what goes up comes down, bands arrive whole and in order, and a GPU failure is classified."""

from __future__ import annotations

import queue
import subprocess
import sys
import textwrap
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from conftest import cupy_unusable, make_case
from zemosaic_stack_core.backends import (
    BACKENDS,
    Slot,
    TransferClosed,
    namespace_backend,
    numpy_backend,
    resolve_backend,
)
from zemosaic_stack_core.backends.faults import FaultClass, classify_fault, is_device_lost, is_oom_error, walk_chain
from zemosaic_stack_core.errors import BackendUnavailableError, InvalidInputError, OutOfMemoryError

pytestmark = pytest.mark.gpu

DTYPES = ["float32", "float64", "uint16", "int16", "uint8", "int32", "int64", "bool"]


@pytest.fixture
def gpu():
    """CuPy's backend, where a kernel runs."""
    return make_case("cupy").backend


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_goes_up_comes_down(backend, dtype):
    host = (np.arange(24) * 977 % 201).astype(dtype).reshape(4, 6)
    host.flags.writeable = False
    array = backend.backend.upload(host)
    assert str(array.dtype).rpartition(".")[2] == dtype
    out = np.zeros_like(host)
    backend.backend.download(array, out)
    np.testing.assert_array_equal(out, host)


def test_download_into_part_of_an_array(backend):
    host = np.arange(12, dtype=np.float32).reshape(3, 4)
    out = np.zeros((3, 4, 2), dtype=np.float32)
    backend.backend.download(backend.backend.upload(host), out[:, :, 1])
    np.testing.assert_array_equal(out[:, :, 1], host)
    assert not out[:, :, 0].any()


def test_download_never_converts(backend):
    array = backend.backend.upload(np.arange(3, dtype=np.float32))
    with pytest.raises(TypeError):
        backend.backend.download(array, np.zeros(3, dtype=np.float64))


def test_only_the_host_uses_arrays_in_place(backend):
    host = np.arange(3, dtype=np.float32)
    array = backend.backend.upload(host)
    assert (array is host) is backend.backend.is_host
    assert backend.backend.free_memory() is None or backend.backend.free_memory() > 0
    backend.backend.synchronize()
    backend.backend.release()


def test_names_of_backends():
    assert resolve_backend("numpy").name == resolve_backend("cpu").name == "numpy"
    given = numpy_backend()
    assert resolve_backend(given) is given


@pytest.mark.parametrize("name", ["auto", "cuda", ""])
def test_an_unknown_backend_lists_the_known_ones(name):
    with pytest.raises(InvalidInputError, match=f"backend is '{name}'; expected one of: {', '.join(BACKENDS)}"):
        resolve_backend(name)


def test_what_is_no_namespace_is_refused():
    with pytest.raises(BackendUnavailableError, match="is not an array namespace"):
        namespace_backend(SimpleNamespace())


def test_numpy_as_a_namespace_is_the_host():
    assert namespace_backend(np).is_host


def test_torch_on_the_cpu():
    torch = pytest.importorskip("torch", reason="torch is not installed")
    backend = namespace_backend(torch)
    host = np.arange(5, dtype=np.float32)
    array = backend.upload(host)
    array += 1
    out = np.zeros_like(host)
    backend.download(array, out)
    np.testing.assert_array_equal(out, host + 1)
    np.testing.assert_array_equal(host, np.arange(5))


def test_a_slots_memory_is_used_again_and_grows():
    sizes = []

    def allocate(n_bytes):
        sizes.append(n_bytes)
        return np.empty(n_bytes, dtype=np.uint8)

    slot = Slot(allocate)
    first = slot.host_arrays([(3, 5), (2,)], ["uint16", "float64"])
    assert [(array.shape, array.dtype.name) for array in first] == [((3, 5), "uint16"), ((2,), "float64")]
    assert not np.may_share_memory(*first)
    again = slot.host_arrays([(3, 5)], ["uint16"])
    assert np.may_share_memory(first[0], again[0])
    assert len(sizes) == 1
    assert slot.host_arrays([(1000,)], ["float32"])[0].nbytes <= sizes[1]


def test_arrays_from_elsewhere_are_copied_into_the_slots_memory():
    sizes = []

    def allocate(n_bytes):
        sizes.append(n_bytes)
        return np.zeros(n_bytes, dtype=np.uint8)

    slot = Slot(allocate)
    elsewhere = np.full(4, 7, dtype=np.int16)
    [copy] = slot.staged([elsewhere])
    assert copy.tolist() == [7] * 4
    assert not np.may_share_memory(copy, elsewhere)
    assert slot.whole([copy]) is not None
    inside = slot.host_arrays([(4,), (4,)], ["int16", "int16"])
    inside[0][...], inside[1][...] = 1, 2
    assert all(kept is given for kept, given in zip(slot.staged(inside), inside, strict=True))
    assert slot.whole(inside).size == 1024
    assert slot.whole(inside[::-1]) is None
    mixed = slot.staged([elsewhere, inside[1]])
    assert [array.tolist() for array in mixed] == [[7] * 4, [2] * 4]
    assert mixed[1] is inside[1]
    assert slot.whole(mixed) is None
    assert inside[0].tolist() == [1] * 4
    strided = slot.host_arrays([(2, 4)], ["int16"])[0][:, :2]
    assert slot.staged([strided])[0].flags.c_contiguous


def sum_bands(backend, frames, rows, from_elsewhere="none"):
    """Sum frames of shape (frame, row, column) band by band, the way a stack moves them."""
    n_frames, height, width = frames.shape
    out = np.zeros((height, width), dtype=np.float32)
    bands = queue.Queue()

    def read(transfer):
        try:
            for start in range(0, height, rows):
                part = frames[:, start : start + rows]
                slot = transfer.acquire()
                arrays = slot.host_arrays([part.shape[1:]] * n_frames, [frames.dtype] * n_frames)
                for array, source in zip(arrays, part, strict=True):
                    array[...] = source
                if from_elsewhere == "all":
                    arrays = list(part)
                elif from_elsewhere == "some":
                    arrays[1], arrays[-1] = part[1], part[-1]
                transfer.upload(slot, arrays)
                bands.put((start, slot))
            bands.put(None)
        except TransferClosed:
            bands.put(None)

    xp = backend.xp
    with backend.open_transfer() as transfer:
        reader = threading.Thread(target=read, args=(transfer,))
        reader.start()
        while (band := bands.get()) is not None:
            start, slot = band
            with transfer.computing():
                arrays = transfer.arrive(slot)
                total = xp.astype(arrays[0], xp.float32)
                for array in arrays[1:]:
                    total = total + xp.astype(array, xp.float32)
                transfer.download([(total, out[start : start + rows])])
                transfer.release(slot)
        transfer.finish()
        reader.join()
        times = transfer.times
    return out, times


@pytest.mark.parametrize(("rows", "from_elsewhere"), [(1, "none"), (4, "none"), (4, "all"), (4, "some"), (23, "none")])
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_every_band_arrives(backend, rows, from_elsewhere, dtype):
    frames = np.random.default_rng(0).integers(0, 60000, (5, 23, 17)).astype(dtype)
    out, times = sum_bands(backend.backend, frames, rows, from_elsewhere)
    np.testing.assert_array_equal(out, frames.astype(np.float32).sum(axis=0, dtype=np.float32))
    if backend.id == "cupy":
        assert min(times.upload_ms, times.compute_ms, times.download_ms) > 0.0
    else:
        assert times.upload_ms == times.compute_ms == times.download_ms == 0.0


def test_closing_wakes_the_reading_thread(backend):
    transfer = backend.backend.open_transfer()
    slots = [transfer.acquire(), transfer.acquire()]
    assert slots[0] is not slots[1]
    ended = []

    def wait():
        try:
            transfer.acquire()
        except TransferClosed:
            ended.append(True)

    reader = threading.Thread(target=wait)
    reader.start()
    transfer.close()
    transfer.close()
    reader.join(10)
    assert ended == [True]


def test_an_error_leaves_the_transfer_closed(backend):
    transfer = backend.backend.open_transfer()

    def fail():
        with transfer:
            slot = transfer.acquire()
            transfer.upload(slot, [np.arange(6, dtype=np.float32)])
            raise KeyError("an error of the caller")

    with pytest.raises(KeyError, match="an error of the caller"):
        fail()
    with pytest.raises(TransferClosed):
        transfer.acquire()


def test_a_gpu_takes_only_its_own_slots(gpu):
    stranger = Slot(lambda n_bytes: np.empty(n_bytes, dtype=np.uint8))
    with gpu.open_transfer() as transfer:
        with pytest.raises(TypeError, match="expected one that `acquire` gave"):
            transfer.upload(stranger, [np.zeros(3, dtype=np.float32)])
        with pytest.raises(TypeError, match="expected one that `acquire` gave and `upload` filled"):
            transfer.arrive(transfer.acquire())


def test_pinned_memory_is_kept_for_the_next_stack(gpu):
    gpu.release()
    frames = np.ones((3, 8, 8), dtype=np.float32)
    sum_bands(gpu, frames, 4)
    kept = gpu.allocate_pinned(1)
    assert kept.size > 1
    gpu.release()
    assert gpu.allocate_pinned(1).size == 1


def test_memory_of_the_gpu(gpu):
    from zemosaic_stack_core.backends.cuda import free_cupy_memory_pools, gpu_memory

    array = gpu.upload(np.zeros(1 << 16, dtype=np.float32))
    before = gpu_memory()
    assert before.name
    assert 0 < before.free <= before.total
    assert before.pool_used >= array.nbytes
    del array
    after = gpu_memory()
    assert after.pool_free >= before.pool_free + (1 << 18)
    assert after.allocatable >= after.free + (1 << 18)
    free_cupy_memory_pools()
    assert gpu_memory().free > after.free


def test_a_limit_of_the_pool_counts(gpu):
    import cupy

    from zemosaic_stack_core.backends.cuda import gpu_memory

    pool = cupy.get_default_memory_pool()
    pool.set_limit(size=pool.used_bytes() + (1 << 20))
    try:
        assert gpu_memory().allocatable == 1 << 20
    finally:
        pool.set_limit(size=0)


def test_the_pool_that_the_program_set_is_emptied_too(gpu):
    import cupy

    from zemosaic_stack_core.backends.cuda import free_cupy_memory_pools

    own, before = cupy.cuda.MemoryPool(), cupy.cuda.get_allocator()
    cupy.cuda.set_allocator(own.malloc)
    try:
        cupy.empty(1 << 16, dtype=cupy.uint8)
        pinned = cupy.get_default_pinned_memory_pool()
        cupy.cuda.alloc_pinned_memory(64)
        assert own.total_bytes() > 0
        assert pinned.n_free_blocks() > 0
        free_cupy_memory_pools()
        assert (own.total_bytes(), pinned.n_free_blocks()) == (0, 0)
    finally:
        cupy.cuda.set_allocator(before)


HIDE_CUPY = """
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("cupy", "cupyx", "cupy_backends"):
            raise ImportError(f"no module named {name}, the test hides it")
sys.meta_path.insert(0, Hide())
"""


def run_python(code):
    """Run code in a Python of its own, without this one's plug-ins, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_without_cupy_the_reason_is_given():
    printed = run_python(
        HIDE_CUPY
        + textwrap.dedent("""
        from zemosaic_stack_core.backends import cupy_backend
        from zemosaic_stack_core.backends.cuda import free_cupy_memory_pools
        from zemosaic_stack_core.errors import BackendUnavailableError
        free_cupy_memory_pools()
        try:
            cupy_backend()
        except BackendUnavailableError as error:
            print(error)
        """)
    )
    assert printed.startswith("CuPy can't be imported (ImportError: no module named cupy")
    assert 'pip install "cupy-cuda12x[ctk]"' in printed


def test_the_host_never_imports_cupy():
    printed = run_python("""
        import sys
        import numpy as np
        from zemosaic_stack_core.backends import numpy_backend
        backend = numpy_backend()
        with backend.open_transfer() as transfer:
            slot = transfer.acquire()
            transfer.upload(slot, [np.arange(3)])
        print("cupy" in sys.modules)
        """)
    assert printed == "False"


def test_cupy_without_a_driver_says_so():
    pytest.importorskip("cupy", reason="CuPy is not installed")
    if not cupy_unusable() and "cupyemu" not in sys.modules:
        pytest.skip("this machine has a GPU")
    printed = run_python("""
        from zemosaic_stack_core.backends import cupy_backend
        from zemosaic_stack_core.backends.cuda import free_cupy_memory_pools, gpu_memory
        from zemosaic_stack_core.errors import BackendUnavailableError
        for call in (cupy_backend, gpu_memory):
            try:
                call()
            except BackendUnavailableError as error:
                print(error)
        free_cupy_memory_pools()
        """)
    assert len(printed.splitlines()) == 2
    assert all(line.startswith("no CUDA device answers") for line in printed.splitlines())


class CUDARuntimeError(RuntimeError):
    """Looks like CuPy's error of that name."""

    def __init__(self, status, text):
        super().__init__(text)
        self.status = status


class CUDADriverError(CUDARuntimeError):
    """Looks like CuPy's error of that name."""


class StatusError(RuntimeError):
    """An error with a status that has nothing to do with CUDA."""

    status = 700


def wrapped(error, by=RuntimeError("outer"), *, implicit=False):  # noqa: B008 - only its type counts
    """Return an exception that was raised because of another, or while that one was handled."""
    outer = type(by)(*by.args)
    if implicit:
        outer.__context__ = error
    else:
        outer.__cause__ = error
    return outer


MEMORY = [
    MemoryError(),
    OutOfMemoryError("the smallest band does not fit"),
    CUDARuntimeError(2, "cudaErrorMemoryAllocation: out of memory"),
    CUDADriverError(2, "CUDA_ERROR_OUT_OF_MEMORY: out of memory"),
    CUDARuntimeError(712, "cudaErrorHostMemoryAlreadyRegistered: part or all of the requested memory range is mapped"),
    RuntimeError("part or all of the requested memory range is already mapped"),
    RuntimeError("radix_sort: failed on 2nd step: cudaErrorMemoryAllocation"),
    RuntimeError("std::bad_alloc"),
    wrapped(MemoryError()),
    wrapped(wrapped(MemoryError(), implicit=True)),
    ExceptionGroup("two", [ValueError("x"), MemoryError()]),
]
LOST = [
    CUDARuntimeError(700, "cudaErrorIllegalAddress: an illegal memory access was encountered"),
    CUDADriverError(719, "CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure"),
    wrapped(CUDARuntimeError(700, "an illegal memory access was encountered")),
    wrapped(CUDARuntimeError(700, "an illegal memory access was encountered"), MemoryError()),
]
HOST = [
    OSError(28, "No space left on device"),
    PermissionError(13, "Permission denied", "kernel_cache"),
    wrapped(OSError(5, "Input/output error")),
]
OTHER = [ValueError("out of memory"), RuntimeError("no"), KeyError("x"), StatusError("not CUDA"), OSError(2, "no file")]


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        *((error, FaultClass.OUT_OF_MEMORY) for error in MEMORY),
        *((error, FaultClass.DEVICE_LOST) for error in LOST),
        *((error, FaultClass.HOST_FILES) for error in HOST),
        *((error, FaultClass.OTHER) for error in OTHER),
    ],
    ids=repr,
)
def test_classes_of_faults(error, fault):
    assert classify_fault(error) is fault
    assert is_device_lost(error) is (fault is FaultClass.DEVICE_LOST)
    if fault is not FaultClass.DEVICE_LOST:
        assert is_oom_error(error) is (fault is FaultClass.OUT_OF_MEMORY)


def test_a_chain_that_bites_its_tail_ends():
    first, second = ValueError("first"), KeyError("second")
    first.__context__, second.__context__ = second, first
    assert list(walk_chain(first)) == [first, second]


def test_cupys_own_errors(gpu):
    import cupy

    with pytest.raises(cupy.cuda.memory.OutOfMemoryError) as caught:
        cupy.empty(1 << 46, dtype=cupy.uint8)
    assert classify_fault(caught.value) is FaultClass.OUT_OF_MEMORY
    with pytest.raises(cupy.cuda.runtime.CUDARuntimeError) as refused:
        cupy.cuda.runtime.setDevice(1000)
    assert is_device_lost(refused.value)
