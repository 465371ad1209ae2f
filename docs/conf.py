"""Sphinx configuration: furo, Markdown through myst-nb, the reference from docstrings."""

from importlib.metadata import version as installed

project = "evenloop"
author = "The evenloop maintainers"
project_copyright = f"2026, {author}"
release = version = installed("evenloop")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build", "jupyter_execute", "decisions/template.md"]
templates_path = ["_templates"]

html_theme = "furo"
html_title = f"evenloop {release}"

# `name` in a docstring links to the object if there is one and is set as code otherwise.
default_role = "py:obj"
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
# A page with {code-cell} blocks is run while it is built, and an error in it ends the build.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120

autosummary_generate = True
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
