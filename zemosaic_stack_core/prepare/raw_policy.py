"""What becomes of frames as the telescope wrote them, in a single stack and in a run alike: `RawPolicy`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from zemosaic_stack_core.frames.heads import FrameFile
from zemosaic_stack_core.prepare.headers.recognize import Recognized, recognize
from zemosaic_stack_core.prepare.options import PrepareOptions

if TYPE_CHECKING:
    from zemosaic_stack_core.frames.pixel_rows import FilePool
    from zemosaic_stack_core.prepare.pipeline import Progress
    from zemosaic_stack_core.prepare.records import PreparedGroup


@dataclass(frozen=True, kw_only=True)
class RawPolicy:
    """How raw frames are told from aligned ones, and prepared.

    Parameters
    ----------
    options : PrepareOptions
        How they are prepared. Anything but the defaults says that the frames are raw; ``align="none"`` alone, that they
        are aligned.
    cache_folder : Path, optional
        Where masters and aligned frames are kept; by default a folder beside the output.
    zeros_missing : bool
        As of `PrepareOptions`; of aligned frames, too, so that it says nothing of what they are.
    """

    options: PrepareOptions = field(default_factory=PrepareOptions)
    cache_folder: Path | None = None
    zeros_missing: bool = False

    def by_headers(self, frames: Sequence[FrameFile]) -> Recognized:
        """Return whether frames are raw, as far as the options and their headers say it."""
        usual = PrepareOptions()
        given = [one.name for one in fields(usual) if getattr(self.options, one.name) != getattr(usual, one.name)]
        if not given:
            return _with_line(recognize(frames))
        flags = ["--reference-frame" if name == "reference" else f"--{name.replace('_', '-')}" for name in given]
        is_raw = self.options != PrepareOptions(align="none")
        return _with_line(Recognized(is_raw, f"asked for by {', '.join(flags)}"))

    def by_stars(self, found: Recognized, frames: Sequence[FrameFile], files: FilePool) -> Recognized:
        """Return whether frames are raw, by their stars where the headers have left it open."""
        if not found.is_open:
            return found
        from zemosaic_stack_core.prepare.stars.recognize import recognize_by_stars

        return _with_line(recognize_by_stars(found, frames, files))

    def prepare(
        self,
        frames: Sequence[FrameFile],
        folder: Path,
        *,
        workers: int | None = None,
        progress: Progress | None = None,
        report: Callable[[str], None] | None = None,
    ) -> PreparedGroup:
        """Prepare frames; `folder` is the cache where no other was asked for. See `prepare_frames`."""
        from zemosaic_stack_core.prepare.pipeline import prepare_frames

        cache = self.cache_folder or folder
        options = replace(self.options, zeros_missing=self.zeros_missing)
        return prepare_frames(frames, options, cache_folder=cache, progress=progress, report=report, workers=workers)


def _with_line(found: Recognized) -> Recognized:
    """Return what was found, with a line for the user where the frames are raw."""
    line = f"raw frames: {found.why}; the lights are registered first"
    return replace(found, line=line) if found.is_raw else found
