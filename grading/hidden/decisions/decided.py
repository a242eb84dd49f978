"""What people decided, for one run: read before it, remembered before anything is graded, applied to every result."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path

from grading.hidden.decisions.lateness import LateTable, Told, from_platform, read_late
from grading.hidden.decisions.lateness import Row as LateRow
from grading.hidden.decisions.overrides import Found, Rule, assign, read_overrides
from grading.hidden.decisions.record import Record, damaged
from grading.hidden.doors.roster import Attendance, Roster, Student, attendance, read_roster
from grading.hidden.intake.inbox import Handin, listed
from grading.hidden.reports.result import Absent, Member, Override, Result
from grading.rubric import Rubric


@dataclass(frozen=True)
class Given:
    """What the command line named, read; None for what it did not. due: when the submissions had to be there."""

    roster: Roster | None = None
    late: LateTable | None = None
    rules: list[Rule] | None = None
    due: datetime | None = None


def read_given(
    rubric: Rubric, *, roster: Path | None, late_csv: Path | None, overrides: Path | None, due: datetime | None
) -> Given:
    """Read the files. Raises GradingError for the first that makes no sense."""
    return Given(
        read_roster(roster) if roster else None,
        read_late(late_csv, due) if late_csv else None,
        read_overrides(overrides, rubric) if overrides else None,
        due,
    )


@dataclass
class Decisions:
    """What counts in this run. told: submission -> when it came.  remembered: those that only an earlier run told."""

    rubric: Rubric
    roster: Roster | None = None
    attendance: Attendance = field(default_factory=Attendance)
    told: dict[str, Told] = field(default_factory=dict)
    remembered: list[str] = field(default_factory=list)
    overrides: Found = field(default_factory=dict)

    def settle(self, result: Result) -> Result:
        """The result with all that was decided about it, and nothing that was decided before."""
        told = self.told.get(result.submission, Told())
        known = self.attendance.students.get(result.submission)
        ids = self.attendance.members.get(result.submission, [])
        lates = [told.of(id) for id in ids]
        members = [
            Member(student=id, name=self._name(id), overrides=self._decided(result.submission, id), **asdict(late))
            for id, late in zip(ids, lates)
        ]
        late = lates[0] if lates and all(late == lates[0] for late in lates) else told.of()
        settled = replace(
            result,
            student=known.id if known and self.roster and self.roster.kind == "classroom" else result.student,
            name=known.name if known else "; ".join(filter(None, (member.name for member in members))),
            overrides=self._decided(result.submission, ""),
            members=members,
            **asdict(late),
        )
        settled.penalty = self.rubric.late.penalty(settled.earned, settled.hours_charged)
        for member in members:
            member.penalty = self.rubric.late.penalty(settled.earned, member.hours_charged)
        return settled

    def absent(self) -> list[Absent]:
        """Who is in the roster and handed nothing in."""
        return [Absent(student.id, student.name, self._decided("", student.id)) for student in self.attendance.absent]

    def say(self) -> None:
        """What was used, and what is not clear."""
        late = {
            name: told for name, told in self.told.items() if any(told.of(who).hours_late for who in ("", *told.table))
        }
        sources = {"table": "by the table", "canvas": "by Canvas' mark (without hours: one day begun)"}
        counts: dict[str, int] = {}
        for name, told in late.items():
            source = next(of.late_source for who in ("", *told.table) if (of := told.of(who)).hours_late)
            what = (
                "as an earlier run was told" if name in self.remembered else sources.get(source, f"by {source}'s times")
            )
            counts[what] = counts.get(what, 0) + 1
        if counts:
            print("late: " + ", ".join(f"{count} {what}" for what, count in counts.items()))
        if self.roster:
            absent = [student.id for student in self.attendance.absent]
            said = f", {len(absent)} without a submission: {listed(absent)}" if absent else ""
            print(f"roster: {len(self.roster.students)} students{said}")
        if self.attendance.strangers:
            names = listed(self.attendance.strangers)
            count = len(self.attendance.strangers)
            print(f"grading: warning: not in the roster: {count} submissions: {names}", file=sys.stderr)
        for doubt in self.attendance.doubts:
            print(f"grading: warning: {doubt}", file=sys.stderr)

    def _name(self, id: str) -> str:
        student = self.roster.find(id) if self.roster else None
        return student.name if student else ""

    def _decided(self, submission: str, member: str) -> list[Override]:
        return self.overrides.get((submission, member), [])


def decide(
    given: Given, record: Record, out: Path, handins: Sequence[Handin], held: Mapping[str, Result], rubric: Rubric
) -> Decisions:
    """What counts, from what is given and what the record has, which is brought up to date and not yet written.

    held: the results in OUT by name, of this run's submissions too.
    Raises GradingError for decisions about nobody, and for a record that is none.
    """
    now = {handin.name: handin for handin in handins}
    present = [(handin.name, handin.student, handin.platform) for handin in handins]
    present += [(name, result.student, result.platform) for name, result in held.items() if name not in now]
    try:
        roster = given.roster or (Roster.from_json(record.roster) if record.roster else None)
        before = {name: Told.from_json(told) for name, told in record.late.items()}
        rules = [Rule(**rule) for rule in record.overrides]
    except (TypeError, KeyError, AttributeError):
        raise damaged(out) from None
    found = Decisions(rubric, roster, attendance(roster, present))
    find = _Places(found.attendance, roster, present)
    for name, result in held.items():  # graded before there was a record, or without it
        before.setdefault(name, _told(result))
    table = given.late.told(find.places, find.warn) if given.late else None
    for name, _, _ in present:
        old, handin = before.get(name, Told()), now.get(name)
        hours, source = from_platform(handin, given.due) if handin else (None, "")
        rows = old.table if table is None or (handin is None and name not in table) else table.get(name, Told()).table
        told = Told(rows, old.hours if hours is None else hours, old.source if hours is None else source)
        if told != Told():
            found.told[name] = told
        if (hours is None and told.hours) or (rows and (table is None or name not in table)):
            found.remembered.append(name)
    if given.rules is None:
        found.overrides = assign(rules, find.places, find.absent, strict=False)
    else:
        found.overrides = assign(given.rules, find.places, find.absent, strict=True)
        about = {submission for submission, _ in found.overrides}
        others = [rule for rule in rules if all(s not in now and s not in about for s in find.submissions(rule))]
        found.overrides |= assign(others, find.places, lambda id: "", strict=False)
        rules = [*given.rules, *(rule for rule in others if find.submissions(rule))]
    record.late |= {name: told.to_json() for name, told in found.told.items()}
    record.overrides = [rule.to_json() for rule in rules]
    record.roster = roster.to_json() if roster else None
    return found


def _told(result: Result) -> Told:
    """What must have been told, by what came of it."""
    by_platform = result.late_source not in ("", "table")
    row = LateRow(None if by_platform else result.hours_late, result.extension_hours, result.slip_days)
    table = {} if row in (LateRow(0.0), LateRow()) else {"": row}
    return Told(table, result.hours_late, result.late_source) if by_platform else Told(table)


class _Places:
    """Whom a cell of a table means. Every id of a student counts, as the roster has them."""

    def __init__(self, found: Attendance, roster: Roster | None, present: Sequence[tuple[str, str, str]]) -> None:
        self._names = {name for name, _, _ in present}
        self._roster, self._absent = roster, {student.id for student in found.absent}
        self._by_id: dict[str, list[tuple[str, str]]] = {}
        for name, student, _ in present:
            members = found.members.get(name, [])
            for id in dict.fromkeys([*members, student]):
                place = (name, id if id in members else "")
                for each in {id, *self._ids(id)}:
                    self._by_id.setdefault(each, []).append(place)

    def places(self, column: str, who: str) -> list[tuple[str, str]]:
        """(submission, member) of what stands in a column; member is "" for all of it."""
        if column == "submission" and who in self._names:
            return [(who, "")]
        student = self._student(who)
        return self._by_id.get(who) or (self._by_id.get(student.id, []) if student else [])

    def submissions(self, rule: Rule) -> list[str]:
        """Which submissions a rule is about."""
        return [submission for submission, _ in self.places(rule.column, rule.who)]

    def absent(self, who: str) -> str:
        """The roster's id of somebody who handed nothing in; "" for others."""
        student = self._student(who)
        return student.id if student and student.id in self._absent else ""

    def warn(self, text: str, who: str) -> None:
        """Say that a row is about nobody, unless it is about one who handed nothing in."""
        if not self.absent(who):
            print(f"grading: warning: {text}", file=sys.stderr)

    def _student(self, who: str) -> Student | None:
        return self._roster.find(who) if self._roster else None

    def _ids(self, id: str) -> tuple[str, ...]:
        student = self._student(id)
        return (student.id, *student.aliases) if student else ()
