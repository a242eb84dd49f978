"""The rubric: grading/rubric.toml as objects, and points from verdicts."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class RubricError(Exception):
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


@dataclass(frozen=True)
class Rubric:
    """The whole rubric. submit: the files that a submission consists of."""

    title: str
    submit: tuple[str, ...]
    max_file_bytes: int
    functions: dict[str, Function]

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
    return Rubric(raw["title"], tuple(raw["submit"]), raw["max_file_bytes"], functions)


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
    if weight == 0:
        return 0.0
    share = sum(function.weights[group] * passed[group] / total[group] for group in total) / weight
    return round(function.points * share, 4)
