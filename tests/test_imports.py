"""What an import costs and brings: the kernel knows no array library, the package starts without the heavy ones."""

import importlib
import json
import pkgutil
import subprocess
import sys

import pytest

import zemosaic_stack_core

# Imports one module with its package's `__init__` stepped over, so that only what the module itself needs is loaded.
IMPORT_ALONE = """
import importlib.machinery, json, sys, types
from pathlib import Path

root, module = Path(sys.argv[1]), sys.argv[2]
package = types.ModuleType("zemosaic_stack_core")
package.__path__ = [str(root)]
package.__spec__ = importlib.machinery.ModuleSpec("zemosaic_stack_core", None, is_package=True)
sys.modules["zemosaic_stack_core"] = package
before = set(sys.modules)
__import__("zemosaic_stack_core." + module)
print(json.dumps(sorted(set(sys.modules) - before)))
"""

ARRAY_LIBRARIES = {"numpy", "cupy", "cupyx", "torch", "array_api_compat", "astropy", "scipy"}


def modules_loaded(*arguments):
    """Run Python apart from this process and give the list that it prints."""
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def top_level(names):
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("module", ["kernel", "kernel.sorting", "kernel.rules"])
def test_the_kernel_imports_no_array_library_and_no_system(module):
    # -S -I: a site's .pth files may import anything.
    loaded = modules_loaded("-S", "-I", "-c", IMPORT_ALONE, zemosaic_stack_core.__path__[0], module)
    assert f"zemosaic_stack_core.{module}" in loaded
    assert not top_level(loaded) & (ARRAY_LIBRARIES | {"os", "logging", "subprocess", "threading", "multiprocessing"})
    own = {
        name.removeprefix("zemosaic_stack_core").removeprefix(".")
        for name in loaded
        if name.startswith("zemosaic_stack_core")
    }
    assert {name.partition(".")[0] for name in own} <= {"", "errors", "options", "kernel"}


def test_the_package_starts_without_the_heavy_libraries():
    code = "import sys, json, zemosaic_stack_core; print(json.dumps(sorted(sys.modules)))"
    loaded = top_level(modules_loaded("-c", code))
    assert "zemosaic_stack_core" in loaded
    heavy = {"numpy", "array_api_compat", "cupy", "cupyx", "astropy", "torch", "scipy", "rich", "PIL", "dask", "jinja2"}
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
FACES = {"", ".backends", ".command_line", ".kernel.rules", ".phase3", ".prepare"}


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
