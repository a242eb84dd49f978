"""results.json, in Gradescope's format. It is written last, which says that all is there; `--resume` reads it back."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from grading.hidden.reports.feedback import Row, decision, feedback, lateness, rows
from grading.hidden.reports.files import folder_of, write_atomically
from grading.hidden.reports.result import TOTAL, FunctionResult, Member, Override, Result
from grading.hidden.reports.text import MAX_MESSAGE, MAX_OUTPUT, clip, readable, short
from grading.rubric import Rubric


def write_result(out: Path, result: Result, rubric: Rubric) -> None:
    """Write OUT/<submission>/feedback.html and results.json; the latter comes last and says that all is there.

    Raises GradingError for an impossible name, and when the disk refuses.
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


def results_in(out: Path) -> dict[str, Result]:
    """All results that a folder holds, by submission."""
    found = ((path.parent.name, read_result(path)) for path in sorted(out.glob("*/results.json")))
    return {name: result for name, result in found if result is not None and result.submission == name}


_FIELDS = {
    "str": lambda value: isinstance(value, str),
    "int": lambda value: type(value) is int and abs(value) < 1e18,
    "float": lambda value: type(value) in (int, float) and abs(value) < 1e18,  # NaN is not
    "list[str]": lambda value: isinstance(value, list) and all(isinstance(item, str) for item in value),
    **dict.fromkeys(
        ("list[FunctionResult]", "list[Override]", "list[Member]"),
        lambda value: isinstance(value, list) and all(map(_is_sound, value)),
    ),
    "dict[str, list[int]]": lambda value: (
        isinstance(value, dict)
        and all(
            isinstance(counts, list) and len(counts) == 2 and all(type(count) is int for count in counts)
            for counts in value.values()
        )
    ),
}


def _is_sound(record: Result | FunctionResult | Override | Member) -> bool:
    """Whether each field holds what its annotation says."""
    return all(_FIELDS[str(field.type)](getattr(record, field.name)) for field in fields(record))


def gradescope(result: Result, rubric: Rubric) -> dict[str, Any]:
    """results.json: https://gradescope-autograders.readthedocs.io/en/latest/specs/.

    Students see the scores and the outputs. What is for instructors only is in `extra_data`, which is stored and not
    shown; times are there, because a submission can tell hidden inputs by the time that it takes.
    """
    result = _storable(result)
    return {
        "score": result.total,
        "execution_time": math.ceil(result.seconds),  # no specification says that it is not shown
        "output": overview(result),
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
        if isinstance(value, (FunctionResult, Override, Member)):
            return replace(value, **{f.name: clean(getattr(value, f.name)) for f in fields(value)})
        return value

    texts = {f.name: clean(getattr(result, f.name)) for f in fields(result)}
    return replace(result, **{**texts, "submission": result.submission})


def _test(row: Row, rubric: Rubric) -> dict[str, Any]:
    function, result = row.function, row.result
    return {
        "score": row.points,
        "max_score": function.points,
        "status": "passed" if row.full else "failed",
        "name": f"{function.id}: {function.title}",
        "name_format": "text",
        "number": str(row.number),
        "output": explanation(row),
        "output_format": "text",
        "tags": [function.id],
        "visibility": function.visibility or rubric.visibility,
        "extra_data": {
            "groups": result.groups,
            "mistake": result.mistake,
            "finding": result.finding,
            "seconds": result.seconds,
        },
    }


def explanation(row: Row) -> str:
    """What the student's page says about one function, as plain text."""
    function, result = row.function, row.result
    lines = [decision(row.override, result.points)] if row.override else []
    if row.full:
        return "\n".join([*lines, f"`{function.name}` in {function.file} is right."])
    lines += [f"`{function.name}` in {function.file}: {clip(result.problem, MAX_MESSAGE) or 'some answers are wrong'}"]
    if result.hint:
        lines.append(f"This looks like a known mistake: {result.hint}")
    else:
        lines += [f"What was measured: {result.finding}"] * bool(result.finding) + [f"Look again at {function.idea}"]
    if row.groups:
        lines.append(f"Hidden checks passed: {', '.join(row.groups)}")
    if result.public:
        lines += [f"A public check that fails, too ({row.command}):", "", clip(result.public, MAX_MESSAGE)]
    else:
        lines.append(f"The grade comes from other inputs than those of the public checks ({row.command}).")
    return "\n".join(lines)


def overview(result: Result) -> str:
    """What concerns the whole submission, as plain text."""
    lines = [*result.notes]
    if when := lateness(result):
        lines.append(f"{short(result.earned)} points earned. {' '.join(when)}")
    if mark := result.override(TOTAL):
        lines.append(decision(mark, result.less(result.penalty)))
    if result.isolation == "process":
        lines.append("Graded without isolation.")
    if result.output:
        lines += ["What your code printed when it was imported:", "", clip(result.output, MAX_OUTPUT)]
    if result.output_dropped:
        lines.append(f"{result.output_dropped:,} more bytes that it printed were not kept.")
    return "\n".join(lines)
