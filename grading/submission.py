"""The code under test: the three files that students complete, each loaded as grading does it.

That is beside the handout's versions of all other modules, which students have in `grading/originals/`. So a broken
file costs its own functions only, and what works here because another file was changed does not seem to work.
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
_ORIGINALS = ROOT / "grading" / "originals"
GIVEN = _ORIGINALS if _ORIGINALS.is_dir() else ROOT  # the code as it is handed out, which the instructor's tree is

if GIVEN != ROOT:
    sys.path.insert(0, str(GIVEN))

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
    """Import one of FILES. Raises SubmissionError, in one sentence, when it cannot be imported."""
    if not (ROOT / file).is_file():
        raise SubmissionError(f"{file} is missing")
    try:
        original = importlib.import_module(FILES[file])
        return original if GIVEN == ROOT else _in_place_of(original, ROOT / file)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # sys.exit, too
        raise SubmissionError(f"{file} cannot be imported: {describe(error)}") from error


def describe(error: BaseException) -> str:
    """An exception in one sentence, with the line of a syntax error."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__} in {Path(error.filename or '?').name}, line {error.lineno}: {error.msg}"
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def _in_place_of(original: ModuleType, path: Path) -> ModuleType:
    try:
        return execute(original.__name__, path)
    finally:
        sys.modules[original.__name__] = original


def execute(name: str, path: Path) -> ModuleType:
    """Run the file at `path` as the module `name`. What it raises passes through."""
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
