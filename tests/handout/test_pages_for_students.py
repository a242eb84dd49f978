"""The notes: every TODO points to its section, every link leads somewhere, and GitHub shows the mathematics."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from grading.hidden.handout.regions import find_regions
from grading.hidden.handout.release import build
from grading.rubric import load_rubric
from harness import ROOT
from pages import NOTES, PAGES, formulas

LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", NOTES, ids=lambda page: page.name)
def test_links_lead_somewhere_in_the_handout(page):
    handout = build(ROOT)[0]
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        target, _, anchor = link.partition("#")
        found = (page.parent / target).resolve() if target else page
        assert found.relative_to(ROOT).as_posix() in handout, link
        if anchor:
            assert anchor in anchors(found), link


@pytest.mark.parametrize("id", load_rubric().functions)
def test_every_todo_names_its_section(id):
    file = load_rubric().functions[id].file
    source = (ROOT / file).read_text(encoding="utf-8")
    region = next(region for region in find_regions(source, file) if region.id == id)
    above = "\n".join(source.splitlines()[: region.first])
    docstring = above[above.rindex('"""', 0, above.rindex('"""')) :]
    place, anchor = re.search(r"(docs/notes/[\w-]+\.md)#([\w-]+)", docstring).groups()
    assert anchor in anchors(ROOT / place)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_maths_is_githubs(page):
    """Dollars pair up, and no formula has what GitHub's Markdown changes before it becomes mathematics."""
    inline, displayed = formulas(page)
    assert [formula for formula in inline if formula != formula.strip() or "\n" in formula] == []
    # A backslash before punctuation is Markdown's own escape.
    assert [formula for formula in [*inline, *displayed] if re.search(r"\\[!-/:-@\[-`{-~]", formula)] == []
