"""The benchmarks run, tiny, so that they can't rot; what they measure is not judged here."""

import json

import pytest

from benchmarks import first_hour
from benchmarks.__main__ import main
from zemosaic_stack_core.command_line import build_parser


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "columns"),
    [
        ("compare", {"workload", "operation", "program", "wall", "cpu", "peak", "problem"}),
        ("kernel", {"frames", "case", "ns", "yardstick"}),
        ("memory", {"case", "input_bytes", "promised", "peak"}),
        ("nddata", {"case", "method", "clip", "program", "cpu", "first_cpu", "peak", "result"}),
        ("nights", {"frames", "workers", "wall", "cpu", "peak"}),
        ("scaling", {"varied", "frames", "wall", "cpu_ns", "peak"}),
    ],
)
def test_a_part_runs_and_writes_its_table(part, columns, tmp_path):
    assert main([part, "--tiny", "-o", str(tmp_path / "out"), "--repeat", "1"]) == 0
    rows = json.loads((tmp_path / "out" / "results.json").read_text())[part]
    assert rows
    assert columns <= set(rows[0])
    if part == "compare":
        assert [row["problem"] for row in rows if row["program"] in ("zemosaic-worker", "floor")] == [""] * 2
    if part == "memory":
        assert all(row["peak"] <= row["promised"] for row in rows)
    assert (tmp_path / "out" / "results.md").read_text().count("| --- |") >= 1


def test_an_unknown_part_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["speed"])
    assert (
        "speed: no such part; expected some of compare, kernel, memory, nddata, nights, scaling, gpu"
        in capsys.readouterr().err
    )


def test_what_the_first_hour_types_is_understood(tmp_path):
    (tmp_path / "set").mkdir()
    steps = list(first_hour.steps(tmp_path))
    typed = [step.command[1:] for step in steps if step.command[0].endswith("zemosaic-worker")]
    commands = {build_parser().parse_args(words).command for words in typed}
    assert commands == {"demo", "stack", "explain", "replay", "run", "doctor"}
    assert any("sets/set.fits" in words for words in typed)
    for step in steps:
        if "-c" in step.command:
            compile(step.command[-1], "typed", "exec")


def test_the_first_hour_ends_with_what_fails(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(first_hour, "steps", lambda data: [first_hour.Step(("false",)), first_hour.Step(("no",))])
    assert first_hour.main([str(tmp_path / "hour")]) == 1
    assert "$ false\n-> exit code 1" in capfd.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        first_hour.main([str(tmp_path / "hour")])
    assert "expected the name of a new folder" in capfd.readouterr().err
