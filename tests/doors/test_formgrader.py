"""nbgrader's pages in a browser: graders see the synced points and set marks; what students wrote does nothing there.

SCREENSHOTS=FOLDER keeps the pictures that docs/INSTRUCTOR.md shows.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from nbconvert import HTMLExporter
from nbformat import v4
from nbgrader.api import Gradebook
from playwright.sync_api import expect, sync_playwright

from browsing import CHROMIUM, jupyter_lab, needs_chromium
from classroom import solution, write
from coursework import RUBRIC, analysis, code_cell, exported, graded, result, run
from grading.feedback import mistakes
from grading.hidden.doors.gradebook.course import make_course, open_course
from grading.hidden.doors.gradebook.sync import sync
from grading.hidden.intake.inbox import find
from harness import ROOT

expect.set_options(timeout=60_000)
pytestmark = needs_chromium

VAE = RUBRIC.submit[0]
ANSWER = """\
Two of ten zeros have a hole in the stroke, with every seed that I tried.

My guess was too few steps, $\\eta = 0$. With 200 steps instead of 20 there are as many, so **the guess was wrong**.
"""
HACK = "window.HACKED=1"
LIVE = f"""\
<script>{HACK}</script><img src=x onerror="{HACK}"><svg onload="{HACK}"></svg>
<a href="javascript:{HACK}">raw</a> [link](javascript:{HACK}) [data](data:text/html,<script>{HACK}</script>)
[reference][r] <iframe srcdoc="<script>parent.{HACK}</script>"></iframe> <div class="navbar-fixed-top">over</div>
![elsewhere](http://elsewhere.invalid/x.png "a\\" onerror=\\"{HACK}") ![up](../../../../gradebook.db)
<style>body {{ display: none }}</style> <form action="http://elsewhere.invalid"><button>go</button></form>

$\\href{{javascript:{HACK}}}{{formula}}$

```mermaid
<img src=x onerror="{HACK}">
```

[r]: javascript:{HACK}
"""


def hostile_cells():
    marks = {"grade_id": f'x" onmouseover="{HACK}', "grade": True, "solution": True, "points": "<script>", "locked": 1}
    attached = v4.new_markdown_cell("![x](attachment:x.png) ![y](attachment:missing.png) " + LIVE)
    attached["attachments"] = {"x.png": {f'image/png" onerror="{HACK}"': "AAAA", "image/svg+xml": "AAAA"}}
    page = v4.new_output("display_data", {"text/html": f"<script>{HACK}</script>", "application/javascript": HACK})
    return [
        v4.new_markdown_cell(LIVE, metadata={"nbgrader": marks, "tags": [f'"><script>{HACK}</script>']}),
        attached,
        v4.new_raw_cell(LIVE, metadata={"raw_mimetype": "text/html"}),
        code_cell(LIVE, page),
    ]


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    """Three students: one who answered, one who attacks, one who handed in nothing but code."""
    root = tmp_path_factory.mktemp("formgrader")
    make_course(root / "course", RUBRIC)
    mine, theirs = {"failure": ANSWER}, {"failure": LIVE, "guidance": LIVE}
    files = {file: f"'''{LIVE}'''\n".encode() + content for file, content in solution().items()}
    wrong = {**solution(), VAE: solution()[VAE].replace(b"return 0.5 * (mu", b"return (mu")}
    picture = (ROOT / "imgs" / "ddpm_sample.png").read_bytes()
    write(
        root / "in" / "ada",
        {**wrong, "analysis.ipynb": analysis(root / "course", mine), "figures/failure.png": picture},
    )
    write(root / "in" / "mallory", {**files, "analysis.ipynb": analysis(root / "course", theirs, *hostile_cells())})
    write(root / "in" / "bob", solution())
    sources = {handin.name: handin.source for handin in find([root / "in"], RUBRIC).handins}
    hostile = result("mallory", source=sources["mallory"], notes=[LIVE], output=LIVE, hours_late=30, penalty=20)
    hostile.functions[1].points, hostile.functions[1].problem, hostile.functions[1].public = 2.5, LIVE, LIVE
    ada = result("ada", lost={"kl": 4.0}, source=sources["ada"])
    ada.functions[1].hint = mistakes()["kl"]["no_half"]
    graded(root / "graded", ada, result("bob", source=sources["bob"]), hostile)
    assert sync(root / "graded", root / "course", [root / "in"], platform=None, bulk=False) == 0
    return root / "course"


@pytest.fixture(scope="module")
def server(course, tmp_path_factory):
    """The address of `jupyter lab` in the course, with its token as a pattern."""
    with jupyter_lab(course, tmp_path_factory.mktemp("runtime")) as address:
        yield address


@pytest.fixture(scope="module")
def browser(server):
    """A browser that has opened the address that `jupyter lab` prints."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])  # root cannot have one
        context = chromium.new_context(viewport={"width": 1000, "height": 720})
        context.set_default_timeout(60_000)
        page = context.new_page()
        page.goto(server.format("/formgrader"))
        page.close()
        yield context
        chromium.close()


@pytest.fixture
def page(browser):
    page = browser.new_page()
    yield page
    page.close()


def keep(page, name: str) -> None:
    """A picture for the docs, if somebody asked for it."""
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(folder) / name)


def notebook_id(course: Path, name: str, student: str) -> str:
    opened = open_course(course)
    with Gradebook(opened.database, opened.id) as book:
        return book.find_submission_notebook(name, "hw3", student).id


def test_a_grader_sees_the_points_and_sets_a_mark(course, server, page):
    page.goto(server.format("/formgrader/manage_submissions/hw3"))
    for student, score in {"ada": "94 / 140", "bob": "100 / 140", "mallory": "92.5 / 140"}.items():
        expect(page.locator("tr", has_text=student)).to_contain_text(score)
    page.goto(server.format("/formgrader/gradebook/hw3/analysis"))
    expect(page.locator("body")).to_contain_text("0 / 40")
    expect(page.locator("[data-search='needs manual grade']")).to_have_count(2)  # who answered
    keep(page, "formgrader-list.png")
    page.goto(server.format(f"/formgrader/submissions/{notebook_id(course, 'analysis', 'ada')}/"))
    expect(page.locator("img[src='figures/failure.png']").last).not_to_have_js_property("naturalWidth", 0)
    comment = page.locator("#failure-comment")
    expect(page.locator("#failure")).to_have_class(re.compile("needs_manual_grade"))  # its scripts are there
    expect(comment).to_have_attribute("placeholder", re.compile("Type any comments"))
    with page.expect_response(lambda answer: "/api/grade/" in answer.url and answer.request.method == "PUT") as saved:
        page.locator("#failure").fill("8.5")
        comment.focus()
    assert saved.value.ok
    with page.expect_response(lambda answer: "/api/comment/" in answer.url and answer.request.method == "PUT") as saved:
        comment.fill("A false guess, well tested.")
        page.locator("#guidance").focus()
    assert saved.value.ok
    page.locator("#failure").scroll_into_view_if_needed()
    keep(page, "formgrader-mark.png")
    opened = open_course(course)
    with Gradebook(opened.database, opened.id) as book:
        grade = book.find_grade("failure", "analysis", "hw3", "ada")
        assert (grade.manual_score, grade.needs_manual_grade) == (8.5, False)
        assert book.find_comment("failure", "analysis", "hw3", "ada").comment == "A false guess, well tested."
    assert float(exported(course)["ada"]["score"]) == 94 + 8.5


def test_points_of_code_are_on_its_page(course, server, page):
    page.goto(server.format(f"/formgrader/submissions/{notebook_id(course, 'code', 'ada')}/"))
    expect(page.locator("#posterior")).to_have_attribute("placeholder", "20")
    expect(page.locator("#kl")).to_have_attribute("placeholder", "4")
    expect(page.locator("#notebook").first).to_contain_text("is off by 0.3")
    page.locator("#kl").scroll_into_view_if_needed()
    keep(page, "formgrader-code.png")


def test_what_a_student_wrote_does_nothing(course, server, browser, tmp_path):
    run(course, "generate_feedback", "hw3", "--student=mallory")
    pages = [
        server.format(f"/formgrader/submissions/{notebook_id(course, name, 'mallory')}/")
        for name in ("analysis", "code")
    ]
    pages += [path.as_uri() for path in sorted(course.glob("feedback/mallory/hw3/*.html"))]
    assert len(pages) == 4
    for address in pages:
        seen = visit(browser, address)
        assert (seen["hacked"], seen["dialogs"]) == (None, []), address
        assert not [request for request in seen["requests"] if "elsewhere" in request or "gradebook.db" in request]
        assert seen["shown"], "the page is hidden by a style of the student's"
        assert not [link for link in seen["links"] if not link.startswith(("#", "http"))]
        assert seen["forms"] == []
    # The same notebook, as nbgrader shows it otherwise: the test must be able to fail.
    (handed_in,) = course.glob("submitted/mallory/hw3/analysis.ipynb")
    as_it_is = json.loads(handed_in.read_text())
    as_it_is["cells"] = [cell for cell in as_it_is["cells"] if "attachment:" not in str(cell["source"])]
    (tmp_path / "as_it_is.ipynb").write_text(json.dumps(as_it_is))
    html, _ = HTMLExporter(template_name="classic").from_filename(str(tmp_path / "as_it_is.ipynb"))
    (tmp_path / "as_it_is.html").write_text(html)
    assert visit(browser, (tmp_path / "as_it_is.html").as_uri())["hacked"] == 1


def visit(browser, address: str) -> dict[str, object]:
    """What a page does when it is opened and each thing on it is pointed at."""
    page = browser.new_page()
    requests, dialogs = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    # Only what this machine serves: the pages' own libraries lie elsewhere, and a test needs no network.
    page.route(
        "**/*",
        lambda route: route.continue_() if route.request.url.startswith(("http://127", "file:")) else route.abort(),
    )
    page.goto(address, wait_until="load")
    page.evaluate("document.querySelectorAll('*').forEach(e => e.dispatchEvent(new MouseEvent('mouseover')))")
    seen = {
        "hacked": page.evaluate("window.HACKED || null"),
        "links": page.eval_on_selector_all("#notebook a", "links => links.map(a => a.getAttribute('href') || '#')"),
        "forms": page.eval_on_selector_all(
            "#notebook form, #notebook iframe, #notebook style", "e => e.map(x => x.outerHTML)"
        ),
        "shown": page.evaluate("getComputedStyle(document.body).display !== 'none'"),
    }
    page.close()
    return {**seen, "requests": requests, "dialogs": dialogs}
