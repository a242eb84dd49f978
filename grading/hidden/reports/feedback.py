"""Results as files: Gradescope's results.json, a page for each student, and the table of grades.

Everything that a submission chose (its name, what it printed, what its exceptions say) is hostile. In HTML two things
stand against it: jinja2 escapes every value, and `readable` makes characters harmless that escaping lets through. The
page also forbids itself scripts and anything from outside. In JSON such text is declared as plain text.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from grading.errors import GradingError
from grading.hidden.reports.result import RESERVED, FunctionResult, Result
from grading.rubric import Function, Rubric
from HW3.files import write_atomically

TEMPLATES = Path(__file__).parent / "templates"

# What one page shows of a text; more would only make the page slow. results.json keeps all.
MAX_MESSAGE = 8_000
MAX_OUTPUT = 50_000


# -- text that may be hostile -----------------------------------------------------------------------------

# Sequences that move cursors and colour terminals; one that does not end is cut at the end of its line.
_ANSI = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|\x1b\][^\x07\x1b\n]*(?:\x07|\x1b\\)?"  # OSC: titles, links
    r"|\x1b[PX^_][^\x1b\n]*(?:\x1b\\)?"  # DCS, SOS, PM, APC
    r"|\x1b[ -/]*[0-~]"
    r"|\x9b[0-?]*[ -/]*[@-~]"  # CSI in one character
)


@cache
def _harmless() -> dict[int, str]:
    """What stands for a character that is invisible, reorders its neighbours, or cannot be stored as UTF-8."""
    table = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"}
    table |= {code: f"\\x{code - 0xDC00:02x}" for code in range(0xDC80, 0xDD00)}  # bytes of a name that is not UTF-8
    unwanted = (
        *((0x61C, 0x61D), (0x180E, 0x180F), (0x200B, 0x200C), (0x200E, 0x2010), (0x2028, 0x202F)),
        *((0x2060, 0x2070), (0xD800, 0xE000), (0xFEFF, 0xFF00), (0xFFF0, 0xFFFC), (0xFFFE, 0x10000)),
        (0xE0000, 0xE1000),
    )
    for first, end in unwanted:
        table |= {code: f"⟨U+{code:04X}⟩" for code in range(first, end) if code not in table}
    return table


def readable(text: str) -> str:
    """Text without ANSI sequences, with control and bidi characters made visible. Changes nothing a second time."""
    text = _ANSI.sub("", text.replace("\r\n", "\n"))
    return text.replace("\r", "\n").translate(_harmless())


def clip(text: str, limit: int) -> str:
    """The beginning of a text, and how much is missing."""
    return text if len(text) <= limit else f"{text[:limit]}\n… and {len(text) - limit:,} more characters"


def plain(number: float) -> str:
    """87.5, 100 or 0.3333; never 1e+02."""
    return f"{number:.4f}".rstrip("0").rstrip(".")


def short(number: float) -> str:
    """The same to two places, for pages."""
    return plain(round(number, 2))


def link(submission: str) -> str:
    """The address of a student's page, seen from the folder that holds all of them."""
    return f"./{quote(submission, safe='', errors='surrogateescape')}/feedback.html"


@cache
def environment() -> Environment:
    """The templates. No value reaches a page without passing through `readable` and being escaped."""

    def finalize(value: Any) -> Any:
        return readable(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    found = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"short": short, "link": link, "clip": clip}
    return found


# -- one submission -----------------------------------------------------------------------------------------


def folder_of(out: Path, submission: str) -> Path:
    """Where a submission's files go. Raises GradingError for a name that is no folder's, or that of another file."""
    try:
        impossible = submission in ("", ".", "..") or re.search(rb"[/\\\0]", os.fsencode(submission))
    except UnicodeEncodeError:
        impossible = True
    if impossible or submission.lower() in RESERVED:
        raise GradingError(f"a submission cannot be called {submission!r}: rename its folder or zip", exit_code=2)
    return out / submission


def write_result(out: Path, result: Result, rubric: Rubric) -> None:
    """Write OUT/<submission>/feedback.html and results.json; the latter comes last and says that all is there.

    Raises GradingError for an impossible name, and UserError when the disk refuses.
    """
    folder = folder_of(out, result.submission)
    result = _storable(result)
    write_atomically(folder / "feedback.html", feedback(result, rubric).encode("utf-8"))
    text = json.dumps(gradescope(result, rubric), indent=1, allow_nan=False)
    write_atomically(folder / "results.json", text.encode("ascii") + b"\n")


def read_result(path: Path) -> Result | None:
    """The result that a results.json was made of; None when it is missing, damaged, or somebody else's."""
    try:
        result = Result.from_json(json.loads(path.read_bytes())["extra_data"]["result"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return result if _is_sound(result) else None


_FIELDS = {
    "str": lambda value: isinstance(value, str),
    "int": lambda value: type(value) is int and abs(value) < 1e18,
    "float": lambda value: type(value) in (int, float) and abs(value) < 1e18,  # NaN is not
    "list[str]": lambda value: isinstance(value, list) and all(isinstance(item, str) for item in value),
    "list[FunctionResult]": lambda value: isinstance(value, list) and all(map(_is_sound, value)),
    "dict[str, list[int]]": lambda value: (
        isinstance(value, dict)
        and all(
            isinstance(counts, list) and len(counts) == 2 and all(type(count) is int for count in counts)
            for counts in value.values()
        )
    ),
}


def _is_sound(record: Result | FunctionResult) -> bool:
    """Whether each field holds what its annotation says."""
    return all(_FIELDS[field.type](getattr(record, field.name)) for field in fields(record))


@dataclass(frozen=True)
class Row:
    """One graded function as a report shows it. number: its place in the rubric, from 1."""

    number: int
    function: Function
    result: FunctionResult

    @property
    def full(self) -> bool:
        """Whether nothing was lost."""
        return self.result.points >= self.function.points - 1e-9

    @property
    def percent(self) -> int:
        """Points as a share of those possible."""
        return round(100 * self.result.points / self.function.points) if self.function.points else 100

    @property
    def groups(self) -> list[str]:
        """ "hostile 3 of 4", for each group of hidden cases."""
        return [f"{name} {passed} of {count}" for name, (passed, count) in self.result.groups.items()]

    @property
    def command(self) -> str:
        """What runs this function's public checks."""
        return f"pytest grading/ -k {self.function.id.replace('-', '_')}"


def rows(result: Result, rubric: Rubric) -> list[Row]:
    """Every graded function in the rubric's order, also those that could not be judged."""
    found = {function.id: function for function in result.functions}
    missing = "it was not judged"
    return [
        Row(i, function, found.get(id) or FunctionResult(id, 0.0, function.points, problem=missing))
        for i, (id, function) in enumerate(rubric.functions.items(), start=1)
    ]


def lateness(result: Result) -> str:
    """What lateness did, in a sentence; "" for who was in time."""
    if result.hours_late <= 0 and result.penalty <= 0:
        return ""
    hours = result.hours_late
    when = f"{hours * 60:.0f} minutes" if hours < 1 else f"{short(round(hours, 1))} hours"
    cost = f"this costs {short(result.penalty)} points" if result.penalty > 0 else "nothing is taken off"
    return f"Handed in {when} late: {cost}."


def feedback(result: Result, rubric: Rubric) -> str:
    """The student's page."""
    return (
        environment()
        .get_template("feedback.html")
        .render(
            rubric=rubric,
            result=result,
            rows=rows(result, rubric),
            lateness=lateness(result),
            message=MAX_MESSAGE,
            output=MAX_OUTPUT,
        )
    )


# -- Gradescope ---------------------------------------------------------------------------------------------


def gradescope(result: Result, rubric: Rubric) -> dict[str, Any]:
    """results.json: https://gradescope-autograders.readthedocs.io/en/latest/specs/."""
    result = _storable(result)
    return {
        "score": result.total,
        "execution_time": round(result.seconds, 3),
        "output": _overview(result),
        "output_format": "text",
        "test_output_format": "text",
        "test_name_format": "text",
        "visibility": rubric.visibility,
        "stdout_visibility": rubric.stdout_visibility,
        "extra_data": {"result": result.to_json()},
        "tests": [_test(row, rubric) for row in rows(result, rubric)],
        "leaderboard": [],
    }


def _storable(result: Result) -> Result:
    """The result as databases accept it, which refuse NUL and lone surrogates. Only the submission's name stays."""

    def clean(value: Any) -> Any:
        if isinstance(value, str):
            return readable(value)
        if isinstance(value, list):
            return [clean(item) for item in value]
        if isinstance(value, FunctionResult):
            return replace(value, **{f.name: clean(getattr(value, f.name)) for f in fields(value)})
        return value

    texts = {f.name: clean(getattr(result, f.name)) for f in fields(result)}
    return replace(result, **{**texts, "submission": result.submission})


def _test(row: Row, rubric: Rubric) -> dict[str, Any]:
    function, result = row.function, row.result
    return {
        "score": result.points,
        "max_score": function.points,
        "status": "passed" if row.full else "failed",
        "name": f"{function.id}: {function.title}",
        "name_format": "text",
        "number": str(row.number),
        "output": _explanation(row),
        "output_format": "text",
        "tags": [function.id],
        "visibility": function.visibility or rubric.visibility,
        "extra_data": {"groups": result.groups, "mistake": result.mistake, "seconds": result.seconds},
    }


def _explanation(row: Row) -> str:
    """What the student's page says about one function, as plain text."""
    function, result = row.function, row.result
    if row.full:
        return f"`{function.name}` in {function.file} is right."
    lines = [f"`{function.name}` in {function.file}: {clip(result.problem, MAX_MESSAGE) or 'some answers are wrong'}"]
    lines.append(f"This looks like a known mistake: {result.hint}" if result.hint else f"Look again at {function.idea}")
    if row.groups:
        lines.append(f"Hidden checks passed: {', '.join(row.groups)}")
    if result.public:
        lines += [f"The first public check that fails ({row.command}):", "", clip(result.public, MAX_MESSAGE)]
    else:
        lines.append(f"The grade comes from other inputs than those of the public checks ({row.command}).")
    return "\n".join(lines)


def _overview(result: Result) -> str:
    """What concerns the whole submission, as plain text."""
    lines = [*result.notes]
    if lateness(result):
        lines.append(f"{short(result.earned)} points earned. {lateness(result)}")
    if result.isolation == "process":
        lines.append("Graded without isolation.")
    if result.output:
        lines += ["What your code printed when it was imported:", "", clip(result.output, MAX_OUTPUT)]
    if result.output_dropped:
        lines.append(f"{result.output_dropped:,} more bytes that it printed were not kept.")
    return "\n".join(lines)


# -- the table of grades ------------------------------------------------------------------------------------


def write_grades(out: Path, results: Iterable[Result], rubric: Rubric) -> None:
    """Write OUT/grades.csv, sorted by submission. Raises UserError when the disk refuses.

    Names stand there verbatim, because other programs look submissions up by them; a byte that is not UTF-8 becomes
    a backslash and its number, as the file itself must stay readable. Lines end as RFC 4180 says: with other endings
    the writer would not quote a lone carriage return in a name.
    """
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(["submission", "student", "total", *rubric.functions, "status"])
    for result in sorted(results, key=lambda result: result.submission):
        points = [plain(row.result.points) for row in rows(result, rubric)]
        cells = [result.submission, result.student, plain(result.total), *points, result.status]
        writer.writerow([cell.replace("\0", "\\x00") for cell in cells])  # older readers stop at NUL
    write_atomically(out / "grades.csv", table.getvalue().encode("utf-8", errors="backslashreplace"))
