"""The judge's side of the pipe: starts the zygote, asks it for workers, and talks with them as with an enemy.

A worker that does anything but answer one frame when asked is lost (`WorkerLost`), and killed. What it prints is
read and cut; the system calls that its sandbox refuses and those that create files come here to be answered, and are
counted.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import fcntl
import json
import math
import os
import secrets
import select
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from grading.cases import Arrays
from grading.errors import GradingError
from grading.hidden.handout.release import write_tree
from grading.hidden.sandbox.confinement import (
    FILE_SIZE,
    FIRST_UID,
    TRUNCATION,
    SandboxError,
    claim_seat,
    landlock_version,
    seccomp_filter,
)
from grading.hidden.sandbox.frames import FrameError, FrameReader, encode
from grading.hidden.sandbox.surroundings import Surroundings

START_SECONDS = 120  # for the zygote: a cold disk reads two gigabytes of torch
GREETING_SECONDS = 30
GRACE_SECONDS = 2.0  # between the end of a worker's channel and its end
OUTPUT = 20_000  # bytes of what it prints that are kept
TEXT = 2000  # characters of an error's text
REFUSALS = 1000  # refused system calls before a worker is ended
SCRATCH_FILES = 128  # that a worker creates in its life, before it is ended
SEATS = 2  # for each thread that drives workers: one that runs, and one that is being reaped
# What a worker can put on a disk, with names or without: so many files, each with a block that tells where it is.
SCRATCH_BYTES = SCRATCH_FILES * (FILE_SIZE + 4096)
SPARE_BYTES = 64 << 20  # for submissions and the worker's tree


class ZygoteError(GradingError):
    """The zygote did not start."""


class ZygoteLost(Exception):
    """The zygote died; whatever its workers did is unknown."""


class WorkerLost(Exception):
    """The worker is gone, or was ended because of what it did. The message says why, in the judge's words.

    These hold nothing that the worker chose: it may have seen hidden inputs, and a student reads them.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason  # "start", "timeout", "crash", "protocol", "disk", "refused" or "killed"


class Failed(Exception):
    """The worker answered that the call failed. `text` came out of the submission."""

    def __init__(self, *, judged: bool, type: str, line: int, text: str) -> None:
        super().__init__(text)
        self.judged, self.type, self.line, self.text = judged, type, line, text


# -- the zygote ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seat:
    """A worker's place: the slot that it counts for, its number among all on this machine, and what holds that."""

    slot: int
    number: int
    holder: socket.socket


class Zygote:
    """A running zygote. Several threads may ask it for workers.

    enforced: whether its children are confined.  as_nobody: for root where there is no Landlock: they are another user
    without capabilities, whom the permissions of files keep out, and `enforced` is about system calls alone.
    unseen: folders of which they should not even see names.  apart: whether that could be done.
    Raises ZygoteError when it cannot start, ZygoteLost when it is killed.
    """

    def __init__(self, folder: Path, *, enforced: bool, as_nobody: bool = False, unseen: Sequence[Path] = ()) -> None:
        self.folder, self.enforced, self.as_nobody = folder, enforced, as_nobody
        self._lock = threading.Lock()
        self._seats, self._taken = threading.Condition(), Counter[int]()  # how many of each slot
        self._reapers, self._reaping = set[threading.Thread](), threading.Lock()
        try:
            # From nobody, files are protected by their permissions, from being cut as well.
            filter = seccomp_filter(TRUNCATION if as_nobody else landlock_version()) if enforced else None
        except SandboxError as error:
            raise _no_isolation(error) from None
        self.surroundings = Surroundings(folder)
        ours, theirs = socket.socketpair()
        code = f"import sys; sys.path[:] = {self.surroundings.search_path!r}; "
        code += f"from grading.hidden.sandbox.zygote import main; main({theirs.fileno()})"
        self._log = tempfile.TemporaryFile()  # noqa: SIM115, it lives as long as the zygote
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", "-c", code],  # -S: nothing of site-packages, whose *.pth files run code
            pass_fds=[theirs.fileno()],
            env=_environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            cwd=folder,
        )
        theirs.close()
        self._control = ours
        self._control.settimeout(START_SECONDS)
        config = {
            "readable": [str(path) for path in self.surroundings.readable],
            "unseen": [str(path) for path in self.surroundings.dispensable(unseen)],
            "filter": filter and {"program": filter.program.hex(), "call": filter.call},
            "as_nobody": as_nobody,
        }
        try:
            answer = self._ask(config, [])
        except ZygoteLost:
            log, status = self.log(), self._ended()
            self.close()
            if status == -signal.SIGKILL:
                raise  # somebody else ended it
            raise ZygoteError(f"the worker process does not start: {log or 'it ended without a word'}") from None
        if "ready" not in answer:
            self.close()
            raise _no_isolation(answer["error"])
        self.pid, self.apart = answer["ready"], answer["apart"]

    def log(self) -> str:
        """The last line that it printed."""
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def ask(self, message: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        """One question, one answer. Raises ZygoteLost."""
        with self._lock:
            return self._ask(message, descriptors)

    def _ask(self, message: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        try:
            socket.send_fds(self._control, [json.dumps(message).encode() + b"\n"], descriptors)
            answer = b""
            while not answer.endswith(b"\n"):
                part = self._control.recv(4096)
                if not part:
                    raise ZygoteLost
                answer += part
            return json.loads(answer)
        except OSError:
            raise ZygoteLost from None

    def _ended(self) -> int | None:
        """The exit status, when it is ending by itself."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(GRACE_SECONDS)
        return None

    # -- the places of workers

    def take_seat(self, slot: int) -> Seat | None:
        """A place for one more of this slot's; None if none becomes free. Raises SandboxError without a user for it."""
        with self._seats:
            if not self._seats.wait_for(lambda: self._taken[slot] < SEATS, GREETING_SECONDS):
                return None
            number, holder = claim_seat()
            self._taken[slot] += 1
            return Seat(slot, number, holder)

    def reap(self, pid: int, seconds: float = math.inf) -> int | None:
        """The exit status of a worker, or minus the signal's number; None if it runs for longer. Raises ZygoteLost.

        Waiting is done here and not in the zygote, which others need: what wrote to a slow disk ends slowly.
        """
        end, pause = time.monotonic() + seconds, 0.001
        while (status := self.ask({"reap": pid}, [])["status"]) is None and time.monotonic() < end:
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
        return status

    def leave_behind(self, seat: Seat, box: Path, pid: int | None) -> None:
        """Kill a worker, if it has not been reaped. That it has ended, and its box is gone, is seen to beside all else.

        Raises ZygoteLost.
        """
        reaper = threading.Thread(target=self._see_to, args=(seat, box, pid), daemon=True)
        try:
            if pid is not None:
                self.ask({"kill": pid}, [])
        finally:
            with self._reaping:  # close() must not meet one that is known and not yet started
                self._reapers.add(reaper)
                reaper.start()

    def _see_to(self, seat: Seat, box: Path, pid: int | None) -> None:
        with contextlib.suppress(ZygoteLost):  # whose end has killed it, too
            if pid is not None:
                self.reap(pid)
        shutil.rmtree(box, ignore_errors=True)  # without a sandbox there can be anything; it goes with the run
        seat.holder.close()
        with self._seats:
            self._taken[seat.slot] -= 1
            self._seats.notify_all()
        self._reapers.discard(threading.current_thread())

    def _reapers_now(self) -> list[threading.Thread]:
        with self._reaping:
            return list(self._reapers)

    def close(self) -> None:
        """End it, and with it every worker."""
        end = time.monotonic() + GRACE_SECONDS
        for reaper in self._reapers_now():  # those that have been killed are reaped, as far as that is quick
            reaper.join(max(0.0, end - time.monotonic()))
        self._process.kill()  # whoever waits for an answer learns it by that
        self._process.wait()
        for reaper in self._reapers_now():
            reaper.join()
        self._control.close()
        self._log.close()


def require_room(folder: Path, workers: int) -> None:
    """Raise GradingError if so many workers could fill the disk on which `folder` lies."""
    needed, free = workers * SEATS * SCRATCH_BYTES + SPARE_BYTES, shutil.disk_usage(folder).free
    if free < needed:
        raise GradingError(
            f"{folder.parent} has {free >> 20} MB free, and {workers} workers may need {needed >> 20} MB: "
            "make room, set TMPDIR to a folder on another disk, or give fewer --workers"
        )


def _no_isolation(reason: object) -> ZygoteError:
    return ZygoteError(f"no isolation here: {reason}; see `python -m grading doctor`", exit_code=2)


def _environment(folder: Path) -> dict[str, str]:
    """What the zygote knows of the world. One thread each: what is forked must have no other."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {"PATH": "/usr/bin:/bin", "HOME": str(folder), "MPLCONFIGDIR": str(folder / "matplotlib"), **threads}


# -- one worker ---------------------------------------------------------------------------------------------


class Worker:
    """One confined child with one submission's files. slot: number of the thread that drives it."""

    def __init__(self, zygote: Zygote, slot: int, files: dict[str, bytes], cpu_seconds: int) -> None:
        self._zygote = zygote
        self.output, self.dropped, self.refused, self.created = b"", 0, Counter[str](), 0
        self._ahead = deque[tuple[str, str]]()  # file and nonce of each call without an answer
        self.pid: int | None
        self._lines = {file: content.count(b"\n") + 1 for file, content in files.items()}
        try:
            seat = zygote.take_seat(slot)
        except SandboxError as error:
            raise WorkerLost("start", str(error)) from None
        if seat is None:
            raise WorkerLost("start", "an earlier one does not end")
        self._seat, self.pid = seat, None
        self._selector = selectors.DefaultSelector()
        self._listener: int | None = None
        self._box = zygote.folder / f"box-{secrets.token_hex(16)}"
        code, scratch = self._box / "code", self._box / "scratch"
        self._channel, theirs = socket.socketpair()
        self._pipe, output = os.pipe()
        self._channel.setblocking(False)
        os.set_blocking(self._pipe, False)
        request = {"seat": seat.number, "code": str(code), "scratch": str(scratch), "cpu_seconds": cpu_seconds}
        try:
            user = FIRST_UID + seat.number if zygote.enforced or zygote.as_nobody else None
            _write_box(code, scratch, files, user, mode=0o755 if zygote.as_nobody else 0o700)
            self.pid = zygote.ask({"fork": request}, [theirs.fileno(), output])["pid"]
        except BaseException:
            self.close()
            raise
        finally:
            theirs.close()
            os.close(output)
        self._selector.register(self._channel, selectors.EVENT_READ)
        self._selector.register(self._pipe, selectors.EVENT_READ, self._read_output)
        self._greet()

    def _greet(self) -> None:
        """Wait for the word that the sandbox is up. The submission has not been read by then, so it can be believed."""
        end = time.monotonic() + GREETING_SECONDS
        reader = FrameReader()
        while reader.wanted:
            if not self._wait(end):
                raise self._lost("start", "the sandbox was not up in time")
            try:
                data, descriptors, _, _ = socket.recv_fds(self._channel, reader.wanted, 1)
            except OSError:
                data, descriptors = b"", []
            if not data:
                self._drain()
                raise self._lost("start", f"the sandbox could not be put up: {self.output.decode(errors='replace')}")
            reader.feed(data)
            if descriptors:
                self._listener = descriptors[0]
                self._selector.register(self._listener, selectors.EVENT_READ, partial(self._answer, self._listener))
        if self._zygote.enforced and self._listener is None:
            raise self._lost("start", "the sandbox is not up")

    def request(self, header: dict[str, Any], arrays: Arrays, seconds: float) -> Arrays:
        """Send one frame and wait for its answer. Raises WorkerLost, Failed or ZygoteLost."""
        end = time.monotonic() + seconds
        nonce = secrets.token_hex(16)
        self._send({"nonce": nonce, **header}, arrays, end)
        return self._answer_to(nonce, header["file"], end, seconds, is_last=True)

    def send_ahead(self, file: str, calls: Sequence[tuple[str, dict[str, Any], Arrays]], seconds: float) -> None:
        """Send many calls in one frame. `next_answer` takes their answers, one for each, in their order.

        Until the last is taken, nothing else may be asked. Raises WorkerLost or ZygoteLost.
        """
        listed = [{"nonce": secrets.token_hex(16), "call": call, "params": params} for call, params, _ in calls]
        flat = {f"{i}|{name}": value for i, call in enumerate(calls) for name, value in call[2].items()}
        self._send({"op": "ahead", "file": file, "calls": listed}, flat, time.monotonic() + seconds)
        self._ahead.extend((file, str(call["nonce"])) for call in listed)

    def next_answer(self, seconds: float) -> Arrays:
        """The answer to the first call sent ahead that has none. Raises as `request`."""
        file, nonce = self._ahead.popleft()
        return self._answer_to(nonce, file, time.monotonic() + seconds, seconds, is_last=not self._ahead)

    def _send(self, header: dict[str, Any], arrays: Arrays, end: float) -> None:
        assert not self._ahead, "there are answers that nobody has taken"
        if self._readable():
            raise self._lost("protocol", "data was sent before it was asked for")
        self._write(encode(header, arrays), end)

    def _answer_to(self, nonce: str, file: str, end: float, seconds: float, *, is_last: bool) -> Arrays:
        reader = FrameReader()
        while reader.wanted:
            if not self._wait(end):
                raise self._lost("timeout", f"no answer within {seconds:g} seconds")
            data = self._receive(min(reader.wanted, 1 << 20))
            try:
                reader.feed(data)
            except FrameError:
                raise self._lost("protocol", "what was sent is no answer") from None
        assert reader.frame is not None  # nothing is wanted any more
        answer, results = reader.frame
        given = answer.get("nonce")
        if not (isinstance(given, str) and given.isascii() and secrets.compare_digest(given, nonce)):
            raise self._lost("protocol", "what was sent is no answer to the call")
        if is_last and self._readable():
            raise self._lost("protocol", "more than one answer was sent")
        if answer.get("ok") is not True:
            text = str(answer.get("text")).encode(errors="replace").decode()  # JSON can hold half a character
            raise Failed(
                judged=answer.get("judged") is True,
                type=_builtin_exception(answer.get("type")),
                line=self._line(file, answer.get("line")),
                text=self._zygote.surroundings.without_places(text[:TEXT], is_cut=len(text) >= TEXT),
            )
        return results

    def _line(self, file: str, claimed: object) -> int:
        """The line in which the submission says that it failed, if that file has such a line; else 0."""
        return claimed if type(claimed) is int and 0 < claimed <= self._lines[file] else 0

    def take_output(self) -> str:
        """What it printed so far; what it printed before it answered is there when the answer is."""
        self._drain()
        output, self.output = self.output.decode(errors="replace"), b""
        return self._zygote.surroundings.without_places(output, is_cut=self.dropped > 0)

    def close(self) -> None:
        """End the worker; its folder goes when it has ended. More than once does no harm. Raises ZygoteLost."""
        if self._channel.fileno() < 0:
            return
        self._selector.close()
        self._channel.close()
        os.close(self._pipe)
        if self._listener is not None:
            os.close(self._listener)
        self._zygote.leave_behind(self._seat, self._box, self.pid)

    # -- waiting and reading

    def _wait(self, end: float) -> bool:
        """Serve output and system calls until the channel has something (True) or time is over (False)."""
        while (left := end - time.monotonic()) > 0:
            ready = self._selector.select(left)
            for key, _ in ready:
                if key.data is not None:
                    key.data()
            if any(key.data is None for key, _ in ready):
                return True
        return False

    def _readable(self) -> bool:
        """Whether the worker has sent something. Output and system calls that wait are served first."""
        self._drain()
        try:
            data = self._channel.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:  # it has ended, which is something else
            raise self._gone()
        return True

    def _drain(self) -> None:
        for key, _ in self._selector.select(0):
            if key.data is not None:
                key.data()

    def _receive(self, size: int) -> bytes:
        try:
            data = self._channel.recv(size)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        if not data:
            raise self._gone()
        return data

    def _write(self, data: bytes, end: float) -> None:
        """Send without waiting for ever on a worker that does not read."""
        view = memoryview(data)
        while view:
            try:
                view = view[self._channel.send(view) :]
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise self._lost("timeout", "nothing was read in time") from None
                self._drain()
                time.sleep(0.001)
            except OSError:
                raise self._gone() from None

    def _read_output(self) -> None:
        try:
            data = os.read(self._pipe, 1 << 16)
        except BlockingIOError:
            return
        if not data:
            self._selector.unregister(self._pipe)
            return
        self._keep(data)

    def _keep(self, data: bytes) -> None:
        kept = data[: OUTPUT - len(self.output)]
        self.output += kept
        self.dropped += len(data) - len(kept)

    def _answer(self, listener: int) -> None:
        """Answer one system call, and count it: let it go on if it may create a file, else say "not permitted".

        To let a call go on is safe here. What was looked at are its number and flags, by value and by the filter, so no
        other thread can change them; whatever path its pointer shows then, Landlock decides about.
        """
        notice = bytearray(80)  # struct seccomp_notif: id, pid, flags, number, architecture, ip, 6 arguments
        try:
            fcntl.ioctl(listener, _RECEIVE, notice)
            id, _, _, number = struct.unpack_from("=QIIi", notice)
            name = _name(number)
            if name in _CREATING:  # before it is answered: what is not counted must not happen
                self.created += 1
                if self.created > SCRATCH_FILES:
                    raise self._lost("disk", f"more than {SCRATCH_FILES} files were created")
            error, flags = (0, _CONTINUE) if name in _CREATING else (-errno.EPERM, 0)
            fcntl.ioctl(listener, _ANSWER, struct.pack("=QqiI", id, 0, error, flags))
        except OSError:  # the caller was interrupted, or has ended
            waiting = select.poll()
            waiting.register(listener, 0)
            if waiting.poll(0):  # ended: nobody is left who could ask
                self._selector.unregister(listener)
            return
        if name not in _CREATING:
            self.refused[name] += 1
        if self.refused.total() > REFUSALS:
            raise self._lost("refused", f"more than {REFUSALS} system calls that are not allowed")

    # -- the end

    def _gone(self) -> WorkerLost:
        """The channel was closed from the other side: find out how the worker ended."""
        self._drain()
        try:
            status = None if self.pid is None else self._zygote.reap(self.pid, GRACE_SECONDS)
            if status is not None:
                self.pid = None
        finally:
            self.close()
        if status is None:
            return WorkerLost("protocol", "it stopped answering")
        if status == -signal.SIGKILL:
            return WorkerLost("killed", "the system killed it")
        return WorkerLost("crash", "the process crashed" if status < 0 else "the process ended itself")

    def _lost(self, reason: str, detail: str) -> WorkerLost:
        self.close()
        return WorkerLost(reason, detail)


def _write_box(code: Path, scratch: Path, files: dict[str, bytes], user: int | None, *, mode: int) -> None:
    """A folder with the submission's files, and an empty one that the worker, as root that user, may write to.

    mode: of the folder around both.
    """
    code.parent.mkdir(mode=0o700)
    code.parent.chmod(mode)
    code.mkdir()
    write_tree(code, files)
    scratch.mkdir()
    if user is not None and os.geteuid() == 0:
        os.chown(scratch, user, user)


def _builtin_exception(name: object) -> str:
    """The name, if it is one of Python's own exceptions: any other could be made up of hidden inputs."""
    if not isinstance(name, str):
        return "Exception"
    found = getattr(builtins, name, None)
    return name if isinstance(found, type) and issubclass(found, BaseException) else "Exception"


def _name(number: int) -> str:
    """A system call's name."""
    import pyseccomp as seccomp

    try:
        return seccomp.resolve_syscall(seccomp.Arch.NATIVE, number).decode()
    except ValueError:
        return str(number)


# ioctls of the seccomp listener: take a request (80 bytes), give the answer (24 bytes), which may be to go on
_RECEIVE, _ANSWER, _CONTINUE = 0xC0502100, 0xC0182101, 1
_CREATING = ("open", "openat")  # of these the filter asks only for what may create a file
