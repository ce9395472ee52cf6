"""The site: ``sphinx-build -W docs build/site``. Every page but the generated ones reads well on GitHub too."""

from __future__ import annotations

import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from menu_pages import write_menu_pages

HERE = Path(__file__).parent
ROOT = HERE.parent

project = "ntkrun"
author = "the authors of ntkrun"
release = metadata.version("ntkrun")
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",
]
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 4
nb_execution_mode = "force"
nb_execution_in_temp = True  # runs leave nothing here
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True  # the log of a run is one block
html_theme = "furo"
html_title = f"ntkrun {release}"
exclude_patterns = ["_generated/README.md"]
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_google_docstring = True
napoleon_use_ivar = True
suppress_warnings = ["myst.header"]  # pages for GitHub may begin where another one ends
nitpicky = False


def setup(app: Any) -> dict[str, Any]:
    """Make the pages that are made from the package itself, and lead links out of ``docs`` somewhere."""
    write_menu_pages(HERE / "_generated")
    app.connect("source-read", _links_beyond)
    return {"parallel_read_safe": True}


def _links_beyond(app: Any, name: str, source: list[str]) -> None:
    """Links to files of the repository outside of ``docs`` become names: the site has no such pages."""
    depth = name.count("/")  # of the page below docs
    source[0] = re.sub(rf"\[([^\]]+)\]\((?:\.\./){{{depth + 1},}}(?!docs)[^)]*\)", r"\1", source[0])
    source[0] = source[0].replace("```math", "```{math}")
