"""The judge's side of the pipe: starts the zygote, asks it for workers, and talks with them as with an enemy.

A worker that does anything but answer one frame when asked is lost (`WorkerLost`), and killed. What it prints is
read and cut; the system calls that its sandbox refuses come here to be answered, and are counted.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import fcntl
import json
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
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from grading.cases import Arrays
from grading.errors import GradingError
from grading.hidden.handout.release import write_tree
from grading.hidden.sandbox.confinement import (
    FIRST_UID,
    TRUNCATION,
    SandboxError,
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
SCRATCH_BYTES, SCRATCH_FILES = 16 << 20, 1000
LOOK_EVERY = 0.25  # seconds between looks at the scratch folder


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


class Zygote:
    """A running zygote. Several threads may ask it for workers.

    enforced: whether its children are confined.  apart: for root where there is no Landlock: they are another user
    without capabilities, whom the permissions of files keep out, and `enforced` is about system calls alone.
    Raises ZygoteError when it cannot start, ZygoteLost when it is killed.
    """

    def __init__(self, folder: Path, *, enforced: bool, apart: bool = False) -> None:
        self.folder, self.enforced, self.apart = folder, enforced, apart
        self._lock = threading.Lock()
        try:
            # Apart, files are protected by their permissions, from being cut as well.
            filter = seccomp_filter(TRUNCATION if apart else landlock_version()) if enforced else None
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
            "filter": filter and {"program": filter.program.hex(), "call": filter.call},
            "apart": apart,
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
        self.pid = answer["ready"]

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

    def close(self) -> None:
        """End it, and with it every worker."""
        self._control.close()
        self._process.kill()
        self._process.wait()
        self._log.close()


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
        self.output, self.dropped, self.refused = b"", 0, Counter[str]()
        self._lines = {file: content.count(b"\n") + 1 for file, content in files.items()}
        self._selector = selectors.DefaultSelector()
        self._listener: int | None = None
        self._box = Path(tempfile.mkdtemp(dir=zygote.folder, prefix="box-"))
        self.scratch = self._box / "scratch"
        code = self._box / "code"
        if zygote.apart:
            self._box.chmod(0o755)
        _write_box(code, self.scratch, files, FIRST_UID + slot if zygote.enforced or zygote.apart else None)
        self._channel, theirs = socket.socketpair()
        self._pipe, output = os.pipe()
        self._channel.setblocking(False)
        os.set_blocking(self._pipe, False)
        request = {"slot": slot, "code": str(code), "scratch": str(self.scratch), "cpu_seconds": cpu_seconds}
        try:
            self.pid: int | None = zygote.ask({"fork": request}, [theirs.fileno(), output])["pid"]
        except ZygoteLost:
            self.pid = None
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
                self._selector.register(self._listener, selectors.EVENT_READ, partial(self._refuse, self._listener))
        if self._zygote.enforced and self._listener is None:
            raise self._lost("start", "the sandbox is not up")

    def request(self, header: dict[str, Any], arrays: Arrays, seconds: float) -> Arrays:
        """Send one frame and wait for its answer. Raises WorkerLost, Failed or ZygoteLost."""
        end = time.monotonic() + seconds
        nonce = secrets.token_hex(16)
        if self._readable():
            raise self._lost("protocol", "data was sent before it was asked for")
        self._write(encode({"nonce": nonce, **header}, arrays), end, seconds)
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
        if self._readable():
            raise self._lost("protocol", "more than one answer was sent")
        self._look_at_scratch()
        if answer.get("ok") is not True:
            text = str(answer.get("text")).encode(errors="replace").decode()  # JSON can hold half a character
            raise Failed(
                judged=answer.get("judged") is True,
                type=_builtin_exception(answer.get("type")),
                line=self._line(header["file"], answer.get("line")),
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
        """End the worker and remove what it wrote."""
        self._end(0.0)

    # -- waiting and reading

    def _wait(self, end: float) -> bool:
        """Serve output and refusals until the channel has something (True) or time is over (False)."""
        while (left := end - time.monotonic()) > 0:
            ready = self._selector.select(min(left, LOOK_EVERY))
            for key, _ in ready:
                if key.data is not None:
                    key.data()
            if any(key.data is None for key, _ in ready):
                return True
            self._look_at_scratch()
        return False

    def _readable(self) -> bool:
        """Whether the worker has sent something. Output and refusals that wait are served first."""
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

    def _write(self, data: bytes, end: float, seconds: float) -> None:
        """Send without waiting for ever on a worker that does not read."""
        view = memoryview(data)
        while view:
            try:
                view = view[self._channel.send(view) :]
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise self._lost("timeout", f"nothing was read within {seconds:g} seconds") from None
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

    def _refuse(self, listener: int) -> None:
        """Answer one refused system call with "not permitted", and count it."""
        notice = bytearray(80)  # struct seccomp_notif: id, pid, flags, number, architecture, ip, 6 arguments
        try:
            fcntl.ioctl(listener, _RECEIVE, notice)
            id, _, _, number = struct.unpack_from("=QIIi", notice)
            fcntl.ioctl(listener, _ANSWER, struct.pack("=QqiI", id, 0, -errno.EPERM, 0))
        except OSError:  # the caller was interrupted, or has ended
            waiting = select.poll()
            waiting.register(listener, 0)
            if waiting.poll(0):  # ended: nobody is left who could ask
                self._selector.unregister(listener)
            return
        self.refused[_name(number)] += 1
        if self.refused.total() > REFUSALS:
            raise self._lost("refused", f"more than {REFUSALS} system calls that are not allowed")

    def _look_at_scratch(self) -> None:
        size = 0
        for files, entry in enumerate(os.scandir(self.scratch), 1):  # flat: the sandbox makes no folders
            with contextlib.suppress(FileNotFoundError):
                size += entry.stat(follow_symlinks=False).st_blocks * 512
            if size > SCRATCH_BYTES or files > SCRATCH_FILES:
                raise self._lost("disk", "too much was written to the scratch folder")

    # -- the end

    def _gone(self) -> WorkerLost:
        """The channel was closed from the other side: find out how the worker ended."""
        self._drain()
        status, killed = self._end(GRACE_SECONDS)
        if killed:
            return WorkerLost("protocol", "it stopped answering")
        if status == -signal.SIGKILL:
            return WorkerLost("killed", "the system killed it")
        return WorkerLost("crash", "the process crashed" if status < 0 else "the process ended itself")

    def _lost(self, reason: str, detail: str) -> WorkerLost:
        self._end(0.0)
        return WorkerLost(reason, detail)

    def _end(self, grace: float) -> tuple[int, bool]:
        """Kill (after `grace`), reap, close, clean up. Returns the exit status and whether it had to be killed."""
        end, pid, self.pid = time.monotonic() + grace, self.pid, None
        try:
            while pid is not None:
                kill = time.monotonic() >= end
                status = self._zygote.ask({"reap": pid, "kill": kill}, [])["status"]
                if status is not None:
                    return status, kill
                time.sleep(0.005)  # here and not in the zygote, which others need
        finally:
            self._close()
        return 0, True

    def _close(self) -> None:
        """Take the rest of the output, close every descriptor and remove the folder; more than once does no harm."""
        if self._channel.fileno() < 0:
            return
        self._selector.close()
        self._channel.close()
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._pipe, 1 << 16):
                self._keep(data)
        os.close(self._pipe)
        if self._listener is not None:
            os.close(self._listener)
        shutil.rmtree(self._box, ignore_errors=True)  # without a sandbox there can be anything; it goes with the run


def _write_box(code: Path, scratch: Path, files: dict[str, bytes], user: int | None) -> None:
    """A folder with the submission's files, and an empty one that the worker, as root that user, may write to."""
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


# ioctls of the seccomp listener: take a request (80 bytes), give the answer (24 bytes)
_RECEIVE, _ANSWER = 0xC0502100, 0xC0182101
