"""Levels: frames that overlap agree afterwards, whatever constants and planes they differ by; stars don't pull."""

from __future__ import annotations

import numpy as np
import pytest

from zemosaic_stack_core.prepare.canvas.level_match import match_levels, see_different_skies, see_other_parts
from zemosaic_stack_core.prepare.canvas.levels import BOX, Level, box_medians, medians_of_others, sky_scatter

ROWS, COLUMNS = 192, 256


def frames_of(sky: np.ndarray, parts: list[slice], surfaces: list[np.ndarray]) -> list[np.ndarray]:
    random = np.random.default_rng(1)
    frames = []
    for part, surface in zip(parts, surfaces, strict=True):
        frame = np.full(sky.shape, np.nan, np.float32)
        frame[:, part] = (sky - surface + random.normal(0, 3, sky.shape))[:, part]
        frames.append(frame)
    return frames


def leveled(frame: np.ndarray, level: Level) -> np.ndarray:
    planes = np.array(frame, np.float32)[np.newaxis]
    level.apply_to(planes)
    return planes[0]


@pytest.mark.parametrize("mode", ["offset", "plane", "feather"])
def test_a_chain_of_frames_comes_to_one_level(mode: str) -> None:
    y, x = np.mgrid[:ROWS, :COLUMNS]
    nebula = 500 + 200 * np.exp(-((x - 130) ** 2 + (y - 90) ** 2) / 4000)
    slope = 0.0 if mode == "offset" else 0.05
    surfaces = [np.zeros((ROWS, COLUMNS)), 40 + slope * x, -70 + slope * y]
    parts = [slice(0, 112), slice(64, 192), slice(150, COLUMNS)]
    frames = frames_of(nebula, parts, surfaces)
    levels, _ = match_levels([box_medians(frame) for frame in frames], [1.0] * 3, 0, mode)
    rests = [leveled(frame, level) - nebula for frame, level in zip(frames, levels, strict=True)]
    assert abs(float(np.nanmedian(rests[0]))) < 0.5  # the reference keeps its level
    # What all could be tilted by in common, nobody knows: the mean of the slopes stays.
    common = np.nanmean(rests, axis=0)
    design = np.column_stack([np.ones(x.size), x.ravel(), y.ravel()])
    tilt = (design @ np.linalg.lstsq(design, common.ravel(), rcond=None)[0]).reshape(common.shape)
    assert np.abs(tilt).max() < (0.5 if mode == "offset" else 0.05 * 256 / 3 + 2)
    for rest in rests:
        assert abs(float(np.nanmedian(rest - tilt))) < 0.5


def test_a_star_in_one_frame_does_not_pull() -> None:
    sky = np.full((ROWS, COLUMNS), 100.0)
    everywhere = slice(0, COLUMNS)
    frames = frames_of(sky, [everywhere] * 3, [np.zeros_like(sky), np.full_like(sky, 10.0), np.full_like(sky, -5.0)])
    frames[1][:64, :64] += 3000
    levels, _ = match_levels([box_medians(frame) for frame in frames], [1.0] * 3, 0, "offset")
    assert levels[1].offset[0] == pytest.approx(10, abs=0.5)
    assert levels[2].offset[0] == pytest.approx(-5, abs=0.5)


def test_scales_are_applied_before_offsets() -> None:
    sky = np.full((ROWS, COLUMNS), 100.0)
    first, second = frames_of(sky, [slice(0, COLUMNS)] * 2, [np.zeros_like(sky)] * 2)
    levels, _ = match_levels([box_medians(first), box_medians(second)], [1.0, 2.0], 0, "offset")
    assert levels[1].scale == 2.0
    assert levels[1].offset[0] == pytest.approx(-100, abs=0.5)


def test_a_frame_that_overlaps_with_none_stays() -> None:
    sky = np.full((ROWS, COLUMNS), 100.0)
    frames = frames_of(sky, [slice(0, 64), slice(160, COLUMNS)], [np.zeros_like(sky), np.full_like(sky, 9.0)])
    assert match_levels([box_medians(frame) for frame in frames], [1.0, 1.0], 0, "offset")[0][1].changes_nothing


def test_boxes_are_medians_of_what_is_there() -> None:
    image = np.arange(3 * BOX * 2 * BOX, dtype=np.float32).reshape(3 * BOX, 2 * BOX)
    image[:BOX, : BOX // 2] = np.nan  # half a box stands for another place
    image[BOX : 2 * BOX, BOX::2] = np.nan  # every second sample stands for the same
    boxes = box_medians(image)
    assert boxes.shape == (3, 2, 1)
    assert np.isnan(boxes[0, 0, 0])
    assert boxes[0, 1, 0] == np.median(image[:BOX, BOX:])
    assert boxes[1, 1, 0] == np.nanmedian(image[BOX : 2 * BOX, BOX:])
    assert box_medians(np.dstack([image] * 3)).shape == (3, 2, 3)


def test_the_frame_with_another_sky_stands_out() -> None:
    random = np.random.default_rng(2)
    frames = [random.normal(100, 5, (ROWS, COLUMNS)).astype(np.float32) for _ in range(5)]
    frames[3] += 60 * np.sin(np.arange(COLUMNS) / 15)
    scatter = sky_scatter([box_medians(frame) for frame in frames], [1.0] * 5, [5.0] * 5)
    assert scatter[3] > 3
    assert max(scatter[:3] + scatter[4:]) < 1


@pytest.mark.parametrize("frames", [1, 2, 5, 8])
def test_medians_of_the_others_are_those_of_each_frame_left_out_in_turn(frames: int) -> None:
    random = np.random.default_rng(frames)
    values = random.integers(0, 9, (frames, 60)).astype(np.float64)  # many are equal
    values[random.random(values.shape) < 0.3] = np.nan
    found = medians_of_others(values)
    for index in range(frames):
        others = np.ma.masked_invalid(np.delete(values, index, axis=0))
        wanted = np.ma.median(others, axis=0).filled(np.nan) if frames > 1 else np.full(60, np.nan)
        assert np.array_equal(found[index], wanted, equal_nan=True)


def test_planes_are_for_frames_that_agree_better_by_them() -> None:
    y, x = np.mgrid[:ROWS, :COLUMNS]
    sky = np.full((ROWS, COLUMNS), 500.0)
    tilts = [np.zeros_like(sky), 0.1 * x, -0.1 * y]
    everywhere = slice(0, COLUMNS)
    for parts in ([everywhere] * 3, [slice(0, 112), slice(64, 192), slice(150, COLUMNS)]):
        frames = frames_of(sky, parts, tilts)
        levels, mode = match_levels([box_medians(frame) for frame in frames], [1.0] * 3, 0, "auto")
        assert mode == "plane"
        assert levels[1].x_slope[0] - levels[0].x_slope[0] == pytest.approx(0.1, abs=0.01)
    flat = frames_of(sky, [everywhere] * 3, [np.full_like(sky, level) for level in (0.0, 20.0, -8.0)])
    assert match_levels([box_medians(frame) for frame in flat], [1.0] * 3, 0, "auto")[1] == "offset"


def test_a_slope_that_no_overlap_fixes_stays_level() -> None:
    sky, nothing = np.full((ROWS, COLUMNS), 500.0), np.zeros((ROWS, COLUMNS))
    frames = frames_of(sky, [slice(0, 112), slice(96, COLUMNS)], [nothing, nothing + 30.0])
    levels, _ = match_levels([box_medians(frame) for frame in frames], [1.0] * 2, 0, "plane")
    for frame, level in zip(frames, levels, strict=True):
        assert np.nanmax(np.abs(leveled(np.where(np.isnan(frame), np.nan, sky), level) - 500)) < 31.5


def test_of_very_many_boxes_several_are_taken_as_one() -> None:
    random = np.random.default_rng(4)
    y, x = np.mgrid[:210, :211].astype(np.float32) * BOX
    slopes, constants = random.normal(0, 0.01, (95, 2)), random.normal(0, 50, 95)
    boxes = []
    for index, ((across, down), constant) in enumerate(zip(slopes, constants, strict=True)):
        frame = (500 - constant - across * x - down * y + random.normal(0, 1, x.shape)).astype(np.float32)
        frame[: index % 9] = np.nan
        boxes.append(frame[..., np.newaxis])
    levels, _ = match_levels(boxes, [1.0] * 95, 0, "plane")
    found = np.array([(level.x_slope[0], level.y_slope[0]) for level in levels])
    assert np.allclose(found - found.mean(axis=0), slopes - slopes.mean(axis=0), atol=1e-4)
    assert np.abs(found.mean(axis=0)).max() < 1e-4  # what all could be tilted by in common


def test_frames_smaller_than_a_box_stay() -> None:
    boxes = [box_medians(np.full((7, 9), level, np.float32)) for level in (1.0, 2.0)]
    assert all(level.changes_nothing for level in match_levels(boxes, [1.0, 1.0], 0, "plane")[0])
    assert not see_different_skies(boxes)


@pytest.mark.parametrize("mode", ["offset", "plane", "feather", "auto"])
def test_frames_without_noise_or_neighbors_or_anything(mode: str) -> None:
    noise = np.random.default_rng(0).normal(100, 3, (ROWS, COLUMNS)).astype(np.float32)
    nothing, flat = np.full_like(noise, np.nan), np.full_like(noise, 5.0)
    columns = np.arange(COLUMNS)
    narrow = np.where(columns < 30, noise + 7, np.float32(np.nan))
    for frames, offset in (
        ([noise], 0),
        ([noise, nothing], 0),
        ([np.where(columns < 100, noise, np.nan), np.where(columns > 120, noise, np.nan)], 0),
        ([flat, flat + 3], -3),
        ([noise, noise + 3], -3),
        ([noise, narrow], -7),
        ([noise[:40, :40], noise[:40, :40] + 3], -3),
    ):
        boxes = [box_medians(frame.astype(np.float32)) for frame in frames]
        levels, _ = match_levels(boxes, [1.0] * len(frames), 0, mode)
        assert np.nanmax(np.abs(leveled(frames[0], levels[0]) - frames[0])) < 0.1
        if offset:
            assert np.nanmax(np.abs(leveled(frames[1], levels[1]) - frames[1] - offset)) < 0.1


def test_a_surface_is_straight_between_the_centers_of_boxes() -> None:
    y, x = np.mgrid[:40, :50].astype(np.float32)
    rows, columns = np.mgrid[:3, :4].astype(np.float32)
    surface = (2 * columns - rows)[..., np.newaxis]
    level = Level(scale=1.0, offset=(0.0,), x_slope=(0.0,), y_slope=(0.0,), surface=surface)
    inside = (slice(8, 40), slice(8, 50))
    wanted = 2 * ((x + 0.5) / BOX - 0.5) - ((y + 0.5) / BOX - 0.5)
    assert np.allclose(leveled(np.zeros((40, 50)), level)[inside], wanted[inside], atol=1e-5)
    assert "faded" in level.text
    assert level.parts != Level(scale=1.0, offset=(0.0,), x_slope=(0.0,), y_slope=(0.0,), surface=surface + 1).parts


@pytest.mark.parametrize(
    ("move", "differ", "other"), [(0, False, False), (20, False, False), (70, True, False), (200, True, True)]
)
def test_dithered_frames_see_the_same_sky(move: int, *, differ: bool, other: bool) -> None:
    whole = np.full((400, 500), 1.0, np.float32)
    first, second = whole.copy(), whole.copy()
    first[:, :move] = np.nan
    second[:, 500 - move :] = np.nan
    boxes = [box_medians(first), box_medians(second)]
    assert see_different_skies(boxes) == differ
    assert see_other_parts(boxes) == other
