"""The documentation site: ``make docs``."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import from_code  # noqa: E402 (found by the line above)

from_code.write()

project = "spk_dt"
author = "the authors of spk_dt"
release = version = version_of("spk_dt")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton", "from_code.mathml"]
exclude_patterns = ["from_code"]
html_theme = "furo"
html_title = f"spk_dt {release}"
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
smartquotes = False  # two hyphens begin an option

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
nb_execution_mode = "off"  # what is executed is run by tests, and its output is kept

autodoc_default_options = {"ignore-module-all": True}  # names that a package gathers are described in their modules
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
default_role = "code"  # single backticks in docstrings
suppress_warnings = ["ref.python"]  # attributes of several classes have one name: 'units', 'name', 'settings'
