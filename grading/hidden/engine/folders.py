"""The folders of a grading run: one run at a time writes to an output folder, and its workers' files lie elsewhere."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from grading.errors import GradingError

LOCK = ".lock"  # in the output folder, while a run writes to it; says where the workers' files are
WORK = re.compile(r"grading-[0-9a-f]{32}")  # a folder below TMPDIR, whose name a submission cannot guess
REMOVE_SECONDS = 5.0  # for the workers' folder


@contextlib.contextmanager
def only_run(out: Path) -> Iterator[Path]:
    """A new folder for the workers' files. A lock keeps a second run out; what a killed one left is removed."""
    try:
        import fcntl
    except ImportError:
        raise GradingError("grading needs Linux or macOS; on Windows, run it in WSL 2", exit_code=2) from None
    lock = (out / LOCK).open("a+", encoding="utf-8", errors="surrogateescape")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise GradingError(f"another run is writing to {out}: wait for it, or name another folder", 2) from None
    temporary = Path(tempfile.gettempdir()).resolve()
    lock.seek(0)
    if _is_own_work(left := Path(lock.read()), temporary):
        _remove(left)
    work = temporary / f"grading-{secrets.token_hex(16)}"
    lock.truncate(0)
    lock.write(str(work))  # before it is there, so that whoever comes after a killed run knows of it
    lock.flush()
    try:
        work.mkdir(mode=0o700)
        yield work
    finally:
        _remove(work)
        if not work.exists():
            (out / LOCK).unlink(missing_ok=True)
        lock.close()


def _is_own_work(path: Path, temporary: Path) -> bool:
    """Whether this is what an earlier run of this user made for its workers. The path was read from a file in OUT."""
    try:
        info = path.lstat()
    except (OSError, ValueError):
        return False
    is_ours = stat.S_ISDIR(info.st_mode) and stat.S_IMODE(info.st_mode) == 0o700 and info.st_uid == os.geteuid()
    return is_ours and path.parent == temporary and WORK.fullmatch(path.name) is not None


def _remove(folder: Path) -> None:
    """Remove a folder of workers, the last of which may still be ending and writing."""
    end = time.monotonic() + REMOVE_SECONDS
    shutil.rmtree(folder, ignore_errors=True)
    while folder.exists() and time.monotonic() < end:
        time.sleep(0.05)
        shutil.rmtree(folder, ignore_errors=True)
