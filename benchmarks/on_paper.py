"""A large night on paper: how long each part of it takes, computed from what was measured of small ones.

Prints the tables of ``docs/night-on-paper.md``. Nothing is run: `Costs` holds what was measured, `Machine` what a data
sheet says.

Usage::

    python benchmarks/on_paper.py
"""

from __future__ import annotations

from dataclasses import dataclass, replace

GB = 1e9


@dataclass(frozen=True, kw_only=True)
class Night:
    """What is to be stacked."""

    # In all; the tiles are of one size.
    frames: int = 10_000
    tiles: int = 100
    rows: int = 1080
    columns: int = 1920
    channels: int = 3
    # 4 for float32, 2 for 16-bit integers.
    sample_bytes: int = 4

    @property
    def samples(self) -> int:
        """Frames times pixels times channels."""
        return self.frames * self.rows * self.columns * self.channels

    @property
    def bytes(self) -> int:
        """Of all frames."""
        return self.samples * self.sample_bytes

    @property
    def tile_bytes(self) -> int:
        """Of a master tile: image, one byte of coverage per sample of it, alpha."""
        return self.rows * self.columns * (5 * self.channels + 1)


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What was measured on one core of an AMD EPYC (2 cores, 1 MiB of L2 cache each), NumPy 2.4, Python 3.11."""

    # Of `kappa_sigma`, 100 frames, per sample (32 frames: 1.2).
    kernel_ns: float = 1.0
    # FITS float32 from the file cache to the kernel, per sample (``.npy``: 0.54).
    read_ns: float = 1.0
    # SHA-256 of the inputs, per byte.
    hash_ns: float = 0.84
    # Opening a frame and looking at some of its rows.
    check_s: float = 0.55e-3
    # Sky and noise of a frame's middle, for the report.
    look_s: float = 4e-3
    # Per tile of 1920 x 1080 x 3: composing, checksums, and the report's pictures.
    write_s: float = 0.18
    pictures_s: float = 0.18
    # Bytes of the card's memory that `kappa_sigma` moves per sample, 100 frames, if no cache holds any of its threads'
    # samples and sums: those of `docs/gpu.md`, and the samples themselves, which are read twice.
    kernel_traffic: float = 158.0


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a data sheet says."""

    # As fast as the measured one.
    cores: int = 8
    # Bytes per second, read or written in long runs.
    disk: float = 3.0 * GB
    # Bytes for cached files.
    memory: float = 24.0 * GB
    # Bytes per second of the card's memory, and to the card; None without a card.
    gpu_memory: float | None = None
    gpu_link: float | None = None


# Threads that read chunks for a card.
_GPU_READERS = 4
DESKTOP = Machine()
WITH_GPU = replace(DESKTOP, gpu_memory=360.0 * GB, gpu_link=20.0 * GB)


def parts(night: Night, machine: Machine, costs: Costs) -> dict[str, tuple[float, str]]:
    """Return the seconds of each part of a run, and what they are spent on; the parts follow each other."""
    reading = night.bytes / machine.disk
    hashing = _slowest(disk=reading, cores=night.bytes * costs.hash_ns * 1e-9 / machine.cores)
    is_cached = night.bytes / night.tiles <= machine.memory
    again = {} if is_cached else {"disk": reading}
    decoding = night.samples * costs.read_ns * 1e-9
    if machine.gpu_memory is None or machine.gpu_link is None:
        kernel = night.samples * costs.kernel_ns * 1e-9
        stacking = _slowest(cores=(kernel + decoding) / machine.cores, **again)
    else:
        stacking = _slowest(
            **{
                "reading threads": decoding / _GPU_READERS,
                "link to the card": night.bytes / machine.gpu_link,
                "memory of the card": night.samples * costs.kernel_traffic / machine.gpu_memory,
                **again,
            }
        )
    return {
        "hash the frames": hashing,
        "look at the frames": (night.frames * costs.check_s, "one core"),
        "stack": stacking,
        "write the tiles": (night.tiles * (costs.write_s + night.tile_bytes / machine.disk), "one core"),
        "judge the frames": (night.frames * costs.look_s / machine.cores, "cores"),
        "pictures for the report": (night.tiles * costs.pictures_s, "one core"),
    }


def _slowest(**seconds: float) -> tuple[float, str]:
    """Return the longest of things that happen at once, and which it is."""
    name = max(seconds, key=lambda key: seconds[key])
    return seconds[name], name


def total(night: Night, machine: Machine, costs: Costs) -> float:
    """Return the seconds of a run."""
    return sum(seconds for seconds, _ in parts(night, machine, costs).values())


def tables() -> str:
    """Return the tables of the page."""
    night, costs = Night(), Costs()
    cpu, gpu = (parts(night, machine, costs) for machine in (DESKTOP, WITH_GPU))
    lines = ["| part | 8 cores, s | limited by | with the GPU, s | limited by |", "|---|---|---|---|---|"]
    for name in cpu:
        lines.append(f"| {name} | {cpu[name][0]:.0f} | {cpu[name][1]} | {gpu[name][0]:.0f} | {gpu[name][1]} |")
    both = [total(night, machine, costs) for machine in (DESKTOP, WITH_GPU)]
    lines += [f"| in all | **{both[0]:.0f}** | | **{both[1]:.0f}** | |", ""]
    npy, fast = replace(costs, read_ns=0.54), replace(costs, kernel_ns=0.5, kernel_traffic=79.0)
    hashing, checking, stacking = (cpu[name][0] for name in ("hash the frames", "look at the frames", "stack"))
    on_gpu = gpu["stack"][0]
    ahead = [min(hashing + checking, seconds) for seconds in (stacking, on_gpu)]
    changes = (
        ("a SATA disk, 0.5 GB/s", [total(night, replace(m, disk=0.5 * GB), costs) for m in (DESKTOP, WITH_GPU)]),
        ("a disk of 7 GB/s", [total(night, replace(m, disk=7.0 * GB), costs) for m in (DESKTOP, WITH_GPU)]),
        (
            "a tile is larger than the free memory: the disk is read twice",
            [total(night, replace(m, memory=0.0), costs) for m in _BOTH],
        ),
        ("`.npy` caches: no change of the byte order", [total(night, m, npy) for m in _BOTH]),
        ("16-bit caches: half the bytes", [total(replace(night, sample_bytes=2), m, costs) for m in _BOTH]),
        ("16 cores", [total(night, replace(m, cores=16), costs) for m in _BOTH]),
        (
            "a kernel twice as fast",
            [total(night, m, fast) for m in _BOTH],
        ),
        (
            "hash and look at the next tile while one is stacked (not done)",
            [whole - saved for whole, saved in zip(both, ahead, strict=True)],
        ),
    )
    lines += ["| what would change | 8 cores, s | with the GPU, s |", "|---|---|---|"]
    lines += [f"| {name} | {values[0]:.0f} | {values[1]:.0f} |" for name, values in changes]
    return "\n".join(lines) + "\n"


_BOTH = (DESKTOP, WITH_GPU)


def main() -> None:
    """Print the tables."""
    night = Night()
    print(f"{night.frames:,} frames, {night.samples / 1e9:.1f} G samples, {night.bytes / GB:.0f} GB\n")
    print(tables(), end="")


if __name__ == "__main__":
    main()
