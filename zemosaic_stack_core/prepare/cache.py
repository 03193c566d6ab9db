"""Aligned frames on the disk: named by what they were made of, written whole, bounded in size."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import FrameReadError, InvalidInputError, OutputError
from zemosaic_stack_core.fits.stream import is_intact
from zemosaic_stack_core.frames.frame_lists import frame_stem
from zemosaic_stack_core.prepare.canvas.geometry import Canvas
from zemosaic_stack_core.prepare.canvas.levels import BOX
from zemosaic_stack_core.prepare.headers.raw_frame import RawFrame
from zemosaic_stack_core.prepare.records import PreparedFrame, PreparedGroup
from zemosaic_stack_core.prepare.stars.detect import StarList
from zemosaic_stack_core.system.atomic import atomic_output, flush_files, remove_leftovers
from zemosaic_stack_core.system.file_stamps import InputHashes, hash_text, hashes_from_json, hashes_to_json
from zemosaic_stack_core.system.quantities import size_text

# Part of every signature: raise it where the same input gives other pixels than before.
VERSION = 9
# Seconds: nobody writes a frame for so long.
_FORGOTTEN = 3600.0


def signature(*parts: object) -> str:
    """Return 20 hexadecimal digits that change with any of the parts (their `repr`)."""
    return hash_text(repr((VERSION, *parts)))[:20]


def save_array(target: Path, array: npt.NDArray[Any], *, flushes: bool = True) -> None:
    """Write a ``.npy`` file that takes its name when it is whole."""
    with atomic_output(target, overwrite=True, flushes=flushes) as file:
        np.save(file, array, allow_pickle=False)


def save_stars(target: Path, stars: StarList) -> None:
    """Keep a frame's star list."""
    with atomic_output(target, overwrite=True, flushes=False) as file:
        np.savez(file, **{name: value for name, value in vars(stars).items() if value is not None})


def boxes_file(aligned: Path) -> Path:
    """Return the file of an aligned frame's box medians."""
    return aligned.with_name(f"boxes-{aligned.stem}.npy")


def aligned_bytes(canvas: Canvas, *, is_color: bool) -> int:
    """Return what one aligned frame takes on the disk with its boxes, header aside."""
    boxes = -(-canvas.rows // BOX) * -(-canvas.columns // BOX)
    return (3 if is_color else 1) * 4 * (canvas.rows * canvas.columns + boxes) + 4 * 2880


class PrepareCache:
    """The files of one cache folder; `limit` bytes of aligned frames at most, by default 9/10 of the free space."""

    def __init__(self, folder: str | os.PathLike[str], limit: int | None = None) -> None:
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            expected = "expected a folder for the aligned frames that can be written (--cache names another)"
            raise OutputError(f"{self.folder}: {error.strerror}; {expected}") from None
        self.limit = limit

    def sign(self, frames: Sequence[RawFrame]) -> list[RawFrame]:
        """Return frames with the SHA-256 of their files; a file that has not changed since is not read again."""
        notes = self.folder / "inputs.json"
        try:
            hashes = InputHashes(hashes_from_json(json.loads(notes.read_text("utf-8"))))
        except (OSError, ValueError, TypeError):
            hashes = InputHashes()
        found = hashes.look([frame.path.resolve() for frame in frames])
        for frame, item in zip(frames, found, strict=True):
            if not item.is_readable:
                raise FrameReadError(f"{frame.name}: can't be read any more; expected it to stay")
        with atomic_output(notes, overwrite=True) as file:
            file.write(json.dumps(hashes_to_json(hashes.known.keys(), hashes.known.values())).encode())
        return [replace(frame, digest=item.sha256) for frame, item in zip(frames, found, strict=True)]

    def aligned(self, key: str, name: str) -> Path:
        """Return the file of an aligned frame, whose raw file has this name."""
        plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", frame_stem(name))[:120]
        return self.folder / f"aligned-{plain}-{key[:12]}.fits"

    def check_room(self, needed: int, keep: Iterable[Path]) -> None:
        """Raise, before any work, where `needed` bytes of frames don't fit; `keep` are there already and stay."""
        there = sum(path.stat().st_size for path in keep if path.exists())
        if self.limit is not None and needed > self.limit:
            raise InvalidInputError(
                f"{self.folder}: the aligned frames need {size_text(needed)}; expected at most "
                f"{size_text(self.limit)}, the cache limit"
            )
        others = sum(p.stat().st_size for p in self.folder.glob("aligned-*.fits"))
        free = shutil.disk_usage(self.folder).free + others - there
        if needed - there > 0.9 * free:
            raise InvalidInputError(
                f"{self.folder}: the aligned frames need {size_text(needed)} and {size_text(free)} are free; "
                "expected nine tenths of the free space to be enough"
            )

    def shrink(self, keep: Iterable[Path]) -> None:
        """Remove frames that are not in `keep`, oldest first, until the limit (or half of the free space) is kept.

        And what killed runs left; another run may be at work here, on files that it has touched just now.
        """
        remove_leftovers(self.folder, older_than_s=_FORGOTTEN)
        kept = {path.resolve() for path in keep}
        frames = sorted(self.folder.glob("aligned-*.fits"), key=lambda path: path.stat().st_mtime_ns)
        total = sum(path.stat().st_size for path in frames)
        limit = self.limit if self.limit is not None else shutil.disk_usage(self.folder).free // 2
        for path in frames:
            if total <= limit:
                break
            if path.resolve() not in kept:
                total -= path.stat().st_size
                path.unlink(missing_ok=True)

    def stars_file(self, key: str) -> Path:
        """Return the file of a frame's star list."""
        return self.folder / f"stars-{key}.npz"

    def load_stars(self, key: str) -> StarList | None:
        """Return a star list that was kept; None where there is none."""
        try:
            # Opened here: NumPy leaves a file that is no archive open.
            with self.stars_file(key).open("rb") as stored, np.load(stored, allow_pickle=False) as file:
                return StarList(**{name: file[name] if file[name].ndim else file[name].item() for name in file.files})
        except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile):
            return None

    def load_boxes(self, aligned: Path) -> npt.NDArray[np.float32] | None:
        """Return the box medians of an aligned frame; None where there are none."""
        try:
            with boxes_file(aligned).open("rb") as file:
                boxes: npt.NDArray[np.float32] = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return None
        return boxes

    def save_hot(self, hot: npt.NDArray[np.bool_]) -> Path:
        """Keep a map of hot pixels and return its file."""
        path = self.folder / f"hot-{signature('hot', hot.shape, np.packbits(hot).tobytes())}.npy"
        save_array(path, hot)
        return path

    def has_whole(self, aligned: Path) -> bool:
        """Return whether an earlier run left an aligned frame; one that was cut off with the power is removed."""
        is_whole = is_intact(aligned)
        if not is_whole:
            aligned.unlink(missing_ok=True)
        return is_whole

    def save_group(self, key: str, group: PreparedGroup) -> None:
        """Keep a whole preparation, whose frames are then on the disk."""
        flush_files(group.paths)
        text = json.dumps(asdict(group), default=str, indent=1)
        with atomic_output(self.folder / f"group-{key}.json", overwrite=True) as file:
            file.write(text.encode())

    def load_group(self, key: str) -> PreparedGroup | None:
        """Return a preparation whose files are all there; None where it is not."""
        try:
            found: dict[str, Any] = json.loads((self.folder / f"group-{key}.json").read_text("utf-8"))
            frames = tuple(_frame(frame) for frame in found.pop("frames"))
            canvas = Canvas(**found.pop("canvas"))
            masters = tuple((str(kind), int(count)) for kind, count in found.pop("masters"))
            group = PreparedGroup(
                **{**found, "frames": frames, "canvas": canvas, "masters": masters, "from_cache": True}
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if not all(path.exists() for path in group.paths):
            return None
        for path in group.paths:
            with contextlib.suppress(OSError):
                os.utime(path)  # the oldest go first: these are wanted
        return group


def _frame(stored: dict[str, Any]) -> PreparedFrame:
    """Return a frame's record as it was."""
    aligned = None if stored["aligned"] is None else Path(stored["aligned"])
    return PreparedFrame(
        **{**stored, "path": Path(stored["path"]), "shift": tuple(stored["shift"]), "aligned": aligned}
    )
