"""This course's settings, written by `python -m grading nbgrader init`. They are yours to change.

Run nbgrader and `jupyter lab` in the folder of this file, or they do not see it. What it is for:

* Nothing that a student wrote is run. The functions are graded elsewhere, in a sandbox, and people read the rest.
* Nothing that a student wrote is live on a page that graders or other students open.
* The points and the notebook `code` come from `python -m grading nbgrader sync` and from nowhere else: nbgrader would
  give full marks to a test cell without output, and none to a notebook that was not handed in.
"""

import html
import re
import shutil
from pathlib import Path
from typing import Any

import bleach
import nbformat
from jinja2 import pass_context
from jinja2.runtime import Context
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import InvalidNotebook
from nbformat import NotebookNode
from nbgrader.api import Gradebook, Notebook
from nbgrader.preprocessors import (
    CheckCellMetadata,
    DeduplicateIds,
    NbGraderPreprocessor,
    OverwriteCells,
    OverwriteKernelspec,
    SaveAutoGrades,
)

COURSE = Path(__file__).resolve().parent
CODE = "code"  # the notebook of the grader's points


class OnlyText(NbGraderPreprocessor):
    """What was handed in, as text: no outputs, and of metadata and attachments only what graders need.

    Of `code`, what `sync` wrote, whatever was handed in under that name.
    """

    def preprocess(self, nb: NotebookNode, resources: dict[str, Any]) -> tuple[NotebookNode, dict[str, Any]]:
        """Make the notebook anew."""
        place = resources["nbgrader"]
        if place["notebook"] == CODE:
            return nbformat.read(graded(place["student"], place["assignment"]), as_version=4), resources
        with Gradebook(place["db_url"]) as gradebook:
            ours = known_cells(gradebook.find_notebook(place["notebook"], place["assignment"]))
        cells = []
        for number, cell in enumerate(nb.cells):
            make = nbformat.v4.new_code_cell if cell.cell_type == "code" else nbformat.v4.new_markdown_cell
            marks = cell.metadata.get("nbgrader")
            name = marks.get("grade_id") if isinstance(marks, dict) else None
            metadata = {"nbgrader": dict(ours[name])} if isinstance(name, str) and name in ours else {}
            cells.append(make(str(cell.source), id=f"cell-{number}", metadata=metadata))
            if pictures := attached(cell):
                cells[-1]["attachments"] = pictures
        return nbformat.v4.new_notebook(cells=cells), resources


class SaveWrittenPart(SaveAutoGrades):
    """Writes into the gradebook which answers are to be marked; leaves the points of `code` as `sync` wrote them."""

    def preprocess(self, nb: NotebookNode, resources: dict[str, Any]) -> tuple[NotebookNode, dict[str, Any]]:
        """As nbgrader does, but for `code`."""
        return (nb, resources) if resources["nbgrader"]["notebook"] == CODE else super().preprocess(nb, resources)


def graded(student: str, assignment: str) -> Path:
    """The notebook that `sync` wrote for a student; the empty one of the release for whom it wrote none."""
    synced = COURSE / "synced" / student / assignment / f"{CODE}.ipynb"
    return synced if synced.is_file() else COURSE / "release" / assignment / f"{CODE}.ipynb"


def known_cells(notebook: Notebook) -> dict[str, dict[str, Any]]:
    """Name -> nbgrader's metadata of the cells that the assignment has, as the gradebook knows them."""
    points = {cell.name: cell.max_score for cell in [*notebook.grade_cells, *notebook.task_cells]}
    grades, solutions, tasks = (
        {cell.name for cell in cells} for cells in (notebook.grade_cells, notebook.solution_cells, notebook.task_cells)
    )
    return {
        cell.name: {
            "grade_id": cell.name,
            "schema_version": 3,
            "cell_type": cell.cell_type,
            "checksum": cell.checksum,
            "locked": cell.locked,
            "grade": cell.name in grades,
            "solution": cell.name in solutions,
            "task": cell.name in tasks,
            **({"points": points[cell.name]} if cell.name in points else {}),
        }
        for cell in notebook.source_cells
    }


def attached(cell: NotebookNode) -> dict[str, dict[str, str]]:
    """The pictures that were pasted into a cell."""
    found = {}
    attachments = cell.get("attachments")
    for name, kinds in attachments.items() if isinstance(attachments, dict) else ():
        for kind in ("image/png", "image/jpeg"):
            content = kinds.get(kind) if isinstance(kinds, dict) else None
            if isinstance(content, str) and re.fullmatch(r"[A-Za-z0-9+/=\s]+", content):
                found[name] = {kind: content}
    return found


def stand_in(assignment: str, student: str, notebooks: list[str]) -> None:
    """Where `code` was not handed in, nbgrader would overwrite its points with 0: put the empty one there."""
    for notebook in notebooks:
        place = Path(notebook).with_name(f"{CODE}.ipynb")
        if not place.exists():
            shutil.copy(COURSE / "release" / assignment / place.name, place)


# -- text on pages -----------------------------------------------------------------------------------------

TAGS = """a b blockquote br code dd del div dl dt em h1 h2 h3 h4 h5 h6 hr i img li ol p pre s span strong sub sup
table tbody td th thead tr ul""".split()  # noqa: SIM905
PICTURE = r"(?!.*\.\.)\w[\w ./%-]*\.(png|jpe?g|gif)|data:image/(png|jpeg);base64,[A-Za-z0-9+/=\s]+"
VALUES = {
    ("a", "href"): r"https?://.*|#.*",
    ("img", "src"): PICTURE,  # nothing is loaded from elsewhere, which would tell who is marking when
    ("img", "width"): r"\d+%?",
    ("span", "class"): r"[a-z]{1,2}\d?",  # the colours of code
    ("div", "class"): "highlight",
}
PLAIN = {"alt", "title", "align", "colspan", "rowspan", "start"}
MATHJAX_HTML = re.compile(r"\\(href|class|cssId|style|require)\b")  # what makes links and attributes out of formulas

exporter = HTMLExporter()


def may_stay(tag: str, name: str, value: str) -> bool:
    """Whether an attribute may stay on a page."""
    pattern = VALUES.get((tag, name))
    return name in PLAIN if pattern is None else re.fullmatch(pattern, value, re.IGNORECASE | re.DOTALL) is not None


@pass_context
def harmless_markdown(context: Context, source: str) -> str:
    """Markdown as HTML in which nothing runs and nothing is loaded from elsewhere."""
    try:
        page = exporter.markdown2html(context, MATHJAX_HTML.sub(r"\1", source))
    except (InvalidNotebook, RecursionError):  # a picture that was not attached, or a thousand nested brackets
        return f"<pre>{html.escape(source)}</pre>"
    return bleach.clean(page, tags=TAGS, attributes=may_stay, protocols=["http", "https", "data"])


# -- settings ----------------------------------------------------------------------------------------------

c = get_config()  # type: ignore[name-defined]  # noqa: F821

c.CourseDirectory.course_id = "COURSE_ID"

c.Autograde.sanitize_preprocessors = [
    OnlyText,
    DeduplicateIds,
    OverwriteKernelspec,
    OverwriteCells,
    CheckCellMetadata,
]
c.Autograde.autograde_preprocessors = [SaveWrittenPart, CheckCellMetadata]  # nothing is executed
c.Autograde.pre_convert_hook = stand_in
c.OverwriteCells.add_missing_cells = True  # or an answer whose cell was deleted could not be marked

c.HTMLExporter.filters = {"markdown2html": harmless_markdown}
c.ClearSolutions.code_stub = {"python": "# Nothing to write here: this notebook comes back to you with your points."}
c.FormgradeExtension.debug = False  # it would print these settings on the page
