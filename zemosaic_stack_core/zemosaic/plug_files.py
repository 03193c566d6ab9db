"""Thin files of ours in ZeMosaic's folder: beside each lies ZeMosaic's own under another name, which it loads first.

A module is replaced at a time, by renaming: ZeMosaic is whole at any moment, with ours in none, some or all of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any

import zemosaic_stack_core
from zemosaic_stack_core.errors import InvalidInputError, OutputError
from zemosaic_stack_core.system.atomic import atomic_output, remove_leftovers
from zemosaic_stack_core.zemosaic import calls
from zemosaic_stack_core.zemosaic.plug_in import PLUGS, RUN, WORKER

# What is added to the name of ZeMosaic's own file.
KEPT = ".zemosaic"
# The helper of the thin files, and the marker.
HELPER, MARKER = "_zsc_plug.py", ".zemosaic_stack_core.json"
_FIRST_LINE = "# Put here by zemosaic-worker plug-in"
# Which of our versions put them there, and from where.
_VERSION = {
    "version": zemosaic_stack_core.__version__,
    "package": str(Path(zemosaic_stack_core.__file__).resolve().parent),
}


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A folder of ZeMosaic's and what is in place there."""

    # Where its modules are.
    code: Path
    # They are a package, ``zemosaic``.
    is_package: bool
    # Modules that are there, of those in `PLUGS`; and those where ours is in place.
    modules: tuple[str, ...]
    plugged: tuple[str, ...]
    # What the marker says; empty without one.
    marker: Mapping[str, Any]
    # Calls that ours can't take, one line each.
    unknown: tuple[str, ...]

    @property
    def is_in_place(self) -> bool:
        """Whether ours is in place in every module, from this package."""
        return self.plugged == self.modules and self.fits

    @property
    def fits(self) -> bool:
        """Whether it was put there by this version, from where this package is."""
        return self.marker.items() >= _VERSION.items()

    def lines(self) -> list[str]:
        """Return what is to be said of it."""
        found = f"{self.code}: ZeMosaic, {'a package' if self.is_package else 'modules side by side'}"
        lines = [found, *(f"a call that ours can't take: {call}" for call in self.unknown)]
        if not self.plugged:
            return [*lines, "ours is not in place"]
        lines.append(f"ours is in place in {', '.join(self.plugged)}")
        if self.plugged != self.modules:
            rest = ", ".join(stem for stem in self.modules if stem not in self.plugged)
            lines.append(f"ZeMosaic's own in {rest}, as after an update of ZeMosaic: plug in again")
        if not self.fits:
            was, now = (f"version {put.get('version')} in {put.get('package')}" for put in (self.marker, _VERSION))
            lines.append(f"put there by {was}; this is {now}: plug in again")
        return lines


def look(folder: str | os.PathLike[str]) -> Folder:
    """Look at a folder of ZeMosaic's.

    Raises
    ------
    InvalidInputError
        It is not ZeMosaic's.
    """
    top = Path(folder)
    places = [top, top / "src" / "zemosaic", top / "zemosaic"]
    code = next((place for place in places if _defines_a_run(place / f"{WORKER}.py")), None)
    if code is None:
        raise InvalidInputError(
            f"{top}: not ZeMosaic; expected a folder with {WORKER}.py that defines {RUN}, there or in src/zemosaic"
        )
    modules = tuple(stem for stem in PLUGS if (code / f"{stem}.py").is_file())
    marker: Mapping[str, Any] = {}
    with suppress(OSError, ValueError):
        marker = json.loads((code / MARKER).read_text(encoding="utf-8"))
    is_package = (code / "__init__.py").is_file()
    paths = sorted([*code.glob("*.py"), *code.glob("core/**/*.py")])
    sources = {path: _own_file(path).read_bytes() for path in paths if path.name != HELPER}
    return Folder(
        code=code.resolve(),
        is_package=is_package,
        modules=modules,
        plugged=tuple(stem for stem in modules if _is_ours(code / f"{stem}.py")),
        marker=marker,
        unknown=tuple(calls.unknown_calls(sources, PLUGS, whole=() if is_package else ("zemosaic_stack_core",))),
    )


def put_in(folder: str | os.PathLike[str]) -> Folder:
    """Put ours in place; a module at a time, so that ZeMosaic is whole at any moment. Twice is once.

    Raises
    ------
    InvalidInputError
        The folder is not ZeMosaic's, or makes a call that ours can't take.
    OutputError
        A file can't be written.
    """
    found = look(folder)
    if found.unknown:
        raise InvalidInputError(f"{found.code}: {found.unknown[0]}; expected calls that this version can take")
    if found.is_in_place:
        return found
    remove_leftovers(found.code)
    _write(found.code / HELPER, _helper())
    own = {stem: _hash(_own_file(found.code / f"{stem}.py")) for stem in found.modules}
    _write(found.code / MARKER, json.dumps({**_VERSION, "own_files": own}, indent=1) + "\n")
    for stem in found.modules:
        target = found.code / f"{stem}.py"
        if not _is_ours(target):
            _keep(target)
        _write(target, _thin(stem, is_package=found.is_package))
    return look(folder)


def take_out(folder: str | os.PathLike[str]) -> Folder:
    """Restore every file of ZeMosaic's, and leave nothing of ours.

    Raises
    ------
    InvalidInputError
        The folder is not ZeMosaic's, or its own file is missing or changed.
    """
    found = look(folder)
    own = found.marker.get("own_files", {})
    for stem in found.plugged:
        kept = _kept(found.code / f"{stem}.py")
        if own.get(stem) not in (None, _hash(kept)):
            raise InvalidInputError(f"{kept}: changed since it was put aside; expected ZeMosaic's own {stem}.py")
    for stem in found.modules:
        target = found.code / f"{stem}.py"
        if stem in found.plugged:
            _kept(target).replace(target)
        _forget(_kept(target))  # one is still there where an update of ZeMosaic has replaced ours
    for name in (HELPER, MARKER):
        _forget(found.code / name)
    remove_leftovers(found.code)
    return look(folder)


def _forget(path: Path) -> None:
    """Remove a file and what Python has compiled of it."""
    path.unlink(missing_ok=True)
    Path(cache_from_source(str(path))).unlink(missing_ok=True)


def _hash(path: Path) -> str:
    """Return the hash of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _kept(target: Path) -> Path:
    """Return the name under which ZeMosaic's own file is kept."""
    return target.with_name(target.name + KEPT)


def _is_ours(target: Path) -> bool:
    """Return whether a file is one of our thin ones."""
    with target.open("rb") as file:
        return file.read(len(_FIRST_LINE)) == _FIRST_LINE.encode()


def _own_file(target: Path) -> Path:
    """Return ZeMosaic's own file of a module."""
    if not _is_ours(target):
        return target
    kept = _kept(target)
    if not kept.is_file():
        raise InvalidInputError(
            f"{kept}: missing; expected ZeMosaic's own {target.name}, which ours stands in the place of"
        )
    return kept


def _defines_a_run(worker: Path) -> bool:
    """Return whether a file is ZeMosaic's worker."""
    return worker.is_file() and f"def {RUN}(".encode() in _own_file(worker).read_bytes()


def _keep(target: Path) -> None:
    """Copy ZeMosaic's own file, with its times, under its other name."""
    half = target.with_name(f".zsc-{target.name}.tmp")
    try:
        shutil.copy2(target, half)
        with half.open("rb+") as file:
            os.fsync(file.fileno())
        half.replace(_kept(target))
    except OSError as error:
        raise OutputError(f"{_kept(target)}: can't be written: {error.strerror or error}") from error


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with atomic_output(path, overwrite=True) as file:
        file.write(text.encode())


def _thin(stem: str, *, is_package: bool) -> str:
    """Return the file of ours that stands in a module's place."""
    helper = "zemosaic._zsc_plug" if is_package else "_zsc_plug"
    return f"""{_FIRST_LINE} (zemosaic-stack-core {zemosaic_stack_core.__version__}).
# ZeMosaic's own file is {stem}.py{KEPT}; zemosaic-worker plug-in FOLDER --remove restores it.
from {helper} import load

load({stem!r}, globals())
"""


def _helper() -> str:
    """Return the helper of the thin files."""
    template = Path(__file__).with_name("thin_helper.py").read_text(encoding="utf-8")
    return f"{_FIRST_LINE}: loads ZeMosaic's own modules, then ours.\n{template}\nPACKAGE = {_VERSION['package']!r}\n"
