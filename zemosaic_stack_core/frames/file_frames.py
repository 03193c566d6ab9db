"""Frames in files: a header parsed once, then rows by position."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field, replace
from io import FileIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import FrameReadError, InvalidInputError
from zemosaic_stack_core.frames.fits_rows import FIRST_READ, find_fits_image
from zemosaic_stack_core.frames.npy_rows import MAGIC, find_npy_image
from zemosaic_stack_core.frames.pixel_rows import FilePool, PixelLayout
from zemosaic_stack_core.frames.scratch import ScratchFolder

_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFrame:
    """A frame in a file; see `FrameSource`.

    Parameters
    ----------
    name : str
        The path as given.
    path : Path
        The file that the user named.
    data_path : str
        The file with the rows: `path`, or its decoded copy in a scratch folder.
    layout : PixelLayout
        Where the rows are.
    is_color : bool
        Whether the image has a channel axis.
    scratch : ScratchFolder or None
        Keeps the folder of `data_path` while this record lives in the process that made it.
    """

    name: str
    path: Path
    data_path: str
    layout: PixelLayout
    is_color: bool
    scratch: ScratchFolder | None = field(default=None, repr=False, compare=False)

    @property
    def rows(self) -> int:
        """Rows of the image."""
        return self.layout.rows

    @property
    def columns(self) -> int:
        """Columns of the image."""
        return self.layout.columns

    @property
    def channels(self) -> int:
        """Channels, 1 for mono."""
        return self.layout.channels

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type handed out."""
        return self.layout.dtype

    def read_rows(self, start: int, stop: int, out: npt.NDArray[Any], files: FilePool) -> None:
        """Fill `out`, of shape (channels, stop - start, columns), with rows `start` to `stop`."""
        files.read_rows(self.data_path, self.name, self.layout, start, stop, out)

    def read_planes(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return rows `start` to `stop`, shape (channel, row, column)."""
        planes = np.empty((self.channels, stop - start, self.columns), self.dtype)
        with FilePool() as files:
            self.read_rows(start, stop, planes, files)
        return planes

    def advise_rows(self, start: int, stop: int, files: FilePool) -> None:
        """Tell the system that rows `start` to `stop` are wanted soon."""
        files.advise_rows(self.data_path, self.name, self.layout, start, stop)


def probe_frame(
    path: str | os.PathLike[str],
    *,
    scratch: ScratchFolder | None = None,
    extension: str | None = None,
) -> FileFrame:
    """Read the header of a frame's file; decode the file to scratch if it is compressed.

    Parameters
    ----------
    path : str or Path
        A FITS file (``.fits``, gzipped or tile-compressed: recognized by content, not by name) or a ``.npy`` file.
    scratch : ScratchFolder, optional
        Where decoded frames go. Default: a folder of this frame's own, which goes when the frame does.
    extension : str, optional
        ``EXTNAME`` of the FITS image to read instead of the first one.

    Returns
    -------
    FileFrame
        All its pixels are in the file, by its size.

    Raises
    ------
    FrameReadError
        The file is missing, not an image, cut off, or contradicts itself: one line, what was found and expected.
    OSError
        The scratch folder is full or can't be written; the frame itself may be good.
    """
    path, name = path if isinstance(path, Path) else Path(path), os.fspath(path)
    scratch = ScratchFolder() if scratch is None else scratch
    head = _Head(path, name)
    if head.read_at(0, 2) != _GZIP_MAGIC:
        return _probe_plain(head, path, scratch, extension)
    inflated = scratch.inflate(path, name)
    is_used = False
    try:
        frame = _probe_plain(_Head(inflated, name), path, scratch, extension)
        is_used = frame.data_path == os.fspath(inflated)
    finally:
        if not is_used:
            inflated.unlink(missing_ok=True)
    return frame


def plane_source(frame: FileFrame, extension: str, *, scratch: ScratchFolder | None = None) -> FileFrame:
    """Return the plane `extension` (a mask, a variance) of a FITS frame as a source of rows of its own.

    Parameters
    ----------
    frame : FileFrame
        The frame; the plane must have its rows and columns, and one channel or as many.
    extension : str
        ``EXTNAME`` of the image extension, e.g. ``"VARIANCE"``.
    scratch : ScratchFolder, optional
        As for `probe_frame`; default the frame's own.

    Raises
    ------
    FrameReadError
        The file has no such extension, or it is damaged.
    InvalidInputError
        The plane's shape is not the frame's.
    """
    plane = probe_frame(frame.path, scratch=frame.scratch if scratch is None else scratch, extension=extension)
    plane = replace(plane, name=f"{plane.name}[{extension}]")
    if (plane.rows, plane.columns) != (frame.rows, frame.columns) or plane.channels not in (1, frame.channels):
        raise InvalidInputError(
            f"{plane.name} is {describe_shape(plane)}; expected {describe_shape(frame)} as in {frame.name}"
        )
    return plane


class _Shaped(Protocol):
    """Anything with the shape of a frame."""

    @property
    def rows(self) -> int: ...
    @property
    def columns(self) -> int: ...
    @property
    def channels(self) -> int: ...


def describe_shape(source: _Shaped) -> str:
    """Say a frame's shape in words."""
    channels = "1 channel" if source.channels == 1 else f"{source.channels} channels"
    return f"{source.rows} x {source.columns} (rows x columns), {channels}"


class _Head:
    """The beginning of a file, in one read, and the rest of its headers when asked for."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):  # a pipe would wait forever
                found = "a folder" if stat.S_ISDIR(status.st_mode) else "not an ordinary file"
                raise FrameReadError(f"{name}: is {found}; expected a file")
            self.size = status.st_size
            self._begin = self._read(0, FIRST_READ)
        except ValueError as error:  # a zero byte in the name
            raise FrameReadError(f"{name}: {error}; expected the name of a file") from None
        except OSError as error:
            if isinstance(error, FrameReadError):
                raise
            raise FrameReadError(f"{name}: {error.strerror}; expected a readable file") from None

    def read_at(self, offset: int, count: int) -> bytes:
        """Return `count` bytes at `offset`, fewer at the end of the file."""
        end = offset + count
        if end <= len(self._begin) or len(self._begin) == self.size:
            return self._begin[offset:end]
        try:
            return self._read(offset, count)
        except OSError as error:
            raise FrameReadError(f"{self.name}: {error.strerror} at byte {offset}; expected a header") from None

    def _read(self, offset: int, count: int) -> bytes:
        """Read from the file; it does not stay open, so that any number of frames can be probed."""
        with FileIO(self.path) as file:
            if offset:
                file.seek(offset)
            return file.read(count)


def _probe_plain(head: _Head, path: Path, scratch: ScratchFolder, extension: str | None) -> FileFrame:
    """Return the frame in a file that is not gzipped; `path` is the file that the user named."""
    name, rows_path = head.name, head.path
    if head.read_at(0, len(MAGIC)) == MAGIC:
        if extension is not None:
            raise FrameReadError(f"{name}: a .npy file has no extensions; expected a FITS file with {extension}")
        layout, is_color, fortran_order = find_npy_image(head.read_at, head.size, name)
        if fortran_order:
            rows_path, layout = scratch.transpose(head.path, layout, name)
    else:
        image = find_fits_image(head.read_at, head.size, name, extension)
        if isinstance(image, PixelLayout):
            layout = image
        else:
            rows_path, layout = scratch.decode_image(head.path, image, name)
        is_color = layout.channels > 1
    return FileFrame(
        name=name,
        path=path,
        data_path=os.fspath(rows_path),
        layout=layout,
        is_color=is_color,
        scratch=None if rows_path is path else scratch,
    )
