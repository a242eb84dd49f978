"""feedback.html, the student's page, and what every report says about one graded function."""

from __future__ import annotations

from dataclasses import dataclass

from grading.hidden.reports.result import FunctionResult, Result
from grading.hidden.reports.text import MAX_MESSAGE, MAX_OUTPUT, environment, short
from grading.rubric import Function, Rubric


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
