"""The beginning of a frame's file, read once: `FileHead`. Whatever headers tell is asked of it."""

from __future__ import annotations

import gzip
import math
import os
import stat
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from zemosaic_stack_core.errors import FrameReadError
from zemosaic_stack_core.fits.astropy_reads import open_fits
from zemosaic_stack_core.fits.cards import FIRST_READ, FitsHeader, ReadAt, axis_lengths, parse_real, walk_headers
from zemosaic_stack_core.fits.observing import NO_FACTS, ObservingFacts, observing_facts
from zemosaic_stack_core.frames.foreign_names import foreign_format
from zemosaic_stack_core.system.open_files import OpenFiles

if TYPE_CHECKING:
    from astropy.io import fits

GZIP_MAGIC = b"\x1f\x8b"
NPY_MAGIC = b"\x93NUMPY"
# Of a gzip file, headers are looked for up to here, bytes: one that claims to be farther in may be a bomb.
_MOST_INFLATED = 1 << 26
# How the names of extensions begin that go with another image, as astropy, HST, JWST and this program call them.
_PLANES = (
    *("MASK", "DQ", "UNCERT", "ERR", "SIGMA", "STD", "IVAR", "INVVAR", "VAR", "WHT", "WEIGHT", "CON", "CTX", "AREA"),
    *("ALPHA", "COVERAGE", "REJLO", "REJHI", "PSF"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileHead:
    """What a file says before its pixels are read."""

    # The path as given.
    name: str
    path: Path
    # Bytes; None where the file can't be opened.
    size: int | None = None
    # Of a FITS file, gzipped or not: its headers up to that of the image, or of the extension that was asked for.
    headers: tuple[FitsHeader, ...] = ()
    # Whether the last of them is the image's; else there is none.
    has_image: bool = False
    # The first bytes of a .npy or a gzip file.
    start: bytes = b""
    # The format of another program that the file has, whose metadata are the only header: see `foreign_format`.
    foreign: str = ""
    # Why the file is no frame; empty where it may be one.
    problem: str = ""
    # EXTNAME[,EXTVER] or number of the image that was looked for; None for the file's only one.
    extension: str | None = None
    # EXTNAME of the images that come after it in a file without an extension asked for.
    beside: tuple[str, ...] = ()
    # What the headers tell of the exposure.
    observing: ObservingFacts = NO_FACTS

    @property
    def is_gzip(self) -> bool:
        """Whether the file is compressed as a whole."""
        return self.start.startswith(GZIP_MAGIC)

    @property
    def is_npy(self) -> bool:
        """Whether the file is an array of NumPy's."""
        return self.start.startswith(NPY_MAGIC)

    def get(self, *keywords: str) -> str | None:
        """Return the first of these cards, as text, of the image's header or else of the primary; None without any."""
        both = self.headers[:1] if len(self.headers) < 2 else (self.headers[-1], self.headers[0])
        values = (header.get(keyword) for keyword in keywords for header in both)
        return next((value for value in values if value is not None), None)

    def number(self, *keywords: str) -> float | None:
        """Return the first of these cards that is a finite number; None without any."""
        values = (parse_real(self.get(keyword) or "") for keyword in keywords)
        return next((value for value in values if math.isfinite(value)), None)

    @property
    def foreign_shape(self) -> tuple[int, int, int]:
        """Rows, columns and channels of a file of another program's."""
        rows, columns, channels = (int(self.number(keyword) or 1) for keyword in ("NAXIS2", "NAXIS1", "NAXIS3"))
        return rows, columns, channels

    def image_header(self) -> fits.Header:
        """Return the image's header as astropy reads it; that of a compressed image is the one it was made of."""
        if not is_compressed(self.headers[-1]):
            return self.headers[-1].to_astropy()
        with open_fits(self.path, self.name, "a compressed image", lazy_load_hdus=True) as hdus:
            header: fits.Header = hdus[len(self.headers) - 1].header.copy()
        return header


# A frame's file: its path, or its head where that was read before.
FrameFile = str | os.PathLike[str] | FileHead


def read_head(
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    extension: str | None = None,
    files: OpenFiles | None = None,
) -> FileHead:
    """Return a file's head; a file that can't be read has one with a problem.

    `name` is what messages call it, by default the path; `extension` is the ``EXTNAME``, ``EXTNAME,EXTVER`` or number
    of the image to look for; `files` keeps the file open. Without an extension the image is that of the primary HDU,
    else the only SCI, else the only image that is no plane of another one; several have a problem.
    """
    empty = FileHead(name=os.fspath(path) if name is None else name, path=Path(path), extension=extension)
    try:
        with _opened(empty, files) as file:
            return _read_open(file, empty)
    except FrameReadError as error:
        return replace(empty, problem=str(error))


def head_of(file: FrameFile) -> FileHead:
    """Return the head of a file, read unless it is given."""
    return file if isinstance(file, FileHead) else read_head(file)


def has_name(header: FitsHeader, extension: str | None) -> bool:
    """Return whether an HDU has this EXTNAME, in any case, and EXTVER where that is given; None is any name."""
    if extension is None:
        return True
    name, _, version = extension.partition(",")
    is_named = (header.get("EXTNAME") or "").upper() == name.strip().upper()
    return is_named and version.strip() in ("", (header.get("EXTVER") or "1").strip())


def is_compressed(header: FitsHeader) -> bool:
    """Return whether an HDU is a table that holds a compressed image."""
    return header.get("XTENSION") == "BINTABLE" and header.written("ZIMAGE") == "T"


def is_plain_image(header: FitsHeader, name: str) -> bool:
    """Return whether an HDU is an image as it stands, with axes of which none has length 0."""
    axes = axis_lengths(header, name)
    return (header.get("XTENSION") or "IMAGE") == "IMAGE" and bool(axes) and all(axes)


@contextmanager
def _opened(head: FileHead, files: OpenFiles | None) -> Iterator[FileIO]:
    """Open an ordinary file, or take it out of the open ones."""
    name, path = head.name, head.path
    try:
        mode = path.stat().st_mode
    except ValueError as error:  # a zero byte in the name
        raise FrameReadError(f"{name}: {error}; expected the name of a file") from None
    except OSError as error:
        raise FrameReadError(f"{name}: {error.strerror}; expected a readable file") from None
    if not stat.S_ISREG(mode):  # a pipe would wait forever
        found = "a folder" if stat.S_ISDIR(mode) else "not an ordinary file"
        raise FrameReadError(f"{name}: is {found}; expected a file")
    if files is not None:
        yield files.file(os.fspath(path), name)
        return
    with OpenFiles(1) as one:
        yield one.file(os.fspath(path), name)


def _read_open(file: FileIO, empty: FileHead) -> FileHead:
    """Return the head of an open file."""
    try:
        size = os.fstat(file.fileno()).st_size
        file.seek(0)
        start = file.read(FIRST_READ)
    except OSError as error:
        raise FrameReadError(f"{empty.name}: {error.strerror}; expected a readable file") from None
    if start.startswith(NPY_MAGIC):
        return replace(empty, size=size, start=start, observing=ObservingFacts(size=size))
    if foreign := foreign_format(empty.path, start):
        from zemosaic_stack_core.frames.foreign import foreign_header

        header = foreign_header(foreign, empty.path, empty.name)
        facts = observing_facts([header], size)
        return replace(empty, size=size, headers=(header,), has_image=True, foreign=foreign, observing=facts)
    headers: list[FitsHeader] = []
    images: list[int] = []
    problem, magic = "", b""
    try:
        if start.startswith(GZIP_MAGIC):
            magic = GZIP_MAGIC
            # What is wrong with it is found where it is inflated, and so is which of several images is meant.
            with suppress(FrameReadError, OSError, EOFError, zlib.error):
                file.seek(0)
                images = _collect(headers, _inflated_reader(file), _MOST_INFLATED, empty, only_first=True)
        else:
            is_one = empty.extension is not None and "," in empty.extension
            reader = _plain_reader(file, start, size, empty.name)
            images = _collect(headers, reader, size, empty, only_first=is_one)
        image = _choose(headers, images, empty)
    except FrameReadError as error:
        problem, image = str(error), None
    beside = [headers[index].get("EXTNAME") or "" for index in images if image is not None and index > image]
    chosen = headers if image is None else headers[: image + 1]
    return replace(
        empty,
        size=size,
        headers=tuple(chosen),
        has_image=image is not None,
        start=magic,
        problem=problem,
        beside=tuple(name.upper() for name in beside if empty.extension is None or "SCI" in empty.extension.upper()),
        observing=observing_facts(chosen, size),
    )


def _collect(headers: list[FitsHeader], read_at: ReadAt, size: int, empty: FileHead, *, only_first: bool) -> list[int]:
    """Append the headers of a file, up to its first image where only that is wanted; return which are of images."""
    images: list[int] = []
    try:
        for header in walk_headers(read_at, size, empty.name):
            headers.append(header)
            if is_compressed(header) or is_plain_image(header, empty.name):
                images.append(len(headers) - 1)
                if only_first and has_name(header, empty.extension):
                    break
    except FrameReadError:
        if not any(has_name(headers[index], empty.extension) for index in images):
            raise  # what comes after the image may be damaged
    return images


def _choose(headers: Sequence[FitsHeader], images: Sequence[int], empty: FileHead) -> int | None:
    """Return which header is the image's, None without one; raise where there are several to choose from."""
    if empty.extension is not None and empty.extension.isdecimal():
        return int(empty.extension) if int(empty.extension) in images else None
    named = [index for index in images if has_name(headers[index], empty.extension)]
    if empty.extension is None and named and named[0] > 0:
        science = [index for index in named if has_name(headers[index], "SCI")]
        named = science or [index for index in named if not is_plane_name(headers[index].get("EXTNAME"))] or named[:1]
    if len(named) > 1 and named[0] > 0:
        found = [f"{one} {headers[one].get('EXTNAME') or ''},{headers[one].get('EXTVER') or 1}" for one in named[:4]]
        raise FrameReadError(
            f"{empty.name}: {len(named)} images (HDU {'; '.join(found)}{'; ...' if len(named) > 4 else ''}); "
            "expected one, or the name or number of one, such as image_extension='SCI,2'"
        )
    return named[0] if named else None


def is_plane_name(name: str | None) -> bool:
    """Return whether an extension of this name goes with another image."""
    return (name or "").upper().startswith(_PLANES)


def _plain_reader(file: FileIO, start: bytes, size: int, name: str) -> ReadAt:
    """Return how to read a file whose first bytes are known."""

    def read_at(offset: int, count: int) -> bytes:
        if offset + count <= len(start) or len(start) == size:
            return start[offset : offset + count]
        try:
            file.seek(offset)
            return file.read(count)
        except OSError as error:
            raise FrameReadError(f"{name}: {error.strerror} at byte {offset}; expected a header") from None

    return read_at


def _inflated_reader(file: FileIO) -> ReadAt:
    """Return how to read what a gzip file holds."""
    packed = gzip.GzipFile(fileobj=file)

    def read_at(offset: int, count: int) -> bytes:
        packed.seek(offset)
        return packed.read(count)

    return read_at
