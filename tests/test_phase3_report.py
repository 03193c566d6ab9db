from __future__ import annotations

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from browser import CUT_OFF, opened
from markupsafe import escape
from night import make_frame, report_of, run, tiles_of, write_frame, write_night
from PIL import Image

from zemosaic_stack_core.command_line import main
from zemosaic_stack_core.frames.group import open_frames
from zemosaic_stack_core.frames.pixel_rows import FilePool
from zemosaic_stack_core.phase3.frame_quality import look_at_frames
from zemosaic_stack_core.phase3.previews import PicturePlan, frame_picture, histogram, tile_pictures
from zemosaic_stack_core.phase3.report.charts import Chart, Series
from zemosaic_stack_core.phase3.report.page import _standing_out
from zemosaic_stack_core.phase3.tile_record import DroppedFrame, FrameQuality, FrameUse, TileOutcome, TileRecord
from zemosaic_stack_core.stacking.result import StackResult
from zemosaic_stack_core.synthetic.raw_night import RawNight

NASTY = "</script><img src=x onerror=alert(1)>\"'&amp; caf\u00e9"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the output folder of a night with a dropped frame, a failed tile and names that are markup."""
    folder = tmp_path_factory.mktemp("report")
    night = write_night(folder / "night", tiles=3)
    (night / "tile_1" / "light_2.fits").write_bytes(b"<html>")
    tiles = [{"id": n, "name": NASTY if n == 2 else f"tile {n}", "frames": [f"night/tile_{n}"]} for n in (1, 2, 3)]
    tiles.append({"id": 9, "name": "lost", "frames": ["night/<b>gone</b>.fits"]})
    (folder / "plan.json").write_text(json.dumps({"tiles": tiles}))
    for minute, path in enumerate(sorted((night / "tile_3").iterdir())):
        fits.setval(path, "DATE-OBS", value=f"2026-03-14T21:{minute:02d}:30")
    assert run(folder / "plan.json", folder / "out", "--kappa-high", "1.5") == 1
    return folder / "out"


def data_of(page: Path) -> dict[str, Any]:
    """Return the numbers and pictures in a page."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def picture_of(address: str) -> Any:
    """Return the picture in a data address, shape (row, column, 3)."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGB")).astype(int)


def test_the_json_report(finished: Path) -> None:
    report = report_of(finished)
    assert report["schema"] == "zemosaic-run-report/1"
    assert (report["exit_code"], report["interrupted"], report["stopped"]) == (1, False, "")
    assert report["counts"] == {"done_cpu": 3, "failed": 1}
    assert report["options"]["rejection"] == "auto"
    first, _, _, lost = report["tiles"]
    assert (first["tile_id"], first["file"], first["outcome"]) == (1, "master_tile_001.fits", "done_cpu")
    assert (first["frames_given"], first["frames_used"], len(first["dropped"])) == (6, 5, 1)
    assert first["dropped"][0]["name"].endswith("light_2.fits")
    assert "a web page" in first["dropped"][0]["reason"]
    assert 0 < first["rejected_high"] < 20
    assert (first["shape"], first["coverage_max"], first["backend"]) == ([24, 32], 5, "numpy")
    assert first["samples"] == 5 * 24 * 32
    assert first["peak_bytes"] > 1e6
    assert first["seconds"] >= first["stack_seconds"] > 0
    assert len(first["worst_frames"]) == 5
    worst = [frame["rejected_low"] + frame["rejected_high"] for frame in first["worst_frames"]]
    assert worst == sorted(worst, reverse=True)
    assert len(first["inputs"]) == 6
    assert [Path(frame["name"]).name for frame in first["frames"]] == [f"light_{n}.fits" for n in range(1, 7)]
    assert [frame.get("dropped", "") for frame in first["frames"] if frame.get("dropped")] == [
        first["dropped"][0]["reason"]
    ]
    assert report["tiles"][2]["frames"][4]["date"] == "2026-03-14T21:04:30"
    assert all(90 < frame["sky"] < 110 and 2 < frame["noise"] < 4 for frame in report["tiles"][2]["frames"])
    assert (lost["outcome"], lost["file"], lost["frames_used"]) == ("failed", "", 0)


def test_records_come_back_from_json() -> None:
    record = TileRecord(
        tile_id=3,
        name="x",
        outcome=TileOutcome.DONE_CPU_AFTER_GPU_FAILURE,
        shape=(2, 3),
        dropped=(DroppedFrame(name="a", reason="b"),),
        excluded=("c",),
        frames=(FrameQuality(name="a", dropped="b"), FrameQuality(name="d", fwhm=2.5, stars=0)),
        worst_frames=(FrameUse(name="a", rejected_low=1.0, rejected_high=2.0, missing=3.0, weight=1.0),),
    )
    assert TileRecord.from_json(json.loads(json.dumps(record.to_json()))) == record


@pytest.mark.parametrize("outcome", TileOutcome)
def test_only_two_outcomes_leave_no_file(outcome: TileOutcome) -> None:
    assert outcome.is_made == (outcome.value not in ("failed", "cancelled"))


class _Page(HTMLParser):
    """Collect what a page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        assert not [name for name, _ in attrs if name.startswith("on")]


def test_the_page_holds_all_it_needs(finished: Path) -> None:
    text = (finished / "report.html").read_text(encoding="utf-8")
    page = _Page()
    page.feed(text)
    assert page.tags.count("h1") == 1
    assert all(link.startswith(("data:", "#tile-")) for link in page.links)
    assert not re.search(r"url\(|@import|https?://(?!www\.w3\.org/2000/svg)", text)
    assert "What went wrong</h2><ul><li>Tile 9 (lost) failed: " in text
    assert "<li>Tile 1 (tile 1) is without 1 of 6 frames</li></ul>" in text
    assert "1 of 4 tiles is missing" in text
    assert str(escape(NASTY)) in text
    assert NASTY not in text
    data = data_of(finished / "report.html")
    assert [tile["name"] for tile in data["tiles"]] == ["tile 1", NASTY, "tile 3", "lost"]
    pictures = [tile["pictures"] for tile in data["tiles"]]
    assert [len(one["frames"]) for one in pictures] == [5, 6, 6, 0]
    for one in pictures[:3]:
        assert {picture_of(one[kind]).shape for kind in ("image", "coverage", "rejected")} == {(24, 32, 3)}
        assert sum(map(sum, one["histogram"]["counts"])) > 700


def test_names_in_the_page_are_whole(finished: Path) -> None:
    tile = data_of(finished / "report.html")["tiles"][0]
    assert [tile["folder"] + name for name in tile["names"]] == [
        str(finished.parent / "night" / "tile_1" / f"light_{n}.fits") for n in range(1, 7)
    ]


def test_a_reused_tile_keeps_what_is_known_of_its_frames(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished.parent, tmp_path / "copy")
    again = tmp_path / "copy"
    before = data_of(finished / "report.html")["tiles"]
    assert run(again / "plan.json", again / "out", "--kappa-high", "1.5") == 1
    after = data_of(again / "out" / "report.html")["tiles"]
    assert [tile["outcome"] for tile in after] == ["reused", "reused", "reused", "failed"]
    for one, other in zip(before, after, strict=True):
        assert one["pictures"] == other["pictures"]
        assert one["numbers"] == other["numbers"]
        assert one["names"] == other["names"]
    assert Path(after[0]["folder"]) == again / "night" / "tile_1"


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 390])
def test_nothing_is_cut_off(browser: Any, finished: Path, width: int, scheme: str) -> None:
    with opened(browser, finished / "report.html", width, scheme) as sheet:
        for number in (1, 2, 3, 9):
            sheet.evaluate(f"location.hash = 'tile-{number}'")
            sheet.wait_for_selector(f'a.tile[href="#tile-{number}"][aria-current="true"]')
            assert sheet.evaluate(CUT_OFF) == []
        sheet.evaluate("location.hash = 'tile-1'")
        sheet.locator("#bench .frames .open").nth(1).click()
        assert "a web page" in sheet.locator("dialog .why").inner_text()
        assert sheet.evaluate(CUT_OFF) == []
        sheet.keyboard.press("ArrowRight")
        sheet.wait_for_function(
            "Array.from(document.querySelectorAll('dialog img')).every((one) => one.naturalWidth > 1)"
        )
        assert sheet.locator("dialog img").count() == 2


@pytest.mark.slow
def test_tiles_are_searched_and_ordered(browser: Any, finished: Path) -> None:
    with opened(browser, finished / "report.html") as sheet:
        sheet.locator('button[data-outcome="failed"]').click()
        assert sheet.locator("a.tile:visible").count() == 1
        sheet.locator('button[data-outcome=""]').click()
        sheet.locator("#words").fill("tile 3")
        assert sheet.locator("#shown").inner_text() == "1 of 4"
        sheet.locator("#words").fill("")
        sheet.locator("#order").select_option("dropped")
        assert sheet.locator("a.tile").first.get_attribute("href") == "#tile-1"
        sheet.locator(".chart .field").first.hover()
        assert sheet.locator("#tip").inner_text().startswith("tile ")


@pytest.mark.slow
@pytest.mark.parametrize("width", [1400, 390])
def test_frames_are_ordered(browser: Any, finished: Path, width: int) -> None:
    with opened(browser, finished / "report.html", width) as sheet:
        if width == 390:
            sheet.get_by_label("order of the frames").select_option("rejected_high")
        else:
            sheet.locator('[data-focus="sort-rejected_high"]').press("Enter")
            sheet.locator('[data-focus="sort-rejected_high"]').press("Enter")
        cells = sheet.locator('#bench td[data-title="Rejected high"]').all_text_contents()
        values = [float(cell.removesuffix(" %")) for cell in cells[:-1]]
        assert (len(values), cells[-1]) == (5, "")
        assert values == sorted(values, reverse=True)
        assert "dropped" in sheet.locator("#bench .frames tr").last.inner_text()


@pytest.mark.slow
def test_frames_are_judged_by_the_keyboard_and_left_out(browser: Any, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished.parent, tmp_path / "copy")
    again = tmp_path / "copy"
    same = ["--kappa-high", "1.5"]
    assert run(again / "plan.json", again / "out", *same, "--no-resume") == 1
    with opened(browser, again / "out" / "report.html") as sheet:
        sheet.evaluate("location.hash = 'tile-3'")
        sheet.wait_for_selector('a.tile[href="#tile-3"][aria-current="true"]')
        sheet.locator("#bench .plot svg").first.focus()
        for _ in range(3):
            sheet.keyboard.press("ArrowRight")
        assert sheet.locator("#tip").inner_text().startswith("light_3.fits, tile 3\n2026-03-14 21:02:30 UTC")
        sheet.keyboard.press("Enter")
        assert sheet.locator("dialog h2").inner_text().startswith("light_3.fits")
        sheet.keyboard.press("ArrowRight")
        assert sheet.locator("dialog h2").inner_text().startswith("light_4.fits")
        sheet.keyboard.press("+")
        sheet.keyboard.press("b")
        boxes = [one.bounding_box() for one in sheet.locator("dialog .pane img").all()]
        assert boxes[0] == boxes[1]
        sheet.keyboard.press("b")
        sheet.keyboard.press("+")
        assert "scale(1.5)" in sheet.locator("dialog img").first.get_attribute("style")
        sheet.keyboard.press("x")
        sheet.keyboard.press("Escape")
        sheet.locator("dialog").wait_for(state="hidden")
        assert sheet.locator("#bench .frames tr.out").count() == 1
        sheet.locator("#bench .frames input").first.press("Space")
        with sheet.expect_download() as download:
            sheet.get_by_text("Save list").press("Enter")
        download.value.save_as(tmp_path / "exclude.txt")
        sheet.reload()
        assert sheet.locator("#leave b").inner_text() == "2 frames to leave out."
    assert run(again / "plan.json", again / "out", *same, "--exclude", str(tmp_path / "exclude.txt")) == 1
    tiles = report_of(again / "out")["tiles"]
    assert [tile["outcome"] for tile in tiles] == ["reused", "reused", "done_cpu", "failed"]
    assert [Path(name).name for name in tiles[2]["excluded"]] == ["light_1.fits", "light_4.fits"]
    assert (tiles[2]["frames_given"], tiles[2]["frames_used"]) == (4, 4)
    with opened(browser, again / "out" / "report.html", scheme="dark") as sheet:
        sheet.emulate_media(media="print")
        assert sheet.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert sheet.locator("#leave").is_hidden()
        sheet.emulate_media(media="screen")
        assert "Tile 3 (tile 3): 2 frames left out as asked" in sheet.locator(".problems").inner_text()
        assert sheet.locator("#leave b").inner_text() == "2 frames to leave out."


def test_a_stack_has_a_page_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames, master = write_night(tmp_path / "night", tiles=1) / "tile_1", tmp_path / "m.fits"
    (tmp_path / "list.txt").write_text("light_2.fits\n")
    command = ["stack", str(frames), "-o", str(master), "--backend", "cpu"]
    assert main([*command, "--exclude", str(tmp_path / "list.txt"), "--report"]) == 0
    said = capsys.readouterr()
    assert "list.txt: 1 frame left out" in said.err
    assert said.out.endswith("m.html: a page to judge the frames by\n")
    data = data_of(tmp_path / "m.html")
    (tile,) = data["tiles"]
    assert tile["names"] == ["light_1.fits", *(f"light_{n}.fits" for n in range(3, 7)), "light_2.fits"]
    assert data["excluded"] == [str(frames / "light_2.fits")]
    assert all(tile["pictures"][kind] for kind in ("image", "coverage", "rejected"))
    assert len(tile["pictures"]["frames"]) == 5
    text = (tmp_path / "m.html").read_text()
    assert "Stack report: m.fits" in text
    assert "report.json" not in text.partition("<script>")[0]
    with fits.open(master) as hdus:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "COVERAGE", "FRAMES"]
        with_report = hdus[0].data.tobytes()
    assert main([*command, "--exclude", str(tmp_path / "list.txt"), "--overwrite"]) == 0
    assert fits.getdata(master).tobytes() == with_report


def test_maps_that_are_only_drawn_are_in_the_forecast(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames = write_night(tmp_path / "night", tiles=1) / "tile_1"
    command = ["stack", str(frames), "-o", str(tmp_path / "m.fits"), "--backend", "cpu", "--dry-run", "--json"]
    found = []
    for more in ([], ["--report"]):
        assert main([*command, *more]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[1]["predicted_peak_bytes"] - found[0]["predicted_peak_bytes"] >= 2 * 4 * 24 * 32
    assert found[0]["maps"] == found[1]["maps"] == ["coverage"]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--report", "page.txt"], "page.txt: the name of the report; expected one ending in .html"),
        (["--report", "m.html"], "m.html"),
        (["--exclude", "none.txt"], "none.txt: No such file"),
    ],
)
def test_what_a_page_of_a_stack_can_not_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], more: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_night(tmp_path / "night", tiles=1)
    (tmp_path / "m.html").write_text("mine")
    assert main(["stack", "night/tile_1", "-o", "m.fits", "--backend", "cpu", *more]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line
    assert (tmp_path / "m.html").read_text() == "mine"
    assert not (tmp_path / "m.fits").exists()


@pytest.mark.slow
def test_a_stack_of_raw_frames_shows_the_dropped_ones(tmp_path: Path) -> None:
    night = RawNight(n_frames=5, shape=(160, 200), n_stars=220, turn=0.3, shift=3.0, cosmic_rays=4, fwhm=(2.0, 2.0))
    night.write(tmp_path / "raw")
    command = ["stack", str(tmp_path / "raw"), "-o", str(tmp_path / "m.fits"), "--backend", "cpu", "--workers", "1"]
    assert main([*command, "--keep-best", "80%", "--report", str(tmp_path / "r.html")]) == 0
    (tile,) = data_of(tmp_path / "r.html")["tiles"]
    assert tile["names"] == [f"light_000{n}.fits" for n in range(5)]
    assert sum(map(bool, tile["dropped"])) == 1
    assert len(tile["pictures"]["frames"]) == 5
    for name in ("fwhm", "stars", "sky", "transparency", "roundness"):
        assert None not in tile["numbers"][name]
    assert all(date % 60 == 0 for date in tile["dates"])


def test_frames_that_are_far_worse_than_the_others_stand_out() -> None:
    columns: dict[str, list[float | None]] = {
        "fwhm": [3.0, 3.1, 2.9, 3.0, 3.1, 5.0, 9.0, None, 1.0],
        "roundness": [0.97, 0.971, 0.97, 0.969, 0.97, 0.95, 0.97, 0.97, 0.97],
        "stars": [300, 310, 290, 305, 300, 99, 300, None, 300],
        "rejected_high": [0.1, 0.1, 0.1, 0.1, 0.1, 0.5, None, 2.0, 0.1],
        "shift_x": [0.0] * 8 + [100.0],
    }
    found = dict(_standing_out(columns, [place == 6 for place in range(9)]))
    assert {key: one["places"] for key, one in found.items()} == {"fwhm": [5], "stars": [5], "rejected_high": [7]}
    assert (found["fwhm"]["median"], found["stars"]["median"]) == (3, 300)
    assert dict(_standing_out({"fwhm": [3.0, 3.0, 3.0, 3.0, 9.0]}, [False] * 5)) == {}


def image_of(values: Any, **maps: Any) -> StackResult:
    return StackResult(image=values, frames=(), backend="numpy", options=None, **maps)  # type: ignore[arg-type]


def test_pictures_show_row_0_at_the_bottom() -> None:
    image = np.full((40, 60), 10.0, np.float32)
    image += np.random.default_rng(1).normal(0, 0.1, image.shape).astype(np.float32)
    image[:10] = np.nan
    coverage = np.where(np.isfinite(image), 4, 0).astype(np.int32)
    low, high = np.zeros((2, 40, 60), np.int32)
    high[20:30] = 1
    result = image_of(image, coverage=coverage, rejected_low=low, rejected_high=high)
    pictures = tile_pictures(result, PicturePlan(image=30, maps=30))
    for address in (pictures.image, pictures.coverage, pictures.rejected):
        picture = picture_of(address)
        assert picture.shape == (20, 30, 3)
        bottom = picture[17:].reshape(-1, 3).mean(axis=0)
        assert np.abs(bottom - (46, 16, 66)).max() < 12
    red, _, blue = picture_of(pictures.rejected)[6:9].reshape(-1, 3).mean(axis=0)
    assert red > 2 * blue


def test_a_histogram_counts_the_pixels_that_have_a_value() -> None:
    image = np.full((20, 30, 3), np.nan, np.float32)
    assert histogram(image) == {}
    image[..., 0] = np.linspace(0.0, 100.0, 600).reshape(20, 30)
    image[:10, :, 1] = 50.0
    found = histogram(image)
    assert [sum(counts) for counts in found["counts"]] == [pytest.approx(596, abs=3), 300, 0]
    assert 0.0 <= found["low"] < found["median"] < found["high"] <= 100.0
    assert sum(histogram(np.ones((4, 4), np.float32))["counts"][0]) == 16


def test_a_frame_s_picture_is_of_whole_cells_of_a_mosaic() -> None:
    mosaic = np.tile(np.array([[100, 200], [300, 400]], np.uint16), (30, 45))
    (source,) = open_frames([mosaic]).sources
    with FilePool() as files:
        picture = picture_of(frame_picture(source, 32, files))
    assert picture.shape == (15, 23, 3)
    assert np.ptp(picture) == 0


def test_a_frame_of_one_row_has_a_picture() -> None:
    (source,) = open_frames([np.arange(300, dtype=np.float32)[np.newaxis]]).sources
    with FilePool() as files:
        assert picture_of(frame_picture(source, 32, files)).shape == (1, 34, 3)


def test_pictures_shrink_where_tiles_and_frames_are_many() -> None:
    few, many = PicturePlan.of_night(1, 10), PicturePlan.of_night(50, 300)
    assert (few.image, few.maps) == (1200, 640)
    assert few.frames >= 10
    assert 250 < many.image < few.image
    assert 2 < many.frames < 20
    assert (few.has_stars, many.has_stars) == (True, False)
    assert PicturePlan.of_night(10**6, 10**4) == PicturePlan(image=64, maps=64, frame=128, frames=0, has_stars=False)


def test_frames_that_are_dropped_or_rejected_most_have_pictures_first(tmp_path: Path) -> None:
    names = [str(write_frame(tmp_path / f"{n}.fits", make_frame(1, n))) for n in range(6)]
    frames = [FrameQuality(name=name, rejected_high=float(place), rejected_low=0.0) for place, name in enumerate(names)]
    frames[2] = FrameQuality(name=names[2], dropped="clouds")
    frames.append(FrameQuality(name=str(tmp_path / "gone.fits"), dropped="gone"))
    looked, pictures = look_at_frames(frames, {}, PicturePlan(frames=3))
    assert sorted(pictures) == [2, 4, 5]
    assert [frame.stars for frame in looked] == [0] * 6 + [None]
    assert looked[0].sky == pytest.approx(100.0, abs=1.0)
    assert looked[0].noise == pytest.approx(3.0, abs=0.4)
    looked, _ = look_at_frames(frames, {}, PicturePlan(frames=0, has_stars=False))
    assert looked[0].noise == pytest.approx(3.0, abs=0.4)
    assert {frame.stars for frame in looked} == {None}


def test_charts_stack_their_series() -> None:
    chart = Chart("Time", "s", ["1", "2"], [Series("a", "red", [1.0, 0.0]), Series("b", "blue", [1.0, 2.0])])
    bars = [(one.color, path) for one, path in chart.bars()]
    assert [(color, path.count("z")) for color, path in bars] == [("red", 1), ("blue", 2)]
    heights = [float(value) for value in re.findall(r"v(-[\d.]+)", bars[1][1])]
    assert heights[1] == pytest.approx(2 * heights[0])
    assert [text for _, text in chart.ticks()] == ["0", "0.5", "1", "1.5", "2"]
    assert [label for _, label in chart.names()] == ["1", "2"]


def test_a_chart_of_nothing_and_one_of_many_tiles() -> None:
    empty = Chart("Empty", "s", [], [Series("a", "red", [])])
    assert [path for _, path in empty.bars()] == [""]
    labels = [str(number) for number in range(1000)]
    many = Chart("Many", "s", labels, [Series("a", "red", [1.0] * 1000)])
    names = list(many.names())
    assert len(names) <= 16
    assert many.left < names[0][0] < names[-1][0] < many.right
    ((_, path),) = many.bars()
    assert path.count("z") == 1000


def test_a_report_that_can_not_be_written_costs_no_tile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan, output = write_night(tmp_path / "night", tiles=2), tmp_path / "out"
    (output / "report.html").mkdir(parents=True)
    assert run(plan, output) == 0
    assert len(tiles_of(output)) == 2
    assert "the report can't be written" in capsys.readouterr().err


def test_color_tiles_have_pictures(tmp_path: Path) -> None:
    for index in range(3):
        frame = np.random.default_rng(index).normal(100, 3, (20, 30, 3)).astype(np.float32)
        write_frame(tmp_path / "night" / "a" / f"{index}.fits", frame)
    assert run(tmp_path / "night", tmp_path / "out") == 0
    assert report_of(tmp_path / "out")["tiles"][0]["shape"] == [20, 30, 3]
    pictures = data_of(tmp_path / "out" / "report.html")["tiles"][0]["pictures"]
    assert len(pictures["histogram"]["counts"]) == 3
    assert [picture_of(picture).shape for picture in pictures["frames"].values()] == [(20, 30, 3)] * 3
