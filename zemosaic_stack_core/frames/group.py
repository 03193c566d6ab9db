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
import warnings
from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.frames.array_frames import ArrayFrame, array_frame, array_plane
from zemosaic_stack_core.frames.containers import POWERS, Contents, check_alike, contents_of
from zemosaic_stack_core.frames.cut_frames import CutFrame, section_of
from zemosaic_stack_core.frames.file_frames import FileFrame, check_plane, describe_shape, probe_frame, probe_plane
from zemosaic_stack_core.frames.frame_lists import expand_frame_arguments, is_url, split_extension
from zemosaic_stack_core.frames.heads import FileHead, FrameFile, read_head
from zemosaic_stack_core.frames.masks import ArrayMask, CutMask, FileMask, MaskSource, RangeMask, ZeroMask, array_mask
from zemosaic_stack_core.frames.pixel_rows import FilePool
from zemosaic_stack_core.frames.places import MOST_APART, pixels_apart, place_of, wcs_of
from zemosaic_stack_core.frames.planes import NO_PLANES, PlanesGiven
from zemosaic_stack_core.frames.precision import lost_noise
from zemosaic_stack_core.frames.remote import local_copy, split_url
from zemosaic_stack_core.frames.scratch import ScratchFolder
from zemosaic_stack_core.frames.units import known_unit, unit_factor
from zemosaic_stack_core.frames.variances import FrameVariances, kind_of_variances

# One frame that hands out rows. `channels` is 1 for mono; `dtype` is the type handed out, in native byte order: uint8,
# int16, uint16 or float32. `words` is the same frame with the words of a file as they are, unsigned, for programs;
# `stored_type` says what they are by a name that programs know, and is empty where they know none.
FrameSource = FileFrame | ArrayFrame | CutFrame
# Frames whose WCS are compared with the first one's, of those that are written otherwise: 3 ms each.
_MOST_COMPARED = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameGroup:
    """The frames of one stack, all of one shape, in the order given."""

    sources: tuple[FrameSource, ...]
    # For each frame what marks its samples as missing; empty where nothing does.
    masks: tuple[tuple[MaskSource, ...], ...]
    rows: int
    columns: int
    channels: int
    # Whether the stack has a channel axis.
    is_color: bool
    # Variances of the samples that the frames bring.
    variances: FrameVariances | None = None
    # Names of the extensions that are read.
    given: PlanesGiven = NO_PLANES

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the stacked image: (row, column) or (row, column, channel)."""
        return (self.rows, self.columns, self.channels) if self.is_color else (self.rows, self.columns)

    @property
    def unit(self) -> str:
        """Unit of the samples, that of the first frame that has one; empty without."""
        return next((source.unit for source in self.sources if not isinstance(source, CutFrame) and source.unit), "")

    @property
    def stored_type(self) -> str:
        """What the words of all frames are, as files have them, where that is the same for all; else empty."""
        kinds = {source.stored_type for source in self.sources}
        return kinds.pop() if len(kinds) == 1 else ""

    @property
    def words(self) -> FrameGroup:
        """The same group, its frames' words handed out as they are."""
        return replace(self, sources=tuple(source.words for source in self.sources))

    def cut(self, section: str | None) -> FrameGroup:
        """Return part of the frames, to be measured; None is all. Raise unless the section lies within them."""
        if section is None:
            return self
        part = section_of(section, self.rows, self.columns)
        return replace(
            self,
            sources=tuple(CutFrame(source, part) for source in self.sources),
            masks=tuple(tuple(CutMask(mask, part) for mask in masks) for masks in self.masks),
            rows=part.stop - part.start,
            columns=part.last - part.first,
            variances=None,
        )

    def within(self, low: float | None, high: float | None) -> FrameGroup:
        """Return the same group, samples below or above a range being missing; None for no bound on that side."""
        if low is None and high is None:
            return self
        pairs = zip(self.sources, self.masks, strict=True)
        return replace(self, masks=tuple((*masks, RangeMask(source, low, high)) for source, masks in pairs))


def check_same_shape(frame: FrameSource, first: FrameSource) -> None:
    """Raise `InvalidInputError`, naming both, unless two frames have the same rows, columns and channels."""
    if (frame.rows, frame.columns, frame.channels) != (first.rows, first.columns, first.channels):
        raise InvalidInputError(
            f"{frame.name} is {describe_shape(frame)}; expected {describe_shape(first)} as in {first.name}"
        )


def group_frames(sources: Sequence[FrameSource], masks: Sequence[Sequence[MaskSource]] | None = None) -> FrameGroup:
    """Return the group of frames that were opened one by one, with their masks; raise where the shapes differ."""
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
    given: PlanesGiven = NO_PLANES,
    *,
    scratch: ScratchFolder | None = None,
) -> FrameGroup:
    """Open the frames of one stack; arrays are neither copied nor transferred.

    A frame is a file, by name, `FileHead` or `FileFrame`, or an array of shape ``(row, column)`` or
    ``(row, column, channel)``, of NumPy or any other array-API library, or holds one: masked arrays, astropy's
    ``CCDData`` and quantities, xarray's ``DataArray``. Masks and uncertainties that come with it count, units are
    converted to that of the first one. `masks` has one boolean array (or None) per frame, True marks
    a missing sample. The extensions are those `given`; every file must have them. Compressed frames are
    decoded to `scratch`, by default a folder that lives as long as the frames. Raise `FrameReadError` where a file is
    no frame, and `InvalidInputError` for no frames, an object that is no image, other shapes, masks that don't fit.
    """
    if isinstance(frames, (str, os.PathLike)):
        frames = _named(os.fspath(frames))
    if not isinstance(frames, Iterable):
        raise InvalidInputError(f"frames is one {type(frames).__name__}; expected a sequence of frames")
    if not isinstance(frames, Sized):
        frames = list(frames)
    if masks is not None and len(masks) != len(frames):
        raise InvalidInputError(f"{len(masks)} masks for {len(frames)} frames; expected one (or None) per frame")
    if given.dq_bits is not None and not given.mask_extension:
        raise InvalidInputError(
            f"dq_bits is {given.dq_bits!r} without mask_extension; expected the name of the extension"
        )
    scratch = ScratchFolder() if scratch is None else scratch
    opened: list[_Opened] = []
    units = _Units()
    first: tuple[Contents, str] | None = None
    with FilePool() as files:
        for index, item in enumerate(frames):
            if isinstance(item, (str, os.PathLike, FileHead, FileFrame)):
                frame = _open_file(item, given, scratch, files)
            else:
                name = f"frame {index}"
                held = contents_of(item, name)
                first = (held, name) if first is None else first
                check_alike(held, first[0], (name, first[1]))
                frame = _open_array(held, name, given, scratch)
            frame = units.convert(frame)
            if opened:
                check_same_shape(frame.source, opened[0].source)
            if masks is not None and masks[index] is not None:
                frame.masks.append(_given_mask(masks[index], frame.source))
            opened.append(frame)
        _warn_of_lost_noise([frame.source for frame in opened], files)
    group = group_frames([frame.source for frame in opened], [frame.masks for frame in opened])
    _warn_of_unused(opened, given)
    units.warn_of_unknown()
    _warn_of_places(opened)
    extensions = {frame.source.extension if isinstance(frame.source, FileFrame) else None for frame in opened}
    if given.image_extension is None and len(extensions) == 1:  # as the names of all files say
        given = replace(given, image_extension=extensions.pop())
    return replace(group, given=given, variances=_variances(opened))


@dataclass(frozen=True, slots=True)
class _Opened:
    """A frame and the planes that go with it."""

    source: FileFrame | ArrayFrame
    masks: list[MaskSource]
    # Its samples' variances, and what they are.
    variances: FileFrame | ArrayFrame | None = None
    kind: str = ""
    # Of a frame in memory: astropy's, or the text of one.
    unit: Any = None
    # Of a file that the caller named: see `place_of`. Where a head was given, somebody has looked at it before.
    place: tuple[str | None, ...] = ()


def _named(name: str) -> Sequence[object]:
    """Return the frames that one name stands for; raise where it is that of one file."""
    found = expand_frame_arguments([name])
    if found == [Path(name).expanduser()]:
        raise InvalidInputError(
            f"frames is {name!r}; expected a sequence of frames, or the name of a folder, a pattern or a @list"
        )
    return found


def _open_file(item: FrameFile | FileFrame, given: PlanesGiven, scratch: ScratchFolder, files: FilePool) -> _Opened:
    """Open a frame in a file; `files` keeps that open for its planes."""
    place: tuple[str | None, ...] = ()
    if isinstance(item, FileFrame):
        source = item
    else:
        name = item.name if isinstance(item, FileHead) else os.fspath(item)
        is_copy = not isinstance(item, FileHead) and is_url(name)
        if is_copy:
            url, extension = split_url(name)
            extension = extension or given.image_extension
            item = read_head(local_copy(url, scratch), name=name, extension=extension, files=files)
        elif not isinstance(item, FileHead):
            path, extension = split_extension(os.fspath(item))
            item = read_head(path, name=os.fspath(item), extension=extension or given.image_extension, files=files)
            place = place_of(item)
        elif given.image_extension is not None and item.extension != given.image_extension:
            item = read_head(item.path, name=item.name, extension=given.image_extension, files=files)
        source = probe_frame(item, scratch=scratch)
        if is_copy:
            source = replace(source, is_copy=True, scratch=scratch)
    version = (source.extension or "").partition(",")[2]

    def plane(extension: str) -> FileFrame:
        name = f"{extension},{version}" if version and "," not in extension else extension
        return probe_plane(source, read_head(source.path, extension=name, files=files))

    mask, variance = given.mask_extension, given.variance_extension
    # As astropy's CCDData writes them.
    if mask is None and "MASK" in source.beside:
        mask = "MASK"
    if variance is None and "UNCERT" in source.beside:
        variance = "UNCERT"
    masks: list[MaskSource] = [FileMask(plane(mask), given.dq_bits)] if mask else []
    if given.zeros_missing:
        masks.append(ZeroMask(source))
    if not variance:
        return _Opened(source, masks, place=place)
    variances = plane(variance)
    return _Opened(source, masks, variances, kind_of_variances(variances, variance), place=place)


def _warn_of_unused(opened: Sequence[_Opened], given: PlanesGiven) -> None:
    """Warn, once for all frames, of planes of the first file that nothing uses and nobody declined."""
    source = opened[0].source
    beside = source.beside if isinstance(source, FileFrame) else ()
    advice = []
    if given.mask_extension is None and "DQ" in beside:
        advice.append("mask_extension='DQ' with dq_bits (1 is DO_NOT_USE of JWST)")
    errors = next((name for name in ("ERR", "VARIANCE") if name in beside), None)
    if given.variance_extension is None and errors and opened[0].variances is None:
        advice.append(f"variance_extension={errors!r}")
    if advice:
        warnings.warn(
            f"{source.name}: not used are planes beside its image, {', '.join(beside)}; "
            f"{' and '.join(advice)} would use them ('' for none)",
            stacklevel=4,
        )


class _Units:
    """The unit of the frames of a stack: that of the first one that has one; a frame in memory without one has none."""

    def __init__(self) -> None:
        self._first: tuple[Any, str] | None = None
        self._unknown: str | None = None

    def convert(self, frame: _Opened) -> _Opened:
        """Return a frame in the stack's unit; raise where it has another that does not convert."""
        source = frame.source
        unit = frame.unit if isinstance(source, ArrayFrame) else known_unit(source.unit)
        if unit is None and not isinstance(source, ArrayFrame):
            self._unknown = self._unknown or source.name
            return frame
        if self._first is None:
            self._first = (unit, source.name)
        expected, first_name = self._first
        factor = unit_factor(unit, expected, (source.name, first_name))
        if factor == 1.0:
            return frame
        variances = frame.variances
        if variances is not None:
            variances = variances.scaled_by(factor ** POWERS[frame.kind])
        return replace(frame, source=source.scaled_by(factor), variances=variances)

    def warn_of_unknown(self) -> None:
        """Warn where some files say their unit and others don't."""
        if self._first is not None and self._first[0] is not None and self._unknown is not None:
            unit, name = self._first
            warnings.warn(f"{self._unknown} has no BUNIT; taken for {str(unit)!r} as in {name}", stacklevel=4)


def _warn_of_places(opened: Sequence[_Opened]) -> None:
    """Warn, once, where frames have a WCS that puts their pixels elsewhere than the first one's."""
    placed = [frame for frame in opened if frame.place or (_wcs_in_memory(frame) is not None)]
    others = [frame for frame in placed[1:] if not (frame.place and frame.place == placed[0].place)]
    first = None
    for frame in others[:_MOST_COMPARED]:
        source = frame.source
        first = _wcs(placed[0]) if first is None else first
        distance = pixels_apart(_wcs(frame), first, (source.rows, source.columns))
        if distance > MOST_APART:
            more = "" if frame.place else "; wcs=None says that they are on one"
            warnings.warn(
                f"{source.name}: its WCS puts it {distance:.3g} pixels from {placed[0].source.name}; they are stacked "
                f"as they are (reproject.reproject_interp brings frames onto one grid{more})",
                stacklevel=4,
            )
            return


def _wcs_in_memory(frame: _Opened) -> Any:
    """Return the WCS that a frame in memory has, None without one."""
    return frame.source.wcs if isinstance(frame.source, ArrayFrame) else None


def _wcs(frame: _Opened) -> Any:
    """Return the WCS of a frame."""
    if isinstance(frame.source, ArrayFrame):
        return frame.source.wcs
    return wcs_of(read_head(frame.source.path, extension=frame.source.extension))


def _warn_of_lost_noise(sources: Sequence[FileFrame | ArrayFrame], files: FilePool) -> None:
    """Warn, once, where the noise of a frame of wider numbers is lost in float32."""
    lost = lost_noise(sources, files)
    if lost is None:
        return
    warnings.warn(
        f"{lost.name}: float32 has steps of {lost.step:.3g} at its level of {lost.level:.6g}, too coarse for a noise "
        f"of {lost.noise:.3g}; subtract one number near {lost.level:.6g} from all frames, and add it to the result in "
        "float64",
        stacklevel=4,
    )


def _open_array(held: Contents, name: str, given: PlanesGiven, scratch: ScratchFolder) -> _Opened:
    """Open a frame in memory."""
    source, masks = array_frame(held, name, scratch)
    if held.uncertainty is not None:
        plane = array_plane(held.uncertainty, source, f"uncertainty of {name}", scratch)
        return _Opened(source, masks, plane, held.kind, held.unit)
    if given.variance_extension:
        raise InvalidInputError(f"{name} is an array; expected a file with {given.variance_extension}")
    return _Opened(source, masks, unit=held.unit)


def _variances(opened: Sequence[_Opened]) -> FrameVariances | None:
    """Return the variances that the frames bring, None without any; raise where only some do."""
    planes = [frame.variances for frame in opened if frame.variances is not None]
    if not planes:
        return None
    lacking = next((frame.source.name for frame in opened if frame.variances is None), None)
    if lacking is not None:
        raise InvalidInputError(f"{lacking} has no variances and others have; expected them with all frames or none")
    return FrameVariances(tuple(planes), tuple(frame.kind for frame in opened))


def _given_mask(mask: object, source: FrameSource) -> ArrayMask:
    """Return the caller's mask of a frame, checked against its shape."""
    given = array_mask(mask, f"mask of {source.name}")
    check_plane(given, source)
    return given
