"""The programs that are compared: how each stacks a folder, and which are installed here."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

# What is compared, and our options for it: rule, then what else.
OPERATIONS: dict[str, tuple[str, ...]] = {
    "mean": ("--rejection", "none"),
    "median": ("--rejection", "none", "--combine", "median"),
    "kappa-sigma": ("--rejection", "kappa_sigma"),
    "winsorized sigma": ("--rejection", "winsorized_sigma_clip"),
    "linear-fit clip": ("--rejection", "linear_fit_clip"),
    "MAD clip": ("--rejection", "mad_clip"),
}
_SIRIL = {
    "mean": "rej n",
    "median": "med",
    "kappa-sigma": "rej s 3 3",
    "winsorized sigma": "rej w 3 3",
    "linear-fit clip": "rej l 3 3",
    "MAD clip": "rej a 3 3",
}
OURS = "zemosaic-worker"
# What every stacker has to do at least.
READING = "reading only"


def our_command(folder: Path, output: Path, *options: str) -> list[str]:
    """Return the command of ours that stacks a folder on the CPU."""
    ours = [sys.executable, "-m", "zemosaic_stack_core", "stack", str(folder), "-o", str(output)]
    return [*ours, "--overwrite", "--backend", "cpu", *options]


@dataclass(frozen=True)
class Program:
    """A program."""

    name: str
    operations: tuple[str, ...]
    # It is left out of larger workloads: it takes minutes there, and many times the input in memory.
    most_samples: int | None = None

    def command(self, operation: str, frames: Sequence[Path], output: Path) -> list[str]:
        """Return the command that stacks `frames`, all in one folder, into `output`; write the files it needs."""
        folder = frames[0].parent
        if self.name == OURS:
            options = ("--align", "none", "--maps", "none", "--no-picture", "--normalization", "none")
            return our_command(folder, output, *OPERATIONS[operation], *options)
        if self.name == "siril":
            script = output.with_suffix(".ssf")
            how = f"stack frame_ {_SIRIL[operation]} -nonorm -out={output}"
            script.write_text(f"requires 1.0.0\nsetext fits\nset32bits\n{how}\nclose\n")
            return ["siril-cli", "-d", str(folder), "-s", str(script)]
        peer = Path(__file__).with_name("peer.py")
        return [sys.executable, str(peer), self.name, operation, str(folder), str(output.with_suffix(".npy"))]


_PEERS = (
    (Program("floor", (READING,)), None),
    (Program("reducers", ("mean", "median", "kappa-sigma", "MAD clip")), "reducers"),
    (Program("bottleneck", ("median",)), "bottleneck"),
    (Program("astropy", ("mean", "median", "kappa-sigma", "MAD clip"), most_samples=1 << 27), "astropy"),
)


def installed_programs() -> list[Program]:
    """Return ours, then the peers that are installed."""
    programs = [Program(OURS, tuple(OPERATIONS))]
    programs += [program for program, module in _PEERS if module is None or find_spec(module) is not None]
    if shutil.which("siril-cli") is not None:
        programs.append(Program("siril", tuple(_SIRIL)))
    return programs
