"""Decode compressed frames once, into files of plain rows in a scratch folder that is removed in every case.

The folder belongs to whoever holds its `ScratchFolder`: it goes when that is closed, collected, or the process ends.
A process that was killed can't clean up; its folder holds a lock file whose lock died with it, and the next run that
makes a scratch folder beside it removes it.
"""

from __future__ import annotations

import errno
import gzip
import os
import shutil
import tempfile
import threading
import time
import weakref
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from zemosaic_stack_core.errors import FrameReadError, ScratchError
from zemosaic_stack_core.fits.astropy_reads import open_fits
from zemosaic_stack_core.frames.fits_rows import CompressedImage
from zemosaic_stack_core.frames.pixel_rows import PixelLayout

_PREFIX = "zemosaic-scratch-"
_LOCK = "lock"
_COPY_BYTES = 1024 * 1024
# Of the disk: a decompression bomb must not fill it.
_KEEP_FREE_BYTES = 64 * 1024 * 1024
# A folder this young may belong to a process that has not locked it yet.
_GRACE_SECONDS = 60.0
# The densest real codecs: deflate reaches 1032:1, PLIO 8192:1. A header that claims more than this is not believed.
_LARGEST_RATIO = 10_000


class ScratchFolder:
    """A folder for decoded frames, made when the first one needs it, in `parent` or else in ``TMPDIR``.

    Pickled, it becomes a borrowed reference: the copy in a worker process never removes anything. Its methods raise
    `FrameReadError` where a frame's data are damaged, and `ScratchError` where the folder is full or can't be written.
    """

    def __init__(self, parent: Path | None = None) -> None:
        self._parent = parent
        self._folder: Path | None = None
        self._count = 0
        self._making = threading.Lock()
        self._finalizer: weakref.finalize[Any, ScratchFolder] | None = None

    def __enter__(self) -> ScratchFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[type[ScratchFolder], tuple[Path | None]]:
        return ScratchFolder, (self._parent,)

    @property
    def path(self) -> Path | None:
        """The folder, or None while nothing needed it."""
        return self._folder

    def close(self) -> None:
        """Remove the folder and all that is in it."""
        if self._finalizer is not None:
            self._finalizer()
        self._folder = None

    def _new_file(self, name: str) -> Path:
        """Return a path for the next decoded frame, that of `name`; make the folder first if there is none."""
        with self._making:
            if self._folder is None:
                with _disk_errors(name, "the temporary folder" if self._parent is None else self._parent):
                    parent = Path(tempfile.gettempdir()) if self._parent is None else self._parent
                    _remove_abandoned(parent)
                    self._folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
                    lock = FileIO(self._folder / _LOCK, "w")
                    _try_lock(lock)
                    self._finalizer = weakref.finalize(self, _remove, self._folder, lock, os.getpid())
            self._count += 1
            return self._folder / f"{self._count}.rows"

    def inflate(self, path: Path, name: str) -> Path:
        """Decompress a gzip file; return the decompressed one."""
        target = self._new_file(name)
        with _removed_on_error(target), _disk_errors(name, target.parent), target.open("xb") as out:
            for piece in _inflated(path, name):
                _check_room(target, len(piece))
                out.write(piece)
        return target

    def decode_image(self, path: Path, image: CompressedImage, name: str) -> tuple[Path, PixelLayout]:
        """Decode a tile-compressed FITS image, a few rows at a time; return the file of rows and its layout."""
        size = image.layout.data_bytes
        if size > _LARGEST_RATIO * max(image.stored_bytes, 1):
            raise FrameReadError(
                f"{name}: {image.stored_bytes} compressed bytes; expected more for the {size} bytes in its header"
            )
        target = self._new_file(name)
        with _removed_on_error(target), _disk_errors(name, target.parent), target.open("xb") as out:
            _check_room(target, size)
            stored = image.layout.stored.newbyteorder("=")
            for rows in _decoded_rows(path, image, name):
                out.write(np.ascontiguousarray(rows, stored).data)
            written = out.tell()
        if written != size:
            target.unlink()
            raise FrameReadError(f"{name}: {written} decoded bytes; expected {size}")
        return target, replace(image.layout, stored=stored)

    def store(self, blocks: Iterable[np.ndarray[Any, np.dtype[Any]]], name: str) -> Path:
        """Write arrays one after the other; return the file."""
        target = self._new_file(name)
        with _removed_on_error(target), _disk_errors(name, target.parent), target.open("xb") as out:
            for block in blocks:
                _check_room(target, block.nbytes)
                out.write(block.data)
        return target

    def transpose(self, path: Path, layout: PixelLayout, name: str) -> tuple[Path, PixelLayout]:
        """Rewrite an array from Fortran to C order, a few rows at a time; return the file of rows and its layout."""
        target = self._new_file(name)
        if layout.interleaved:
            shape: tuple[int, ...] = (layout.rows, layout.columns, layout.channels)
        else:
            shape = (layout.channels, layout.rows, layout.columns)
        try:
            array = np.memmap(path, layout.stored, "r", layout.offset, shape, "F")
        except (OSError, ValueError) as error:
            raise FrameReadError(f"{name}: {error}; expected a readable file") from None
        planes = [array] if layout.interleaved else list(array)
        step = max(1, _COPY_BYTES // (layout.data_bytes // layout.rows))
        with _removed_on_error(target), _disk_errors(name, target.parent), target.open("xb") as out:
            _check_room(target, layout.data_bytes)
            for plane in planes:
                for start in range(0, layout.rows, step):
                    out.write(np.ascontiguousarray(plane[start : start + step]).data)
        return target, replace(layout, offset=0)


def _inflated(path: Path, name: str) -> Iterator[bytes]:
    """Yield the decompressed content of a gzip file in pieces."""
    try:
        with gzip.open(path, "rb") as packed:
            while piece := packed.read(_COPY_BYTES):
                yield piece
    except EOFError:
        raise FrameReadError(f"{name}: gzip data end too early; expected a whole file (is it cut off?)") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise FrameReadError(f"{name}: damaged gzip data ({error}); expected a whole file") from None
    except OSError as error:
        raise FrameReadError(f"{name}: {error.strerror or error}; expected a readable file") from None


def _decoded_rows(path: Path, image: CompressedImage, name: str) -> Iterator[np.ndarray[Any, np.dtype[Any]]]:
    """Yield the stored values of a tile-compressed image, planes of whole tile rows at a time."""
    layout = image.layout
    axes = (layout.columns, layout.rows) if not layout.interleaved else (layout.channels, layout.columns)
    with open_fits(path, f"{name}: damaged compressed image", "a whole file", do_not_scale_image_data=True) as hdus:
        hdu = hdus[image.hdu]
        tile_rows = int(getattr(hdu, "tile_shape", (1,) * len(hdu.shape))[-2])
        section = hdu.section
        length = hdu.shape[-2]
        # Whole rows of tiles, so that none is decoded twice.
        step = tile_rows * max(1, _COPY_BYTES // (layout.stored.itemsize * axes[0] * tile_rows))
        for plane in np.ndindex(hdu.shape[:-2]):
            for start in range(0, length, step):
                yield section[(*plane, slice(start, min(start + step, length)), slice(None))]


@contextmanager
def _removed_on_error(target: Path) -> Iterator[None]:
    """Leave no half-written file behind."""
    try:
        yield
    except BaseException:
        target.unlink(missing_ok=True)
        raise


@contextmanager
def _disk_errors(name: str, folder: Path | str) -> Iterator[None]:
    """Name frame and folder in an error of the scratch disk, which says nothing against the frame."""
    try:
        yield
    except FrameReadError:
        raise
    except OSError as error:
        reason = f"{name}: can't be decoded into {folder}: {error.strerror or error}"
        raise ScratchError(f"{reason}; expected room there (TMPDIR names another folder)") from error


def _check_room(target: Path, size: int) -> None:
    """Raise ENOSPC where writing `size` bytes would all but fill the disk."""
    if shutil.disk_usage(target.parent).free < size + _KEEP_FREE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _remove(folder: Path, lock: FileIO, owner: int) -> None:
    """Remove a scratch folder, unless this is a forked copy of the process that made it."""
    lock.close()
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


def _try_lock(file: FileIO) -> bool:
    """Take the lock of a scratch folder; False if its owner lives."""
    try:
        import fcntl
    except ImportError:  # Windows: an open file can't be removed there, which is lock enough
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove_abandoned(parent: Path) -> None:
    """Remove the scratch folders of processes that were killed."""
    for folder in parent.glob(f"{_PREFIX}*"):
        try:
            if time.time() - folder.stat().st_mtime < _GRACE_SECONDS:
                continue
            with FileIO(folder / _LOCK, "r+") as lock:
                abandoned = _try_lock(lock)
            if abandoned:
                (folder / _LOCK).unlink()  # fails on Windows while the owner has it open
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # another user's, or just gone
            continue
