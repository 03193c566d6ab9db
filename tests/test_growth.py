"""Growth of rejected clusters: the definition, sample by sample, and the same bits however the work is cut."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import reference
from samples import assert_conserves, assert_same_bits, assert_within_ulp

from conftest import make_case
from zemosaic_stack_core import InvalidInputError, Phase3Gpu, StackOptions, stack, stack_auto
from zemosaic_stack_core.backends import numpy_backend
from zemosaic_stack_core.frames.chunk import Chunk
from zemosaic_stack_core.frames.group import open_frames
from zemosaic_stack_core.gpu.health import GpuHealth
from zemosaic_stack_core.kernel import stack_chunk
from zemosaic_stack_core.kernel.regrow import REJECTED, pack_rejected
from zemosaic_stack_core.kernel.samples import Samples
from zemosaic_stack_core.options import MAPS, WEIGHTED_COMBINATIONS
from zemosaic_stack_core.stacking.clusters import RejectedFlags, dilated, growth_reach, large_clusters
from zemosaic_stack_core.stacking.job import StackRequest, make_job
from zemosaic_stack_core.stacking.limits import Limits
from zemosaic_stack_core.stacking.run import run_job

SHAPE = (23, 29)


def make_trails(n=9, shape=SHAPE, seed=3):
    """Make frames of noise with a trail in every third one, hot samples everywhere and some missing samples."""
    rng = np.random.default_rng(seed)
    cube = rng.normal(100, 5, (n, *shape)).astype(np.float32)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    for frame in range(0, n, 3):
        distance = np.abs(rows - 0.5 * columns - frame)
        trail = 300 * np.exp(-0.5 * distance**2)
        cube[frame] += trail[..., None] if len(shape) == 3 else trail
    cube[rng.random(cube.shape) < 0.02] += 900
    cube[rng.random(cube.shape) < 0.02] -= 900
    cube[rng.random(cube.shape) < 0.03] = np.nan
    cube[:, 4:6, 7:9] = np.nan
    return list(cube)


def clusters_of(rejected):
    """Return the sets of touching samples, found one step at a time."""
    left = {tuple(place) for place in np.argwhere(rejected)}
    while left:
        cluster, border = set(), [left.pop()]
        while border:
            row, column = border.pop()
            cluster.add((row, column))
            near = {(row + down, column + right) for down in (-1, 0, 1) for right in (-1, 0, 1)} & left
            left -= near
            border += near
        yield cluster


def grow(rejected, radius, min_size):
    """Return the samples within the radius of a large cluster, from the definition."""
    grown = np.zeros(rejected.shape, bool)
    rows, columns = np.indices(rejected.shape)
    for cluster in clusters_of(rejected):
        if len(cluster) >= min_size:
            for row, column in cluster:
                grown |= (rows - row) ** 2 + (columns - column) ** 2 <= radius**2
    return grown


def expected_of(frames, options, weights=None):
    """Stack with the scalar reference, let its rejected samples grow, and combine what is left."""
    plain = replace(options, grow_radius=0.0)
    cube = reference.stack_cube(frames, options=plain, weights=weights)
    rejected = cube.below | cube.above
    planes = rejected if rejected.ndim == 4 else rejected[..., None]
    grown = np.stack(
        [
            np.stack(
                [grow(of_frame[..., c], options.grow_radius, options.grow_min_size) for c in range(planes.shape[3])], 2
            )
            for of_frame in planes
        ]
    ).reshape(rejected.shape)
    grown &= ~rejected & ~cube.absent
    grown &= (cube.kept & ~grown).any(axis=0)  # no pixel loses its last sample
    left = reference.stack_cube(
        frames, options=replace(plain, rejection="none"), weights=weights, masks=list(rejected | grown)
    )
    touched = grown.any(axis=0)
    for name in ("image", "weight_map", "variance"):
        getattr(cube, name)[touched] = getattr(left, name)[touched]
    values = np.stack(frames)
    center = left.image / left.weight_map if options.combine == "sum" else left.image
    below = grown & (values < center.astype(np.float32))
    cube.below |= below
    cube.above |= grown & ~below
    cube.rejected_low, cube.rejected_high = cube.below.sum(axis=0), cube.above.sum(axis=0)
    cube.coverage -= grown.sum(axis=0)
    return cube, touched


CASES = [
    StackOptions(kappa_high=2.0, grow_radius=2.0, grow_min_size=5),
    StackOptions(kappa_high=2.0, grow_radius=1.0, grow_min_size=1),
    StackOptions(rejection="mad_clip", grow_radius=2.9, grow_min_size=9, combine="median"),
    StackOptions(rejection="gesd", grow_radius=4.0, grow_min_size=6),
    StackOptions(kappa_low=2.0, kappa_high=2.0, grow_radius=1.5, grow_min_size=3, combine="sum"),
]


@pytest.mark.parametrize("shape", [SHAPE, (*SHAPE, 3)], ids=["mono", "color"])
@pytest.mark.parametrize("options", CASES, ids=lambda options: f"{options.rejection}-{options.grow_radius:g}")
def test_what_grows_is_what_the_definition_says(options, shape):
    frames = make_trails(shape=shape)
    weights = np.linspace(0.5, 2, 9) if options.combine in WEIGHTED_COMBINATIONS else None
    result = stack(frames, options=options, weights=weights, maps="all")
    expected, touched = expected_of(frames, options, weights)
    assert touched.any()
    assert not touched.all()
    assert expected.margin.min() > 1e-6
    assert_conserves(result, expected.missing, 9)
    for name in ("coverage", "rejected_low", "rejected_high"):
        np.testing.assert_array_equal(getattr(result, name), getattr(expected, name), err_msg=name)
    assert_within_ulp(result.image, expected.image, 1, "image")
    assert_within_ulp(result.weight_map, expected.weight_map, 1, "weight_map")
    assert_within_ulp(result.variance, expected.variance, 4, "variance")
    channels = 1 if len(shape) == 2 else 3
    for frame, record in enumerate(result.frames):
        of_frame = [cube[frame].reshape(-1, channels).sum(axis=0) for cube in (expected.below, expected.above)]
        assert [record.rejected_low, record.rejected_high] == [tuple(counts.tolist()) for counts in of_frame]


def test_the_faint_edge_of_a_trail_goes():
    truth = 100.0
    frames = make_trails()
    plain = stack(frames, options=StackOptions(kappa_high=2.0, max_iterations=1))
    grown = stack(frames, options=StackOptions(kappa_high=2.0, max_iterations=1, grow_radius=2.0, grow_min_size=5))
    assert np.nanmean(grown.image - truth) < 0.6 * np.nanmean(plain.image - truth)


@pytest.mark.parametrize("shape", [SHAPE, (*SHAPE, 3)], ids=["mono", "color"])
def test_no_bit_depends_on_the_chunks(shape):
    frames = make_trails(shape=shape)
    for options in CASES[: 3 if len(shape) == 2 else 1 : 2]:
        whole = stack(frames, options=options, maps="all")
        for rows in (1, 7):
            assert_same_bits(stack(frames, options=options, maps="all", rows_per_chunk=rows), whole)
        narrow = stack(frames, options=options, maps="all", memory_limit=12_000)
        assert narrow.facts.columns_per_chunk < SHAPE[1]
        assert_same_bits(narrow, whole)


def test_no_bit_depends_on_the_workers(tmp_path):
    paths = []
    for index, frame in enumerate(make_trails()):
        paths.append(tmp_path / f"{index}.npy")
        np.save(paths[-1], frame)
    one = stack(paths, options=CASES[0], maps="all", workers=1)
    three = stack(paths, options=CASES[0], maps="all", workers=3, rows_per_chunk=2)
    assert three.facts.workers == 3
    assert_same_bits(three, one)


@pytest.mark.parametrize("shape", [SHAPE, (*SHAPE, 3)], ids=["mono", "color"])
def test_the_same_bits_on_every_backend(other_backend, shape):
    frames = make_trails(shape=shape)
    options = StackOptions(kappa_high=2.0, grow_radius=2.0, grow_min_size=5, normalization="additive")
    weights = np.random.default_rng(4).uniform(0, 2, (9, *shape))
    expected = stack(frames, options=options, weights=weights, maps="all")
    found = stack(
        [other_backend.make(frame) for frame in frames],
        options=options,
        weights=weights,
        maps="all",
        backend=other_backend.backend,
        rows_per_chunk=9,
    )
    assert_same_bits(found, expected)


@pytest.mark.parametrize("n", [9, 70])
def test_what_is_noted_is_what_was_counted(n):
    rng = np.random.default_rng(n)
    cube = rng.normal(100, 5, (n, 5000)).astype(np.float32)
    cube[rng.random(cube.shape) < 0.01] += 900
    cube[rng.random(cube.shape) < 0.003] = np.nan
    samples = Samples(values=list(cube), scale=[1.5] * n, offset=[-3.0] * n)
    for options in (StackOptions(kappa_low=2.0), StackOptions(rejection="winsorized_sigma_clip")):
        result = stack_chunk(numpy_backend(), samples, options, maps=("bounds",))
        packed = pack_rejected(np, samples, result, range(n), n)
        for frame in range(n):
            noted = np.count_nonzero(packed[frame // 8] & (1 << frame % 8))
            assert noted == result.frame_rejected_low[frame] + result.frame_rejected_high[frame]


@pytest.mark.gpu
def test_mode_c_grows_the_same_within_its_memory():
    frames = make_trails(n=12, shape=(40, 90))
    backend = make_case("cupy").backend
    options = replace(CASES[0], weighting="inverse_variance", errors="detector", normalization="additive")
    gpu = Phase3Gpu(check_health=lambda: GpuHealth(usable=True))
    found, used_gpu = stack_auto(frames, gpu=gpu, options=options, maps="all", plan={"gpu_rows_per_chunk": 11})
    assert used_gpu
    assert found.facts.chunks == 4
    assert_same_bits(found, stack(frames, options=options, maps="all"))
    request = StackRequest(options=options, maps=frozenset(MAPS))
    job, numbers = make_job(open_frames(frames), request, backend, Limits(workers=1))
    import cupy

    pool, peak = cupy.get_default_memory_pool(), [0]
    pool.free_all_blocks()

    class Watch(cupy.cuda.MemoryHook):
        name = "peak"

        def malloc_postprocess(self, **_):
            peak[0] = max(peak[0], pool.used_bytes())

    with Watch():
        run_job(job, numbers, backend)
    assert 0 < peak[0] <= job.chunk_plan.chunk_bytes


def test_nothing_grows_where_no_cluster_is_large_enough():
    frames = make_trails()
    plain = stack(frames, maps="all")
    assert_same_bits(stack(frames, options=StackOptions(grow_radius=3.0, grow_min_size=10_000), maps="all"), plain)


def test_progress_counts_both_passes():
    seen = []
    stack(make_trails(), options=CASES[0], rows_per_chunk=8, progress=lambda *done: seen.append(done))
    assert seen[-1] == (2 * SHAPE[0], 2 * SHAPE[0])
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


@pytest.mark.parametrize("radius", [0.5, 1.0, 1.5, 2.9, 5.0, 40.0])
def test_a_disk_is_a_disk(radius):
    core = np.random.default_rng(1).random((17, 13)) < 0.02
    rows, columns = np.indices(core.shape)
    near = [(rows - row) ** 2 + (columns - column) ** 2 <= radius**2 for row, column in np.argwhere(core)]
    np.testing.assert_array_equal(dilated(core, radius), np.any(near, axis=0))


def test_samples_touch_at_corners_too():
    rejected = np.zeros((6, 9), bool)
    rejected[[0, 1, 2], [0, 1, 2]] = True
    rejected[4, 6:8] = True
    np.testing.assert_array_equal(large_clusters(rejected, 3), np.where(np.indices((6, 9))[0] < 3, rejected, False))
    assert large_clusters(rejected, 4) is None
    np.testing.assert_array_equal(large_clusters(rejected, 2), rejected)


def test_a_window_tells_as_much_as_the_whole():
    """A winding line of clusters as long as can be: what a chunk sees beyond its edges is enough."""
    rng = np.random.default_rng(2)
    rejected = rng.random((40, 37)) < 0.3
    radius, min_size = 1.5, 12
    whole = dilated(large_clusters(rejected, min_size), radius) & ~rejected
    assert 0.02 < whole.mean() < 0.6
    with RejectedFlags(3, 1, *rejected.shape) as flags:
        for row in range(40):
            packed = np.zeros((1, 37), np.uint8)
            packed[0] = rejected[row] * np.uint8(4)
            flags.write(Chunk(row, row + 1, 0, 37), 0, packed)
        for start, first in itertools.product((0, 11, 39), (0, 5, 30)):
            chunk = Chunk(start, min(start + 9, 40), first, min(first + 9, 37))
            codes = flags.find_grown(chunk, radius, min_size)
            part = whole[chunk.start : chunk.stop, chunk.first : chunk.last]
            found = np.zeros(part.shape) if codes is None else codes[2, 0].reshape(part.shape)
            np.testing.assert_array_equal(found == 2, part)
            assert codes is None or not codes[:2].any()


@pytest.mark.parametrize(("radius", "min_size", "reach"), [(0.0, 10, 0), (2.9, 1, 2), (3.0, 10, 12)])
def test_how_far_a_chunk_looks(radius, min_size, reach):
    assert growth_reach(radius, min_size) == reach


def test_threads_note_and_read_at_once():
    """Each writes its own rows, and reads them back while others write theirs."""
    rng = np.random.default_rng(6)
    planes = rng.integers(0, 256, (2, 64, 50), dtype=np.uint8)
    with RejectedFlags(16, 1, 64, 50) as flags, ThreadPoolExecutor(4) as pool:

        def note(row):
            chunk = Chunk(row, row + 1, 0, 50)
            flags.write(chunk, 0, planes[:, row])
            codes = flags.find_grown(chunk, 1.0, 1)
            return np.packbits(codes[:, 0] == REJECTED, axis=0, bitorder="little")

        for row, packed in enumerate(pool.map(note, range(64))):
            np.testing.assert_array_equal(packed, planes[:, row])


def test_growth_without_a_rule_is_refused():
    with pytest.raises(InvalidInputError, match=r"grow_radius is 2\.0 with rejection 'none'"):
        StackOptions(rejection="none", grow_radius=2.0)
