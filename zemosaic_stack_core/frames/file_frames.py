"""Frames in files: a header parsed once, then rows by position."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import FrameReadError, InvalidInputError
from zemosaic_stack_core.fits.observing import NO_FACTS, ObservingFacts
from zemosaic_stack_core.frames.fits_rows import find_fits_image
from zemosaic_stack_core.frames.foreign import foreign_pixels
from zemosaic_stack_core.frames.heads import FileHead, FrameFile, head_of, read_head
from zemosaic_stack_core.frames.npy_rows import find_npy_image
from zemosaic_stack_core.frames.pixel_rows import FilePool, PixelLayout, layout_of
from zemosaic_stack_core.frames.scratch import ScratchFolder
from zemosaic_stack_core.system.quantities import count_text


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFrame:
    """A frame in a file; see `FrameSource`."""

    # The path as given.
    name: str
    # The file that the user named.
    path: Path
    # The file with the rows: `path`, or its decoded copy in a scratch folder.
    data_path: str
    layout: PixelLayout
    is_color: bool
    observing: ObservingFacts = field(default=NO_FACTS, repr=False)
    # Card UTYPE of the image, which says what its values are; empty without one.
    utype: str = ""
    # Card BUNIT; empty without one.
    unit: str = ""
    # Value at which a camera's samples are saturated, by its raw file; None of other files.
    saturation: float | None = None
    # EXTNAME[,EXTVER] that the image was asked for by, and the images that come after it: see `FileHead`.
    extension: str | None = None
    beside: tuple[str, ...] = ()
    # `path` is a copy of what is behind the URL that the frame is called by.
    is_copy: bool = False
    # Keeps the folder of `data_path` while this record lives in the process that made it.
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

    @property
    def stored_type(self) -> str:
        """What its words are; see `PixelLayout`."""
        return self.layout.stored_type

    @property
    def words(self) -> FileFrame:
        """The same frame, handing out words as they are in the file; see `PixelLayout`."""
        return replace(self, layout=self.layout.words)

    def scaled_by(self, factor: float) -> FileFrame:
        """Return the same frame, its numbers multiplied in float64 and rounded once."""
        return replace(self, layout=self.layout.scaled_by(factor))

    def read_rows(self, start: int, stop: int, out: npt.NDArray[Any], files: FilePool) -> None:
        """Fill `out`, of shape (channels, stop - start, columns), with rows `start` to `stop`."""
        files.read_rows(self.data_path, self.name, self.layout, start, stop, out)

    def read_planes(self, start: int, stop: int, files: FilePool) -> npt.NDArray[Any]:
        """Return rows `start` to `stop`, shape (channel, row, column)."""
        planes = np.empty((self.channels, stop - start, self.columns), self.dtype)
        self.read_rows(start, stop, planes, files)
        return planes


def probe_frame(file: FrameFile, *, scratch: ScratchFolder | None = None) -> FileFrame:
    """Return the frame in a file, or of a head that was read; decode the file to scratch if it is compressed.

    FITS (gzipped or tile-compressed or neither) and ``.npy`` files are recognized by content, not by name, and so are
    XISF and TIFF; a camera's raw file by its name. What is not plain rows goes to `scratch`, by default a folder of
    this frame's own, which goes when the frame does.

    Raise `FrameReadError` where the file is missing, not an image, cut off, or contradicts itself: one line, what was
    found and expected; and `ScratchError` where the scratch folder is full or can't be written: the frame may be good.
    """
    scratch = ScratchFolder() if scratch is None else scratch
    head = head_of(file)
    if not head.is_gzip:
        return _probe_plain(head, head, scratch)
    inflated = scratch.inflate(head.path, head.name)
    is_used = False
    try:
        inner = read_head(inflated, name=head.name, extension=head.extension)
        frame = _probe_plain(inner, head, scratch)
        is_used = frame.data_path == os.fspath(inflated)
    finally:
        if not is_used:
            inflated.unlink(missing_ok=True)
    return frame


def probe_plane(frame: FileFrame, head: FileHead) -> FileFrame:
    """Return the plane of a frame, a source of rows of its own, by its file's head, read with the plane's name.

    Raise `FrameReadError` where there is no such extension, or it is damaged, and as `check_plane`.
    """
    plane = probe_frame(head, scratch=frame.scratch)
    plane = replace(plane, name=f"{plane.name}[{head.extension}]")
    check_plane(plane, frame)
    return plane


class _Shaped(Protocol):
    """Anything with the shape of a frame."""

    @property
    def name(self) -> str: ...
    @property
    def rows(self) -> int: ...
    @property
    def columns(self) -> int: ...
    @property
    def channels(self) -> int: ...


def check_plane(plane: _Shaped, frame: _Shaped) -> None:
    """Raise unless a plane has the frame's rows and columns, and one channel or as many."""
    if (plane.rows, plane.columns) != (frame.rows, frame.columns) or plane.channels not in (1, frame.channels):
        found, expected = describe_shape(plane), describe_shape(frame)
        raise InvalidInputError(f"{plane.name} is {found}; expected {expected} as in {frame.name}")


def describe_shape(source: _Shaped) -> str:
    """Return a frame's shape in words."""
    return f"{source.rows} x {source.columns} (rows x columns), {count_text(source.channels, 'channel')}"


def _probe_plain(head: FileHead, named: FileHead, scratch: ScratchFolder) -> FileFrame:
    """Return the frame in a file that is not gzipped; `named` is the head of the file that the user named."""
    name, rows_path = head.name, head.path
    if head.problem:
        raise FrameReadError(head.problem)
    if head.extension is not None and (head.is_npy or head.foreign):
        kind = head.foreign.upper() if head.foreign else ".npy"
        raise FrameReadError(f"{name}: a {kind} file has no extensions; expected a FITS file with {head.extension}")
    if head.foreign:
        pixels = foreign_pixels(head.foreign, head.path, name)
        is_color = pixels.ndim == 3
        rows_path = scratch.store([pixels], name)
        layout = layout_of(pixels)
    elif head.is_npy:
        layout, is_color, fortran_order = find_npy_image(head.start, head.size or 0, name)
        if fortran_order:
            rows_path, layout = scratch.transpose(head.path, layout, name)
    else:
        image = find_fits_image(head)
        if isinstance(image, PixelLayout):
            layout = image
        else:
            rows_path, layout = scratch.decode_image(head.path, image, name)
        is_color = layout.channels > 1
    return FileFrame(
        name=name,
        path=named.path,
        data_path=os.fspath(rows_path),
        layout=layout,
        is_color=is_color,
        observing=replace(head.observing, size=named.size),
        utype=(head.headers[-1].get("UTYPE") or "") if head.headers else "",
        unit=(head.get("BUNIT") or "").strip() if head.headers else "",
        saturation=head.number("SATURATE") if head.foreign == "raw" else None,
        extension=head.extension,
        beside=head.beside,
        scratch=None if rows_path is named.path else scratch,
    )
