"""Who is in the course: the list that a learning platform exports, or a plain one.

| format | known by | student | also known as |
|---|---|---|---|
| canvas | `Student` or `LastName`, `ID`, `Section` | `ID` | `SIS User ID`, `SIS Login ID` |
| moodle | `Identifier`, `Grade` | the number in `Participant 1234567` | `ID number`, `Username`, `Email address` |
| classroom | `identifier`, `github_username` | `identifier` | `github_username` |
| plain | `student` | `student` | `email` |

Canvas' gradebook has rows of no student: points possible, what is posted by hand, the test student. A `group` column,
in any format, says who hands in together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from grading.hidden.doors.table import Row, Table, read_table
from grading.hidden.intake.inbox import listed

FORMATS = {
    "canvas": {"ID", "Section"},
    "moodle": {"Identifier", "Grade"},
    "classroom": {"identifier", "github_username"},
    "plain": {"student"},
}
NEEDED = (
    "the columns of Canvas' gradebook (Student, ID, Section), Moodle's grading worksheet (Identifier, Grade), "
    "GitHub Classroom's roster (identifier, github_username) or a column `student` are"
)
_ALIASES = {
    "canvas": ("SIS User ID", "SIS Login ID"),
    "moodle": ("ID number", "Username", "Email address"),
    "classroom": ("github_username",),
    "plain": ("email",),
}
_NAMES = {"canvas": "Student", "moodle": "Full name", "classroom": "name", "plain": "name"}
_IDS = {"canvas": "ID", "moodle": "Identifier", "classroom": "identifier", "plain": "student"}


@dataclass(frozen=True)
class Student:
    """One row. aliases: other ids of the same person.  line: in the file."""

    id: str
    name: str = ""
    group: str = ""
    aliases: tuple[str, ...] = ()
    line: int = 0


@dataclass
class Roster:
    """The students, in the file's order. kind: of FORMATS."""

    kind: str
    students: list[Student] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._exact: dict[str, list[Student]] = {}
        self._folded: dict[str, list[Student]] = {}
        self._groups: dict[str, list[Student]] = {}
        for student in self.students:
            if student.group:
                self._groups.setdefault(student.group, []).append(student)
            for id in {student.id, *student.aliases}:
                self._exact.setdefault(id, []).append(student)
                self._folded.setdefault(id.casefold(), []).append(student)

    def all(self, id: str) -> list[Student]:
        """Whose id that may be: nobody's, one student's, or several'."""
        own = [student for student in self._exact.get(id, []) if student.id == id]
        return own or self._exact.get(id) or self._folded.get(id.casefold(), [])

    def find(self, id: str) -> Student | None:
        """The one student with this id; None where it is nobody's, or not one's alone."""
        found = self.all(id)
        return found[0] if len(found) == 1 else None

    def group(self, name: str) -> list[Student]:
        """The students in a group."""
        return self._groups.get(name, [])

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Roster:
        """Undo `to_json`. Raises TypeError or KeyError for anything else."""
        students = [Student(**{**each, "aliases": tuple(each["aliases"])}) for each in data["students"]]
        return cls(data["kind"], students)


def read_roster(path: Path) -> Roster:
    """Read any of the formats. Raises GradingError, with the line, for what cannot be right."""
    return roster_of(open_roster(path))


def open_roster(path: Path) -> Table:
    """The roster as a table, to be written back. Raises GradingError."""
    return read_table(path, lambda header: kind_of(header) is not None, NEEDED)


def kind_of(header: Sequence[str]) -> str | None:
    """The format with this header."""
    return next((kind for kind, needed in FORMATS.items() if needed <= set(header)), None)


def roster_of(table: Table) -> Roster:
    """The students of a table. Raises GradingError where a row has no id, or another's."""
    kind = kind_of(table.header.cells)
    assert kind is not None  # `open_roster` takes no other
    lines: dict[str, int] = {}
    students = []
    for row in table.rows:
        if not is_student(kind, table, row):
            continue
        student = _student(table, kind, row)
        if student.id in lines:
            first = lines[student.id]
            raise table.error(row.line, f"{student.id!r} stands in line {first} too: delete one of the two rows")
        lines[student.id] = row.line
        students.append(student)
    if not students:
        raise table.error(1, "there is no student in it")
    return Roster(kind, students)


def is_student(kind: str, table: Table, row: Row) -> bool:
    """Whether a row is a student's. Blank rows are nobody's."""
    if not any(cell.strip() for cell in row.cells):
        return False
    if kind != "canvas":
        return True
    first = row.cells[0].strip()
    if first == "Points Possible" or all(re.fullmatch(r"\s*(Muted|Manual Posting.*)?\s*", cell) for cell in row.cells):
        return False
    return not (first in ("Student, Test", "Test Student") and not table.cell(row, "SIS User ID"))


def student_id(kind: str, table: Table, row: Row) -> str:
    """The id in a student's row. Raises GradingError when there is none."""
    id = table.cell(row, _IDS[kind])
    if kind == "moodle":  # `Participant 1234567`, in the site's language
        match = re.search(r"\d+$", id)
        id = match[0] if match else ""
    if not id:
        raise table.error(row.line, f"there is no id in the column {_IDS[kind]}: fill it in, or delete the row")
    return id


def _student(table: Table, kind: str, row: Row) -> Student:
    def cell(name: str) -> str:
        return table.cell(row, name)

    id = student_id(kind, table, row)
    name = cell(_NAMES[kind]) or " ".join(filter(None, (cell("FirstName"), cell("LastName"))))
    aliases = tuple(dict.fromkeys(alias for column in _ALIASES[kind] if (alias := cell(column)) and alias != id))
    return Student(id, name, cell("group") or cell("Group"), aliases, row.line)


# -- who handed in what ---------------------------------------------------------------------------------------


@dataclass
class Attendance:
    """Rosters and submissions side by side.

    members: submission -> ids, of groups.  names: submission -> who, where the roster has one name for it.
    absent: who handed nothing in.  strangers: submissions of nobody in the roster.  doubts: sentences.
    """

    members: dict[str, list[str]] = field(default_factory=dict)
    students: dict[str, Student] = field(default_factory=dict)
    absent: list[Student] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)


def attendance(roster: Roster | None, submissions: Iterable[tuple[str, str, str]]) -> Attendance:
    """Who handed in what. submissions: (submission, student, platform).

    `a;b` is a group where the platform joined the ids. Students choose names too, so elsewhere it is one only if the
    roster has everybody in it and nobody handed in something of their own.
    """
    found = Attendance()
    rows = list(submissions)
    own = {student for _, student, _ in rows}
    own |= {one.id for _, student, _ in rows if roster and (one := roster.find(student))}
    present: set[str] = set()
    for submission, student, platform in rows:
        parts = [part for part in student.split(";") if part]
        members = _members(roster, student, platform, parts, own, found.doubts)
        if members:
            found.members[submission] = members
        known = [each for id in members or [student] if roster and (each := roster.find(id))]
        present |= {each.id for each in known}
        if roster and len(known) < len(members or [student]):
            found.strangers.append(submission)
        if roster and not members and known:
            found.students[submission] = known[0]
    found.absent = [student for student in roster.students if student.id not in present] if roster else []
    return found


def _members(
    roster: Roster | None, student: str, platform: str, parts: list[str], own: set[str], doubts: list[str]
) -> list[str]:
    """The ids of a group, none for one person."""
    if len(parts) > 1:
        if platform == "gradescope":
            return parts
        everybody = [roster.find(part) if roster else None for part in parts]
        if roster and not roster.find(student) and all(each and each.id not in own for each in everybody):
            return parts
        doubts.append(f"{student} is taken as one student: only Gradescope's ids and a roster make a group of it")
        return []
    if roster is None:
        return []
    alone = roster.find(student)
    group = roster.group(alone.group if alone else student)
    if len(group) < 2:
        return []
    others = [each.id for each in group if each.id in own and each != alone]
    if others:
        doubts.append(f"{student} and {listed(others)} are in one group and each handed in: each has their own mark")
        return []
    return [each.id for each in group]
