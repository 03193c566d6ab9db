"""What a package index, conda and a source distribution get; the command is there whatever stands beside it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import zemosaic_stack_core

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
RECIPE = (ROOT / "conda" / "recipe.yaml").read_text(encoding="utf-8")


def test_the_recipe_needs_what_the_package_needs() -> None:
    named = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["prepare"]]
    needed = {re.sub(r"^([\w-]+)(>=[\w.]+).*", r"\1 \2", one) for one in named}
    run = RECIPE.partition("  run:\n")[2].partition("\n\n")[0]
    assert set(re.findall(r"- (\S+ >=[\d.]+)", run)) == needed
    assert f'version: "{zemosaic_stack_core.__version__}"' in RECIPE
    assert f'python_min: "{PROJECT["requires-python"].removeprefix(">=")}"' in RECIPE
    (command,) = PROJECT["scripts"].items()
    assert " = ".join(command) in RECIPE


def test_the_lowest_versions_are_a_file_of_constraints() -> None:
    done = subprocess.run([sys.executable, str(ROOT / ".ci" / "oldest.py")], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert "numpy==2.1" in lines
    assert "cupy-cuda13x==13.6" in lines  # an extra's name may have brackets, a constraint's must not
    names = [re.split("[=;]", line)[0] for line in lines]
    assert len(set(names)) == len(names)


def test_extras_agree_on_their_versions() -> None:
    extras = PROJECT["optional-dependencies"]
    versions: dict[str, set[str]] = {}
    for one in [*PROJECT["dependencies"], *(one for named in extras.values() for one in named)]:
        name, _, version = one.partition(">=")
        versions.setdefault(name, set()).add(version)
    assert all(len(found) == 1 for found in versions.values())


def test_the_page_of_a_package_index_has_no_link_that_leads_nowhere() -> None:
    code = (
        "import runpy, sys, types; "
        "setuptools = types.SimpleNamespace(setup=lambda **what: print(what['long_description'])); "
        "sys.modules['setuptools'] = setuptools; runpy.run_path('setup.py')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.startswith("# ZeMosaic Stack Core")
    assert "](https://" in done.stdout or "](" not in done.stdout
    assert not re.search(r"\]\((?!https://)", done.stdout)
    assert "zemosaic-worker stack my_frames" in done.stdout


def test_what_is_installed_has_that_page() -> None:
    try:
        found = metadata.metadata("zemosaic-stack-core")
    except metadata.PackageNotFoundError:
        pytest.skip("the package is used from its folder, not installed")
    assert not re.search(r"\]\((?!https://)", found.get_payload() or found["Description"])


def test_the_command_needs_no_module_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "zemosaic_worker.py").write_text("raise RuntimeError('another one')\n", encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = [sys.executable, "-m", "zemosaic_stack_core", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert (done.stdout, done.stderr) == (f"zemosaic-worker {zemosaic_stack_core.__version__}\n", "")
