"""Where exactly the bounds lie: examples worked by hand, ties included, and bounds found with the reference."""

import numpy as np
import pytest
import reference

from zemosaic_stack_core import StackOptions, stack

MORE, LESS = 1.0 + 1e-5, 1.0 - 1e-5


def kept_by(samples, **options):
    """Stack one pixel and give the number of samples rejected low, kept, rejected high."""
    frames = [np.full((1, 1), sample, dtype=np.float32) for sample in samples]
    result = stack(frames, options=StackOptions(**options), maps="all", workers=1)
    return int(result.rejected_low[0, 0]), int(result.coverage[0, 0]), int(result.rejected_high[0, 0])


ZEROS = [0.0] * 9
BY_HAND = [
    # A tie at the bound keeps the sample: about the mean, 10, the hundred lies at exactly 3 s.
    ({"center": "mean"}, [*ZEROS, 100.0], (0, 10, 0)),
    ({"center": "mean", "kappa_high": 2.999}, [*ZEROS, 100.0], (0, 9, 1)),
    ({}, [*ZEROS, 100.0], (0, 9, 1)),
    ({"kappa_high": 3.4}, [*ZEROS, 100.0], (0, 10, 0)),
    ({"kappa_low": 2.0, "max_iterations": 1}, [-10.0, *ZEROS, 10.0], (1, 10, 0)),
    ({"kappa_high": 2.0, "max_iterations": 1}, [-10.0, *ZEROS, 10.0], (0, 10, 1)),
    # A sample that the first iteration rejects comes back with the second's bounds.
    ({"kappa_low": 2.5, "kappa_high": 0.05, "max_iterations": 1}, [-15, 0, 0, 0, 0, 17, 18, 19, 20, 21, 22], (1, 5, 5)),
    ({"kappa_low": 2.5, "kappa_high": 0.05, "max_iterations": 2}, [-15, 0, 0, 0, 0, 17, 18, 19, 20, 21, 22], (0, 5, 6)),
    # An iteration that would leave nothing is not applied.
    ({"kappa_low": 0.1, "kappa_high": 0.1}, [0.0, 1.0], (0, 2, 0)),
    ({"kappa_low": 0.1, "kappa_high": 0.1}, [0.0, 1.0, 1.0, 2.0], (1, 2, 1)),
    ({"kappa_low": 0.35, "kappa_high": 0.35}, [1.0, 2.0, 9.0, 10.0, 100.0], (0, 4, 1)),
    # The same with many frames: the mean, 0.054, less and plus 1.1 and 0.2 s encloses no sample.
    ({"center": "mean", "kappa_low": 1.1, "kappa_high": 0.2}, [*[-0.5] * 5, *[0.1] * 60], (0, 65, 0)),
    ({"center": "mean", "kappa_low": 1.1, "kappa_high": 0.2}, [*[-0.5] * 7, *[0.1] * 93], (0, 100, 0)),
    ({"rejection": "mad_clip"}, [1.0, 2.0, 3.0, 4.0, 100.0], (0, 4, 1)),
    ({"rejection": "mad_clip"}, [5.0, 5.0, 5.0, 4.9, 5.1], (1, 3, 1)),
    ({"rejection": "winsorized_sigma_clip"}, [0.0, 0.0, 1e6], (0, 3, 0)),
    ({"rejection": "winsorized_sigma_clip"}, [0.0, 0.2, 0.5, 0.7, 1.0, 50.0], (0, 5, 1)),
    ({"rejection": "winsorized_sigma_clip", "kappa_low": 0.3, "kappa_high": 0.3}, [0.0, 4.0, 5.0, 9.0], (0, 4, 0)),
    ({"rejection": "winsorized_quantile"}, [*[0.0] * 5, *[1.0] * 5, 1000.0], (0, 10, 1)),
    # w = 1 1 2 2: median 1.5, s 0.5; the outer two lie exactly at 3 s.
    ({"rejection": "winsorized_quantile", "winsor_limits": (0.34, 0.34)}, [0.0, 1.0, 2.0, 3.0], (0, 4, 0)),
    ({"rejection": "winsorized_quantile", "winsor_limits": (0.34, 0.34)}, [-0.1, 1.0, 2.0, 3.1], (1, 2, 1)),
    # Halves to even: round(0.25*2) = 0 and round(0.75*2) = 2 leave 0 1 8 as they are, s = 3.56: 8 lies at 1.97 s.
    (
        {"rejection": "winsorized_quantile", "winsor_limits": (0.25, 0.25), "kappa_high": 1.9},
        [0.0, 1.0, 8.0],
        (0, 2, 1),
    ),
    (
        {"rejection": "winsorized_quantile", "winsor_limits": (0.25, 0.25), "kappa_high": 2.0},
        [0.0, 1.0, 8.0],
        (0, 3, 0),
    ),
    # Residuals 2 0 -2 -4 4, mean absolute residual 2.4: the last lies at 1.67 s.
    ({"rejection": "linear_fit_clip", "kappa_high": 1.6, "max_iterations": 1}, [0.0, 1.0, 2.0, 3.0, 14.0], (0, 4, 1)),
    ({"rejection": "linear_fit_clip", "kappa_high": 1.7, "max_iterations": 1}, [0.0, 1.0, 2.0, 3.0, 14.0], (0, 5, 0)),
    ({"rejection": "linear_fit_clip", "kappa_low": 1.6, "max_iterations": 1}, [0.0, 1.0, 2.0, 3.0, 14.0], (0, 5, 0)),
    ({"rejection": "linear_fit_clip", "kappa_high": 0.1}, [0.0, 1.0, 2.0, 1e6], (0, 4, 0)),
    # Kept from 80 to 110, the bounds included; 0.25 and 0.125 are exact.
    ({"rejection": "percentile_clip", "p_low": 0.25, "p_high": 0.125}, [74.0, 75.0, 100.0, 112.5, 113.0], (1, 3, 1)),
    ({"rejection": "percentile_clip"}, [-121.0, -120.0, -100.0, -90.0, -89.0], (1, 3, 1)),
    ({"rejection": "percentile_clip"}, [1.0, 100.0], (0, 2, 0)),
    ({"rejection": "minmax", "n_high": 2}, [5.0, 1.0, 3.0, 2.0, 4.0], (1, 2, 2)),
    ({"rejection": "minmax", "n_high": 2}, [5.0, 1.0, 3.0], (0, 3, 0)),
    ({"rejection": "minmax"}, [1.0, 1.0, 2.0, 3.0, 3.0], (0, 5, 0)),
    ({"rejection": "minmax"}, [1.0, 1.0, 2.0, 3.0, 4.0], (0, 4, 1)),
    ({"rejection": "minmax"}, [2.0, 2.0, 2.0], (0, 3, 0)),
    # s = sqrt(12^2/4^2 + 100/4 + (0.03*100)^2) = 6.557; without sensitivity and at a median of -50: 3.
    (
        {"rejection": "noise_clip", "gain": 4.0, "read_noise": 12.0, "sensitivity": 0.03},
        [80.0, 80.4, 100.0, 119.6, 120.0],
        (1, 3, 1),
    ),
    (
        {"rejection": "noise_clip", "gain": 4.0, "read_noise": 12.0, "max_iterations": 1},
        [-59.0, -58.9, -50.0, -41.0, -40.9],
        (0, 4, 1),
    ),
    ({"rejection": "gesd"}, [*[0.0] * 6, 9.0], (0, 6, 1)),
    ({"rejection": "gesd"}, [0.0, 0.0, 9.0], (0, 3, 0)),
    # Of two equally far samples the higher is tried first, and here only one may be rejected.
    ({"rejection": "gesd", "outlier_fraction": 0.05}, [-9.0, *[0.0] * 18, 9.0], (0, 19, 1)),
    ({"rejection": "gesd"}, [-9.0, *[0.0] * 18, 9.0], (1, 18, 1)),
]


@pytest.mark.parametrize(("options", "samples", "expected"), BY_HAND)
def test_by_hand(options, samples, expected):
    assert kept_by(samples, **options) == expected
    # The other way up, the other way round: for the rules whose two sides are each other's mirror.
    if options.get("rejection") not in ("percentile_clip", "noise_clip", "minmax", "gesd"):
        mirrored = {{"kappa_low": "kappa_high", "kappa_high": "kappa_low"}.get(k, k): v for k, v in options.items()}
        assert kept_by([-sample for sample in samples], **mirrored) == expected[::-1]


def test_rosner():
    """Three outliers of 54, as published: NIST/SEMATECH e-Handbook 1.3.5.17.3."""
    low, kept, high = kept_by(
        [
            -0.25,
            0.68,
            0.94,
            1.15,
            1.20,
            1.26,
            1.26,
            1.34,
            1.38,
            1.43,
            1.49,
            1.49,
            1.55,
            1.56,
            1.58,
            1.65,
            1.69,
            1.70,
            1.76,
            1.77,
            1.81,
            1.91,
            1.94,
            1.96,
            1.99,
            2.06,
            2.09,
            2.10,
            2.14,
            2.15,
            2.23,
            2.24,
            2.26,
            2.35,
            2.37,
            2.40,
            2.47,
            2.54,
            2.62,
            2.64,
            2.90,
            2.92,
            2.92,
            2.93,
            3.21,
            3.26,
            3.30,
            3.59,
            3.68,
            4.30,
            4.64,
            5.34,
            5.42,
            6.01,
        ],
        rejection="gesd",
    )
    assert (low, kept, high) == (0, 51, 3)


PARAMETERS = [
    ({"rejection": "kappa_sigma"}, "kappa_low"),
    ({"rejection": "kappa_sigma"}, "kappa_high"),
    ({"rejection": "kappa_sigma", "center": "mean"}, "kappa_low"),
    ({"rejection": "kappa_sigma", "center": "mean"}, "kappa_high"),
    ({"rejection": "mad_clip"}, "kappa_low"),
    ({"rejection": "mad_clip"}, "kappa_high"),
    ({"rejection": "winsorized_sigma_clip"}, "kappa_low"),
    ({"rejection": "winsorized_sigma_clip"}, "kappa_high"),
    ({"rejection": "winsorized_quantile", "winsor_limits": (0.1, 0.2)}, "kappa_low"),
    ({"rejection": "winsorized_quantile", "winsor_limits": (0.2, 0.1)}, "kappa_high"),
    ({"rejection": "linear_fit_clip"}, "kappa_low"),
    ({"rejection": "linear_fit_clip"}, "kappa_high"),
    ({"rejection": "percentile_clip"}, "p_low"),
    ({"rejection": "percentile_clip"}, "p_high"),
    ({"rejection": "noise_clip", "gain": 3.0, "sensitivity": 0.01}, "kappa_low"),
    ({"rejection": "noise_clip", "gain": 3.0, "sensitivity": 0.01}, "kappa_high"),
    ({"rejection": "gesd"}, "alpha"),
]


@pytest.mark.parametrize("n", [7, 26])
@pytest.mark.parametrize(
    ("base", "name"), PARAMETERS, ids=[f"{base['rejection']}-{name}-{k}" for k, (base, name) in enumerate(PARAMETERS)]
)
def test_the_bound_is_where_the_reference_has_it(base, name, n):
    """Find by bisection the value at which the reference keeps one sample more; the kernel must turn there too."""
    rng = np.random.default_rng(n)
    # From none to all but the last few samples rejected; a larger alpha rejects more, a larger kappa less.
    first, last = (1e-9, 0.999) if name == "alpha" else (1e-4, 8.0)
    turns = 0
    for _ in range(5):
        samples = rng.normal(100.0, 10.0, n).astype(np.float32).tolist()

        def by_reference(value, samples=samples):
            options = StackOptions(**base, max_iterations=1, **{name: value})
            pixel = reference.stack_pixel(samples, options=options)
            return pixel.rejected_low, pixel.coverage, pixel.rejected_high

        begin, end = first, last
        if by_reference(begin) == by_reference(end):
            continue
        for _ in range(45):
            middle = (begin + end) / 2
            begin, end = (middle, end) if by_reference(middle) != by_reference(end) else (begin, middle)
        turns += 1
        for value in (end * MORE, end * LESS):
            assert kept_by(samples, **base, max_iterations=1, **{name: value}) == by_reference(value)
        assert by_reference(end * MORE) != by_reference(end * LESS)
    assert turns >= 2


@pytest.mark.parametrize("n", [6, 15])
def test_winsorized_spread_to_the_last_round(n):
    """The spread depends on when its rounds stop; the bound lies where the spread of the reference puts it."""
    rng = np.random.default_rng(n)
    for _ in range(50):
        samples = np.sort(rng.normal(100.0, 10.0, n) + 30.0 * (rng.random(n) < 0.15)).astype(np.float32).tolist()
        s = reference.winsorized_spread(samples, reference.Margin())
        kappa = (samples[-1] - np.median(samples)) / s
        options = {"rejection": "winsorized_sigma_clip", "kappa_low": 1e3, "max_iterations": 1}
        assert kept_by(samples, **options, kappa_high=kappa * MORE) == (0, n, 0)
        assert kept_by(samples, **options, kappa_high=kappa * LESS) == (0, n - 1, 1)
