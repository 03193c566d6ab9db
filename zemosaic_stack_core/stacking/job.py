"""One stack, ready to be computed: `StackJob`, and the loop that computes chunks of it on one backend.

A job holds no file and no array of a backend: it is made once, and travels to worker processes as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.frames.group import NO_PLANES, FrameGroup, PlanesGiven
from zemosaic_stack_core.frames.planes import PlaneStack
from zemosaic_stack_core.frames.variances import VarianceSource
from zemosaic_stack_core.options import StackOptions
from zemosaic_stack_core.stacking.chunk_plan import ChunkPlan
from zemosaic_stack_core.stacking.clusters import RejectedFlags


@dataclass(frozen=True, kw_only=True)
class StackJob:
    """Everything that decides the numbers of one stack.

    Parameters
    ----------
    group : FrameGroup
        The frames.
    options : StackOptions
        Rule and combination.
    maps : frozenset of str
        Maps that are wanted.
    weight : array of shape (frame, channel), float32
        A frame of zero weight takes part in nothing.
    scale, offset : array of shape (frame, channel), float32, or None
        Normalization.
    sample_weights : PlaneStack or None
        Weights of single samples.
    variances : VarianceSource or None
        Variances of single samples.
    plan : ChunkPlan
        Chunks; no number depends on it.
    given : PlanesGiven
        What the frames' masks, weights and variances came from.
    flags : RejectedFlags or None
        Where the rejected samples are noted, of a stack whose clusters grow.
    is_second_pass : bool
        Let the clusters in `flags` grow, and combine again the pixels that lose a sample.
    """

    group: FrameGroup
    options: StackOptions
    maps: frozenset[str]
    weight: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32] | None
    offset: npt.NDArray[np.float32] | None
    sample_weights: PlaneStack | None
    variances: VarianceSource | None
    plan: ChunkPlan
    given: PlanesGiven = NO_PLANES
    flags: RejectedFlags | None = None
    is_second_pass: bool = False

    @property
    def weighs_by_variance(self) -> bool:
        """Whether samples weigh as much as their variance says."""
        return self.options.weighting == "inverse_variance"

    @property
    def weighs_samples(self) -> bool:
        """Whether the samples of one frame have different weights."""
        return self.sample_weights is not None or self.weighs_by_variance

    @property
    def propagates(self) -> bool:
        """Whether the variance of the result is made of those of the samples."""
        return self.variances is not None and "variance" in self.maps

    @property
    def is_weighted(self) -> bool:
        """Whether the samples that take part have different weights."""
        return self.weighs_samples or bool(((self.weight != 1.0) & (self.weight != 0.0)).any())
