"""The calls of one submission, in as many workers as it takes."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from grading.cases import Arrays
from grading.errors import GradingError
from grading.hidden.sandbox.workers import Failed, Worker, WorkerLost, Zygote
from grading.rubric import Function
from grading.submission import SubmissionError

TRIES = 3  # for a worker that the system killed, which is nobody's fault until it happens again
CALLS_PER_SUBMISSION = 6  # a submission has the time of this many calls that run into their limit

# Said of an import that finds nothing.
PACKAGES = "grading has the assignment's files and the packages of requirements.txt with what they need, no others"


class BudgetSpent(Exception):
    """The submission has used up its time."""


class Unloadable(Exception):
    """The file with this function is missing or cannot be imported."""


class Session:
    """The calls of one submission, made by workers, which are replaced when they are lost.

    files: path -> content, in the order of their imports.  timeout: seconds for one call.
    broken: file -> why it cannot be imported, in one sentence that the submission may have written.
    lost_in: the ids in which a worker was lost.
    """

    def __init__(self, zygote: Zygote, slot: int, files: dict[str, bytes], timeout: float) -> None:
        self._zygote, self._slot, self._files, self._timeout = zygote, slot, files, timeout
        self._budget = CALLS_PER_SUBMISSION * timeout
        self._worker: Worker | None = None
        self._loaded: set[str] = set()  # by the worker that runs
        self._end = time.monotonic() + self._budget
        self._id = ""
        self._given_up: dict[tuple[str, bool], Exception] = {}  # id, with stand-ins or without -> why not again
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
        for file in self._files:
            self.file = file
            with contextlib.suppress(Unloadable, BudgetSpent):  # remembered in `broken`, or met again
                self._load()
            printed.append(self._take_output())
        self.output = "".join(printed)

    def _take_output(self) -> str:
        """What an import printed. From the first hidden call on, not even how much is printed is told."""
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

    def begin(self, function: Function) -> None:
        """From here on, calls are about this function."""
        self._id, self.file = function.id, function.file

    def run(self, call: str, params: dict[str, Any], arrays: Arrays, standins: dict | None = None) -> Arrays:
        """Do one call. Raises SubmissionError, Failed, WorkerLost, BudgetSpent or Unloadable."""
        kind = self._id, bool(standins)
        if kind in self._given_up:  # one endless loop costs its time once
            raise self._given_up[kind]
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
        except (WorkerLost, BudgetSpent) as error:
            self._given_up[kind] = error
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
                raise BudgetSpent(f"the {self._budget:g} seconds for one submission are used up")
            try:
                if header["op"] == "call":
                    self._load()
                return self._open().request(header, arrays, min(self._timeout, left))
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
            said = f"{error.text} ({PACKAGES})" if error.type == "ModuleNotFoundError" else error.text
            self.broken[file] = f"{file} cannot be imported a second time" if self._id else said
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
            self._worker = Worker(self._zygote, self._slot, files, int(self._budget) + 10)
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
