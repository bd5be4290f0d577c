"""How Sphinx builds the documentation; `make docs` does it."""

import os
import sys
from pathlib import Path

import sklearn_stndt

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

project = "sklearn_stndt"
author = "The sklearn_stndt developers"
copyright = author
version = release = sklearn_stndt.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
    "mathml",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "_ext", "auto_examples/**/*.ipynb"]
default_role = "literal"  # docstrings name parameters in single backquotes
html_math_renderer = "mathml"

# There is no intersphinx: a build has to pass without a network.

autosummary_generate = True
toc_object_entries_show_parents = "hide"
autodoc_typehints = "none"  # the docstrings name the types
numpydoc_class_members_toctree = False
numpydoc_show_inherited_class_members = True

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3

# The gallery shows generated data, also on a machine that has recordings.
os.environ.pop("STNDT_DATA", None)

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"/plot_",
    "within_subsection_order": "gallery_order.InReadingOrder",
    "backreferences_dir": "api/backreferences",
    "doc_module": ("sklearn_stndt",),
    "copyfile_regex": r".*\.rst",
    "remove_config_comments": True,
    "capture_repr": ("_repr_html_",),
    "image_srcset": ["2x"],
    "show_memory": False,
    "write_computation_times": False,
}

html_theme = "pydata_sphinx_theme"
html_title = "sklearn_stndt"
html_static_path = ["_static"]
html_css_files = ["docs.css"]
html_show_sourcelink = False
WITHOUT_SIDEBAR = [
    "index",
    "install",
    "whats_new",
    "versions",
    "contributing",
    "architecture",
    "decisions",
    "checklists",
]
html_sidebars = {name: [] for name in WITHOUT_SIDEBAR}
html_theme_options = {
    "logo": {"text": "sklearn_stndt"},
    "show_prev_next": True,
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 5,
    "navbar_persistent": ["search-button"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
