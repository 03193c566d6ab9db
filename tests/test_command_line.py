"""The command line as a whole: parser, options, sizes, messages, exit codes, start-up."""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from zemosaic_stack_core.command_line import COMMANDS, ExitCode, build_parser, main
from zemosaic_stack_core.command_line.arguments import parse_size, read_command_options
from zemosaic_stack_core.command_line.messages import (
    answer,
    answer_json,
    finish_answer,
    one_line,
    say,
)
from zemosaic_stack_core.command_line.termination import term_is_interrupt
from zemosaic_stack_core.errors import FrameReadError, InvalidInputError, OutOfMemoryError, OutputError
from zemosaic_stack_core.options import StackOptions
from zemosaic_stack_core.system.quantities import count_text, percent_of, percent_text, size_text, time_text

# A value for each option that is not a plain number; numbers get one that differs from their default.
OTHER_VALUES: dict[str, Any] = {
    "rejection": "linear_fit_clip",
    "center": "mean",
    "combine": "median",
    "normalization": "additive",
    "on_unnormalizable": "exclude",
    "weighting": "exposure",
    "errors": "detector",
    "reference": 2,
    "winsor_limits": (0.1, 0.2),
    "statistics_section": "[2:*,1:7]",
}

# What lets options act that do nothing by themselves.
LETS_ACT: dict[str, dict[str, Any]] = {
    "center": {"rejection": "kappa_sigma"},
    "p_low p_high": {"rejection": "percentile_clip"},
    "n_low n_high": {"rejection": "minmax"},
    "winsor_limits": {"rejection": "winsorized_quantile"},
    "outlier_fraction alpha": {"rejection": "gesd"},
    "gain read_noise sensitivity": {"rejection": "noise_clip"},
    "grow_min_size": {"grow_radius": 1.5},
    "reference on_unnormalizable statistics_section": {"normalization": "additive"},
    "radial_shape_power radial_floor": {"radial_feather_fraction": 0.5},
}


def other_value(name: str, default: Any) -> Any:
    if name in OTHER_VALUES:
        return OTHER_VALUES[name]
    if isinstance(default, bool):
        return not default
    if isinstance(default, int):
        return default + 1
    return 0.25 if default is None else default * 0.5 + 0.1


def parse(*arguments: str) -> argparse.Namespace:
    return build_parser().parse_args(["stack", "a.fits", "-o", "out.fits", *arguments])


@pytest.mark.parametrize("option", fields(StackOptions), ids=lambda option: option.name)
def test_every_option_has_an_argument(option: Any) -> None:
    value = other_value(option.name, option.default)
    others = next((more for names, more in LETS_ACT.items() if option.name in names.split()), {})
    words = map(str, value) if isinstance(value, tuple) else [str(value)]
    argument = "--" + option.name.replace("_", "-")
    given = [argument, *words] if not isinstance(value, bool) else [argument if value else f"--no-{argument[2:]}"]
    for name, other in others.items():
        given += ["--" + name.replace("_", "-"), str(other)]
    assert read_command_options(parse(*given)).options == StackOptions(**{option.name: value}, **others)


@pytest.mark.parametrize("names", LETS_ACT)
def test_an_option_that_can_do_nothing_is_an_error(names: str) -> None:
    for name in names.split():
        value = other_value(name, getattr(StackOptions(), name))
        words = map(str, value) if isinstance(value, tuple) else [str(value)]
        decider = next(iter(LETS_ACT[names])).replace("_", "-")
        plain = ["--normalization", "none"] if decider == "normalization" else []
        message = f"--{name.replace('_', '-')} does nothing with(out)? --{decider}.*; expected --{decider}.*"
        with pytest.raises(InvalidInputError, match=message):
            read_command_options(parse("--" + name.replace("_", "-"), *words, *plain))


@pytest.mark.parametrize("given", [("--kappa-high", "2.5"), ("--max-iterations", "3"), ("--reference", "1")])
def test_an_option_that_acts_with_what_is_usually_chosen(given: tuple[str, str]) -> None:
    assert read_command_options(parse(*given)).auto == {"rejection", "normalization"}


def test_a_configuration_may_say_what_does_nothing(tmp_path: Path) -> None:
    config = tmp_path / "zemosaic_config.json"
    config.write_text(json.dumps({"stacking_kappa_high": 2.5, "stacking_reject_algorithm": "none"}), encoding="utf-8")
    assert read_command_options(parse("--config", str(config))).options.kappa_high == 2.5


@pytest.mark.parametrize("option", fields(StackOptions), ids=lambda option: option.name)
def test_every_argument_is_described(option: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stack", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    described = text.partition(f"--{option.name.replace('_', '-')} ")[2].partition("--")[2].partition(" --")[0]
    assert len(described.split()) > 4


def test_without_arguments_the_defaults_hold() -> None:
    assert read_command_options(parse()).options == StackOptions()


def test_arguments_come_before_the_configuration(tmp_path: Path) -> None:
    config = tmp_path / "zemosaic_config.json"
    values = {"stacking_kappa_low": 1.5, "stacking_kappa_high": 2.5, "use_gpu_phase5": False, "window_width": 3}
    config.write_text(json.dumps(values), encoding="utf-8")
    settings = read_command_options(parse("--config", str(config), "--kappa-high", "4"))
    assert settings.options == StackOptions(kappa_low=1.5, kappa_high=4.0)
    assert not settings.use_gpu
    assert any("window_width" in line and str(config) in line for line in settings.lines)


def test_the_radial_weight_of_the_configuration_acts(tmp_path: Path) -> None:
    config = tmp_path / "zemosaic_config.json"
    values = {"apply_radial_weight": True, "radial_feather_fraction": 0.7, "radial_shape_power": 3.0}
    config.write_text(json.dumps(values), encoding="utf-8")
    options = read_command_options(parse("--config", str(config))).options
    assert (options.radial_feather_fraction, options.radial_shape_power) == (0.7, 3.0)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1GB", 10**9),
        ("300MB", 300 * 10**6),
        ("1.5 GiB", 3 * 2**29),
        ("500000", 500_000),
        ("2k", 2000),
        ("7 b", 7),
        ("0.5TB", 5 * 10**11),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "1 parsec", "0", "1e9", "0.1B"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="no size; expected a number of bytes"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (123_456, "123 kB"), (1.34e9, "1.34 GB"), (5e12, "5 TB")],
)
def test_sizes_for_people(size: float, text: str) -> None:
    assert size_text(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.123, "0.12 s"),
        (9.9, "9.9 s"),
        (37.2, "37 s"),
        (59.7, "1 min 0 s"),
        (125, "2 min 5 s"),
        (11_220, "3 h 07 min"),
    ],
)
def test_times_for_people(seconds: float, text: str) -> None:
    assert time_text(seconds) == text


def test_percent_for_people() -> None:
    assert percent_text(percent_of(1, 8)) == "12.50 %"
    assert percent_text(percent_of(0, 0), "g") == "0 %"


@pytest.mark.parametrize(("count", "text"), [(0, "0 frames"), (1, "1 frame"), (2, "2 frames")])
def test_counts_for_people(count: int, text: str) -> None:
    assert count_text(count, "frame") == text


def test_messages_are_one_line() -> None:
    assert one_line(ValueError("first\n  second")) == "first second"
    assert one_line(MemoryError()) == "MemoryError"


def test_a_system_error_names_its_file_and_not_its_number() -> None:
    assert one_line(PermissionError(13, "Permission denied", "x.fits")) == "x.fits: Permission denied"
    assert one_line(OSError(28, "No space left on device")) == "No space left on device"
    assert one_line(FrameReadError("a.fits: no image")) == "a.fits: no image"


def test_a_program_without_a_console_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    say("nobody hears it")
    answer("nobody sees it")
    finish_answer()


def test_letters_that_the_console_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Windows console, or a name that is no UTF-8 on Linux."""
    console = io.TextIOWrapper(io.BytesIO(), encoding="cp1252", newline="\n")
    monkeypatch.setattr(sys, "stdout", console)
    answer("M\u00fcnchen")
    answer("\u661f.fits")
    answer("\udcff.fits")
    finish_answer()
    assert console.buffer.getvalue() == b"M\xfcnchen\n\\u661f.fits\n\\udcff.fits\n"


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_are_no_error(closed: str) -> None:
    if os.name != "posix":
        pytest.skip("needs a POSIX shell")
    code = "import sys; from zemosaic_stack_core.command_line import main; sys.exit(main(['demo', sys.argv[1]]))"
    done = subprocess.run(
        ["sh", "-c", f'"$0" -c "$1" "$2" {closed}', sys.executable, code, __file__],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == ExitCode.BAD_INPUT
    assert done.stderr in (
        "",
        f"zemosaic-worker demo: {__file__}: a file; expected a folder for the frames and the results, or a new name\n",
    )


@pytest.mark.parametrize("is_main_thread", [True, False])
def test_sigterm_is_an_interrupt(is_main_thread: bool) -> None:
    """Batch systems send it; elsewhere than in the main thread the signals are somebody else's."""
    before = signal.getsignal(signal.SIGTERM)
    caught: list[str] = []

    def work() -> None:
        try:
            with term_is_interrupt():
                if is_main_thread:
                    signal.raise_signal(signal.SIGTERM)
                caught.append("nothing")
        except KeyboardInterrupt:
            caught.append("interrupt")

    if is_main_thread:
        work()
    else:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert caught == ["interrupt" if is_main_thread else "nothing"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    import numpy as np

    answer_json({"a": float("nan"), "b": [np.float32(1.5), np.int64(2)], "c": {"d": Path("x")}, "e": (True, None)})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [1.5, 2], "c": {"d": "x"}, "e": [True, None]}


class _Command:
    """A command that ends as it is told."""

    def __init__(self, outcome: BaseException | int) -> None:
        self.outcome = outcome

    def run(self, _arguments: argparse.Namespace) -> int:
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


@pytest.mark.parametrize(
    ("outcome", "code", "message"),
    [
        (0, ExitCode.DONE, ""),
        (1, ExitCode.FAILED, ""),
        (InvalidInputError("kappa_low is -1"), ExitCode.BAD_INPUT, "kappa_low is -1"),
        (FrameReadError("a.fits: no image"), ExitCode.BAD_INPUT, "a.fits: no image"),
        (OutOfMemoryError("one pixel"), ExitCode.FAILED, "one pixel"),
        (OutputError("out.fits: disk full"), ExitCode.FAILED, "out.fits: disk full"),
        (PermissionError(13, "Permission denied", "x"), ExitCode.FAILED, "Permission denied"),
        (MemoryError(), ExitCode.FAILED, "MemoryError"),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED, "interrupted; nothing half-written is left"),
    ],
)
def test_exit_codes(
    outcome: BaseException | int,
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from zemosaic_stack_core.command_line import doctor

    monkeypatch.setattr(doctor, "run", _Command(outcome).run)
    assert main(["doctor"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.count("\n") == (1 if message else 0)


def test_a_bug_shows_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    from zemosaic_stack_core.command_line import doctor

    monkeypatch.setattr(doctor, "run", _Command(ZeroDivisionError()).run)
    with pytest.raises(ZeroDivisionError):
        main(["doctor"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["stakc"], "invalid choice: 'stakc'"),
        (["stakc"], "(did you mean stack?); see zemosaic-worker --help"),
        (["stack", "a.fits"], "required: -o/--output"),
        (
            ["stack", "a.fits", "-o", "b.fits", "--kappa", "3"],
            "zemosaic-worker stack: unrecognized arguments: --kappa (did you mean --kappa-low or --kappa-high?); see "
            "zemosaic-worker stack --help",
        ),
        (["stack", "a.fits", "-o", "b.fits", "--rejecton", "none"], "--rejecton (did you mean --rejection or "),
        (["stack", "a.fits", "-o", "b.fits", "--kapa-low=3"], "--kapa-low=3 (did you mean --kappa-low"),
        (["stack", "a.fits", "-o", "b.fits", "--bogus"], "unrecognized arguments: --bogus; see"),
        (["doctor", "x"], "zemosaic-worker doctor: unrecognized arguments: x; see zemosaic-worker doctor --help"),
        (
            ["stack", "a.fits", "-o", "b.fits", "--kappa-low", "x"],
            "argument --kappa-low: 'x' is neither a number nor 'none'",
        ),
        (["stack", "a.fits", "-o", "b.fits", "--rejection", "sigma"], "invalid choice: 'sigma'"),
        (["stack", "a.fits", "-o", "b.fits", "--rejection", "kappa"], "(did you mean kappa_sigma?)"),
        (["stack", "a.fits", "-o", "b.fits", "--workers", "0"], "'0' is not a whole number of at least 1"),
        (["stack", "a.fits", "-o", "b.fits", "--reference", "best"], "neither the index of a frame"),
        (["stack", "a.fits", "-o", "b.fits", "--maps", "coverage,depth"], "map is 'depth'; expected one of"),
        (["stack", "a.fits", "-o", "b.fits", "--maps", "all,coverage"], "map is 'all'; expected one of"),
        (["stack", "a.fits", "-o", "b.fits", "--maps", ""], "rejected_high, variance, low, high; or all, or none; see"),
    ],
)
def test_bad_usage(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == ExitCode.BAD_INPUT
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == ExitCode.DONE
    assert f"zemosaic-worker {command}" in capsys.readouterr().out


PARSERS = next(action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction)).choices


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_80_columns_and_says_nothing_twice(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert all(len(line) <= 80 for line in PARSERS[command].format_help().splitlines())
    texts = [action.help for action in PARSERS[command]._actions]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_with_a_value_says_its_default(command: str) -> None:
    for action in PARSERS[command]._actions:
        if action.option_strings and action.nargs != 0:
            shown = PARSERS[command]._get_formatter()._get_help_string(action)
            assert shown is not None
            assert "(default: " in shown or "(required)" in shown, action.option_strings


def test_an_error_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["gone.fits"], ["gone.fits", "--kapa-low", "3"]):
        assert main(["stack", *arguments, "-o", str(tmp_path / "m.fits"), "--json"]) == ExitCode.BAD_INPUT
        said = capsys.readouterr()
        assert json.loads(said.out) == {"error": said.err.strip(), "exit_code": 2}


def test_messages_spell_options_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    for given, message in (
        (("--kappa-low", "-1"), "--kappa-low is -1.0; expected a finite number > 0"),
        (("--weighting", "exposure", "--combine", "min"), "--weighting is 'exposure' with --combine 'min'; expected "),
        (("--max-fwhm", "0"), "--max-fwhm is 0.0; expected 0.1 to 1000"),
    ):
        assert main(["stack", "gone.fits", "-o", "m.fits", *given]) == ExitCode.BAD_INPUT
        assert message in capsys.readouterr().err


def test_a_shell_completes(tmp_path: Path) -> None:
    pytest.importorskip("argcomplete", reason="the extra completion is not installed")
    line = "zemosaic-worker stack --kappa-l"
    settings = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9", "IFS": "\n"}
    answers = tmp_path / "answers"
    environment = os.environ | settings | {"_ARGCOMPLETE_STDOUT_FILENAME": str(answers)}
    done = subprocess.run(
        [sys.executable, "-m", "zemosaic_stack_core"], env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert answers.read_text(encoding="utf-8").strip() == "--kappa-low"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from zemosaic_stack_core import __version__

    assert main(["--version"]) == ExitCode.DONE
    assert capsys.readouterr().out == f"zemosaic-worker {__version__}\n"


def test_logging_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from zemosaic_stack_core.command_line import doctor

    logger = logging.getLogger("zemosaic_stack_core")
    before = (logger.level, list(logger.handlers))

    def run(_arguments: argparse.Namespace) -> int:
        logging.getLogger("zemosaic_stack_core.somewhere").info("by the way")
        logging.getLogger("zemosaic_stack_core.somewhere").warning("watch out")
        return 0

    monkeypatch.setattr(doctor, "run", run)
    assert main(["doctor"]) == 0
    assert capsys.readouterr().err == "watch out\n"
    assert main(["--verbose", "doctor"]) == 0
    assert capsys.readouterr().err == "by the way\nwatch out\n"
    assert main(["doctor", "-v"]) == 0
    assert capsys.readouterr().err == "by the way\nwatch out\n"
    assert (logger.level, logger.handlers) == before


def test_help_imports_nothing_big() -> None:
    code = (
        "import sys; from zemosaic_stack_core.command_line import main; main(['stack', '--help']); "
        "big = {'astropy', 'rich', 'PIL', 'scipy', 'cupy', 'distributed', 'asyncio'}; "
        "sys.exit(', '.join(sorted(big & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_worker_offers_phase_3() -> None:
    import zemosaic_stack_core.phase3
    import zemosaic_worker

    for name in ("create_master_tile", "_stack_master_tile_cpu", "_stack_master_tile_auto"):
        assert getattr(zemosaic_worker, name) is getattr(zemosaic_stack_core.phase3, name)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        zemosaic_worker.nothing  # noqa: B018 - asking is the test


def test_python_m() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "zemosaic_stack_core", "stack"], capture_output=True, text=True, check=False
    )
    assert done.returncode == ExitCode.BAD_INPUT
    assert done.stderr.startswith("zemosaic-worker stack: the following arguments are required: FRAMES, -o/--output")


def test_who_reads_the_answer_may_go(tmp_path: Path) -> None:
    code = (
        "import sys; from zemosaic_stack_core.command_line import doctor, main; "
        "doctor.run = lambda arguments: 0 * sum(sys.stdout.write('x' * 100000) for _ in range(1000)); "
        "sys.exit(main(['doctor']))"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() == ExitCode.FAILED
