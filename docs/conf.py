"""Sphinx's settings: `make docs` builds the site into docs/_build, offline, and treats warnings as errors.

The build executes nothing. The notebooks among the pages are those of a finished run, by default of `make demo`
(TRM_NB_RUN names another run's folder); where there is none, the page says how to make them.
"""

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import generated  # noqa: E402

from trm_nb._version import __version__  # noqa: E402

project = "trm-nb"
author = "the trm-nb authors"
version = release = __version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
default_role = "literal"  # `name` in a docstring is code
suppress_warnings = ["toc.empty_glob"]  # no finished run, no notebooks

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
nb_execution_mode = "off"
nb_ipywidgets_js = {}  # no requests: saved widgets show their static form
nb_mime_priority_overrides = [("html", "application/vnd.jupyter.widget-view+json", None)]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True}
napoleon_numpy_docstring = False
add_module_names = False

html_theme = "pydata_sphinx_theme"
html_title = "trm-nb"
html_show_sourcelink = False
html_theme_options = {"navigation_with_keys": False, "secondary_sidebar_items": ["page-toc"], "show_nav_level": 1}

LINK = re.compile(r"\[([^\]\\]+)\]\(([\w/]+\.ipynb)\)")
PLACEHOLDERS = {"<!-- config fields -->": generated.config_fields, "<!-- commands -->": generated.commands}


def copy_notebooks() -> None:
    """Copy the executed notebooks of a run to where the table of contents looks for them.

    A link to a notebook that is not among them becomes plain text; the cell with the parameters of that run, which
    hold its absolute path, is left out.
    """
    pages = HERE / "_notebooks"
    shutil.rmtree(pages, ignore_errors=True)
    pages.mkdir()
    run = Path(os.environ.get("TRM_NB_RUN", HERE.parent / "outputs/demo"))
    notebooks = sorted((run / "notebooks").glob("0*.ipynb"))
    names = {path.name for path in notebooks}
    for path in notebooks:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        tags = [set(cell["metadata"].get("tags", [])) for cell in notebook["cells"]]
        cells = zip(notebook["cells"], tags, strict=True)
        notebook["cells"] = [cell for cell, given in cells if "injected-parameters" not in given]
        text = json.dumps(notebook, ensure_ascii=False)
        text = LINK.sub(lambda link: link[0] if link[2] in names else link[1], text)
        (pages / path.name).write_text(text, encoding="utf-8")


def fill_placeholders(app: Any, name: str, source: list[str]) -> None:
    """Put what is made from the code into the page that is being read."""
    for placeholder, make in PLACEHOLDERS.items():
        if placeholder in source[0]:
            source[0] = source[0].replace(placeholder, make())


def setup(app: Any) -> None:
    """Called by Sphinx."""
    copy_notebooks()
    app.connect("source-read", fill_placeholders)
