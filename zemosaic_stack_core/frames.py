"""Frames of a group as sources of rows: arrays, ``.npy`` and FITS files, compressed or not.

`open_frames` turns what the caller gave into a validated `FrameGroup`; `BandReader` (in `bands`) reads it band by band.
A file's header is parsed once, in `probe_frame`, which raises one clear error for anything that is not a frame; after
that a `FileFrame` is a small picklable record, and rows are read by position.

A worker that drops bad frames one by one does::

    for path in paths:
        try:
            sources.append(probe_frame(path, scratch=scratch))
        except FrameReadError as error:
            report(error)
    group = group_frames(sources)          # InvalidInputError where the shapes differ (see also `check_same_shape`)

Types: uint8, int16 and uint16 values (after ``BZERO``) are handed out as they are, everything else as float32, rounded
once. Missing samples of a file are NaN; ``BLANK`` in an integer image makes it float32 with NaN there.

Color: ``(row, column, channel)`` arrays and FITS images with planes have a channel axis, and so has the stack. An
array of shape ``(row, column, 1)`` keeps its axis; a FITS image with ``NAXIS3 = 1`` is mono. In files (not in arrays,
whose last axis always is the channel) an image of 3 or 4 channels is recognized whichever end its channel axis is at.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from io import FileIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .array_frames import ArrayFrame, array_frame
from .errors import FrameReadError, InvalidInputError
from .fits_rows import FIRST_READ, find_fits_image
from .masks import ArrayMask, FileMask, MaskSource, array_mask
from .npy_rows import MAGIC, find_npy_image
from .pixel_rows import FilePool, PixelLayout
from .scratch import ScratchFolder

__all__ = [
    "ArrayFrame",
    "FileFrame",
    "FrameGroup",
    "FrameSource",
    "check_same_shape",
    "group_frames",
    "open_frames",
    "plane_source",
    "probe_frame",
]

_GZIP_MAGIC = b"\x1f\x8b"


class FrameSource(Protocol):
    """One frame that hands out rows; `FileFrame` and `ArrayFrame` are the two there are."""

    @property
    def name(self) -> str:
        """What messages call it: the path as given, or ``"frame 3"`` for the fourth array of a list."""
        ...

    @property
    def path(self) -> Path | None:
        """The file it comes from."""
        ...

    @property
    def rows(self) -> int:
        """Rows of the image."""
        ...

    @property
    def columns(self) -> int:
        """Columns of the image."""
        ...

    @property
    def channels(self) -> int:
        """Channels, 1 for mono."""
        ...

    @property
    def is_color(self) -> bool:
        """Whether the image has a channel axis."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type handed out, in native byte order: uint8, int16, uint16 or float32."""
        ...

    def read_rows(self, start: int, stop: int, out: npt.NDArray[Any], files: FilePool) -> None:
        """Fill `out`, of shape (channels, stop - start, columns) and the type `dtype`, with rows `start` to `stop`."""
        ...


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

    def advise_rows(self, start: int, stop: int, files: FilePool) -> None:
        """Tell the system that rows `start` to `stop` are wanted soon."""
        files.advise_rows(self.data_path, self.name, self.layout, start, stop)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameGroup:
    """The frames of one stack, all of one shape.

    Parameters
    ----------
    sources : tuple of FrameSource
        The frames, in the order given.
    masks : tuple of tuple of MaskSource
        For each frame what marks its samples as missing; empty where nothing does.
    rows, columns, channels : int
        Shape of every frame.
    is_color : bool
        Whether the stack has a channel axis.
    """

    sources: tuple[FrameSource, ...]
    masks: tuple[tuple[MaskSource, ...], ...]
    rows: int
    columns: int
    channels: int
    is_color: bool


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
        raise InvalidInputError(f"{plane.name} is {_shape(plane)}; expected {_shape(frame)} as in {frame.name}")
    return plane


def check_same_shape(frame: FrameSource, first: FrameSource) -> None:
    """Raise `InvalidInputError`, naming both, unless two frames have the same rows, columns and channels."""
    if (frame.rows, frame.columns, frame.channels) != (first.rows, first.columns, first.channels):
        raise InvalidInputError(f"{frame.name} is {_shape(frame)}; expected {_shape(first)} as in {first.name}")


def group_frames(sources: Sequence[FrameSource], masks: Sequence[Sequence[MaskSource]] | None = None) -> FrameGroup:
    """Make a group of frames that were opened one by one.

    Parameters
    ----------
    sources : sequence of FrameSource
        At least one.
    masks : sequence of sequence of MaskSource, optional
        As many as frames.

    Raises
    ------
    InvalidInputError
        There is no frame, the shapes differ, or there are not as many masks as frames.
    """
    if not sources:
        raise InvalidInputError("no frames; expected at least one")
    if masks is not None and len(masks) != len(sources):
        raise InvalidInputError(f"{len(masks)} masks for {len(sources)} frames; expected one (or None) per frame")
    first = sources[0]
    for source in sources[1:]:
        check_same_shape(source, first)
    return FrameGroup(
        sources=tuple(sources),
        masks=((),) * len(sources) if masks is None else tuple(map(tuple, masks)),
        rows=first.rows,
        columns=first.columns,
        channels=first.channels,
        is_color=any(source.is_color for source in sources),
    )


def open_frames(
    frames: Sequence[object],
    masks: Sequence[object] | None = None,
    *,
    mask_extension: str | None = None,
    dq_bits: int | None = None,
    scratch: ScratchFolder | None = None,
) -> FrameGroup:
    """Open the frames of one stack.

    Parameters
    ----------
    frames : sequence of array, str or Path
        ``(row, column)`` or ``(row, column, channel)`` arrays of NumPy or any other array-API library, and files. A
        masked array, or an object with ``data`` and ``mask`` like astropy's ``CCDData``, brings its mask.
    masks : sequence of (bool array or None), optional
        One per frame; True marks a missing sample. Shape ``(row, column)`` or the frame's.
    mask_extension : str, optional
        Name of the FITS extension with the mask of each file, e.g. ``"MASK"`` or ``"DQ"``: a nonzero value is missing.
    dq_bits : int, optional
        Only these bits of the mask extension count. Default: all.
    scratch : ScratchFolder, optional
        Where compressed frames are decoded to. Default: a new one that lives as long as the frames.

    Returns
    -------
    FrameGroup
        Frames of one shape. Arrays are neither copied nor transferred here.

    Raises
    ------
    InvalidInputError
        No frames, an object that is no image, shapes that differ (names both), masks that don't fit.
    FrameReadError
        A file can't be read as a frame.
    """
    if isinstance(frames, (str, os.PathLike)):
        raise InvalidInputError(f"frames is {os.fspath(frames)!r}; expected a sequence of frames")
    if masks is not None and len(masks) != len(frames):
        raise InvalidInputError(f"{len(masks)} masks for {len(frames)} frames; expected one (or None) per frame")
    scratch = ScratchFolder() if scratch is None else scratch
    sources: list[FrameSource] = []
    found: list[list[MaskSource]] = []
    for index, item in enumerate(frames):
        own: list[MaskSource] = []
        source: FrameSource
        if isinstance(item, (str, os.PathLike)):
            source = probe_frame(item, scratch=scratch)
            if mask_extension is not None:
                own.append(FileMask(plane_source(source, mask_extension), dq_bits))
        else:
            source, mask = array_frame(item, f"frame {index}")
            if mask is not None:
                own.append(mask)
        if sources:
            check_same_shape(source, sources[0])
        if masks is not None and masks[index] is not None:
            own.append(_given_mask(masks[index], source))
        sources.append(source)
        found.append(own)
    return group_frames(sources, found)


def _given_mask(mask: object, source: FrameSource) -> ArrayMask:
    """Return the caller's mask of a frame, checked against its shape."""
    given = array_mask(mask, f"mask of {source.name}")
    if (given.rows, given.columns) != (source.rows, source.columns) or given.channels not in (1, source.channels):
        raise InvalidInputError(f"{given.name} is {_shape(given)}; expected {_shape(source)}")
    return given


def _shape(source: FrameSource | ArrayMask) -> str:
    """Say a shape in words."""
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
