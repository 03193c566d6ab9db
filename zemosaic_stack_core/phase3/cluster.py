"""A run on a dask cluster, which is handed one tile after the other.

What travels is small: paths and options to the workers, records and previews of a few kilobytes back. Frames and tiles
go through the file system that all machines share. Each worker process has its own `Phase3Gpu`.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from zemosaic_stack_core.errors import BackendUnavailableError, InvalidInputError
from zemosaic_stack_core.gpu.phase3_gpu import Phase3Gpu
from zemosaic_stack_core.phase3.journal import EarlierRuns
from zemosaic_stack_core.phase3.make import TileMaker
from zemosaic_stack_core.phase3.run_plan import TileSpec
from zemosaic_stack_core.phase3.tile import StackSettings
from zemosaic_stack_core.phase3.tile_record import MadeTile, TileOutcome, TileRecord
from zemosaic_stack_core.stacking.telemetry import QUIET
from zemosaic_stack_core.system.file_stamps import InputHashes

_STATE = "zemosaic_phase3"
# Of a tile whose worker was lost.
_RETRIES = 3


@dataclass(frozen=True, kw_only=True)
class ClusterChoice:
    """Where the workers are.

    Parameters
    ----------
    scheduler : str or None
        Address of a scheduler that runs, such as ``tcp://host:8786``.
    local_workers : int or None
        Or: start so many worker processes on this machine.
    timeout_s : float
        How long to look for the scheduler, seconds.
    """

    scheduler: str | None = None
    local_workers: int | None = None
    timeout_s: float = 20.0

    def __post_init__(self) -> None:
        if (self.scheduler is None) == (self.local_workers is None):
            raise InvalidInputError("cluster: expected either the address of a scheduler or a number of local workers")
        if self.local_workers is not None and self.local_workers < 1:
            raise InvalidInputError(f"cluster: {self.local_workers} local workers; expected at least 1")

    def __str__(self) -> str:
        return self.scheduler or f"{self.local_workers} local workers"


def make_on_cluster(
    choice: ClusterChoice, maker: TileMaker, specs: Sequence[TileSpec], earlier: EarlierRuns, *, backend: str
) -> Generator[MadeTile]:
    """Yield the tiles of a run as a cluster makes them, in the order in which they are done.

    The output folder is one that every worker sees under its name. Raises `BackendUnavailableError` where
    dask.distributed is not installed, or no scheduler answers.
    """
    distributed = _import_distributed()
    with ExitStack() as stack:
        client = stack.enter_context(_connect(distributed, choice))
        resources = gpu_resource(client, backend)
        maker = replace(maker, output=maker.output.resolve(), telemetry=QUIET)
        futures = {}
        for spec in specs:
            names = [str(path) for path in spec.frames]
            known = {name: earlier.inputs[name] for name in names if name in earlier.inputs}
            future = client.submit(
                _make_on_worker,
                replace(maker, hashes=InputHashes(known)),
                spec,
                earlier.records.get(spec.tile_id),
                backend,
                key=f"zemosaic-tile-{spec.tile_id}-{id(specs)}",
                pure=False,
                retries=_RETRIES,
                resources=resources,
            )
            futures[future] = spec
        stack.callback(lambda: client.cancel([future for future in futures if not future.done()], force=True))
        for future in distributed.as_completed(futures, loop=client.loop):
            error = future.exception()
            if error is None:
                yield future.result()
            else:
                reason = f"the cluster lost it: {type(error).__name__}: {' '.join(str(error).split())}"
                yield MadeTile(record=TileRecord.without_file(futures[future], TileOutcome.FAILED, reason))
            future.release()


def _import_distributed() -> Any:
    """Import dask.distributed."""
    try:
        import distributed
    except ImportError:
        raise BackendUnavailableError(
            "dask.distributed is not installed; expected it for a cluster: python -m pip install distributed"
        ) from None
    return distributed


def _connect(distributed: Any, choice: ClusterChoice) -> Any:
    """Return a client, a context manager; it ends the workers that it started."""
    if choice.scheduler is not None:
        try:
            return distributed.Client(choice.scheduler, timeout=choice.timeout_s, set_as_default=False)
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            message = (
                f"{choice.scheduler}: no scheduler answers ({reason}); expected an address such as tcp://host:8786"
            )
            raise BackendUnavailableError(message) from None
    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # it tells of every process that starts and ends
    try:
        with interrupts_are_ours():
            cluster = distributed.LocalCluster(
                n_workers=choice.local_workers,
                threads_per_worker=1,
                dashboard_address="127.0.0.1:0",  # a fixed port may be taken, and is open to the network
                protocol="tcp",
                env={"DASK_LOGGING__DISTRIBUTED": "critical"},
            )
    except RuntimeError as error:
        raise BackendUnavailableError(
            f'{choice.local_workers} local workers: {error}; expected a program that starts under "__main__" only'
        ) from error
    return _OwnedClient(distributed.Client(cluster, set_as_default=False), cluster)


@contextmanager
def interrupts_are_ours() -> Iterator[None]:
    """Start processes that a Ctrl-C on the terminal does not reach: this one ends them.

    The mask of blocked signals goes to the threads and processes that are started meanwhile, and to those they start.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _OwnedClient:
    """A client and the local cluster that ends with it."""

    def __init__(self, client: Any, cluster: Any) -> None:
        self._client, self._cluster = client, cluster

    def __enter__(self) -> Any:
        return self._client

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._cluster.close()


def gpu_resource(client: Any, backend: str) -> dict[str, float] | None:
    """Return the resource that a tile takes: one GPU where any worker declares one, so that none is shared."""
    if backend == "cpu":
        return None
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return {"GPU": 1} if any(worker.get("resources", {}).get("GPU") for worker in workers) else None


def _make_on_worker(maker: TileMaker, spec: TileSpec, earlier: TileRecord | None, backend: str) -> MadeTile:
    """Make a tile in a worker process of the cluster."""
    return replace(maker, gpu=_gpu_of_worker(maker.settings, backend)).make(spec, earlier)


def _gpu_of_worker(settings: StackSettings, backend: str) -> Phase3Gpu | None:
    """Return this worker process's own state of the GPU, kept with the worker as long as it lives."""
    if backend == "cpu":
        return None
    from distributed import get_worker

    worker = get_worker()
    gpu: Phase3Gpu | None = getattr(worker, _STATE, None)
    if gpu is None:
        gpu = Phase3Gpu(settings.limits, is_required=backend == "gpu")
        setattr(worker, _STATE, gpu)
    return gpu
