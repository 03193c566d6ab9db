"""Plans of this program's own."""

from dataclasses import dataclass


@dataclass
class ParallelPlan:
    cpu_workers: int
    use_memmap: bool
    max_chunk_bytes: int
    rows_per_chunk: int | None = None
    use_gpu: bool = False
    gpu_rows_per_chunk: int | None = None
    gpu_max_chunk_bytes: int | None = None


def auto_tune_parallel_plan(*, kind, frame_shape, n_frames, bytes_per_pixel, config=None, caps=None):
    return ParallelPlan(1, False, 2**26)


def detect_parallel_capabilities():
    return None
