"""Grades submissions on this machine: a zygote, another one when it dies, and a number for each that is under way."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from threadpoolctl import threadpool_limits
from tqdm import tqdm

from grading.errors import GradingError
from grading.hidden.engine.grade import Exam, Found, grade_submission
from grading.hidden.sandbox.workers import Zygote, ZygoteLost, require_room

RESTARTS = 3  # of the zygote, within one submission


class Grader:
    """One zygote and what it takes to keep one. Several threads may ask it to grade.

    work: an empty folder for the workers' files.  isolation: "sandbox" or "process".  at_a_time: how many threads ask.
    unseen: the folders in which workers should see nothing. Raises GradingError where nothing can be graded.
    """

    def __init__(
        self, exam: Exam, work: Path, isolation: str, *, at_a_time: int = 1, unseen: Sequence[Path] = ()
    ) -> None:
        self._exam, self._work, self._isolation, self._unseen = exam, work, isolation, unseen
        if isolation == "sandbox":
            require_room(work, at_a_time)
        self._lock, self._slots = threading.Lock(), _Slots()
        self._closed = False
        self._zygote = self._start()
        # What the judge multiplies is small, and the cores are the workers': several threads took five times as long.
        self._one_thread = threadpool_limits(1)

    def grade(self, files: dict[str, bytes]) -> Found:
        """Grade the files of one submission. Raises GradingError when this machine cannot."""
        with self._slots.taken() as slot:
            for tries_left in reversed(range(RESTARTS + 1)):
                zygote = self._zygote
                try:
                    return grade_submission(self._exam, zygote, slot, files)
                except ZygoteLost:
                    if self._closed:
                        raise GradingError("the run was ended") from None
                    if tries_left == 0:
                        raise _killed() from None
                    self._replace(zygote)
        raise AssertionError("unreachable")

    def close(self) -> None:
        """End the zygote, and with it whatever is being graded."""
        with self._lock:
            self._closed = True
            self._zygote.close()
        self._one_thread.restore_original_limits()

    def _replace(self, lost: Zygote) -> None:
        """Start a new zygote, unless another thread has done so already."""
        with self._lock:
            if self._zygote is lost and not self._closed:
                tqdm.write("grading: warning: the process that starts workers died; starting another", sys.stderr)
                lost.close()
                self._zygote = self._start()

    def _start(self) -> Zygote:
        for tries_left in reversed(range(RESTARTS)):
            try:
                return Zygote(self._work, enforced=self._isolation == "sandbox", unseen=self._unseen)
            except ZygoteLost:
                if tries_left == 0:
                    raise _killed() from None
        raise AssertionError("unreachable")


def _killed() -> GradingError:
    return GradingError("the process that starts workers is killed again and again")


class _Slots:
    """Numbers for workers, of which each stands for a user: no two workers of one machine have the same.

    The system counts threads by user, so two workers with one user could use up each other's. Other runs may grade on
    this machine, and a cluster's processes do; an abstract socket's name is what the kernel lets one process have and
    takes back when it ends.
    """

    def __init__(self) -> None:
        self._free: list[tuple[int, socket.socket | None]] = []
        self._next, self._lock = 0, threading.Lock()

    @contextlib.contextmanager
    def taken(self) -> Iterator[int]:
        """A number that is this thread's until the end of the block."""
        with self._lock:
            slot = self._free.pop() if self._free else self._reserve()
        try:
            yield slot[0]
        finally:
            with self._lock:
                self._free.append(slot)

    def _reserve(self) -> tuple[int, socket.socket | None]:
        while True:
            number = self._next
            self._next += 1
            if not sys.platform.startswith("linux") or os.geteuid() != 0:  # workers have the user that this has
                return number, None
            name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                name.bind(f"\0hw3-grading-worker-{number}")
            except OSError:
                name.close()
            else:
                return number, name
