"""When something came: from a table, from the platform, or from what an earlier run was told.

The table goes before the platform, and both before the record; what a table said in an earlier run counts as a table
until another one is given. An extension is taken off the hours, and a slip day pays for 24 of them.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from grading.errors import GradingError
from grading.hidden.intake.inbox import Handin
from grading.hidden.intake.platforms import is_marked_late
from grading.hidden.reports.result import Lateness

WHO = ("submission", "student", "github_username")
WHEN = ("submitted_at", "submission_timestamp")  # the latter is GitHub Classroom's
GRANTS = ("extension_hours", "slip_days")
MARKED_HOURS = 24.0  # Canvas says that something is late, and not how much: one day begun


@dataclass(frozen=True)
class Row:
    """What a table says about one person. hours: None where it only grants something."""

    hours: float | None = None
    extension_hours: float = 0.0
    slip_days: int = 0


@dataclass
class Told:
    """What is known about one submission. table: by member, "" for all of them.  hours: None where no platform says."""

    table: dict[str, Row] = field(default_factory=dict)
    hours: float | None = None
    source: str = ""

    def of(self, member: str = "") -> Lateness:
        """What counts for one of the submission's members."""
        rows = [row for row in (self.table.get(member), self.table.get("")) if row is not None]
        grants = rows[0] if rows else Row()
        hours = next((row.hours for row in rows if row.hours is not None), None)
        source = self.source if hours is None else "table"
        hours = self.hours if hours is None else hours
        source = source if hours else ""
        return Lateness(
            hours_late=hours or 0.0,
            extension_hours=grants.extension_hours,
            slip_days=grants.slip_days,
            late_source=source,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Told:
        """Undo `to_json`. Raises TypeError, KeyError or AttributeError for anything else."""
        return cls({who: Row(**row) for who, row in data["table"].items()}, data["hours"], data["source"])


def moment(text: str, what: str) -> datetime:
    """A point in time, of this machine's zone where it names none. Raises GradingError for what is none.

    Also as Gradescope and GitHub write it: `2026-03-01 23:59:00.123456000 Z`.
    """
    match = re.fullmatch(
        r"(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d)(:\d\d)?(\.\d+)?\s*(Z|UTC|[+-]\d\d:?\d\d)?", text.strip(), re.ASCII
    )
    try:
        if match is None:
            raise ValueError
        day, minute, second, _, zone = match.groups()
        found = datetime.fromisoformat(f"{day}T{minute}{second or ':00'}")
        if zone in ("Z", "UTC"):
            return found.replace(tzinfo=timezone.utc)
        if zone:
            return datetime.strptime(f"{found.isoformat()}{zone.replace(':', '')}", "%Y-%m-%dT%H:%M:%S%z")
        return found.astimezone()
    except (ValueError, OverflowError):
        form = "2026-03-01T23:59, or with a zone 2026-03-01T23:59+01:00"
        raise GradingError(f"{what} {text!r} is no date with a time: write {form}", exit_code=2) from None


def hours_after(due: datetime, submitted: datetime) -> float:
    """How late that is; 0 for what came in time."""
    return max(0.0, round((submitted - due).total_seconds() / 3600, 4))


def from_platform(handin: Handin, due: datetime | None) -> tuple[float | None, str]:
    """(hours, source) as the platform says, None where it does not."""
    if handin.platform == "canvas":
        return (MARKED_HOURS if any(map(is_marked_late, handin.originals)) else 0.0), "canvas"
    if handin.submitted and due:
        submitted = moment(handin.submitted, f"{handin.name} was handed in at")
        return hours_after(due, submitted), handin.platform
    return None, ""


@dataclass(frozen=True)
class LateTable:
    """A table of lateness. rows: (column, who, what it says, line)."""

    path: Path
    rows: list[tuple[str, str, Row, int]]

    def told(
        self, find: Callable[[str, str], list[tuple[str, str]]], warn: Callable[[str, str], None]
    ) -> dict[str, Told]:
        """submission -> its rows. find: a column and what stands in it -> (submission, member)."""
        found: dict[str, Told] = {}
        for column, who, row, _ in self.rows:
            places = find(column, who)
            if not places:
                warn(f"{self.path}: nobody here is called {who!r}", who)
            for submission, member in places:
                found.setdefault(submission, Told()).table[member] = row
        return found


def read_late(path: Path, due: datetime | None) -> LateTable:
    """Read a table. Raises GradingError with the line of what is wrong.

    Columns: one of WHO; `hours_late`, or one of WHEN, which needs `due`; GRANTS may be there, beside or alone.
    """
    found: list[tuple[str, str, Row, int]] = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            columns = rows.fieldnames or []
            key = next((name for name in WHO if name in columns), None)
            when = next((name for name in WHEN if name in columns), None)
            grants = [name for name in GRANTS if name in columns]
            if key is None or not ("hours_late" in columns or when or grants):
                raise GradingError(f"{path}: columns `submission` or `student`, and `hours_late` are needed", 2)
            if when and "hours_late" not in columns and due is None:
                raise GradingError(f"{path}: `{when}` says nothing without --due", 2)
            for row in rows:
                what = f"{path}, line {rows.line_num}:"
                hours = None
                if "hours_late" in columns and (row["hours_late"] or not (grants or when)):
                    hours = max(0.0, _number(row["hours_late"], what, "is no number of hours", negative=True))
                elif when and due and row[when]:
                    hours = hours_after(due, moment(row[when], f"{what} {when}"))
                extension, slip = (
                    _number(row[name], what, f"is no number for {name}") if name in columns and row[name] else 0.0
                    for name in GRANTS
                )
                if slip != int(slip):
                    raise GradingError(f"{what} {row['slip_days']!r} is no whole number of slip days", 2)
                found.append((key, row[key] or "", Row(hours, extension, int(slip)), rows.line_num))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise GradingError(f"{path} cannot be read: {error}", exit_code=2) from error
    return LateTable(path, found)


def _number(text: str | None, where: str, problem: str, *, negative: bool = False) -> float:
    try:
        number = float(text or "")
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or abs(number) > 1e6 or (number < 0 and not negative):
        raise GradingError(f"{where} {text!r} {problem}", 2)
    return number
