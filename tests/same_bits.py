"""Pin the bits of `stack`: cases of every rule, kind of data and option, and a hash of what comes out of each.

A case is its name: ``grid:rule=mad_clip,n=33,missing=borders`` says what differs from `DEFAULTS`. Its data are whole
numbers of a generator's own words, times a power of two, so that they are the same everywhere; a hash of them is kept
too. Results are hashed with one NaN, and with -0.0 as 0.0. ``same_bits.json`` has the hashes. Usage::

    python tests/same_bits.py check                    # all cases; --backend cupy for those of another backend
    python tests/same_bits.py check gesd missing=rare  # those whose names have all of these words
    python tests/same_bits.py write gesd               # replace their hashes, where bits change on purpose
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zemosaic_stack_core import StackOptions, StackResult, stack
from zemosaic_stack_core.options import MAPS

Shape = tuple[int, int, int, int]  # frames, rows, columns, channels
Whole = npt.NDArray[np.int64]
Array = npt.NDArray[Any]

STORED = Path(__file__).with_suffix(".json")
# Hexadecimal digits that are kept of a hash.
DIGITS = 16
LARGEST = float(np.finfo(np.float32).max)
# What a case is where its name does not say otherwise.
DEFAULTS: dict[str, Any] = {
    "rule": "kappa_sigma",
    "n": 8,
    "missing": "complete",  # or scattered, half, rare, borders, pixels, frame
    "by": "nan",  # or mask, both
    "kind": "sky",
    "dtype": "float32",
    "layout": "C",  # or F, strided
    "channels": 0,  # 0: (row, column)
    "shape": (15, 37),
    "params": "default",
    "center": "median",
    "combine": "mean",
    "weights": "none",
    "weighting": "none",
    "variances": "none",
    "grow": "no",
    "norm": "none",
    "maps": "all",
    "cut": "whole",  # or rows1, rows7, memory, pixel, workers2
}


def generator(*names: object) -> np.random.Generator:
    """Return the generator of one purpose."""
    digest = hashlib.sha256("/".join(map(str, names)).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:8], "little")))


def words(rng: np.random.Generator, shape: tuple[int, ...]) -> Whole:
    """Return 32 random bits each: the generator's own words, nothing rejected."""
    return rng.integers(0, 1 << 32, shape, dtype=np.uint32).astype(np.int64)


def bell(rng: np.random.Generator, shape: tuple[int, ...]) -> Whole:
    """Return sums of four 16-bit numbers about 0: standard deviation 37837."""
    one, two = words(rng, shape), words(rng, shape)
    return (one & 0xFFFF) + (one >> 16) + (two & 0xFFFF) + (two >> 16) - 131070


def share(rng: np.random.Generator, shape: tuple[int, ...], per_mille: int) -> npt.NDArray[np.bool_]:
    """Return true for so many of a thousand."""
    return words(rng, shape) % 1000 < per_mille


def over_frames(n: int) -> Whole:
    """Return the frames' indices, to broadcast."""
    return np.arange(n).reshape(n, 1, 1, 1)


def add_trails(cube: Whole, height: int) -> None:
    """Add a satellite's trail to every third frame, and a hot block or a cold block."""
    n, rows, columns, channels = cube.shape
    y, x = np.mgrid[:rows, :columns]
    for frame in range(1 if n > 1 else 0, n, 3):
        distance = np.abs(8 * y - 3 * x - 5 * (frame % 13) + 4 * (frame % 5))
        for channel in range(channels):
            part = cube[frame, :, :, channel]
            part[distance <= 6] += height
            part[(distance > 6) & (distance <= 12)] += height // 40
            if frame % 2:
                part[2:6, 3 + channel : 7 + channel] += height
            else:
                part[7:10, 12 - channel : 17 - channel] -= height


def sky(rng: np.random.Generator, shape: Shape, outliers: int) -> Whole:
    """Return a sky of 4,000,000 +- 37837, all below 2**24, with a gradient, a drift, and outliers of both sides."""
    n, rows, columns, channels = shape
    cube = 4_000_000 + bell(rng, shape)
    cube += np.arange(rows).reshape(1, rows, 1, 1) * 1013 + np.arange(columns).reshape(1, 1, columns, 1) * 211
    cube += np.arange(channels).reshape(1, 1, 1, channels) * 52_361
    cube += (words(rng, (n, 1, 1, 1)) & 0xFFFF) - 32768
    add_trails(cube, 1_500_000)
    hit = share(rng, shape, outliers)
    jump = words(rng, shape)
    up = (jump & 1) == 0
    cube += np.where(hit & up, (jump >> 3) % 7_000_000, 0) - np.where(hit & ~up, (jump >> 3) % 3_500_000, 0)
    return np.clip(cube, 1, (1 << 24) - 1)


def heavy(rng: np.random.Generator, shape: Shape) -> Whole:
    """Return the third power of a bell: tails that go on and on."""
    third = (bell(rng, shape) >> 10) ** 3
    return 6_000_000 + np.where(third > 0, third, third >> 1)


def bimodal(rng: np.random.Generator, shape: Shape) -> Whole:
    """Return samples of two levels."""
    cube = 1_000_000 + (bell(rng, shape) >> 3)
    return cube + np.where(share(rng, shape, 400), 900_000 + 3000 * np.arange(shape[2])[:, None], 0)


def ramp(rng: np.random.Generator, shape: Shape) -> Whole:
    """Return what rises with the frame: what a line fits."""
    cube = 2_000_000 + (bell(rng, shape) >> 2) + 20_000 * (over_frames(shape[0]) * 7 % shape[0])
    jump = words(rng, shape)
    return cube + np.where(share(rng, shape, 30), jump % 4_000_000 - 1_500_000, 0)


def ties(rng: np.random.Generator, shape: Shape) -> Whole:
    """Return small whole numbers."""
    word = words(rng, shape)
    cube = (word & 1) + (word >> 1 & 1) + (word >> 2 & 1) + (word >> 3 & 1) + 3
    cube += np.where(share(rng, shape, 40), (word >> 8) % 30, 0)
    return np.where(share(rng, shape, 20), 0, cube)


def constant(_: np.random.Generator, shape: Shape) -> Whole:
    """Return equal samples but for a spike in one frame of every third pixel."""
    n, rows, columns, _ = shape
    cube = np.broadcast_to(1000 + 17 * np.arange(rows * columns).reshape(1, rows, columns, 1), shape).copy()
    place = np.arange(rows * columns).reshape(rows, columns)
    for frame in range(n):
        cube[frame][(place % 3 == 0) & (place // 3 % n == frame)] += 500 if frame % 2 else -400
    return cube


def about_zero(bits: int) -> Callable[[np.random.Generator, Shape], Whole]:
    """Return what makes samples of both signs, less wide by so many bits."""

    def make(rng: np.random.Generator, shape: Shape) -> Whole:
        cube = bell(rng, shape) >> bits
        jump = words(rng, shape)
        return cube + np.where(share(rng, shape, 40), jump % 401 - 200, 0)

    return make


def huge(rng: np.random.Generator, shape: Shape) -> Whole:
    """Return samples of either sign in every other row."""
    cube = sky(rng, shape, 40)
    cube[:, ::2] *= -1
    return cube


def wild(rng: np.random.Generator, shape: Shape) -> Whole:
    """Return outliers of 2**55 in a noise of 9, with signs."""
    cube = sky(rng, shape, 0)
    jump = words(rng, shape)
    far = (jump >> 4) % 1000 << np.where(jump & 1, 47, 28)
    return cube + np.where(share(rng, shape, 60), np.where(jump & 2, far, -far), 0)


def cancel(rng: np.random.Generator, shape: Shape) -> Whole:
    """Return pairs of opposite wild samples in a noise of 9: every rounding and order of a sum shows."""
    cube, n = sky(rng, shape, 0), shape[0]
    if n < 2:
        return cube
    word = words(rng, shape[1:])
    far = ((word >> 8 & 0xFFF) * 2 + 1) << (24 + word % 25)
    first = (word >> 20) % (n // 2) * 2
    other = np.where(word & 128, first + 1, (first + 1 + (word >> 4) % (n - 1)) % n)
    frame, is_hit = over_frames(n), word % 3 != 0
    cube += np.where(is_hit & (frame == first), far, 0) - np.where(is_hit & (frame == other), far, 0)
    if n < 3:
        return cube
    # Pixels where one sample balances all others but a small one: the mean is next to nothing.
    level = ((word >> 8 & 0xFF) * 2 + 1) << 41
    balanced = np.where(frame == first, -(n - 2) * level, np.where(frame == first + 1, word >> 22, level))
    return np.where(word % 6 == 0, balanced, cube)


def line(rng: np.random.Generator, shape: Shape) -> Whole:
    """Return samples that lie on a line, sorted: what is left is rounding."""
    step = 1 + words(rng, shape[1:]) % 999
    return 50_000 + step * ((over_frames(shape[0]) * 7 + words(rng, shape[1:])) % shape[0])


# What makes a kind's whole numbers, and the power of two that they are times. Numbers that are not finite, and zeros
# with a sign, come in `cube_of`.
KINDS: dict[str, tuple[Callable[[np.random.Generator, Shape], Whole], int]] = {
    "sky": (lambda rng, shape: sky(rng, shape, 30), -12),
    "clean": (lambda rng, shape: sky(rng, shape, 2), -12),
    "dirty": (lambda rng, shape: sky(rng, shape, 250), -12),
    "heavy": (heavy, -9),
    "bimodal": (bimodal, -10),
    "ramp": (ramp, -10),
    "ties": (ties, 0),
    "binary": (lambda rng, shape: (words(rng, shape) % 7 == 0).astype(np.int64), 0),
    "constant": (constant, -3),
    "signed": (about_zero(12), -1),
    "zeros": (about_zero(16), -1),
    "negative": (lambda rng, shape: -sky(rng, shape, 30), -12),
    "infinite": (lambda rng, shape: sky(rng, shape, 30), -12),
    "huge": (huge, 104),  # up to 2**127.9
    "limits": (lambda rng, shape: sky(rng, shape, 30), 100),
    "tiny": (lambda rng, shape: sky(rng, shape, 30) >> 3, -149),  # subnormal numbers and those just above
    "wild": (wild, -12),
    "cancel": (cancel, -12),
    "line": (line, -10),
}


@lru_cache(maxsize=6)
def numbers(kind: str, shape: Shape) -> tuple[Whole, int]:
    """Return whole numbers, and the power of two that they are times."""
    make, power = KINDS[kind]
    return make(generator("data", kind, *shape), shape), power


def cube_of(kind: str, dtype: str, shape: Shape) -> Array:
    """Return the samples, fresh."""
    whole, power = numbers(kind, shape)
    kind_of_type = np.dtype(dtype)
    if dtype in ("uint16", "int16", ">i2"):
        info = np.iinfo(kind_of_type)
        return np.clip(whole >> (0 if power >= -3 else 10), info.min, info.max).astype(kind_of_type)
    if kind_of_type.kind == "i":
        return (whole * 64 + whole % 61).astype(kind_of_type)  # more than 24 bits: rounded when read
    exact = np.ldexp(whole.astype(np.float64), power)
    if kind_of_type.itemsize == 8:
        exact = exact + np.ldexp((whole % 1021).astype(np.float64), power - 11)
    values = exact.astype(kind_of_type)
    rng = generator("signs" if kind in ("signed", "zeros") else kind, *shape)
    if kind in ("infinite", "limits"):
        end = np.inf if kind == "infinite" else LARGEST
        for sample in (end, -end):
            values[share(rng, shape, 20 if kind == "infinite" else 40)] = sample
    elif kind in ("signed", "zeros"):
        values[(values == 0) & share(rng, shape, 500)] = -0.0
    return values


def missing_of(pattern: str, shape: Shape) -> npt.NDArray[np.bool_] | None:
    """Return where samples are missing; None for nowhere."""
    n, rows, columns, _ = shape
    rng = generator("missing", pattern, *shape)
    gone = np.zeros(shape, np.bool_)
    if pattern == "complete":
        return None
    if pattern in ("scattered", "half"):
        return share(rng, shape, 30 if pattern == "scattered" else 500)
    if pattern == "rare":  # one sample of one pixel in fifty
        pixels = words(rng, shape[1:])
        return (over_frames(n) == (pixels >> 8) % n) & (pixels % 50 == 0)
    if pattern == "pixels":  # pixels without a sample, and with 1 to 4 of them
        word = words(rng, shape[1:])
        left = np.where(word % 4 == 0, (word >> 4) % 5, n)
        return (over_frames(n) * 7 + (word >> 10)) % n >= left
    if pattern == "frame":  # a whole frame, and a channel of another
        gone[n // 2] = n > 1
        gone[-1, ..., -1] = n > 2
        return gone | share(rng, shape, 5)
    for part, word in zip(gone, words(rng, (n,)).tolist(), strict=True):  # borders: frames that were shifted
        down, right = word % 4, (word >> 8) % 5
        (part[:down] if word >> 16 & 1 else part[rows - down :])[:] = True
        (part[:, :right] if word >> 17 & 1 else part[:, columns - right :])[:] = True
    return gone


def parts_of(name: str) -> dict[str, Any]:
    """Return what a case is made of."""
    parts = dict(DEFAULTS)
    for word in name.partition(":")[2].split(","):
        key, _, value = word.partition("=")
        default = DEFAULTS[key]
        number = tuple(map(int, value.split("x"))) if key == "shape" else value
        parts[key] = int(value) if isinstance(default, int) else number
    return parts


def shape_of(parts: dict[str, Any]) -> Shape:
    """Return the shape of a case's samples."""
    return (parts["n"], *parts["shape"], max(1, parts["channels"]))


def laid_out(frame: Array, layout: str) -> Array:
    """Return the same samples in another order in memory."""
    if layout == "F":
        return np.asfortranarray(frame)
    if layout == "strided":
        wide = np.zeros((2 * frame.shape[0], 3 * frame.shape[1], *frame.shape[2:]), frame.dtype)
        wide[::2, ::3] = frame
        return wide[::2, ::3]
    return np.ascontiguousarray(frame)


def options_of(parts: dict[str, Any]) -> StackOptions:
    """Return the options of a case."""
    options = {"rejection": parts["rule"], "weighting": parts["weighting"], **stored()["parameters"][parts["params"]]}
    options |= {"combine": parts["combine"], "center": parts["center"]}
    if parts["variances"] == "detector":
        options["errors"] = "detector"
    if parts["grow"] != "no":
        radius, size = parts["grow"].split("/")
        options |= {"grow_radius": float(radius), "grow_min_size": int(size)}
    if parts["norm"] == "exclude":
        options |= {"normalization": "linear_fit", "on_unnormalizable": "exclude", "reference": 0}
    elif parts["norm"] != "none":
        options |= {"normalization": parts["norm"]}
    return StackOptions(**options)


def mark_missing(cube: Array, gone: npt.NDArray[np.bool_], parts: dict[str, Any]) -> list[Array | None] | None:
    """Make samples NaN, or return masks, or both."""
    by = parts["by"] if cube.dtype.kind == "f" else "mask"
    as_nan = gone.copy()
    if by == "both":
        as_nan[::2] = False
    if by != "mask":
        cube[as_nan] = np.nan
    if by == "nan":
        return None
    masks: list[Array | None] = [mask if parts["channels"] else mask[..., 0] for mask in gone]
    if by == "both":  # those of odd frames are NaN, but for one that is both
        return [mask if frame % 2 == 0 or frame == 1 else None for frame, mask in enumerate(masks)]
    return [mask[..., 0] for mask in gone] if parts["channels"] == 1 else masks


def weights_of(kind: str, shape: Shape, per_sample: tuple[int, ...]) -> Array | None:
    """Return the weights of frames or samples."""
    n, _, _, channels = shape
    rng = generator("weights", kind, *shape)
    if kind in ("frame", "zeroframe"):
        values = (words(rng, (n,)) % 255 + 1) / 256.0
        if kind == "zeroframe":
            values[::3] = 0.0
            values[1] = 0.5
        return values
    if kind == "pairs":  # two frames of one weight each
        return np.repeat(words(rng, (n,)) % 255 + 1, 2)[:n] / 256.0
    if kind == "channel":
        return ((words(rng, (n, channels)) % 1023 + 1) / 1024.0).astype(np.float32)
    if kind in ("sample", "zeros"):
        values = (words(rng, per_sample) % 65535 + 1) / 65536.0
        if kind == "zeros":
            values[share(rng, per_sample, 100)] = 0.0
        return values.astype(np.float32)
    if kind == "row":
        return (words(rng, (n, shape[1], 1, 1)[: len(per_sample)]) % 15) / 8.0
    return None


def variances_of(kind: str, shape: Shape, per_sample: tuple[int, ...]) -> Array | None:
    """Return the variances of samples."""
    rng = generator("variances", kind, *shape)
    if kind in ("given", "zeros"):
        values = (words(rng, per_sample) % 65535 + 1) / 256.0
        if kind == "zeros":
            values[share(rng, per_sample, 50)] = 0.0
        return values.astype(np.float32)
    if kind == "perframe":
        return (words(rng, (shape[0], 1, 1, 1)[: len(per_sample)]) % 4095 + 1) / 16.0
    return None


def limits_of(parts: dict[str, Any]) -> dict[str, int]:
    """Return how a case is cut into chunks."""
    cut, (n, rows, columns, channels) = parts["cut"], shape_of(parts)
    of_pixel = 64 * n * channels + 1000
    grown = 60 * rows * columns if parts["grow"] != "no" else 0
    return {
        "whole": {"workers": 1},
        "rows1": {"workers": 1, "rows_per_chunk": 1},
        "rows7": {"workers": 1, "rows_per_chunk": 7},
        "memory": {"workers": 1, "memory_limit": of_pixel * (rows * columns // 8) + 20 * rows * columns},
        "pixel": {"workers": 1, "memory_limit": of_pixel * 20 + grown},  # parts of a row
        "workers2": {"workers": 2, "rows_per_chunk": 4},
    }[cut]


def result_of(name: str, backend: str = "numpy") -> StackResult:
    """Stack a case."""
    parts = parts_of(name)
    shape = shape_of(parts)
    per_sample = shape if parts["channels"] else shape[:3]
    cube = cube_of(parts["kind"], parts["dtype"], shape)
    gone = missing_of(parts["missing"], shape)
    more: dict[str, Any] = dict(limits_of(parts))
    if gone is not None:
        more["masks"] = mark_missing(cube, gone, parts)
    more["weights"] = weights_of(parts["weights"], shape, per_sample)
    more["variances"] = variances_of(parts["variances"], shape, per_sample)
    if parts["weighting"] == "exposure":
        more["exposures"] = [(7 * frame % 11 + 1) * 2.5 for frame in range(shape[0])]
    wanted = {"all": "all", "counts": ("rejected_low", "rejected_high"), "nothing": ()}
    frames = [laid_out(frame if parts["channels"] else frame[..., 0], parts["layout"]) for frame in cube]
    return stack(
        frames, options=options_of(parts), maps=wanted.get(parts["maps"], (parts["maps"],)), backend=backend, **more
    )


def arrays_of(result: StackResult) -> dict[str, Array | None]:
    """Return what is hashed: image, maps, counts per frame, and the numbers of the frames."""
    arrays: dict[str, Array | None] = {"image": result.image} | {name: getattr(result, name) for name in MAPS[:5]}
    records = result.frames
    counts = [[record.rejected_low, record.rejected_high, record.missing] for record in records]
    arrays["counts"] = np.array(counts, np.int64)
    arrays["numbers"] = np.array([[record.weight, record.scale, record.offset] for record in records], np.float64)
    measured = [[record.sky, record.noise, record.fwhm] for record in records]
    nothing = [np.nan] * len(records[0].weight)
    arrays["measured"] = np.array([[nothing if row is None else row for row in rows] for rows in measured], np.float64)
    arrays["reference"] = np.array([-1 if result.reference is None else result.reference], np.int64)
    return arrays


def bytes_of(array: Array, *, keeps_zeros: bool = False) -> bytes:
    """Return little-endian bytes with one NaN, and with one zero."""
    little = np.array(array, dtype=array.dtype.newbyteorder("<"), order="C")
    if little.dtype.kind == "f":
        bits = little.view(f"<u{little.dtype.itemsize}")
        bits[np.isnan(little)] = 0x7FC00000 if little.dtype.itemsize == 4 else 0x7FF8000000000000
        if not keeps_zeros:
            bits[little == 0.0] = 0
    return little.tobytes()


def digest(name: str, backend: str = "numpy") -> str:
    """Stack a case and hash the result."""
    whole = hashlib.sha256()
    for part, array in arrays_of(result_of(name, backend)).items():
        if array is None:
            whole.update(f"{part}:None".encode())
        else:
            whole.update(f"{part}:{array.dtype.newbyteorder('<').str}:{array.shape}".encode())
            whole.update(bytes_of(array))
    return whole.hexdigest()[:DIGITS]


def data_digests() -> dict[str, str]:
    """Hash a sample of the data of each kind: tells a change of NumPy's generator from one of the stack's."""
    shape = (5, 15, 37, 1)
    found = {kind: bytes_of(cube_of(kind, "float32", shape), keeps_zeros=True) for kind in KINDS}
    for pattern in ("scattered", "borders", "pixels", "rare", "half", "frame"):
        found[pattern] = np.asarray(missing_of(pattern, shape)).tobytes()
    return {name: hashlib.sha256(data).hexdigest()[:DIGITS] for name, data in found.items()}


@cache
def stored() -> dict[str, dict[str, Any]]:
    """Return what is kept: the ``parameters`` of rules by name, and the hashes of the ``data`` and the ``cases``."""
    return json.loads(STORED.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def quick_cases(rule: str) -> list[str]:
    """Return some cases of a rule, for a test that runs every time: one in twenty of those that take little."""

    def is_quick(name: str) -> bool:
        word = int(hashlib.sha256(name.encode()).hexdigest()[8:16], 16)
        parts = parts_of(name)
        return word % 20 == 0 and parts["rule"] == rule and parts["n"] <= 100 and not name.startswith("large:")

    return [name for name in stored()["cases"] if is_quick(name)]


def differences(names: Iterable[str], backend: str = "numpy") -> Iterator[str]:
    """Yield the cases whose results are not what they were."""
    cases = stored()["cases"]
    return (name for name in names if digest(name, backend) != cases[name])


def main() -> int:
    """Check, or write, the hashes of the cases with all of some words in their names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("check", "write"))
    parser.add_argument("words", nargs="*", metavar="WORD", help="all of them are in the names of the cases")
    parser.add_argument("--backend", default="numpy", help="numpy or cupy")
    arguments = parser.parse_args()
    kept = dict(stored())
    names = [name for name in kept["cases"] if all(word in name for word in arguments.words)]
    if arguments.what == "write":
        kept["data"] = data_digests()
        kept["cases"] |= {name: digest(name, arguments.backend) for name in names}
        STORED.write_text(json.dumps(kept, indent=0) + "\n", encoding="utf-8")
        return 0
    if data_digests() != kept["data"]:
        sys.stdout.write("the data are others: NumPy's generator has changed\n")
        return 1
    different = 0
    for name in differences(names, arguments.backend):
        sys.stdout.write(f"{name}\n")
        different += 1
    sys.stdout.write(f"{different} of {len(names)} cases differ\n")
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main())
