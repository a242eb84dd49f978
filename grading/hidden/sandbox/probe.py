"""Run by `doctor` in place of a submission: tries what a submission must not, and prints what became of it as JSON.

Each attempt gives the error that stopped it, or "" if nothing did.
"""

import ctypes
import json
import os
import socket
import tempfile
import threading


def _attempt(action) -> str:  # noqa: ANN001
    try:
        action()
    except OSError as error:
        return os.strerror(error.errno or 0)
    except (RuntimeError, MemoryError) as error:
        return type(error).__name__
    return ""


def _fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def _many_threads() -> None:
    ended = threading.Event()
    try:
        for _ in range(2000):
            threading.Thread(target=ended.wait, daemon=True).start()
    finally:
        ended.set()


def _trace() -> None:
    if ctypes.CDLL(None, use_errno=True).ptrace(16, os.getppid(), None, None) != 0:
        raise OSError(ctypes.get_errno(), "")


def _reserve() -> None:
    with open("file", "w") as file:
        if ctypes.CDLL(None, use_errno=True).fallocate(file.fileno(), 1, ctypes.c_long(0), ctypes.c_long(1 << 20)) != 0:
            raise OSError(ctypes.get_errno(), "")


def _write_much() -> None:
    with open("file", "wb") as file:
        file.write(bytes(1 << 20))


print(
    json.dumps(
        {
            "read /etc/passwd": _attempt(lambda: open("/etc/passwd").close()),
            "list /": _attempt(lambda: os.listdir("/")),
            "read /proc of its parent": _attempt(lambda: open(f"/proc/{os.getppid()}/maps").close()),
            "write to the system's temporary folder": _attempt(lambda: tempfile.TemporaryFile(dir="/tmp").close()),
            "write beside its own code": _attempt(lambda: open(__file__ + ".txt", "w").close()),
            "change its own code's mode": _attempt(lambda: os.chmod(__file__, 0o777)),
            "start a process": _attempt(_fork),
            "run a program": _attempt(lambda: os.execv("/bin/true", ["true"])),
            "signal its parent": _attempt(lambda: os.kill(os.getppid(), 0)),
            "trace its parent": _attempt(_trace),
            "open a socket": _attempt(lambda: socket.socket().close()),
            "start 2,000 threads": _attempt(_many_threads),
            "take 8 GB of memory": _attempt(lambda: bytearray(8 << 30)),
            "write a file of 1 MB": _attempt(_write_much),
            "reserve 1 MB beyond a file's end": _attempt(_reserve),
            "make a file without a name": _attempt(lambda: os.close(os.open(".", os.O_TMPFILE | os.O_RDWR))),
            "see the names of results": _attempt(lambda: os.stat("../../../results/ada")),
        }
    )
)
