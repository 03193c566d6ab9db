"""What astropy raises and says while it reads a file, named here and nowhere else: `astropy_reads`, `quiet_astropy`."""

from __future__ import annotations

import logging
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from zemosaic_stack_core.errors import FrameReadError, ZemosaicError

if TYPE_CHECKING:
    from astropy.io import fits


@cache
def astropy_faults() -> tuple[type[Exception], ...]:
    """Return what astropy and the decoders behind it have been seen to raise for damaged files."""
    from astropy.io.fits import VerifyError
    from astropy.wcs import WcsError

    faults: list[type[Exception]] = [VerifyError, WcsError, zlib.error, struct.error, EOFError, MemoryError]
    faults += [OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, ArithmeticError]
    faults += [AssertionError, UnboundLocalError]
    try:
        from astropy.io.fits.hdu.compressed._compression import CfitsioException
    except ImportError:  # a private name
        return tuple(faults)
    return (*faults, CfitsioException)


@contextmanager
def quiet_astropy() -> Iterator[None]:
    """Keep astropy's warnings and log off the screen, where what they mean is said in our words."""
    import astropy  # noqa: F401 - it sets its logger's level when it is imported

    logger = logging.getLogger("astropy")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


@contextmanager
def astropy_reads(name: str, expected: str) -> Iterator[None]:
    """Raise `FrameReadError`, with the file's name, for whatever astropy raises while it reads the file."""
    with quiet_astropy():
        try:
            yield
        except ZemosaicError:
            raise
        except astropy_faults() as error:
            said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            reason = next(iter(said.splitlines()), "") or type(error).__name__
            if reason.startswith("No SIMPLE card"):  # the advice that follows is for programmers
                reason = "not a FITS file"
            raise FrameReadError(f"{name}: {reason}; expected {expected}") from error


@contextmanager
def open_fits(path: Path, name: str, expected: str, **how: bool) -> Iterator[fits.HDUList]:
    """Open a file with astropy, which leaves it open where it fails; see `astropy_reads`."""
    from astropy.io import fits

    with astropy_reads(name, expected), path.open("rb") as file, fits.open(file, **how) as hdus:
        yield hdus
