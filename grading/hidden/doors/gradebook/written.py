"""The written part among what students handed in: their notebook `analysis` and the pictures that it shows.

It is taken from the submissions that are graded, where it lies in them, or from where nbgrader collected it; who handed
in neither has the empty notebook, which can be marked. It is never run, and `nbgrader_config.py` makes it harmless.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import nbformat

from grading.errors import GradingError
from grading.hidden.doors.gradebook.course import FILES, WRITTEN, Course
from grading.hidden.intake.inbox import find
from grading.hidden.reports.files import write_atomically
from grading.hidden.reports.result import Result
from grading.pack import pictures_in
from grading.rubric import Rubric

NOTEBOOK = f"{WRITTEN}.ipynb"
MAX_BYTES = 8 << 20  # of the notebook, and of a picture
PNG = b"\x89PNG\r\n\x1a\n"
_NOT_A_NOTEBOOK = (ValueError, TypeError, LookupError, AttributeError, RecursionError, nbformat.ValidationError)


@dataclass(frozen=True)
class HandedIn:
    """The files of one submission: the rubric's, the notebook and its pictures, as far as they are there."""

    files: dict[str, bytes]


@cache
def pictures() -> tuple[str, ...]:
    """The pictures that the notebook asks for."""
    return pictures_in((FILES / NOTEBOOK).read_text(encoding="utf-8"))


def written_parts(
    paths: list[Path], results: Iterable[Result], rubric: Rubric, *, platform: str | None, bulk: bool
) -> dict[str, HandedIn]:
    """Submission -> its files, for the results whose submission is among these and lay at the same place.

    Raises GradingError when none does.
    """
    if not paths:
        return {}
    more = replace(rubric, submit=(*rubric.submit, NOTEBOOK, *pictures()), max_file_bytes=MAX_BYTES)
    inbox = find(paths, rubric, platform=platform, bulk=bulk)
    handins = {(handin.name, handin.source): handin for handin in inbox.handins}
    found = {
        result.submission: HandedIn(handins[result.submission, result.source].read(more).files)
        for result in results
        if (result.submission, result.source) in handins
    }
    if not found:
        same = "name the PATHs, and --platform and --bulk, as they were given to `grade`"
        raise GradingError(f"none of the results is of a submission in {', '.join(map(str, paths))}: {same}", 2)
    return found


def hand_in(course: Course, student: str, found: HandedIn | None) -> str:
    """Put a student's written part where nbgrader looks for it. Returns why it could not be; "" if it could.

    What is there already stays, unless the submission has another one.
    """
    place = course.notebook("submitted", student, WRITTEN)
    problem = ""
    if found and NOTEBOOK in found.files:
        problem = _problem(found.files[NOTEBOOK])
        if not problem:
            parts = {NOTEBOOK: found.files[NOTEBOOK]}
            parts |= {name: found.files[name] for name in pictures() if found.files.get(name, b"").startswith(PNG)}
            _replace(course, student, place.parent, parts)
            return ""
    if not place.is_file():
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(course.released(WRITTEN), place)
    return problem


def _replace(course: Course, student: str, folder: Path, parts: dict[str, bytes]) -> None:
    """Write what differs; if anything does, nbgrader is to take the written part up again."""
    is_new = False
    for name in (NOTEBOOK, *pictures()):
        path = folder / name
        before = path.read_bytes() if path.is_file() else None
        if before != parts.get(name):
            is_new = True
            if name in parts:
                write_atomically(path, parts[name])
            else:
                path.unlink()
    if is_new:
        taken_up = course.notebook("autograded", student, WRITTEN)
        for name in pictures():
            (taken_up.parent / name).unlink(missing_ok=True)
        taken_up.unlink(missing_ok=True)


def _problem(content: bytes) -> str:
    """Why this is no notebook; "" if it is one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is odd and can be read
            notebook = nbformat.reads(content.decode("utf-8"), as_version=4)
            nbformat.validate(notebook, relax_add_props=True)
    except _NOT_A_NOTEBOOK as error:
        return f"{NOTEBOOK} is no notebook: {type(error).__name__}"
    return ""
