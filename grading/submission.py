"""The code under test: the three files that students complete, each loaded beside sound versions of the others.

A broken file costs its own functions only. `train_tiny_sd.py` imports the other two; when one of them cannot be
imported, it is loaded beside the handout's version of that one, which is kept in `grading/originals/`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ORIGINALS = Path(__file__).parent / "originals"

# file -> module name, in the order of their imports
FILES = {"HW3/vae.py": "HW3.vae", "HW3/diffusion.py": "HW3.diffusion", "train_tiny_sd.py": "train_tiny_sd"}


class SubmissionError(Exception):
    """Something is wrong with the submission's code, in one sentence for its author."""


@dataclass
class Submission:
    """Access to the submission's classes and functions by file and name.

    replaced: (file, qualified name) -> a function that stands in for the submission's own, for tests of the tests.
    modules: the files that are loaded already.
    """

    replaced: dict[tuple[str, str], Callable[..., Any]] = field(default_factory=dict)
    modules: dict[str, ModuleType] = field(default_factory=dict)

    def get(self, file: str, name: str) -> Any:
        """`name` (a function or a class) in `file`. Raises SubmissionError when it is not there."""
        if (file, name) in self.replaced:
            return self.replaced[file, name]
        found = getattr(self._module(file), name, None)
        if found is None:
            raise SubmissionError(f"{file} defines no `{name}`: was it renamed or deleted?")
        methods = {
            key.removeprefix(f"{name}."): function
            for (where, key), function in self.replaced.items()
            if where == file and key.startswith(f"{name}.")
        }
        return type(name, (found,), methods) if methods else found

    def method(self, instance: Any, name: str) -> Callable[..., Any]:
        """A method of one of the submission's objects. Raises SubmissionError when it is not there."""
        found = getattr(instance, name, None)
        if not callable(found):
            raise SubmissionError(f"`{type(instance).__name__}` has no method `{name}`: was it renamed or deleted?")
        return found

    def _module(self, file: str) -> ModuleType:
        if file not in self.modules:
            self.modules[file] = load_file(file)
        return self.modules[file]


def load_file(file: str) -> ModuleType:
    """Import one of FILES. Raises SubmissionError, in one sentence, when that file itself cannot be imported."""
    if not (ROOT / file).is_file():
        raise SubmissionError(f"{file} is missing")
    try:
        return importlib.import_module(FILES[file])
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        others = [other for other in FILES if other != file and _fails(other)]
        if file == "train_tiny_sd.py" and others and ORIGINALS.is_dir():
            return _load_beside_originals(file, others)
        raise SubmissionError(f"{file} cannot be imported: {describe(error)}") from error


def describe(error: BaseException) -> str:
    """An exception in one sentence, with the line of a syntax error."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__} in {Path(error.filename or '?').name}, line {error.lineno}: {error.msg}"
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def _fails(file: str) -> bool:
    try:
        importlib.import_module(FILES[file])
    except (Exception, SystemExit):
        return True
    return False


def _load_beside_originals(file: str, broken: list[str]) -> ModuleType:
    """Import `file` while the modules of `broken` are those of the handout."""
    kept = dict(sys.modules)
    try:
        for name in [name for name in sys.modules if name.partition(".")[0] == "HW3"]:
            del sys.modules[name]
        for other in broken:
            execute(FILES[other], ORIGINALS / other)
        return execute(FILES[file], ROOT / file)
    except Exception as error:
        raise SubmissionError(f"{file} cannot be imported: {describe(error)}") from error
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "HW3"]:
            del sys.modules[name]
        sys.modules.update({name: module for name, module in kept.items() if name.partition(".")[0] == "HW3"})
        sys.modules.pop(FILES[file], None)


def execute(name: str, path: Path) -> ModuleType:
    """Run the file at `path` as the module `name`. What it raises passes through."""
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
