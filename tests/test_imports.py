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


@pytest.mark.parametrize("module", ["kernel", "sorting", "rejection"])
def test_the_kernel_imports_no_array_library_and_no_system(module):
    # -S -I: a site's .pth files may import anything.
    loaded = modules_loaded("-S", "-I", "-c", IMPORT_ALONE, zemosaic_stack_core.__path__[0], module)
    assert f"zemosaic_stack_core.{module}" in loaded
    assert not top_level(loaded) & (ARRAY_LIBRARIES | {"os", "logging", "subprocess", "threading", "multiprocessing"})
    own = {name.removeprefix("zemosaic_stack_core.") for name in loaded if name.startswith("zemosaic_stack_core")}
    above = {"runner", "frames", "backends", "statistics", "chunks", "auto", "master_tile", "result"}
    assert not {name.partition(".")[0] for name in own} & above


def test_the_package_starts_without_the_heavy_libraries():
    code = "import sys, json, zemosaic_stack_core; print(json.dumps(sorted(sys.modules)))"
    loaded = top_level(modules_loaded("-c", code))
    assert "zemosaic_stack_core" in loaded
    heavy = {"numpy", "array_api_compat", "cupy", "cupyx", "astropy", "torch", "scipy", "rich", "PIL", "dask"}
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


MODULES = sorted(
    module.name for module in pkgutil.walk_packages(zemosaic_stack_core.__path__, prefix="zemosaic_stack_core.")
)
OF_ANOTHER_PROGRAM = {"_stack_master_tile_auto", "_stack_master_tile_cpu"}
"""Public names that begin with an underscore: an existing program imports them under these names."""


@pytest.mark.parametrize("full_name", MODULES)
def test_all_is_what_is_defined(full_name):
    """`__all__` names every public class and function that the module defines, and nothing that isn't there."""
    module = importlib.import_module(full_name)
    listed = list(getattr(module, "__all__", []))  # the __init__ of a package that only holds modules has none
    assert len(listed) == len(set(listed))
    assert all(hasattr(module, public) for public in listed)
    assert not {public for public in listed if public.startswith("_")} - OF_ANOTHER_PROGRAM
    defined = {
        public
        for public, value in vars(module).items()
        if not public.startswith("_") and getattr(value, "__module__", None) == full_name and callable(value)
    }
    assert defined <= set(listed)
