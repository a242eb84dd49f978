"""OUT/.record.json: what was decided in earlier runs, so that a forgotten flag takes nothing back.

late: submission -> what was told about when it came (`lateness.Told`).  overrides: rows of overrides.csv.
roster: the last one.  marks, absent: what the last tables said, of who handed in (`regrade`) and of who did not.
grades_sha256: of the last grades.csv written.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from grading.errors import GradingError
from grading.hidden.reports.files import write_atomically

NAME = ".record.json"
GRADES = "grades.csv"


@dataclass
class Record:
    """Plain data, which each part of `decisions` reads in its own way."""

    late: dict[str, Any] = field(default_factory=dict)
    overrides: list[dict[str, Any]] = field(default_factory=list)
    roster: dict[str, Any] | None = None
    marks: dict[str, Any] = field(default_factory=dict)
    absent: dict[str, float] = field(default_factory=dict)
    grades_sha256: str = ""

    def write(self, out: Path) -> None:
        """Write it. Raises GradingError when the disk refuses."""
        write_atomically(out / NAME, json.dumps(asdict(self), indent=1, allow_nan=False).encode("ascii"))


def read_record(out: Path) -> Record:
    """What OUT remembers; nothing when it is new. Raises GradingError for what is no record."""
    path = out / NAME
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Record()
    try:
        record = Record(**json.loads(content))
        kinds: dict[str, Any] = {
            "late": dict,
            "overrides": list,
            "marks": dict,
            "absent": dict,
            "grades_sha256": str,
            "roster": (dict, type(None)),
        }
        if not all(isinstance(getattr(record, name), kind) for name, kind in kinds.items()):
            raise TypeError
    except (ValueError, TypeError, RecursionError):
        raise damaged(out) from None
    return record


def damaged(out: Path) -> GradingError:
    """What to say when the record holds something else than was written."""
    todo = "delete it, and give the roster, lateness and overrides again"
    return GradingError(f"{out / NAME} is damaged, which remembers what was decided: {todo}", exit_code=2)


def keep_edited(out: Path, record: Record) -> None:
    """Put aside a grades.csv that somebody changed since it was written, and say so."""
    path = out / GRADES
    try:
        content = path.read_bytes()
    except OSError:
        return
    if not record.grades_sha256 or hashlib.sha256(content).hexdigest() == record.grades_sha256:
        return
    number = next(number for number in range(1, 10_000) if not (out / f"grades.edited-{number}.csv").exists())
    kept = out / f"grades.edited-{number}.csv"
    write_atomically(kept, content)
    print(
        f"grading: warning: {path} was edited, and is written anew: the edited one is {kept.name}; "
        "put what you decided into a table for --overrides, which is kept",
        file=sys.stderr,
    )


def remember_grades(out: Path, record: Record) -> None:
    """Note what grades.csv is now."""
    record.grades_sha256 = hashlib.sha256((out / GRADES).read_bytes()).hexdigest()
