"""Run a function on a backend as its programs are run: rows in, results and counts out, as NumPy's arrays."""

import numpy as np

from zemosaic_stack_core.backends.inputs import Inputs

TYPES = {"f32": np.float32, "f64": np.float64, "i32": np.int32, "bool": np.bool_}


def on_host(case, array):
    """Return an array of a backend as NumPy's."""
    out = np.empty(tuple(array.shape), dtype=str(array.dtype).rpartition(".")[2])
    case.backend.download(array, out)
    return out


def run(case, function, rows, *, task=None, tables=None, whole=None, pixels=None, **more):
    """Run a function on a backend; `rows` are arrays of shape (frame, pixel). Return results and counts by name."""
    rows = {name: np.asarray(values) for name, values in rows.items()}
    frames, entries = next(iter(rows.values())).shape
    inputs = Inputs(
        frames,
        entries if pixels is None else pixels,
        {name: [case.make(row) for row in values] for name, values in rows.items()},
        tables={name: case.make(table) for name, table in (tables or {}).items()},
        whole={name: case.make(row) for name, row in (whole or {}).items()},
        **more,
    )
    with np.errstate(all="ignore"):
        results, counts = case.backend.compiled(function, task)(inputs)
    return tuple({name: on_host(case, array) for name, array in found.items()} for found in (results, counts))


def assert_bits(found, expected, *, zeros=True):
    """Compare bits, NaN for NaN; the signs of zeros only with `zeros`."""
    np.testing.assert_array_equal(found, expected, strict=True)
    if zeros and found.dtype.kind == "f":
        is_zero = expected == 0.0
        np.testing.assert_array_equal(np.signbit(found[is_zero]), np.signbit(expected[is_zero]))
