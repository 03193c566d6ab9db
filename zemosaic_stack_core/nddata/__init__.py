"""Names that astropy's users know, over the stack: ccdproc's `Combiner` and `combine`, stcal's `MedianComputer`.

No more is imported for it than astropy.
"""

from __future__ import annotations

from zemosaic_stack_core.nddata.ccddata import from_ccddata, to_ccddata
from zemosaic_stack_core.nddata.combiner import Combiner
from zemosaic_stack_core.nddata.combining import combine
from zemosaic_stack_core.nddata.medians import MedianComputer, nanmedian3D

__all__ = ["Combiner", "MedianComputer", "combine", "from_ccddata", "nanmedian3D", "to_ccddata"]
