"""overrides.csv: points that a person decided, with the reason that the student is told."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from grading.errors import GradingError
from grading.hidden.doors.table import read_table
from grading.hidden.intake.inbox import listed
from grading.hidden.reports.result import TOTAL, Override
from grading.rubric import Rubric


@dataclass(frozen=True)
class Rule:
    """A row. column: "submission" or "student".  where: file and line, for messages."""

    column: str
    who: str
    id: str
    points: float
    reason: str
    where: str

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def read_overrides(path: Path, rubric: Rubric) -> list[Rule]:
    """Read a table. Raises GradingError, with the line, for a row that makes no sense; warns of more than all."""
    table = read_table(path, _has_columns, "columns `student` or `submission`, `id`, `points` and `reason` are")
    rules: dict[tuple[str, str, str], Rule] = {}
    for row in table.rows:
        cells = {name: cell.strip() for name, cell in zip(table.header.cells, row.cells)}
        rule = _rule(cells, f"{path}, line {row.line}", rubric)
        if (rule.column, rule.who, rule.id) in rules:
            raise table.error(row.line, f"{rule.id} of {rule.who!r} is set twice: delete one of the two rows")
        rules[rule.column, rule.who, rule.id] = rule
    return [*rules.values()]


def _has_columns(header: Sequence[str]) -> bool:
    return {"id", "points", "reason"} <= set(header) and bool({"student", "submission"} & set(header))


def _rule(cells: dict[str, str], where: str, rubric: Rubric) -> Rule:
    column = "submission" if cells.get("submission") else "student"
    who, id, text = cells.get(column, ""), cells.get("id", ""), cells.get("points", "")
    if not who:
        raise GradingError(f"{where}: whose points? `student` and `submission` are empty", 2)
    if id != TOTAL and id not in rubric.functions:
        raise GradingError(f"{where}: there is no id {id!r}; there are {TOTAL}, {', '.join(rubric.functions)}", 2)
    try:
        points = float(text)
    except ValueError:
        points = math.nan
    if not 0 <= points < 1e6:
        raise GradingError(f"{where}: {text!r} is no number of points, which is 0 or more", 2)
    if not cells.get("reason"):
        raise GradingError(f"{where}: there is no reason: write one, the student is told it", 2)
    possible = rubric.total if id == TOTAL else rubric.functions[id].points
    if points > possible:
        print(f"grading: warning: {where}: {id} of {who} is set to {text}, and {possible:g} is all", file=sys.stderr)
    return Rule(column, who, id, round(points, 4), cells["reason"], where)


Found = dict[
    tuple[str, str], list[Override]
]  # (submission, member or "") -> what was decided; ("", id) for an absent one


def assign(
    rules: list[Rule], find: Callable[[str, str], list[tuple[str, str]]], absent: Callable[[str], str], *, strict: bool
) -> Found:
    """Whose they are. find: a column and what stands in it -> (submission, member).  absent: id -> the roster's.

    strict: raise GradingError for nobody's; those that an earlier run was given may be about who is not here now.
    """
    found: Found = {}
    for rule in rules:
        places = find(rule.column, rule.who)
        if not places and rule.column == "student" and (id := absent(rule.who)):
            places = [("", id)]
        if not places and not strict:
            continue
        if not places:
            raise GradingError(f"{rule.where}: nobody here is called {rule.who!r}", 2)
        if len(places) > 1:
            names = listed([submission for submission, _ in places])
            raise GradingError(f"{rule.where}: {rule.who!r} handed in {names}: say which in a column `submission`", 2)
        [(submission, member)] = places
        if rule.id != TOTAL and not submission:
            raise GradingError(f"{rule.where}: {rule.who!r} handed in nothing: only {TOTAL} can be set", 2)
        if rule.id != TOTAL and member:
            problem = f"{rule.who!r} is one of a group: only {TOTAL} can be set, or name the submission"
            raise GradingError(f"{rule.where}: {problem}", 2)
        decided = found.setdefault((submission, member), [])
        if any(override.id == rule.id for override in decided):
            raise GradingError(f"{rule.where}: {rule.id} of {rule.who!r} is set twice: delete one row", 2)
        decided.append(Override(rule.id, rule.points, rule.reason))
    return found
