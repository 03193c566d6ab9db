"""Turn the frames of a command line into paths: files, folders, patterns and ``@list`` files."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from zemosaic_stack_core.errors import FrameReadError, InvalidInputError
from zemosaic_stack_core.frames.foreign_names import RAW_SUFFIXES, TIFF_SUFFIXES, XISF_SUFFIXES
from zemosaic_stack_core.frames.known_folders import kind_of_folder, without_kept

_FITS_SUFFIXES = (".fit", ".fits", ".fts", ".fz", ".fit.gz", ".fits.gz", ".fts.gz")
# So many folders are named.
_LISTED = 3
# A letter alone before the colon is a drive of Windows'. fsspec joins protocols by two colons.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.:-]+://.+")
FRAME_SUFFIXES = (*_FITS_SUFFIXES, ".npy", *XISF_SUFFIXES, *RAW_SUFFIXES, *TIFF_SUFFIXES)


def natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Return the sorting key of natural name order: ``light_9`` before ``light_10``, case ignored."""
    parts = re.split(r"(\d+)", path.name.casefold())
    # Splitting at digits makes every second part a number. The name itself, last, decides between "1" and "01".
    key = [(1, int(part), "") if index % 2 else (0, 0, part) for index, part in enumerate(parts)]
    return [*key, (-1, 0, path.name)]


def expand_frame_arguments(arguments: Sequence[str]) -> list[Path]:
    """Return the files that command-line arguments name, in their order; those named one by one may not exist.

    An argument is a file; a folder, which means its frames (by suffix, not recursive) in natural name order, or where
    it has none those of its folders ``lights``, ``darks``, ``flats``, ``biases`` and the like (or in folders below);
    ``@list.txt``, a UTF-8 text of one path a line, relative to the list's folder, blank lines and ``#`` comments
    ignored; or a pattern with ``*`` or ``?`` that no shell has expanded. Raise `InvalidInputError` where one gives no
    frame, or there is none, and `FrameReadError` where a folder or a list can't be read.
    """
    paths = [path for argument in arguments for path in _expand(argument)]
    if not paths:
        raise InvalidInputError("no frames named; expected files, folders or @list files")
    return paths


def find_repeated(paths: Sequence[Path]) -> dict[Path, int]:
    """Return the files that are named more than once, each under its first name, and how often; links are followed.

    More often than not a folder was named together with files in it.
    """
    real = [os.path.realpath(path) for path in paths]
    counts = Counter(real)
    first = dict(zip(reversed(real), reversed(paths), strict=True))
    return {first[name]: count for name, count in counts.items() if count > 1}


def least_frames(given: int) -> int:
    """Return how many of so many frames must be good where nothing else was asked for.

    More than a third, and two where there were two: what is left of fewer is no picture of these frames, and more
    often than not all of them are lost for one reason (the wrong folder, a reference of another field).
    """
    return max(given // 3 + 1, min(2, given))


def is_url(name: str) -> bool:
    """Return whether a name is a URL."""
    return _URL.match(name) is not None


def split_extension(name: str) -> tuple[Path, str | None]:
    """Return the file of a name, and the extension that it names, as in ``x.fits[SCI,2]``."""
    path = Path(name).expanduser()
    found = re.fullmatch(r"(.+)\[([^\[\]]+)\]", name)
    if found is None or os.path.lexists(path):
        return path, None
    return Path(found[1]).expanduser(), found[2]


def _expand(argument: str) -> list[Path]:
    """Return the files of one argument."""
    if argument.startswith("@"):
        return _read_list(_path_of(argument[1:]))
    if is_url(argument):
        raise InvalidInputError(
            f"{argument}: a URL; expected files, folders, patterns or @lists (stack() takes URLs in a list)"
        )
    path = _path_of(argument)
    try:
        is_folder, is_there = path.is_dir(), path.exists()
    except OSError:  # a name that is too long: reading it says more
        return [path]
    if is_folder:
        return _frames_in(path)
    if not is_there and any(character in path.name for character in "*?"):
        found = sorted((p for p in path.parent.glob(path.name) if p.is_file()), key=natural_key)
        if not found:
            raise InvalidInputError(f"{argument}: no file matches; expected at least one")
        return found
    return [path]


def _path_of(text: str) -> Path:
    """Return the path of a name, in somebody's home where it begins so and there is one."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # ~nobody
        return Path(text)


def _frames_in(folder: Path) -> list[Path]:
    """Return the frames of a folder; where it has none itself, those of its folders ``lights``, ``darks``, ..."""
    found = _files_in(folder) or [path for part in kind_folders(folder) for path in _files_of_kind(part)]
    if not found:
        if inner := folders_of_frames(folder):
            names = ", ".join(str(part) for part in inner[:_LISTED])
            more = f" and {len(inner) - _LISTED} more" if len(inner) > _LISTED else ""
            raise InvalidInputError(
                f"{folder}: no frames in it, but in {names}{more}; expected one of these folders "
                "(zemosaic-worker run makes a tile of each)"
            )
        known = f"{', '.join(_FITS_SUFFIXES)}, .npy, .xisf, .tif, or as a camera's raw files do"
        raise InvalidInputError(f"{folder}: no frames in it; expected files ending in {known}")
    return found


def _files_of_kind(folder: Path) -> list[Path]:
    """Return the frames of one kind: those in its folder, else in the folders below, one for each filter or night."""
    below = sorted((part for part in folder.iterdir() if part.is_dir() and part.name[0] != "."), key=natural_key)
    return _files_in(folder) or [path for part in below for path in _files_in(part)]


def folders_of_frames(folder: Path) -> list[Path]:
    """Return the folders in a folder that have frames."""
    try:
        parts = sorted((part for part in folder.iterdir() if part.is_dir()), key=natural_key)
        return [part for part in parts if part.name[0] != "." and _files_in(part)]
    except (OSError, FrameReadError):
        return []


def kind_folders(folder: Path) -> list[Path]:
    """Return the folders in a folder that are called as a kind of frame, lights first; none without lights."""
    try:
        parts = {part: kind_of_folder(part.name) for part in sorted(folder.iterdir(), key=natural_key) if part.is_dir()}
    except OSError:
        return []
    lights = [part for part, kind in parts.items() if kind == "light"]
    return lights and [*lights, *(part for part, kind in parts.items() if kind not in ("", "light"))]


def calibration_beside(folder: Path, paths: Sequence[Path]) -> list[str]:
    """Return the folders of calibration frames in a folder, none of whose frames are among `paths`."""
    used = {path.absolute().parent for path in paths}
    names = [part.name for part in folder.iterdir() if kind_of_folder(part.name) not in ("", "light") and part.is_dir()]
    return sorted(name for name in names if folder.absolute() / name not in used)


def frame_stem(name: str) -> str:
    """Return a frame's file name without what its format ends in: ``a_10.0s.fit.gz`` is ``a_10.0s``."""
    for suffix in (".fz", *sorted(FRAME_SUFFIXES, key=len, reverse=True)):
        if name.casefold().endswith(suffix):
            name = name[: -len(suffix)]
    return name


def _files_in(folder: Path) -> list[Path]:
    """Return the frames that lie in a folder; hidden files and what a preparation keeps are not among them."""
    try:
        with os.scandir(folder) as entries:
            named = [one for one in entries if one.name.casefold().endswith(FRAME_SUFFIXES) and one.name[0] != "."]
            found = [folder / one.name for one in named if not one.is_dir()]
            # Beside other frames a TIFF is a picture that somebody made of them.
            found = [one for one in found if one.suffix.casefold() not in TIFF_SUFFIXES] or found
    except OSError as error:
        raise FrameReadError(f"{folder}: {error.strerror}; expected a readable folder") from None
    return sorted(without_kept(found), key=natural_key)


def _read_list(path: Path) -> list[Path]:
    """Return the paths in a list file."""
    paths = [path.parent / line for _, line in read_lines(path, "list of frames")]
    if not paths:
        raise InvalidInputError(f"{path}: no paths in this list; expected one a line")
    return paths


def read_lines(path: Path, what: str) -> list[tuple[int, str]]:
    """Return number and text of the lines of a list; blank ones and ``#`` comments are ignored. Raise if unreadable."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise FrameReadError(f"{path}: {error.strerror}; expected a readable {what}") from None
    except UnicodeDecodeError:
        raise FrameReadError(f"{path}: not UTF-8 text; expected one path a line") from None
    lines = ((number, line.strip()) for number, line in enumerate(text.splitlines(), start=1))
    return [(number, line) for number, line in lines if line and not line.startswith("#")]
