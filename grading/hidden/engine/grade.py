"""Grades one submission: the public and then the hidden cases, one call at a time, in as many workers as it takes.

What may be shown to a student is decided here. The submission sees hidden inputs, so from the first hidden call on
nothing that comes out of it is passed on: neither what it prints nor what its exceptions say. What is shown is what it
printed on import and the first public check of each function that fails, both from before, and of the hidden cases
which are passed, with one sentence for each function, out of those that stand in `judge.py` and here.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from grading.cases import Case
from grading.feedback import causes, message
from grading.hidden.engine.session import PACKAGES, BudgetSpent, Session, Unloadable
from grading.hidden.intake.inbox import Contents
from grading.hidden.reports.result import FunctionResult, Result
from grading.hidden.sandbox.workers import Failed, WorkerLost, Zygote
from grading.judge import Verdict, device_case, device_note, run_and_judge
from grading.rubric import Function, Rubric, score
from grading.submission import SubmissionError

# What is said of a hidden call, whatever the submission says. Each name and each sentence more is a bit more that a
# submission can tell about hidden inputs; tests/engine/test_told.py counts them all.
EXCEPTIONS = frozenset(
    [
        "AssertionError",
        "AttributeError",
        "ImportError",
        "IndexError",
        "KeyError",
        "ModuleNotFoundError",
        "NameError",
        "NotImplementedError",
        "OverflowError",
        "RecursionError",
        "RuntimeError",
        "TypeError",
        "UnboundLocalError",
        "ValueError",
        "ZeroDivisionError",
    ]
)
LOST = {
    "timeout": "no answer in time: is there a loop that does not end?",
    "crash": "the process ended in the call",
    "killed": "the system ended the process: does it need too much memory?",
    "disk": "too many or too large files were written",
    "refused": "too many system calls were made that are not allowed",
    "protocol": "the process sent something else than an answer",
}
SPENT = "the time for one submission is used up"


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


def result_of(rubric: Rubric, contents: Contents, found: Found, **about: Any) -> Result:
    """What was handed in, and what came of it. about: the other fields of a result."""
    statuses = []
    if contents.unreadable:
        statuses = ["unreadable"]
    elif any(file not in contents.files for file in rubric.submit):
        statuses = ["missing-files"]
    return Result(
        functions=found.functions,
        statuses=statuses + found.statuses,
        notes=contents.notes,
        events=found.events,
        output=found.output,
        output_dropped=found.output_dropped,
        **about,
    )


@dataclass
class Public:
    """What the public checks of one function may add: of the first that failed, what it says, with the causes that
    others have, and the line in which it raised (0 if it did not); or, if all were passed, a note.
    """

    text: str = ""
    line: int = 0
    note: str = ""


def grade_submission(exam: Exam, zygote: Zygote, slot: int, files: dict[str, bytes]) -> Found:
    """Grade the files of one submission, named in the order in which they are imported.

    Raises ZygoteLost, after which nothing is known, and GradingError when this machine can start no worker.
    """
    session = Session(zygote, slot, files, exam.timeout)
    try:
        session.load_all()
        public = _public_checks(exam, session)  # all of them before the first hidden one
        functions = [_grade_function(exam, session, f, public[f.id]) for f in exam.rubric.functions.values()]
    finally:
        session.close()
    return Found(functions, session.statuses(), session.events, session.output, session.dropped)


def _public_checks(exam: Exam, session: Session) -> dict[str, Public]:
    """What the first public check that fails says, as `pytest grading/` would, for each id."""
    found = {id: Public() for id in exam.rubric.functions}
    try:
        for id, function in exam.rubric.functions.items():
            found[id] = _what_fails(exam, session, function)
    except BudgetSpent:  # in the events; the hidden cases have their own time
        pass
    return found


def _what_fails(exam: Exam, session: Session, function: Function) -> Public:
    """The first public check that fails, with the causes that later ones add."""
    public, cases = Public(), one_of_each_group(exam.public[function.id])
    session.begin(function, cases, hidden=False)
    for case in cases:
        line = 0
        try:
            verdict = run_and_judge(session.run, case)
        except (WorkerLost, Unloadable) as error:
            verdict = Verdict(False, str(error), is_formal=True)
        except Failed as error:
            line = error.line
            verdict = Verdict(False, error.text + _where(error, session.file, line), is_formal=True)
        if verdict.passed or (public.text and case.check == "noise"):
            continue
        level = exam.rubric.hints.feedback
        if not public.text:
            public = Public(message(function, case, verdict, exam.mistakes, level), line)
        elif not verdict.is_formal:
            more = causes(case, verdict, exam.mistakes, level)
            public.text += "".join(f"\n{text}" for text in more if text not in public.text)
        if verdict.is_formal:  # the same stops the others
            break
    if not public.text:
        public.note = _device_note(session, device_case(exam.public[function.id]))
    return public


def one_of_each_group(cases: list[Case]) -> list[Case]:
    """The public cases that are worth their time, which a right submission spends as well.

    They fail for all of the bank's mistakes but one. The short training is not among them: it takes as long as all
    others together, and says what the hidden one says, with numbers.
    """
    first = {case.group: case for case in reversed(cases) if case.check != "toy"}
    return [case for case in cases if first.get(case.group) is case]


def _grade_function(exam: Exam, session: Session, function: Function, public: Public) -> FunctionResult:
    """The hidden cases of one id."""
    result = FunctionResult(function.id, 0.0, function.points)
    begin = time.monotonic()
    session.begin(function, exam.hidden[function.id], hidden=True)
    judged = [(case, _judge_hidden(session, case, public)) for case in exam.hidden[function.id]]
    verdicts = [(case.group, verdict) for case, verdict in judged]
    for group, verdict in verdicts:
        counts = result.groups.setdefault(group, [0, 0])
        counts[0] += verdict.passed
        counts[1] += 1
    result.points = score(function, ((group, verdict.passed) for group, verdict in verdicts))
    failed = [(group, verdict) for group, verdict in verdicts if not verdict.passed]
    result.note = "" if failed else public.note
    if failed:
        # Noise is recovered by the right formula; after a wrong one, it can look like that of another mistake.
        values = [verdict for case, verdict in judged if not verdict.passed and case.check != "noise"]
        known = Counter(v.mistake for v in values or (verdict for _, verdict in failed) if v.mistake)
        result.mistake = known.most_common(1)[0][0] if known else ""
        result.hint = exam.mistakes.get(function.id, {}).get(result.mistake, "")
        result.finding = "" if result.mistake else found_by_measuring(exam, [verdict for _, verdict in failed])
        # First what stands in front of all points, then what is recognised, then what came first.
        group, verdict = min(failed, key=lambda f: (f[0] != function.gate, (f[1].mistake or "") != result.mistake))
        result.problem = verdict.discreet
        if group == function.gate:
            result.problem += f" (the other checks of this function count once `{group}` is passed)"
    result.public = session.broken.get(function.file, "")
    if result.points < result.possible and function.id not in session.lost_in:
        result.public = result.public or public.text
    result.seconds = time.monotonic() - begin
    return result


def _device_note(session: Session, case: Case) -> str:
    """What a function forgets that only a GPU would show, from a public case that it has passed."""
    try:
        return device_note(session.run, case)
    except (WorkerLost, Unloadable, Failed, SubmissionError):
        return ""


def found_by_measuring(exam: Exam, failed: list[Verdict]) -> str:
    """What was measured most often, in words that may be shown of hidden cases."""
    level = exam.rubric.hints.feedback
    found = Counter(verdict.finding.sentence(level, hidden=True) for verdict in failed if verdict.finding)
    return found.most_common(1)[0][0] if found else ""


def _judge_hidden(session: Session, case: Case, public: Public) -> Verdict:
    """The verdict on one hidden case, in our own words; losing the worker, or an exception, is one as well."""
    try:
        return run_and_judge(session.run, case)
    except WorkerLost as error:
        said = LOST[error.reason]
    except BudgetSpent:
        said = SPENT
    except Unloadable as error:
        said = str(error)
    except Failed as error:
        name = error.type if error.type in EXCEPTIONS else "an exception"
        # The line is told where a public check has told it already.
        said = f"raises {name}{_where(error, session.file, error.line if error.line == public.line else 0)}"
        if name == "NotImplementedError":
            said = "not written yet"
    return Verdict(False, said, discreet=said)


def _where(error: Failed, file: str, line: int) -> str:
    where = f" in line {line} of {file}" if line > 0 else ""
    return where + (f" ({PACKAGES})" if error.type == "ModuleNotFoundError" else "")
