"""Variances of samples: from arrays, FITS extensions or a detector's noise, propagated and used as weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData, StdDevUncertainty
from samples import assert_matches_reference, assert_same_bits

from zemosaic_stack_core import InvalidInputError, StackOptions, stack
from zemosaic_stack_core.command_line import ExitCode, main
from zemosaic_stack_core.errors import FrameReadError
from zemosaic_stack_core.master.explain import MISSING, explain_pixel
from zemosaic_stack_core.master.read import read_master
from zemosaic_stack_core.master.replay import replay_master

SHAPE = (7, 9)
SHAPES = {"mono": SHAPE, "color": (*SHAPE, 3)}
N = 6
BY_VARIANCE = StackOptions(weighting="inverse_variance", kappa_high=2.0)


def make_frames(shape: tuple[int, ...] = SHAPE, seed: int = 1) -> tuple[Any, Any]:
    """Return frames whose noise differs from sample to sample, and their variances, both float32."""
    rng = np.random.default_rng(seed)
    variances = rng.uniform(4, 100, (N, *shape)).astype(np.float32)
    frames = (200 + np.sqrt(variances) * rng.standard_normal(variances.shape)).astype(np.float32)
    frames[rng.random(frames.shape) < 0.05] += 800
    frames[rng.random(frames.shape) < 0.05] = np.nan
    return frames, variances


def planes(array: Any) -> Any:
    return array if array.ndim == 2 else np.moveaxis(array, 2, 0)


def write_frames(folder: Path, frames: Any, errors: Any, name: str, utype: str = "") -> list[Path]:
    paths = []
    for index, (frame, error) in enumerate(zip(frames, errors, strict=True)):
        extension = fits.ImageHDU(planes(error), name=name)
        if utype:
            extension.header["UTYPE"] = utype
        paths.append(folder / f"{index}.fits")
        fits.HDUList([fits.PrimaryHDU(planes(frame)), extension]).writeto(paths[-1])
    return paths


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize(
    ("name", "utype", "of_variance"),
    [
        ("VARIANCE", "", lambda variance: variance),
        ("ERR", "", np.sqrt),
        ("UNCERT", "StdDevUncertainty", np.sqrt),
        ("UNCERT", "VarianceUncertainty", lambda variance: variance),
        ("IVAR", "", lambda variance: 1 / variance),
    ],
)
def test_an_extension_is_an_array_of_variances(name, utype, of_variance, shape, tmp_path):
    frames, variances = make_frames(shape)
    stored = of_variance(variances.astype(np.float64))  # float64: reading rounds once, to the same float32
    paths = write_frames(tmp_path, frames, stored, name, utype)
    options = StackOptions(kappa_low=2.0)
    found = stack(paths, options=options, variance_extension=name, maps="all")
    read = [fits.getdata(path, name) for path in paths]
    expected = [np.float32(one).astype(np.float64) for one in read]
    if of_variance is np.sqrt:
        expected = [one * one for one in expected]
    elif name == "IVAR":
        expected = [1 / one for one in expected]
    given = np.stack([one if one.ndim == 2 else np.moveaxis(one, 0, 2) for one in expected])
    assert_same_bits(found, stack(list(frames), options=options, variances=given, maps="all"))
    np.testing.assert_allclose(given, variances, rtol=1e-6)
    assert found.given.variance_extension == name


def test_what_ccddata_writes(tmp_path):
    frames, variances = make_frames()
    paths = []
    for index, (frame, variance) in enumerate(zip(frames, variances, strict=True)):
        mask = np.zeros(SHAPE, bool)
        mask[index, index] = True
        paths.append(tmp_path / f"{index}.fits")
        CCDData(frame, uncertainty=StdDevUncertainty(np.sqrt(variance)), mask=mask, unit="adu").write(paths[-1])
    result = stack(paths, mask_extension="MASK", variance_extension="UNCERT", maps="all")
    expected = stack(
        list(frames),
        variances=variances,
        masks=[np.eye(*SHAPE, dtype=bool) & (np.arange(7)[:, None] == k) for k in range(N)],
        maps="all",
    )
    np.testing.assert_array_equal(result.image, expected.image)
    np.testing.assert_array_equal(result.coverage, expected.coverage)
    np.testing.assert_allclose(result.variance, expected.variance, rtol=1e-6)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("options", [StackOptions(), BY_VARIANCE], ids=["propagated", "weights too"])
def test_samples_without_a_usable_variance_are_missing(options, shape, tmp_path):
    frames, variances = make_frames(shape)
    bad = np.zeros(frames.shape, bool)
    bad[0, :3], bad[2, 4], bad[:, 6, 8] = True, True, True
    broken = variances.astype(np.float64)
    broken[bad] = np.resize([np.nan, -1.0, np.inf], int(bad.sum()))
    paths = write_frames(tmp_path, frames, broken, "VARIANCE")
    found = stack(paths, options=options, variance_extension="VARIANCE", maps="all", rows_per_chunk=2)
    expected = stack(list(frames), options=options, variances=variances, masks=list(bad), maps="all")
    assert_same_bits(found, expected)
    assert found.coverage[6, 8].max() == 0


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.uint16])
def test_the_noise_of_a_detector(shape, dtype):
    frames, _ = make_frames(shape)
    frames = np.nan_to_num(frames, nan=150.0).astype(dtype)
    if dtype is np.float32:
        frames[1] -= 400  # below zero there are no photons
    gain, read_noise, sensitivity = 1.7, 6.0, 0.02
    values = frames.astype(np.float64)
    variances = (read_noise / gain) ** 2 + np.maximum(values, 0) / gain + (sensitivity * values) ** 2
    model = {"gain": gain, "read_noise": read_noise, "sensitivity": sensitivity}
    found = stack(list(frames), options=StackOptions(errors="detector", **model), maps="all")
    expected = stack(list(frames), variances=variances, maps="all")
    np.testing.assert_array_equal(found.image, expected.image)
    np.testing.assert_allclose(found.variance, expected.variance, rtol=3e-7)
    for changed in ({"gain": 2.0}, {"read_noise": 9.0}, {"sensitivity": 0.1}):
        other = stack(list(frames), options=StackOptions(errors="detector", **(model | changed)), maps="all")
        grows = other.variance > found.variance
        assert grows.all() if "gain" not in changed else not grows.any()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("pattern", ["alone", "frame weights", "radial"])
def test_weights_by_inverse_variance_are_weights_per_sample(shape, pattern):
    frames, variances = make_frames(shape)
    frame_weights = np.linspace(0.4, 1.3, N) if pattern == "frame weights" else None
    radial = {"radial_feather_fraction": 0.9} if pattern == "radial" else {}
    options = StackOptions(weighting="inverse_variance", kappa_high=2.0, **radial)
    found = stack(list(frames), options=options, weights=frame_weights, variances=variances, maps="all")
    weights = 1.0 / variances.astype(np.float64)
    if frame_weights is not None:
        weights *= frame_weights.astype(np.float32).astype(np.float64).reshape((N,) + (1,) * len(shape))
    by_hand = StackOptions(kappa_high=2.0, **radial)
    expected = stack(list(frames), options=by_hand, weights=weights, variances=variances, maps="all")
    for name in ("image", "weight_map", "variance", "coverage"):
        if pattern == "radial":  # there the product is rounded in another order
            np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=3e-7)
        else:
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    if pattern == "alone":
        np.testing.assert_allclose(found.variance, 1 / found.weight_map, rtol=1e-6)
        assert_matches_reference(found, list(frames), by_hand, weights=weights, variances=list(variances))


def test_variances_follow_the_normalization():
    """A frame of twice the gain has four times the variance; normalized, it weighs as its noise says."""
    rng = np.random.default_rng(0)
    sky = rng.normal(0, 30, SHAPE)
    gain = np.array([1.0, 2.0, 0.5, 1.0])[:, None, None]
    frames = (gain * (500 + sky + rng.normal(0, 1, (4, *SHAPE)))).astype(np.float32)
    variances = np.broadcast_to(gain**2, frames.shape)
    options = StackOptions(normalization="multiplicative", reference=0, rejection="none", weighting="inverse_variance")
    result = stack(list(frames), options=options, variances=variances, maps="all")
    np.testing.assert_allclose(result.weight_map, 4.0, rtol=0.02)
    np.testing.assert_allclose(result.variance, 0.25, rtol=0.02)


def test_weighted_by_inverse_variance_the_noise_is_the_least_possible():
    """The true scatter of the mean is what its variance says, and 1/sum(1/variance), within 1 %."""
    rng = np.random.default_rng(5)
    sigma = np.array([1.0, 2.0, 3.0, 5.0, 8.0])
    frames = (rng.standard_normal((5, 200, 400)) * sigma[:, None, None]).astype(np.float32)
    options = StackOptions(weighting="inverse_variance", rejection="none")
    variances = (sigma**2)[:, None, None]
    result = stack(list(frames), options=options, variances=variances, maps="all")
    least = 1 / np.sum(1 / sigma**2)
    np.testing.assert_allclose(result.variance, least, rtol=1e-6)
    # The standard error of a variance from 80000 samples is 0.5 %, of the deviation 0.25 %: 1 % is four of them.
    assert np.std(result.image) == pytest.approx(np.sqrt(least), rel=0.01)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("errors", ["given", "detector"])
def test_the_same_bits_on_every_backend_and_for_any_chunk(other_backend, shape, errors):
    frames, variances = make_frames(shape)
    options = StackOptions(weighting="inverse_variance", errors=errors, normalization="additive_scaling", gain=2.0)
    given = variances if errors == "given" else None
    expected = stack(list(frames), options=options, variances=given, maps="all")
    for rows in (1, 3):
        found = stack(
            [other_backend.make(frame) for frame in frames],
            options=options,
            variances=given,
            maps="all",
            backend=other_backend.backend,
            rows_per_chunk=rows,
        )
        assert_same_bits(found, expected)
    assert_same_bits(stack(list(frames), options=options, variances=given, maps="all", memory_limit=9000), expected)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_no_bit_depends_on_the_workers(shape, tmp_path):
    frames, variances = make_frames(shape)
    paths = write_frames(tmp_path, frames, variances, "VARIANCE")
    ways = ({"workers": 1}, {"workers": 3, "rows_per_chunk": 1})
    one, three = (stack(paths, options=BY_VARIANCE, variance_extension="VARIANCE", maps="all", **way) for way in ways)
    assert three.facts.workers == 3
    assert_same_bits(three, one)


@pytest.mark.parametrize("color", [False, True], ids=["mono", "color"])
def test_the_command_remembers_and_replays(color, tmp_path, capsys):
    frames, variances = make_frames(SHAPES["color" if color else "mono"])
    variances[2, 3, 4] = -1
    paths = write_frames(tmp_path, frames, variances, "VAR")
    master = tmp_path / "m.fits"
    way = ["--weighting", "inverse_variance", "--variance-extension", "var", "--maps", "all", "--backend", "cpu"]
    way += ["--normalization", "additive_scaling", "--grow-radius", "1", "--grow-min-size", "1", "--no-picture"]
    assert main(["stack", *map(str, paths), "-o", str(master), *way]) == ExitCode.DONE
    header = fits.getheader(master)
    assert (header["ZSC_VEXT"], header["ZSC_WGHT"], header["ZSC_GROW"]) == ("var", "inverse_variance", 1.0)
    assert read_master(master).result.given.variance_extension == "var"
    assert replay_master(master).is_same
    capsys.readouterr()
    assert main(["explain", str(master), "3", "4"]) == ExitCode.DONE
    assert "the same bits" in capsys.readouterr().out
    for channel in explain_pixel(master, 3, 4):
        assert channel.is_same
        fates = {sample.frame: sample for sample in channel.samples}
        assert fates[2].fate == MISSING
        kept = channel.kept
        assert sum(sample.weight for sample in kept) == pytest.approx(channel.weight_sum)
        scale = [frame.scale[channel.channel] for frame in read_master(master).result.frames]
        for sample in kept:
            variance = np.atleast_3d(variances)[sample.frame, 3, 4] if not color else variances[sample.frame, 3, 4]
            variance = float(np.ravel(variance)[channel.channel])
            assert sample.weight == pytest.approx(1 / (scale[sample.frame] ** 2 * variance), rel=1e-6)


def test_a_detector_s_master_replays(tmp_path):
    frames, _ = make_frames()
    for index, frame in enumerate(frames):
        np.save(tmp_path / f"{index}.npy", frame)
    master = tmp_path / "m.fits"
    way = ["--errors", "detector", "--gain", "1.5", "--weighting", "inverse_variance", "--maps", "variance"]
    arguments = [str(tmp_path), "-o", str(master), *way, "--no-picture", "--backend", "cpu"]
    assert main(["stack", *arguments]) == ExitCode.DONE
    assert replay_master(master).is_same
    assert explain_pixel(master, 1, 1)[0].is_same


VARIANCES = np.ones((N, 1, 1))
BAD = [
    ({"options": BY_VARIANCE}, "weighting 'inverse_variance' without variances; expected variances="),
    (
        {"options": StackOptions(errors="detector"), "variances": VARIANCES},
        "variances and errors 'detector'; expected one",
    ),
    ({"variances": -VARIANCES}, "variances hold the value -1; expected numbers of at least 0"),
    ({"variance_extension": "VARIANCE"}, "frame 0 is an array; expected a file with VARIANCE"),
    ({"dq_bits": 4}, "dq_bits is 4 without mask_extension; expected the name of the extension"),
]


@pytest.mark.parametrize(("given", "message"), BAD)
def test_what_does_not_fit_is_refused(given, message):
    with pytest.raises(InvalidInputError, match=message.replace("(", r"\(")):
        stack(list(make_frames()[0]), **given)


def test_bad_extensions_are_refused(tmp_path):
    frames, variances = make_frames()
    paths = write_frames(tmp_path, frames, variances, "VARIANCE")
    with pytest.raises(FrameReadError, match=r"0\.fits: .*NOISE"):
        stack(paths, variance_extension="NOISE")
    with pytest.raises(InvalidInputError, match="variances and variance_extension 'VARIANCE'; expected one source"):
        stack(paths, variance_extension="VARIANCE", variances=VARIANCES)
    with pytest.raises(InvalidInputError, match="combine 'mean' or weighting 'none'"):
        StackOptions(weighting="inverse_variance", combine="median")
    fits.append(paths[1], np.zeros((3, 4), np.float32), fits.Header({"EXTNAME": "SMALL"}))
    fits.append(paths[0], np.zeros(SHAPE, np.float32), fits.Header({"EXTNAME": "SMALL"}))
    with pytest.raises(InvalidInputError, match=r"1\.fits\[SMALL\] is 3 x 4 .*; expected 7 x 9"):
        stack(paths[:2], variance_extension="SMALL")


def test_a_master_of_arrays_says_that_it_can_not_be_replayed(tmp_path):
    from zemosaic_stack_core.master.write import write_master

    frames, variances = make_frames()
    paths = []
    for index, frame in enumerate(frames):
        paths.append(tmp_path / f"{index}.npy")
        np.save(paths[-1], frame)
    weights = np.ones((N, *SHAPE))
    result = stack(paths, variances=variances, masks=[np.zeros(SHAPE, bool)] * N, weights=weights)
    assert result.given.arrays == ("masks", "variances", "weights")
    write_master(tmp_path / "m.fits", result)
    with pytest.raises(InvalidInputError, match=r"m\.fits: made with masks, variances, weights given as arrays"):
        replay_master(tmp_path / "m.fits")
