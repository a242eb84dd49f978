"""grades.csv, the table of grades."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from grading.hidden.reports.feedback import rows
from grading.hidden.reports.files import write_atomically
from grading.hidden.reports.result import Result
from grading.hidden.reports.text import plain
from grading.rubric import Rubric


def write_grades(out: Path, results: Iterable[Result], rubric: Rubric) -> None:
    """Write OUT/grades.csv, sorted by submission. Raises GradingError when the disk refuses.

    Names stand there verbatim, because other programs look submissions up by them; a byte that is not UTF-8 becomes
    a backslash and its number, as the file itself must stay readable. Lines end as RFC 4180 says: with other endings
    the writer would not quote a lone carriage return in a name.
    """
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(["submission", "student", "total", "earned", "penalty", *rubric.functions, "status"])
    for result in sorted(results, key=lambda result: result.submission):
        points = [plain(row.result.points) for row in rows(result, rubric)]
        sums = map(plain, (result.total, result.earned, result.penalty))
        cells = [result.submission, result.student, *sums, *points, result.status]
        writer.writerow([cell.replace("\0", "\\x00") for cell in cells])  # older readers stop at NUL
    write_atomically(out / "grades.csv", table.getvalue().encode("utf-8", errors="backslashreplace"))
