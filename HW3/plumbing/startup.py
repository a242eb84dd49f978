"""Imported by every script before anything else: what keeps it from starting, in one line instead of a traceback.

That is an old Python, a package that is not installed, or a file of the assignment that Python cannot read. Nothing
here needs a package or a new Python.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import TracebackType

OLDEST = (3, 10)
_ROOT = Path(__file__).resolve().parents[2]
_IMPORTED_AS = {"scikit-learn": "sklearn"}  # where it is not the name in requirements.txt


def explain(error: BaseException) -> str | None:
    """What to do about an error of an import, in one line; None for any other error."""
    if isinstance(error, SyntaxError) and error.filename:
        file = Path(error.filename).resolve()
        if _ROOT in file.parents and ".venv" not in file.parts:
            where = f"{file.relative_to(_ROOT).as_posix()}, line {error.lineno}"
            text = (error.text or "").strip()
            return f"{where}: Python cannot read `{text}` ({error.msg}): correct that line, or the one above it"
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        for needed in ("requirements.txt", "requirements-app.txt"):
            if package in _packages(needed):
                return f"{package} is not installed: pip install -r {needed}, or activate .venv"
    return None


def old_python(version: tuple[int, ...] = sys.version_info[:2]) -> str | None:
    """What to say of a Python that is too old; None of others."""
    if version >= OLDEST:
        return None
    is_, needed = (".".join(map(str, numbers)) for numbers in (version, OLDEST))
    return f"Python {is_} is too old, {needed} is needed"


def _packages(file: str) -> set[str]:
    """What a file of requirements names, as it is imported."""
    lines = (_ROOT / file).read_text(encoding="utf-8").splitlines()
    names = [line.partition("#")[0].partition(">")[0].strip() for line in lines]
    return {_IMPORTED_AS.get(name, name) for name in names if name}


def _script() -> str:
    return Path(sys.argv[0]).name


def _hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    line = explain(error)
    if line is None:
        sys.__excepthook__(kind, error, trace)
    elif os.environ.get("RANK", "0") == "0":  # under torchrun, one says it for all
        print(f"{_script()}: error: {line}", file=sys.stderr)


def _is_one_of_our_scripts() -> bool:
    """Whether this process is `python train_vae.py` or the like, and not a grader or a test that imports the file."""
    main = getattr(sys.modules["__main__"], "__file__", None)
    return main is not None and Path(main).resolve().parent == _ROOT


if _is_one_of_our_scripts():
    if _problem := old_python():
        sys.exit(f"{_script()}: error: {_problem}: make .venv anew with a newer one")
    sys.excepthook = _hook
