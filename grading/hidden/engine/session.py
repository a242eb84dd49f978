"""The calls of one submission, in as many workers as it takes."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from grading.cases import Arrays, Case
from grading.errors import GradingError
from grading.hidden.sandbox.frames import FrameError
from grading.hidden.sandbox.workers import Failed, Worker, WorkerLost, Zygote
from grading.rubric import Function
from grading.submission import SubmissionError

TRIES = 3  # for a worker that the system killed, which is nobody's fault until it happens again
CALLS_PER_SUBMISSION = 6  # a submission has the time of this many calls that run into their limit
PUBLIC_CALLS = 4  # of the time of one such call, which all public checks have together, each has one part in so many

# Said of an import that finds nothing.
PACKAGES = "grading has the assignment's files and the packages of requirements.txt with what they need, no others"


class BudgetSpent(Exception):
    """The submission has used up its time, or that of the public checks."""


class Unloadable(Exception):
    """The file with this function is missing or cannot be imported."""


class Session:
    """The calls of one submission, made by workers, which are replaced when they are lost.

    First come the imports, then the public checks, then the hidden ones. Time for them runs while a worker is there.

    files: path -> content, in the order of their imports.  timeout: seconds for one call.
    broken: file -> why it cannot be imported, in one sentence that the submission may have written.
    output, dropped: what the imports printed, and how many bytes more that were not kept.
    lost_in: the ids in whose hidden checks a worker was lost.
    """

    def __init__(self, zygote: Zygote, slot: int, files: dict[str, bytes], timeout: float) -> None:
        self._zygote, self._slot, self._files, self._timeout = zygote, slot, files, timeout
        self._budget = CALLS_PER_SUBMISSION * timeout
        self._worker: Worker | None = None
        self._loaded: set[str] = set()  # by the worker that runs
        self._end = time.monotonic() + self._budget
        self._public_end = 0.0
        self._hidden = False  # whether the submission has been sent a hidden input
        self._id = ""
        self._given_up: dict[bool, Exception] = {}  # with stand-ins or without -> why not again in this id
        self._ahead = deque[tuple[str, int]]()  # the calls that were sent ahead and have no answer yet
        self._answers: dict[tuple[str, int], Arrays | Failed] = {}  # those that were taken before they were asked for
        self._refused: set[str] = set()
        self._reasons: list[str] = []
        self.file = ""
        self.broken: dict[str, str] = {}
        self.lost_in: set[str] = set()
        self.events: list[str] = []
        self.output, self.dropped = "", 0

    def load_all(self) -> None:
        """Import every file before any input is sent; what is printed until then may be shown."""
        printed = []
        for file in self._files:
            self.file = file
            with contextlib.suppress(Unloadable, BudgetSpent):  # remembered in `broken`, or met again
                self._load()
            printed.append(self._take_output())
        self.output = "".join(printed)
        self._public_end = time.monotonic() + self._timeout

    def _take_output(self) -> str:
        """What an import printed. From the first call on, not even how much is printed is told."""
        if self._worker is None:
            return ""
        try:
            output = self._worker.take_output()
        except WorkerLost as error:
            self._forget()
            self._note(error, self.file)
            return ""
        self.dropped += self._worker.dropped
        self._worker.dropped = 0
        return output

    def begin(self, function: Function, cases: Sequence[Case], *, hidden: bool) -> None:
        """From here on, calls are about this function. No public check comes after a hidden one.

        The first call of each case is sent ahead: the worker computes while the judge judges.
        """
        assert hidden or not self._hidden, "what a submission says after it has seen hidden inputs may not be shown"
        self._take_all()
        self._id, self.file, self._hidden = function.id, function.file, hidden
        self._given_up, self._answers = {}, {}
        if not cases:
            return
        try:
            self._load()
            calls = [(case.call, case.params, case.inputs) for case in cases]
            self._open().send_ahead(self.file, calls, self._seconds("call"))
        except WorkerLost:  # each call is made by itself then, and what is wrong is met again
            self._forget()
        except (Unloadable, BudgetSpent, FrameError):  # the last: a rubric may have more cases than a frame holds
            pass
        else:
            self._ahead.extend((case.call, id(case.inputs)) for case in cases)

    def run(self, call: str, params: dict[str, Any], arrays: Arrays, standins: dict | None = None) -> Arrays:
        """Do one call. Raises SubmissionError, Failed, WorkerLost, BudgetSpent or Unloadable."""
        key, with_standins = (call, id(arrays)), bool(standins)
        while key in self._ahead and not with_standins:
            self._take_one()
        if key in self._answers and not with_standins:
            return _result(self._answers.pop(key))
        self._take_all()
        if with_standins in self._given_up:  # one endless loop costs its time once
            raise self._given_up[with_standins]
        flat = dict(arrays)
        for sibling, answers in (standins or {}).items():
            for side, values in answers.items():
                flat |= {f"standin|{sibling}|{side}|{key}": value for key, value in values.items()}
        try:
            return self._request({"op": "call", "file": self.file, "call": call, "params": params}, flat)
        except Failed as error:
            return _result(error)
        except (WorkerLost, BudgetSpent) as error:
            self._give_up(error, with_standins)
            raise

    def _take_all(self) -> None:
        """Take the answers that are still to come: nothing else can be asked before."""
        while self._ahead:
            self._take_one()

    def _take_one(self) -> None:
        """Take the next answer to what was sent ahead. If it does not come, none of the others does."""
        key = self._ahead.popleft()
        try:
            assert self._worker is not None  # who forgets it forgets what was sent ahead
            self._answers[key] = self._worker.next_answer(self._seconds("call"))
        except Failed as error:
            self._answers[key] = error
        except BudgetSpent as error:
            self.close()  # it computes what nobody waits for
            self._give_up(error, False)
        except WorkerLost as error:
            self._forget()
            if error.reason != "killed":  # which is nobody's fault: each call is made by itself then
                self._give_up(self._own_fault(error), False)

    def _own_fault(self, error: WorkerLost) -> WorkerLost | BudgetSpent:
        """The error, or, if it was not the call's own time that was over, what says so."""
        try:
            if error.reason == "timeout":
                self._seconds("call")
        except BudgetSpent as spent:
            return spent
        return error

    def _give_up(self, error: WorkerLost | BudgetSpent, with_standins: bool) -> None:
        if self._hidden:
            self._given_up[with_standins] = error
            self.lost_in.add(self._id)
            self._note(error, self._id)
        else:
            self._given_up = dict.fromkeys((False, True), error)
            self.events.append(_event(error, f"the public checks of {self._id}"))

    def close(self) -> None:
        """End the worker that still runs."""
        if self._worker is not None:
            worker, self._worker = self._worker, None
            self._ahead.clear()
            worker.close()
            self._look_back_at(worker)

    def statuses(self) -> list[str]:
        """One word for each kind of thing that went wrong."""
        broken = ["import-error"] if self.broken else []
        return broken + sorted(set(self._reasons))

    def _request(self, header: dict[str, Any], arrays: Arrays) -> Arrays:
        for tries_left in reversed(range(TRIES)):
            try:
                if header["op"] == "call":
                    self._load()
                worker = self._open()
                return worker.request(header, arrays, self._seconds(header["op"]))
            except WorkerLost as error:
                self._forget()
                if error.reason == "start" and tries_left == 0:
                    raise GradingError(f"no worker can be started: {error}") from None
                if error.reason == "timeout":
                    self._seconds(header["op"])  # if it was not its own time that was over, this says so
                if error.reason not in ("killed", "start") or tries_left == 0:
                    raise
        raise AssertionError("unreachable")

    def _seconds(self, op: str) -> float:
        """How long the next request may take. Raises BudgetSpent."""
        now = time.monotonic()
        left, seconds = self._end - now, self._timeout
        if left <= 0:
            raise BudgetSpent(f"the {self._budget:g} seconds for one submission are used up")
        if op == "call" and not self._hidden:
            if self._public_end <= now:
                raise BudgetSpent(f"the {self._timeout:g} seconds for all public checks are used up")
            left, seconds = min(left, self._public_end - now), seconds / PUBLIC_CALLS
        return min(left, seconds)

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
            self.broken[file] = f"{error.text} ({PACKAGES})" if error.type == "ModuleNotFoundError" else error.text
        except WorkerLost as error:
            self.broken[file] = f"{file} cannot be imported: {error}"
            self._note(error, file)
        if file in self.broken:
            if self._hidden:  # in this worker, the functions of other files may have seen hidden inputs before
                self.broken[file] = f"{file} cannot be imported a second time"
            raise Unloadable(f"{file} cannot be imported")
        self._loaded.add(file)

    def _open(self) -> Worker:
        if self._worker is None:
            self._loaded = set()
            files = {file: content for file, content in self._files.items() if file not in self.broken}
            begin = time.monotonic()
            try:
                self._worker = Worker(self._zygote, self._slot, files, int(self._budget) + 10)
            finally:  # nothing of the submission runs until the worker is up
                self._end += time.monotonic() - begin
                self._public_end += time.monotonic() - begin
        return self._worker

    def _forget(self) -> None:
        if self._worker is not None:
            self._look_back_at(self._worker)
        self._worker = None
        self._ahead.clear()

    def _look_back_at(self, worker: Worker) -> None:
        for name in sorted(worker.refused.keys() - self._refused):
            self.events.append(f"asked for the system call `{name}`, which was refused")
        self._refused |= worker.refused.keys()

    def _note(self, error: Exception, where: str) -> None:
        self._reasons.append(_reason(error))
        self.events.append(_event(error, where))


def _result(answer: Arrays | Failed) -> Arrays:
    """The answer to a call, or what it raises."""
    if not isinstance(answer, Failed):
        return answer
    if answer.judged:
        raise SubmissionError(answer.text) from None
    raise answer


def _reason(error: Exception) -> str:
    return error.reason if isinstance(error, WorkerLost) else "timeout"


def _event(error: Exception, where: str) -> str:
    return f"{_reason(error)} in {where}: {error}"
