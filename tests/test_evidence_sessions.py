"""Sessions together: frames turned against each other, under other gradients, show no border in the master."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from zemosaic_stack_core import StackOptions, stack
from zemosaic_stack_core.prepare import PreparedGroup, PrepareOptions, prepare_frames
from zemosaic_stack_core.prepare.canvas.geometry import Affine
from zemosaic_stack_core.prepare.canvas.level_match import match_levels, see_different_skies
from zemosaic_stack_core.prepare.canvas.levels import box_medians
from zemosaic_stack_core.synthetic.raw_night import RawNight

# Of a pixel of one frame.
NOISE = 20.0
# A frame's, and the canvas's.
SIZE, CANVAS = (300, 400), (560, 560)
_Plane = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Session:
    """Frames of one night: how many, how they lie, and the gradient of their sky."""

    frames: int
    degrees: float = 0.0
    # Of the frames' center on the canvas, pixels.
    center: tuple[float, float] = (280.0, 280.0)
    # From border to border in x and in y, and from the middle to a corner.
    gradient: tuple[float, float, float] = (40.0, -20.0, 0.0)

    def surface(self, random: np.random.Generator, canvas: tuple[int, int]) -> _Plane:
        """Return the sky that one of its frames adds; NaN where it has nothing."""
        y, x = np.mgrid[: canvas[0], : canvas[1]].astype(np.float64)
        x, y = (axis - c - d for axis, c, d in zip((x, y), self.center, random.uniform(-4, 4, 2), strict=True))
        c, s = math.cos(math.radians(self.degrees)), math.sin(math.radians(self.degrees))
        u, v = (x * c + y * s) / SIZE[1], (y * c - x * s) / SIZE[0]
        across, down, curve = self.gradient
        sky = across * u + down * v + 2 * curve * (u * u + v * v) + random.normal(0, 10)
        return np.where((np.abs(u) < 0.5) & (np.abs(v) < 0.5), sky, np.nan)


def scene(random: np.random.Generator, canvas: tuple[int, int]) -> _Plane:
    """Return nebulae and stars."""
    y, x = np.mgrid[: canvas[0], : canvas[1]].astype(np.float64)
    sky = np.full(canvas, 400.0)
    for cx, cy, size in random.uniform((0, 0, 20), (canvas[1], canvas[0], 80), (4, 3)):
        sky += 60 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 2 / size**2)
    for cx, cy, flux in random.uniform((8, 8, 5), (canvas[1] - 9, canvas[0] - 9, 10), (300, 3)):
        near = (slice(int(cy) - 8, int(cy) + 9), slice(int(cx) - 8, int(cx) + 9))
        sky[near] += np.exp(flux) / 9 * np.exp(-((x[near] - cx) ** 2 + (y[near] - cy) ** 2) / 2 / 1.3**2)
    return sky


def steps(sessions: Sequence[Session], mode: str, canvas: tuple[int, int] = CANVAS) -> list[tuple[float, float]]:
    """Return the steps at the border of each session's part, root mean square, and the noise of 8 x 8 pixels there.

    A step is what the session's frames change the mean of the others by, over 96 x 16 pixels along its border.
    """
    random = np.random.default_rng(1)
    truth = scene(random, canvas)
    skies = [one.surface(random, canvas) for one in sessions for _ in range(one.frames)]
    member = np.repeat(np.arange(len(sessions)), [one.frames for one in sessions])
    frames = np.array([sky + random.normal(0, NOISE, canvas) for sky in skies], np.float32)
    boxes = [box_medians((frame + truth).astype(np.float32)) for frame in frames]
    assert see_different_skies(boxes)
    levels, _ = match_levels(boxes, [1.0] * len(frames), 0, mode)
    for frame, level in zip(frames, levels, strict=True):
        level.apply_to(frame[np.newaxis])
    return [_step(frames, member == index) for index in range(len(sessions))]


def _step(frames: npt.NDArray[np.float32], mine: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Return the step at the border of some of the frames, and half the noise of 8 x 8 pixels beyond it."""
    from scipy.ndimage import binary_erosion

    whole, others = np.isfinite(frames[mine]).all(axis=0), np.isfinite(frames[~mine]).sum(axis=0)
    border = whole & ~binary_erosion(whole, iterations=16) & (others > 0)
    change = np.nanmean(frames[:, border], axis=0) - np.nanmean(frames[~mine][:, border], axis=0)
    row, column = np.nonzero(border)
    _, part, count = np.unique(row // 96 * 1000 + column // 96, return_inverse=True, return_counts=True)
    means = (np.bincount(part, change) / count)[count > 600]
    return float(np.sqrt((means**2).mean())), NOISE / 8 / float(np.sqrt(others[border].mean()))


TURNED = (-30.0, 50.0, 0.0)
CURVED = (-30.0, 50.0, 30.0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "sessions",
    [
        (Session(3), Session(3, 70.0, gradient=TURNED)),
        (Session(1), Session(1, 70.0, gradient=TURNED)),
        (Session(3), Session(3, 70.0, gradient=CURVED)),
        (Session(1), Session(1, 70.0, gradient=CURVED)),
        (Session(8), Session(3, 110.0, gradient=CURVED)),
        (Session(3), Session(3, 25.0, gradient=CURVED)),
        (Session(3), Session(3, 0.0, (390.0, 330.0), gradient=CURVED)),
        (Session(2), Session(2, 70.0, gradient=TURNED), Session(2, 140.0, gradient=CURVED)),
    ],
)
def test_turned_sessions_leave_no_step(sessions: tuple[Session, ...]) -> None:
    assert max(step / noise for step, noise in steps(sessions, "offset")) > 2.0
    assert all(step < 0.5 * noise for step, noise in steps(sessions, "auto"))


@pytest.mark.slow
def test_tiles_of_a_mosaic_leave_no_step() -> None:
    random = np.random.default_rng(5)
    tiles = [
        Session(1, float(random.uniform(-1, 1)), (220.0 + 340 * i, 170.0 + 250 * j), tuple(random.uniform(-25, 25, 3)))
        for i in range(3)
        for j in range(2)
    ]
    found = steps(tiles, "auto", canvas=(600, 1120))
    assert all(step < 0.5 * noise for step, noise in found), found


@dataclass(frozen=True, kw_only=True)
class TwoSessions(RawNight):
    """A night whose second half is another session: turned, under another gradient."""

    degrees: float = 70.0

    def transform(self, index: int) -> Affine:
        moved = super().transform(index)
        if 2 * index < self.n_frames:
            return moved
        c, s = math.cos(math.radians(self.degrees)), math.sin(math.radians(self.degrees))
        x, y = (self.shape[1] - 1) / 2, (self.shape[0] - 1) / 2
        return moved.then(Affine(c, -s, x - c * x + s * y, s, c, y - s * x - c * y))

    def signal(self, index: int) -> _Plane:
        y, x = np.mgrid[: self.shape[0], : self.shape[1]]
        across, down = (40.0, -20.0) if 2 * index < self.n_frames else (-30.0, 50.0)
        return super().signal(index) + across * x / self.shape[1] + down * y / self.shape[0]


def jump_at_border(night: TwoSessions, group: PreparedGroup, image: _Plane, session: int, side: int) -> float:
    """Return the mean step of the sky at a long border of a session's frames; what the slope inside gives is none."""
    names = [frame.path.name for frame in group.frames]
    back = night.transform(names.index(Path(group.reference).name)).inverse().moved(group.canvas.x, group.canvas.y)
    there = night.transform(session * (night.n_frames - 1)).then(back)
    image = image.copy()
    for x, y in np.rint(back(night.stars[0])).astype(int):
        image[max(0, y - 9) : max(0, y + 10), max(0, x - 9) : max(0, x + 10)] = np.nan
    rows, columns = night.shape
    values = []
    for along in range(20, columns - 20, 8):
        line = []
        for across in (-12, 12, 62):
            x, y = np.rint(there([(along, across if side == 0 else rows - 1 - across)])[0]).astype(int)
            box = image[max(0, y - 4) : max(0, y + 4), max(0, x - 4) : max(0, x + 4)]
            enough = box.size == 64 and np.isfinite(box).sum() > 24
            line.append(np.nanmean(box) if enough else np.nan)
        values.append(line)
    jumps = np.array(values) @ (1.0, -1 - 24 / 50, 24 / 50)
    assert np.isfinite(jumps).sum() > 20
    return float(np.nanmean(jumps))


@pytest.mark.slow
@pytest.mark.parametrize("pattern", [None, "GRBG"])
def test_raw_sessions_turned_by_70_degrees(tmp_path: Path, pattern: str | None) -> None:
    night = TwoSessions(n_frames=6, shape=(600, 800), n_stars=300, cosmic_rays=0, shift=4.0, turn=0.0, pattern=pattern)
    paths = night.write(tmp_path / "raw", darks=4, biases=3, flats=4)
    found = {}
    for levels in ("none", "auto"):
        group = prepare_frames(paths, PrepareOptions(levels=levels), cache_folder=tmp_path / levels)
        assert len(group.paths) == 6
        normalization = "additive" if levels == "none" else "none"
        image = stack(group.paths, options=StackOptions(normalization=normalization)).image
        image = image if image.ndim == 2 else image[..., 1]
        jumps = [jump_at_border(night, group, image, session, side) for session in (0, 1) for side in (0, 1)]
        found[levels] = float(np.sqrt(np.mean(np.square(jumps))))
    assert group.levels in ("plane", "feather")
    # Of 8 x 8 pixels in three frames; half of a mosaic's are green.
    noise = math.sqrt(400.0 + 36.0) / 8 / math.sqrt(3 if pattern is None else 1.5)
    assert found["none"] > 2 * noise
    assert found["auto"] < 0.5 * noise
