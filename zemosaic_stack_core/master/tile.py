"""The records of a master on the disk: what was read of it, and what its writer may add to a stack.

A master is one FITS file: the image in the primary HDU, float32, planes of channels first, NaN where nothing was
combined; ``ALPHA`` for mosaic programs; the maps that were asked for as ``COVERAGE``, ``WEIGHT``, ``REJLO``, ``REJHI``,
``VARIANCE``; and the table ``FRAMES``. The same result gives the same bytes: no card tells the time of writing.
`option_cards` lists the cards, `frames_table` the columns.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.stacking.result import FrameRecord, StackResult

if TYPE_CHECKING:
    from astropy.io import fits


# Extension, field of `StackResult`, and comment of each map.
MAP_EXTENSIONS = (
    ("COVERAGE", "coverage", "samples combined"),
    ("WEIGHT", "weight_map", "sum of the weights of the combined samples"),
    ("REJLO", "rejected_low", "samples rejected below"),
    ("REJHI", "rejected_high", "samples rejected above"),
    ("VARIANCE", "variance", "variance of the combined value"),
    ("LOW", "low", "smallest combined sample, normalized"),
    ("HIGH", "high", "largest combined sample, normalized"),
)


@dataclass(frozen=True, kw_only=True)
class TileFacts:
    """What a mosaic program wants to know of a master.

    Parameters
    ----------
    tile_id : int or str
        Its name in the run.
    raw_frames : int
        Frames in the group before any was dropped.
    aligned_frames : int or None
        Frames that could be aligned; None means the frames that were stacked.
    kind : str
        Value of ZMT_TYPE.
    """

    tile_id: int | str
    raw_frames: int
    aligned_frames: int | None = None
    kind: str = "Master Tile"


@dataclass(frozen=True, kw_only=True)
class MasterExtras:
    """What a master's file is to hold beside its stack.

    Parameters
    ----------
    reference : Header, path or None
        Where the WCS and the observing cards come from. None: the file of the reference frame, or of the first frame
        that has one; without any, or where astropy can't read it, there are none. An empty header asks for none.
    sha256 : sequence of str or None
        Per frame, in hexadecimal, where it was computed; or empty.
    tile : TileFacts or None
        Makes it a tile for a mosaic program: adds its cards and the ALPHA extension.
    alpha : array of shape (row, column), uint8, or None
        ALPHA itself, where a caller has a better one than "255 where every channel has coverage, else 0".
    signature : str
        Up to 68 characters that tell one set of inputs and options from another, for `read_signature`.
    cards : sequence of (keyword, value, comment)
        More cards for the primary header, in ASCII.
    columns : mapping of str to (unit, values)
        More columns for the table FRAMES: text, or numbers, one for each frame.
    history : sequence of str
        Lines for the HISTORY of the primary header, in ASCII.
    """

    reference: fits.Header | str | os.PathLike[str] | None = None
    sha256: Sequence[str | None] = ()
    tile: TileFacts | None = None
    alpha: npt.NDArray[np.uint8] | None = None
    signature: str = ""
    cards: Sequence[tuple[str, str | int | float | bool, str]] = ()
    columns: Mapping[str, tuple[str, Sequence[Any]]] = field(default_factory=dict)
    history: Sequence[str] = ()

    @property
    def has_alpha(self) -> bool:
        """Whether there is to be an ALPHA extension."""
        return self.tile is not None or self.alpha is not None


NO_EXTRAS = MasterExtras()


@dataclass(frozen=True, kw_only=True)
class FrameRow:
    """A frame as a master remembers it.

    Parameters
    ----------
    record : FrameRecord
        What happened to it; `record.path` is the file where it was found again, None where it was not looked for
        or is gone. Of what its header says, the table has size, exposure time and start.
    relative : str
        Its file's name relative to the master's folder; empty for a frame without a file.
    sha256 : str
        Of the file, in hexadecimal; empty where it was not computed.
    raw : str
        Name of the raw file that it was prepared from; empty where it was not.
    """

    record: FrameRecord
    relative: str
    sha256: str = ""
    raw: str = ""


@dataclass(frozen=True, kw_only=True)
class MasterTile:
    """A master read back.

    Parameters
    ----------
    result : StackResult
        Image, maps, options, backend and frames, equal to what was written; of the run's facts nothing is known.
    rows : tuple of FrameRow
        The FRAMES table: each frame's record with its file, size, SHA-256, exposure.
    header : astropy.io.fits.Header
        Of the primary HDU.
    alpha : array of shape (row, column), uint8, or None
        255 where the image is valid, 0 elsewhere.
    """

    result: StackResult
    rows: tuple[FrameRow, ...]
    header: fits.Header
    alpha: npt.NDArray[np.uint8] | None = None
