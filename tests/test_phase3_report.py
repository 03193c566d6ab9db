from __future__ import annotations

import base64
import html
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from markupsafe import escape
from night import report_of, run, tiles_of, write_frame, write_night
from PIL import Image

from zemosaic_stack_core.phase3.previews import tile_pictures
from zemosaic_stack_core.phase3.report.charts import Chart, Series
from zemosaic_stack_core.phase3.run import preview_size
from zemosaic_stack_core.phase3.tile_record import DroppedFrame, FrameUse, TileOutcome, TileRecord
from zemosaic_stack_core.stacking.result import StackResult

NASTY = "</script><img src=x onerror=alert(1)>\"'&amp; caf\u00e9"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)

PROBE = """<script>
var trouble=[];
window.addEventListener("error",function(event){trouble.push("error "+event.message)},true);
document.addEventListener("securitypolicyviolation",function(event){trouble.push("policy "+event.blockedURI)});
window.addEventListener("load",function(){
 var images=Array.from(document.images);
 var field=document.querySelector(".chart .field"),box=field.getBoundingClientRect();
 field.dispatchEvent(new MouseEvent("mousemove",{clientX:box.left+5,clientY:box.top+5,bubbles:true}));
 var failed=document.querySelector('button[data-outcome="failed"]');failed.click();
 var visible=document.querySelectorAll(".tile:not([hidden])").length;
 document.querySelector("button[data-outcome='']").click();
 document.title="PROBE"+JSON.stringify({
  images:images.length,drawn:images.filter(function(i){return i.complete&&i.naturalWidth>1}).length,
  requests:performance.getEntriesByType("resource").map(function(e){return e.name}).filter(function(n){
   return n.indexOf("data:")!==0}),
  trouble:trouble,ready:document.documentElement.dataset.ready,tip:document.getElementById("tip").textContent,
  visible:visible,tiles:document.querySelectorAll(".tile").length,
  width:document.documentElement.scrollWidth-innerWidth})+"PROBE";
});
</script>"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the output folder of a night with a dropped frame, a failed tile and names that are markup."""
    folder = tmp_path_factory.mktemp("report")
    night = write_night(folder / "night", tiles=3)
    (night / "tile_1" / "light_2.fits").write_bytes(b"<html>")
    tiles = [{"id": n, "name": NASTY if n == 2 else f"tile {n}", "frames": [f"night/tile_{n}"]} for n in (1, 2, 3)]
    tiles.append({"id": 9, "name": "lost", "frames": ["night/<b>gone</b>.fits"]})
    (folder / "plan.json").write_text(json.dumps({"tiles": tiles}))
    assert run(folder / "plan.json", folder / "out", "--kappa-high", "1.5") == 1
    return folder / "out"


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
    assert (lost["outcome"], lost["file"], lost["frames_used"]) == ("failed", "", 0)


def test_records_come_back_from_json() -> None:
    record = TileRecord(
        tile_id=3,
        name="x",
        outcome=TileOutcome.DONE_CPU_AFTER_GPU_FAILURE,
        shape=(2, 3),
        dropped=(DroppedFrame(name="a", reason="b"),),
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
    assert page.tags.count("img") == 6
    assert page.tags.count("article") == 4
    assert page.tags.count("figure") >= 4
    assert all(link.startswith("data:") for link in page.links)
    assert not re.search(r"url\(|@import|https?://", text)
    assert "What went wrong</h2><ul><li>Tile 9 (lost) failed: " in text
    assert "<li>Tile 1 (tile 1) is without 1 of 6 frames</li></ul>" in text
    assert "1 of 4 tiles is missing" in text
    assert str(escape(NASTY)) in text
    assert NASTY not in text
    for link in page.links:
        if link.startswith("data:image"):
            Image.open(io.BytesIO(base64.b64decode(link.partition(",")[2]))).verify()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_page_works_in_a_browser(finished: Path, tmp_path: Path) -> None:
    text = (finished / "report.html").read_text(encoding="utf-8")
    page = tmp_path / "page with blanks.html"
    page.write_text(text.replace("<title>", PROBE + "<title>", 1), encoding="utf-8")
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    flags += " --disable-component-update --disable-sync --enable-logging=stderr --virtual-time-budget=3000"
    command = [str(CHROMIUM), *flags.split(), f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r"<title>PROBE(.*?)PROBE</title>", answer.stdout, re.DOTALL)
    assert found is not None, answer.stderr[-2000:]
    probe = json.loads(html.unescape(found[1]))
    assert probe["trouble"] == []
    assert probe["requests"] == []
    assert (probe["images"], probe["drawn"]) == (6, 6)
    assert (probe["tiles"], probe["visible"], probe["ready"]) == (4, 1, "yes")
    assert probe["tip"].startswith("tile 1")
    assert probe["width"] <= 0
    assert "CONSOLE" not in answer.stderr


def test_pictures_show_row_0_at_the_bottom() -> None:
    image = np.full((40, 60), 10.0, np.float32)
    image += np.random.default_rng(1).normal(0, 0.1, image.shape).astype(np.float32)
    image[:10] = np.nan
    coverage = np.where(np.isfinite(image), 4, 0).astype(np.int32)
    result = StackResult(image=image, coverage=coverage, frames=(), backend="numpy", options=None)  # type: ignore[arg-type]
    pictures = tile_pictures(result, 30)
    for address in (pictures.image, pictures.coverage):
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGB"))
        assert picture.shape == (20, 30, 3)
        bottom = picture[17:].reshape(-1, 3).mean(axis=0)
        assert np.abs(bottom - (46, 16, 66)).max() < 12


def test_pictures_shrink_where_tiles_are_many() -> None:
    assert preview_size(1) == 320
    assert 64 <= preview_size(2000) < 320
    assert preview_size(10**6) == 64


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
    assert (tmp_path / "out" / "report.html").read_text().count("<img") == 2
