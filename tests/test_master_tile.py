import shutil
import subprocess
import sys
import warnings
from dataclasses import fields, replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from zemosaic_stack_core.errors import FrameReadError, InvalidInputError, OutputError
from zemosaic_stack_core.fits.observing import ObservingFacts
from zemosaic_stack_core.fits.stream import find_damage, is_intact
from zemosaic_stack_core.frames.heads import read_head
from zemosaic_stack_core.master.frames_table import table_header
from zemosaic_stack_core.master.option_cards import ALGORITHM
from zemosaic_stack_core.master.read import read_master, read_signature
from zemosaic_stack_core.master.tile import MasterExtras, TileFacts
from zemosaic_stack_core.master.write import write_master
from zemosaic_stack_core.options import StackOptions
from zemosaic_stack_core.stacking.result import FrameRecord, StackResult

REAL = Path(__file__).parent.parent.parent / "shared" / "data"
SHAPES = {"mono": (7, 11), "color": (7, 11, 3)}
SIP = {
    **{
        "CTYPE1": "RA---TAN-SIP",
        "CTYPE2": "DEC--TAN-SIP",
        "CRVAL1": 202.4,
        "CRVAL2": 47.1,
        "CRPIX1": 5.5,
        "CRPIX2": 3.5,
    },
    **{"CD1_1": -6e-4, "CD1_2": 1e-5, "CD2_1": 2e-5, "CD2_2": 6e-4},
    **{"A_ORDER": 2, "B_ORDER": 2, "A_2_0": 1e-4, "B_0_2": -2e-4, "A_1_1": 3e-5},
}


def make_result(shape=(7, 11), count=3, *, paths=None, options=None, reference=None, **changes):
    """A stack as the runner would give it, with numbers that are all different."""
    random = np.random.default_rng(5)
    channels = 1 if len(shape) == 2 else shape[2]
    image = random.normal(100, 5, shape).astype(np.float32)
    coverage = random.integers(1, count + 1, shape).astype(np.int32)
    image[0], coverage[0] = np.nan, 0
    frames = tuple(
        FrameRecord(
            name=f"frame {i}" if paths is None else str(paths[i]),
            path=None if paths is None else paths[i],
            weight=tuple(float(np.float32(0.1 * i + c + 0.3)) for c in range(channels)),
            scale=tuple(float(np.float32(1.1 + i)) for _ in range(channels)),
            offset=tuple(float(np.float32(-0.7 * i)) for _ in range(channels)),
            rejected_low=tuple(i + c for c in range(channels)),
            rejected_high=tuple(2 * i + c for c in range(channels)),
            missing=tuple(10 + i for _ in range(channels)),
            sky=(100.1,) * channels,
            noise=None if i == 1 else (1 / 3,) * channels,
            note="not normalized: 50 % of é is μ " if i == 1 else "",
            observing=None if paths is None else read_head(paths[i]).observing,
        )
        for i in range(count)
    )
    result = StackResult(
        image=image,
        coverage=coverage,
        weight_map=random.random(shape).astype(np.float32),
        rejected_low=random.integers(0, 3, shape).astype(np.int32),
        rejected_high=random.integers(0, 3, shape).astype(np.int32),
        variance=np.where(coverage < 2, np.nan, random.random(shape)).astype(np.float32),
        frames=frames,
        backend="numpy",
        options=options or StackOptions(),
        reference=reference,
    )
    return replace(result, **changes)


def make_frames(folder, count=3, shape=(7, 11), **cards):
    header = fits.Header()
    for keyword, value in {"EXPTIME": 10.0, "OBJECT": "M 51", **SIP, **cards}.items():
        header[keyword.replace("__", "-")] = value
    paths = []
    for index in range(count):
        header["DATE-OBS"] = f"2026-03-14T21:30:{10 * index:02d}"
        paths.append(folder / f"light {index}.fits")
        fits.writeto(paths[-1], np.zeros(shape, np.float32), header)
    return paths


def wcs_of(path, extension=0):
    """The celestial WCS: a third axis of planes is not for astropy, which takes SIP and TPV in two dimensions only."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # datfix and its like, on the frames' own headers
        return WCS(fits.getheader(path, extension), naxis=2)


def assert_valid(path):
    """The file follows the FITS standard, as far as astropy (and fitsverify, where it is installed) can tell."""
    with fits.open(path, checksum=True) as hdus:
        hdus.verify("exception")
    if program := shutil.which("fitsverify"):
        done = subprocess.run([program, "-H", str(path)], capture_output=True, text=True, check=False)
        assert "0 warning(s) and 0 error(s)" in done.stdout, done.stdout


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_everything_comes_back(tmp_path, shape):
    result = make_result(shape, options=StackOptions(rejection="minmax", n_low=0))
    path = write_master(tmp_path / "master.fits", result, MasterExtras(tile=TileFacts(tile_id=4, raw_frames=5)))
    assert_valid(path)
    assert is_intact(path)
    tile = read_master(path)
    for field in ("image", "coverage", "weight_map", "rejected_low", "rejected_high", "variance"):
        written, read = getattr(result, field), getattr(tile.result, field)
        assert read.dtype == written.dtype, field
        assert np.array_equal(read, written, equal_nan=True), field
        assert read.dtype.isnative
    assert tile.result.frames == result.frames
    assert tile.result.options == result.options
    assert (tile.result.backend, tile.result.reference) == ("numpy", None)
    assert [row.record.name for row in tile.rows] == ["frame 0", "frame 1", "frame 2"]


def test_planes_come_first_in_the_file(tmp_path):
    result = make_result((7, 11, 3))
    write_master(tmp_path / "a.fits", result)
    stored = fits.getdata(tmp_path / "a.fits")
    assert stored.dtype == np.dtype(">f4")
    assert np.array_equal(stored, np.moveaxis(result.image, 2, 0), equal_nan=True)


def test_only_the_maps_there_are_get_written(tmp_path):
    result = make_result(weight_map=None, rejected_low=None, rejected_high=None, variance=None)
    write_master(tmp_path / "a.fits", result)
    with fits.open(tmp_path / "a.fits") as hdus:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "COVERAGE", "FRAMES"]
        assert hdus[0].header["ZSC_NHDU"] == 3
    assert read_master(tmp_path / "a.fits").result.variance is None


@pytest.mark.parametrize(("count", "bitpix"), [(255, 8), (256, 16), (32768, 32)])
def test_counts_are_stored_in_the_smallest_type_that_holds_them(tmp_path, count, bitpix):
    result = make_result(count=2)
    result.coverage[1, 1] = count
    many = replace(result, frames=result.frames[:1] * count)
    write_master(tmp_path / "a.fits", many)
    assert fits.getheader(tmp_path / "a.fits", "COVERAGE")["BITPIX"] == bitpix
    assert np.array_equal(read_master(tmp_path / "a.fits").result.coverage, many.coverage)


OTHER_OPTIONS = {
    "rejection": "gesd",
    "kappa_low": 0.1 + 0.2,
    "kappa_high": 1.2345678901234567e-05,
    "max_iterations": 9,
    "center": "mean",
    "p_low": 0.3,
    "p_high": 1 / 3,
    "n_low": 4,
    "n_high": 0,
    "winsor_limits": (0.1, 1 / 7),
    "gain": 1e-300,
    "read_noise": 7.5,
    "sensitivity": 0.01,
    "outlier_fraction": 0.2,
    "alpha": 0.01,
    "combine": "median",
    "normalization": "linear_fit",
    "reference": 2,
    "on_unnormalizable": "exclude",
    "weighting": "noise_fwhm",
    "grow_radius": 2.5,
    "grow_min_size": 1,
    "reject_below": -0.1,
    "statistics_section": "[3:*,1:40]",
    "reject_above": 60000.0,
    "errors": "detector",
    "radial_feather_fraction": 1.2345678901234567e-05,
    "radial_shape_power": 1 / 3,
    "radial_floor": 0.25,
}


@pytest.mark.parametrize("name", [field.name for field in fields(StackOptions)])
def test_every_option_comes_back_equal(tmp_path, name):
    changed = {name: OTHER_OPTIONS[name]}
    options = StackOptions(**changed)
    assert options != StackOptions()
    write_master(tmp_path / "a.fits", make_result(options=options))
    assert read_master(tmp_path / "a.fits").result.options == options


def test_every_option_has_a_card_of_eight_characters(tmp_path):
    write_master(tmp_path / "a.fits", make_result())
    header = fits.getheader(tmp_path / "a.fits")
    own = [keyword for keyword in header if keyword.startswith("ZSC")]
    assert all(len(keyword) <= 8 for keyword in own)
    assert len(own) == len(fields(StackOptions)) + 5
    assert header["ZSC_ALGO"] == ALGORITHM


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_wcs_survives_with_its_distortion(tmp_path, shape):
    paths = make_frames(tmp_path)
    write_master(
        tmp_path / "a.fits", make_result(shape, paths=paths), MasterExtras(tile=TileFacts(tile_id=1, raw_frames=3))
    )
    pixels = np.array([[0.0, 0.0], [10.0, 6.0], [3.3, 2.2]])
    expected = wcs_of(paths[0]).all_pix2world(pixels, 0)
    for extension in (0, "ALPHA", "COVERAGE", "VARIANCE"):
        found = wcs_of(tmp_path / "a.fits", extension).all_pix2world(pixels, 0)
        assert np.array_equal(found, expected), extension


@pytest.mark.parametrize(
    ("given", "added"),
    [
        ({"PC1_1": -6e-4, "PC2_2": 6e-4}, {"PC1_2": 0.0, "PC2_1": 0.0, "CDELT1": 1.0, "CDELT2": 1.0}),
        ({"CDELT1": -6e-4, "CDELT2": 6e-4}, {"PC1_1": 1.0, "PC1_2": 0.0, "PC2_1": 0.0, "PC2_2": 1.0}),
        ({"CD1_1": -6e-4, "CD2_2": 6e-4}, {"CD1_2": 0.0, "CD2_1": 0.0}),
        ({"CDELT1": -6e-4, "CDELT2": 6e-4, "CROTA2": 30.0}, {}),
        ({"CD1_1": -6e-4, "CD1_2": 1e-5, "CD2_1": 0.0, "CD2_2": 6e-4, "CROTA2": 1.0}, {}),
    ],
    ids=["PC", "CDELT", "CD", "CROTA", "whole"],
)
def test_all_four_cards_of_the_matrix_are_there(tmp_path, given, added):
    """ZeMosaic takes a tile only with all of CD, or all of PC and CDELT; what is absent has the standard's value."""
    matrix = ("CD1", "CD2", "PC1", "PC2", "CDELT", "CROTA")
    path = make_frames(tmp_path, 1)[0]
    with fits.open(path, mode="update") as hdus:
        header = hdus[0].header
        for keyword in [keyword for keyword in header if keyword.startswith(matrix)]:
            del header[keyword]
        header.update(given)
    before = wcs_of(path).all_pix2world([[3.0, 4.0]], 0)
    write_master(tmp_path / "a.fits", make_result(count=1, paths=[path]))
    header = fits.getheader(tmp_path / "a.fits")
    assert {keyword: header[keyword] for keyword in header if keyword.startswith(matrix)} == given | added
    np.testing.assert_array_equal(wcs_of(tmp_path / "a.fits").all_pix2world([[3.0, 4.0]], 0), before)
    assert_valid(tmp_path / "a.fits")


def test_a_color_tile_is_not_debayered_again(tmp_path):
    paths = make_frames(tmp_path, shape=(3, 7, 11), BAYERPAT="GRBG", ROWORDER="TOP-DOWN")
    write_master(tmp_path / "a.fits", make_result((7, 11, 3), paths=paths))
    header = fits.getheader(tmp_path / "a.fits")
    assert "BAYERPAT" not in header
    assert header["ROWORDER"] == "TOP-DOWN"
    assert wcs_of(tmp_path / "a.fits").wcs.crval.tolist() == [202.4, 47.1]


def test_structural_and_stale_cards_stay_behind(tmp_path):
    paths = make_frames(
        tmp_path,
        DATAMIN=1.0,
        DATAMAX=2.0,
        MJD__OBS=59000.5,
        EXTNAME="LIGHT",
        TOTALEXP=10.0,
        CTYPE3="FREQ",
        ZSC_KLO=1.0,
        FILTER="L",
    )
    with fits.open(paths[0], mode="update") as hdus:
        hdus[0].header["HISTORY"] = "dark subtracted"
        hdus[0].add_checksum()
    write_master(tmp_path / "a.fits", make_result(paths=paths))
    header = fits.getheader(tmp_path / "a.fits")
    for keyword in ("DATAMIN", "DATAMAX", "MJD-OBS", "EXTNAME", "TOTALEXP", "CTYPE3", "BZERO", "BSCALE"):
        assert keyword not in header, keyword
    assert (header["FILTER"], header["OBJECT"], header["ZSC_KLO"]) == ("L", "M 51", 3.0)
    assert list(header["HISTORY"]) == ["dark subtracted"]
    assert_valid(tmp_path / "a.fits")


def test_an_integer_reference_leaves_no_scaling_behind(tmp_path):
    fits.writeto(tmp_path / "r.fits", np.zeros((7, 11), np.uint16))
    write_master(tmp_path / "a.fits", make_result(), MasterExtras(reference=tmp_path / "r.fits"))
    assert not {"BZERO", "BSCALE", "BLANK"} & set(fits.getheader(tmp_path / "a.fits"))


def test_broken_cards_are_left_out_and_counted(tmp_path):
    path = make_frames(tmp_path, 1, KEEP1="x", BROKEN1="AAAAAAAA", KEEP2=2)[0]
    content = path.read_bytes()
    card = content.index(b"BROKEN1")
    replacements = [
        b"BROKEN1 = 'never closed",
        b"BROKEN1 = 12..5e/",
        b"BROKEN1\xe9= 5",
        b"=== BROKEN1 ===",
        b"broken1 = 5 x",
        b"DATE-LST= '12/31/2026'",
    ]
    for broken in replacements:
        path.write_bytes(content[:card] + broken.ljust(80) + content[card + 80 :])
        write_master(tmp_path / "a.fits", make_result(count=1, paths=[path]), overwrite=True)
        header = fits.getheader(tmp_path / "a.fits")
        assert (header["KEEP1"], header["KEEP2"]) == ("x", 2)
        assert [keyword for keyword in header if keyword.startswith(("BROKEN", "B?", "DATE-LST"))] == []
        assert header["ZSC_SKIP"] == 1
        assert_valid(tmp_path / "a.fits")


def test_the_wcs_axes_card_is_put_before_the_others(tmp_path):
    path = make_frames(tmp_path, 1)[0]
    with fits.open(path, mode="update") as hdus:
        hdus[0].header["WCSAXES"] = 2
    write_master(tmp_path / "a.fits", make_result(count=1, paths=[path]))
    keywords = list(fits.getheader(tmp_path / "a.fits"))
    assert keywords.index("WCSAXES") < keywords.index("CTYPE1")
    assert_valid(tmp_path / "a.fits")


def test_the_reference_is_the_one_asked_for_else_the_stack_s_own_else_the_first(tmp_path):
    paths = make_frames(tmp_path)
    for index, path in enumerate(paths):
        fits.setval(path, "RADESYS", value=f"ICRS {index}")
    for arguments, result, expected in (
        ({"reference": paths[2]}, make_result(paths=paths, reference=1), "ICRS 2"),
        ({"reference": fits.Header({"RADESYS": "header"})}, make_result(paths=paths), "header"),
        ({}, make_result(paths=paths, reference=1), "ICRS 1"),
        ({}, make_result(paths=paths), "ICRS 0"),
        ({"reference": fits.Header()}, make_result(paths=paths), None),
        ({}, make_result(), None),
    ):
        write_master(tmp_path / "a.fits", result, MasterExtras(**arguments), overwrite=True)
        assert fits.getheader(tmp_path / "a.fits").get("RADESYS") == expected


def test_a_frame_without_a_readable_header_costs_the_cards_and_not_the_stack(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((7, 11)))
    (tmp_path / "b.fits").write_bytes(b"no FITS")
    for name in ("a.npy", "b.fits"):
        write_master(tmp_path / "o.fits", make_result(count=1, paths=[tmp_path / name]), overwrite=True)
        assert "OBJECT" not in fits.getheader(tmp_path / "o.fits")
    with pytest.raises(FrameReadError, match=r"b\.fits: .*expected a FITS header to take the observing cards from"):
        write_master(tmp_path / "o.fits", make_result(), MasterExtras(reference=tmp_path / "b.fits"), overwrite=True)


def test_an_image_in_an_extension_gives_its_cards_and_the_primary_s(tmp_path):
    primary = fits.PrimaryHDU()
    primary.header["FILTER"] = "L"
    hdus = fits.HDUList([primary, fits.CompImageHDU(np.zeros((7, 11), np.float32), fits.Header(SIP), name="SCI")])
    hdus.writeto(tmp_path / "r.fits.fz")
    write_master(tmp_path / "a.fits", make_result(), MasterExtras(reference=tmp_path / "r.fits.fz"))
    header = fits.getheader(tmp_path / "a.fits")
    assert (header["FILTER"], header["CRVAL1"]) == ("L", 202.4)
    assert "ZIMAGE" not in header
    assert_valid(tmp_path / "a.fits")


def test_exposure_and_dates_are_of_the_frames_that_are_in_the_image(tmp_path):
    result = make_result(count=4, paths=make_frames(tmp_path, 4, EXPOSURE=10.0))
    frames = list(result.frames)
    frames[3] = replace(frames[3], missing=(result.image.size,), rejected_low=(0,), rejected_high=(0,))
    write_master(tmp_path / "a.fits", replace(result, frames=tuple(frames)))
    header = fits.getheader(tmp_path / "a.fits")
    assert (header["NCOMBINE"], header["EXPTIME"], header["EXPTOTAL"], header["EXPOSURE"]) == (3, 10.0, 30.0, 10.0)
    assert header["DATE-OBS"] == "2026-03-14T21:30:00"
    assert header["DATE-END"] == "2026-03-14T21:30:30"
    assert header["DATE-AVG"] == "2026-03-14T21:30:15"


def observed(*facts):
    """A stack of frames of which these facts are known."""
    result = make_result()
    frames = [replace(frame, observing=one) for frame, one in zip(result.frames, facts, strict=True)]
    return replace(result, frames=tuple(frames))


def test_dates_and_times_that_nobody_knows_are_left_out(tmp_path):
    write_master(tmp_path / "a.fits", observed(None, ObservingFacts(), ObservingFacts(exposure=2.0)))
    header = fits.getheader(tmp_path / "a.fits")
    assert header["EXPTOTAL"] == 2.0
    assert not [keyword for keyword in header if keyword.startswith("DATE")]


def test_unequal_exposures_give_their_mean_and_sum(tmp_path):
    first = ObservingFacts(exposure=10.0, start=datetime(2026, 1, 1, 0, 0, 0, 250000))
    write_master(tmp_path / "a.fits", observed(first, None, ObservingFacts(exposure=30.0)))
    header = fits.getheader(tmp_path / "a.fits")
    # By their weights, 0.3 and 0.5.
    assert (header["EXPTIME"], header["EXPTOTAL"], header["DATE-OBS"]) == (22.5, 40.0, "2026-01-01T00:00:00.250")


def test_the_frames_table_has_files_and_percentages(tmp_path):
    paths = make_frames(tmp_path)
    odd = tmp_path / "räw 100%25 ☆.fits"
    paths[1].rename(odd)
    paths[1] = odd
    result = make_result(paths=paths)
    write_master(tmp_path / "a.fits", result, MasterExtras(sha256=["ab" * 32, None, "cd" * 32]))
    table = fits.getdata(tmp_path / "a.fits", "FRAMES")
    assert table["REJHIPCT"][2] == np.float32(100 * 4 / (77 - 12))
    assert table["SIZE"].tolist() == [path.stat().st_size for path in paths]
    rows = read_master(tmp_path / "a.fits").rows
    assert [row.record.path for row in rows] == paths
    assert [row.sha256 for row in rows] == ["ab" * 32, "", "cd" * 32]
    assert [row.record.observing.exposure for row in rows] == [10.0] * 3
    assert rows[2].record.observing.start == datetime(2026, 3, 14, 21, 30, 20)
    assert_valid(tmp_path / "a.fits")


def test_frames_are_found_again_when_the_folder_moves(tmp_path):
    (tmp_path / "old" / "lights").mkdir(parents=True)
    write_master(tmp_path / "old" / "a.fits", make_result(paths=make_frames(tmp_path / "old" / "lights")))
    (tmp_path / "old").rename(tmp_path / "new")
    tile = read_master(tmp_path / "new" / "a.fits")
    assert tile.rows[0].record.path == tmp_path / "new" / "lights" / "light 0.fits"
    shutil.rmtree(tmp_path / "new" / "lights")
    assert read_master(tmp_path / "new" / "a.fits").rows[0].record.path is None


def test_as_many_hashes_as_frames(tmp_path):
    with pytest.raises(InvalidInputError, match="sha256 has 2 entries; expected one for each of 3 frames"):
        write_master(tmp_path / "a.fits", make_result(), MasterExtras(sha256=[None, None]))


def test_alpha_is_zero_where_a_channel_has_nothing(tmp_path):
    result = make_result((7, 11, 3))
    result.image[3, 4, 1] = np.nan
    write_master(tmp_path / "a.fits", result, MasterExtras(tile=TileFacts(tile_id=1, raw_frames=3)))
    expected = np.full((7, 11), 255, np.uint8)
    expected[0] = 0
    expected[3, 4] = 0
    tile = read_master(tmp_path / "a.fits")
    assert tile.header["ALPHAEXT"] == "ALPHA"
    assert tile.alpha.dtype == np.uint8
    assert np.array_equal(tile.alpha, expected)


def test_the_caller_s_alpha_is_used(tmp_path):
    alpha = np.arange(77, dtype=np.uint8).reshape(7, 11)
    write_master(tmp_path / "a.fits", make_result(), MasterExtras(alpha=alpha))
    assert np.array_equal(read_master(tmp_path / "a.fits").alpha, alpha)
    with pytest.raises(InvalidInputError, match=r"alpha has shape \(6, 11\); expected \(7, 11\)"):
        write_master(tmp_path / "b.fits", make_result(), MasterExtras(alpha=alpha[1:]))


def test_a_plain_stack_has_no_alpha_and_no_tile_cards(tmp_path):
    write_master(tmp_path / "a.fits", make_result())
    header = fits.getheader(tmp_path / "a.fits")
    assert not [keyword for keyword in header if keyword.startswith(("ZMT", "MT_", "ALPHA"))]
    assert read_master(tmp_path / "a.fits").alpha is None


@pytest.mark.parametrize(
    ("options", "present"),
    [
        (StackOptions(kappa_low=2.0, kappa_high=4.0), {"ZMT_KAPLO": 2.0, "ZMT_KAPHI": 4.0}),
        (StackOptions(rejection="winsorized_quantile", winsor_limits=(0.1, 0.2)), {"ZMT_WINLO": 0.1, "ZMT_WINHI": 0.2}),
        (StackOptions(radial_feather_fraction=0.8), {"ZMT_RADW": True, "ZMT_RADF": 0.8, "ZMT_RADP": 2.0}),
        (StackOptions(rejection="none", combine="median"), {"ZMT_REJ": "none", "ZMT_COMB": "median"}),
    ],
)
def test_a_tile_s_cards_say_what_acted(tmp_path, options, present):
    tile = TileFacts(tile_id=17, raw_frames=9, aligned_frames=5)
    write_master(tmp_path / "a.fits", make_result(options=options), MasterExtras(tile=tile))
    header = fits.getheader(tmp_path / "a.fits")
    assert {keyword: header[keyword] for keyword in present} == present
    assert ("ZMT_RADW" in header) == (options.radial_feather_fraction is not None)
    assert ("ZMT_KAPLO" in header) == (options.rejection != "none")
    counts = [header[keyword] for keyword in ("ZMT_ID", "ZMT_NRAW", "ZMT_NALGN", "MT_NFRAMES")]
    assert counts == [17, 9, 5, 3]
    assert header["ZMT_NORM"] == header["ZMT_WGHT"] == "none"


def test_the_same_result_gives_the_same_bytes(tmp_path):
    paths = make_frames(tmp_path)
    for name in ("a.fits", "b.fits"):
        write_master(tmp_path / name, make_result(paths=paths))
    assert (tmp_path / "a.fits").read_bytes() == (tmp_path / "b.fits").read_bytes()


def test_inputs_are_not_written_to(tmp_path):
    result = make_result((7, 11, 3))
    for field in ("image", "coverage", "weight_map", "rejected_low", "rejected_high", "variance"):
        getattr(result, field).flags.writeable = False
    header = fits.Header({"OBJECT": "M 51", "WCSAXES": 3})
    write_master(tmp_path / "a.fits", result, MasterExtras(reference=header, tile=TileFacts(tile_id="a", raw_frames=3)))
    assert dict(header) == {"OBJECT": "M 51", "WCSAXES": 3}


def test_a_flipped_byte_anywhere_is_found(tmp_path):
    path = write_master(tmp_path / "a.fits", make_result())
    whole = path.read_bytes()
    for position in range(40, len(whole), 2880):
        broken = bytearray(whole)
        broken[position] ^= 1
        path.write_bytes(broken)
        assert find_damage(path) is not None, position
    path.write_bytes(whole[: -2 * 2880])
    assert not is_intact(path)


def test_an_existing_file_is_refused_before_anything_is_read(tmp_path):
    path = tmp_path / "a.fits"
    path.write_bytes(b"old")
    with pytest.raises(InvalidInputError, match="the file exists"):
        write_master(path, make_result(), MasterExtras(reference=tmp_path / "absent.fits"))
    assert path.read_bytes() == b"old"
    write_master(path, make_result(), overwrite=True)
    assert is_intact(path)


def test_a_failure_in_the_middle_leaves_the_old_file(tmp_path, monkeypatch):
    path = write_master(tmp_path / "a.fits", make_result())
    whole = path.read_bytes()

    def fail(file, header, _bands):
        if header.get("EXTNAME") == "ALPHA":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("zemosaic_stack_core.master.write.write_hdu", fail)
    with pytest.raises(OutputError, match=r"a\.fits: No space left on device while writing"):
        write_master(path, make_result(count=2), MasterExtras(tile=TileFacts(tile_id=1, raw_frames=3)), overwrite=True)
    assert path.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [path]


def test_a_map_of_another_shape_is_refused(tmp_path):
    with pytest.raises(InvalidInputError, match=r"a\.fits: coverage has shape \(7, 10\); expected \(7, 11\)"):
        write_master(tmp_path / "a.fits", make_result(coverage=np.zeros((7, 10), np.int32)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"<html>", None])
def test_what_is_no_master_tile_is_an_error_with_its_name(tmp_path, content):
    path = tmp_path / "a.fits"
    if content is None:
        fits.writeto(path, np.zeros((2, 2)))
    else:
        path.write_bytes(content)
    with pytest.raises(FrameReadError, match=r"a\.fits: .*expected a master tile written by"):
        read_master(path)


def test_the_signature_is_read_without_the_rest(tmp_path):
    write_master(tmp_path / "a.fits", make_result(), MasterExtras(signature="0123456789abcdef" * 4))
    write_master(tmp_path / "b.fits", make_result())
    (tmp_path / "c.fits").write_bytes(b"no FITS")
    found = [read_signature(tmp_path / f"{name}.fits") for name in "abcd"]
    assert found == ["0123456789abcdef" * 4, "", "", ""]
    assert_valid(tmp_path / "a.fits")


def test_importing_does_not_import_astropy():
    modules = "zemosaic_stack_core.master.read, zemosaic_stack_core.master.write"
    code = f"import sys, {modules}\nsys.exit(any(name.startswith('astropy') for name in sys.modules))"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)


@pytest.mark.parametrize(
    "pattern",
    ["decam_aligned/*.fits", "tres1_crop/tres1-0?1.fit", "stargate/*.fit", "ngc7023_seestar/*.fit", "m17_2mass/*.gz"],
)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_real_frames_give_valid_tiles(tmp_path, pattern, shape):
    paths = sorted(REAL.glob(pattern))
    if not paths:
        pytest.skip(f"no {pattern} in {REAL}")
    write_master(
        tmp_path / "a.fits",
        make_result(shape, len(paths), paths=paths),
        MasterExtras(tile=TileFacts(tile_id=1, raw_frames=9)),
    )
    assert_valid(tmp_path / "a.fits")
    assert is_intact(tmp_path / "a.fits")
    expected, found = wcs_of(paths[0]), wcs_of(tmp_path / "a.fits")
    pixels = np.array([[0.0, 0.0], [100.0, 60.0]])
    assert np.array_equal(found.all_pix2world(pixels, 0), expected.all_pix2world(pixels, 0))


def test_the_caller_s_cards_are_added(tmp_path):
    write_master(
        tmp_path / "a.fits", make_result(), MasterExtras(cards=[("ZSC_EXTR", 0.5, "one more"), ("ZSC_DQ", "SAT", "")])
    )
    header = fits.getheader(tmp_path / "a.fits")
    assert (header["ZSC_EXTR"], header.comments["ZSC_EXTR"], header["ZSC_DQ"]) == (0.5, "one more", "SAT")
    assert_valid(tmp_path / "a.fits")


def test_the_header_of_a_table_is_astropys():
    types = [("NAME", "S5"), ("SKY", ">f4"), ("SCALE", ">f8", (3,)), ("ROW", ">i8"), ("N", ">i4"), ("B", "u1")]
    table = np.zeros(3, dtype=types)
    made = table_header(table, "FRAMES", {"SKY": "adu"})
    expected = fits.BinTableHDU(table, name="FRAMES").header
    expected.set("TUNIT2", "adu", after="TFORM2")
    assert made.tostring(sep="\n") == expected.tostring(sep="\n")
