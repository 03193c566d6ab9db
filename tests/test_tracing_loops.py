"""Loops over frames and ranks, and sorting, in traced programs: against plain Python, for any number of pixels."""

import itertools

import numpy as np
import pytest
from programs import assert_bits, run

from conftest import make_case
from zemosaic_stack_core.backends.network import GROUP, comparators, comparators_of_group


def loops(xp, column, task):
    """Use each of a column's loops."""
    zero, none = column.full(0.0, "f64"), column.full(0, "i32")

    def step(frame, carry):
        is_there = xp.isfinite(frame.row("value"))
        frame.tally("missing", ~is_there)
        value = xp.where(is_there, frame.row("value"), column.full(9e9, "f32"))
        # Each takes what the other had before.
        return value, [
            carry[1] + xp.astype(is_there, xp.int32),
            carry[0],
            carry[2] * 0.5 + xp.astype(value, xp.float64),
        ]

    odd, even, halved = column.load([none, none, zero], step)
    column.sort()
    present = odd + even

    def visited(frame, carry):
        is_high = xp.isfinite(frame.row("value")) & (frame.row("value") > 0.0)
        frame.tally("high", is_high)
        return [carry[0] + xp.astype(is_high, xp.int32)]

    high = column.visit([none], visited)[0]

    def summed(sign):
        def add(rank, sample, carry):
            value = xp.astype(sample, xp.float64)
            return [carry[0] + value * sign, carry[1] * 0.75 + xp.astype(rank, xp.float64)]

        return add

    up, ranks_up = column.fold("above", [zero, zero], summed(1.0))
    down, ranks_down = column.fold("below", [zero, zero], summed(-1.0))
    look_up = column.running([zero, zero + 1.0], summed(1.0), summed(-1.0))
    place = present * task // 2 // 2  # anywhere from 0 to all frames
    middle = column.at(xp.minimum(place, column.frames - 1))

    def collatz(carry):
        number, steps = carry
        is_even = number - number // 2 * 2 < 1
        number = xp.where(is_even, number // 2, number * 3 + 1)
        return [number, steps + 1], number > 1

    number, steps = column.repeat(15, [present + 3, none], present > 2, collatz)
    untouched = column.repeat(0, [present], present >= 0, lambda carry: ([carry[0] + 1], carry[0] >= 0))[0]
    idle = column.repeat(9, [present], present < 0, lambda carry: ([carry[0] + 1], carry[0] >= 0))[0]

    def count_few():
        def counted(frame, carry):
            frame.tally("few", (present < 4) & xp.isfinite(frame.row("value")))
            return list(carry)

        column.visit([], counted)

    column.when(present < 4, count_few)
    results = {"odd": odd, "even": even, "halved": halved, "high": high, "up": up, "ranks_up": ranks_up}
    results |= {"down": down, "ranks_down": ranks_down, "look_up": look_up(0, place), "look_up_1": look_up(1, place)}
    results |= {"middle": middle, "number": number, "steps": steps, "untouched": untouched, "idle": idle}
    return results | {"is_odd": odd > even}


def expected_of_loops(values, task):
    """Return what the loops give, a pixel at a time in Python's numbers."""
    n, middle = len(values), len(values) // 2
    rows = []
    for samples in values.T:
        there = np.isfinite(samples)
        odd = even = 0
        halved = 0.0
        for sample, is_there in zip(samples, there, strict=True):
            odd, even = even + int(is_there), odd
            halved = halved * 0.5 + float(np.float32(9e9) if not is_there else sample)
        column = np.sort(np.where(there, samples, np.float32(9e9))).astype(np.float64).tolist()
        kept = [[0.0] * (n + 1), [1.0] * (n + 1)]
        ends = {}
        for sign, ranks, further in ((1.0, range(middle, n), 1), (-1.0, range(middle - 1, -1, -1), 0)):
            total, weighted, running = 0.0, 0.0, 1.0
            for rank in ranks:
                total, weighted, running = total + column[rank] * sign, weighted * 0.75 + rank, running * 0.75 + rank
                kept[0][rank + further], kept[1][rank + further] = total, running
            ends[sign] = total, weighted
        present = int(there.sum())
        place = present * task // 2 // 2
        number, steps, is_live = present + 3, 0, present > 2
        while is_live and steps < 15:
            number = number // 2 if number % 2 == 0 else number * 3 + 1
            steps, is_live = steps + 1, number > 1
        rows.append(
            {
                "odd": odd,
                "even": even,
                "halved": halved,
                "high": int((samples[there] > 0).sum()),
                "up": ends[1.0][0],
                "ranks_up": ends[1.0][1],
                "down": ends[-1.0][0],
                "ranks_down": ends[-1.0][1],
                "look_up": kept[0][place],
                "look_up_1": kept[1][place],
                "middle": column[min(place, n - 1)],
                "number": number,
                "steps": steps,
                "untouched": present,
                "idle": present,
                "is_odd": odd > even,
            }
        )
    there = np.isfinite(values)
    counts = {
        "missing": (~there).sum(axis=1),
        "high": (there & (np.where(there, values, 0) > 0)).sum(axis=1),
        "few": (there & (there.sum(axis=0) < 4)).sum(axis=1),
    }
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}, counts


def check_loops(case, frames, pixels):
    rng = np.random.default_rng([frames, pixels])
    values = rng.normal(0.0, 10.0, (frames, pixels)).astype(np.float32)
    values[rng.random(values.shape) < 0.3] = np.nan
    values[rng.random(values.shape) < 0.1] = 2.0
    values[:, 0] = np.nan
    found, counts = run(case, loops, {"value": values}, task=frames % 4 + 1)
    expected, wanted = expected_of_loops(values, frames % 4 + 1)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert_bits(found[name].astype(array.dtype), array)
    assert all(numbers.dtype == np.int64 for numbers in counts.values())
    # What never runs may be counted or not: it is zero.
    assert {"missing", "high"} <= set(counts)
    for name, numbers in wanted.items():
        np.testing.assert_array_equal(counts.get(name, 0 * numbers), numbers, err_msg=name)


PIXELS = (1, 7, 15, 16, 17, 31, 32, 40)


@pytest.mark.parametrize("frames", [*range(1, 41), 64, 100])
def test_loops_of_so_many_frames(frames):
    """Fewer pixels than are computed side by side, as many, and numbers that are no multiple."""
    case = make_case("numpy")
    for pixels in PIXELS:
        check_loops(case, frames, pixels)


@pytest.mark.parametrize(("frames", "pixels"), [(1, 1), (2, 7), (5, 17), (16, 16), (33, 5)])
def test_loops(backend, frames, pixels):
    check_loops(backend, frames, pixels)


def sort_alone(xp, column, task):
    """Sort, and return the sample at each of a few ranks."""
    column.load([], lambda frame, carry: (frame.row("value"), carry))
    column.sort()
    last = column.frames - 1
    ranks = {"first": last - last, "middle": last // 2, "last": last}
    zero = column.full(0, "i32")
    return {name: column.at(zero + rank) for name, rank in ranks.items()} | {
        "weighted": column.fold(
            "above", [column.full(0.0, "f64")], lambda rank, x, c: [c[0] * 1.25 + xp.astype(x, xp.float64)]
        )[0]
    }


@pytest.mark.parametrize("frames", [1, 15, 16, 17, 31, 48, 63, 65, 127, 128, 129, 257, 400])
def test_sorting(frames):
    rng = np.random.default_rng(frames)
    values = rng.normal(0.0, 100.0, (frames, 50)).astype(np.float32)
    values[:, 10:20] = rng.integers(-3, 3, (frames, 10))  # ties
    values[rng.random(values.shape) < 0.1] = np.finfo(np.float32).max
    values[:, 30:40] = np.sort(values[:, 30:40], axis=0)[::-1]
    found, _ = run(make_case("numpy"), sort_alone, {"value": values})
    in_order = np.sort(values, axis=0)
    assert_bits(found["first"], in_order[0])
    assert_bits(found["middle"], in_order[(frames - 1) // 2])
    assert_bits(found["last"], in_order[-1])
    weighted = np.zeros(50)
    for row in in_order[frames // 2 :]:
        weighted = weighted * 1.25 + row
    assert_bits(found["weighted"], weighted)


def compared(rows, pairs):
    """Put the rows of a cube in order, pair by pair."""
    for low, high in pairs:
        rows[low], rows[high] = np.minimum(rows[low], rows[high]), np.maximum(rows[low], rows[high])


def network_of(count):
    """Return all pairs that sort so many samples: those of the whole groups, and the table's."""
    groups = [
        (start + low, start + high)
        for start in range(0, count - GROUP + 1, GROUP)
        for low, high in comparators_of_group()
    ]
    table = comparators(count)
    return [*groups, *zip(table[::2], table[1::2], strict=True)]


@pytest.mark.parametrize("count", [*range(1, 13), GROUP])
def test_the_network_sorts_every_pattern_of_zeros_and_ones(count):
    """The 0-1 principle (Knuth, 5.3.4): a network that sorts these sorts everything."""
    patterns = (np.arange(2**count)[None, :] >> np.arange(count)[:, None] & 1).astype(np.int8)
    compared(patterns, network_of(count))
    assert (np.diff(patterns, axis=0) >= 0).all()


@pytest.mark.parametrize("count", [17, 31, 32, 33, 40, 47, 48, 63, 64])
def test_the_network_merges_groups_of_zeros_and_ones(count):
    """Whole groups and the rest are in order by then: so many ones at the end of each."""
    sizes = [min(GROUP, count - start) for start in range(0, count, GROUP)]
    ones = np.array(list(itertools.product(*(range(size + 1) for size in sizes)))).T
    rank = np.concatenate([np.arange(size) for size in sizes])
    size = np.repeat(sizes, sizes)
    patterns = (rank[:, None] >= size[:, None] - np.repeat(ones, sizes, axis=0)).astype(np.int8)
    compared(patterns, network_of(count))
    assert (np.diff(patterns, axis=0) >= 0).all()


@pytest.mark.parametrize("count", [100, 255, 400, 1000])
def test_the_network_sorts_many(count):
    values = np.random.default_rng(count).integers(0, count, (count, 200))
    expected = np.sort(values, axis=0)
    compared(values, network_of(count))
    np.testing.assert_array_equal(values, expected)
