"""What became of a tile: `TileOutcome`, and the `TileRecord` that the report is made of."""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from zemosaic_stack_core.phase3.previews import TilePictures
from zemosaic_stack_core.phase3.run_plan import TileSpec


class TileOutcome(enum.StrEnum):
    """Outcome of one tile of a run; the value is what the JSON report says."""

    DONE_GPU = "done_gpu"
    """The tile's file is whole and new; every band of it came from the GPU."""

    DONE_CPU = "done_cpu"
    """The tile's file is whole and new; the GPU was not tried for this tile."""

    DONE_CPU_AFTER_GPU_FAILURE = "done_cpu_after_gpu_failure"
    """The tile's file is whole and new; the GPU was tried and failed, then the whole tile was made on the CPU."""

    REUSED = "reused"
    """The file of an earlier run is whole (checksum) and was made of the same inputs, options and algorithm."""

    FAILED = "failed"
    """There is no file of this tile; `TileRecord.reason` says why. The other tiles are not touched by it."""

    CANCELLED = "cancelled"
    """The run ended before this tile was made. An older file of that name may be there; the next run decides."""

    @property
    def is_made(self) -> bool:
        """Whether the tile's file is there and right."""
        return self not in (TileOutcome.FAILED, TileOutcome.CANCELLED)

    @property
    def is_new(self) -> bool:
        """Whether this run made the tile's file."""
        return self.is_made and self is not TileOutcome.REUSED

    @property
    def text(self) -> str:
        """The outcome as a run says it."""
        return _TEXTS[self]


_TEXTS = {
    TileOutcome.DONE_GPU: "made on the GPU",
    TileOutcome.DONE_CPU: "made on the CPU",
    TileOutcome.DONE_CPU_AFTER_GPU_FAILURE: "made on the CPU after the GPU failed",
    TileOutcome.REUSED: "reused",
    TileOutcome.FAILED: "FAILED",
    TileOutcome.CANCELLED: "cancelled",
}


@dataclass(frozen=True, kw_only=True)
class DroppedFrame:
    """A frame that was left out of a tile.

    Parameters
    ----------
    name : str
        The path as given.
    reason : str
        One line: what was found and what was expected.
    """

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class FrameUse:
    """How a frame fared in the stack.

    Parameters
    ----------
    name : str
        The path as given.
    rejected_low, rejected_high, missing : float
        Percent: samples rejected, of those present; samples missing, of all.
    weight : float
        Mean over the channels of the weight that acted.
    note : str
        Why it was not normalized or weighted as asked; empty where all went as asked.
    """

    name: str
    rejected_low: float
    rejected_high: float
    missing: float
    weight: float
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class FrameQuality:
    """What is known of a frame of a tile, stacked or not; None where it was not measured.

    Parameters
    ----------
    name : str
        The path as given.
    dropped : str
        Why it was left out; empty where it was stacked.
    note : str
        Other things worth knowing.
    date : str
        Start of the exposure, ISO 8601; empty where it is not known.
    exposure : float
        Seconds.
    fwhm, stars, roundness : float, int, float
        Width of the stars, pixels; how many were found; axis ratio, 1 is round. Of a raw frame, as the telescope wrote
        it; of an aligned one, in its middle.
    sky, noise : float
        Level and standard deviation of the background, input units.
    transparency : float
        Percent: light of its stars per second of exposure, of that of the clearest frame.
    weight : float
        Mean over the channels of the weight that acted.
    rejected_low, rejected_high, missing : float
        Percent: samples rejected, of those present; samples missing, of all.
    shift_x, shift_y, rotation, residual : float
        Place on the reference: pixels, degrees, and the distance of matched stars, pixels.
    """

    name: str
    dropped: str = ""
    note: str = ""
    date: str = ""
    exposure: float | None = None
    fwhm: float | None = None
    stars: int | None = None
    roundness: float | None = None
    sky: float | None = None
    noise: float | None = None
    transparency: float | None = None
    weight: float | None = None
    rejected_low: float | None = None
    rejected_high: float | None = None
    missing: float | None = None
    shift_x: float | None = None
    shift_y: float | None = None
    rotation: float | None = None
    residual: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what is known."""
        return {name: value for name, value in asdict(self).items() if value not in (None, "")}


@dataclass(frozen=True, kw_only=True)
class TileRecord:
    """All that the report says of a tile.

    Parameters
    ----------
    tile_id : int
        Its number in the plan.
    name : str
        Its name in the plan.
    outcome : TileOutcome
        What became of it.
    reason : str
        Why it failed or was cancelled, or why the GPU did not make it; one line, empty otherwise.
    file : str
        Name of the master tile in the output folder; empty where there is none.
    signature : str
        Of inputs, options and algorithm, hexadecimal; see `zemosaic_stack_core.phase3.signature`.
    shape : tuple of int
        (row, column) or (row, column, channel); empty where there is no image.
    frames_given, frames_used : int
        Frames in the plan, and frames in the stack.
    dropped : tuple of DroppedFrame
        Frames left out, and why.
    rejected_low, rejected_high : float
        Percent of the present samples of the whole tile.
    coverage_min, coverage_max : int
        Fewest and most samples combined at a pixel.
    empty_pixels : float
        Percent of the pixels that no frame covers.
    excluded : tuple of str
        Names of the frames left out on request; they don't count as given.
    worst_frames : tuple of FrameUse
        The frames of which most was rejected, worst first.
    frames : tuple of FrameQuality
        Every frame, the dropped ones too.
    backend : str
        What computed it: ``"numpy"``, ``"cupy"``.
    gpu_attempts : int
        Stacks that were started on the GPU for this tile.
    seconds, check_seconds, stack_seconds, write_seconds : float
        Wall-clock time: in all; looking at the frames and hashing them; stacking; writing.
    peak_bytes : int
        Largest memory of the process and its workers while the tile was made; 0 where it could not be measured.
    samples : int
        Frames times pixels times channels.
    worker : str
        Which process made it: host and process id.
    started : str
        ISO 8601, UTC.
    """

    tile_id: int
    name: str
    outcome: TileOutcome
    reason: str = ""
    file: str = ""
    signature: str = ""
    shape: tuple[int, ...] = ()
    frames_given: int = 0
    frames_used: int = 0
    dropped: tuple[DroppedFrame, ...] = ()
    excluded: tuple[str, ...] = ()
    rejected_low: float = 0.0
    rejected_high: float = 0.0
    coverage_min: int = 0
    coverage_max: int = 0
    empty_pixels: float = 0.0
    worst_frames: tuple[FrameUse, ...] = ()
    frames: tuple[FrameQuality, ...] = ()
    backend: str = ""
    gpu_attempts: int = 0
    seconds: float = 0.0
    check_seconds: float = 0.0
    stack_seconds: float = 0.0
    write_seconds: float = 0.0
    peak_bytes: int = 0
    samples: int = 0
    worker: str = ""
    started: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def without_file(cls, spec: TileSpec, outcome: TileOutcome, reason: str) -> Self:
        """Return the record of a tile that was not made."""
        given = len(spec.frames)
        return cls(
            tile_id=spec.tile_id,
            name=spec.name,
            outcome=outcome,
            reason=reason,
            frames_given=given,
            excluded=spec.excluded,
        )

    def to_json(self) -> dict[str, Any]:
        """Return what `json.dumps` takes."""
        return {**asdict(replace(self, frames=())), "frames": [frame.to_json() for frame in self.frames]}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """Undo `to_json`; raise KeyError, TypeError or ValueError where it is not the record of a tile."""
        fields = dict(values)
        fields["outcome"] = TileOutcome(fields["outcome"])
        fields["shape"] = tuple(fields["shape"])
        fields["excluded"] = tuple(fields.get("excluded", ()))
        fields["dropped"] = tuple(DroppedFrame(**frame) for frame in fields["dropped"])
        fields["worst_frames"] = tuple(FrameUse(**frame) for frame in fields["worst_frames"])
        fields["frames"] = tuple(FrameQuality(**frame) for frame in fields.get("frames", ()))
        return cls(**fields)


@dataclass(frozen=True, kw_only=True)
class MadeTile:
    """A tile's record, and what else the run keeps of it."""

    record: TileRecord
    # Of each input: name, SHA-256 and stamp, for the next run.
    inputs: list[list[Any]] = field(default_factory=list)
    pictures: TilePictures = field(default_factory=TilePictures)
    # No tile can be written any more: the disk is full, or the folder can't be written.
    stops_run: bool = False
