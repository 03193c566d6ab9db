"""The state of the GPU during one Phase 3 run: may it be tried, did it fail, is it switched off."""

from __future__ import annotations

import gc
import logging
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from zemosaic_stack_core.backends import Backend, cupy_backend
from zemosaic_stack_core.backends.faults import FaultClass, classify_fault, walk_chain
from zemosaic_stack_core.errors import (
    BackendUnavailableError,
    FrameReadError,
    GPUStackingError,
    InvalidInputError,
    ScratchError,
)
from zemosaic_stack_core.gpu.health import GpuHealth, gpu_health, reset_gpu_health
from zemosaic_stack_core.stacking.limits import read_limits

USING_GPU = "[P3][GPU] Using GPU stacker for Phase 3 (mode=auto)"
STACK_FAILED = "[P3][GPU] Stack failed (GPUStackingError): %s -- retrying once on GPU"
UNEXPECTED_ERROR = "[P3][GPU] Unexpected GPU error: %s -- retrying once on GPU"
SECOND_FAILED = "[P3][GPU] Second GPU attempt failed; disabling Phase 3 GPU for this run: %s"
DEVICE_LOST = "[P3][GPU] GPU lost, no second attempt is possible; disabling Phase 3 GPU for this run: %s"
HOST_FAILED = "[P3][GPU] The host's files failed, not the GPU; this tile is made on the CPU: %s"
NOT_RELEASED = "[P3][GPU] The GPU's memory could not be given back: %s"
NOT_PLANNED = "the plan says use_gpu=False"
NOT_USABLE = "[P3][GPU] GPU not usable, Phase 3 runs on the CPU: %s"

# Errors of the input and of temporary files: the CPU would raise them too.
_NOT_THE_GPUS = (InvalidInputError, FrameReadError, ScratchError)
# What giving memory back may raise: CUDA's errors, and those of an installation that is broken.
_OF_CUPY = (RuntimeError, MemoryError, ImportError, OSError, AttributeError, TypeError, ValueError)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class GpuFault:
    """One failed attempt."""

    kind: FaultClass
    # One line: the class, the exception and its text.
    summary: str
    # A `GPUStackingError`: the device worked, the tile is not valid.
    is_stacking_error: bool = False


class GpuOutcome(NamedTuple, Generic[T]):
    """What came of a tile on the GPU: the tile, or None and the reason why the CPU has to make it."""

    answer: T | None
    attempts: int
    reason: str = ""


class Phase3Gpu:
    """Whether a run may still use the GPU. One per run, owned by the run, shared by all its threads.

    Parameters
    ----------
    plan : ParallelPlan, mapping, object, Limits, or None
        ``use_gpu=False`` forbids the GPU.
    logger : logging.Logger, optional
        Gets the lines about the GPU; default the logger of this module.
    is_required : bool
        Raise instead of falling back to the CPU.
    check_health : callable
        Returns a `GpuHealth`; called once, when the first tile comes.
    open_backend : callable
        Returns the GPU's backend; called once.

    Attributes
    ----------
    hard_disabled : bool
        Goes to True once, after a failed retry, and never back.
    reason : str
        Why the GPU is not used; empty while it is.
    attempts : int
        Stacks that were started on the GPU.
    gpu_tiles, cpu_tiles : int
        Tiles that came from each.
    """

    def __init__(
        self,
        plan: object = None,
        *,
        logger: logging.Logger | None = None,
        is_required: bool = False,
        check_health: Callable[[], GpuHealth] = gpu_health,
        open_backend: Callable[[], Backend] = cupy_backend,
    ) -> None:
        self.logger = logger if logger is not None else logging.getLogger(__name__)
        self.is_required = is_required
        self.hard_disabled = False
        self.reason = ""
        self.attempts = 0
        self.gpu_tiles = 0
        self.cpu_tiles = 0
        self._is_planned = read_limits(plan).use_gpu
        self._check_health = check_health
        self._open_backend = open_backend
        self._health: GpuHealth | None = None
        self._backend: Backend | None = None
        self._state = threading.RLock()
        self._device = threading.Lock()

    @property
    def allowed(self) -> bool:
        """The plan does not forbid the GPU and its health check passed; checked at the first look."""
        with self._state:
            if not self._is_planned:
                self.reason = self.reason or NOT_PLANNED
                return False
            if self._health is None:
                self._health = self._check_health()
                if not self._health.usable:
                    self.reason = self._health.reason
                    self.logger.info(NOT_USABLE, self.reason)
            return self._health.usable

    @property
    def health(self) -> GpuHealth | None:
        """Outcome of the health check, None where it was not made."""
        return self._health

    @property
    def device(self) -> str:
        """Name of the GPU, as far as it is known."""
        memory = None if self._health is None else self._health.memory
        return "GPU" if memory is None else memory.name

    def may_try(self, plan: object = None) -> bool:
        """Return whether a tile with this plan goes to the GPU; raise `BackendUnavailableError` where it has to."""
        may = read_limits(plan).use_gpu and not self.hard_disabled and self.allowed
        if self.is_required and not may:
            reason = self.reason or NOT_PLANNED
            raise BackendUnavailableError(f"the GPU is required and can't be used: {reason}")
        return may

    def stack(
        self,
        attempt: Callable[[Backend, bool], T],
        check: Callable[[T], str],
        is_callers: Callable[[BaseException], bool] = lambda _: False,
    ) -> GpuOutcome[T]:
        """Try a tile on the GPU, at most twice, one tile at a time.

        Parameters
        ----------
        attempt : callable
            Stacks the whole tile on the backend; the second argument is True where its chunk must be half as large.
        check : callable
            Returns what is invalid about an answer, empty where nothing is.
        is_callers : callable
            Returns whether an exception was raised by the caller's own callback, as a cancellation.

        Raises
        ------
        InvalidInputError, FrameReadError, ScratchError
            Of the input or of temporary files: not the GPU's failure.
        GPUStackingError
            The GPU is required and failed.
        """
        with self._device:
            if self.hard_disabled:  # while this tile waited for its turn
                return GpuOutcome(None, 0, self.reason)
            answer, fault = self._try(attempt, check, is_callers, smaller=False)
            if fault is None:
                return GpuOutcome(self._succeeded(answer), 1)
            n_attempts = 1
            if fault.kind not in (FaultClass.DEVICE_LOST, FaultClass.HOST_FILES):
                self.logger.warning(STACK_FAILED if fault.is_stacking_error else UNEXPECTED_ERROR, fault.summary)
                n_attempts = 2
                smaller = fault.kind is FaultClass.OUT_OF_MEMORY
                answer, fault = self._try(attempt, check, is_callers, smaller=smaller)
                if fault is None:
                    return GpuOutcome(self._succeeded(answer), 2)
            if fault.kind is FaultClass.HOST_FILES:
                self._blame_the_host(fault)
            else:
                self._disable(fault, second=n_attempts == 2)
        return GpuOutcome(None, n_attempts, fault.summary)

    def count_cpu_tile(self) -> None:
        """Count a tile that the CPU made."""
        with self._state:
            self.cpu_tiles += 1

    def close(self) -> None:
        """Free the GPU's memory at the end of the run; does nothing after a device was lost."""
        if self._health is not None and not self._health.usable:
            reset_gpu_health()  # what was wrong may be gone when the next run looks
        with self._device:
            backend, self._backend = self._backend, None
            if backend is None:
                return
            try:
                backend.release()
            except _OF_CUPY as error:  # the device died after the last tile: every tile is made
                self.logger.warning(NOT_RELEASED, " ".join(str(error).split()))

    def _succeeded(self, answer: T) -> T:
        """Count a tile of the GPU; log once that it is in use."""
        with self._state:
            self.gpu_tiles += 1
            is_first = self.gpu_tiles == 1
        if is_first:
            self.logger.info(USING_GPU)
        return answer

    def _try(
        self,
        attempt: Callable[[Backend, bool], T],
        check: Callable[[T], str],
        is_callers: Callable[[BaseException], bool],
        *,
        smaller: bool,
    ) -> tuple[T, None] | tuple[None, GpuFault]:
        """Make one attempt; after a failure, leave nothing of it behind."""
        with self._state:
            self.attempts += 1
        try:
            if self._backend is None:
                self._backend = self._open_backend()
            answer = attempt(self._backend, smaller)
            invalid = check(answer)
            if not invalid:
                return answer, None
            fault = GpuFault(
                kind=FaultClass.INVALID_RESULT,
                summary=f"{FaultClass.INVALID_RESULT.value}: {invalid}",
                is_stacking_error=True,
            )
            del answer
        except _NOT_THE_GPUS:
            raise
        except Exception as error:  # whatever the GPU does, the tile is made: it is logged and planned again
            if is_callers(error):
                raise
            fault = _fault_of(error)
            self.logger.debug("[P3][GPU] The failed attempt: %s", "".join(traceback.format_exception(error)))
            for link in walk_chain(error):  # their frames hold the arrays that filled the device
                traceback.clear_frames(link.__traceback__)
        # Only now, with the exception gone, is the memory free to be given back.
        return None, self._clean_up(fault)

    def _clean_up(self, fault: GpuFault) -> GpuFault:
        """Free what the failed attempt left; return the fault, or the loss of the device that showed here."""
        gc.collect()
        if fault.kind is FaultClass.DEVICE_LOST or self._backend is None:
            return fault
        try:
            self._backend.release()
        except _OF_CUPY as error:
            after = _fault_of(error)
            return after if after.kind is FaultClass.DEVICE_LOST else fault  # what came first says more
        return fault

    def _blame_the_host(self, fault: GpuFault) -> None:
        """Leave the GPU to the tiles that follow: what failed is not its own."""
        if self.is_required:
            raise GPUStackingError(f"the GPU is required and the host's files failed: {fault.summary}")
        self.logger.warning(HOST_FAILED, fault.summary)

    def _disable(self, fault: GpuFault, *, second: bool) -> None:
        """Switch the GPU off for the rest of the run."""
        with self._state:
            self.hard_disabled = True
            self.reason = fault.summary
        self._backend = None
        if fault.kind is FaultClass.DEVICE_LOST:
            reset_gpu_health()  # the next run must look again
        self.logger.error(SECOND_FAILED if second else DEVICE_LOST, fault.summary)
        if self.is_required:
            raise GPUStackingError(f"the GPU is required and failed: {fault.summary}")


def _fault_of(error: BaseException) -> GpuFault:
    """Describe a failure without keeping the exception."""
    kind = classify_fault(error)
    text = " ".join(str(error).split()) or "no message"
    name = type(error).__name__
    is_stacking_error = any(isinstance(link, GPUStackingError) for link in walk_chain(error))
    return GpuFault(kind=kind, summary=f"{kind.value}: {name}: {text}", is_stacking_error=is_stacking_error)
