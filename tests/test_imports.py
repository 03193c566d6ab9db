"""What an import costs and brings: the kernel knows no array library, the package starts without the heavy ones."""

import ast
import importlib
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import zemosaic_stack_core

KERNEL = Path(zemosaic_stack_core.__file__).parent / "kernel"
KERNEL_FILES = sorted(KERNEL.rglob("*.py"))
# What kernel files may import besides the standard library, and what of that they may not.
KERNEL_NEEDS = ("errors", "options", "kernel", "backends.inputs")
SYSTEM = {"ctypes", "io", "logging", "mmap", "multiprocessing", "os", "pathlib", "subprocess", "sys", "threading"}


def modules_loaded(*arguments):
    """Run Python apart from this process and give the list that it prints."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def top_level(names):
    return {name.partition(".")[0] for name in names}


def imports_of(path):
    """Return the full names of the modules that a file imports from, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, path
            found.add(node.module)
    return found


@pytest.mark.parametrize("path", KERNEL_FILES, ids=lambda path: path.relative_to(KERNEL).as_posix())
def test_the_kernel_imports_no_array_library_and_no_system(path):
    for name in imports_of(path):
        if name.startswith("zemosaic_stack_core."):
            own = name.removeprefix("zemosaic_stack_core.")
            assert any(own == needed or own.startswith(f"{needed}.") for needed in KERNEL_NEEDS), name
        else:
            assert name.partition(".")[0] in sys.stdlib_module_names - SYSTEM, name


def test_the_package_starts_without_the_heavy_libraries():
    code = "import sys, json, zemosaic_stack_core; print(json.dumps(sorted(sys.modules)))"
    loaded = top_level(modules_loaded("-c", code))
    assert "zemosaic_stack_core" in loaded
    heavy = {"numpy", "llvmlite", "array_api_compat", "cupy", "cupyx", "astropy", "torch", "scipy"}
    heavy |= {"rich", "PIL", "dask", "jinja2"}
    assert not loaded & heavy


def test_stacking_arrays_on_numpy_imports_no_cupy_and_no_astropy():
    code = (
        "import sys, json, numpy, zemosaic_stack_core\n"
        "zemosaic_stack_core.stack([numpy.ones((2, 2), numpy.float32)] * 3, workers=1)\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    assert not top_level(modules_loaded("-c", code)) & {"cupy", "cupyx", "astropy", "torch", "scipy"}


def test_public_names():
    assert sorted(zemosaic_stack_core.__all__) == sorted(set(zemosaic_stack_core.__all__))
    for name in zemosaic_stack_core.__all__:
        assert hasattr(zemosaic_stack_core, name), name
    for name in ("stack", "StackOptions", "StackResult", "FrameRecord", "InvalidInputError", "FrameReadError"):
        assert name in zemosaic_stack_core.__all__


# Packages whose `__init__` hands on what its modules define: they alone list names in `__all__`.
FACES = {"", ".backends", ".command_line", ".kernel", ".kernel.rules", ".nddata", ".phase3", ".prepare"}


@pytest.mark.parametrize(
    "full_name",
    [
        "zemosaic_stack_core",
        *(found.name for found in pkgutil.walk_packages(zemosaic_stack_core.__path__, prefix="zemosaic_stack_core.")),
    ],
)
def test_faces_list_their_names_and_no_other_module_does(full_name):
    module = importlib.import_module(full_name)
    listed = getattr(module, "__all__", None)
    assert (listed is not None) == (full_name.removeprefix("zemosaic_stack_core") in FACES)
    for name in listed or ():
        assert hasattr(module, name), name
    assert len(set(listed or ())) == len(listed or ())
