"""feedback.html, the student's page, and what every report says about one graded function."""

from __future__ import annotations

from dataclasses import dataclass

from grading.feedback import words
from grading.hidden.reports.result import TOTAL, FunctionResult, Lateness, Override, Result
from grading.hidden.reports.text import MAX_MESSAGE, MAX_OUTPUT, environment, short
from grading.rubric import Function, Rubric


@dataclass(frozen=True)
class Row:
    """One graded function as a report shows it. number: its place in the rubric, from 1.

    override: points that somebody decided, which count instead of the result's.
    """

    number: int
    function: Function
    result: FunctionResult
    override: Override | None = None

    @property
    def points(self) -> float:
        """What counts."""
        return self.override.points if self.override else self.result.points

    @property
    def full(self) -> bool:
        """Whether the checks found nothing, whatever was decided."""
        return self.result.points >= self.function.points - 1e-9

    @property
    def percent(self) -> int:
        """Points as a share of those possible; a bar has no more."""
        return min(100, round(100 * self.points / self.function.points)) if self.function.points else 100

    @property
    def groups(self) -> list[str]:
        """ "short schedule 3 of 4", for each group of hidden cases."""
        return [f"{words(name)} {passed} of {count}" for name, (passed, count) in self.result.groups.items()]

    @property
    def command(self) -> str:
        """What runs this function's public checks."""
        return f"pytest grading/ -k {self.function.id.replace('-', '_')}"


def rows(result: Result, rubric: Rubric) -> list[Row]:
    """Every graded function in the rubric's order, also those that could not be judged."""
    found = {function.id: function for function in result.functions}
    missing = "it was not judged"
    return [
        Row(
            i, function, found.get(id) or FunctionResult(id, 0.0, function.points, problem=missing), result.override(id)
        )
        for i, (id, function) in enumerate(rubric.functions.items(), start=1)
    ]


_SAYS = {"canvas": "Canvas marked it as late without saying by how much, which counts as one day begun."}


def lateness(result: Result) -> list[str]:
    """What lateness did, in sentences; none for who was in time. In a group, by member where it differs."""
    if not result.members:
        return _lateness(result, result.penalty)
    each = {member.student: _lateness(member, member.penalty) for member in result.members}
    told = {" ".join(said) for said in each.values()}
    if len(told) == 1:
        return next(iter(each.values()))
    return [f"{who}: {sentence}" for who, said in each.items() for sentence in said or ["Handed in on time."]]


def _lateness(late: Lateness, penalty: float) -> list[str]:
    if late.hours_late <= 0 and penalty <= 0:
        return []
    cost = f"this costs {short(penalty)} points" if penalty > 0 else "nothing is taken off"
    granted = [f"an extension of {_long(late.extension_hours)}"] if late.extension_hours > 0 else []
    if late.slip_days > 0:
        granted.append(f"{late.slip_days} slip {'day' if late.slip_days == 1 else 'days'}")
    used = f" With {' and '.join(granted)}, {_long(late.hours_charged)} count." if granted else ""
    why = [_SAYS[late.late_source]] if late.late_source in _SAYS else []
    return [f"Handed in {_long(late.hours_late)} late: {cost}.{used}", *why]


def _long(hours: float) -> str:
    return f"{hours * 60:.0f} minutes" if 0 < hours < 1 else f"{short(round(hours, 1))} hours"


def decision(override: Override, engine: float) -> str:
    """An override in a sentence. engine: the points before."""
    what, verb = ("The mark", "was") if override.id == TOTAL else (f"The points of {override.id}", "were")
    return f"{what} {verb} set to {short(override.points)} instead of {short(engine)}: {override.reason}"


def _decisions(result: Result, rubric: Rubric) -> list[str]:
    """All that was decided, in the rubric's order, then the mark."""
    said = [decision(row.override, row.result.points) for row in rows(result, rubric) if row.override]
    if mark := result.override(TOTAL):
        said.append(decision(mark, result.less(result.penalty)))
    for member in result.members:
        said += [f"{member.student}: {decision(mark, result.less(member.penalty))}" for mark in member.overrides]
    return said


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
            decisions=_decisions(result, rubric),
            message=MAX_MESSAGE,
            output=MAX_OUTPUT,
        )
    )
