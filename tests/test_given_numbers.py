"""Scales, offsets and weights that the caller gives: as numbers, by a card, by a function; and the section measured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.nddata import CCDData

from zemosaic_stack_core import InvalidInputError, StackOptions, read_master, stack, stack_auto, write_master
from zemosaic_stack_core.command_line import main
from zemosaic_stack_core.master.explain import explain_pixel
from zemosaic_stack_core.master.replay import replay_master
from zemosaic_stack_core.options import MAPS

PLAIN = StackOptions(rejection="none")
SCALES = (1.0, 0.5, 2.0)
OFFSETS = (0.0, -7.25, 3.0)


@pytest.fixture
def frames():
    return list(np.random.default_rng(2).normal(100, 10, (3, 12, 15)).astype(np.float32))


def levelled(frames):
    pairs = zip(frames, SCALES, OFFSETS, strict=True)
    return [frame * np.float32(scale) + np.float32(offset) for frame, scale, offset in pairs]


def write(folder, frames, **cards):
    paths = []
    for index, frame in enumerate(frames):
        header = fits.Header({name: values[index] for name, values in cards.items()})
        paths.append(folder / f"{index}.fits")
        fits.writeto(paths[-1], frame, header)
    return paths


def test_numbers_act_as_those_of_a_normalization(frames, other_backend):
    options = StackOptions(kappa_low=1.1, kappa_high=1.1)
    made = [other_backend.make(frame) for frame in frames]
    found = stack(made, options=options, scales=SCALES, offsets=OFFSETS, maps="all", backend=other_backend.backend)
    expected = stack(levelled(frames), options=options, maps="all")
    for name in ("image", *MAPS):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    assert [(frame.scale, frame.offset) for frame in found.frames] == [
        ((scale,), (offset,)) for scale, offset in zip(SCALES, OFFSETS, strict=True)
    ]


def test_one_a_channel(frames):
    color = [np.stack([frame] * 3, axis=-1) for frame in frames]
    scales = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9.0]])
    found = stack(color, options=PLAIN, scales=scales)
    for channel in range(3):
        alone = stack(frames, options=PLAIN, scales=scales[:, channel])
        np.testing.assert_array_equal(found.image[..., channel], alone.image)


def test_variances_go_along(frames):
    found = stack(frames, options=PLAIN, scales=[2, 2, 2], variances=np.float32(9), maps="variance")
    np.testing.assert_allclose(found.variance, 4 * 9 / 3, rtol=1e-6)


def test_cards_of_headers_and_of_ccddata(frames, tmp_path):
    cards = {"FLUXCAL": SCALES, "SKYOFF": OFFSETS, "NFRAMES": (1, 2, 3)}
    paths = write(tmp_path, frames, **cards)
    pairs = enumerate(frames)
    held = [CCDData(one, unit="adu", meta={name: cards[name][at] for name in cards}) for at, one in pairs]
    expected = stack(frames, options=PLAIN, scales=SCALES, offsets=OFFSETS, weights=[1, 2, 3])
    for given in (paths, held):
        found = stack(given, options=PLAIN, scales="FLUXCAL", offsets="SKYOFF", weights="NFRAMES")
        np.testing.assert_array_equal(found.image, expected.image)


def test_cards_are_those_of_the_image_though_part_of_it_is_measured(frames, tmp_path):
    paths = [tmp_path / f"{index}.fits" for index in range(3)]
    for path, frame, gain in zip(paths, frames, (1.0, 2.0, 4.0), strict=True):
        images = [fits.ImageHDU(frame, fits.Header({"GAIN": gain * factor}), "SCI", ver=factor) for factor in (1, 3)]
        fits.HDUList([fits.PrimaryHDU(), *images]).writeto(path)
    held = [CCDData(frame, unit="adu", meta={"GAIN": 3 * gain}) for frame, gain in zip(frames, (1, 2, 4), strict=True)]
    options = StackOptions(rejection="none", statistics_section="[2:9,3:*]")
    for given, more in ((paths, {"image_extension": "SCI,3"}), (held, {})):
        found = stack(given, options=options, scales="GAIN", weights="GAIN", **more)
        assert [frame.scale for frame in found.frames] == [(3.0,), (6.0,), (12.0,)]
        assert [frame.weight for frame in found.frames] == [(3.0,), (6.0,), (12.0,)]


def test_functions_of_frames_see_what_is_there_in_the_section(frames):
    frames[1][:4] = np.nan
    mask = np.zeros((12, 15), bool)
    mask[:, 9] = True
    seen = []

    def to_level(frame):
        seen.append(frame)
        return 100 / np.nanmedian(frame)

    options = StackOptions(rejection="none", statistics_section=np.s_[2:8, 3:])
    found = stack(frames, masks=[mask] * 3, options=options, scales=to_level, weights=lambda frame: frame[5, 0])
    assert {one.shape for one in seen} == {(6, 12)}
    assert [int(np.isnan(one).sum()) for one in seen] == [6, 6 + 2 * 12 - 2, 6]
    expected = [[100 / np.nanmedian(one)] for one in seen]
    np.testing.assert_allclose([frame.scale for frame in found.frames], expected, rtol=1e-6)
    assert [frame.weight[0] for frame in found.frames] == [frame[7, 3] for frame in frames]


def test_exposures_of_ccddata_are_in_its_header(frames):
    held = [CCDData(frame, unit="adu", meta={"EXPTIME": time}) for frame, time in zip(frames, (10, 20, 5), strict=True)]
    found = stack(held, options=StackOptions(rejection="none", weighting="exposure"))
    assert [frame.weight for frame in found.frames] == [(0.5,), (1.0,), (0.25,)]


def test_a_master_made_with_them_is_explained_and_made_again(frames, tmp_path):
    paths = write(tmp_path, frames)
    for number, given in enumerate(({"scales": SCALES}, {"offsets": OFFSETS}, {"scales": [1.0] * 3})):
        master = write_master(tmp_path / f"m{number}.fits", stack(paths, **given))
        assert replay_master(master).is_same
        assert explain_pixel(master, 3, 4)[0].is_same


def test_weights_of_noise_know_the_scales(frames):
    found = stack(frames, options=StackOptions(weighting="noise_variance"), scales=[1, 1, 3])
    assert found.frames[2].weight[0] < 0.2


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"scales": [1, 2]}, r"scales have shape \(2,\) and type int64; expected numbers of shape \(3,\) or \(3, 1\)"),
        ({"scales": [1, 2, 0]}, r"frame 2: scale is \[0.0\]; expected finite numbers, not 0"),
        ({"scales": [1, 1e300, 1]}, r"frame 1: scale is \[1e\+300\]; expected finite numbers"),
        ({"offsets": [0, np.nan, 0]}, r"frame 1: offset is \[nan\]; expected finite numbers"),
        ({"offsets": np.ma.masked_less([1, 2, 3], 2)}, "offsets are masked"),
        ({"offsets": [1, 2, 3] * u.adu}, "offsets have the unit adu; expected plain numbers"),
        ({"scales": lambda frame: frame}, r"scales of frame 0 are array.*; expected a number, or one per channel"),
        ({"scales": lambda _: np.ma.masked}, "scales of frame 0 are masked"),
        ({"scales": "FLUXCAL"}, "frame 0: scales by 'FLUXCAL', but no such card in its header; expected a number"),
        ({"scales": ["a", "b", "c"]}, "scales have shape"),
        ({"weights": lambda _: -1}, "weight of frame 0 is"),
    ],
)
def test_what_is_refused(frames, given, says):
    with pytest.raises(InvalidInputError, match=f"(?s){says}"):
        stack(frames, options=PLAIN, **given)


def test_a_card_that_is_no_number_is_refused(frames, tmp_path):
    paths = write(tmp_path, frames, GAINS=("1.5", "low", "2"))
    with pytest.raises(InvalidInputError, match=r"1\.fits: weights by 'GAINS', but it is 'low' there"):
        stack(paths, weights="GAINS")


def test_a_normalization_besides_is_refused(frames):
    for run in (stack, lambda *args, **more: stack_auto(*args, gpu=None, **more)):
        with pytest.raises(InvalidInputError, match="scales and offsets with normalization 'additive'; expected"):
            run(frames, options=StackOptions(normalization="additive"), scales=SCALES, offsets=OFFSETS)


def test_cards_at_the_command_line(frames, tmp_path, capsys):
    write(tmp_path, frames, EXPTIME=(10.0, 20.0, 30.0))
    command = ["stack", str(tmp_path), "-o", str(tmp_path / "m.fit"), "--align", "none", "--no-picture", "--weights"]
    assert main([*command, "card:EXPTIME"]) == 0
    assert [frame.weight for frame in read_master(tmp_path / "m.fit").result.frames] == [(10.0,), (20.0,), (30.0,)]
    assert main([*command, "card:NONE", "--overwrite"]) == 2
    assert "0.fits: weights by 'NONE', but no such card in its header; expected a number" in capsys.readouterr().err


class TestSection:
    """The part of the frames that is measured."""

    def test_levels_and_noise_are_those_of_the_section(self, frames):
        for index, frame in enumerate(frames):
            frame[:6] += 1000 * index  # a nebula, let's say
        text = "[1:15,7:12]"
        for section in (text, "[*,7:*]", np.s_[6:12, :], np.s_[6:, 0:15]):
            options = StackOptions(normalization="additive", weighting="noise_variance", statistics_section=section)
            found = stack(frames, options=options)
            alone = stack([frame[6:] for frame in frames], options=replace(options, statistics_section=None))
            for one, other in zip(found.frames, alone.frames, strict=True):
                assert (one.offset, one.weight, one.sky) == (other.offset, other.weight, other.sky)
            assert max(abs(frame.offset[0]) for frame in found.frames) < 20

    def test_it_is_in_the_masters_header(self, frames, tmp_path):
        options = StackOptions(normalization="additive", statistics_section=np.s_[2:8, 3:])
        assert options.statistics_section == "[4:*,3:8]"
        master = write_master(tmp_path / "m.fits", stack(write(tmp_path, frames), options=options))
        assert read_master(master).result.options == options
        assert replay_master(master).is_same

    @pytest.mark.parametrize(
        "section", ["", "[0:5,1:4]", "[5:4,1:2]", "1:2,3:4", "[1:2]", 7, np.s_[1:9:2, :], np.s_[:, 3]]
    )
    def test_what_is_none_is_refused(self, section):
        with pytest.raises(InvalidInputError, match=r"statistics_section is .*; expected '\[first:last,first:last\]'"):
            StackOptions(statistics_section=section)

    def test_outside_of_the_frames_is_refused(self, frames):
        options = StackOptions(normalization="additive", statistics_section="[1:16,1:12]")
        says = r"statistics_section is \[1:16,1:12\]; expected one within \[1:15,1:12\]"
        with pytest.raises(InvalidInputError, match=says):
            stack(frames, options=options)

    def test_at_the_command_line(self, frames, tmp_path, capsys):
        write(tmp_path, frames)
        command = ["stack", str(tmp_path), "-o", str(tmp_path / "m.fit"), "--align", "none", "--no-picture"]
        assert main([*command, "--normalization", "additive", "--statistics-section", "[4:*,3:8]"]) == 0
        assert read_master(tmp_path / "m.fit").result.options.statistics_section == "[4:*,3:8]"
        assert main([*command, "--overwrite", "--normalization", "none", "--statistics-section", "[4:*,3:8]"]) == 2
        assert "--statistics-section does nothing with" in capsys.readouterr().err
