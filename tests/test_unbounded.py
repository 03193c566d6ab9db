"""No bound on a side, no limit of iterations, and samples outside a range of values, which are missing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from astropy.stats import sigma_clip
from samples import assert_matches_reference, assert_same_bits, make_frames

from zemosaic_stack_core import InvalidInputError, StackOptions, read_master, stack, write_master
from zemosaic_stack_core.command_line import main
from zemosaic_stack_core.options import UNBOUNDED
from zemosaic_stack_core.stacking.adviser import advise, rule_text

KAPPA_RULES = (
    "kappa_sigma",
    "mad_clip",
    "winsorized_sigma_clip",
    "winsorized_quantile",
    "linear_fit_clip",
    "noise_clip",
)
SIDES = [
    *({"rejection": rule, side: None} for rule in KAPPA_RULES for side in ("kappa_low", "kappa_high")),
    *({"rejection": "percentile_clip", side: None} for side in ("p_low", "p_high")),
]


def side_of(change):
    return f"{change['rejection']}-{[*change][1]}"


@pytest.mark.parametrize("change", SIDES, ids=side_of)
def test_nothing_is_rejected_on_a_side_without_a_bound(change):
    narrow = {"kappa_low": 1.2, "kappa_high": 1.2, "p_low": 0.01, "p_high": 0.01}
    options = StackOptions(**{**narrow, **change})
    side = "rejected_low" if [*change][1].endswith("low") else "rejected_high"
    for n, pattern in ((5, "complete"), (12, "scattered")):
        frames, masks = make_frames(3, n, pattern=pattern)
        result = stack(frames, options=options, masks=masks, maps="all")
        assert_matches_reference(result, frames, options, masks=masks, allow_narrow=0.05)
        assert not getattr(result, side).any()
        assert result.rejected_low.any() or result.rejected_high.any()


@pytest.mark.parametrize("change", SIDES, ids=side_of)
def test_samples_without_spread_keep_what_differs(change, other_backend):
    """The spread is 0, and so are its multiples by any number but infinity."""
    values = (0.0, 7.0, 7.0, 7.0, 7.0, 7.0, 7.0, 20.0)
    frames = [np.full((3, 4), value, np.float32) for value in values]
    options = StackOptions(**change, read_noise=0.0)
    expected = stack(frames, options=options, maps="all")
    assert not (expected.rejected_low if [*change][1].endswith("low") else expected.rejected_high).any()
    made = [other_backend.make(frame) for frame in frames]
    assert_same_bits(stack(made, options=options, maps="all", backend=other_backend.backend), expected)


def test_without_a_limit_iterations_go_on_as_astropys():
    frames, _ = make_frames(2, 40, pattern="complete")
    options = StackOptions(kappa_low=1.3, kappa_high=1.3, max_iterations=None)
    clipped = sigma_clip(np.stack(frames), sigma=1.3, maxiters=None, axis=0)
    result = stack(frames, options=options)
    np.testing.assert_array_equal(result.coverage, 40 - np.ma.getmaskarray(clipped).sum(axis=0))
    assert (result.coverage < stack(frames, options=replace(options, max_iterations=2)).coverage).any()


def test_a_master_remembers_none(tmp_path):
    frames, _ = make_frames(2, 6, pattern="complete")
    options = StackOptions(**dict.fromkeys(UNBOUNDED), reject_above=1e6)
    read = read_master(write_master(tmp_path / "none.fits", stack(frames, options=options)))
    assert read.result.options == options


def test_the_command_line_has_a_word_for_it(tmp_path, capsys):
    for index, frame in enumerate(make_frames(2, 6, pattern="complete")[0]):
        np.save(tmp_path / f"{index}.npy", frame)
    given = ["--kappa-low", "none", "--max-iterations", "none", "--reject-above", "5000", "--no-picture"]
    given += ["--rejection", "kappa_sigma", "--normalization", "none"]
    assert main(["stack", str(tmp_path), "-o", str(tmp_path / "m.fits"), *given]) == 0
    options = read_master(tmp_path / "m.fits").result.options
    assert options == StackOptions(kappa_low=None, max_iterations=None, reject_above=5000)
    assert main(["stack", str(tmp_path), "-o", str(tmp_path / "n.fits"), "--kappa-low", "no"]) == 2
    assert "'no' is neither a number nor 'none'" in capsys.readouterr().err


def test_advice_on_one_side():
    assert rule_text(StackOptions(kappa_low=None)) == "kappa_sigma none/3"
    assert "rejects nothing at all with 5 frames" in advise(5, StackOptions(kappa_low=None)).problem
    assert advise(20, StackOptions(kappa_high=None)).most_outliers == 0  # they are bright


class TestRange:
    """Samples below `reject_below` or above `reject_above`."""

    FRAMES = np.random.default_rng(4).integers(0, 60000, (6, 7, 9)).astype(np.uint16)
    OPTIONS = StackOptions(rejection="none", reject_below=5000, reject_above=50000)

    def expected(self):
        masks = [(frame < 5000) | (frame > 50000) for frame in self.FRAMES]
        return stack(list(self.FRAMES), masks=masks, options=StackOptions(rejection="none"), maps="all")

    @pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.float64, np.int32])
    def test_they_are_missing(self, dtype, other_backend):
        frames = [other_backend.make(frame.astype(dtype)) for frame in self.FRAMES]
        assert_same_bits(
            stack(frames, options=self.OPTIONS, maps="all", backend=other_backend.backend), self.expected()
        )

    def test_in_files_too_beside_their_masks(self, tmp_path):
        paths = [tmp_path / f"{index}.fits" for index in range(6)]
        for path, frame in zip(paths, self.FRAMES, strict=True):
            fits.writeto(path, frame)
        masks = [frame % 5 == 0 for frame in self.FRAMES]
        every = [mask | (frame < 5000) | (frame > 50000) for mask, frame in zip(masks, self.FRAMES, strict=True)]
        found = stack(paths, masks=masks, options=self.OPTIONS, maps="all", rows_per_chunk=2)
        expected = stack(paths, masks=every, options=StackOptions(rejection="none"), maps="all")
        assert_same_bits(found, expected)

    def test_a_sample_at_a_bound_is_there(self):
        frames = [np.full((2, 2), np.float32(0.1))]
        assert stack(frames, options=StackOptions(reject_below=0.1, reject_above=0.1 + 1e-12)).coverage.all()

    def test_it_is_of_samples_as_read(self):
        """Saturated samples do not decide a frame's level either."""
        frames = [frame.astype(np.float32) / 100 for frame in self.FRAMES]
        frames[1] += 300
        frames[2][:5] = 65535
        options = StackOptions(rejection="none", normalization="additive", reject_above=1000)
        found = stack(frames, options=options)
        assert found.frames[2].missing == (45,)
        assert abs(found.frames[2].offset[0]) < 1000
        masked = stack(frames, masks=[frame > 1000 for frame in frames], options=replace(options, reject_above=None))
        np.testing.assert_array_equal(found.image, masked.image)

    def test_a_range_of_nothing_is_refused(self):
        with pytest.raises(
            InvalidInputError, match=r"reject_below is 9\.0 with reject_above 9; expected a smaller one"
        ):
            StackOptions(reject_below=9.0, reject_above=9)
