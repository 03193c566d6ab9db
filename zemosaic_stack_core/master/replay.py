"""A master made again from what its own file says: `open_master`, `replay_master`.

The header has the options, the table FRAMES the files with the scale, offset and weight of each frame. With those the
kernel gives the same bits again, on any backend, with any number of workers.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.backends import Backend, numpy_backend
from zemosaic_stack_core.errors import FrameReadError, InvalidInputError
from zemosaic_stack_core.fits.astropy_reads import astropy_reads
from zemosaic_stack_core.frames.group import open_frames
from zemosaic_stack_core.frames.heads import read_head
from zemosaic_stack_core.frames.scratch import ScratchFolder
from zemosaic_stack_core.master.option_cards import ALGORITHM
from zemosaic_stack_core.master.read import read_master
from zemosaic_stack_core.master.tile import FrameRow, MasterTile
from zemosaic_stack_core.options import MAPS
from zemosaic_stack_core.per_frame.numbers import FrameNumbers
from zemosaic_stack_core.stacking.job import StackJob, StackRequest, make_job
from zemosaic_stack_core.stacking.limits import NO_LIMITS, ONE_WORKER, Limits
from zemosaic_stack_core.stacking.result import StackResult
from zemosaic_stack_core.stacking.run import run_job
from zemosaic_stack_core.stacking.workers import settle_limits
from zemosaic_stack_core.system.file_stamps import hash_file


@dataclass(frozen=True, kw_only=True)
class OpenMaster:
    """A master and its frames, ready to be stacked again."""

    tile: MasterTile
    # With the numbers that acted; its chunks are planned for the backend.
    job: StackJob
    numbers: FrameNumbers
    backend: Backend


@dataclass(frozen=True, kw_only=True)
class Replay:
    """How a replay compares with the master."""

    # A line each: what differs, empty where every bit is the same, and what was compared.
    differences: tuple[str, ...]
    compared: tuple[str, ...]
    result: StackResult
    # The SHA-256 of every frame's file was compared. Otherwise a file may have changed and kept its size.
    is_verified: bool = False

    @property
    def is_same(self) -> bool:
        """Whether every bit is the same."""
        return not self.differences


def open_master(
    path: str | os.PathLike[str],
    scratch: ScratchFolder,
    *,
    maps: frozenset[str] | None = None,
    backend: Backend | None = None,
    limits: Limits = ONE_WORKER,
    verifies_sha256: bool = True,
) -> OpenMaster:
    """Read a master and find its frames again, to make the maps that it has, or others.

    The scratch folder must outlive the frames. The size of every file is compared, its SHA-256 where the master has it
    and the caller wants it: that reads every file once.

    Raises FrameReadError where the master can't be read, or a frame's file is gone or is not the one that the master
    was made of; InvalidInputError where a frame or a plane of weights, masks or variances never was in a file, or the
    master was made by another version of the numeric definition.
    """
    tile = read_master(path)
    with astropy_reads(str(path), "a master tile written by zemosaic-stack-core"):
        _check_can_be_made_again(path, tile)
    options, given = tile.result.options, tile.result.given
    backend = backend or numpy_backend()
    paths = [_find_frame(str(path), row, verifies_sha256=verifies_sha256) for row in tile.rows]
    # What is odd about the frames was said when they were stacked.
    heads = [read_head(path, extension=given.image_extension) for path in paths]
    group = open_frames(heads, None, given, scratch=scratch)
    expected = tile.result.image.shape
    if group.shape != expected:
        raise FrameReadError(f"{paths[0]}: a frame of shape {group.shape}; expected {expected}, as {path} has")
    # Normalization and weights were estimated then: their numbers are in the table.
    weighting = options.weighting if options.weighting == "inverse_variance" else "none"
    plain = replace(options, normalization="none", weighting=weighting, reference="auto")
    request = StackRequest(options=plain, maps=_maps_of(tile.result) if maps is None else maps)
    job, numbers = make_job(group, request, backend, settle_limits(limits, group, backend))
    scale, offset = _column(tile, "scale"), _column(tile, "offset")
    # Without a normalization samples are multiplied where the caller gave scales or offsets that act.
    is_normalized = options.normalization != "none" or bool((scale != 1.0).any() or (offset != 0.0).any())
    job = replace(
        job,
        options=options,
        weight=_column(tile, "weight"),
        scale=scale if is_normalized else None,
        offset=offset if is_normalized else None,
    )
    return OpenMaster(tile=tile, job=job, numbers=numbers, backend=backend)


def _check_can_be_made_again(path: str | os.PathLike[str], tile: MasterTile) -> None:
    """Raise unless this version can make the master again, and all that it was made of is in files."""
    version = str(tile.header.get("ZSC_ALGO", ""))
    if version != ALGORITHM:
        raise InvalidInputError(
            f"{path}: made with version {version or 'unknown'} of the numeric definition, which gives other bits; "
            f"expected version {ALGORITHM}"
        )
    if arrays := tile.result.given.arrays:
        raise InvalidInputError(
            f"{path}: made with {', '.join(arrays)} given as arrays, which it does not hold; "
            "expected planes in the frames' files"
        )


def _maps_of(result: StackResult) -> frozenset[str]:
    """Return the maps that a result has."""
    return frozenset(name for name in MAPS if getattr(result, name) is not None)


def _find_frame(master: str, row: FrameRow, *, verifies_sha256: bool) -> Path:
    """Return the file of a row of FRAMES; raise unless it is the one that the master was made of."""
    if not row.relative and row.record.path is None:
        raise InvalidInputError(f"{master}: {row.record.name} was an array, not a file; expected frames from files")
    path, name = row.record.path, row.record.name
    if path is None:
        raise FrameReadError(f"{name}: the file is gone; expected it there or at {row.relative} beside {master}")
    size, expected = path.stat().st_size, row.record.observing and row.record.observing.size
    if expected is not None and size != expected:
        raise FrameReadError(f"{path}: {size} bytes; expected {expected}, as when {master} was made")
    if verifies_sha256 and row.sha256:
        found = hash_file(path)
        if found != row.sha256:
            raise FrameReadError(f"{path}: SHA-256 {found}; expected {row.sha256}, as when {master} was made")
    return path


def _column(tile: MasterTile, name: str) -> npt.NDArray[np.float32]:
    """Return a number of every frame and channel, shape (frame, channel), as it acted."""
    return np.array([getattr(row.record, name) for row in tile.rows], dtype=np.float32)


def replay_master(
    path: str | os.PathLike[str],
    *,
    backend: Backend | None = None,
    limits: Limits = NO_LIMITS,
    progress: Callable[[int, int], None] | None = None,
) -> Replay:
    """Make a master again from its own header and FRAMES table, and compare every bit.

    Image, every map that the file has, and the counts of every frame are compared. Another backend than NumPy must give
    the same bits. Raises as `open_master`.
    """
    with ScratchFolder() as scratch:
        opened = open_master(path, scratch, backend=backend, limits=limits)
        result = run_job(opened.job, opened.numbers, opened.backend, progress=progress)
    before = opened.tile.result
    compared = []
    differences = []
    for name in ("image", *(name for name in MAPS if name in _maps_of(before))):
        compared.append(name)
        stored = getattr(before, name)
        if count := _count_differing(stored, getattr(result, name)):
            differences.append(f"{name}: {count} of {stored.size} values differ")
    for name in ("rejected_low", "rejected_high", "missing"):
        compared.append(f"{name} of each frame")
        for stored_frame, made_frame in zip(before.frames, result.frames, strict=True):
            then, now = getattr(stored_frame, name), getattr(made_frame, name)
            if then != now:
                differences.append(f"{stored_frame.name}: {name} is {now}; the master says {then}")
    is_verified = all(row.sha256 for row in opened.tile.rows)
    return Replay(differences=tuple(differences), compared=tuple(compared), result=result, is_verified=is_verified)


def _count_differing(stored: npt.NDArray[Any], made: npt.NDArray[Any]) -> int:
    """Count values whose bits differ; one NaN is as good as another."""
    differs = stored.view(np.uint32) != made.view(np.uint32)
    if stored.dtype.kind == "f":
        differs &= ~(np.isnan(stored) & np.isnan(made))
    return int(np.count_nonzero(differs))
