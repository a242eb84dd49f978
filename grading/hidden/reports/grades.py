"""grades.csv, the table of grades."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterable
from pathlib import Path

from grading.hidden.reports.feedback import rows
from grading.hidden.reports.files import write_atomically
from grading.hidden.reports.result import Absent, Result
from grading.hidden.reports.text import no_formula, plain
from grading.rubric import Rubric


def write_grades(
    out: Path, results: Iterable[Result], rubric: Rubric, absent: Iterable[Absent] = (), *, names: bool = False
) -> None:
    """Write OUT/grades.csv, sorted by submission. Raises GradingError when the disk refuses.

    absent: who handed nothing in, at the end, called by their id.  names: whether there is a last column `name`.

    Names stand there verbatim, because other programs look submissions up by them; a byte that is not UTF-8 becomes
    a backslash and its number, as the file itself must stay readable. Lines end as RFC 4180 says: with other endings
    the writer would not quote a lone carriage return in a name.
    """
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    header = ["submission", "student", "total", "earned", "penalty", *rubric.functions, "status"]
    writer.writerow([*header, *["name"] * names])

    def write(name: str, *cells: str) -> None:
        row = [*cells, *[no_formula(name)] * names]
        writer.writerow([cell.replace("\0", "\\x00") for cell in row])  # older readers stop at NUL

    taken = set()
    for result in sorted(results, key=lambda result: result.submission):
        points = [plain(row.points) for row in rows(result, rubric)]
        sums = map(plain, (result.total, result.earned, result.penalty))
        write(result.name, result.submission, result.student, *sums, *points, result.status)
        taken.add(result.submission)
    for student in absent:
        numbers = itertools.count(2)
        called = student.student
        while called in taken:  # another one's submission
            called = f"{student.student}-{next(numbers)}"
        taken.add(called)
        zeros = ["0"] * (2 + len(rubric.functions))
        write(student.name, called, student.student, plain(student.total), *zeros, student.status)
    write_atomically(out / "grades.csv", table.getvalue().encode("utf-8", errors="backslashreplace"))
