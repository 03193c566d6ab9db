"""Count how often a program opens each file, in all of its processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

# Python imports a module of this name at its start, in spawned processes too; forked ones inherit the hook.
_HOOK = """
import os, sys
_log = os.open({log!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def _note(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)):
        os.write(_log, os.fsencode(arguments[0]) + b"\\n")
sys.addaudithook(_note)
"""


def count_opens(arguments: Sequence[object], folder: Path) -> Counter[str]:
    """Run ``zemosaic-worker`` with these arguments and return how often each file below `folder` was opened."""
    hook, log = folder / "hook", folder / "hook" / "opens.txt"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(_HOOK.format(log=os.fspath(log)), encoding="utf-8")
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.fspath, (hook, root)))}
    command = [sys.executable, "-m", "zemosaic_stack_core", *map(str, arguments)]
    subprocess.run(command, check=True, env=environment, capture_output=True, timeout=300)
    opened = Counter(os.path.realpath(os.fsdecode(line)) for line in log.read_bytes().splitlines())
    return Counter({name: count for name, count in opened.items() if Path(name).is_relative_to(folder.resolve())})
