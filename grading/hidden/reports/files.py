"""Writing reports: where they go, and so that a crash or a full disk never leaves half of one."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from grading.errors import GradingError
from grading.hidden.reports.result import RESERVED


def folder_of(out: Path, submission: str) -> Path:
    """Where a submission's files go. Raises GradingError for a name that is no folder's, or that of another file."""
    try:
        impossible = submission in ("", ".", "..") or re.search(rb"[/\\\0]", os.fsencode(submission))
    except UnicodeEncodeError:
        impossible = True
    if impossible or submission.lower() in RESERVED:
        raise GradingError(f"a submission cannot be called {submission!r}: rename its folder or zip", exit_code=2)
    return out / submission


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file through a temporary one beside it. Raises GradingError when the disk refuses."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())  # NamedTemporaryFile makes private files
        temporary.replace(path)
    except BaseException as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            reason = f"cannot write {path}: {error.strerror}: free some space, or choose another folder"
            raise GradingError(reason) from error
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
