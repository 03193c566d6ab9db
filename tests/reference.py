"""What a stack is, one pixel at a time: the scalar reference that the kernel is compared with.

Written from the numeric definition alone ("What a stack is" in the documentation) in plain Python floats (float64),
one pixel and one channel at a time, to be checked against that text line by line. Speed and memory play no part.
Nothing here is taken from the library but the names of the options.

Every decision also leaves a *margin*: how far the sample was from the bound, in units of the spread. Two correct
implementations in float64 may decide differently where the margin is of the size of their rounding; a test exempts
the pixels whose margin is below 1e-6.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from statistics import median
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

MAD_TO_SIGMA = 1.482602218505602
ROUNDING = 1e-12  # residuals this much smaller than the samples' distances are rounding noise of any implementation


class Options(Protocol):
    """The options that the reference reads; `zemosaic_stack_core.StackOptions` has them."""

    rejection: str
    kappa_low: float | None
    kappa_high: float | None
    max_iterations: int | None
    center: str
    p_low: float | None
    p_high: float | None
    n_low: int
    n_high: int
    winsor_limits: tuple[float, float]
    gain: float
    read_noise: float
    sensitivity: float
    outlier_fraction: float
    alpha: float
    combine: str


@dataclass
class Margin:
    """The narrowest decision so far, in units of the spread it was made with."""

    value: float = math.inf

    def decide(self, distance: float, spread: float) -> None:
        """Note a comparison whose two sides differ by `distance`.

        Without a spread the bound is the centre itself, an exact number: nothing is narrow.
        """
        if spread > 0:
            self.value = min(self.value, abs(distance) / spread)

    def bounds(self, samples: Sequence[float], low: float, high: float, spread: float) -> None:
        """Note the comparison of every sample with both bounds."""
        for v in samples:
            self.decide(v - low, spread)
            self.decide(high - v, spread)


def mean(x: Sequence[float]) -> float:
    return math.fsum(x) / len(x)


def standard_deviation(x: Sequence[float], ddof: int) -> float:
    m = mean(x)
    return math.sqrt(math.fsum((v - m) ** 2 for v in x) / (len(x) - ddof))


# A rule takes the present samples in ascending order, n >= 1 of them, and gives the kept interval [i, j) of ranks.


def interval_within(x: Sequence[float], low: float, high: float) -> tuple[int, int]:
    """Return the ranks of the samples with low <= v <= high: a tie at the bound keeps the sample."""
    inside = [k for k, v in enumerate(x) if not (v < low or v > high)]
    return (inside[0], inside[-1] + 1) if inside else (0, 0)


def clip_repeatedly(
    x: Sequence[float],
    statistics: Callable[[Sequence[float]], tuple[float, float]],
    kappa_low: float,
    kappa_high: float,
    max_iterations: int,
    margin: Margin,
) -> tuple[int, int]:
    """Clip about a centre until nothing more is rejected, as `astropy.stats.sigma_clip` does.

    The statistics of an iteration are those of the samples that the iterations before left. The bounds of the last
    iteration then judge **all** samples, so one that was rejected early can come back. An iteration that would leave
    no sample is not applied: the bounds of the iteration before stand, or none at all.
    """
    left = list(x)
    applied = None
    for _ in range(max_iterations):
        m, s = statistics(left)
        low, high = m - kappa_low * s, m + kappa_high * s
        margin.bounds(left, low, high, s)
        survivors = [v for v in left if not (v < low or v > high)]
        if not survivors:
            break
        applied = low, high, s
        if len(survivors) == len(left):
            break
        left = survivors
    if applied is None:
        return 0, len(x)
    margin.bounds(x, *applied)
    return interval_within(x, applied[0], applied[1])


def none(x: Sequence[float], options: Options, margin: Margin) -> tuple[int, int]:
    return 0, len(x)


def kappa_sigma(x: Sequence[float], options: Options, margin: Margin) -> tuple[int, int]:
    def statistics(left: Sequence[float]) -> tuple[float, float]:
        m = median(left) if options.center == "median" else mean(left)
        return m, standard_deviation(left, ddof=0)

    return clip_repeatedly(x, statistics, options.kappa_low, options.kappa_high, options.max_iterations, margin)


def mad_clip(x: Sequence[float], options: Options, margin: Margin) -> tuple[int, int]:
    def statistics(left: Sequence[float]) -> tuple[float, float]:
        m = median(left)
        return m, MAD_TO_SIGMA * median([abs(v - m) for v in left])

    return clip_repeatedly(x, statistics, options.kappa_low, options.kappa_high, options.max_iterations, margin)


def noise_clip(x: Sequence[float], options: Options, margin: Margin) -> tuple[int, int]:
    def statistics(left: Sequence[float]) -> tuple[float, float]:
        m = median(left)
        read_noise = options.read_noise / options.gain
        return m, math.sqrt(read_noise**2 + max(m, 0.0) / options.gain + (options.sensitivity * m) ** 2)

    return clip_repeatedly(x, statistics, options.kappa_low, options.kappa_high, options.max_iterations, margin)


def winsorized_spread(left: Sequence[float], margin: Margin) -> float:
    """Return `s` of `winsorized_sigma_clip`: 1.134 times the deviation of the samples pulled in to 1.5 of it."""
    m = median(left)
    s = standard_deviation(left, ddof=1)
    w = list(left)
    for _ in range(50):
        w = [min(max(v, m - 1.5 * s), m + 1.5 * s) for v in w]  # on the already clipped w
        s_new = 1.134 * standard_deviation(w, ddof=1)
        margin.decide(abs(s_new - s) - 5e-4 * s, s)
        converged = abs(s_new - s) <= 5e-4 * s
        s = s_new
        if converged:
            break
    return s


def winsorized_sigma_clip(x: Sequence[float], options: Options, margin: Margin) -> tuple[int, int]:
    # Each outer iteration acts on the samples that are left; none comes back.
    i, j = 0, len(x)
    for _ in range(options.max_iterations):
        left = x[i:j]
        if len(left) < 4:
            break
        m, s = median(left), winsorized_spread(left, margin)
        low, high = m - options.kappa_low * s, m + options.kappa_high * s
        margin.bounds(left, low, high, s)
        first, last = interval_within(left, low, high)
        if last - first < 3:  # not applied, and so the pixel is frozen: the next iteration would be the same
            break
        if last - first == len(left):
            break
        i, j = i + first, i + last
    return i, j


def winsorized_quantile(x: Sequence[float], options: Options, margin: Margin) -> tuple[int, int]:
    n = len(x)
    limit_low, limit_high = options.winsor_limits
    lowest = x[round(limit_low * (n - 1))]  # Python rounds halves to even
    highest = x[round((1 - limit_high) * (n - 1))]
    w = [min(max(v, lowest), highest) for v in x]

    def statistics(left: Sequence[float]) -> tuple[float, float]:
        return median(left), standard_deviation(left, ddof=0)

    first, last = clip_repeatedly(w, statistics, 3.0, 3.0, 5, margin)
    m, s = statistics(w[first:last])
    low, high = m - options.kappa_low * s, m + options.kappa_high * s
    margin.bounds(x, low, high, s)
    i, j = interval_within(x, low, high)
    return (i, j) if j > i else (0, n)


def linear_fit_clip(x: Sequence[float], options: Options, margin: Margin) -> tuple[int, int]:
    # Each iteration acts on the samples that are left; none comes back.
    i, j = 0, len(x)
    for _ in range(options.max_iterations):
        left = x[i:j]
        n = len(left)
        if n < 5:
            break
        ranks = range(n)
        rank_mean, level = mean(ranks), mean(left)
        slope = math.fsum((k - rank_mean) * (v - level) for k, v in zip(ranks, left, strict=True)) / math.fsum(
            (k - rank_mean) ** 2 for k in ranks
        )
        residuals = [(v - level) - slope * (k - rank_mean) for k, v in zip(ranks, left, strict=True)]
        s = mean([abs(r) for r in residuals])
        # Samples on a line have residuals of rounding noise, and so nothing is claimed of what those decide.
        noise = ROUNDING * max(abs(v - median(left)) for v in left)
        margin.bounds(residuals, -options.kappa_low * s, options.kappa_high * s, max(s, noise * 1e6))
        first, last = 0, n
        while first < n and residuals[first] < -options.kappa_low * s:
            first += 1
        while last > 0 and residuals[last - 1] > options.kappa_high * s:
            last -= 1
        if last <= first or last - first == n:
            break
        i, j = i + first, i + last
    return i, j


def percentile_clip(x: Sequence[float], options: Options, margin: Margin) -> tuple[int, int]:
    m = median(x)
    below, above = options.p_low * abs(m), options.p_high * abs(m)
    for v in x:
        margin.decide(m - v - below, below)
        margin.decide(v - m - above, above)
    inside = [k for k, v in enumerate(x) if not (m - v > below or v - m > above)]
    return (inside[0], inside[-1] + 1) if inside else (0, len(x))


def minmax(x: Sequence[float], options: Options, margin: Margin) -> tuple[int, int]:
    n = len(x)
    return (options.n_low, n - options.n_high) if n > options.n_low + options.n_high else (0, n)


def gesd(x: Sequence[float], options: Options, margin: Margin) -> tuple[int, int]:
    # Rosner, B. 1983, Technometrics 25, 165. Outlier by outlier, the sample farthest from the mean of those left is
    # set aside; afterwards all those up to the last R_i > lambda_i are rejected.
    n = len(x)
    i, j = 0, n
    rejected = i, j
    for k in range(1, math.floor(options.outlier_fraction * n) + 1):
        if n - k < 3:
            break
        left = x[i:j]
        center, s = mean(left), standard_deviation(left, ddof=1)
        if s == 0:
            break
        above, below = left[-1] - center, center - left[0]
        margin.decide(above - below, s)
        largest = max(above, below) / s
        critical = rosner_critical_value(n, k, options.alpha)
        margin.decide(largest - critical, 1.0)
        i, j = (i, j - 1) if above >= below else (i + 1, j)
        if largest > critical:
            rejected = i, j
    return rejected


@cache
def rosner_critical_value(n: int, k: int, alpha: float) -> float:
    """Return lambda_k for n samples: (n-k) t / sqrt((n-k-1 + t^2) (n-k+1)), t at p = 1 - alpha/(2 (n-k+1))."""
    degrees = n - k - 1
    t = student_t_two_sided(degrees, alpha / (n - k + 1))
    return (n - k) * t / math.sqrt((degrees + t * t) * (n - k + 1))


def student_t_two_sided(degrees: int, outside: float) -> float:
    """Return t with P(|T| > t) = outside, by bisection of the finite series (Abramowitz & Stegun 26.7.3, 26.7.4)."""
    low, high = 0.0, math.pi / 2  # of theta = atan(t / sqrt(degrees))
    for _ in range(200):
        theta = (low + high) / 2
        low, high = (theta, high) if student_t_inside(theta, degrees) < 1 - outside else (low, theta)
    return math.tan(low) * math.sqrt(degrees)


def student_t_inside(theta: float, degrees: int) -> float:
    """Return P(|T| < t) for t = sqrt(degrees) * tan(theta)."""
    sine, cosine = math.sin(theta), math.cos(theta)
    if degrees % 2:
        term, total = cosine, 0.0
        for power in range(1, degrees - 1, 2):
            total += term
            term *= cosine**2 * (power + 1) / (power + 2)
        return 2 / math.pi * (theta + sine * total)
    term, total = 1.0, 0.0
    for power in range(0, degrees - 1, 2):
        total += term
        term *= cosine**2 * (power + 1) / (power + 2)
    return sine * total


RULES: dict[str, Callable[[Sequence[float], Options, Margin], tuple[int, int]]] = {
    "none": none,
    "kappa_sigma": kappa_sigma,
    "mad_clip": mad_clip,
    "winsorized_sigma_clip": winsorized_sigma_clip,
    "winsorized_quantile": winsorized_quantile,
    "linear_fit_clip": linear_fit_clip,
    "percentile_clip": percentile_clip,
    "minmax": minmax,
    "noise_clip": noise_clip,
    "gesd": gesd,
}


@dataclass(frozen=True, kw_only=True)
class Pixel:
    """One stacked pixel; `kept`, `below`, `above` and `absent` say of each frame what became of its sample."""

    value: float
    kept: list[bool]
    below: list[bool]
    above: list[bool]
    absent: list[bool]
    low: float
    high: float
    weight_sum: float
    variance: float
    margin: float

    @property
    def coverage(self) -> int:
        return sum(self.kept)

    @property
    def rejected_low(self) -> int:
        return sum(self.below)

    @property
    def rejected_high(self) -> int:
        return sum(self.above)

    @property
    def missing(self) -> int:
        return sum(self.absent)


def normalize(sample: float, scale: float, offset: float) -> np.float32:
    """Return ``sample * scale + offset`` in float32: two rounded operations."""
    with np.errstate(over="ignore"):
        product_ = np.float32(np.float32(sample) * np.float32(scale))
        return np.float32(product_ + np.float32(offset))


def stack_pixel(
    samples: Sequence[float],
    *,
    options: Options,
    weights: Sequence[float] | None = None,
    variances: Sequence[float] | None = None,
    masked: Sequence[bool] | None = None,
) -> Pixel:
    """Reject and combine one pixel's samples, one per frame, already normalized.

    Samples are rounded to float32; NaN and infinities are missing, and so is what is masked. Weights are rounded to
    float32 before anything else; one of zero makes its sample missing.
    """
    v = [float(np.float32(sample)) for sample in samples]
    w = [1.0] * len(v) if weights is None else [float(np.float32(weight)) for weight in weights]
    hidden = [False] * len(v) if masked is None else list(masked)
    absent = [not math.isfinite(v[k]) or bool(hidden[k]) or w[k] == 0 for k in range(len(v))]
    x = sorted(v[k] for k in range(len(v)) if not absent[k])
    if not x:
        nothing = [False] * len(v)
        return Pixel(
            value=math.nan,
            kept=nothing,
            below=nothing,
            above=nothing,
            absent=absent,
            low=math.nan,
            high=math.nan,
            weight_sum=0.0,
            variance=math.nan,
            margin=math.inf,
        )

    margin = Margin()
    i, j = RULES[options.rejection](x, without_none(options), margin)
    assert 0 <= i < j <= len(x), "no rule leaves a pixel empty"
    # The interval as a pair of values: equal samples share their fate.
    low, high = x[i], x[j - 1]
    kept = [not absent[k] and low <= v[k] <= high for k in range(len(v))]
    return Pixel(
        value=combine(v, w, kept, options.combine),
        kept=kept,
        below=[not absent[k] and v[k] < low for k in range(len(v))],
        above=[not absent[k] and v[k] > high for k in range(len(v))],
        absent=absent,
        low=low,
        high=high,
        weight_sum=sum(w[k] for k in range(len(v)) if kept[k]),
        variance=variance_of(options.combine, v, w, kept, variances),
        margin=margin.value,
    )


def without_none(options: Options) -> Any:
    """Return the options with infinity for no bound, and more iterations than samples for no limit."""
    numbers = {name: getattr(options, name) for name in Options.__annotations__}
    for name in ("kappa_low", "kappa_high", "p_low", "p_high"):
        numbers[name] = math.inf if numbers[name] is None else numbers[name]
    numbers["max_iterations"] = 10**6 if numbers["max_iterations"] is None else numbers["max_iterations"]
    return SimpleNamespace(**numbers)


def combine(v: Sequence[float], w: Sequence[float], kept: Sequence[bool], how: str) -> float:
    """Combine the kept samples in frame order; float64 accumulation, float32 out."""
    values = [value for value, keep in zip(v, kept, strict=True) if keep]
    if how in ("mean", "sum"):
        total = weight_sum = 0.0
        for value, weight, keep in zip(v, w, kept, strict=True):
            if keep:
                total += weight * value
                weight_sum += weight
        return float(np.float32(total / weight_sum if how == "mean" else total))
    return float(np.float32({"median": median, "min": min, "max": max}[how](values)))


def variance_of(
    how: str, v: Sequence[float], w: Sequence[float], kept: Sequence[bool], variances: Sequence[float] | None
) -> float:
    """Return the variance of the combined value of the kept samples.

    Propagated where the samples' variances are known, else the samples' own, which needs two of them. The median's is
    ``c(n)`` times as large as that of a mean whose weights are ``1/sigma``; min and max have none. The sum is the mean
    times the sum of the weights.
    """
    if how in ("min", "max"):
        return math.nan
    if how == "sum":
        weight_sum = math.fsum(weight for weight, keep in zip(w, kept, strict=True) if keep)
        return variance_of("mean", v, w, kept, variances) * weight_sum**2
    chosen = [k for k, keep in enumerate(kept) if keep]
    number = len(chosen)
    weight_sum = math.fsum(w[k] for k in chosen)
    if variances is not None:
        known = [float(np.float32(variances[k])) for k in chosen]
        density, square, cube = (math.fsum(one ** (-power / 2) for one in known if one > 0) for power in (1, 2, 3))
        if how == "median" and number > 2 and density > 0:
            excess = math.pi / 2 * (number**2 * cube / density**3 - 1) - 3 * (number * square / density**2 - 1)
            return median_factor(number) * number / density**2 * (1 + excess / number)
        return math.fsum(w[k] ** 2 * one for k, one in zip(chosen, known, strict=True)) / weight_sum**2
    if number < 2:
        return math.nan
    s = standard_deviation([v[k] for k in chosen], ddof=1)
    of_mean = s * s * math.fsum(w[k] ** 2 for k in chosen) / weight_sum**2
    return of_mean * median_factor(number) if how == "median" else of_mean


def median_factor(n: int) -> float:
    """Return n times the variance of the median of n standard normal samples, by a fit good to 1e-4."""
    a, b, c = (0.43093133, 0.24588259, -0.10601824) if n % 2 else (1.42070777, -0.66916417, 0.2219072)
    return math.pi / 2 * n / (n + a + b / n + c / n**2)


Values = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


@dataclass(kw_only=True)
class Cube:
    """The reference of a whole stack: images of the frames' shape, and the kept set as a cube."""

    image: Values
    low: Values
    high: Values
    weight_map: Values
    variance: Values
    margin: Values
    coverage: Counts
    rejected_low: Counts
    rejected_high: Counts
    missing: Counts
    kept: npt.NDArray[np.bool_]
    below: npt.NDArray[np.bool_]
    above: npt.NDArray[np.bool_]
    absent: npt.NDArray[np.bool_]
    pixels: dict[tuple[int, ...], Pixel] = field(default_factory=dict)


def stack_cube(
    frames: Sequence[npt.NDArray[Any]],
    *,
    options: Options,
    weights: npt.ArrayLike | None = None,
    masks: Sequence[npt.NDArray[np.bool_] | None] | None = None,
    variances: Sequence[npt.NDArray[Any]] | None = None,
) -> Cube:
    """Stack frames of shape ``(row, column[, channel])`` pixel by pixel with `stack_pixel`.

    `weights` is ``(frame,)``, ``(frame, channel)`` for frames with channels, or one per sample.
    """
    cube = np.stack([np.asarray(frame, dtype=np.float32) for frame in frames])
    hidden = np.zeros(cube.shape, dtype=bool)
    for k, mask in enumerate(masks or []):
        if mask is not None:
            hidden[k] = mask
    w = None if weights is None else expand_weights(np.asarray(weights), cube.shape)
    var = None if variances is None else np.stack(list(variances))
    image_shape = cube.shape[1:]
    result = Cube(
        **{name: np.zeros(image_shape) for name in ("image", "low", "high", "weight_map", "variance", "margin")},
        **{
            name: np.zeros(image_shape, dtype=np.int64)
            for name in ("coverage", "rejected_low", "rejected_high", "missing")
        },
        **{name: np.zeros(cube.shape, dtype=bool) for name in ("kept", "below", "above", "absent")},
    )
    for place in positions(image_shape):
        here = (slice(None), *place)
        pixel = stack_pixel(
            cube[here].tolist(),
            options=options,
            weights=None if w is None else w[here].tolist(),
            variances=None if var is None else var[here].tolist(),
            masked=hidden[here].tolist(),
        )
        result.pixels[place] = pixel
        result.image[place] = pixel.value
        result.weight_map[place] = pixel.weight_sum
        for name in ("low", "high", "variance", "margin", "coverage", "rejected_low", "rejected_high", "missing"):
            getattr(result, name)[place] = getattr(pixel, name)
        for name in ("kept", "below", "above", "absent"):
            getattr(result, name)[here] = getattr(pixel, name)
    return result


def expand_weights(weights: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return one weight per sample from weights per frame, per frame and channel, or per sample."""
    if weights.ndim == 1:
        weights = weights.reshape((-1,) + (1,) * (len(shape) - 1))
    elif weights.ndim == 2 and len(shape) == 4:
        weights = weights[:, None, None, :]
    return np.broadcast_to(weights, shape)


def positions(shape: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Return every index of an array of that shape."""
    return product(*(range(length) for length in shape))
