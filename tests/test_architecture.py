"""The house: a folder is a floor, imports go down only, and no file imports in a circle."""

import ast
import importlib
import re
from graphlib import TopologicalSorter
from operator import attrgetter
from pathlib import Path

import pytest

import zemosaic_stack_core

ROOT = Path(zemosaic_stack_core.__file__).parent
PAGE = (Path(__file__).parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
WALKS = {walk.partition("\n")[0]: walk for walk in PAGE.split("### ")[1:]}
# Floor of each folder, and of the files that stand at the top of the package.
FLOORS = {
    "command_line": 10,
    "phase3": 9,
    "__main__": 11,
    "__init__": 8,
    "zemosaic": 7,
    "synthetic": 7,
    "nddata": 7,
    "gpu": 6,
    "master": 6,
    "prepare": 6,
    "stacking": 5,
    "per_frame": 4,
    "kernel": 3,
    "frames": 3,
    "backends": 2,
    "fits": 2,
    "system": 1,
    "options": 1,
    "errors": 0,
}


def imports_of(path: Path) -> set[Path]:
    """Return the files of the package that a file imports, wherever in it, for type checking too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = ROOT.parent if node.level == 0 else path.parents[node.level - 1]
            module = base.joinpath(*(node.module or "").split("."))
            for name in node.names:
                tried = [module / f"{name.name}.py", module / name.name / "__init__.py", module.with_suffix(".py")]
                found |= {next((file for file in [*tried, module / "__init__.py"] if file.is_file()), path)}
        elif isinstance(node, ast.Import):
            assert not any(name.name.startswith("zemosaic_stack_core.") for name in node.names), path
    return {file for file in found if file.is_relative_to(ROOT)} - {path}


IMPORTS = {path: imports_of(path) for path in sorted(ROOT.rglob("*.py"))}


def room(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


def test_the_table_names_every_room():
    assert {room(path) for path in IMPORTS} == set(FLOORS)
    assert {path.stem for path in ROOT.glob("*.py")} == {"__init__", "__main__", "errors", "options"}


def test_imports_go_down_only():
    upwards = [
        f"{path.relative_to(ROOT)} -> {target.relative_to(ROOT)}"
        for path, targets in IMPORTS.items()
        for target in targets
        if room(target) != room(path) and FLOORS[room(target)] >= FLOORS[room(path)]
    ]
    assert not upwards


def test_no_file_imports_in_a_circle():
    order = list(TopologicalSorter(IMPORTS).static_order())  # raises CycleError with the files of the circle
    assert len(order) == len(IMPORTS)


def test_the_page_has_the_same_floors():
    rows = re.findall(r"^\| (\d+) \| `([\w.]+)/?`", PAGE, re.MULTILINE)
    assert {name.removesuffix(".py"): int(floor) for floor, name in rows} == FLOORS


@pytest.mark.parametrize("walk", WALKS)
def test_a_walk_goes_down_and_its_names_are_there(walk):
    steps = re.findall(r"^\d+\. `([\w/]+)\.py`: (.*?)(?=^\d|^$|\Z)", WALKS[walk], re.MULTILINE | re.DOTALL)
    floors = [FLOORS[file.partition("/")[0]] for file, _ in steps]
    assert len(steps) == 10
    assert floors == sorted(floors, reverse=True)
    for file, text in steps:
        module = importlib.import_module(f"zemosaic_stack_core.{file.removesuffix('/__init__').replace('/', '.')}")
        names = re.findall(r"`([\w.]+)\(\)`", text)
        assert names, file
        assert all(attrgetter(name)(module).__module__.startswith(module.__name__) for name in names), file
