"""Grades one submission: the hidden cases, one call at a time, in as many workers as it takes.

What may be shown to a student is decided here. The submission sees hidden inputs, so from the first hidden call on
nothing that comes out of it is passed on: neither what it prints nor what its exceptions say. What is shown is what it
printed on import, before it saw any, the judge's own words, and the first public check that fails, which a fresh worker
computes that has seen public inputs only.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from grading.cases import Arrays, Case
from grading.errors import GradingError
from grading.feedback import message
from grading.hidden.reports.result import FunctionResult
from grading.hidden.sandbox.workers import Failed, Worker, WorkerLost, Zygote
from grading.judge import Verdict, run_and_judge
from grading.rubric import Function, Rubric, score
from grading.submission import SubmissionError

TRIES = 3  # for a worker that the system killed, which is nobody's fault until it happens again
CALLS_PER_SUBMISSION = 6  # a submission has the time of this many calls that run into their limit


@dataclass
class Exam:
    """What every submission is asked. timeout: seconds for one call."""

    rubric: Rubric
    hidden: dict[str, list[Case]]
    public: dict[str, list[Case]]
    mistakes: dict[str, dict[str, str]]
    timeout: float

    @property
    def seconds(self) -> float:
        """The time for one submission."""
        return CALLS_PER_SUBMISSION * self.timeout


@dataclass
class Found:
    """What came of a submission, as `Result` wants it."""

    functions: list[FunctionResult] = field(default_factory=list)
    statuses: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    output: str = ""
    output_dropped: int = 0


def assess(exam: Exam, zygote: Zygote, slot: int, files: dict[str, bytes]) -> Found:
    """Grade the files of one submission.

    Raises ZygoteLost, after which nothing is known, and GradingError when this machine can start no worker.
    """
    session = Session(exam, zygote, slot, files)
    try:
        session.load_all()
        functions = [_grade(exam, session, function) for function in exam.rubric.functions.values()]
    finally:
        session.close()
    unclear = [result for result in functions if result.points < result.possible and not result.public]
    explainer = Session(exam, zygote, slot, files)
    try:
        for result in unclear:
            if result.id not in session.lost_in:
                result.public = _explain(exam, explainer, exam.rubric.functions[result.id])
    finally:
        explainer.close()
    return Found(functions, session.statuses(), session.events, session.output, session.dropped)


def _grade(exam: Exam, session: Session, function: Function) -> FunctionResult:
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
        # First what stands in front of all points, then what is recognised, then what came first.
        group, verdict = min(failed, key=lambda f: (f[0] != function.gate, (f[1].mistake or "") != result.mistake))
        result.problem = verdict.discreet
        if group == function.gate:
            result.problem += f" (the other checks of this function count once `{group}` is passed)"
    result.public = session.broken.get(function.file, "")
    result.seconds = time.monotonic() - begin
    return result


def _explain(exam: Exam, session: Session, function: Function) -> str:
    """What the first public check that fails says, as `pytest grading/` would."""
    session.begin(function)
    for case in exam.public[function.id]:
        verdict = _judge(session, case, hidden=False)
        if not verdict.passed:
            return message(function, case, verdict, exam.mistakes)
    return ""


def _judge(session: Session, case: Case, *, hidden: bool) -> Verdict:
    """The verdict on one case; losing the worker, or an exception, is one as well."""
    try:
        return run_and_judge(session, case)
    except (WorkerLost, OutOfTime, Unloadable) as error:
        return Verdict(False, str(error), discreet=str(error))
    except Failed as error:
        where = f" in line {error.line} of {session.file}" if error.line > 0 else ""
        discreet = "not written yet" if error.type == "NotImplementedError" else f"raises {error.type}{where}"
        return Verdict(False, discreet if hidden else f"{error.text}{where}", discreet=discreet)


class OutOfTime(Exception):
    """The submission has used up its time."""


class Unloadable(Exception):
    """The file with this function is missing or cannot be imported."""


class Session:
    """The calls of one submission: a judge's backend, which replaces workers that are lost.

    broken: file -> why it cannot be imported, in one sentence that the submission may have written.
    lost_in: the ids in which a worker was lost.
    """

    def __init__(self, exam: Exam, zygote: Zygote, slot: int, files: dict[str, bytes]) -> None:
        self._exam, self._zygote, self._slot, self._files = exam, zygote, slot, files
        self._worker: Worker | None = None
        self._loaded: set[str] = set()  # by the worker that runs
        self._end = time.monotonic() + exam.seconds
        self._id = ""
        self._given_up: dict[bool, Exception] = {}  # with stand-ins or without -> why not again in this id
        self._refused: set[str] = set()
        self._reasons: list[str] = []
        self.file = ""
        self.broken: dict[str, str] = {}
        self.lost_in: set[str] = set()
        self.events: list[str] = []
        self.output, self.dropped = "", 0

    def load_all(self) -> None:
        """Import every file before any hidden input is sent; what is printed until then may be shown."""
        printed = []
        for file in self._exam.rubric.submit:
            if file in self._files:
                self.file = file
                with contextlib.suppress(Unloadable, OutOfTime):  # remembered in `broken`, or met again
                    self._load()
                printed.append(self._take_output())
        self.output = b"".join(printed).decode("utf-8", errors="replace")

    def _take_output(self) -> bytes:
        """What an import printed. From the first hidden call on, not even how much is printed is told."""
        if self._worker is None:
            return b""
        try:
            output = self._worker.take_output()
        except WorkerLost as error:
            self._forget()
            self._note(error, self.file)
            return b""
        self.dropped += self._worker.dropped
        self._worker.dropped = 0
        return output

    def begin(self, function: Function) -> None:
        """From here on, calls are about this function."""
        self._id, self.file = function.id, function.file
        self._given_up = {}

    def run(self, call: str, params: dict[str, Any], arrays: Arrays, standins: dict | None = None) -> Arrays:
        """Do one call. Raises SubmissionError, Failed, WorkerLost, OutOfTime or Unloadable."""
        with_standins = bool(standins)
        if with_standins in self._given_up:  # one endless loop costs its time once
            raise self._given_up[with_standins]
        flat = dict(arrays)
        for sibling, answers in (standins or {}).items():
            for side, values in answers.items():
                flat |= {f"standin|{sibling}|{side}|{key}": value for key, value in values.items()}
        header = {"op": "call", "file": self.file, "call": call, "params": params}
        try:
            return self._request(header, flat)
        except Failed as error:
            if error.judged:
                raise SubmissionError(error.text) from None
            raise
        except (WorkerLost, OutOfTime) as error:
            self._given_up[with_standins] = error
            self.lost_in.add(self._id)
            self._note(error, self._id)
            raise

    def close(self) -> None:
        """End the worker that still runs."""
        if self._worker is not None:
            worker, self._worker = self._worker, None
            worker.close()
            self._look_back_at(worker)

    def statuses(self) -> list[str]:
        """One word for each kind of thing that went wrong."""
        broken = ["import-error"] if self.broken else []
        return broken + sorted(set(self._reasons))

    def _request(self, header: dict[str, Any], arrays: Arrays) -> Arrays:
        for tries_left in reversed(range(TRIES)):
            left = self._end - time.monotonic()
            if left <= 0:
                raise OutOfTime(f"the {self._exam.seconds:g} seconds for one submission are used up")
            try:
                if header["op"] == "call":
                    self._load()
                return self._open().request(header, arrays, min(self._exam.timeout, left))
            except WorkerLost as error:
                self._forget()
                if error.reason == "start" and tries_left == 0:
                    raise GradingError(f"no worker can be started: {error}") from None
                if error.reason not in ("killed", "start") or tries_left == 0:
                    raise
        raise AssertionError("unreachable")

    def _load(self) -> None:
        """Import the current file in the running worker. An import that failed is not tried again."""
        file = self.file
        if file not in self._files:
            raise Unloadable(f"{file} is missing")
        if file in self.broken:
            raise Unloadable(f"{file} cannot be imported")
        if self._worker is not None and file in self._loaded:
            return
        try:
            self._request({"op": "load", "file": file}, {})
        except Failed as error:
            # In a later worker, the functions of other files may have seen hidden inputs before.
            self.broken[file] = f"{file} cannot be imported a second time" if self._id else error.text
        except WorkerLost as error:
            self.broken[file] = f"{file} cannot be imported: {error}"
            self._note(error, file)
        if file in self.broken:
            raise Unloadable(f"{file} cannot be imported")
        self._loaded.add(file)

    def _open(self) -> Worker:
        if self._worker is None:
            self._loaded = set()
            files = {file: content for file, content in self._files.items() if file not in self.broken}
            self._worker = Worker(self._zygote, self._slot, files, int(self._exam.seconds) + 10)
        return self._worker

    def _forget(self) -> None:
        if self._worker is not None:
            self._look_back_at(self._worker)
        self._worker = None

    def _look_back_at(self, worker: Worker) -> None:
        for name in sorted(worker.refused.keys() - self._refused):
            self.events.append(f"asked for the system call `{name}`, which was refused")
        self._refused |= worker.refused.keys()

    def _note(self, error: Exception, where: str) -> None:
        reason = error.reason if isinstance(error, WorkerLost) else "timeout"
        self._reasons.append(reason)
        self.events.append(f"{reason} in {where}: {error}")
