"""Are frames whose headers leave it open aligned already? The stars at the center of three of them say so, in a blink.

The largest part of such sets is aligned, so the check is made to cost next to nothing: the middle of the first, the
middle and the last frame is read, its brightest stars are found, and their places compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import ZemosaicError
from zemosaic_stack_core.frames.file_frames import FileFrame, probe_frame
from zemosaic_stack_core.frames.heads import FileHead, FrameFile, head_of
from zemosaic_stack_core.frames.pixel_rows import FilePool
from zemosaic_stack_core.prepare.canvas.geometry import corners_of, fit_similarity
from zemosaic_stack_core.prepare.headers.recognize import Recognized
from zemosaic_stack_core.prepare.sensor.hot_pixels import clean_pixels, sharp_pixels
from zemosaic_stack_core.prepare.stars.detect import StarList, detect_stars
from zemosaic_stack_core.prepare.stars.match import find_match

_Image = npt.NDArray[np.float32]
_Values = npt.NDArray[np.float64]

# Pixels, of the piece that is looked at, and of that where the first has few stars.
_SIDES = (448, 1024)
# The brightest that are compared.
_STARS = 60
_LEAST_STARS = 6
_ENOUGH_STARS = 15
# Pixels; stars that are nearer are the same where half of them have such a partner.
_NEAR = 4.0
# Part of the brightest that may lack a partner among aligned frames.
_BRIGHT_LOST = 0.4
# Pixels; programs that align frames are better than that.
_SAME = 0.75
# Pixels at a corner of the frame.
_TURNED = 1.0


@dataclass(frozen=True, eq=False)
class _Piece:
    """The stars of the middle of a frame, and where it begins."""

    stars: StarList
    left: int
    top: int
    shape: tuple[int, int]


def recognize_by_stars(found: Recognized, frames: Sequence[FrameFile], files: FilePool) -> Recognized:
    """Return what the stars say, with a line for the user, where headers leave it open whether frames are aligned."""
    if not found.is_open or len(frames) < 2:
        return found
    pieces = _pieces([head_of(frame) for frame in frames], files)
    if len(pieces) < 2:  # stacking the frames says more
        return found
    (head, first), apart, stars = pieces[0], 0.0, []
    for other, piece in pieces[1:]:
        moved, partners = _moved(first, piece)
        names = f"{head.path.name} and {other.path.name}"
        if moved is None:
            few = min(len(first.stars), len(piece.stars))
            why = f"{few} stars are" if few < _LEAST_STARS else f"{partners} of {few} bright objects are at one place"
            line = (
                f"whether the frames are aligned can't be told: {why} in the middle of {names}; "
                "they are stacked as they are (--align stars registers them)"
            )
            return replace(found, line=line)
        if moved > _SAME:
            return Recognized(True, f"the stars of {names} lie {moved:.3g} px apart")
        apart = max(apart, moved)
        stars.append(partners)
    return replace(found, line=f"the frames are aligned: {min(stars)} stars lie within {max(apart, 0.01):.2f} px")


def _pieces(heads: Sequence[FileHead], files: FilePool) -> list[tuple[FileHead, _Piece]]:
    """Return the middles of the first, the middle and the last frame; of one that can't be read, of the next."""
    chosen: dict[int, FileFrame] = {}
    for wanted in (0, len(heads) // 2, len(heads) - 1):
        step = -1 if wanted == len(heads) - 1 else 1
        for index in range(wanted, -1 if step < 0 else len(heads), step):
            if index in chosen:
                break
            with suppress(ZemosaicError, OSError):
                chosen[index] = probe_frame(heads[index])
                break
    for side in _SIDES:
        pieces = []
        for index, source in sorted(chosen.items()):
            with suppress(ZemosaicError, OSError):
                pieces.append((heads[index], _piece(source, side, files)))
        pieces = [(head, piece) for head, piece in pieces if piece.shape == pieces[0][1].shape]
        if min((len(piece.stars) for _, piece in pieces), default=0) >= _ENOUGH_STARS:
            break
        if not pieces or max(pieces[0][1].shape) <= side:
            break
    return pieces


def _piece(source: FileFrame, side: int, files: FilePool) -> _Piece:
    """Read the middle of a frame and find its brightest stars."""
    rows, columns = min(side, source.rows), min(side, source.columns)
    top, left = (source.rows - rows) // 2, (source.columns - columns) // 2
    planes = source.read_planes(top, top + rows, files)
    piece = planes[source.channels // 2, :, left : left + columns].astype(np.float32)
    return _Piece(_bright_stars(piece), left, top, (source.rows, source.columns))


def _bright_stars(image: _Image) -> StarList:
    """Find the brightest stars; none where most of the image is missing."""
    missing = ~np.isfinite(image)
    if missing.mean() > 0.5 or min(image.shape) < 32:
        return StarList.empty(*image.shape)
    if not missing.any():
        image = clean_pixels(image, sharp_pixels(image))
    stars = detect_stars(image)
    return stars.without(np.arange(_STARS, len(stars)))


def _moved(first: _Piece, other: _Piece) -> tuple[float | None, int]:
    """Return how far the stars have moved, pixels (None: can't be told), and how many have a partner."""
    a, b = first.stars.points, other.stars.points
    fewer = min(len(a), len(b))
    if fewer < _LEAST_STARS:
        return None, 0
    distance = np.hypot(*(a[:, np.newaxis] - b[np.newaxis]).transpose(2, 0, 1))
    there = distance.argmin(axis=1)
    mutual = (distance.argmin(axis=0)[there] == np.arange(len(a))) & (distance.min(axis=1) < _NEAR)
    source, target = a[mutual], b[there[mutual]]
    if len(source) < max(_LEAST_STARS, 0.5 * fewer):
        match = find_match(first.stars, other.stars)
        if match is None or match.problem(_LEAST_STARS, 1.0):
            return None, len(source)
        y, x = ((length - 1) / 2 for length in (first.stars.rows, first.stars.columns))
        return max(float(np.hypot(*match.transform.shift_at(x, y))), 2 * _SAME), match.stars
    moving, is_doubtful = _others(first.stars, other.stars, mutual, there[mutual])
    if moving is not None or is_doubtful:
        return moving, len(source)
    apart = np.median(target - source, axis=0)
    shift = float(np.hypot(*apart))
    scatter = float(np.median(np.hypot(*(target - source - apart).T)))
    # Few faint stars, or galaxies, have such medians by chance.
    sure = shift > _SAME + 4 * scatter / len(source) ** 0.5
    return max(shift if sure else min(shift, _SAME), _turned(first, source, target)), len(source)


def _others(
    first: StarList, other: StarList, mutual: npt.NDArray[np.bool_], there: npt.NDArray[np.intp]
) -> tuple[float | None, bool]:
    """Return how far objects without a partner at their place move together, and whether too many bright ones lack one.

    Trees, a horizon, dust and hot pixels stay at their places while the sky turns.
    """
    rest = first.without(np.flatnonzero(mutual)), other.without(there)
    if min(map(len, rest)) >= _LEAST_STARS:
        match = find_match(*rest)
        if match is not None and not match.problem(_LEAST_STARS, 1.0):
            y, x = ((length - 1) / 2 for length in (first.rows, first.columns))
            corner = match.transform.largest_move(first.rows, first.columns)
            if corner > 2 * _NEAR:
                return max(float(np.hypot(*match.transform.shift_at(x, y))), corner / 2), False
    has_partner = np.zeros(len(other), np.bool_)
    has_partner[there] = True
    # The brightest third of either list is among all that the other one shows, unless it is elsewhere.
    bright = [part[: max(_LEAST_STARS, len(part) // 3)] for part in (mutual, has_partner)]
    return None, max(float(1 - part.mean()) for part in bright) > _BRIGHT_LOST


def _turned(piece: _Piece, source: _Values, target: _Values) -> float:
    """Return how far a turn or a scale moves the frame's corners, pixels; 0 where chance explains it."""
    shift = np.median(target - source, axis=0)
    good = np.hypot(*(target - source - shift).T) < 2.0
    if good.sum() < _LEAST_STARS:
        return 0.0
    source, target = source[good], target[good]
    fit = fit_similarity(source, target)
    corners = corners_of(*piece.shape) - (piece.left, piece.top)
    move = float(np.hypot(*(fit(corners) - corners - shift).T).max())
    scatter = float(np.sqrt(np.mean((fit(source) - target) ** 2) * len(source) / (len(source) - 2)))
    center = source.mean(axis=0)
    reach = float(np.hypot(*(corners - center).T).max())
    error = scatter * reach / float(np.sqrt(((source - center) ** 2).sum()))
    return move if move > _TURNED + 5 * error else 0.0
