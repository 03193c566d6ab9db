"""stcal's medians: `nanmedian3D` of a cube, and `MedianComputer`, whose frames wait in memory or on disk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.frames.host_arrays import shape_of, to_host
from zemosaic_stack_core.frames.scratch import ScratchFolder
from zemosaic_stack_core.nddata.namespaces import Namespace
from zemosaic_stack_core.options import StackOptions
from zemosaic_stack_core.stacking.run import stack

_MEDIAN = StackOptions(rejection="none", combine="median")
# A smaller buffer than this would make chunks of a few pixels.
_LEAST_BYTES = 1 << 20


def nanmedian3D(cube: Any, overwrite_input: bool = True) -> Any:  # noqa: N802, ARG001 - stcal's names
    """Return the median along the first axis, of what is not NaN.

    Parameters
    ----------
    cube : array of shape (frame, row, column)
        Of any array library, in any real type.
    overwrite_input : bool
        Without effect: the cube is never written to.

    Returns
    -------
    array of shape (row, column)
        Of the cube's library and type; NaN where no sample is left.

    Raises
    ------
    InvalidInputError
        It is no cube, or there is nothing in it.

    Notes
    -----
    Medians are those of the samples as float32. A warning tells where that loses the noise of wider numbers.
    """
    shape = shape_of(cube)
    if len(shape) != 3 or not all(shape):
        raise InvalidInputError(f"cube has the shape {shape}; expected frames, rows and columns, none 0")
    frames = [cube[index, ...] for index in range(shape[0])]
    image = stack(frames, options=_MEDIAN, maps=(), memory_limit=_buffer(frames[0])).image
    return Namespace.of(cube).give(image, cube.dtype)


class MedianComputer:
    """The median of frames that come one by one: stcal's class, in memory or on disk.

    Parameters
    ----------
    full_shape : tuple of int
        Frames, rows and columns.
    in_memory : bool
        Keep the frames in memory. Else each is a file in a temporary folder until `evaluate`.
    buffer_size : int, optional
        Bytes that the computation may take, of frames on disk; by default those of one frame.
    dtype : dtype
        Type of the frames and of the median.
    tempdir : str
        Folder for the temporary folder; by default the current one.

    Raises
    ------
    InvalidInputError
        The shape is not that of a cube.

    Notes
    -----
    Frames that never came do not count. stcal takes whatever lies in memory for them; on disk it refuses more frames
    than the cube has sections.
    """

    def __init__(
        self,
        full_shape: Sequence[int],
        in_memory: bool,
        buffer_size: int | None = None,
        dtype: npt.DTypeLike = "float32",
        tempdir: str | os.PathLike[str] = "",
    ) -> None:
        self.full_shape = tuple(int(length) for length in full_shape)
        if len(self.full_shape) != 3:
            raise InvalidInputError(f"full_shape is {self.full_shape}; expected frames, rows and columns")
        self.in_memory = in_memory
        self.dtype = np.dtype(dtype)
        self.buffer_size = buffer_size or int(np.prod(self.full_shape[1:])) * self.dtype.itemsize
        self._frames: dict[int, npt.NDArray[Any]] = {}
        self._scratch = None if in_memory else ScratchFolder(Path(tempdir))

    def append(self, data: Any, idx: int | None = None) -> None:
        """Take a frame: the one of index `idx`, which frames in memory need, or the next one.

        Raises
        ------
        InvalidInputError
            It has another shape or type, or `idx` is missing.
        IndexError
            It is one more than the cube has.
        ScratchError
            The temporary folder is full or can't be written.
        """
        frame = to_host(data, "data")
        if frame.shape != self.full_shape[1:]:
            raise InvalidInputError(f"data has the shape {frame.shape}; expected {self.full_shape[1:]}")
        if self.in_memory and idx is None:
            raise InvalidInputError("idx is None with in_memory; expected the index of the frame")
        index = idx if self.in_memory and idx is not None else len(self._frames)
        if not 0 <= index < self.full_shape[0]:
            raise IndexError(f"frame {index} of {self.full_shape[0]}; expected 0 to {self.full_shape[0] - 1}")
        if self._scratch is None:
            self._frames[index] = frame.astype(self.dtype)
            return
        if frame.dtype != self.dtype:
            raise InvalidInputError(f"data has the dtype {frame.dtype}; expected {self.dtype}")
        path = self._scratch.store([np.ascontiguousarray(frame)], f"frame {index}")
        self._frames[index] = np.memmap(path, self.dtype, "r", shape=frame.shape)

    def evaluate(self) -> npt.NDArray[Any]:
        """Return the median of the frames, shape (row, column); files of frames are removed."""
        if not self._frames:
            raise InvalidInputError("no frames; expected at least one from append()")
        limit = max(self.buffer_size, _LEAST_BYTES)
        try:
            image = stack(list(self._frames.values()), options=_MEDIAN, maps=(), memory_limit=limit).image
        finally:
            if self._scratch is not None:
                self._frames = {}
                self._scratch.close()
        median: npt.NDArray[Any] = Namespace.of(image).give(image, self.dtype)
        return median


def _buffer(frame: Any) -> int:
    """Return the bytes of a frame, or of the smallest buffer."""
    return max(4 * int(np.prod(shape_of(frame))), _LEAST_BYTES)
