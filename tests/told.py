"""What grading can tell a student about hidden cases: every value of every place, read out of the code.

The number of combinations bounds what a submission can tell about hidden inputs, whatever it does.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import itertools
import json
import math
import re
from dataclasses import fields, replace
from functools import cache
from typing import Any

from grading import judge
from grading.cases import HIDDEN, Case, load_cases
from grading.feedback import mistakes
from grading.findings import sentences
from grading.hidden.engine import grade
from grading.hidden.engine.session import CALLS_PER_SUBMISSION, BudgetSpent, Unloadable
from grading.hidden.reports.feedback import feedback
from grading.hidden.reports.gradescope import gradescope
from grading.hidden.reports.result import FunctionResult, Result
from grading.hidden.sandbox.workers import Failed, WorkerLost
from grading.rubric import Function, load_rubric

RUBRIC = load_rubric()
TIMEOUT = 10.0  # seconds for one call, as `grade` has it by default

# What is known of a function's result before the first hidden input, what hidden inputs decide and students see, and
# what students do not see.
KNOWN, TOLD = {"id", "possible"}, {"groups", "points", "problem", "hint", "finding", "public", "note"}
UNTOLD: dict[str, Any] = {"mistake": "", "seconds": 0.0}
UNTOLD_OF_ALL: dict[str, Any] = {"fingerprint": "", "source": "", "statuses": [], "events": []}
SECOND_TIME = "cannot be imported a second time"
LINE = 7  # stands for the line that a public check has told


@cache
def hidden_cases(id: str) -> tuple[Case, ...]:
    return tuple(load_cases(HIDDEN / f"{id}.npz", hidden=True))


def bits(id: str) -> float:
    """The logarithm of the number of things that can be told about one function."""
    counts = [1 + sum(case.group == group for case in hidden_cases(id)) for group in groups(id)]
    public = 3  # none, that of before the hidden cases, or that its file cannot be imported a second time
    explained = len(hints(id) | found(id))  # a finding is told where no mistake is known
    return sum(map(math.log2, (*counts, len(problems(id)), explained, public)))


def bits_of_all() -> float:
    """The same for a submission. Beside its functions there is the time, in whole seconds."""
    seconds = CALLS_PER_SUBMISSION * TIMEOUT + 10  # some for the machine, which starts workers and ends them
    return sum(bits(id) for id in RUBRIC.functions) + math.log2(seconds)


def groups(id: str) -> set[str]:
    return {case.group for case in hidden_cases(id)}


def hints(id: str) -> set[str]:
    """What is said of known mistakes; points follow from the counts, and the name from the hint."""
    known = mistakes()[id]
    return {"", *(known[name] for case in hidden_cases(id) for name in case.mistakes)}


@cache
def found(id: str) -> frozenset[str]:
    """What is said of what was measured."""
    kinds = {(case.call, case.check) for case in hidden_cases(id)}
    return frozenset(text for kind in kinds for text in sentences(*kind, RUBRIC.hints.feedback))


@cache
def problems(id: str) -> frozenset[str]:
    """The sentences about what is wrong, "" for nothing. A line stands for the one that a public check has told."""
    function = RUBRIC.functions[id]
    said = {"", judge.WRONG_KIND, *_said_by_the_engine(function)}
    for case in hidden_cases(id):
        said |= _said_by(judge.CHECKS[case.check].__name__, _names(id)) | _said_by("_gate", _names(id))
    gate = f" (the other checks of this function count once `{function.gate}` is passed)"
    return frozenset(said | ({sentence + gate for sentence in said} if function.gate else set()))


def _names(id: str) -> frozenset[str]:
    """What arrays of the cases of one id are called."""
    cases = hidden_cases(id)
    found = {name for case in cases for name in (*case.inputs, *case.expected)}
    return frozenset({*found, *judge.OUTPUTS, "t", "cond"})


def _said_by_the_engine(function: Function) -> set[str]:
    """What is said of calls that give no result."""

    class Session:
        file = function.file
        error: Exception

        def run(self, *args: Any) -> Any:
            raise self.error

    kinds = [name for name, kind in vars(builtins).items() if isinstance(kind, type)]
    errors: list[Exception] = [
        Failed(judged=False, type=kind, line=line, text="SAID") for kind in kinds for line in (0, LINE, LINE + 1)
    ]
    errors += [WorkerLost(reason, "SAID") for reason in grade.LOST]
    errors += [BudgetSpent("SAID")]
    errors += [Unloadable(f"{function.file} {what}") for what in ("is missing", "cannot be imported")]
    said, session = set(), Session()
    for session.error in errors:
        verdict = grade._judge_hidden(session, hidden_cases(function.id)[0], grade.Public("", LINE))
        assert "SAID" not in verdict.discreet
        said.add(verdict.discreet)
    return said


# -- sentences of the judge, out of its source --------------------------------------------------------------

_TREE = ast.parse(inspect.getsource(judge))
_FUNCTIONS = {node.name: node for node in _TREE.body if isinstance(node, ast.FunctionDef)}


def _said_by(function: str, names: frozenset[str]) -> set[str]:
    """Every discreet sentence of a check and of what it calls."""
    said: set[str] = set()
    todo, done = [function], set()
    while todo:
        node = _FUNCTIONS[todo.pop()]
        done.add(node.name)
        for call in (each for each in ast.walk(node) if isinstance(each, ast.Call)):
            if isinstance(call.func, ast.Name) and call.func.id in _FUNCTIONS.keys() - done:
                todo.append(call.func.id)
            if isinstance(call.func, ast.Name) and call.func.id == "Problem":
                assert {keyword.arg for keyword in call.keywords} <= {"is_formal"}, ast.unparse(call)
                said |= _strings(call.args[-1], node, names)
    return said


def _strings(value: ast.expr, function: ast.FunctionDef, names: frozenset[str]) -> set[str]:
    """Every string that an expression can be. An AssertionError says which one could be anything."""
    if isinstance(value, ast.Constant):
        return {str(value.value)}
    if isinstance(value, ast.JoinedStr):
        parts = [_strings(part, function, names) for part in value.values]
        return {"".join(each) for each in itertools.product(*parts)}
    if isinstance(value, ast.FormattedValue):
        return _strings(value.value, function, names)
    if isinstance(value, ast.IfExp):
        return _strings(value.body, function, names) | _strings(value.orelse, function, names)
    if isinstance(value, ast.Call) and ast.unparse(value) == "name.removeprefix('after/')":
        return set(names)
    if isinstance(value, ast.Name):
        found = _values_of(value.id, function, names)
        if found:
            return found
    raise AssertionError(f"what can `{ast.unparse(value)}` be in {function.name}? A student reads it")


def _values_of(variable: str, function: ast.FunctionDef, names: frozenset[str]) -> set[str]:
    """What the assignments and loops of a function give to a variable."""
    found: set[str] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == [variable]:
            found |= _strings(node.value, function, names)
        if not isinstance(node, ast.For) or variable not in {n.id for n in ast.walk(node.target) if hasattr(n, "id")}:
            continue
        if ast.unparse(node.iter).endswith(".items()"):  # arrays, by name
            found |= names
            continue
        for part in ast.walk(node.iter):
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                found.add(part.value)
            if isinstance(part, ast.Name) and part.id.isupper():
                found |= set(getattr(judge, part.id))
    return found


# -- what of a result a student sees ------------------------------------------------------------------------


def visible(result: Result) -> tuple[str, str]:
    """The page, and what Gradescope shows."""
    shown = gradescope(result, RUBRIC)
    return feedback(result, RUBRIC), json.dumps(without_extra_data(shown))


def without_extra_data(results: dict[str, Any]) -> dict[str, Any]:
    """results.json as students see it."""
    shown = {key: value for key, value in results.items() if key != "extra_data"}
    return {**shown, "tests": [{k: v for k, v in test.items() if k != "extra_data"} for test in shown["tests"]]}


def scrubbed(result: Result) -> Result:
    """The result with other values in all places that students must not see."""
    assert {field.name for field in fields(FunctionResult)} == KNOWN | TOLD | UNTOLD.keys(), "is the new field told?"
    functions = [replace(function, **UNTOLD) for function in result.functions]
    return replace(result, functions=functions, seconds=float(math.ceil(result.seconds)), **UNTOLD_OF_ALL)


def assert_nothing_else(result: Result, before: Result) -> None:
    """What hidden inputs decided, and students see, is in the places that `bits` counts.

    before: the result of the same submission without any hidden case.
    """
    assert visible(result) == visible(scrubbed(result))
    for name in ("output", "output_dropped", "notes", "isolation", "hours_late", "penalty"):
        assert getattr(result, name) == getattr(before, name), name
    for function, public in zip(result.functions, before.functions):
        assert_told(function)
        assert function.note in ("", public.note)  # which of the two follows from the counts
        assert function.public in ("", public.public, f"{RUBRIC.functions[function.id].file} {SECOND_TIME}")


def assert_told(function: FunctionResult) -> None:
    """What is said of one function's hidden cases is one of the enumerated things."""
    said = re.sub(r"(?<= in line )\d+(?= of )", str(LINE), function.problem)
    assert said in problems(function.id), (function.id, function.problem)
    assert function.hint in hints(function.id)
    assert function.finding in {"", *found(function.id)}
    assert not (function.hint and function.finding)
    assert {group: count for group, (_, count) in function.groups.items()} in (
        {},
        {group: sum(case.group == group for case in hidden_cases(function.id)) for group in groups(function.id)},
    )
