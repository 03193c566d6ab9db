"""The blocks of commands and scripts in the documentation: find them, prepare what they take for granted, run them.

A block that can't run here (it needs SLURM, Kubernetes, another system) has the line
``<!-- not run by the tests: why -->`` above it; its commands are then only parsed.
"""

from __future__ import annotations

import ast
import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from zemosaic_stack_core.command_line import build_parser, main
from zemosaic_stack_core.command_line.parser import UsageError
from zemosaic_stack_core.synthetic.night import SyntheticNight

ROOT = Path(__file__).parents[1]
# What the pages call `my_frames`, and a tile of `night`.
MY_FRAMES = SyntheticNight(n_frames=6, shape=(128, 192), dither=4)
MY_TILE = SyntheticNight(n_frames=4, shape=(32, 48), dither=3)
# What a block may be; PowerShell's are not run, the last three hold no commands.
LANGUAGES = ("bash", "python", "powershell", "text", "json", "csv")

_BLOCK = re.compile(
    r"(?:^<!-- not run by the tests: (?P<why>.+) -->\n)?^```(?P<language>\S*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_SHELL = re.compile(r"[|&;<>$`*?#(){}\\]|^\w+=")
# A thread of dask's that stays in the process would keep a later stack from forking its workers.
_NEEDS_ITS_OWN_PROCESS = ("dask", "--local-cluster", "--scheduler")


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    # One of `LANGUAGES`, or a directive in braces.
    language: str
    text: str
    # Where it begins in the page, from 1.
    line: int
    # Empty where it runs.
    why_not_run: str


def blocks_of(page: Path) -> list[Block]:
    """Return the blocks of a page in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            found["language"], found["text"], text.count("\n", 0, found.start("language")) + 1, str(found["why"] or "")
        )
        for found in _BLOCK.finditer(text)
    ]


def prepare(folder: Path) -> Path:
    """Write what the pages take for granted: frames, a table of weights, a configuration, a night of two tiles."""
    frames = MY_FRAMES.write(folder / "my_frames")
    table = "\n".join(f"{path.name},{1 + index % 3}" for index, path in enumerate(frames))
    (folder / "weights.csv").write_text(f"file,weight\n{table}\n", encoding="utf-8")
    settings = {"stacking_normalize_method": "linear_fit", "stacking_kappa_high": 2.5, "use_gpu_phase5": True}
    (folder / "zemosaic_config.json").write_text(json.dumps(settings), encoding="utf-8")
    for tile in ("tile_1", "tile_2"):
        MY_TILE.write(folder / "night" / tile)
    return folder


def write_commands(folder: Path) -> None:
    """Write the commands that the blocks call: ours, and a batch system that runs two jobs of an array at once."""
    folder.mkdir()
    python = f'exec "{sys.executable}"'
    for name, script in (
        ("zemosaic-worker", f'{python} -m zemosaic_stack_core "$@"'),
        ("python", f'{python} "$@"'),
        ("dask", f'{python} -m dask "$@"'),
        ("sbatch", 'for job in 1 2; do SLURM_ARRAY_TASK_ID=$job SLURM_CPUS_PER_TASK=1 sh "$1"; done'),
    ):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        (folder / name).chmod(0o755)


def run_block(block: Block, folder: Path) -> str:
    """Run a block in a folder, which must be the working one, and return what it said.

    Plain lines of our command and scripts run in this process, which spares each the start of Python; whatever is the
    shell's runs in bash.

    Raises
    ------
    AssertionError
        It failed, or said "Traceback".
    """
    code, said = _run_python(block, folder) if block.language == "python" else _run_bash(block, folder)
    has_no_gpu = "zemosaic-worker doctor" in block.text and "The GPU is not usable" in said
    assert code == (1 if has_no_gpu else 0), f"line {block.line}: exit code {code}\n{block.text}\n{said}"
    assert "Traceback" not in said, f"line {block.line}\n{block.text}\n{said}"
    return said


def _run_python(block: Block, folder: Path) -> tuple[int, str]:
    """Run a script."""
    if any(word in block.text for word in _NEEDS_ITS_OWN_PROCESS):
        (folder / "script.py").write_text(block.text, encoding="utf-8")
        return _bash("python script.py", folder)
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        exec(compile(block.text, f"line {block.line}", "exec"), {"__name__": "__main__"})  # noqa: S102 - our own page
    return 0, said.getvalue()


def _run_bash(block: Block, folder: Path) -> tuple[int, str]:
    """Run commands."""
    # Installing is for the one who reads; `python -m pytest` is what runs here.
    text = re.sub(r"^(python -m )?pip install .*?(&& |$)", "", block.text, flags=re.MULTILINE)
    text = text.replace("python -m pytest\n", "")
    lines = [line for line in text.splitlines() if line.strip()]
    if not all(_is_plain(line) for line in lines):
        return _bash(text, folder)
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        for line in lines:
            if code := main(shlex.split(line)[1:]):
                return code, said.getvalue()
    return 0, said.getvalue()


def _is_plain(line: str) -> bool:
    """Return whether a line is our command with nothing in it that is the shell's."""
    is_ours = line.startswith("zemosaic-worker ") and not _SHELL.search(line)
    return is_ours and not any(word in line for word in _NEEDS_ITS_OWN_PROCESS)


def _bash(text: str, folder: Path) -> tuple[int, str]:
    """Run text in bash."""
    search = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    path = os.pathsep.join([str(folder / "bin"), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-eu", "-c", text],
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONPATH": search},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout


def check_block(block: Block) -> None:
    """Check a block without running it: its syntax, and the options of our command in it.

    Raises
    ------
    AssertionError
        bash or our command does not understand it.
    SyntaxError
        Python does not.
    """
    if block.language == "bash":
        done = subprocess.run(["bash", "-n", "-c", block.text], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    elif block.language == "python":
        ast.parse(block.text)
    for words in _our_commands(block):
        try:
            build_parser().parse_args(words)
        except (SystemExit, UsageError) as end:
            raise AssertionError(f"line {block.line}: zemosaic-worker does not understand {words}") from end


def _our_commands(block: Block) -> Iterator[list[str]]:
    """Yield the arguments of each call of our command in a block."""
    if block.language == "python":
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.List) and node.elts and getattr(node.elts[0], "value", "") == "zemosaic-worker":
                yield [str(item.value) if isinstance(item, ast.Constant) else "value" for item in node.elts[1:]]
        return
    for line in block.text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True) if "zemosaic-worker" in line else []
        if "zemosaic-worker" in words:
            ours = words[words.index("zemosaic-worker") + 1 :]
            yield list(takewhile(lambda word: word not in ("&&", "||", "|", "&", ";"), ours))
