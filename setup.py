"""What pyproject.toml can't say: README.md as the page of a package index, where relative links lead nowhere."""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import setup

README = (Path(__file__).parent / "README.md").read_text(encoding="utf-8")
WITHOUT_PICTURES = re.sub(r"^!\[[^\]]*\]\((?!https://)[^)]*\)\n+", "", README, flags=re.MULTILINE)
PAGE = re.sub(r"\[([^\]]*)\]\((?!https://)[^)]*\)", r"\1", WITHOUT_PICTURES)

setup(long_description=PAGE, long_description_content_type="text/markdown")
