"""The command on real frames against the scalar reference, on a crop of its master."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from samples import assert_matches_reference

from zemosaic_stack_core import StackOptions
from zemosaic_stack_core.command_line import main
from zemosaic_stack_core.master.read import read_master
from zemosaic_stack_core.options import REJECTIONS

REAL = Path(__file__).parent.parent.parent / "shared" / "data"
# Ten sky-subtracted frames with negative values, and four darks.
SETS = {"decam_aligned": "*.fits", "tres1_crop": "*d.fit"}

# Rules that have none.
NO_KAPPAS = ("none", "percentile_clip", "minmax", "gesd")

pytestmark = pytest.mark.skipif(not REAL.is_dir(), reason="no ../shared/data: real frames are needed")


def crop_around_the_brightest(frames, size=14):
    """Return the rows and columns around the sample that stands out most in any frame: there is something to reject."""
    cube = np.stack(frames)
    spread = cube.max(axis=0) - np.median(cube, axis=0)
    rows, columns = (
        slice(start := int(np.clip(place - size // 2, 0, length - size)), start + size)
        for place, length in zip(np.unravel_index(spread.argmax(), spread.shape), spread.shape, strict=True)
    )
    return rows, columns


CASES = [("decam_aligned", rule) for rule in REJECTIONS]
CASES += [("tres1_crop", rule) for rule in ("winsorized_sigma_clip", "percentile_clip", "minmax")]  # for so few frames


@pytest.mark.parametrize(("name", "rejection"), CASES)
def test_a_crop_of_the_master_is_the_references(tmp_path, capsys, name, rejection):
    paths = sorted((REAL / name).glob(SETS[name]))
    frames = [fits.getdata(path).astype(np.float32) for path in paths]
    crop = crop_around_the_brightest(frames)
    output = tmp_path / "master.fits"
    how = ["--backend", "cpu", "--workers", "1", "--no-picture"]
    kappas = {} if rejection in NO_KAPPAS else {"kappa_low": 2.2, "kappa_high": 2.0}
    rule = [f"--{name.replace('_', '-')}={value}" for name, value in kappas.items()]
    code = main(["stack", *map(str, paths), "-o", str(output), "--maps", "all", "--rejection", rejection, *how, *rule])
    assert code == 0, capsys.readouterr().err
    result = read_master(output).result
    of_crop = {
        field: getattr(result, field)[crop]
        for field in ("image", "coverage", "weight_map", "rejected_low", "rejected_high", "variance")
    }
    options = StackOptions(rejection=rejection, **kappas)
    assert result.options == options
    # The records count the whole image: they have no place in the comparison of a part.
    part = replace(result, **of_crop, frames=())
    assert_matches_reference(part, [frame[crop] for frame in frames], options, allow_narrow=0.05)
