"""Memory and cores of this machine."""

from __future__ import annotations

import os
from pathlib import Path

# Folder, limit and use of a container's memory, and what ``memory.stat`` there calls files that are cached and not in
# use: version 2 and 1 of control groups.
_CGROUP_FILES = (
    ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def usable_cores() -> int:
    """Return the number of logical cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return max(len(os.sched_getaffinity(0)), 1)
    return max(os.cpu_count() or 1, 1)


def _container_memory() -> tuple[int, int] | None:
    """Return limit and use of the container's memory in bytes, None where no limit is set."""
    for folder, limit_name, used_name, cached_name in _CGROUP_FILES:
        try:
            limit, used, stat = (
                Path(folder, name).read_text(encoding="ascii").strip()
                for name in (limit_name, used_name, "memory.stat")
            )
        except OSError:
            continue
        if limit.isdigit() and used.isdigit():
            # Files that were read count as used, and are dropped as soon as the room is wanted: every frame of a night.
            cached = dict(line.split() for line in stat.splitlines() if len(line.split()) == 2).get(cached_name, "0")
            return int(limit), max(int(used) - int(cached), 0)
    return None


def available_memory() -> tuple[int, int]:
    """Return the memory in bytes of the machine, or the container, and how much of it can be had without swapping."""
    import psutil

    memory = psutil.virtual_memory()
    total, available = int(memory.total), int(memory.available)
    container = _container_memory()
    if container is not None and container[0] < total:  # version 1 writes "no limit" as a number near 2**63
        total = container[0]
        available = min(available, max(container[0] - container[1], 0))
    return total, available
