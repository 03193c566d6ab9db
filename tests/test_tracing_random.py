"""Random expressions give the same bits compiled and as they stand, with NaN and infinities."""

import operator
from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from programs import TYPES, assert_bits, run

from conftest import make_case

INF = float("inf")

# A random expression: an operation and its arguments, or the name of a row, or a number.
LEAVES = {"f32": ("a", "b"), "f64": ("c", "d"), "i32": ("j", "k"), "bool": ("p", "q")}
ROWS_OF = {name: dtype for dtype, names in LEAVES.items() for name in names}
CONSTANTS = {
    "f32": (0.0, 1.0, -1.0, 0.1, 3.0, 1e30, INF),
    "f64": (0.0, 1.0, -2.0, 0.1, 1e300, -INF),
    "i32": (0, 1, -7, 1000),
    "bool": (0, 1),
}
OPERATIONS = {
    "f32": [
        *((name, "f32", "f32") for name in ("add", "sub", "mul", "div", "minimum", "maximum")),
        *((name, "f32") for name in ("neg", "sqrt", "abs", "floor", "round")),
        ("where", "bool", "f32", "f32"),
        ("cast", "f64"),
        ("cast", "i32"),
        ("cast", "bool"),
    ],
    "f64": [
        *((name, "f64", "f64") for name in ("add", "sub", "mul", "div", "minimum", "maximum")),
        *((name, "f64") for name in ("neg", "sqrt", "abs", "floor", "round")),
        ("where", "bool", "f64", "f64"),
        ("cast", "f32"),
        ("cast", "i32"),
        ("cast", "bool"),
    ],
    "i32": [
        *((name, "i32", "i32") for name in ("add", "sub", "mul", "minimum", "maximum")),
        ("neg", "i32"),
        ("half", "i32"),
        ("where", "bool", "i32", "i32"),
        ("cast", "f64"),
        ("cast", "bool"),
    ],
    "bool": [
        *((name, kind, kind) for name in ("lt", "le", "gt", "ge", "eq", "ne") for kind in ("f32", "f64", "i32")),
        *((name, "bool", "bool") for name in ("and_", "or_", "eq", "ne")),
        ("invert", "bool"),
        ("where", "bool", "bool", "bool"),
        ("isfinite", "f32"),
        ("isfinite", "f64"),
    ],
}


@cache
def expressions(dtype, depth):
    """Return a strategy of expressions of a type, so many operations deep at most."""
    leaves = st.sampled_from([*LEAVES[dtype], *((dtype, value) for value in CONSTANTS[dtype])])
    if depth == 0:
        return leaves
    made = [
        st.tuples(st.just(name), st.just(dtype), *(expressions(kind, depth - 1) for kind in kinds))
        for name, *kinds in OPERATIONS[dtype]
    ]
    return st.one_of(leaves, *made)


def type_of(expression):
    """Return the type of an expression."""
    if isinstance(expression, str):
        return ROWS_OF[expression]
    return expression[0] if len(expression) == 2 and expression[0] in TYPES else expression[1]


class Evaluator:
    """Evaluates expressions on a frame's rows, within what operations are defined for."""

    def __init__(self, xp, column, frame, *, flushes):
        self.xp, self.column, self.frame, self.flushes = xp, column, frame, flushes

    def value(self, expression):
        """Return an expression's value."""
        xp = self.xp
        if isinstance(expression, str):
            return self.frame.row(expression)
        if type_of(expression) == expression[0] and len(expression) == 2:
            return self.column.full(expression[1], expression[0])
        name, dtype, *arguments = expression
        values = [self.value(argument) for argument in arguments]
        kinds = [type_of(argument) for argument in arguments]
        if name in ("minimum", "maximum"):  # no NaN, and one zero
            values = [self.present(value, kind) for value, kind in zip(values, kinds, strict=True)]
            found = getattr(xp, name)(*values)
        elif name == "cast":
            found = self.cast(values[0], kinds[0], dtype)
        elif name == "half":
            found = values[0] // 2
        elif name == "mul" and dtype == "i32":
            first, second = (xp.maximum(xp.minimum(value, self.whole(999)), self.whole(-999)) for value in values)
            found = first * second
        elif name == "div":
            found = values[0] / values[1]
        elif name in ("where", "sqrt", "abs", "floor", "round", "isfinite"):
            found = getattr(xp, name)(*values)
        else:
            found = getattr(operator, name)(*values)
        if dtype == "i32" and name in ("add", "sub", "mul"):
            found = xp.maximum(xp.minimum(found, self.whole(1_000_000)), self.whole(-1_000_000))
        if self.flushes and dtype == "f32":
            found = xp.where(xp.abs(found) < 1.2e-38, self.column.full(0.0, "f32"), found)
        return found

    def present(self, value, kind):
        """Return a value without NaN and negative zeros."""
        if kind == "i32":
            return value
        return self.xp.where(value == value, value, self.column.full(0.0, kind)) + 0.0

    def cast(self, value, kind, dtype):
        """Return a value as another type."""
        xp = self.xp
        if kind == "f64" and dtype == "i32":
            value = self.present(value, kind)
            value = xp.maximum(xp.minimum(xp.round(value), self.number(1e6)), self.number(-1e6))
        return xp.astype(value, {"f32": xp.float32, "f64": xp.float64, "i32": xp.int32}[dtype])

    def whole(self, value):
        """Return a whole number as a row."""
        return self.column.full(value, "i32")

    def number(self, value):
        """Return a number as a row."""
        return self.column.full(value, "f64")


def evaluate(xp, column, task):
    """Return the values of a task's expressions."""
    expressions, flushes = task
    dtypes = [type_of(expression) for expression in expressions]

    def step(frame, carry):
        evaluator = Evaluator(xp, column, frame, flushes=flushes)
        return [evaluator.value(expression) for expression in expressions]

    found = column.visit([column.full(0, dtype) for dtype in dtypes], step)
    return {str(place): value for place, value in enumerate(found)}


def rows_of_numbers(pixels=40):
    """Return rows of each type: ordinary numbers, special ones, and one beside the other in every way."""
    rng = np.random.default_rng(8)
    special = np.array(
        (0.0, -0.0, 1.0, -1.0, float("nan"), INF, -INF, 3.4028234663852886e38, 0.5, 2.5, 1e-30, 16777216.0), np.float32
    )
    rows = {}
    for name, dtype in ROWS_OF.items():
        if dtype == "bool":
            rows[name] = rng.random(pixels) < 0.5
        elif dtype == "i32":
            rows[name] = rng.integers(-1000, 1000, pixels).astype(np.int32)
        else:
            values = rng.normal(0.0, 10.0, pixels).astype(TYPES[dtype])
            values[: pixels // 2] = rng.choice(special, pixels // 2)
            values[pixels // 2 : pixels * 2 // 3] = rng.normal(0.0, 1.0, pixels).astype(TYPES[dtype])[0]
            rows[name] = values
    return {name: row[None] for name, row in rows.items()}


TREES = st.tuples(expressions("f32", 6), expressions("f64", 6), expressions("i32", 5), expressions("bool", 6))
NUMBERS = rows_of_numbers()
SLOW = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large]}


def check_expressions(case, expressions, *, flushes):
    """Compare a backend with NumPy as it stands."""
    note(str(expressions))
    expected, _ = run(make_case("numpy-plain"), evaluate, NUMBERS, task=(expressions, flushes))
    found, _ = run(case, evaluate, NUMBERS, task=(expressions, flushes))
    for name, array in expected.items():
        assert_bits(found[name], array)


@pytest.mark.slow
@settings(max_examples=150, **SLOW)
@given(TREES)
def test_random_expressions_by_llvm(expressions):
    check_expressions(make_case("numpy"), expressions, flushes=False)


@settings(max_examples=40, **SLOW)
@given(TREES)
def test_random_expressions_on_another_namespace(expressions):
    check_expressions(make_case("array-api-strict"), expressions, flushes=False)


@pytest.mark.gpu
@settings(max_examples=25, **SLOW)
@given(TREES)
def test_random_expressions_on_cupy(expressions):
    """Float32 numbers that CuPy would flush are flushed everywhere."""
    check_expressions(make_case("cupy"), expressions, flushes=True)
