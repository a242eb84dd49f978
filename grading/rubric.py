"""The rubric: grading/rubric.toml as objects, and points from verdicts."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from grading.errors import GradingError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


# Who sees a part of the results on Gradescope; the words are Gradescope's.
VISIBILITIES = ("hidden", "after_due_date", "after_published", "visible")


class RubricError(GradingError):
    """The rubric contradicts itself or the cases."""


@dataclass(frozen=True)
class Function:
    """One graded function; the fields are explained in rubric.toml."""

    id: str
    title: str
    points: float
    file: str
    name: str
    before: str
    idea: str
    weights: dict[str, float]
    public: list[str]
    gate: str = ""
    visibility: str = ""


@dataclass(frozen=True)
class LatePolicy:
    """What lateness costs; the fields are explained in rubric.toml."""

    grace_minutes: float = 0.0
    percent_per_day: float = 0.0
    max_percent: float = 0.0

    def penalty(self, earned: float, hours_late: float) -> float:
        """Points to take off: a share of those earned for every day begun after the grace period."""
        minutes = hours_late * 60 - self.grace_minutes
        if not minutes > 0:
            return 0.0
        days = math.ceil(round(min(minutes / 1440, 1e6), 6))  # rounded: 24 h after the grace period is one day, not two
        return round(earned * min(days * self.percent_per_day, self.max_percent) / 100, 4)


@dataclass(frozen=True)
class Rubric:
    """The whole rubric. submit: the files that a submission consists of."""

    title: str
    submit: tuple[str, ...]
    max_file_bytes: int
    functions: dict[str, Function]
    visibility: str = "visible"
    stdout_visibility: str = "hidden"
    late: LatePolicy = LatePolicy()

    @property
    def total(self) -> float:
        """All points together."""
        return sum(function.points for function in self.functions.values())


def load_rubric(path: Path = Path(__file__).parent / "rubric.toml") -> Rubric:
    """Read and check the rubric. Raises RubricError."""
    raw = tomllib.loads(path.read_text(encoding="utf-8"))
    functions = {entry["id"]: Function(**entry) for entry in raw["function"]}
    if len(functions) != len(raw["function"]):
        raise RubricError(f"{path}: an id appears twice")
    for function in functions.values():
        if function.file not in raw["submit"]:
            raise RubricError(f"{path}: {function.id} is in {function.file}, which is not in `submit`")
        if not set(function.public) <= function.weights.keys():
            raise RubricError(f"{path}: {function.id} has a public group without a weight")
        if not function.weights or min(function.weights.values()) <= 0:
            raise RubricError(f"{path}: {function.id} needs a positive weight for every group")
        if function.gate and function.gate not in function.weights:
            raise RubricError(f"{path}: {function.id} has a gate that is none of its groups")
    seen = {"visibility": "visible", "stdout_visibility": "hidden"}
    seen |= {setting: raw[setting] for setting in seen if setting in raw}
    own = {function.id: function.visibility for function in functions.values() if function.visibility != ""}
    for owner, value in {**seen, **own}.items():
        if value not in VISIBILITIES:
            raise RubricError(f"{path}: the visibility {value!r} ({owner}) is none of {', '.join(VISIBILITIES)}")
    late = _late_policy(raw.get("late", {}), path)
    return Rubric(raw["title"], tuple(raw["submit"]), raw["max_file_bytes"], functions, **seen, late=late)


def _late_policy(table: dict[str, Any], path: Path) -> LatePolicy:
    """Lateness costs nothing where the table is missing."""
    names = [field.name for field in fields(LatePolicy)]
    if not isinstance(table, dict) or set(table) - set(names):
        raise RubricError(f"{path}: [late] has the settings {', '.join(names)} and no others")
    for name, value in table.items():
        largest = 100 if "percent" in name else 1e6
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= largest:
            raise RubricError(f"{path}: [late] {name} = {value!r} is not a number from 0 to {largest:,.0f}")
    return LatePolicy(**{name: float(value) for name, value in table.items()})


def score(function: Function, outcomes: Iterable[tuple[str, bool]]) -> float:
    """Points from (group, passed) of the cases of one id. Groups without a case do not count.

    Raises RubricError for a group that the rubric does not weigh.
    """
    outcomes = list(outcomes)
    total, passed = Counter(), Counter()
    for group, ok in outcomes:
        if group not in function.weights:
            raise RubricError(f"the rubric gives {function.id} no weight for the group {group!r}")
        total[group] += 1
        passed[group] += ok
    weight = sum(function.weights[group] for group in total)
    if weight == 0 or passed[function.gate] < total[function.gate]:
        return 0.0
    share = sum(function.weights[group] * passed[group] / total[group] for group in total) / weight
    return round(function.points * share, 4)
