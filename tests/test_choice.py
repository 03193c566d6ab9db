"""What the command line chooses where it is not told: the rule by the frames, the normalization by their levels."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from astropy.io import fits
from night import run, write_frame

from zemosaic_stack_core import StackOptions
from zemosaic_stack_core.command_line import main
from zemosaic_stack_core.frames.group import open_frames
from zemosaic_stack_core.per_frame.choice import AUTO_NAMES, Choice, choose_options, choose_rule
from zemosaic_stack_core.stacking.adviser import advise
from zemosaic_stack_core.synthetic.night import SyntheticNight

Image = npt.NDArray[np.float32]
SHAPE = (160, 200)
Y, X = np.mgrid[: SHAPE[0], : SHAPE[1]]


def sky_of_stars(count: int = 60) -> npt.NDArray[np.float64]:
    random = np.random.default_rng(5)
    image = np.zeros(SHAPE)
    for y, x, size in random.uniform((0, 0, 3), (160, 200, 4.5), (count, 3)):
        image += 10**size / 20 * np.exp(-((Y - y) ** 2 + (X - x) ** 2) / 6)
    return image


STARS = sky_of_stars()
# A nebula that fills a good part of the frame, as linear_fit needs it.
NEBULA = 900 * np.exp(-((Y - 80) ** 2 + (X - 90) ** 2) / 4000)


def make(
    levels: Sequence[float], fluxes: Sequence[float], scene: npt.NDArray[np.float64] = STARS, noise: float = 10.0
) -> list[Image]:
    random = np.random.default_rng(2)
    pairs = zip(levels, fluxes, strict=True)
    return [(level + flux * scene + random.normal(0, noise, SHAPE)).astype(np.float32) for level, flux in pairs]


def choose(frames: Sequence[Image], **options: object) -> Choice:
    return choose_options(open_frames(frames), StackOptions(**options), AUTO_NAMES)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("frames", "rule"),
    [
        (1, "none"),
        (2, "none"),
        (3, "mad_clip"),
        (4, "winsorized_sigma_clip"),
        (6, "winsorized_sigma_clip"),
        (8, "winsorized_sigma_clip"),
        (19, "winsorized_sigma_clip"),
        (20, "kappa_sigma"),
        (500, "kappa_sigma"),
    ],
)
def test_the_rule_is_that_of_the_number_of_frames(frames: int, rule: str) -> None:
    options, _ = choose_rule(StackOptions(grow_radius=2.0), frames)
    assert options.rejection == rule
    if frames > 3:  # what was chosen does its work: the adviser asks the kernel
        assert advise(frames, options).problem == ""


def test_one_frame_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_lights(tmp_path / "one", make([500], [1]))
    assert main(["stack", str(folder), "-o", str(tmp_path / "m.fits"), "--no-picture"]) == 0
    said = capsys.readouterr()
    assert "rejection none: 1 frame, too few to tell which sample is wrong\n" in said.err
    assert (said.err + said.out).count("too few") == 1


@pytest.mark.parametrize(("level", "rule"), [(700.0, "percentile_clip"), (0.0, "mad_clip"), (60000.0, "mad_clip")])
def test_three_frames_are_clipped_by_their_level_where_that_fits_their_noise(level: float, rule: str) -> None:
    assert choose(make([level] * 3, [1] * 3)).options.rejection == rule


@pytest.mark.parametrize("combine", ["min", "max"])
def test_extremes_are_not_rejected(combine: str) -> None:
    assert choose(make([500] * 6, [1] * 6), combine=combine).options.rejection == "none"


def test_many_frames_of_which_few_meet_at_a_pixel() -> None:
    frames = make([500] * 24, [1] * 24, noise=5)
    for index, frame in enumerate(frames):
        frame[:, (X[0] // 50) != index % 4] = np.nan
    choice = choose(frames)
    assert choice.options.rejection == "winsorized_sigma_clip"
    assert "6 samples or fewer" in choice.lines[0]


def dithered(frames: list[Image], step: int = 3) -> list[Image]:
    """Put a gradient under the frames, of which each lacks more at the left."""
    for index, frame in enumerate(frames):
        frame += 0.3 * X.astype(np.float32)
        frame[:, : step * index] = np.nan
    return frames


def with_trail(frames: list[Image]) -> list[Image]:
    frames[1][np.abs(Y - 0.3 * X - 30) < 6] += 400
    return frames


SIX = [1.0] * 6
CASES: dict[str, tuple[Callable[[], list[Image]], str]] = {
    "equal": (lambda: make([500] * 6, SIX), "none"),
    "equal under a gradient, dithered": (lambda: dithered(make([500] * 6, SIX)), "none"),
    "equal, with a trail": (lambda: with_trail(make([500] * 6, SIX)), "none"),
    "equal, background subtracted": (lambda: make([0] * 6, SIX), "none"),
    "a drifting sky": (lambda: make([500, 520, 560, 590, 610, 640], SIX), "additive"),
    "a drifting sky, dithered": (lambda: dithered(make([500, 520, 560, 590, 610, 640], SIX)), "additive"),
    "a drifting sky, with a trail": (lambda: with_trail(make([500, 520, 560, 590, 610, 640], SIX)), "additive"),
    "a drifting sky without stars": (lambda: make([500, 520, 560, 590, 610, 640], SIX, 0 * STARS), "additive"),
    "one frame under the moon": (lambda: make([500, 500, 500, 500, 500, 800], SIX), "additive"),
    "a drifting sky around zero": (lambda: make([-60, -20, 0, 20, 40, 60], SIX), "additive"),
    "exposures of three lengths": (
        lambda: make([100, 200, 300, 100, 200, 300], [0.5, 1, 1.5, 0.5, 1, 1.5]),
        "multiplicative",
    ),
    "clouds before a nebula": (
        lambda: make([500, 480, 450, 500, 520, 560], [1, 0.8, 0.5, 0.9, 0.6, 1], NEBULA + STARS),
        "linear_fit",
    ),
}


@pytest.mark.parametrize("unit", [1.0, 1e-5, 20.0])
@pytest.mark.parametrize("case", list(CASES))
def test_the_normalization_is_that_of_the_levels(case: str, unit: float) -> None:
    make_frames, expected = CASES[case]
    choice = choose([frame * np.float32(unit) for frame in make_frames()])
    assert choice.options.normalization == expected, choice.lines


def test_frames_that_share_nothing_are_left_alone() -> None:
    frames = make([500, 700, 500, 700], [1] * 4)
    for index, frame in enumerate(frames):
        frame[:, (X[0] // 50) != index] = np.nan
    choice = choose(frames)
    assert choice.options.normalization == "none"
    assert "too little in common" in choice.lines[1]


def test_numbers_at_the_end_of_float32_are_no_error() -> None:
    frames = make([500, 540, 580, 640], [1] * 4)
    frames[1][3:40, 5:60] = 3e38
    frames[2][3:40, 5:60] = -3e38
    assert choose(frames).options.normalization == "additive"


def test_noise_clip_wants_frames_as_they_are() -> None:
    options = StackOptions(rejection="noise_clip")
    choice = choose_options(open_frames(make([500, 600], [1, 1])), options, frozenset({"normalization"}))
    assert choice.options == options


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("dark", "none"),
        ("bias", "none"),
        ("Flat Dark", "none"),
        ("Flat Field", "multiplicative"),
        ("light", "additive"),
    ],
)
def test_calibration_frames_are_not_brought_to_one_level(tmp_path: Path, kind: str, expected: str) -> None:
    levels = [500, 540, 580, 640]
    folder = write_lights(tmp_path / "night" / "tile", make(levels, [1] * 4, 0 * STARS))
    for path in folder.iterdir():
        fits.setval(path, "IMAGETYP", value=kind)
        if kind != "light":
            path.rename(path.with_name(path.name.replace("light", "frame")))
    assert main(["stack", str(folder), "-o", str(tmp_path / "m.fits"), "--no-picture"]) == 0
    assert run(tmp_path / "night", tmp_path / "out") == 0
    for master in (tmp_path / "m.fits", tmp_path / "out" / "master_tile_001.fits"):
        header, image = fits.getheader(master), fits.getdata(master)
        assert header["ZSC_NORM"] == expected
        if expected == "none":
            assert np.median(image) == pytest.approx(np.mean(levels), abs=3)


def test_what_was_asked_for_is_not_touched() -> None:
    options = StackOptions(rejection="gesd", normalization="sky_mean", weighting="noise_variance")
    assert choose_options(open_frames(make([500, 600], [1, 1])), options, frozenset()) == Choice(options)


def write_lights(folder: Path, frames: Sequence[Image]) -> Path:
    folder.mkdir(parents=True)
    for index, frame in enumerate(frames):
        write_frame(folder / f"light_{index}.fits", frame)
    return folder


def test_a_hot_pixel_in_six_frames_goes(tmp_path: Path) -> None:
    frames = make([500] * 6, SIX, 0 * STARS)
    frames[2][80, 100] += 190  # 19 sigma
    write_lights(tmp_path / "six", frames)
    assert main(["stack", str(tmp_path / "six"), "-o", str(tmp_path / "m.fits"), "--no-picture"]) == 0
    assert abs(fits.getdata(tmp_path / "m.fits")[80, 100] - 500) < 15
    plain = ["--rejection", "kappa_sigma", "--overwrite", "--no-picture"]
    assert main(["stack", str(tmp_path / "six"), "-o", str(tmp_path / "m.fits"), *plain]) == 0
    assert fits.getdata(tmp_path / "m.fits")[80, 100] > 520


def test_programs_are_told_what_was_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_lights(tmp_path / "six", make([500, 520, 560, 590], [1] * 4))
    assert main(["stack", str(folder), "-o", str(tmp_path / "m.fits"), "--no-picture", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert [line.split(":")[0] for line in summary["chosen"]] == [
        "rejection winsorized_sigma_clip",
        "normalization additive",
    ]
    assert summary["options"]["normalization"] == "additive"


def test_what_is_not_looked_at_decides_nothing() -> None:
    frames = make([500] * 6, SIX)
    for index, frame in enumerate(frames):
        frame[:40] += 100 * index
    assert choose(frames, statistics_section=(slice(60, 160), slice(0, 200))).options.normalization == "none"
    assert choose(frames).options.normalization != "none"
    for index, frame in enumerate(frames):
        frame[:110] += 5000 * (index + 1)
    assert choose(frames, reject_above=4000.0).options.normalization == "none"
    assert choose(frames).options.normalization != "none"


def test_a_run_chooses_and_says_what_a_stack_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for tile, levels in (("a", [500, 520, 560, 590]), ("b", [500] * 4)):
        write_lights(tmp_path / "night" / tile, make(levels, [1] * 4))
    said = []
    for tile in ("a", "b"):
        assert (
            main(["stack", str(tmp_path / "night" / tile), "-o", str(tmp_path / f"{tile}.fits"), "--no-picture"]) == 0
        )
        said += [line for line in capsys.readouterr().err.splitlines() if line.startswith(("rejection", "normaliz"))]
    assert said[1].startswith("normalization additive: ")
    assert said[3].startswith("normalization none: ")
    assert run(tmp_path / "night", tmp_path / "out") == 0
    lines = capsys.readouterr().err.splitlines()
    advice = advise(4, StackOptions(rejection="winsorized_sigma_clip")).line
    assert [line.strip() for line in lines if line.startswith("  ")] == [said[0], said[1], advice, said[3]]
    for index, tile in enumerate(("a", "b"), start=1):
        image = fits.getdata(tmp_path / "out" / f"master_tile_00{index}.fits")
        np.testing.assert_array_equal(image, fits.getdata(tmp_path / f"{tile}.fits"))
    assert run(tmp_path / "night", tmp_path / "out") == 0
    assert "2 reused" in capsys.readouterr().err
    assert run(tmp_path / "night", tmp_path / "out", "--rejection", "kappa_sigma") == 0
    said = capsys.readouterr().err.splitlines()
    assert sum("advice: kappa_sigma 3/3 rejects nothing at all with 4 frames" in line for line in said) == 1


@pytest.mark.parametrize(
    ("good", "bad", "options", "code"),
    [
        (1, 2, (), 1),
        (2, 1, (), 0),
        (1, 0, (), 0),
        (1, 1, (), 1),
        (2, 4, (), 1),
        (3, 4, (), 0),
        (1, 2, ("--min-frames", "1"), 0),
        (3, 0, ("--min-frames", "4"), 1),
    ],
)
def test_what_is_left_of_a_tile_must_be_enough(
    tmp_path: Path, good: int, bad: int, options: tuple[str, ...], code: int
) -> None:
    folder = write_lights(tmp_path / "night" / "tile", make([500] * good, [1] * good))
    for index in range(bad):
        (folder / f"z{index}.fits").write_bytes(b"no")
    assert run(tmp_path / "night", tmp_path / "out", *options) == code


def test_a_stack_wants_enough_frames_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_lights(tmp_path / "six", make([500] * 3, [1] * 3))
    command = ["stack", str(folder), "-o", str(tmp_path / "m.fits"), "--no-picture", "--min-frames"]
    assert main([*command, "4"]) == 2
    assert "3 good of 3 frames; expected at least 4 (--min-frames)" in capsys.readouterr().err
    assert main([*command, "3"]) == 0


def test_the_demonstrations_own_frames_leave_no_trail_and_no_seam(tmp_path: Path) -> None:
    night = SyntheticNight(n_frames=12, shape=(200, 300), dither=12)
    night.write(tmp_path / "frames")
    assert main(["stack", str(tmp_path / "frames"), "-o", str(tmp_path / "m.fits"), "--no-picture"]) == 0
    image = fits.getdata(tmp_path / "m.fits").transpose(1, 2, 0)
    left = image - night.scene / 0.8
    left -= np.median(left, axis=(0, 1))
    for index in night.satellite_frames:
        trail = np.nan_to_num(night.frame(index) - night.frame((index + 1) % 12)).max(axis=2) > 400
        assert trail.sum() > 200
        assert np.abs(np.median(left[trail], axis=0)).max() < 12  # it is 500 in its frame
    inner = np.median(left[12:-12, 12:-12], axis=(0, 1))
    for border in (left[:12], left[-12:], left[:, :12], left[:, -12:]):
        assert np.abs(np.median(border, axis=(0, 1)) - inner).max() < 10
