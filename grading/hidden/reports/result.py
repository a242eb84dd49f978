"""What grading one submission found: plain data, which reports are made of and `--resume` reads back.

Two kinds of text meet here. What the judge wrote (`problem`, `hint`, `finding`, `notes`, `events`) holds no hidden
value and may be shown. What came out of the submission (`public`, `output`) is hostile: escape it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

# In the output folder, so no submission's name.
RESERVED = {"grades.csv", "summary.html", "regrade.csv", ".record.json", ".work", ".lock"}
RESERVED |= {"samples.csv", "leaderboard.html"}


@dataclass
class FunctionResult:
    """One graded function.

    groups: name -> [passed, all] of its hidden cases.  problem: what is wrong, in the judge's words; "" if nothing is.
    mistake, hint: the name of the known mistake that answers the same, and the sentence about it; "" if none does.
    finding: where none does, what was measured of the answers, in the judge's words; "" if nothing is sure.
    public: the message of a public check that fails, as the student's own `pytest grading/` prints it.
    note: what a right function should change all the same, in the judge's words; it costs nothing.
    """

    id: str
    points: float
    possible: float
    groups: dict[str, list[int]] = field(default_factory=dict)
    problem: str = ""
    mistake: str = ""
    hint: str = ""
    public: str = ""
    note: str = ""
    seconds: float = 0.0
    finding: str = ""


@dataclass
class Override:
    """Points that a person decided. id: of a function, or TOTAL for the mark.  reason: shown to the student."""

    id: str
    points: float
    reason: str


TOTAL = "total"  # in an override: the mark itself, after the penalty


@dataclass(kw_only=True)
class Lateness:
    """When something came. hours_late: after the due date.  extension_hours, slip_days: granted, and used up.

    late_source: what said so: "table", "canvas", "gradescope" or "classroom"; "" where nothing did.
    """

    hours_late: float = 0.0
    extension_hours: float = 0.0
    slip_days: int = 0
    late_source: str = ""

    @property
    def hours_charged(self) -> float:
        """What is left of the hours to pay for."""
        return max(0.0, self.hours_late - self.extension_hours - 24 * self.slip_days)


@dataclass
class Member(Lateness):
    """One of a group. Lateness is a person's, and so is what it costs; the mark can be set for one of them alone."""

    student: str
    name: str = ""
    penalty: float = 0.0
    overrides: list[Override] = field(default_factory=list)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Member:
        """Undo what `Result.to_json` made of it. Raises TypeError or KeyError for anything else."""
        return cls(**{**data, "overrides": [Override(**override) for override in data["overrides"]]})


@dataclass
class Result(Lateness):
    """One submission.

    fingerprint: hash of everything that the result depends on.  total: points after the penalty.
    statuses: what was out of the ordinary, one word each; none for most.  notes: the same in sentences, for the
    student.  events: for the instructor: timeouts, crashes, refused system calls.
    output: what the submission printed when it was imported, before it saw any hidden input, cut to a limit.
    output_dropped: bytes that it printed then beyond that limit.
    source: a hash of the place where the submission lay.
    isolation: "sandbox" or "process".  seconds: wall time.
    platform: whose names the submission had, "" for nobody's.  originals: what the platform called what it is made of.

    The rest is what people decided, and is applied after grading (decisions/): student and name as the roster has them,
    lateness and the points that it costs, points set by hand, and the members of a group.
    """

    submission: str
    student: str
    fingerprint: str
    isolation: str
    functions: list[FunctionResult] = field(default_factory=list)
    statuses: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    output: str = ""
    output_dropped: int = 0
    seconds: float = 0.0
    source: str = ""
    platform: str = ""
    originals: list[str] = field(default_factory=list)
    name: str = ""
    penalty: float = 0.0
    overrides: list[Override] = field(default_factory=list)
    members: list[Member] = field(default_factory=list)

    def override(self, id: str) -> Override | None:
        """What was decided about a function, or about TOTAL."""
        return next((override for override in self.overrides if override.id == id), None)

    def points(self, function: FunctionResult) -> float:
        """What a function counts: what was decided, else what it got."""
        override = self.override(function.id)
        return function.points if override is None else override.points

    @property
    def earned(self) -> float:
        """Points before the penalty."""
        return round(sum(self.points(function) for function in self.functions), 4)

    @property
    def total(self) -> float:
        """The mark: points after the penalty, or what was decided."""
        decided = self.override(TOTAL)
        return decided.points if decided else self.less(self.penalty)

    def mark(self, member: Member) -> float:
        """The total of one of the group."""
        decided = next((override for override in member.overrides), None) or self.override(TOTAL)
        return decided.points if decided else self.less(member.penalty)

    def less(self, penalty: float) -> float:
        """The points earned after a penalty, never negative."""
        return round(max(0.0, self.earned - penalty), 4)

    @property
    def possible(self) -> float:
        """What a right submission gets."""
        return sum(function.possible for function in self.functions)

    @property
    def status(self) -> str:
        """The statuses in one cell, "override" where somebody decided; "ok" when there are none."""
        decided = self.overrides or any(member.overrides for member in self.members)
        return "; ".join([*self.statuses, *["override"] * bool(decided)]) or "ok"

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Result:
        """Undo `to_json`. Raises TypeError or KeyError for anything else."""
        data = {**data, "functions": [FunctionResult(**function) for function in data["functions"]]}
        data["overrides"] = [Override(**override) for override in data.get("overrides", [])]
        data["members"] = [Member.from_json(member) for member in data.get("members", [])]
        return cls(**data)


@dataclass(frozen=True)
class Absent:
    """A student of the roster who handed nothing in. overrides: one at most, of the mark."""

    student: str
    name: str
    overrides: list[Override] = field(default_factory=list)

    @property
    def total(self) -> float:
        """The mark."""
        return self.overrides[0].points if self.overrides else 0.0

    @property
    def status(self) -> str:
        """For the table of grades."""
        return "not-submitted" + "; override" * bool(self.overrides)


@dataclass(frozen=True)
class Change:
    """One submission whose mark is another than in the last tables."""

    submission: str
    student: str
    before: float
    after: float
    because: list[str]
