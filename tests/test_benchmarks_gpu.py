"""The benchmark of a card: it runs where CUDA is emulated, says why it can't elsewhere, and finds what is wrong."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.gpu import PARTS
from benchmarks.gpu_cases import FULL, QUICK, TINY, Bench, Case, Found, Part, carry_out, one_after_the_other
from benchmarks.gpu_checks import difference, lose_device, sky_frames
from benchmarks.kernel import critical_values, make_samples, options_of
from benchmarks.operations import count_operations, counted_stack
from benchmarks.tables import gpu_table
from conftest import cupy_unusable, make_case
from zemosaic_stack_core import stack
from zemosaic_stack_core.backends import numpy_backend
from zemosaic_stack_core.kernel import stack_chunk
from zemosaic_stack_core.kernel.samples import Samples
from zemosaic_stack_core.options import REJECTIONS, StackOptions


@pytest.mark.slow
@pytest.mark.gpu
def test_the_whole_command(tmp_path, capsys):
    make_case("cupy")
    assert main(["gpu", "--tiny", "-o", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "results.json").read_text())["gpu"]
    assert {row["part"] for row in rows} == {part.name for part in PARTS}
    assert not [row["problem"] for row in rows if row["problem"]]
    [tile] = [row for row in rows if row["what"] == "32 frames, uint16, kappa_sigma"]
    assert {"upload_ns", "kernel_ns", "download_ns", "upload_share", "kernel_share"} <= set(tile["figures"])
    text = (tmp_path / "results.md").read_text()
    assert text.count("\n| --- |") == 1
    assert f"{len(rows)} rows, nothing failed" in text
    assert text.strip() in capsys.readouterr().out


def test_without_a_card_the_reason_is_the_table(tmp_path, capsys):
    if not cupy_unusable() or "cupyemu" in sys.modules:
        pytest.skip("there is a card, or CUDA is emulated")
    assert main(["gpu", "--tiny", "-o", str(tmp_path)]) == 1
    [row] = json.loads((tmp_path / "results.json").read_text())["gpu"]
    assert row["what"] == "doctor"
    assert row["problem"]
    assert "1 of 1 rows FAILED" in capsys.readouterr().out


def bench(tmp_path, **more):
    """Return what cases share, without a card."""
    backend = SimpleNamespace(module=None)
    return Bench(backend=backend, size=replace(TINY, **more), folder=tmp_path)


def test_one_failure_does_not_end_the_others(tmp_path):
    def broken(_):
        raise RuntimeError("the driver\nis gone")

    def no_cases(_):
        raise OSError("no such device")

    cases = [
        Case("first", broken),
        Case("second", lambda _: Found("3 s", "4 s")),
        Case("third", lambda _: Found("", problem="no")),
    ]
    noted = []
    parts = [Part("one", lambda _: cases, 9.0), Part("two", no_cases, 9.0), Part("three", lambda _: cases[1:2], 9.0)]
    rows = carry_out(parts, bench(tmp_path), noted.append)
    assert noted == rows
    assert [(row.part, row.what, row.problem) for row in rows] == [
        ("one", "first", "RuntimeError: the driver is gone"),
        ("one", "second", ""),
        ("one", "third", "no"),
        ("two", "preparation", "OSError: no such device"),
        ("three", "second", ""),
    ]
    text = gpu_table(rows)
    assert "| one | second | 3 s | 4 s |  |" in text
    assert "3 of 5 rows FAILED" in text


def test_each_case_gets_its_share_of_the_seconds(tmp_path):
    given = []

    def noting(deadline):
        given.append(deadline - time.perf_counter())
        return Found("")

    carry_out([Part("a", lambda _: [Case("x", noting)] * 4, 8.0)], bench(tmp_path), lambda _: None)
    assert all(1.0 < share <= 8.0 / (4 - index) for index, share in enumerate(given))


def test_what_there_is_no_time_for_is_left_out():
    calls = [(str(index), lambda index=index: "bad" if index % 2 else "") for index in range(4)]
    assert one_after_the_other(calls, time.perf_counter() + 99.0) == (4, "1: bad; 3: bad")
    assert one_after_the_other(calls, 0.0) == (1, "")


def test_the_parts_take_less_than_eight_minutes():
    assert sum(part.seconds for part in PARTS) * FULL.patience <= 420
    assert sum(part.seconds for part in PARTS) * QUICK.patience <= 120


def test_a_flipped_bit_is_a_difference():
    frames = sky_frames(5, (6, 7))
    expected, found = stack(frames, maps="all"), stack(frames, maps="all")
    assert difference(found, expected) == ""
    found.image[2, 3] = np.nextafter(found.image[2, 3], np.float32(np.inf))
    assert difference(found, expected) == "image differs in 1 of 42 pixels"
    assert difference(replace(found, image=expected.image, variance=None), expected) == "variance is not there"
    [first, *others] = expected.frames
    counted = replace(expected, frames=(replace(first, missing=(99,)), *others))
    assert difference(counted, expected) == "missing of a frame differs"


@pytest.mark.gpu
def test_a_lost_device():
    backend = make_case("cupy").backend
    emulation = pytest.importorskip("cupyemu", reason="a real card is lost in a process of its own")
    try:
        found = lose_device(backend, lambda: emulation.lib.cuemu_fail_launch_after(0))
    finally:
        emulation.lib.cuemu_reset_errors()
    assert found.problem == ""
    assert "DeviceLost" in found.found


@pytest.mark.parametrize("rule", REJECTIONS)
@pytest.mark.parametrize("frames", [8, 33])
def test_counted_programs_give_the_kernels_bits(rule, frames):
    options = options_of(rule)
    values = make_samples(frames, 64)
    values[1, ::5] = np.nan
    counted, result = counted_stack(values, options)
    expected = stack_chunk(
        numpy_backend(), Samples(list(values)), options, critical_values=critical_values(frames, options)
    )
    for name in ("image", "coverage", "rejected_low", "rejected_high"):
        np.testing.assert_array_equal(getattr(result, name), getattr(expected, name), strict=True)
    assert counted.float64 > 0.0
    assert (counted.scratch > 0.0) == (rule != "none")


def test_operations_of_a_mean():
    """A sample is widened and so is whether it is present; both are added. One division and its like a pixel."""
    counted = count_operations(1000, StackOptions(rejection="none"))
    assert 4.0 <= counted.float64 < 4.1
    assert counted.scratch == 0.0
