"""What a person at a prompt sees of options, results and records."""

from __future__ import annotations

import base64
import html
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from zemosaic_stack_core import InvalidInputError, StackOptions, read_master, stack

SHAPE = (6, 7)


def result_of(n: int, shape: tuple[int, ...] = SHAPE):
    frames = [np.full(shape, 100 + index % 3, np.float32) for index in range(n)]
    frames[0][0] = 5000
    return stack(frames, options=StackOptions(rejection="minmax"), weights=[2.0] + [1.0] * (n - 1), maps="all")


def test_options_show_what_was_chosen():
    assert repr(StackOptions()) == "StackOptions()"
    chosen = StackOptions(rejection="minmax", n_high=2)
    assert repr(chosen) == "StackOptions(rejection='minmax', n_high=2)"
    assert eval(repr(chosen), {"StackOptions": StackOptions}) == chosen  # noqa: S307 - our own text


@pytest.mark.parametrize("n", [3, 500])
@pytest.mark.parametrize("shape", [SHAPE, (600, 700, 3)])
def test_a_result_fits_a_screen(n, shape):
    result = result_of(3, shape)
    result = replace(result, frames=result.frames * (n // 3))
    for text in (repr(result), repr(result.frames)):
        assert len(text.splitlines()) <= 24
        assert len(text) < 2000
    assert f"of {len(result.frames)} frames" in repr(result)
    assert "StackOptions(rejection='minmax')" in repr(result)


def test_a_record_shows_what_acted_and_what_was_lost():
    frames = result_of(4).frames
    assert repr(frames[0]) == "<FrameRecord frame 0: weight 2, rejected 0 low 7 high, missing 0>"
    assert repr(replace(frames[1], note="no stars")).endswith("missing 0; no stars>")
    assert repr(frames).startswith("<4 frames>\n  0: <FrameRecord frame 0")


def test_records_make_a_table():
    table = result_of(4).frames.to_table()
    assert table.colnames == ["name", "weight", "scale", "offset", "rejected_low", "rejected_high", "missing", "note"]
    assert list(table["name"]) == [f"frame {index}" for index in range(4)]
    assert list(table["weight"]) == [2, 1, 1, 1]
    color = result_of(4, (6, 7, 3)).frames.to_table()
    assert color["weight"].shape == (4, 3)


def test_a_result_is_written_and_read_with_its_maps(tmp_path):
    result = result_of(4)
    back = read_master(result.write(tmp_path / "master.fits")).result
    with pytest.raises(InvalidInputError, match=r"master\.fits"):
        result.write(tmp_path / "master.fits")
    result.write(tmp_path / "master.fits", overwrite=True)
    np.testing.assert_array_equal(back.variance, result.variance)
    assert repr(back.frames.to_table()["weight"]) == repr(result.frames.to_table()["weight"])


@pytest.mark.parametrize("shape", [(3000, 4000), (40, 60, 3), (50, 60, 2), (1, 5)])
def test_a_notebook_shows_a_small_picture(shape):
    image = np.random.default_rng(1).normal(100, 5, shape).astype(np.float32)
    image[:, : shape[1] // 4] = np.nan
    shown = replace(result_of(3), image=image)._repr_html_()
    assert len(shown) < 150_000
    found = re.search(
        r'<img src="data:image/jpeg;base64,([^"]+)" alt="StackResult [\d x]+"><.*?>(.*)</pre>', shown, re.DOTALL
    )
    with Image.open(io.BytesIO(base64.b64decode(found[1]))) as picture:
        assert max(picture.size) <= 320
        assert picture.size[0] >= picture.size[1]
    assert html.unescape(found[2]) == repr(replace(result_of(3), image=image))


def test_a_picture_of_nothing():
    assert "<img" in replace(result_of(3), image=np.full(SHAPE, np.nan, np.float32))._repr_html_()
