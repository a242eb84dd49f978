"""What grading one submission found: plain data, which reports are made of and `--resume` reads back.

Two kinds of text meet here. What the judge wrote (`problem`, `hint`, `finding`, `notes`, `events`) holds no hidden
value and may be shown. What came out of the submission (`public`, `output`) is hostile: escape it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

RESERVED = {"grades.csv", "summary.html", ".work", ".lock"}  # in the output folder, so no submission's name


@dataclass
class FunctionResult:
    """One graded function.

    groups: name -> [passed, all] of its hidden cases.  problem: what is wrong, in the judge's words; "" if nothing is.
    mistake, hint: the name of the known mistake that answers the same, and the sentence about it; "" if none does.
    finding: where none does, what was measured of the answers, in the judge's words; "" if nothing is sure.
    public: the message of the first public check that fails, as the student's own `pytest grading/` prints it.
    """

    id: str
    points: float
    possible: float
    groups: dict[str, list[int]] = field(default_factory=dict)
    problem: str = ""
    mistake: str = ""
    hint: str = ""
    public: str = ""
    seconds: float = 0.0
    finding: str = ""


@dataclass
class Result:
    """One submission.

    fingerprint: hash of everything that the result depends on.  total: points after the penalty.
    statuses: what was out of the ordinary, one word each; none for most.  notes: the same in sentences, for the
    student.  events: for the instructor: timeouts, crashes, refused system calls.
    output: what the submission printed when it was imported, before it saw any hidden input, cut to a limit.
    output_dropped: bytes that it printed then beyond that limit.
    source: a hash of the place where the submission lay.
    isolation: "sandbox" or "process".  seconds: wall time.  penalty: points taken off for lateness.
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
    hours_late: float = 0.0
    penalty: float = 0.0
    source: str = ""

    @property
    def earned(self) -> float:
        """Points before the penalty."""
        return round(sum(function.points for function in self.functions), 4)

    @property
    def total(self) -> float:
        """Points after the penalty, never negative."""
        return round(max(0.0, self.earned - self.penalty), 4)

    @property
    def possible(self) -> float:
        """What a right submission gets."""
        return sum(function.possible for function in self.functions)

    @property
    def status(self) -> str:
        """The statuses in one cell; "ok" when there are none."""
        return "; ".join(self.statuses) or "ok"

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Result:
        """Undo `to_json`. Raises TypeError or KeyError for anything else."""
        return cls(**{**data, "functions": [FunctionResult(**function) for function in data["functions"]]})
