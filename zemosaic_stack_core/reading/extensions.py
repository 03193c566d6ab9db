"""Which planes came with the frames, as far as a master has to remember it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["NO_PLANES", "PlanesGiven"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanesGiven:
    """Masks, weights and variances of single samples: the FITS extensions they are in, and those given as arrays.

    Parameters
    ----------
    mask_extension, variance_extension : str or None
        Name of the extension of each frame's file.
    dq_bits : int or None
        Bits of the mask extension that count; None for all.
    arrays : tuple of str
        What was given as arrays, of ``"masks"``, ``"weights"``, ``"variances"``: no file tells them again.
    """

    mask_extension: str | None = None
    dq_bits: int | None = None
    variance_extension: str | None = None
    arrays: tuple[str, ...] = ()


NO_PLANES = PlanesGiven()
"""Nothing but the frames."""
