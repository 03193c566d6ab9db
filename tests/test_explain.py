"""A master accounts for itself: `explain_pixel` and `replay_master` agree with it, and with the scalar reference."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import reference
from astropy.io import fits

from zemosaic_stack_core import StackOptions, stack
from zemosaic_stack_core.command_line import ExitCode, main
from zemosaic_stack_core.errors import FrameReadError, InvalidInputError
from zemosaic_stack_core.master.explain import HIGH, KEPT, LOW, MISSING, LastLook, explain_pixel
from zemosaic_stack_core.master.replay import replay_master
from zemosaic_stack_core.master.write import write_master
from zemosaic_stack_core.options import REJECTIONS

SHAPE = (4, 6)


def make_frames(folder: Path, n: int, *, color: bool = False, seed: int = 1) -> list[Path]:
    random = np.random.default_rng(seed)
    shape = (*SHAPE, 3) if color else SHAPE
    paths = []
    for index in range(n):
        frame = (1000 + 30 * random.standard_normal(shape) + 5 * index).astype(np.float32)
        frame[index % SHAPE[0], index % SHAPE[1]] += np.float32(random.choice([-1, 1]) * 2000)
        if index % 3 == 0:
            frame[:, 0] = np.nan
        paths.append(folder / f"f{index:02d}.npy")
        np.save(paths[-1], frame)
    return paths


def make_master(folder: Path, options: StackOptions, *, n: int = 12, color: bool = False) -> Path:
    paths = make_frames(folder, n, color=color)
    result = stack(paths, options=options, maps="all")
    return write_master(folder / "master.fits", result)


CASES = [
    *(StackOptions(rejection=rejection) for rejection in REJECTIONS),
    StackOptions(center="mean", kappa_low=1.5, kappa_high=1.2),
    StackOptions(kappa_low=1.0, kappa_high=1.0, max_iterations=2),
    StackOptions(normalization="linear_fit", weighting="noise_variance", kappa_high=1.5),
    StackOptions(normalization="additive_scaling", rejection="mad_clip", combine="median"),
    StackOptions(combine="max", rejection="minmax", n_high=2),
    StackOptions(radial_feather_fraction=0.9, radial_floor=0.2),
    StackOptions(kappa_low=None, kappa_high=1.2, max_iterations=None, combine="sum", reject_above=2000.0),
    StackOptions(combine="min", rejection="percentile_clip", p_low=0.02),
    StackOptions(kappa_high=1.5, grow_radius=1.5, grow_min_size=1, normalization="additive"),
    StackOptions(errors="detector", gain=0.7, weighting="inverse_variance", normalization="additive_scaling"),
]


@pytest.mark.slow
@pytest.mark.parametrize("options", CASES, ids=lambda options: f"{options.rejection}-{options.combine}")
def test_every_pixel_is_explained_to_the_last_bit(options: StackOptions, tmp_path: Path) -> None:
    master = make_master(tmp_path, options)
    result = stack(sorted(tmp_path.glob("*.npy")), options=options, maps="all")
    assert result.coverage is not None
    assert result.rejected_low is not None
    assert result.rejected_high is not None
    for row, column in ((0, 0), (1, 1), (2, 3), (3, 5)):
        (found,) = explain_pixel(master, row, column)
        assert found.is_same
        fates = [sample.fate for sample in found.samples]
        assert fates.count(KEPT) == result.coverage[row, column] == len(found.kept)
        assert fates.count(LOW) == result.rejected_low[row, column]
        assert fates.count(HIGH) == result.rejected_high[row, column]
        present = [sample for sample in found.samples if sample.fate != MISSING]
        assert [s.value for s in present] == sorted(s.value for s in present)
        if found.bounds is not None:
            low, high = found.bounds
            assert all((low <= s.value <= high) == (s.fate == KEPT or s.is_grown) for s in present)


@pytest.mark.slow
@pytest.mark.parametrize("rejection", REJECTIONS)
def test_every_rule_shows_what_it_kept_and_what_it_looked_at(rejection: str, tmp_path: Path) -> None:
    options = StackOptions(rejection=rejection, kappa_low=2.0, kappa_high=2.2)
    master = make_master(tmp_path, options)
    for row, column in np.ndindex(SHAPE):
        (found,) = explain_pixel(master, row, column)
        if rejection == "none":
            assert (found.bounds, found.last_look) == (None, None)
            continue
        present = [sample for sample in found.samples if sample.fate != MISSING]
        assert found.bounds is not None
        low, high = found.bounds
        assert all((low <= sample.value <= high) == (sample.fate == KEPT) for sample in present)
        assert found.last_look is not None
        assert len(found.kept) <= found.last_look.count <= len(present)


def test_what_the_last_iteration_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index, value in enumerate((1, 2, 3, 4, 5, 6, 7, 8, 9, 40)):
        np.save(tmp_path / f"f{index}.npy", np.full((2, 2), value, np.float32))
    options = StackOptions(kappa_low=3.0, kappa_high=2.0, max_iterations=1)
    master = write_master(tmp_path / "m.fits", stack(sorted(tmp_path.glob("*.npy")), options=options))
    (found,) = explain_pixel(master, 0, 0)
    values = np.array([1, 2, 3, 4, 5, 6, 7, 8, 9, 40.0])
    assert found.last_look == LastLook(count=10, median=5.5, deviation=float(values.std()))
    assert found.last_look.distance(40.0) == (40.0 - 5.5) / values.std()
    assert found.bounds == (1.0, 9.0)
    assert main(["explain", str(master), "0", "0"]) == ExitCode.DONE
    said = capsys.readouterr().out
    assert f"last iteration: 10 samples, median 5.5, standard deviation {values.std():.6g} (sigma)" in said
    assert f"{40:>12}  {40:>12}  {(40 - 5.5) / values.std():>+7.2f}  {1:>9}  rejected high\n" in said


@pytest.mark.parametrize("rejection", REJECTIONS)
def test_the_fates_are_the_reference_s(rejection: str, tmp_path: Path) -> None:
    options = StackOptions(rejection=rejection, kappa_low=1.7, kappa_high=1.4)
    master = make_master(tmp_path, options)
    cube = np.array([np.load(path) for path in sorted(tmp_path.glob("*.npy"))])
    row, column = 2, 3
    expected = reference.stack_pixel([float(v) for v in cube[:, row, column]], options=options)
    (found,) = explain_pixel(master, row, column)
    assert [s.frame for s in found.samples if s.fate == KEPT] == sorted(
        (frame for frame in range(len(cube)) if expected.kept[frame]), key=lambda frame: cube[frame, row, column]
    )
    assert all(sample.raw == sample.value == cube[sample.frame, row, column] for sample in found.samples)


def test_what_grew_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = StackOptions(kappa_high=1.5, grow_radius=1.0, grow_min_size=1)
    master = make_master(tmp_path, options)
    plain = stack(sorted(tmp_path.glob("*.npy")), options=StackOptions(kappa_high=1.5), maps="all")
    grown = stack(sorted(tmp_path.glob("*.npy")), options=options, maps="all")
    assert plain.coverage is not None
    assert grown.coverage is not None
    lost = plain.coverage - grown.coverage
    assert lost.max() > 0
    for row, column in np.ndindex(SHAPE):
        (channel,) = explain_pixel(master, row, column)
        taken = [sample for sample in channel.samples if sample.is_grown]
        assert len(taken) == lost[row, column]
        assert all(sample.fate in (LOW, HIGH) for sample in taken)
        assert channel.is_same
    row, column = (int(place) for place in np.unravel_index(np.argmax(lost), SHAPE))
    assert main(["explain", str(master), str(row), str(column)]) == ExitCode.DONE
    assert "(a cluster near by grew)" in capsys.readouterr().out


def test_iterations_are_counted(tmp_path: Path) -> None:
    # 10,000 hides 300: it goes first.
    values = [100.0, 101.0, 99.0, 100.5, 99.5, 100.2, 99.8, 100.1, 99.9, 100.3, 99.7, 300.0, 10000.0]
    paths = []
    for index, value in enumerate(values):
        paths.append(tmp_path / f"{index:02d}.npy")
        np.save(paths[-1], np.full((1, 1), value, np.float32))
    master = write_master(tmp_path / "m.fits", stack(paths, maps="all"))
    (found,) = explain_pixel(master, 0, 0)
    assert [(s.value, s.fate, s.iteration) for s in found.samples[-2:]] == [(300.0, HIGH, 2), (10000.0, HIGH, 1)]
    assert found.last_look is not None
    assert (found.last_look.count, found.last_look.median) == (11, 100.0)


def test_colors_are_explained_one_by_one(tmp_path: Path) -> None:
    master = make_master(tmp_path, StackOptions(), color=True)
    found = explain_pixel(master, 1, 4)
    assert [channel.channel for channel in found] == [0, 1, 2]
    assert all(channel.is_same for channel in found)
    assert len({channel.value for channel in found}) == 3


def test_a_pixel_without_a_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.full((2, 2), np.nan, np.float32))
    master = write_master(tmp_path / "m.fits", stack([path, path], maps="all"))
    (found,) = explain_pixel(master, 0, 1)
    assert found.kept == ()
    assert found.is_same
    assert main(["explain", str(master), "0", "1"]) == ExitCode.DONE
    assert "no sample, so there is no value (NaN)" in capsys.readouterr().out


def test_the_command_explains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = StackOptions(normalization="additive", weighting="noise_variance", kappa_high=1.5)
    master = make_master(tmp_path, options)
    assert main(["explain", str(master), "2", "3"]) == ExitCode.DONE
    said = capsys.readouterr().out
    for words in ("row 2, column 3: kappa_sigma 3/1.5, mean", "rejected high (iteration", "last iteration: 1", "kept:"):
        assert words in said
    assert "sum of weight times value" in said
    assert "the same bits" in said
    assert main(["explain", str(master), "2", "3", "--json"]) == ExitCode.DONE
    (channel,) = json.loads(capsys.readouterr().out)["channels"]
    assert channel["is_same"] is True
    assert len(channel["samples"]) == 12


@pytest.mark.parametrize(("row", "column"), [(4, 0), (0, 6), (-1, 0)])
def test_a_pixel_outside(row: int, column: int, tmp_path: Path) -> None:
    master = make_master(tmp_path, StackOptions(), n=3)
    with pytest.raises(InvalidInputError, match="expected a row of 0 to 3 and a column of 0 to 5"):
        explain_pixel(master, row, column)


@pytest.mark.parametrize("options", CASES[-9:], ids=lambda options: f"{options.rejection}-{options.combine}")
@pytest.mark.parametrize("color", [False, True], ids=["mono", "color"])
def test_a_replay_gives_the_same_bits(options: StackOptions, color: bool, tmp_path: Path) -> None:
    replay = replay_master(make_master(tmp_path, options, color=color))
    assert replay.is_same, replay.differences
    assert replay.compared[:3] == ("image", "coverage", "weight_map")


def change_one_value(path: Path, extension: int, value: float) -> None:
    from astropy.io import fits

    with fits.open(path, mode="update") as hdus:
        hdus[extension].data[0, 3] = value


def test_a_replay_finds_one_changed_bit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from astropy.io import fits

    master = make_master(tmp_path, StackOptions())
    with fits.open(master) as hdus:
        value = hdus[0].data[0, 3]
    change_one_value(master, 0, float(np.nextafter(value, np.float32(np.inf), dtype=np.float32)))
    assert main(["replay", str(master)]) == ExitCode.FAILED
    said = capsys.readouterr().out
    assert "DIFFERENT" in said
    assert "image: 1 of 24 values differ" in said
    assert main(["explain", str(master), "0", "3"]) == ExitCode.FAILED
    assert "NOT the same bits" in capsys.readouterr().out


def test_a_replay_finds_frames_that_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    master = make_master(tmp_path, StackOptions(), n=5)
    frame = tmp_path / "f02.npy"
    cube: npt.NDArray[np.float32] = np.load(frame)
    np.save(frame, cube + np.float32(1))
    assert main(["replay", str(master), "--json"]) == ExitCode.FAILED
    found = json.loads(capsys.readouterr().out)
    assert found["is_same"] is False
    assert found["is_verified"] is False
    assert found["differences"][0].startswith("image: ")
    assert main(["replay", str(master)]) == ExitCode.FAILED
    assert "a frame may have changed and kept its size" in capsys.readouterr().out


class TestFramesFoundAgain:
    def test_beside_the_master_where_both_were_moved(self, tmp_path: Path) -> None:
        (tmp_path / "old").mkdir()
        make_master(tmp_path / "old", StackOptions(), n=4)
        shutil.move(tmp_path / "old", tmp_path / "new")
        assert replay_master(tmp_path / "new" / "master.fits").is_same

    def test_gone(self, tmp_path: Path) -> None:
        master = make_master(tmp_path, StackOptions(), n=4)
        (tmp_path / "f01.npy").unlink()
        with pytest.raises(FrameReadError, match=r"f01\.npy: the file is gone"):
            replay_master(master)

    def test_of_another_size(self, tmp_path: Path) -> None:
        master = make_master(tmp_path, StackOptions(), n=4)
        np.save(tmp_path / "f01.npy", np.zeros(SHAPE))
        with pytest.raises(FrameReadError, match=r"f01\.npy: 320 bytes; expected 224, as when"):
            replay_master(master)

    def test_of_another_content(self, tmp_path: Path) -> None:
        paths = make_frames(tmp_path, 4)
        given = ["--sha256", "--no-picture", "--backend", "cpu"]
        master = tmp_path / "m.fits"
        assert main(["stack", *map(str, paths), "-o", str(master), *given]) == ExitCode.DONE
        assert replay_master(master).is_same
        assert replay_master(master).is_verified
        np.save(paths[2], np.zeros(SHAPE, np.float32))
        with pytest.raises(FrameReadError, match=r"f02\.npy: SHA-256 [0-9a-f]{64}; expected [0-9a-f]{64}, as when"):
            replay_master(master)

    def test_never_were_files(self, tmp_path: Path) -> None:
        frames = [np.full(SHAPE, value, np.float32) for value in (1, 2, 3)]
        master = write_master(tmp_path / "m.fits", stack(frames))
        with pytest.raises(InvalidInputError, match="was an array, not a file"):
            replay_master(master)

    def test_of_another_shape(self, tmp_path: Path) -> None:
        master = make_master(tmp_path, StackOptions(), n=3)
        for path in tmp_path.glob("*.npy"):
            np.save(path, np.zeros(SHAPE[::-1], np.float32))
        with pytest.raises(FrameReadError, match=r"a frame of shape \(6, 4\); expected \(4, 6\)"):
            replay_master(master)


def test_of_another_version_of_the_definition(tmp_path: Path) -> None:
    master = make_master(tmp_path, StackOptions(), n=3)
    fits.setval(master, "ZSC_ALGO", value="0")
    with pytest.raises(InvalidInputError, match=r"m.*\.fits: made with version 0 of the numeric definition"):
        replay_master(master)


def test_not_a_master(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.fits").write_text("no", encoding="utf-8")
    assert main(["replay", str(tmp_path / "x.fits")]) == ExitCode.BAD_INPUT
    assert main(["explain", str(tmp_path / "gone.fits"), "0", "0"]) == ExitCode.BAD_INPUT
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert "expected a master tile" in said[0]
