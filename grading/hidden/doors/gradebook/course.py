"""An nbgrader course on disk: how it is made, and whether a folder is one that can be written to."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from alembic.script import ScriptDirectory
from nbgrader.dbutil import ALEMBIC_DIR

from grading.errors import GradingError
from grading.hidden.doors.gradebook.notebooks import empty_notebook
from grading.rubric import Rubric

FILES = Path(__file__).parent / "files"
CONFIG, DATABASE = "nbgrader_config.py", "gradebook.db"
ASSIGNMENT, CODE, WRITTEN = "hw3", "code", "analysis"


@dataclass(frozen=True)
class Course:
    """A course that has the assignment. id: nbgrader's course id.  points: graded cell of `code` -> its points."""

    folder: Path
    id: str
    points: dict[str, float]

    @property
    def database(self) -> str:
        """The gradebook's address."""
        return f"sqlite:///{(self.folder / DATABASE).absolute()}"

    def notebook(self, step: str, student: str, name: str) -> Path:
        """Where nbgrader has a notebook. step: submitted, autograded, ..."""
        return self.folder / step / student / ASSIGNMENT / f"{name}.ipynb"

    def released(self, name: str) -> Path:
        """Where students' empty notebook is."""
        return self.folder / "release" / ASSIGNMENT / f"{name}.ipynb"


def make_course(folder: Path, rubric: Rubric) -> None:
    """Write a course whose assignment is ready to be released. Raises GradingError; then nothing is written."""
    if (folder / CONFIG).exists():
        raise GradingError(f"{folder} is a course already, and stays as it is: sync to it, or name another folder", 2)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise GradingError(f"{folder} is not an empty folder: name another one, or delete it", exit_code=2)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.absolute().parent, prefix=".course-") as scratch:
        course = Path(scratch) / "course"
        source = course / "source" / ASSIGNMENT
        source.mkdir(parents=True)
        shutil.copy(FILES / f"{WRITTEN}.ipynb", source)
        (source / f"{CODE}.ipynb").write_text(empty_notebook(rubric), encoding="utf-8")
        settings = (FILES / CONFIG).read_text(encoding="utf-8")
        id = re.sub(r"[^\w-]+", "-", folder.absolute().name).strip("-") or "course"
        (course / CONFIG).write_text(settings.replace("COURSE_ID", id), encoding="utf-8")
        done = run_nbgrader(course, "generate_assignment", ASSIGNMENT)
        if done.returncode != 0:
            raise GradingError(f"nbgrader generate_assignment failed: {last_line(done.stderr)}")
        if folder.exists():
            folder.rmdir()
        shutil.move(course, folder)


def open_course(folder: Path) -> Course:
    """Check that a folder is a course whose database this nbgrader can write. Raises GradingError; changes nothing."""
    path = folder / DATABASE
    if not (folder / CONFIG).is_file() or not path.is_file():
        make = f"python -m grading nbgrader init {folder}"
        raise GradingError(f"{folder} is no nbgrader course ({CONFIG} and {DATABASE}): make one with `{make}`", 2)
    wanted = ScriptDirectory(ALEMBIC_DIR).get_current_head()
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            found = database.execute("SELECT version_num FROM alembic_version").fetchall()
            if found != [(wanted,)]:
                shown = found[0][0] if found else "none"
                raise GradingError(
                    f"{path} is of another version of nbgrader (its revision is {shown}, not {wanted}): install the "
                    f"nbgrader that wrote it, or copy the file and run `nbgrader db upgrade` in {folder}",
                    exit_code=2,
                )
            ids = database.execute("SELECT course_id FROM assignment WHERE name = ?", (ASSIGNMENT,)).fetchall()
            points = database.execute(
                "SELECT base_cell.name, grade_cells.max_score FROM grade_cells"
                " JOIN base_cell ON base_cell.id = grade_cells.id JOIN notebook ON notebook.id = base_cell.notebook_id"
                " JOIN assignment ON assignment.id = notebook.assignment_id"
                " WHERE assignment.name = ? AND notebook.name = ?",
                (ASSIGNMENT, CODE),
            ).fetchall()
    except sqlite3.Error as error:
        raise GradingError(f"{path} is no nbgrader gradebook ({error}): name another course", exit_code=2) from error
    course = Course(folder, ids[0][0] if ids else "", dict(points))
    if not ids or not all(course.released(name).is_file() for name in (CODE, WRITTEN)):
        what = f"run `nbgrader generate_assignment {ASSIGNMENT} --force` in it"
        raise GradingError(f"{folder} has no released assignment {ASSIGNMENT}: {what}", exit_code=2)
    return course


def run_nbgrader(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`nbgrader ARGUMENTS` in a course. It calls `alembic`, which lies beside this Python, by its bare name."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    command = [sys.executable, "-m", "nbgrader", *arguments]
    return subprocess.run(
        command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False
    )


def last_line(text: str) -> str:
    """What a command said last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
