"""The cards that a mosaic program looks for in a master tile."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from zemosaic_stack_core.master.tile import TileFacts
from zemosaic_stack_core.options import KAPPA_RULES
from zemosaic_stack_core.stacking.result import StackResult

if TYPE_CHECKING:
    from astropy.io import fits


def add_tile(header: fits.Header, result: StackResult, tile: TileFacts) -> None:
    """Add ZeMosaic's cards; of the options only those that acted. Names above 8 characters become HIERARCH cards."""
    options = result.options
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # astropy warns of each HIERARCH card; the names are the readers' choice
        header["ZMT_TYPE"] = (tile.kind, "ZeMosaic processed tile")
        header["ZMT_ID"] = (tile.tile_id, "master tile ID")
        header["ZMT_NRAW"] = (tile.raw_frames, "frames in the group")
        aligned = len(result.frames) if tile.aligned_frames is None else tile.aligned_frames
        header["ZMT_NALGN"] = (aligned, "aligned frames")
        header["MT_NFRAMES"] = (header["NCOMBINE"], "frames in the image")
        header["ZMT_NORM"] = (options.normalization, "normalization")
        header["ZMT_WGHT"] = (options.weighting, "weighting")
        header["ZMT_REJ"] = (options.rejection, "rejection")
        if options.rejection in KAPPA_RULES:
            for card, kappa, comment in (
                ("ZMT_KAPLO", options.kappa_low, "kappa low"),
                ("ZMT_KAPHI", options.kappa_high, "kappa high"),
            ):
                if kappa is not None:
                    header[card] = (kappa, comment)
        if options.rejection == "winsorized_quantile":
            header["ZMT_WINLO"] = (options.winsor_limits[0], "winsor limit low")
            header["ZMT_WINHI"] = (options.winsor_limits[1], "winsor limit high")
        if options.radial_feather_fraction is not None:
            header["ZMT_RADW"] = (True, "radial weighting")
            header["ZMT_RADF"] = (options.radial_feather_fraction, "radial feather fraction")
            header["ZMT_RADP"] = (options.radial_shape_power, "radial shape power")
        header["ZMT_COMB"] = (options.combine, "combination")
