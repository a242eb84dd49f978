"""A dask.distributed cluster as the place where submissions are graded: `grade --scheduler ADDRESS`.

Each of the cluster's worker processes is trusted, has this version of the tree, and keeps one zygote. What is sent
there are a submission's files, what comes back is what was found; cases and expectations are read from the tree on each
machine. The process that asked writes all reports. dask's messages are pickles, so whoever can speak to a scheduler can
run code as its user: only TLS, or one machine's loopback, is accepted.
"""

from __future__ import annotations

import ipaddress
import secrets
import socket
import sys
import tempfile
import threading
from concurrent.futures import CancelledError
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from distributed import Client, KilledWorker, Security, get_worker
from distributed.comm import CommClosedError

from grading.errors import GradingError
from grading.hidden.engine.exam import base_fingerprint, make_exam
from grading.hidden.engine.grade import Found
from grading.hidden.engine.grader import Grader
from grading.hidden.handout.release import build
from grading.submission import ROOT

CONNECT_SECONDS = 10


class Task(NamedTuple):
    """What a cluster's worker is told besides the files. base: the fingerprint that its own tree must have."""

    only: tuple[str, ...] | None
    timeout: float
    isolation: str
    base: bytes


class Cluster:
    """The cluster at an address, as a `Place`. Several threads may ask it to grade.

    A worker that dies has its submissions given to others; a submission that three workers did not survive is given up.
    Raises GradingError when nobody answers there, and when the connection is neither TLS nor loopback.
    """

    def __init__(self, address: str, only: list[str] | None, timeout: float, isolation: str, base: bytes) -> None:
        self._address = address
        self._task = Task(tuple(only) if only else None, timeout, isolation, base)
        _require_safe(address, "the scheduler")
        security = Security()  # what dask's configuration says
        if address.startswith("tls://") and security.get_connection_args("client")["ssl_context"] is None:
            raise GradingError(
                f"{address} needs certificates: set distributed.comm.tls in dask's configuration "
                "(https://distributed.dask.org/en/stable/tls.html)",
                exit_code=2,
            )
        try:
            self._client = Client(address, timeout=CONNECT_SECONDS, set_as_default=False, security=security)
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise GradingError(f"no scheduler answers at {address}: {reason}", exit_code=2) from None
        try:
            about = self._client.scheduler_info(n_workers=-1)
            _require_safe(about["address"], "the scheduler listens at")
            for worker in about["workers"]:
                _require_safe(worker, "a worker listens at")
        except GradingError:
            self._client.close()
            raise
        if not about["workers"]:
            print(f"grading: warning: {address} has no workers yet; waiting for them", file=sys.stderr)

    def grade(self, files: dict[str, bytes]) -> Found:
        """Have the files of one submission graded by one of the workers. Raises GradingError when that fails."""
        try:
            # Its own key each time: two equal submissions are graded twice, as they are without a cluster.
            future = self._client.submit(_grade, self._task, files, key=f"grade-{secrets.token_hex(16)}", pure=False)
            found, problem = future.result()
        except KilledWorker:
            raise GradingError("the cluster's workers died while they graded it, several times") from None
        except (CancelledError, CommClosedError, OSError):
            raise GradingError(f"{self._address} is gone; go on with --resume") from None
        except RuntimeError as error:  # dask's own, for a task whose code it cannot import
            reason = str(error).strip().splitlines()[0]
            raise GradingError(f"{reason} (scheduler and workers need this tree as PYTHONPATH)") from None
        if problem:
            raise GradingError(problem)
        return found

    def close(self) -> None:
        """Leave the cluster as it was; what it still works on for this run is dropped."""
        self._client.close()


def _require_safe(address: str, who: str) -> None:
    """Raises GradingError unless messages to this address are encrypted or stay on this machine."""
    parts = urlsplit(address)
    if parts.scheme == "tls" or (parts.scheme == "tcp" and _is_loopback(parts.hostname or "")):
        return
    raise GradingError(
        f"{who} {address}: only tls://… and tcp://127.0.0.1:… are accepted, as anybody who reaches an open scheduler "
        "can run code there (dask scheduler --host 127.0.0.1, or its --tls-* options)",
        exit_code=2,
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


# -- on the cluster -----------------------------------------------------------------------------------------

_graders: dict[Task, Grader] = {}
_lock = threading.Lock()


def _grade(task: Task, files: dict[str, bytes]) -> tuple[Found, str]:
    """What was found, and what went wrong if nothing was: an exception would have to be one that pickles."""
    try:
        return _grader(task).grade(files), ""
    except GradingError as error:
        return Found(), f"{socket.gethostname()}: {error}"


def _grader(task: Task) -> Grader:
    """This process' own; another task, or another version of the tree, needs another one."""
    with _lock:
        if task not in _graders:
            exam = make_exam(list(task.only) if task.only else None, task.timeout)
            if base_fingerprint(exam, task.isolation, build(ROOT)[0]) != task.base:
                raise GradingError("this worker has another version of the grader, its cases or its handout")
            for old in _graders.values():
                old.close()
            _graders.clear()
            # dask removes its own folder, also one that a killed worker left behind.
            work = Path(tempfile.mkdtemp(dir=get_worker().local_directory, prefix=f"hw3-{secrets.token_hex(16)}-"))
            _graders[task] = Grader(exam, work, task.isolation)
        return _graders[task]
