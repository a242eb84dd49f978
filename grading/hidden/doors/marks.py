"""The marks of a folder of results, one for each person, as the doors pass them on."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

from grading.errors import GradingError
from grading.hidden.decisions.record import GRADES, Record, damaged, read_record
from grading.hidden.doors.roster import Roster, Student
from grading.hidden.intake.inbox import listed
from grading.hidden.reports.gradescope import read_result
from grading.hidden.reports.result import RESERVED, Result
from grading.hidden.reports.text import readable
from grading.rubric import Rubric


@dataclass(frozen=True)
class Mark:
    """What one person gets. ids: by which a roster may know them.  submission: "" for who handed nothing in."""

    ids: tuple[str, ...]
    total: float
    submission: str


def sound_results(folder: Path) -> dict[str, Result]:
    """All results of a folder, by submission. Raises GradingError unless each can be read and lies where it belongs."""
    if not folder.is_dir():
        raise GradingError(f"{folder} is no folder: name the one that `grade --out` wrote", exit_code=2)
    found = {}
    for path in sorted(folder.glob("*/results.json")):
        name = path.parent.name
        if name in RESERVED:
            continue
        result = read_result(path)
        if result is None or result.submission != name:
            again = "grade it again, or take its folder away"
            raise GradingError(f"{readable(str(path))} is damaged, or of another submission: {again}", exit_code=2)
        found[name] = result
    if not found:
        raise GradingError(f"{folder} holds no results: name the folder that `grade` wrote", exit_code=2)
    return found


def read_results(folder: Path, rubric: Rubric) -> tuple[dict[str, Result], Record]:
    """What `grade` left in a folder. Raises GradingError where it is none, or another rubric's."""
    results, record = sound_results(folder), read_record(folder)
    wanted = {id: function.points for id, function in rubric.functions.items()}
    other = [name for name, each in results.items() if {f.id: f.possible for f in each.functions} != wanted]
    if other:
        problem = f"{folder} was graded by another rubric ({listed(other)}): run `grade` on it again with --resume"
        raise GradingError(problem, exit_code=2)
    grades = folder / GRADES
    if grades.is_file() and record.grades_sha256 not in ("", hashlib.sha256(grades.read_bytes()).hexdigest()):
        text = f"grading: warning: {grades} was edited, which is not looked at: use --overrides of `grade`"
        print(text, file=sys.stderr)
    return results, record


def marks(results: dict[str, Result], record: Record, folder: Path) -> list[Mark]:
    """One for each person who handed in, alone or with others, and for who the last roster had and did not."""
    try:
        roster = Roster.from_json(record.roster) if record.roster else Roster("plain")
        absent = [Mark((id,), float(total), "") for id, total in record.absent.items()]
    except (TypeError, KeyError, ValueError):
        raise damaged(folder) from None

    def ids(id: str) -> tuple[str, ...]:
        known = roster.find(id)
        return tuple(dict.fromkeys([id, known.id, *known.aliases] if known else [id]))

    found = []
    for name, result in sorted(results.items()):
        if result.members:
            found += [Mark(ids(member.student), result.mark(member), name) for member in result.members]
        else:
            found.append(Mark(ids(result.student), result.total, name))
    return found + absent


def match(found: list[Mark], roster: Roster) -> tuple[dict[str, Mark], list[Mark]]:
    """(the roster's id -> mark, marks of nobody in it). Raises GradingError with a list of what is not clear."""
    matched: dict[str, list[Mark]] = {}
    nobody, unclear = [], []
    for mark in found:
        # By the id that the submission has, and only where that is nobody's, by others of the same person.
        each = next(filter(None, map(roster.all, mark.ids)), [])
        if len(each) > 1:
            unclear.append(f"{mark.ids[0]} may be {_lines(each)}")
        elif each:
            matched.setdefault(each[0].id, []).append(mark)
        else:
            nobody.append(mark)
    for id, several in matched.items():
        handed_in = [mark for mark in several if mark.submission] or several[:1]
        if len(handed_in) > 1:
            unclear.append(f"{id} has {len(handed_in)} marks: {listed([mark.submission for mark in handed_in])}")
        matched[id] = handed_in
    if unclear:
        raise GradingError(f"nothing is written, as it is not clear whose marks these are: {'; '.join(unclear)}")
    return {id: mark for id, [mark] in matched.items()}, [mark for mark in nobody if mark.submission]


def _lines(students: list[Student]) -> str:
    return " or ".join(f"{student.id} (line {student.line})" for student in students)
