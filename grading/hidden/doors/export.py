"""`python -m grading export`: marks into the file that a learning platform exported, for it to take back.

The file keeps its rows, columns and bytes; one column is filled in. Canvas takes a new column as a new assignment, and
the row of points possible with it; Moodle's grading worksheet has the column `Grade`.
"""

from __future__ import annotations

import argparse
import os
import re
import sys

from grading.errors import GradingError
from grading.hidden.doors.marks import Mark, marks, match, read_results
from grading.hidden.doors.roster import is_student, kind_of, open_roster, roster_of, student_id
from grading.hidden.doors.table import Row, Table
from grading.hidden.intake.inbox import listed
from grading.hidden.reports.files import write_atomically
from grading.hidden.reports.text import plain
from grading.rubric import Rubric, load_rubric

WANTED = {"canvas": "Canvas' gradebook (Grades, Export)", "moodle": "Moodle's grading worksheet"}
_COLUMN = {"moodle": "Grade", "csv": "total"}
_READ_ONLY = "(read only)"


def run(args: argparse.Namespace) -> int:
    """Export, and say what is not in it. Exit code 1 when somebody's mark has no row."""
    rubric = load_rubric()
    out = args.out or args.roster.with_name(f"{args.roster.stem}.graded.csv")
    if os.path.realpath(out) == os.path.realpath(args.roster):
        raise GradingError("--out is the roster itself: name another file, so that what was exported stays", 2)
    results, record = read_results(args.grades, rubric)
    table = open_roster(args.roster)
    matched, nobody = match(marks(results, record, args.grades), roster_of(table))
    written = fill(table, args.to, args.column, matched, rubric)
    write_atomically(out, table.to_bytes())
    print(f"{out}: {written} marks in the column {args.column!r}" if args.column else f"{out}: {written} marks")
    if nobody:
        names = ", ".join(f"{mark.ids[0]} ({plain(mark.total)})" for mark in nobody)
        print(f"grading: warning: not in {args.roster}, and not written: {names}", file=sys.stderr)
    return 1 if nobody else 0


def fill(table: Table, to: str, name: str | None, matched: dict[str, Mark], rubric: Rubric) -> int:
    """Set the marks in the table. Returns how many. Raises GradingError where they do not fit, half-way."""
    kind = kind_of(table.header.cells)
    if to != "csv" and kind != to:
        raise GradingError(f"{table.path} is not {WANTED[to]}: export that, or say --to csv", exit_code=2)
    column, is_new = _column(table, to, name or _COLUMN.get(to, rubric.title))
    written = 0
    for row in table.rows:
        if not is_student(str(kind), table, row):
            if to == "canvas" and row.cells[0].strip() == "Points Possible":
                _set_possible(table, row, column, rubric.total, is_new)
            continue
        mark = matched.get(student_id(str(kind), table, row))
        if mark is None:
            continue
        if to == "moodle":
            _require_maximum(table, row, rubric.total)
        table.set(row, column, plain(mark.total))
        written += 1
    return written


def _column(table: Table, to: str, name: str) -> tuple[int, bool]:
    """(where the marks go, whether the column is new)."""
    header = table.header.cells
    found = table.columns(name)
    if to == "canvas" and not found:
        found = [place for place, called in enumerate(header) if re.sub(r" \(\d+\)$", "", called) == name]
    if len(found) > 1:
        names = listed([f"{header[place]!r}" for place in found])
        raise GradingError(f"{table.path} has {len(found)} columns for {name!r} ({names}): name one with --column", 2)
    if found:
        return found[0], False
    if to == "moodle":
        raise GradingError(f"{table.path} has no column {name!r}: name Moodle's column of grades with --column", 2)
    print(f"{table.path} has no column {name!r}: it is new; --column names another one")
    return table.add_column(name), True


def _set_possible(table: Table, row: Row, column: int, total: float, is_new: bool) -> None:
    if is_new or not row.cells[column].strip():
        table.set(row, column, plain(total))
        return
    if row.cells[column].strip() == _READ_ONLY:
        raise table.error(1, f"{table.header.cells[column]!r} is computed by Canvas: name an assignment with --column")
    _require(table, row, column, total, "Canvas")


def _require_maximum(table: Table, row: Row, total: float) -> None:
    for column in table.columns("Maximum Grade")[:1]:
        _require(table, row, column, total, "Moodle")


def _require(table: Table, row: Row, column: int, total: float, platform: str) -> None:
    """Marks out of 100 for an assignment out of 20 would be refused there, or be five times too good."""
    cell = row.cells[column].strip()
    try:
        agrees = abs(float(cell.replace(",", ".")) - total) < 1e-6
    except ValueError:
        agrees = False
    if not agrees:
        problem = f"{platform} has {cell} points for this, and the rubric {plain(total)}: make them equal there"
        raise table.error(row.line, f"{problem}, and export again")
