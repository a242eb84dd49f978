"""Results as `grade` leaves them, notebooks as students hand them in, and courses to put both into."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import nbformat
from nbformat import v4

from grading.hidden.doors.gradebook.course import FILES, run_nbgrader
from grading.hidden.handout.regions import guides
from grading.hidden.reports.gradescope import write_result
from grading.hidden.reports.result import FunctionResult, Result
from grading.rubric import load_rubric

RUBRIC = load_rubric()
ANSWERS = ("kl-weight", "ddpm-ddim", "guidance", "failure")
PICTURE = (
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0\x1f\x15\xc4\x89\0\0\0\rIDATx\x9cc\xf8\xcf\xc0"
    b"\xf0\x1f\0\x05\0\x01\xff\x89\x99=\x1d\0\0\0\0IEND\xaeB`\x82"
)


def result(submission: str, student: str | None = None, lost: dict[str, float] | None = None, **changes) -> Result:
    """A result with all points but for `lost`: id -> points kept."""
    functions = []
    for id, function in RUBRIC.functions.items():
        kept = (lost or {}).get(id, function.points)
        problem = "" if kept == function.points else "is off by 0.3"
        functions.append(FunctionResult(id, kept, function.points, {"hostile": [3, 4]}, problem))
    return Result(submission, submission if student is None else student, "f00d", "sandbox", functions, **changes)


def graded(folder: Path, *results: Result) -> Path:
    """What `grade --out` writes of them."""
    for each in results:
        write_result(folder, each, RUBRIC)
    return folder


def analysis(course: Path, answers: dict[str, str], *more) -> bytes:
    """The written part with answers, as a student hands it in; `more` cells at the end."""
    notebook = nbformat.read(course / "release" / "hw3" / "analysis.ipynb", as_version=4)
    for cell in notebook.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        if name in answers:
            cell.source = answers[name]
    notebook.cells += more
    return nbformat.writes(notebook).encode()


def code_cell(source: str, *outputs):
    return v4.new_code_cell(source, outputs=list(outputs))


def guide() -> list[str]:
    """The lines of the marking guide, which no student may see."""
    found = guides((FILES / "analysis.ipynb").read_text(encoding="utf-8"), "analysis.ipynb")
    assert len(found) > 4 * len(ANSWERS)
    return found


def dump(course: Path) -> list[str]:
    """All that the gradebook holds."""
    with closing(sqlite3.connect(course / "gradebook.db")) as database:
        return sorted(database.iterdump())


def everything(course: Path) -> dict[str, object]:
    """All that a course holds; of the gradebook its content, as sqlite counts each time that it is written."""
    files = (path for path in course.rglob("*") if path.is_file() and path.name != "gradebook.db")
    return {path.relative_to(course).as_posix(): path.read_bytes() for path in files} | {"": dump(course)}


def run(course: Path, *arguments: str) -> str:
    """`nbgrader ARGUMENTS` in a course; what it said."""
    done = run_nbgrader(course, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def exported(course: Path) -> dict[str, dict[str, str]]:
    """`nbgrader export`: student -> row."""
    run(course, "export")
    header, *rows = (course / "grades.csv").read_text().splitlines()
    table = [dict(zip(header.split(","), row.split(","), strict=True)) for row in rows]
    return {row["student_id"]: row for row in table}
