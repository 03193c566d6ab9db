"""What each operation of a traced program means, on every backend, and what can't be traced.

An operation is tried in a small function, which NumPy's backend compiles by LLVM, CuPy's as CUDA C, and the others run
as it stands. Bits are compared, NaN for NaN.
"""

import operator
import sys
import threading

import numpy as np
import pytest
from programs import TYPES, assert_bits, on_host, run

from conftest import make_case
from zemosaic_stack_core import StackOptions, stack
from zemosaic_stack_core.backends import host
from zemosaic_stack_core.backends.inputs import Inputs, Layout
from zemosaic_stack_core.backends.tracing import trace
from zemosaic_stack_core.kernel import stack_chunk
from zemosaic_stack_core.kernel.samples import Samples

NAN, INF = float("nan"), float("inf")
COMPILED = ("numpy", "numpy-readonly", "cupy")


def elementwise(operation, names, dtype):
    """Return the function that has an operation's answer as its result."""

    def function(xp, column, task):
        def step(frame, carry):
            return [operation(xp, *[frame.row(name) for name in names])]

        return {"answer": column.visit([column.full(0, dtype)], step)[0]}

    return function


def answer_of(case, operation, *arrays, dtype):
    """Return an operation's answer for arrays of one dimension."""
    rows = {f"x{place}": np.asarray(array)[None] for place, array in enumerate(arrays)}
    return run(case, elementwise(operation, list(rows), dtype), rows)[0]["answer"]


def f32(*values):
    return np.array(values, np.float32)


def f64(*values):
    return np.array(values, np.float64)


def i32(*values):
    return np.array(values, np.int32)


def flags(*values):
    return np.array(values, np.bool_)


ULP = 2.0**-23
LARGEST = 3.4028234663852886e38
# What is done, to what, and what comes out. No case has subnormal numbers: see below.
CASES = {
    "add": (
        operator.add,
        [f32(1, 2.0**24, LARGEST, -0.0, INF), f32(ULP / 2, 1, LARGEST, -0.0, -INF)],
        f32(1, 2.0**24, INF, -0.0, NAN),
    ),
    "add f64": (operator.add, [f64(1, 2.0**53), f64(2.0**-53, 1)], f64(1, 2.0**53)),
    "add i32": (operator.add, [i32(3, -7), i32(4, 5)], i32(7, -2)),
    "subtract": (operator.sub, [f32(1, 0.0, INF, 1), f32(1, 0.0, INF, ULP / 4)], f32(0.0, 0.0, NAN, 1)),
    "subtract i32": (operator.sub, [i32(3, -7), i32(4, 5)], i32(-1, -12)),
    "multiply": (operator.mul, [f32(3, -0.0, INF, 2.0**100), f32(1 / 3, 5, 0.0, 2.0**100)], f32(1, -0.0, NAN, INF)),
    "multiply i32": (operator.mul, [i32(3, -7), i32(4, 5)], i32(12, -35)),
    "divide": (
        operator.truediv,
        [f32(1, 0.0, -1, 0.0, INF), f32(3, 0.0, 0.0, -5, INF)],
        f32(1 / 3, NAN, -INF, -0.0, NAN),
    ),
    "divide f64": (operator.truediv, [f64(1, 2), f64(3, 7)], f64(1 / 3, 2 / 7)),
    # Contracted, the first would be 2**-24.
    "multiply and add": (
        lambda a, b, c: a * b + c,
        [f32(1 + 2.0**-12, 2), f32(1 + 2.0**-12, 3), f32(-1 - 2.0**-11, 1)],
        f32(0.0, 7),
    ),
    "multiply and subtract f64": (
        lambda a, b, c: a * b - c,
        [f64(1 + 2.0**-27), f64(1 + 2.0**-27), f64(1 + 2.0**-26)],
        f64(0.0),
    ),
    # In another order it would be 1.
    "order of sums": (lambda a, b, c: (a + b) + c, [f32(1), f32(1e30), f32(-1e30)], f32(0.0)),
    "reciprocals": (
        lambda a, b: a / b - a * (1.0 / b),
        [f32(9), f32(11)],
        f32(np.float32(9) / np.float32(11) - np.float32(9) * (np.float32(1) / np.float32(11))),
    ),
    "negative": (operator.neg, [f32(1, 0.0, -0.0, INF)], f32(-1, -0.0, 0.0, -INF)),
    "negative i32": (operator.neg, [i32(3, 0, -9)], i32(-3, 0, 9)),
    "half": (
        lambda a: a // 2,
        [i32(5, 4, 1, 0, -1, -2, -5, 2**31 - 1, -(2**31))],
        i32(2, 2, 0, 0, -1, -1, -3, 2**30 - 1, -(2**30)),
    ),
    "number on the right": (lambda a: a * 0.1, [f32(3)], f32(np.float32(3) * np.float32(0.1))),
    "number on the left": (lambda a: 1.0 - (2.0 / a + 0.5) * 3.0, [f32(4)], f32(-2)),
    "number i32": (lambda a: 10 - (2 + 3 * a), [i32(4)], i32(-4)),
    "less": (operator.lt, [f32(1, 2, -0.0, NAN, 1, -INF), f32(2, 2, 0.0, 1, NAN, INF)], flags(1, 0, 0, 0, 0, 1)),
    "less or equal": (operator.le, [f32(1, 2, 0.0, NAN, 1, 3), f32(2, 2, -0.0, 1, NAN, 2)], flags(1, 1, 1, 0, 0, 0)),
    "greater": (operator.gt, [f64(3, 2, 0.0, NAN, 1), f64(2, 2, -0.0, 1, NAN)], flags(1, 0, 0, 0, 0)),
    "greater or equal": (operator.ge, [f64(1, 2, -0.0, NAN, 1), f64(2, 2, 0.0, 1, NAN)], flags(0, 1, 1, 0, 0)),
    "equal": (operator.eq, [f32(1, 0.0, NAN, INF), f32(1, -0.0, NAN, INF)], flags(1, 1, 0, 1)),
    "not equal": (operator.ne, [f32(1, 0.0, NAN, 2), f32(1, -0.0, NAN, 3)], flags(0, 0, 1, 1)),
    "less i32": (operator.lt, [i32(-1, 3, 5), i32(0, 3, -9)], flags(1, 0, 0)),
    "greater or equal i32": (operator.ge, [i32(-1, 3, 5), i32(0, 3, -9)], flags(0, 1, 1)),
    "equal i32": (operator.eq, [i32(-1, 3), i32(1, 3)], flags(0, 1)),
    "equal bool": (operator.eq, [flags(0, 0, 1, 1), flags(0, 1, 0, 1)], flags(1, 0, 0, 1)),
    "and": (operator.and_, [flags(0, 0, 1, 1), flags(0, 1, 0, 1)], flags(0, 0, 0, 1)),
    "or": (operator.or_, [flags(0, 0, 1, 1), flags(0, 1, 0, 1)], flags(0, 1, 1, 1)),
    "not": (operator.invert, [flags(0, 1)], flags(1, 0)),
}


@pytest.mark.parametrize("name", CASES)
def test_operators(backend, name):
    operation, arrays, expected = CASES[name]
    dtype = {np.dtype(kind): short for short, kind in TYPES.items()}[expected.dtype]
    found = answer_of(backend, lambda _, *values: operation(*values), *arrays, dtype=dtype)
    assert_bits(found, expected)


FUNCTIONS = {
    "where": (
        lambda xp, m, a, b: xp.where(m, a, b),
        [flags(1, 0, 1), f32(NAN, 1, -0.0), f32(2, INF, 3)],
        f32(NAN, INF, -0.0),
    ),
    "where i32": (lambda xp, m, a, b: xp.where(m, a, b), [flags(1, 0), i32(1, 2), i32(3, 4)], i32(1, 4)),
    "where bool": (lambda xp, m, a, b: xp.where(m, a, b), [flags(1, 0), flags(1, 0), flags(0, 1)], flags(1, 1)),
    "sqrt": (
        lambda xp, a: xp.sqrt(a),
        [f32(2, 0.0, -0.0, -1, INF, NAN)],
        f32(np.sqrt(np.float32(2)), 0.0, -0.0, NAN, INF, NAN),
    ),
    "sqrt f64": (lambda xp, a: xp.sqrt(a), [f64(2, 3)], f64(1.4142135623730951, 1.7320508075688772)),
    "abs": (lambda xp, a: xp.abs(a), [f32(-3, -0.0, -INF, NAN)], f32(3, 0.0, INF, NAN)),
    "floor": (
        lambda xp, a: xp.floor(a),
        [f64(2.5, -2.5, -0.0, 0.3, -0.3, 2.0**52 + 1, INF, NAN)],
        f64(2, -3, -0.0, 0.0, -1, 2.0**52 + 1, INF, NAN),
    ),
    "round": (
        lambda xp, a: xp.round(a),
        [f64(0.5, 1.5, 2.5, -0.5, -1.5, -0.2, 2.0**52 + 1, NAN)],
        f64(0.0, 2, 2, -0.0, -2, -0.0, 2.0**52 + 1, NAN),
    ),
    "round f32": (lambda xp, a: xp.round(a), [f32(0.5, 1.5, 2.5, 8388609, -0.5)], f32(0.0, 2, 2, 8388609, -0.0)),
    "isfinite": (lambda xp, a: xp.isfinite(a), [f32(1, LARGEST, INF, -INF, NAN)], flags(1, 1, 0, 0, 0)),
    "isfinite f64": (lambda xp, a: xp.isfinite(a), [f64(1, 1e308, INF, -INF, NAN)], flags(1, 1, 0, 0, 0)),
    "isfinite i32": (lambda xp, a: xp.isfinite(a), [i32(1, -5)], flags(1, 1)),
    "f32 to f64": (
        lambda xp, a: xp.astype(a, xp.float64),
        [f32(0.1, -0.0, INF, NAN)],
        f64(np.float32(0.1), -0.0, INF, NAN),
    ),
    # Halves to even; what is beyond the largest becomes infinite.
    "f64 to f32": (
        lambda xp, a: xp.astype(a, xp.float32),
        [f64(0.1, 1 + ULP / 2, 1 + 3 * ULP / 2, 1e39, -1e39, NAN, -0.0)],
        f32(0.1, 1, 1 + 2 * ULP, INF, -INF, NAN, -0.0),
    ),
    "f64 to i32": (
        lambda xp, a: xp.astype(a, xp.int32),
        [f64(3, -3, -0.0, 2.0**31 - 1, -(2.0**31))],
        i32(3, -3, 0, 2**31 - 1, -(2**31)),
    ),
    "i32 to f64": (
        lambda xp, a: xp.astype(a, xp.float64),
        [i32(3, -(2**31), 2**31 - 1)],
        f64(3, -(2.0**31), 2.0**31 - 1),
    ),
    "i32 to f32": (lambda xp, a: xp.astype(a, xp.float32), [i32(3, 2**24 + 1, 2**24 + 3)], f32(3, 2**24, 2**24 + 4)),
    "bool to i32": (lambda xp, a: xp.astype(a, xp.int32), [flags(0, 1)], i32(0, 1)),
    "bool to f32": (lambda xp, a: xp.astype(a, xp.float32), [flags(0, 1)], f32(0, 1)),
    "bool to f64": (lambda xp, a: xp.astype(a, xp.float64), [flags(0, 1)], f64(0, 1)),
    "u8 to f32": (
        lambda xp, a: xp.astype(a, xp.float32),
        [np.array([0, 127, 128, 255], np.uint8)],
        f32(0, 127, 128, 255),
    ),
    "i16 to f32": (
        lambda xp, a: xp.astype(a, xp.float32),
        [np.array([-32768, -1, 32767], np.int16)],
        f32(-32768, -1, 32767),
    ),
    "u16 to f32": (
        lambda xp, a: xp.astype(a, xp.float32),
        [np.array([0, 32768, 65535], np.uint16)],
        f32(0, 32768, 65535),
    ),
    "constants": (
        lambda xp, a: xp.full_like(a, 0.1) + xp.zeros_like(a) + xp.ones_like(a),
        [f32(7)],
        f32(np.float32(0.1) + np.float32(1)),
    ),
    "another type": (lambda xp, a: xp.full_like(a, 0.1, dtype=xp.float64), [f32(7)], f64(0.1)),
    "infinity": (
        lambda xp, a: xp.where(a > 0.0, xp.full_like(a, INF), xp.full_like(a, -INF)),
        [f32(1, -1)],
        f32(INF, -INF),
    ),
    "nan": (lambda xp, a: xp.full_like(a, NAN), [f64(1)], f64(NAN)),
    # Equal numbers, and not the same.
    "both zeros": (
        lambda xp, a: xp.where(a > 0.0, xp.full_like(a, 0.0), xp.full_like(a, -0.0)),
        [f32(1, -1)],
        f32(0.0, -0.0),
    ),
    "smaller i32": (lambda xp, a, b: xp.minimum(a, b), [i32(-1, 3, 4), i32(1, 3, -9)], i32(-1, 3, -9)),
    "larger i32": (lambda xp, a, b: xp.maximum(a, b), [i32(-1, 3, 4), i32(1, 3, -9)], i32(1, 3, 4)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(backend, name):
    operation, arrays, expected = FUNCTIONS[name]
    dtype = {np.dtype(kind): short for short, kind in TYPES.items()}[expected.dtype]
    assert_bits(answer_of(backend, operation, *arrays, dtype=dtype), expected)


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize(
    ("name", "expected"), [("minimum", (1, 1, -INF, 2, 0.0, -0.0)), ("maximum", (2, 1, 3, INF, 0.0, -0.0))]
)
def test_of_equal_numbers_the_first_is_the_smaller_and_the_larger(backend, name, expected, dtype):
    """Libraries return either zero: the kernel has one only."""
    first, second = (1, 1, 3, 2, 0.0, -0.0), (2, 1, -INF, INF, -0.0, 0.0)
    arrays = (np.array(values, TYPES[dtype]) for values in (first, second))
    found = answer_of(backend, lambda xp, a, b: getattr(xp, name)(a, b), *arrays, dtype=dtype)
    assert_bits(found, np.array(expected, TYPES[dtype]), zeros=backend.id in COMPILED)


TINY = {
    "f32": (1e-45, 1.1754942e-38, 1.1754944e-38),
    "f64": (5e-324, 2.225073858507201e-308, 2.2250738585072014e-308),
}


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_subnormal_numbers_are_numbers(backend, dtype):
    """But for float32 on CuPy, whose compiler is told to flush them."""
    if backend.id == "cupy" and dtype == "f32":
        pytest.skip("CuPy flushes float32 numbers below 1.18e-38, as documented")
    kind = TYPES[dtype]
    least, below, normal = (kind(value) for value in TINY[dtype])
    arrays = [np.array(values, kind) for values in ((least, below, normal, -below), (least, least, below, below))]
    expected = np.array([least + least, normal, normal + below, 0.0], kind)
    assert_bits(answer_of(backend, lambda _, a, b: a + b, *arrays, dtype=dtype), expected)
    assert_bits(answer_of(backend, lambda _, a: a * 0.5, arrays[0], dtype=dtype), arrays[0] * kind(0.5))
    assert answer_of(backend, lambda xp, a: xp.full_like(a, float(below)), arrays[0], dtype=dtype)[0] == below
    above = answer_of(backend, lambda _, a: a > 0.0, arrays[0], dtype="bool")
    assert above.tolist() == [True, True, True, False]


def test_subnormal_numbers_are_rounded_to():
    case = make_case("numpy")
    values = f64(1e-45, 0.7e-45, 0.7006492321624086e-45, 1.1754942807573643e-38)
    found = answer_of(case, lambda xp, a: xp.astype(a, xp.float32), values, dtype="f32")
    assert_bits(found, values.astype(np.float32))


def test_take_reads_each_pixels_own_entry(backend):
    def function(xp, column, task):
        def step(frame, carry):
            return [
                xp.take(column.table("other"), frame.row("index")) - xp.take(column.table("one"), carry[1]),
                carry[1],
            ]

        answer, _ = column.visit([column.full(0, "f64"), column.full(2, "i32")], step)
        return {"answer": answer}

    rows = {"index": i32(3, 0, 0, 2, 1)[None]}
    found, _ = run(backend, function, rows, tables={"one": f64(5, 6, 7), "other": f64(0.5, INF, 1.5, -2.5)})
    assert_bits(found["answer"], f64(-9.5, -6.5, -6.5, -5.5, INF))


def test_what_is_handed_in(backend):
    """What belongs to frames, pixels, and the whole run, and what is known before."""

    def function(xp, column, task):
        def step(frame, carry):
            assert frame.has("value")
            assert frame.has("scale")
            assert not frame.has("weight")
            value = xp.astype(frame.row("value"), xp.float32)
            return [carry[0] + (value * frame.number("scale") + frame.number("offset"))]

        total = column.visit([column.full(0.0, "f32")], step)[0]
        wide = xp.astype(total, xp.float64) * column.parameter("kappa") + column.parameter("offset")
        count = column.full(0, "i32") + column.count("most") + column.frames * task
        return {"total": total, "wide": wide + xp.astype(column.whole("sky"), xp.float64), "count": count}

    value = np.arange(15, dtype=np.uint16).reshape(3, 5)
    value[2, 4] = 65535
    scale, offset = f32(0.1, 0.2, 0.3), f32(1, 2, 3)
    found, counts = run(
        backend,
        function,
        {"value": value},
        task=7,
        numbers={"scale": scale.tolist(), "offset": offset.tolist()},
        parameters={"kappa": 0.1, "most": 40, "offset": -1.0},
        whole={"sky": f32(1, 2, 3, 4, NAN)},
    )
    total = np.zeros(5, np.float32)
    for row, one, other in zip(value, scale, offset, strict=True):
        total = total + (row.astype(np.float32) * one + other)
    assert counts == {}
    assert_bits(found["total"], total)
    assert_bits(found["wide"], total.astype(np.float64) * 0.1 - 1.0 + f64(1, 2, 3, 4, NAN))
    assert_bits(found["count"], np.full(5, 61, np.int32))


def test_rows_of_any_type_and_layout_are_read(backend):
    """Those that no program knows, and mixed ones, become float32 first; strided ones are copied."""
    rng = np.random.default_rng(1)
    wide = rng.uniform(0.0, 100.0, (3, 40))
    function = elementwise(lambda xp, a: xp.astype(a, xp.float32), ["value"], "f32")
    for kind in ("f8", "f4", "i4", "u4", "i8", "u2", "i2", "u1"):
        values = wide.astype(kind)
        inputs = Inputs(1, 20, {"value": [backend.make(values)[1, ::2]]})
        found = backend.backend.compiled(function, None)(inputs)[0]["answer"]
        assert_bits(on_host(backend, found), values[1, ::2].astype(np.float32))
    mixed = Inputs(2, 40, {"value": [backend.make(wide[0].astype("u1")), backend.make(wide[1])]})
    found = backend.backend.compiled(function, None)(mixed)[0]["answer"]
    assert_bits(on_host(backend, found), wide[1].astype(np.float32))


LAYOUT = Layout(rows=(("x", "f32"), ("y", "f64"), ("k", "i32"), ("m", "bool"), ("u", "u16")), tables=("t",))


def traced(operation):
    """Trace an operation on rows of each type."""

    def function(xp, column, task):
        def step(frame, carry):
            operation(xp, column, frame.row)
            return []

        column.visit([], step)
        return {}

    return trace(function, None, LAYOUT)


@pytest.mark.parametrize("name", ["mean", "sort", "nonzero", "clip", "any", "sum", "exp", "asarray", "stack"])
def test_what_is_not_elementwise_is_refused_by_name(name):
    with pytest.raises(AttributeError, match=f"xp.{name} can't be traced; expected an elementwise operation"):
        traced(lambda xp, column, row: getattr(xp, name)(row("x")))


@pytest.mark.parametrize(
    "operation",
    [
        lambda xp, column, row: 1 if row("m") else 2,
        lambda xp, column, row: row("x") > 0.0 and row("m"),
        lambda xp, column, row: 0.0 < row("x") < 1.0,
        lambda xp, column, row: not row("m"),
    ],
)
def test_a_condition_on_a_value_is_refused(operation):
    with pytest.raises(
        TypeError, match=r"a condition on a traced value; expected xp\.where, or a loop of the column's"
    ):
        traced(operation)


MIXED = [
    (lambda xp, column, row: row("x") + row("y"), "add of f32 and f64; expected equal types: see astype"),
    (lambda xp, column, row: row("k") * row("x"), "mul of i32 and f32; expected equal types"),
    (lambda xp, column, row: row("m") & row("k"), "and of bool and i32; expected equal types"),
    (lambda xp, column, row: row("x") < row("y"), "lt of f32 and f64; expected equal types"),
    (lambda xp, column, row: xp.minimum(row("x"), row("y")), "min of f32 and f64; expected equal types"),
    (lambda xp, column, row: xp.where(row("m"), row("x"), row("k")), "where of f32 and i32; expected equal types"),
    (lambda xp, column, row: row("k") / row("k"), "/ of i32; expected floats"),
    (lambda xp, column, row: row("k") // 3, "// of i32 by 3; expected int32 by 2"),
    (lambda xp, column, row: row("x") // 2, "// of f32 by 2; expected int32 by 2"),
    (lambda xp, column, row: row("k") + 0.5, "0.5 for i32; expected a whole number"),
    (lambda xp, column, row: row("k") > 0.5, "0.5 for i32; expected a whole number"),
]


@pytest.mark.parametrize(("operation", "message"), MIXED)
def test_types_that_would_be_promoted_are_refused(operation, message):
    with pytest.raises(TypeError, match=message):
        traced(operation)


@pytest.mark.parametrize(
    "operation",
    [
        lambda xp, column, row: row("u") > row("u"),
        lambda xp, column, row: row("u") + row("u"),
        lambda xp, column, row: row("m") < row("m"),
        lambda xp, column, row: xp.minimum(row("m"), row("m")),
        lambda xp, column, row: xp.astype(row("x"), xp.int32),
        lambda xp, column, row: xp.astype(row("u"), xp.float64),
        lambda xp, column, row: xp.abs(row("k")),
        lambda xp, column, row: xp.sqrt(row("k")),
    ],
)
def test_what_is_not_done_to_a_type_is_refused(operation):
    with pytest.raises(TypeError, match="expected"):
        traced(operation)


def test_a_loop_carries_what_it_began_with():
    def function(xp, column, task):
        column.visit([column.full(0, "i32")], lambda frame, carry: [xp.astype(carry[0], xp.float64)])
        return {}

    with pytest.raises(TypeError, match=r"a loop carries \['i32'\] and ends with \['f64'\]"):
        trace(function, None, LAYOUT)


def test_an_operation_is_recorded_once():
    """In its loop, and not again in a loop within."""

    def function(xp, column, task):
        one = column.parameter("a") * 2.0

        def step(frame, carry):
            return [carry[0] + column.parameter("a") * 2.0 + xp.astype(frame.row("x") + frame.row("x"), xp.float64)]

        return {"answer": column.visit([one], step)[0], "same": column.parameter("a") * 2.0}

    program = trace(function, None, Layout(rows=(("x", "f32"),), parameters=("a",)))
    body = program.lines[-1].body
    assert [line.operation for line in program.lines[:-1]] == ["parameter", "constant", "mul"]
    assert [line.operation for line in body] == ["add", "row", "add", "cast", "add"]
    assert [name for name, _ in program.results] == ["answer", "same"]


def misses():
    """Return how many programs were compiled for the host so far."""
    return host._compiled.cache_info().misses


def test_one_program_for_any_number_of_frames_and_any_kappas():
    backend = make_case("numpy").backend

    def stack_some(frames, pixels, *, options):
        values = np.random.default_rng(frames).normal(size=(frames, pixels)).astype(np.float32)
        stack_chunk(backend, Samples(values=list(values)), options, maps=("variance", "bounds"))

    stack_some(5, 20, options=StackOptions(rejection="mad_clip"))
    before = misses()
    for frames, pixels in ((1, 1), (2, 3), (31, 100), (64, 5), (100, 17)):
        for more in ({}, {"kappa_low": 1.5, "kappa_high": 2.5}, {"max_iterations": 3}):
            stack_some(frames, pixels, options=StackOptions(rejection="mad_clip", **more))
    assert misses() == before
    stack_some(5, 20, options=StackOptions(rejection="mad_clip", combine="median"))
    assert misses() == before + 1


def test_threads_share_one_program():
    frames = list(np.random.default_rng(1).normal(size=(6, 64, 30)).astype(np.float32))
    host._compiled.cache_clear()
    stack(frames, workers=4, rows_per_chunk=1)
    assert misses() == 1


def test_a_call_leaves_the_interpreter_to_others():
    """Another thread goes on while a compiled call runs: nothing else would let it within a hundred seconds."""
    values = np.random.default_rng(1).normal(size=(20, 100_000)).astype(np.float32)
    backend, options = make_case("numpy").backend, StackOptions(rejection="winsorized_sigma_clip", kappa_low=0.5)
    stack_chunk(backend, Samples(values=[row[:20] for row in values]), options)  # compiles
    is_done, turns = threading.Event(), []

    def count():
        while not is_done.wait(1e-3):
            turns.append(None)

    thread = threading.Thread(target=count)
    before = sys.getswitchinterval()
    thread.start()
    sys.setswitchinterval(100.0)
    try:
        first = len(turns)
        for _ in range(100):
            stack_chunk(backend, Samples(values=list(values)), options)
            if len(turns) > first + 3:
                break
        assert len(turns) > first + 3
    finally:
        sys.setswitchinterval(before)
        is_done.set()
        thread.join()


INDICES = {
    "anywhere": lambda: np.random.default_rng(1).integers(2, 60, 41),
    # As neighbors of an image that is hardly turned: a step to another row here and there.
    "in runs": lambda: np.arange(41) + 2 + np.repeat([0, 20, 10, 5], [11, 14, 10, 6]),
    "one to each side": lambda: np.arange(41) + np.repeat([40, -9, 30], [15, 16, 10]),
}


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("pixels", [5, 16, 41])
@pytest.mark.parametrize("places", INDICES)
def test_windows_and_results_of_frames(backend, count, pixels, places):
    random = np.random.default_rng(count)
    rows, table = random.normal(size=(3, 110)).astype(np.float32), random.normal(size=110).astype(np.float32)
    index = INDICES[places]().astype(np.int32)

    def function(xp, column, task):
        at = xp.astype(column.whole("at"), xp.int32)
        weights = column.window("table", at, count)

        def step(frame, carry):
            samples = frame.window("value", at, count, -2)
            total = samples[0] * weights[0]
            for sample, weight in zip(samples[1:], weights[1:], strict=True):
                total = total + sample * weight
            frame.give("total", total)
            frame.give("is_high", total > 0.0)
            return [carry[0] + total]

        return {"sum": column.visit([column.full(0.0, "f32")], step)[0]}

    found, _ = run(backend, function, {"value": rows}, whole={"table": table, "at": index[:pixels]}, pixels=pixels)
    total = np.zeros((3, pixels), np.float32)
    for place in range(count):
        total = total + rows[:, index[:pixels] - 2 + place] * table[index[:pixels] + place]
    assert_bits(found["total"], total)
    assert_bits(found["is_high"], total > 0)
    assert_bits(found["sum"], total[0] + total[1] + total[2])


def test_a_window_is_of_float32_and_narrow():
    layout = Layout(whole=(("bytes", "u8"), ("table", "f32")))
    with pytest.raises(TypeError, match="a window of 9 entries at i32; expected 1 to 8 at int32"):
        trace(lambda xp, column, task: {"x": column.window("table", column.frames, 9)[0]}, None, layout)
    with pytest.raises(TypeError, match="a window of u8; expected f32"):
        trace(lambda xp, column, task: {"x": column.window("bytes", column.frames, 2)[0]}, None, layout)
