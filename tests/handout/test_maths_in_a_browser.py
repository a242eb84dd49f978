"""Every formula that students read, set by MathJax in a browser, as GitHub does: JupyterLab brings one along."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from playwright.sync_api import TimeoutError, sync_playwright

from browsing import CHROMIUM, jupyter_lab, needs_chromium
from pages import PAGES, formulas

pytestmark = needs_chromium

# The last ones are wrong: a macro that does not exist, a bracket that is not closed, an environment without an end.
# MathJax sets the first in red, and says of the others what is wrong.
WRONG = [r"\fracc{1}{2}", r"\left( x", r"\begin{aligned} x", r"x^2^2", r"\frac{1}"]


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    """The formulas of all pages, and the wrong ones, that MathJax cannot set: (formula, page) pairs."""
    folder, runtime = tmp_path_factory.mktemp("maths"), tmp_path_factory.mktemp("runtime")
    found = [(f"${formula}$", "") for formula in WRONG]
    for page in PAGES:
        inline, displayed = formulas(page)
        found += [(f"${formula}$", page.name) for formula in inline]
        found += [(f"$${formula}$$", page.name) for formula in displayed]
    assert len(found) > 100
    cells = ["\n".join([f"### formula {number}", "", formula]) for number, (formula, _) in enumerate(found)]
    (folder / "formulas.md").write_text("\n\n".join(cells))
    settings = runtime / "JUPYTER_CONFIG_DIR" / "lab" / "user-settings" / "@jupyterlab" / "docmanager-extension"
    settings.mkdir(parents=True)
    shown = {"defaultViewers": {"markdown": "Markdown Preview"}}
    (settings / "plugin.jupyterlab-settings").write_text(json.dumps(shown))
    with jupyter_lab(folder, runtime) as address, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])  # root cannot have one
        page = chromium.new_page()
        page.goto(address.format("/doc/tree/formulas.md"))
        page.wait_for_selector("mjx-container", state="attached", timeout=60_000)
        with suppress(TimeoutError):  # what is no formula to MathJax stays text
            everything = f"document.querySelectorAll('mjx-container').length >= {len(found)}"
            page.wait_for_function(everything, timeout=10_000)
        bad = page.evaluate("""() => [...document.querySelectorAll(".jp-MarkdownViewer h3")].map(heading => {
            const set = [];
            for (let next = heading.nextElementSibling; next && next.tagName !== "H3"; next = next.nextElementSibling)
                set.push(next);
            const all = selector => set.flatMap(part => [...part.querySelectorAll(selector)]);
            const red = all("mjx-mtext").filter(text => text.style.color === "red");
            const text = set.map(part => part.innerText).join("");
            return all("mjx-container").length !== 1 || text.includes("$") || red.length > 0
                || all("mjx-merror, [data-mjx-error]").length > 0;
        })""")
        chromium.close()
    assert len(bad) == len(found)
    return [pair for pair, is_bad in zip(found, bad, strict=True) if is_bad]


def test_every_formula_is_set(refused):
    assert [(formula, page) for formula, page in refused if page] == []


def test_a_wrong_formula_is_noticed(refused):
    assert [formula for formula, page in refused if not page] == [f"${formula}$" for formula in WRONG]
