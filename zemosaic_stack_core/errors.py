"""The errors of the library.

::

    Exception
    └── ZemosaicError                     anything this library raises on purpose
        ├── InvalidInputError             (ValueError)   options, shapes, weights, masks
        ├── FrameReadError                (OSError)      a file that can't be read as a frame
        ├── BackendUnavailableError       (RuntimeError) a backend that can't be had on this machine
        ├── GPUStackingError              (RuntimeError) the GPU gave no valid tile
        ├── OutOfMemoryError              (MemoryError)  the smallest possible band does not fit
        ├── OutputError                   (OSError)      a file that can't be written
        └── ScratchError                  (OSError)      no room for temporary files

Each child is also the built-in error that a caller who knows nothing of this library would catch.
A message says what was found, where, and what was expected; it names the file where there is one.
"""

from __future__ import annotations


class ZemosaicError(Exception):
    """Base of every error that this library raises on purpose."""


class InvalidInputError(ZemosaicError, ValueError):
    """An option, a shape, a weight or a mask is not what it must be."""


class FrameReadError(ZemosaicError, OSError):
    """A file can't be read as a frame."""


class BackendUnavailableError(ZemosaicError, RuntimeError):
    """A backend was asked for by name and can't be had on this machine."""


class GPUStackingError(ZemosaicError, RuntimeError):
    """The GPU did not produce a valid tile."""


class OutOfMemoryError(ZemosaicError, MemoryError):
    """The smallest possible band does not fit the memory budget."""


class OutputError(ZemosaicError, OSError):
    """A file can't be written; what was there before is still there."""


class ScratchError(ZemosaicError, OSError):
    """There is no room for temporary files, or they can't be written: neither the frames' fault nor the output's."""
