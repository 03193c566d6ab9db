"""`StackOptions`: defaults, and every value that is refused, with what the message says."""

import dataclasses
import math

import numpy as np
import pytest

from zemosaic_stack_core import InvalidInputError, StackOptions, stack
from zemosaic_stack_core.options import (
    CENTERS,
    COMBINATIONS,
    NORMALIZATIONS,
    REJECTIONS,
    UNBOUNDED,
    UNNORMALIZABLE_ACTIONS,
    WEIGHTINGS,
    check_choice,
)


def test_defaults_are_the_definition_s():
    options = StackOptions()
    assert (options.kappa_low, options.kappa_high, options.max_iterations) == (3.0, 3.0, 5)
    assert options.center == "median"
    assert (options.p_low, options.p_high) == (0.2, 0.1)
    assert (options.n_low, options.n_high) == (1, 1)
    assert options.winsor_limits == (0.05, 0.05)
    assert (options.gain, options.read_noise, options.sensitivity) == (1.0, 5.0, 0.0)
    assert (options.outlier_fraction, options.alpha) == (0.3, 0.05)
    assert (options.rejection, options.combine) == ("kappa_sigma", "mean")
    assert (options.normalization, options.weighting) == ("none", "none")


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("rejection", REJECTIONS),
        ("center", CENTERS),
        ("combine", COMBINATIONS),
        ("normalization", NORMALIZATIONS),
        ("weighting", WEIGHTINGS),
        ("on_unnormalizable", UNNORMALIZABLE_ACTIONS),
    ],
)
def test_names(name, known):
    for value in known:
        assert getattr(StackOptions(**{name: value}), name) == value
    for value in ("kappa-sigmaa", "", "NONE", None, 3, ["mean"]):
        with pytest.raises(InvalidInputError) as raised:
            StackOptions(**{name: value})
        message = str(raised.value)
        assert message.startswith(f"{name} is {value!r}; expected one of: ")
        assert message.endswith(", ".join(known))


NUMBERS = [
    ("kappa_low", (-1.0, 0, math.nan, math.inf, "3", True)),
    ("kappa_high", (-3.0, 0.0, math.nan, math.inf, "3", False)),
    ("p_low", (-0.1, math.nan, math.inf, "0.2")),
    ("p_high", (-1e-9, math.nan, math.inf, [0.1])),
    ("gain", (0.0, -1.0, math.nan, math.inf)),
    ("read_noise", (-5.0, math.nan, math.inf)),
    ("sensitivity", (-0.1, math.nan)),
    ("outlier_fraction", (0.0, -0.3, 1.01, math.nan)),
    ("alpha", (0.0, 1.0, -0.05, 2.0, math.nan)),
    ("max_iterations", (0, -1, 2.5, "5", True)),
    ("n_low", (-1, 1.0, None)),
    ("reject_below", (math.nan, -math.inf, "0", True)),
    ("reject_above", (math.nan, math.inf, "60000")),
    ("n_high", (-2, 0.5, "1")),
    ("reference", (-1, 1.5, "first", None)),
    ("winsor_limits", (0.05, (0.05,), (0.1, 0.2, 0.3), (-0.1, 0.1), (0.5, 0.5), (0.9, 0.2), (math.nan, 0.1), None)),
]


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in NUMBERS for value in values])
def test_numbers_that_are_refused(name, value):
    with pytest.raises(InvalidInputError) as raised:
        StackOptions(**{name: value})
    message = str(raised.value)
    assert message.startswith(name)
    assert "; expected " in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "accepted",
    [
        {"kappa_low": 1e-3},
        {"kappa_high": 10},
        {"p_low": 0.0},
        {"p_high": 0},
        {"n_low": 0, "n_high": 0},
        {"read_noise": 0.0},
        {"sensitivity": 0},
        {"outlier_fraction": 1.0},
        {"max_iterations": 1},
        {"reference": 0},
        {"reference": "auto"},
        {"winsor_limits": (0.0, 0.0)},
        {"winsor_limits": [0.1, 0.2]},
        *({name: None} for name in UNBOUNDED),
        {"reject_below": -5.0, "reject_above": None},
    ],
    ids=str,
)
def test_numbers_at_the_edge_are_accepted(accepted):
    options = StackOptions(**accepted)
    for name, value in accepted.items():
        assert getattr(options, name) == (tuple(value) if isinstance(value, list) else value)


def test_weighting_needs_the_mean():
    with pytest.raises(InvalidInputError, match=r"weighting is 'noise_variance' with combine 'median'; expected"):
        StackOptions(weighting="noise_variance", combine="median")


def test_an_unknown_option_is_refused():
    with pytest.raises(TypeError, match="kappa"):
        StackOptions(kappa=3.0)


def test_options_are_frozen_and_compare():
    options = StackOptions()
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.kappa_low = 2.0
    assert options == StackOptions()
    assert hash(options) == hash(StackOptions())
    assert dataclasses.replace(options, kappa_low=2.0) != options
    with pytest.raises(InvalidInputError):
        dataclasses.replace(options, kappa_low=-2.0)


def test_check_choice_names_what_it_checks():
    check_choice("format", "b", ("a", "b"))
    with pytest.raises(InvalidInputError, match="format is 'c'; expected one of: a, b"):
        check_choice("format", "c", ("a", "b"))


def test_numbers_of_numpy_become_pythons() -> None:
    """They go into headers and JSON, and a caller computes them with NumPy."""
    options = StackOptions(
        kappa_low=np.float32(2.5),
        kappa_high=2,
        max_iterations=np.int64(3),
        reference=np.uint8(1),
        winsor_limits=(0, 0.1),
    )
    assert options == StackOptions(
        kappa_low=2.5, kappa_high=2.0, max_iterations=3, reference=1, winsor_limits=(0.0, 0.1)
    )
    values = (options.kappa_low, options.kappa_high, options.max_iterations, options.reference)
    assert [type(value) for value in values] == [float, float, int, int]
    assert all(type(value) is float for value in options.winsor_limits)
    with pytest.raises(InvalidInputError, match="max_iterations is True; expected a whole number >= 1"):
        StackOptions(max_iterations=True)


@pytest.mark.parametrize("name", ["rows_per_chunk", "workers", "memory_limit"])
def test_how_the_work_is_done_takes_whole_numbers(name: str) -> None:
    frames = [np.ones((2, 3), np.float32)] * 2
    kind = np.int64 if name != "memory_limit" else np.uint32
    assert np.all(stack(frames, **{name: kind(1 if name != "memory_limit" else 10**6)}).image == 1.0)
    for bad in (True, 1.5, "1", 0):
        with pytest.raises(InvalidInputError, match=f"{name} is {bad!r}; expected a whole number"):
            stack(frames, **{name: bad})


@pytest.mark.parametrize("backend", [None, 42, np])
def test_what_is_no_backend(backend: object) -> None:
    with pytest.raises(InvalidInputError, match=r"^backend is .*; expected a backend, .* numpy, cpu, cupy, gpu"):
        stack([np.ones((2, 3), np.float32)], backend=backend)  # type: ignore[arg-type]
