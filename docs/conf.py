"""Sphinx configuration: furo, Markdown through myst-nb, the reference from docstrings."""

import re
from importlib.metadata import version as installed
from itertools import groupby
from pathlib import Path

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

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
# A page with {code-cell} blocks is run while it is built, and an error in it ends the build.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120

autosummary_generate = True
# A package that says what it exports still documents all of its modules.
autosummary_ignore_module_all = True
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
BULLET_OR_MARKUP = re.compile(r"^(\s*[*-] )|([*|]|(?<=\w)_(?!\w))", re.MULTILINE)


def plain(text: str) -> str:
    """Our docstrings know one kind of markup, `code`; all else is meant as it is written."""
    pieces = CODE.split(text)
    for i, piece in enumerate(pieces):
        code = i % 2
        pieces[i] = rf"\ ``{piece}``\ " if code else BULLET_OR_MARKUP.sub(escape, piece)
    return "".join(pieces)


def escape(found: re.Match[str]) -> str:
    """A bullet as it is, any other special character behind a backslash."""
    return found[1] or f"\\{found[2]}"


def read_as_plain_text(app, what, name, obj, options, lines):
    """Keep reStructuredText from reading formulas as markup; doctests stay untouched."""
    example = False
    marked = []
    for line in lines:
        example = line.lstrip().startswith(">>>") or (example and bool(line.strip()))
        marked.append((example, line))
    lines[:] = [
        line
        for is_example, group in groupby(marked, key=lambda pair: pair[0])
        for line in (
            [text for _, text in group]
            if is_example
            else plain("\n".join(text for _, text in group)).split("\n")
        )
    ]
    if what in ("attribute", "data") and lines:
        # Napoleon takes what stands before the first colon for a type: give it an empty one.
        lines[0] = f": {lines[0]}"


def name_the_other_pages(app, page, source):
    """Every page of docs/ that the index does not name, where it says `@others`.

    A glob would name again what another table of contents has.
    """
    if page == "index":
        named = set(re.findall(r"^[\w/-]+$", source[0], re.MULTILINE))
        pages = sorted(path.stem for path in Path(app.srcdir).glob("*.md"))
        others = [page for page in pages if page not in {*named, "index"}]
        source[0] = source[0].replace("@others", "\n".join(others))


def setup(app):
    app.connect("source-read", name_the_other_pages)
    # Before napoleon, which turns the sections of a docstring into real markup.
    app.connect("autodoc-process-docstring", read_as_plain_text, priority=400)
