"""Writing files so that a crash, a full disk or Ctrl-C never leaves half of one."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from HW3.plumbing.errors import UserError


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file through a temporary one beside it. Raises UserError when the disk refuses."""
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
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        kept = "; the previous one is intact" if path.is_file() else ""
        raise UserError(
            f"cannot write {path}: {error.strerror}{kept}: free some space, or choose another folder"
        ) from error
    except BaseException:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise


def check_writable(folder: Path) -> None:
    """Raise UserError unless files can be written to the folder, which is made if it is not there."""
    probe = folder / ".writable"
    write_atomically(probe, b"")
    probe.unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
