"""`python -m grading nbgrader sync`: the grader's points, and the notebooks that show them, into a course.

Everything is read and checked before anything is written. Points go into the gradebook in one transaction, which is
closed after the notebooks stand where nbgrader looks for them. What people marked and commented is left as it is.

A student's points and text are kept in `synced/`, apart from what nbgrader collects: there, students choose the files.
"""

from __future__ import annotations

import re
import sys
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from nbgrader.api import Gradebook
from sqlalchemy.exc import DBAPIError, SAWarning

from grading.errors import GradingError
from grading.hidden.decisions.record import read_record
from grading.hidden.doors.gradebook.course import (
    ASSIGNMENT,
    CODE,
    WRITTEN,
    Course,
    last_line,
    open_course,
    run_nbgrader,
)
from grading.hidden.doors.gradebook.notebooks import graded_notebook
from grading.hidden.doors.gradebook.written import HandedIn, hand_in, written_parts
from grading.hidden.doors.marks import sound_results
from grading.hidden.intake.inbox import listed
from grading.hidden.reports.files import write_atomically
from grading.hidden.reports.result import Result
from grading.hidden.reports.text import readable
from grading.rubric import Rubric, load_rubric

# Of ids that are folders' names, parts of addresses and cells of nbgrader's pages and tables, none of which escapes.
SAFE_ID = re.compile(r"\w[\w .@+-]{0,126}(?<! )")


@dataclass(frozen=True)
class Person:
    """One student, alone or one of a group: the result, the name that a roster gives, and the mark."""

    result: Result
    name: str
    total: float


@dataclass
class Outcome:
    """What a sync did, to be told: lists of students, of whom the last two say why.

    written: how many of those synced have handed in the written part.
    """

    new: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    review: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    written: int = 0


def sync(grades: Path, folder: Path, submissions: list[Path], *, platform: str | None, bulk: bool) -> int:
    """Bring a course up to date with what was graded. Returns the exit code: 1 if somebody had to be left out.

    Raises GradingError, before anything is written, when either folder is not what it should be, when their ids or
    points differ, and when a student has two results.
    """
    rubric = load_rubric()
    course = open_course(folder)
    _check_points(folder, course.points, {id: function.points for id, function in rubric.functions.items()})
    results = _read_results(grades, rubric)
    outcome = Outcome()
    by_student = _by_student(results, outcome)
    handed_in = written_parts(submissions, results, rubric, platform=platform, bulk=bulk)
    absent = [id for id in read_record(grades).absent if SAFE_ID.fullmatch(id) and id not in by_student]
    try:
        _write(course, rubric, by_student, absent, handed_in, outcome)
    except DBAPIError as error:
        problem = f"the gradebook of {folder} cannot be written ({error.orig}): close what else uses it, and sync again"
        raise GradingError(problem) from error
    outcome.unread += _autograde(course)
    outcome.gone = sorted({path.name for path in folder.glob("synced/*")} - by_student.keys())
    empty = course.released(WRITTEN).read_bytes()
    outcome.written = sum(course.notebook("submitted", name, WRITTEN).read_bytes() != empty for name in by_student)
    _tell(course, outcome)
    return 1 if outcome.left_out or outcome.unread else 0


# -- what was graded ---------------------------------------------------------------------------------------


def _read_results(grades: Path, rubric: Rubric) -> list[Result]:
    """All results of a folder. Raises GradingError unless each is sound and of this rubric."""
    results = sound_results(grades)
    for name, result in results.items():
        graded = {function.id: function.possible for function in result.functions}
        _check_points(
            grades / name / "results.json", graded, {id: function.points for id, function in rubric.functions.items()}
        )
    return list(results.values())


def _check_points(where: Path, found: dict[str, float], rubric: dict[str, float]) -> None:
    """Raise GradingError unless ids and points are the rubric's."""
    if found == rubric:
        return
    ids = [*rubric, *(id for id in found if id not in rubric)]
    different = next(id for id in ids if found.get(id) != rubric.get(id))
    here, there = (f"{points[different]:g}" if different in points else "no" for points in (found, rubric))
    raise GradingError(
        f"{readable(str(where))} is of another version of the rubric ({different}: {here} points, and the rubric has "
        f"{there}): grade everything again without --only, and sync to a course that this rubric made",
        exit_code=2,
    )


def _by_student(results: list[Result], outcome: Outcome) -> dict[str, Person]:
    """Student -> what is theirs; of a group, each member's. Raises GradingError where a student has two results."""
    rows: dict[str, list[tuple[str, Person]]] = {}
    for result in results:
        for student, person in _people(result).items():
            if SAFE_ID.fullmatch(student):  # where case does not count, `Ada` and `ada` are one folder
                rows.setdefault(student.casefold(), []).append((student, person))
            else:
                outcome.left_out.append(f"{readable(student) or 'nobody'} ({readable(result.submission)})")
    twice = [row for row in rows.values() if len(row) > 1]
    if twice:
        names = "; ".join(
            f"{row[0][0]} has {listed([readable(person.result.submission) for _, person in row])}" for row in twice[:5]
        )
        more = f" and {len(twice) - 5} more" if len(twice) > 5 else ""
        raise GradingError(f"students with two results: {names}{more}: take away the folders that do not count", 2)
    return dict(sorted((row[0] for row in rows.values()), key=lambda found: found[0]))


def _people(result: Result) -> dict[str, Person]:
    """Student -> what is theirs of one result. A group whose members no roster told has one mark for all."""
    if result.members:
        found = {member.student: Person(result, member.name, result.mark(member)) for member in result.members}
    else:
        members = [member.strip() for member in result.student.split(";")]
        found = {member: Person(result, result.name, result.total) for member in members}
    return {unicodedata.normalize("NFC", student): person for student, person in found.items()}


# -- writing -----------------------------------------------------------------------------------------------


def _write(
    course: Course,
    rubric: Rubric,
    by_student: dict[str, Person],
    absent: list[str],
    handed_in: dict[str, HandedIn],
    outcome: Outcome,
) -> None:
    with closing(Gradebook(course.database, course.id)) as gradebook, _one_transaction(gradebook):
        known = {submission.student_id for submission in gradebook.assignment_submissions(ASSIGNMENT)}
        for student in absent:  # who handed nothing in has a row in nbgrader's tables, and no submission
            gradebook.update_or_create_student(student)
        for student, person in by_student.items():
            is_changed = _write_points(gradebook, student, person, outcome)
            row = outcome.new if student not in known else outcome.changed if is_changed else outcome.same
            row.append(student)
        for student, person in by_student.items():
            found = handed_in.get(person.result.submission)
            content = graded_notebook(person.result, rubric, found.files if found else None).encode("utf-8")
            for step in ("synced", "submitted", "autograded"):
                _write_if_new(course.notebook(step, student, CODE), content)
            if problem := hand_in(course, student, found):
                outcome.unread.append(f"{student} ({problem})")


def _write_points(gradebook: Gradebook, student: str, person: Person, outcome: Outcome) -> bool:
    """One student's points; returns whether they changed.

    A mark that somebody set by hand stays, and asks to be looked at again when the points below it change.
    """
    result = person.result
    first, _, last = person.name.rpartition(" ")
    names = {"first_name": first, "last_name": last} if person.name else {}
    gradebook.update_or_create_student(student, **names)
    gradebook.update_or_create_submission(ASSIGNMENT, student)
    notebook = gradebook.find_submission_notebook(CODE, ASSIGNMENT, student)
    grades = {grade.name: grade for grade in notebook.grades}
    points = {function.id: result.points(function) for function in result.functions}
    changed = [id for id in points if grades[id].auto_score != points[id]]
    for id in points:
        grade = grades[id]
        grade.auto_score = points[id]
        if grade.manual_score is None:
            grade.needs_manual_grade = False
        elif id in changed:
            grade.needs_manual_grade = True
            outcome.review.append(f"{student} ({id})")
    # What nbgrader takes off: with it, its totals are ours.
    penalty = round(result.earned - person.total, 4)
    is_changed = bool(changed) or penalty != (notebook.late_submission_penalty or 0)
    notebook.late_submission_penalty = penalty or None
    return is_changed


@contextmanager
def _one_transaction(gradebook: Gradebook) -> Iterator[None]:
    """All or nothing: the gradebook's own commits, which are one per call, wait for the end."""
    gradebook.db.remove()
    with gradebook.engine.connect() as connection, warnings.catch_warnings():
        warnings.simplefilter("ignore", SAWarning)  # nbgrader adds submissions in an order that SQLAlchemy questions
        connection.exec_driver_sql("BEGIN IMMEDIATE")
        gradebook.db.configure(bind=connection, join_transaction_mode="rollback_only")
        yield
        gradebook.db.flush()
        connection.commit()


def _write_if_new(path: Path, content: bytes) -> None:
    if not path.is_file() or path.read_bytes() != content:
        write_atomically(path, content)


def _autograde(course: Course) -> list[str]:
    """Have nbgrader take up the written parts that it has not. Returns the students whose cannot be read."""

    def waiting() -> list[str]:
        found = (path.parents[1].name for path in course.folder.glob(f"submitted/*/{ASSIGNMENT}/{WRITTEN}.ipynb"))
        return sorted(student for student in found if not course.notebook("autograded", student, WRITTEN).is_file())

    if not waiting():
        return []
    done = run_nbgrader(course.folder, "autograde", ASSIGNMENT, f"--notebook={WRITTEN}")
    left = waiting()
    if done.returncode != 0 and not left:
        raise GradingError(f"nbgrader autograde failed: {last_line(done.stderr)}")
    return [f"{readable(student)} (nbgrader cannot read {WRITTEN}.ipynb)" for student in left]


# -- what is said about it ---------------------------------------------------------------------------------


def _tell(course: Course, outcome: Outcome) -> None:
    counts = Counter({name: len(getattr(outcome, name)) for name in ("new", "changed", "same")})
    total = sum(counts.values())
    print(f"{total} students: {counts['new']} new, {counts['changed']} changed, {counts['same']} as they were")
    print(f"{outcome.written} of them have handed in the written part")
    for students, what in (
        (outcome.review, "marks that were set by hand stay, and the points below them changed"),
        (outcome.gone, "of an earlier sync and not among these results; left as they were"),
    ):
        if students:
            print(f"{len(students)} {what}: {listed(students)}")
    for students, what in (
        (outcome.left_out, "not in the gradebook, as the id cannot be one there (letters, digits, spaces and .@+-_)"),
        (outcome.unread, "whose written part cannot be read"),
    ):
        if students:
            print(f"grading: warning: {len(students)} {what}: {', '.join(students)}", file=sys.stderr)
    print(f"mark the written part: cd {course.folder} && jupyter lab    # Nbgrader > Formgrader")
