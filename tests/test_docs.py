"""The documentation runs: every ```python block of the pages at the root and in docs/.

The blocks of a page share one namespace, in order. A block with prompts (`>>>`) is a doctest; one
without is a script. A block that is not meant to run is not marked `python`.
"""

from __future__ import annotations

import doctest
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from evenloop.cli import app
from evenloop.config import load

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if "_build" not in page.parts]
BLOCK = re.compile(r"^```(?:python|\{code-cell\}[^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def blocks(text: str) -> Iterator[tuple[int, str]]:
    """Each python block of a page with the number of the line before it."""
    for match in BLOCK.finditer(text):
        yield text.count("\n", 0, match.start(1)), match.group(1)


def play(text: str, name: str) -> int:
    """Run the blocks of a page in one namespace and return how many there were."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    played = list(blocks(text))
    for line, source in played:
        if ">>>" in source:
            test = doctest.DocTestParser().get_doctest(source, namespace, name, name, line)
            doctest.DebugRunner(optionflags=OPTIONS).run(test, clear_globs=False)
            namespace = test.globs
        else:
            exec(compile("\n" * line + source, name, "exec"), namespace)  # noqa: S102
    return len(played)


def names(page: Path) -> str:
    """A page as the report of the tests names it."""
    return str(page.relative_to(ROOT))


def examples(page: Path) -> object:
    """A page to run; the README's plain PyTorch loop draws as a stranger's does."""
    own = [pytest.mark.global_rng] if page == ROOT / "README.md" else []
    return pytest.param(page, marks=own, id=names(page))


@pytest.mark.parametrize("page", [examples(page) for page in PAGES])
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = page.read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert play(text, names(page)) == len(re.findall(r"^```(?:python|\{code-cell)", text, re.M))


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!\w+:)([^)#\s]+)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", page.read_text("utf-8"), re.MULTILINE))
    assert named <= targets


def commands(text: str) -> set[str]:
    """Words that a page gives to `evenloop` in its bash blocks and in its inline code."""
    shell = "\n".join(re.findall(r"^```bash\n(.*?)^```$", text, re.DOTALL | re.MULTILINE))
    typed = re.findall(r"^(?:\S+/)?evenloop ([a-z]+)", shell, re.MULTILINE)
    return {*typed, *re.findall(r"`evenloop ([a-z]+)", text)}


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_commands_exist(page: Path) -> None:
    assert commands(page.read_text(encoding="utf-8")) <= set(get_command(app).commands)


def test_presets_of_the_readme_exist() -> None:
    rows = re.findall(r"^\|.*`([\w-]+)` \|$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE)
    assert len(rows) >= 5
    for name in rows:
        assert load(name).loop


def test_commands_are_told_from_prose() -> None:
    page = "evenloop runs\n\n```bash\nevenloop nope\n.venv/bin/evenloop demo\n```\n`evenloop x y`\n"
    assert commands(page) == {"nope", "demo", "x"}


def test_a_wrong_script_and_a_wrong_doctest_are_found() -> None:
    with pytest.raises(ZeroDivisionError):
        play("```python\n1 / 0\n```\n", "page.md")
    with pytest.raises(doctest.DocTestFailure):
        play("```python\n>>> 1 + 1\n3\n\n```\n", "page.md")
    with pytest.raises(doctest.UnexpectedException):
        play("```python\n>>> 1 / 0\n\n```\n", "page.md")


def test_blocks_share_a_namespace_and_others_are_left_alone() -> None:
    page = "```python\nx = 2\n```\n\n```bash\nfalse\n```\n\n```python\n>>> x\n2\n>>> y = x\n```\n"
    assert play(page + "\n```python\nassert y == 2\n```\n", "page.md") == 3
