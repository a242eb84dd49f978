"""What a run changed: whose marks, by how much, and because of which checks. OUT/regrade.csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from grading.hidden.reports.files import write_atomically
from grading.hidden.reports.result import Change, Result
from grading.hidden.reports.text import no_formula, plain, readable

NAME = "regrade.csv"


def marks_of(results: Iterable[Result]) -> dict[str, Any]:
    """What to remember of the results that are in the tables."""
    return {
        result.submission: {
            "total": result.total,
            "penalty": result.penalty,
            "overrides": {override.id: override.points for override in result.overrides},
            "functions": {f.id: {"points": f.points, "groups": f.groups} for f in result.functions},
            "members": {member.student: result.mark(member) for member in result.members},
        }
        for result in results
    }


def changes(before: Mapping[str, Any], results: Iterable[Result]) -> list[Change]:
    """Whose marks are others than before. Who is new has not changed."""
    now = {result.submission: result for result in results if result.submission in before}
    found = []
    for name, mark in marks_of(now.values()).items():
        old = before[name]
        if (mark["total"], mark["members"]) != (old["total"], old["members"]):
            found.append(Change(name, now[name].student, old["total"], mark["total"], _because(old, mark)))
    return sorted(found, key=lambda change: change.submission)


def _because(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    said = []
    for id in dict.fromkeys([*new["functions"], *old["functions"]]):
        was, now = old["functions"].get(id), new["functions"].get(id)
        if was is None or now is None:
            said.append(f"{id} is {'new' if was is None else 'no longer graded'}")
        elif was != now:
            groups = dict.fromkeys([*now["groups"], *was["groups"]])
            counts = [_counts(group, was["groups"].get(group), now["groups"].get(group)) for group in groups]
            said.append(f"{id} {plain(was['points'])} to {plain(now['points'])} ({', '.join(filter(None, counts))})")
    for id in dict.fromkeys([*new["overrides"], *old["overrides"]]):
        was, now = old["overrides"].get(id), new["overrides"].get(id)
        if was != now:
            said.append(f"{id} {'set to ' + plain(now) if now is not None else 'no longer set'}")
    if old["penalty"] != new["penalty"]:
        said.append(f"lateness {plain(old['penalty'])} to {plain(new['penalty'])}")
    for who in dict.fromkeys([*new["members"], *old["members"]]):
        was, now = old["members"].get(who), new["members"].get(who)
        if was != now:
            said.append(f"{who} {'-' if was is None else plain(was)} to {'-' if now is None else plain(now)}")
    return said


def _counts(group: str, was: list[int] | None, now: list[int] | None) -> str:
    if was == now:
        return ""
    return f"{group}: " + " to ".join("none" if count is None else f"{count[0]} of {count[1]}" for count in (was, now))


def write_regrade(out: Path, found: list[Change]) -> None:
    """Write OUT/regrade.csv, for people: no cell is a formula. Raises GradingError when the disk refuses."""
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    writer.writerow(["submission", "student", "from", "to", "change", "because"])
    for change in found:
        numbers = map(plain, (change.before, change.after, change.after - change.before))
        cells = [change.submission, change.student, *numbers, "; ".join(change.because)]
        writer.writerow([no_formula(readable(cell)) for cell in cells])
    write_atomically(out / NAME, table.getvalue().encode("utf-8", errors="backslashreplace"))
