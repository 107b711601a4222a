"""How the documentation site is built: `make docs`, with warnings as errors, from what is installed."""

import sys
from pathlib import Path

import ctc_imaging

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "ctc_imaging"
author = "the ctc_imaging developers"
copyright = "2026, the ctc_imaging developers. For research use only"
release = version = ctc_imaging.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "site_pages"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "_ext"]
root_doc = "index"

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]

# Public names of each module where they are defined, in the order of the source.
autodoc_default_options = {"members": True, "member-order": "bysource", "ignore-module-all": True}
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
# Two rooms have an `Estimate` of their own, and a type's words are often the names of attributes somewhere: such a word
# stays a word. Links that pages make themselves are another kind of warning, and stay errors.
suppress_warnings = ["ref.python"]

html_theme = "furo"
html_title = "ctc_imaging"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
# Nothing of the site is loaded from elsewhere: furo's fonts are the system's, the search runs in the page.
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0b5c8a", "color-brand-content": "#0b5c8a"},
    "dark_css_variables": {"color-brand-primary": "#7cc4f0", "color-brand-content": "#7cc4f0"},
    "announcement": "For research use only. Not a medical device.",
    "navigation_with_keys": True,
}
