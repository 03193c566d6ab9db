"""Read ZeMosaic's source for the calls that it makes of our names: whether ours can take them."""

from __future__ import annotations

import ast
import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

# How many values ZeMosaic may unpack of an answer.
_UNPACKED = {
    "_stack_master_tile_auto": 3,
    "_stack_master_tile_cpu": 2,
    "gpu_stack_from_paths": 2,
    "gpu_stack_from_arrays": 2,
    "stack_winsorized_sigma_clip": 2,
    "stack_kappa_sigma_clip": 2,
    "stack_linear_fit_clip": 2,
    "stack_core": 3,
    "compute_tile_photometric_scaling": 2,
}

_Plugs = Mapping[str, Mapping[str, Any]]


def unknown_calls(sources: Mapping[Path, bytes], plugs: _Plugs, whole: Sequence[str] = ()) -> Iterator[str]:
    """Yield a line for each call, in the source of ZeMosaic's modules, that ours can't take.

    Of a module that is ours as a `whole`, every name that is imported must be ours.
    """
    for path, source in sources.items():
        if not any(name.encode() in source for stem, names in plugs.items() for name in (stem, *names)):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SyntaxWarning)  # theirs
                tree = ast.parse(source, path.name)
        except (SyntaxError, ValueError) as error:
            if path.stem in plugs:  # any other that Python can't read is not run either
                yield f"{path.name} can't be read: {error}"
            continue
        for problem, line in _problems(tree, path.stem, plugs, whole):
            yield f"{path.name} line {line} {problem}"


def _problems(tree: ast.Module, stem: str, plugs: _Plugs, whole: Sequence[str]) -> Iterator[tuple[str, int]]:
    """Yield what is wrong in a module, and the line."""
    known: dict[str, Any] = {name: (name, value) for name, value in plugs.get(stem, {}).items()}
    modules = {name: plugs[name] for name in plugs}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            origin = (node.module or "").rpartition(".")[2]
            for item in node.names:
                if origin in plugs and item.name in plugs[origin]:
                    known[item.asname or item.name] = (item.name, plugs[origin][item.name])
                elif origin in whole:
                    yield f"imports {item.name} from {origin}, which ours has not", node.lineno
                elif item.name in plugs and origin in ("", "zemosaic"):
                    modules[item.asname or item.name] = plugs[item.name]
        elif isinstance(node, ast.Import):
            modules |= {item.asname: plugs[item.name] for item in node.names if item.asname and item.name in plugs}
    for node in ast.walk(tree):
        called = node.value if isinstance(node, ast.Assign) else node
        if not isinstance(called, ast.Call) or (found := _called(called, known, modules)) is None:
            continue
        name, ours = found
        if isinstance(node, ast.Assign):
            targets = [len(target.elts) for target in node.targets if isinstance(target, (ast.Tuple, ast.List))]
            if any(count != _UNPACKED.get(name, count) for count in targets):
                yield f"takes {targets[0]} values from {name}, which gives {_UNPACKED[name]}", node.lineno
        elif reason := _misfit(called, ours):
            yield f"calls {name}: {reason}", called.lineno


def _called(call: ast.Call, known: Mapping[str, Any], modules: _Plugs) -> tuple[str, Any] | None:
    """Return name and value of ours that a call is of; None for any other call."""
    function = call.func
    if isinstance(function, ast.Name):
        return known.get(function.id)
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        ours = modules.get(function.value.id, {})
        return (function.attr, ours[function.attr]) if function.attr in ours else None
    return None


def _misfit(call: ast.Call, ours: Any) -> str:
    """Return why ours can't take a call, empty where it can."""
    if not callable(ours) or (isinstance(ours, type) and issubclass(ours, BaseException)):
        return ""
    is_open = any(isinstance(item, ast.Starred) for item in call.args) or any(not item.arg for item in call.keywords)
    signature = inspect.signature(ours)
    positional = [None for item in call.args if not isinstance(item, ast.Starred)]
    keywords = {item.arg: None for item in call.keywords if item.arg}
    try:
        (signature.bind_partial if is_open else signature.bind)(*positional, **keywords)
    except TypeError as error:
        return str(error)
    return ""
