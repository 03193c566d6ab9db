"""The site: ``sphinx-build -W docs site``."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import zemosaic_stack_core

project = "ZeMosaic Stack Core"
author = project_copyright = "ZeMosaic Stack Core developers"
release = version = zemosaic_stack_core.__version__
extensions = ["commands", "myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["figures"]
html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["blocks.css", "enlarge.css"]
html_js_files = ["enlarge.js"]
html_theme_options = {"top_of_page_buttons": []}
myst_heading_anchors = 3
napoleon_google_docstring = False
autodoc_default_options = {"members": True, "member-order": "bysource", "show-inheritance": True}
autodoc_typehints = "none"  # the docstrings give types, shapes and units
autodoc_class_signature = "mixed"
python_display_short_literal_types = True
pygments_dark_style = "monokai"
suppress_warnings = [
    "myst.xref_missing",  # links to files of the repository, which the site does not have; the tests follow every link
    "toc.empty_glob",
]
