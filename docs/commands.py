"""A directive of the site: every command with its options, in the groups of ``--help``, as the program has them now."""

from __future__ import annotations

import argparse
import re
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive

from zemosaic_stack_core.command_line import COMMANDS, PROGRAM, build_parser


class Commands(Directive):
    """``.. commands::``: a section for each command."""

    def run(self) -> list[nodes.Node]:
        """Return the sections."""
        parser = build_parser()
        children = next(one.choices for one in parser._actions if isinstance(one, argparse._SubParsersAction))
        return [self._command(name, children[name]) for name in COMMANDS]

    def _command(self, name: str, parser: argparse.ArgumentParser) -> nodes.section:
        """Return a command's section."""
        usage = " ".join(parser.format_usage().removeprefix("usage: ").split())
        section = self._section(name, f"{PROGRAM} {name}")
        section += [_paragraph(parser.description or ""), nodes.literal_block(usage, usage)]
        for group in parser._action_groups:
            if group._group_actions:
                part = self._section(f"{name}-{group.title}", group.title or "")
                part += [_paragraph(group.description)] if group.description else []
                part += nodes.definition_list("", *(_option(parser, action) for action in group._group_actions))
                section += part
        if parser.epilog:
            section += _paragraph(parser.epilog)
        return section

    def _section(self, name: str, title: str) -> nodes.section:
        """Return an empty section that can be linked to."""
        section = nodes.section("", nodes.title(title, title), ids=[nodes.make_id(name)], names=[name])
        self.state.document.note_explicit_target(section)
        return section


def _option(parser: argparse.ArgumentParser, action: argparse.Action) -> nodes.definition_list_item:
    """Return an option, what follows it, and its help."""
    formatter = parser._get_formatter()
    called = formatter._format_action_invocation(action)
    text = formatter._expand_help(action) if action.help else ""
    return nodes.definition_list_item(
        "", nodes.term("", "", nodes.literal(called, called)), nodes.definition("", _paragraph(text))
    )


def _paragraph(text: str) -> nodes.paragraph:
    """Return a text, its options as they are typed: two hyphens in a row are no dash."""
    parts = re.split(r"(--[a-z][a-z-]*)", text)
    return nodes.paragraph(
        "", "", *(nodes.literal(part, part) if part.startswith("--") else nodes.Text(part) for part in parts)
    )


def setup(app: Any) -> dict[str, Any]:
    """Add the directive."""
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True}
