"""Every command and script in the documentation runs, in the order of its page; names, options and links are right."""

from __future__ import annotations

import argparse
import importlib
import re
import shutil
from pathlib import Path

import pytest
from doc_blocks import LANGUAGES, ROOT, Block, blocks_of, check_block, prepare, run_block, write_commands

from zemosaic_stack_core.command_line import build_parser, main

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
IDS = [page.relative_to(DOCS).as_posix() for page in PAGES]
# Read on the repository's pages, not on the site.
ASIDE = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "changes/README.md")]
WITH_COMMANDS = [page for page in PAGES if any(block.language in ("bash", "python") for block in blocks_of(page))]
# Pages that make their own frames.
FROM_NOTHING = ("tutorial.md", "what-it-says.md")
# Whose numbers are of a machine, and of estimates that may become better.
WITH_OTHER_NUMBERS = ("what-it-says.md",)
AFTER_A_RUN = ("report.md",)
# What pages import that is not always installed.
EXTRAS = ("photutils", "xarray", "torch", "dask", "reproject")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder that has our commands."""
    if shutil.which("bash") is None:
        pytest.skip("the commands of the documentation are for bash, which is not here")
    monkeypatch.chdir(tmp_path)
    write_commands(tmp_path / "bin")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_every_block_runs(page: Path, folder: Path) -> None:
    if page.name not in FROM_NOTHING:
        prepare(folder)
    if page.name in AFTER_A_RUN:
        assert main(["run", "night", "-o", "tiles", "--quiet"]) == 0
    said = ""
    for block in blocks_of(page):
        if block.language == "text" and page.name in FROM_NOTHING:
            assert_said(block.text, said, r"\d+(\.\d+)?" if page.name in WITH_OTHER_NUMBERS else r"\d+\.\d s$")
        if block.language in ("bash", "python"):
            if block.why_not_run:
                check_block(block)
                continue
            for package in re.findall(rf"^(?:import|from) ({'|'.join(EXTRAS)})\b", block.text, re.MULTILINE):
                pytest.importorskip(package, reason=f"{package} is not installed")
            if "dask" in block.text or "--local-cluster" in block.text:
                pytest.importorskip("distributed", reason="dask.distributed is not installed (extra dask)")
            said = run_block(block, folder)


def assert_said(shown: str, said: str, changing: str) -> None:
    """Check that lines a page shows are what was said, but for what changes and for folders before ``...``."""
    lines = [re.sub(changing, "N", line) for line in said.splitlines()]
    for line in shown.splitlines():
        pattern = re.escape(re.sub(changing, "N", line)).replace(r"\.\.\.", ".*")
        assert any(re.fullmatch(pattern, other) for other in lines), f"{line}\n{said}"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_blocks_say_what_they_are(page: Path) -> None:
    for block in blocks_of(page):
        assert block.language in LANGUAGES or block.language.startswith("{"), f"line {block.line}"
        if block.language not in ("bash", "python", "powershell"):
            assert not re.search(r"^(\w+=\S+ )*(zemosaic-worker|python|pip|dask) ", block.text, re.MULTILINE), block


of_every_page = pytest.mark.parametrize(
    "page", [*PAGES, *ASIDE], ids=lambda page: page.relative_to(ROOT).as_posix().removeprefix("docs/")
)


@of_every_page
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if link.startswith(("http://", "https://")):
            continue
        name, _, anchor = link.partition("#")
        target = page if not name else page.parent / name
        assert target.is_file(), link
        if anchor:
            titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in titles], link


def test_every_page_is_linked_from_another() -> None:
    linked = set()
    for page in [*PAGES, *ASIDE]:
        links = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
        linked |= {(page.parent / link).resolve() for link in links} - {page}
    assert [page for page in PAGES if page.resolve() not in linked] == []


@of_every_page
def test_names_in_the_text_exist(page: Path) -> None:
    for name in sorted(
        set(re.findall(r"\bzemosaic_(?:stack_core|worker)(?:\.(?!py\b)\w+)+", page.read_text(encoding="utf-8")))
    ):
        _resolve(name)


@of_every_page
def test_files_in_the_text_exist(page: Path) -> None:
    roots = [ROOT, ROOT / "zemosaic_stack_core", DOCS]
    for name in re.findall(r"`((?:[\w.-]+/)*[\w-]+(?:\.py|/))`", page.read_text(encoding="utf-8")):
        assert any((root / name).exists() for root in roots), name


def _resolve(name: str) -> object:
    """Return what a dotted name is the name of."""
    parts = name.split(".")
    found: object = importlib.import_module(parts[0])
    for end, part in enumerate(parts[1:], start=2):
        if not hasattr(found, part):
            importlib.import_module(".".join(parts[:end]))
        found = getattr(found, part)
    return found


@of_every_page
def test_options_in_the_text_exist(page: Path) -> None:
    prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    ours = {option for parser in _parsers(build_parser()) for option in parser._option_string_actions}
    others = {"--nthreads", "--fmad", "--data"}  # dask's, NVIDIA's compiler's, the benchmarks'
    named = set(re.findall(r"(?<=`)--[a-z][a-z0-9-]*", prose))
    assert named <= ours | others


def _parsers(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    """Return the parsers of all commands."""
    actions = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return [parser, *(child for action in actions for child in action.choices.values())]


def test_a_block_that_can_not_run_is_parsed_all_the_same() -> None:
    check_block(Block("bash", "zemosaic-worker run night -o tiles\n", 1, "why"))
    check_block(Block("python", 'run = ["zemosaic-worker", "run", "night", "-o", here]\n', 1, "why"))
    for language, text in (
        ("bash", "zemosaic-worker run night -o tiles --no-such-option\n"),
        ("bash", "for job in 1 2; do\n"),
        ("python", 'run = ["zemosaic-worker", "run", "night", "--output-folder", "tiles"]\n'),
    ):
        with pytest.raises(AssertionError):
            check_block(Block(language, text, 1, "why"))
