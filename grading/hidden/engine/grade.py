"""Grades one submission: the hidden cases, one call at a time, in as many workers as it takes.

What may be shown to a student is decided here. The submission sees hidden inputs, so from the first hidden call on
nothing that comes out of it is passed on: neither what it prints nor what its exceptions say. What is shown is what it
printed on import, before it saw any, the judge's own words, and the first public check that fails, which a fresh worker
computes that has seen public inputs only.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

from grading.cases import Case
from grading.feedback import message
from grading.hidden.engine.session import PACKAGES, BudgetSpent, Session, Unloadable
from grading.hidden.reports.result import FunctionResult
from grading.hidden.sandbox.workers import Failed, WorkerLost, Zygote
from grading.judge import Verdict, run_and_judge
from grading.rubric import Function, Rubric, score


@dataclass
class Exam:
    """What every submission is asked. timeout: seconds for one call."""

    rubric: Rubric
    hidden: dict[str, list[Case]]
    public: dict[str, list[Case]]
    mistakes: dict[str, dict[str, str]]
    timeout: float


@dataclass
class Found:
    """What came of a submission, as `Result` wants it."""

    functions: list[FunctionResult] = field(default_factory=list)
    statuses: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    output: str = ""
    output_dropped: int = 0


def grade_submission(exam: Exam, zygote: Zygote, slot: int, files: dict[str, bytes]) -> Found:
    """Grade the files of one submission, named in the order in which they are imported.

    Raises ZygoteLost, after which nothing is known, and GradingError when this machine can start no worker.
    """
    session = Session(zygote, slot, files, exam.timeout)
    try:
        session.load_all()
        functions = [_grade_function(exam, session, function) for function in exam.rubric.functions.values()]
    finally:
        session.close()
    unclear = [result for result in functions if result.points < result.possible and not result.public]
    explainer = Session(zygote, slot, files, exam.timeout)
    try:
        for result in unclear:
            if result.id not in session.lost_in:
                result.public = _explain(exam, explainer, exam.rubric.functions[result.id])
    finally:
        explainer.close()
    return Found(functions, session.statuses(), session.events, session.output, session.dropped)


def _grade_function(exam: Exam, session: Session, function: Function) -> FunctionResult:
    """The hidden cases of one id."""
    result = FunctionResult(function.id, 0.0, function.points)
    begin = time.monotonic()
    verdicts: list[tuple[str, Verdict]] = []
    session.begin(function)
    for case in exam.hidden[function.id]:
        verdicts.append((case.group, _judge(session, case, hidden=True)))
    for group, verdict in verdicts:
        counts = result.groups.setdefault(group, [0, 0])
        counts[0] += verdict.passed
        counts[1] += 1
    result.points = score(function, ((group, verdict.passed) for group, verdict in verdicts))
    failed = [(group, verdict) for group, verdict in verdicts if not verdict.passed]
    if failed:
        known = Counter(verdict.mistake for _, verdict in failed if verdict.mistake)
        result.mistake = known.most_common(1)[0][0] if known else ""
        result.hint = exam.mistakes.get(function.id, {}).get(result.mistake, "")
        result.finding = "" if result.mistake else found_by_measuring(exam, [verdict for _, verdict in failed])
        # First what stands in front of all points, then what is recognised, then what came first.
        group, verdict = min(failed, key=lambda f: (f[0] != function.gate, (f[1].mistake or "") != result.mistake))
        result.problem = verdict.discreet
        if group == function.gate:
            result.problem += f" (the other checks of this function count once `{group}` is passed)"
    result.public = session.broken.get(function.file, "")
    result.seconds = time.monotonic() - begin
    return result


def found_by_measuring(exam: Exam, failed: list[Verdict]) -> str:
    """What was measured most often, in words that may be shown of hidden cases."""
    level = exam.rubric.hints.feedback
    found = Counter(verdict.finding.sentence(level, hidden=True) for verdict in failed if verdict.finding)
    return found.most_common(1)[0][0] if found else ""


def _explain(exam: Exam, session: Session, function: Function) -> str:
    """What the first public check that fails says, as `pytest grading/` would."""
    session.begin(function)
    for case in exam.public[function.id]:
        verdict = _judge(session, case, hidden=False)
        if not verdict.passed:
            return message(function, case, verdict, exam.mistakes, exam.rubric.hints.feedback)
    return ""


def _judge(session: Session, case: Case, *, hidden: bool) -> Verdict:
    """The verdict on one case; losing the worker, or an exception, is one as well."""
    try:
        return run_and_judge(session.run, case)
    except (WorkerLost, BudgetSpent, Unloadable) as error:
        return Verdict(False, str(error), discreet=str(error))
    except Failed as error:
        where = f" in line {error.line} of {session.file}" if error.line > 0 else ""
        where += f" ({PACKAGES})" if error.type == "ModuleNotFoundError" else ""
        discreet = "not written yet" if error.type == "NotImplementedError" else f"raises {error.type}{where}"
        return Verdict(False, discreet if hidden else f"{error.text}{where}", discreet=discreet)
