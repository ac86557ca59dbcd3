"""Sphinx configuration."""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from generated_pages import write_pages
from parameter_types import add_types

import xrf_sr_plans

write_pages()

project = "xrf-sr-plans"
author = "the xrf-sr-plans developers"
release = version = xrf_sr_plans.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "numpydoc"]
# Each parameter is listed once: numpydoc makes the table, and `add_types` puts the types into it.
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False
# A name in single backticks in a docstring is code, and a link where we document it.
default_role = "py:obj"
# Queries and messages are shown with the quotes that they are typed with.
smartquotes = False
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
# Notebooks are run by `scripts/run_notebooks.py` and by a test, not whenever pages are built.
nb_execution_mode = "off"
html_theme = "furo"
html_show_copyright = False
exclude_patterns = ["_build"]


def setup(app: Any) -> None:
    """Connect what this project adds to Sphinx."""
    app.connect("autodoc-process-docstring", add_types, priority=400)
