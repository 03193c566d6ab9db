"""Ours in ZeMosaic's place: a stand-in folder of our own writing, plugged in, run, and restored byte by byte."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from worker_settings import SETTINGS

from zemosaic_stack_core.command_line import main
from zemosaic_stack_core.errors import InvalidInputError
from zemosaic_stack_core.gpu.health import GpuHealth
from zemosaic_stack_core.gpu.phase3_gpu import Phase3Gpu
from zemosaic_stack_core.options import StackOptions
from zemosaic_stack_core.stacking.run import stack
from zemosaic_stack_core.zemosaic import drop_in, master_tile, plug_files
from zemosaic_stack_core.zemosaic.plug_in import PLUGS, RUN, install, plug
from zemosaic_stack_core.zemosaic.run_state import RUN_GPU, RunGpu

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
STAND_IN = Path(__file__).parent / "zemosaic" / "stand_in"
OPTIONS = StackOptions(
    normalization="linear_fit", weighting="noise_variance", rejection="winsorized_sigma_clip", reference=0
)
# Runs the stand-in's mosaic over groups of frames and keeps the tiles.
PROGRAM = """
import json, sys
import numpy as np
{start}
{package}import zemosaic_worker
groups, settings = json.loads(sys.argv[1])
settings["parsed_winsor_limits"] = tuple(settings["parsed_winsor_limits"])
paths = zemosaic_worker.run_hierarchical_mosaic(groups, settings, sys.argv[2])
made = [zemosaic_worker.MADE[tile_id] for tile_id in range(len(paths))]
print(json.dumps([paths, [[meta.get("backend", meta.get("by")), used_gpu] for meta, used_gpu in made]]))
{package}import grid_mode
tile, rejected, weight_sum = grid_mode.stack_tile([np.full((2, 3, 3), value, np.float32) for value in (1, 2, 3)])
assert float(tile[0, 0, 0]) == 2.0 and float(weight_sum[0, 0, 0]) == 3.0, (tile, weight_sum)
print(grid_mode.stack_core.__module__, zemosaic_worker.zemosaic_align_stack.align_images_in_group.__module__)
"""


@pytest.fixture(params=["side by side", "package"])
def zemosaic(request, tmp_path):
    """Copy the stand-in in one of ZeMosaic's two layouts; give its folder and that of its modules."""
    folder = tmp_path / "ZeMosaic"
    code = folder
    if request.param == "package":
        code = folder / "src" / "zemosaic"
    shutil.copytree(STAND_IN, code)
    if request.param == "package":
        (code / "__init__.py").write_text("")
        for path in code.glob("*.py"):
            text = path.read_text(encoding="utf-8")
            for stem in PLUGS:
                text = text.replace(f"from {stem} import", f"from zemosaic.{stem} import")
                text = text.replace(f"\nimport {stem}\n", f"\nfrom zemosaic import {stem}\n")
            path.write_text(text, encoding="utf-8")
    return folder, code


def contents(folder):
    """Return every file and its bytes, but for what Python compiles."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


@pytest.fixture(scope="module", autouse=True)
def installed(tmp_path_factory):
    """Make a folder with this package alone, as it is installed: without the modules beside it in the repository."""
    site = tmp_path_factory.mktemp("site")
    try:
        (site / "zemosaic_stack_core").symlink_to(ROOT / "zemosaic_stack_core", target_is_directory=True)
    except OSError as error:
        pytest.skip(f"no symbolic links here ({error})")
    with pytest.MonkeyPatch.context() as patch:
        emulation = sys.modules.get("cupyemu")
        folders = [site] if emulation is None else [site, Path(emulation.__file__).parent]
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, folders)))
        patch.setenv("PYTHONWARNINGS", "")
        yield


def python(*arguments, cwd):
    """Run Python in a folder."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)


def run_it(code, tmp_path, start=""):
    """Run the stand-in's mosaic of two tiles; return tiles, who made them, whose grid mode, and the frames."""
    is_package = (code / "__init__.py").exists()
    groups, frames = [], []
    for tile in range(2):
        generator = np.random.default_rng(tile)
        cube = 1000 + 25.0 * np.arange(6)[:, None, None, None] + generator.normal(0, 8, (6, 20, 24, 3))
        frames.append(list(cube.astype(np.float32)))
        groups.append([str(tmp_path / f"{tile}_{index}.npy") for index in range(6)])
        for path, frame in zip(groups[-1], frames[-1], strict=True):
            np.save(path, frame)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(start=start, package="from zemosaic " if is_package else ""), encoding="utf-8")
    where = code.parent if is_package else code
    script = f"import sys; sys.path.insert(0, {str(where)!r}); exec(open({str(program)!r}).read())"
    done = python("-c", script, json.dumps([groups, SETTINGS]), tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    answer, whose = done.stdout.splitlines()
    paths, made = json.loads(answer)
    return [np.load(path) for path in paths], made, whose.split(), frames


def test_plugged_in_it_is_our_kernel_and_taken_out_it_is_theirs(zemosaic, tmp_path, capsys):
    folder, code = zemosaic
    before = contents(folder)
    theirs, made, whose, frames = run_it(code, tmp_path)
    assert made == [["its own", False]] * 2
    assert main(["plug-in", str(folder)]) == 0
    assert "ours is in place in parallel_utils, zemosaic_align_stack," in capsys.readouterr().out
    once = contents(folder)
    assert main(["plug-in", str(folder)]) == 0
    assert contents(folder) == once
    assert main(["plug-in", str(folder), "--check"]) == 0
    assert "GPU: " in capsys.readouterr().out.splitlines()[-1]
    tiles, made, whose, _ = run_it(code, tmp_path)
    assert [backend for backend, _ in made] == ["numpy"] * 2
    assert whose[0] == "zemosaic_stack_core.zemosaic.core"
    assert whose[1].endswith("zemosaic_align_stack")
    for tile, given in zip(tiles, frames, strict=True):
        np.testing.assert_array_equal(tile, stack(given, options=OPTIONS).image)
        # Two tiles side by side have the levels that their references have.
        assert np.median(tile) == pytest.approx(np.median(given[0]), abs=2)
    assert np.abs(theirs[0] - tiles[0]).max() > 10
    assert main(["plug-in", str(folder), "--remove"]) == 0
    assert contents(folder) == before
    assert main(["plug-in", str(folder), "--check"]) == 1


def test_without_touching_files(zemosaic, tmp_path):
    folder, code = zemosaic
    before = contents(folder)
    start = (
        "sys.path.append(sys.path.pop(0))\n"
        "from zemosaic_stack_core.zemosaic import plug_in\nplug_in.install()\nplug_in.install()"
    )
    tiles, made, whose, frames = run_it(code, tmp_path, start)
    assert [backend for backend, _ in made] == ["numpy"] * 2
    assert whose[0] == "zemosaic_stack_core.zemosaic.core"
    for tile, given in zip(tiles, frames, strict=True):
        np.testing.assert_array_equal(tile, stack(given, options=OPTIONS).image)
    assert contents(folder) == before


@pytest.mark.gpu
def test_plugged_in_on_emulated_cupy(zemosaic, tmp_path):
    """The whole way: its worker, its threads, our Mode C with a real health check, CuPy."""
    if "cupyemu" not in sys.modules:
        pytest.skip("the emulation of CuPy is not loaded (-p cupyemu)")
    folder, code = zemosaic
    plug_files.put_in(folder)
    tiles, made, _, frames = run_it(code, tmp_path, "import cupyemu")
    assert made == [["cupy", True]] * 2
    for tile, given in zip(tiles, frames, strict=True):
        np.testing.assert_array_equal(tile, stack(given, options=OPTIONS).image)


def test_the_name_clash(zemosaic):
    """In ZeMosaic's own folder, where a module has our package's name."""
    folder, code = zemosaic
    if (code / "__init__.py").exists():
        pytest.skip("in a package no module has the name of ours")
    ours = "from zemosaic_stack_core.zemosaic.drop_in import gpu_stack_from_paths"
    assert "is not a package" in python("-c", ours, cwd=code).stderr
    plug_files.put_in(folder)
    for line in (
        ours,
        "from zemosaic_stack_core.gpu.auto import Phase3Gpu",
        "from zemosaic_stack_core import stack_core",
    ):
        assert python("-c", line, cwd=code).stderr == ""
    assert python("-c", "from zemosaic_worker import run_hierarchical_mosaic", cwd=code).stderr == ""
    alone = python("zemosaic_worker.py", cwd=code)
    assert (alone.stdout, alone.stderr) == ("program, stacker of zemosaic_stack_core.zemosaic.master_tile\n", "")


def test_a_package_that_is_gone_leaves_zemosaics_own(zemosaic):
    folder, code = zemosaic
    if (code / "__init__.py").exists():
        pytest.skip("one layout is enough")
    plug_files.put_in(folder)
    helper = code / plug_files.HELPER
    helper.write_text(helper.read_text(encoding="utf-8").replace(str(ROOT), "/gone"), encoding="utf-8")
    alone = python("zemosaic_worker.py", cwd=code)
    assert alone.stdout == "program, stacker of __main__\n"
    assert "ZeMosaic's own stackers are used; plug in again" in alone.stderr


def test_an_update_of_zemosaic_is_seen_and_plugged_in_again(zemosaic):
    folder, code = zemosaic
    plug_files.put_in(folder)
    worker = code / "zemosaic_worker.py"
    newer = (STAND_IN / "zemosaic_worker.py").read_bytes() + b"# newer\n"
    worker.write_bytes(newer)
    found = plug_files.look(folder)
    assert not found.is_in_place
    assert found.lines()[-1] == "ZeMosaic's own in zemosaic_worker, as after an update of ZeMosaic: plug in again"
    assert plug_files.put_in(folder).is_in_place
    plug_files.take_out(folder)
    assert worker.read_bytes() == newer
    plug_files.put_in(folder)
    worker.write_bytes(newer)
    plug_files.take_out(folder)
    assert sorted(path.name for path in code.iterdir() if "zsc" in path.name or path.suffix == ".zemosaic") == []


def test_killed_at_any_moment_it_is_whole(zemosaic, monkeypatch):
    """At each file that is written or renamed."""
    folder, code = zemosaic
    before = contents(folder)
    real = Path.replace

    def put_in(renames):
        """Die at a rename; return whether there were fewer."""
        left = iter(range(renames))

        def dying(path, target):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return real(path, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", dying)
            try:
                plug_files.put_in(folder)
            except KeyboardInterrupt:
                return False
        return True

    for renames in range(2 + 2 * len(PLUGS)):
        assert not put_in(renames)
        now = contents(folder)
        for stem in PLUGS:
            name = (code / f"{stem}.py").relative_to(folder).as_posix()
            assert before[name] in (now[name], now.get(f"{name}.zemosaic")), (renames, name)
        plug_files.take_out(folder)
        assert contents(folder) == before
    assert put_in(99)
    assert plug_files.look(folder).is_in_place


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("zconfig=settings[", "sharpen=1, zconfig=settings[", "calls gpu_stack_from_paths: got an unexpected keyword"),
        ("stacked, _ = zemosaic", "stacked, _, _ = zemosaic", "takes 3 values from stack_winsorized_sigma_clip, which"),
        (
            "tile_id=tile_id,\n        logger",
            "tile_id=tile_id, night=1,\n        logger",
            "calls _stack_master_tile_auto",
        ),
        (
            'kind="global", frame_shape',
            'sort="global", frame_shape',
            "calls auto_tune_parallel_plan: missing",
        ),
        ("def run_hier", "def run_hier(:\n\ndef run_hier", "can't be read"),
    ],
)
def test_a_call_that_ours_can_not_take_is_named_and_nothing_is_touched(zemosaic, old, new, message, capsys):
    folder, code = zemosaic
    worker = code / "zemosaic_worker.py"
    text = worker.read_text(encoding="utf-8")
    assert old in text
    worker.write_text(text.replace(old, new), encoding="utf-8")
    before = contents(folder)
    assert main(["plug-in", str(folder)]) == 2
    assert "zemosaic_worker.py line" in capsys.readouterr().err or message == "can't be read"
    with pytest.raises(InvalidInputError, match=message):
        plug_files.put_in(folder)
    assert contents(folder) == before
    assert plug_files.look(folder).unknown


def test_a_name_that_ours_has_not(zemosaic):
    folder, code = zemosaic
    grid = code / "grid_mode.py"
    grid.write_text(grid.read_text(encoding="utf-8").replace("stack_core\nexcept", "stack_core, wishes\nexcept"))
    if (code / "__init__.py").exists():
        assert plug_files.put_in(folder).is_in_place  # its own module keeps its own names
    else:
        with pytest.raises(InvalidInputError, match=r"grid_mode\.py line 6 imports wishes from zemosaic_stack_core"):
            plug_files.put_in(folder)


def test_a_script_that_python_can_not_read_is_no_call(zemosaic):
    folder, code = zemosaic
    (code / "old_notes.py").write_text("print 'zemosaic_worker'\n", encoding="utf-8")
    assert plug_files.put_in(folder).is_in_place


def test_a_run_begins_with_a_gpu_of_its_own():
    """One that was switched off in the last run is tried again; what runs within a run is of that run."""
    logger = logging.getLogger()
    before = RUN_GPU.of_run(logger)
    seen = []

    def run(again):
        seen.append(RUN_GPU.of_run(logger))
        return module[RUN](False) if again else "mosaic"

    module = {RUN: run}
    plug("zemosaic.zemosaic_worker", module)
    assert module[RUN](True) == "mosaic"
    assert seen[0] is seen[1]
    assert len({id(state) for state in (before, seen[0], RUN_GPU.of_run(logger))}) == 3
    assert module["_stack_master_tile_auto"] is drop_in._stack_master_tile_auto


@pytest.mark.parametrize(("allowed", "tried"), [(True, True), (False, False)])
def test_where_zemosaic_does_not_allow_the_gpu_it_is_not_tried(monkeypatch, allowed, tried):
    """Its worker has a state of its own; `hard_disabled` is ours to know, `allowed` is not."""
    asked = []
    health = GpuHealth(usable=False, reason="no card")
    run = RunGpu(partial(Phase3Gpu, check_health=lambda: asked.append(1) or health))
    monkeypatch.setattr(master_tile, "RUN_GPU", run)
    module = {RUN: print, "_P3_GPU_STATE": {"allowed": allowed, "hard_disabled": False}}
    plug("zemosaic_worker", module)
    frames = [np.full((4, 5, 3), value, np.float32) for value in (1, 2, 3)]
    _, meta, used_gpu = module["_stack_master_tile_auto"](frames, parallel_plan={"cpu_workers": 1}, **SETTINGS)
    assert (bool(asked), used_gpu, meta["backend"]) == (tried, False, "numpy")


def test_it_is_installed_before_the_worker(monkeypatch):
    module = ModuleType("zemosaic_worker")
    module.run_hierarchical_mosaic = print
    monkeypatch.setitem(sys.modules, "zemosaic_worker", module)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    with pytest.raises(InvalidInputError, match=r"zemosaic_worker is imported already; expected plug_in\.install"):
        install()


def test_what_is_not_zemosaic(tmp_path, capsys):
    for folder in (tmp_path, ROOT, tmp_path / "none"):
        assert main(["plug-in", str(folder)]) == 2
        assert f"{folder}: not ZeMosaic; expected a folder with zemosaic_worker.py" in capsys.readouterr().err


def test_its_own_file_that_is_lost_or_changed_is_said(zemosaic):
    folder, code = zemosaic
    plug_files.put_in(folder)
    kept = code / "parallel_utils.py.zemosaic"
    own = kept.read_bytes()
    kept.write_bytes(own + b"#")
    with pytest.raises(InvalidInputError, match="changed since it was put aside"):
        plug_files.take_out(folder)
    assert plug_files.look(folder).plugged == tuple(PLUGS)
    kept.unlink()
    with pytest.raises(InvalidInputError, match=r"parallel_utils\.py\.zemosaic: missing; expected ZeMosaic's own"):
        plug_files.take_out(folder)


def test_the_wheel_hides_no_module_of_zemosaics():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "py-modules" not in project["tool"]["setuptools"]
    assert project["project"]["scripts"]["zemosaic-worker"] == "zemosaic_stack_core.command_line:main"


# Two tiles through ZeMosaic's own function, with the keywords that it has of those recorded.
TWO_TILES = """
import inspect, json, sys
import numpy as np
from pathlib import Path
from astropy.io import fits
from astropy.wcs import WCS
{package}import zemosaic_worker
keywords = json.loads(sys.argv[1])
keywords["parsed_winsor_limits"] = tuple(keywords["parsed_winsor_limits"])
parameters = inspect.signature(zemosaic_worker.create_master_tile).parameters
if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
    keywords = {{name: value for name, value in keywords.items() if name in parameters}}
header = fits.Header(dict(CTYPE1="RA---TAN", CTYPE2="DEC--TAN", CRVAL1=315.4, CRVAL2=68.16, CRPIX1=80.0, CRPIX2=60.0,
    CD1_1=-0.00066, CD1_2=0.0, CD2_1=0.0, CD2_2=0.00066, NAXIS1=160, NAXIS2=120, EXPTIME=10.0))
y, x = np.mgrid[:120, :160]
for tile_id in (1, 2):
    generator = np.random.default_rng(tile_id)
    stars = generator.uniform(10, 110, (40, 2)) * [1, 1.35]
    light = sum(3000 * np.exp(-((y - row) ** 2 + (x - column) ** 2) / 6) for row, column in stars)
    group = []
    for index in range(5):
        frame = (1200 + light + generator.normal(0, 10, light.shape))[..., None].repeat(3, axis=2).astype(np.float32)
        path = Path(sys.argv[2], f"frame_{{tile_id}}_{{index}}.npy")
        np.save(path, frame)
        group.append(dict(path_preprocessed_cache=str(path), path_raw=f"{{index}}.fit", wcs=WCS(header), header=header))
    (path, wcs), retry_groups = zemosaic_worker.create_master_tile(
        seestar_stack_group_info=group, tile_id=tile_id, output_temp_dir=sys.argv[2],
        progress_callback=lambda key, prog=None, lvl=None, **fields: None, **keywords)
    assert path and Path(path).is_file(), retry_groups
print(zemosaic_worker._stack_master_tile_auto.__module__)
"""


def make_two_tiles(found, folder):
    """Make two tiles through ZeMosaic's `create_master_tile`; return whose stacker it called."""
    where, package = (found.code.parent, "from zemosaic ") if found.is_package else (found.code, "")
    recorded = json.loads((STAND_IN.parent / "create_master_tile.json").read_text(encoding="utf-8"))["keywords"]
    folder.mkdir()
    script = f"import sys; sys.path.insert(0, {str(where)!r})\n{TWO_TILES.format(package=package)}"
    done = python("-c", script, json.dumps(recorded), folder, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_its_own_create_master_tile_calls_ours(zemosaic, tmp_path):
    found = plug_files.put_in(zemosaic[0])
    assert make_two_tiles(found, tmp_path / "tiles") == "zemosaic_stack_core.zemosaic.master_tile"


@pytest.mark.slow
def test_a_real_checkout(tmp_path):
    """Plug in, make two tiles through its `create_master_tile`, run its tests of Phase 3, remove."""
    checkout = os.environ.get("ZEMOSAIC_CHECKOUT")
    if not checkout:
        pytest.skip("ZEMOSAIC_CHECKOUT is not set to a checkout of ZeMosaic")
    folder = tmp_path / "checkout"
    shutil.copytree(checkout, folder, ignore=shutil.ignore_patterns("__pycache__", ".git"))
    before = contents(folder)
    found = plug_files.put_in(folder)
    assert make_two_tiles(found, tmp_path / "tiles") == "zemosaic_stack_core.zemosaic.master_tile"
    names = ("test_create_master_tile*.py", "test_parallel_utils.py", "test_gpu_cpu_parity.py")
    tests = [path for name in names for path in sorted((folder / "tests").glob(name))]
    done = python("-m", "pytest", "-q", "-p", "no:cacheprovider", *tests, cwd=folder)
    assert done.returncode == 0, done.stdout
    plug_files.take_out(folder)
    assert contents(folder) == before
