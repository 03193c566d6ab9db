"""What the thin files in ZeMosaic's folder call; `plug_files` writes it there, with PACKAGE at its end.

Must not import this package by name: ZeMosaic's folder has a module of that name.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import logging
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

_NAME = "zemosaic_stack_core"
_LOGGER = logging.getLogger(__name__)


def load(stem: str, namespace: dict[str, Any]) -> None:
    """Run ZeMosaic's own code of a module in its namespace, then set our names; its ``__main__`` part comes last."""
    ours = _package()
    if ours is not None and namespace["__name__"] == _NAME:
        return  # the module of our package's name: ours is found in its place
    code, main = _code(namespace["__name__"], f"{namespace['__file__']}.zemosaic")
    exec(code, namespace)  # noqa: S102 - ZeMosaic's own file
    if ours is not None:
        importlib.import_module(f"{_NAME}.zemosaic.plug_in").plug(stem, namespace)
    if main is not None:
        exec(main, namespace)  # noqa: S102 - ZeMosaic's own file


def _package() -> ModuleType | None:
    """Return our package, which a module of its name beside this file hides; None, with a line, where it is gone."""
    found = sys.modules.get(_NAME)
    if found is not None and hasattr(found, "__path__"):
        return found
    folder = str(globals()["PACKAGE"])
    spec = importlib.util.spec_from_file_location(
        _NAME, Path(folder) / "__init__.py", submodule_search_locations=[folder]
    )
    if spec is None or spec.loader is None or not Path(folder, "__init__.py").is_file():
        _LOGGER.warning("%s is not there: ZeMosaic's own stackers are used; plug in again", folder)
        return None
    module = importlib.util.module_from_spec(spec)
    sys.modules[_NAME] = module
    spec.loader.exec_module(module)
    return module


def _code(name: str, kept: str) -> tuple[CodeType, CodeType | None]:
    """Return the code of a file, and apart from it what runs only where it is the program."""
    if name != "__main__":
        return SourceFileLoader(name, kept).get_code(name), None  # type: ignore[return-value]
    tree = ast.parse(Path(kept).read_bytes(), kept)
    is_main = [isinstance(node, ast.If) and "__main__" in ast.unparse(node.test) for node in tree.body]
    parts = [
        ast.Module([node for node, main in zip(tree.body, is_main, strict=True) if main is wanted], [])
        for wanted in (False, True)
    ]
    own, main = (compile(part, kept, "exec") for part in parts)
    return own, main
